//! How old the data is, and how old is too old.

use std::time::{Duration, SystemTime};

use jiff::{SignedDuration, Timestamp, civil::Date, tz::TimeZone};

/// When the view was refreshed and how far its reports reach. `None` where the view has no rows that could tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Freshness {
    /// The view's `last_refreshed`.
    pub last_refreshed: Option<Timestamp>,
    /// The anchor: the date of the newest report that is not in the future.
    pub data_date: Option<Date>,
    /// Rows of the source with a date in the future, which the view leaves out.
    pub future_rows: i64,
}

/// How old an answer may be before it is stale.
#[derive(Debug, Clone, Copy)]
pub struct Tolerance {
    /// Since the view was refreshed.
    pub view: Duration,
    /// Since the newest report, counted from the start of its day in UTC.
    pub data: Duration,
}

impl Freshness {
    /// The start of the data date in UTC.
    pub fn data_start(&self) -> Option<Timestamp> {
        Some(self.data_date?.to_zoned(TimeZone::UTC).ok()?.timestamp())
    }

    /// The time since the refresh.
    pub fn view_age(&self) -> Option<SignedDuration> {
        self.last_refreshed.map(age)
    }

    /// The time since the start of the data date.
    pub fn data_age(&self) -> Option<SignedDuration> {
        self.data_start().map(age)
    }

    /// The instant from which the view is stale. The beginning of time when its age is unknown.
    pub fn view_stale_from(&self, tolerance: Tolerance) -> SystemTime {
        stale_from(self.last_refreshed, tolerance.view)
    }

    /// The instant from which the data is stale. The beginning of time when its age is unknown.
    pub fn data_stale_from(&self, tolerance: Tolerance) -> SystemTime {
        stale_from(self.data_start(), tolerance.data)
    }
}

fn stale_from(start: Option<Timestamp>, allowed: Duration) -> SystemTime {
    start.map_or(SystemTime::UNIX_EPOCH, |start| SystemTime::from(start) + allowed)
}

/// The time since `instant`, by the clock of this machine.
pub fn age(instant: Timestamp) -> SignedDuration {
    Timestamp::try_from(SystemTime::now()).map_or(SignedDuration::ZERO, |now| now.duration_since(instant))
}
