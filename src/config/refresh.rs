//! The maximum age of the view and of its data, and when the view is refreshed.

use std::time::Duration;

use jiff::tz::TimeZone;

use super::{INTERVALS, Problems, duration, unless_off};
use crate::{schedule::Schedule, treemap::freshness::Tolerance};

/// The ends of a maximum age. A century: never stale.
const AGES: [&str; 2] = ["1ms", "36500d"];

/// The maximum ages: shared by `serve`, which marks stale answers, and `status`, which fails.
#[derive(Debug, clap::Args)]
pub struct ToleranceArgs {
    /// The view is stale when its last refresh is older than this
    #[arg(long, env = "TREEMAP_MAX_AGE", default_value = "26h", value_name = "DURATION")]
    max_age: String,
    /// The data is stale when the newest report is older than this (reports come four trading days late, or more)
    #[arg(long, env = "TREEMAP_MAX_DATA_AGE", default_value = "14d", value_name = "DURATION")]
    max_data_age: String,
}

/// When refreshes are due: shared by `serve`, which runs them, and `status`, which shows the next one.
#[derive(Debug, clap::Args)]
pub struct ScheduleArgs {
    /// When to refresh, as a cron pattern (minute hour day month weekday); off: no scheduled refresh
    #[arg(long, env = "TREEMAP_REFRESH_SCHEDULE", default_value = "0 3 * * *", value_name = "CRON")]
    refresh_schedule: String,
    /// The time zone of the schedule, and of trading days
    #[arg(long, env = "TREEMAP_REFRESH_TIMEZONE", default_value = "Australia/Sydney", value_name = "ZONE")]
    refresh_timezone: String,
}

/// How changes of the source tables lead to a refresh.
#[derive(Debug, clap::Args)]
pub struct SourceArgs {
    /// How often to check the source tables for changes; off: never
    #[arg(long, env = "TREEMAP_SOURCE_INTERVAL", default_value = "30s", value_name = "DURATION")]
    source_interval: String,
    /// After a change, refresh when no further change was seen for this long
    #[arg(long, env = "TREEMAP_SOURCE_QUIET", default_value = "60s", value_name = "DURATION")]
    source_quiet: String,
    /// Refresh at the latest this long after the first change, even if changes continue
    #[arg(long, env = "TREEMAP_SOURCE_LONGEST_WAIT", default_value = "30m", value_name = "DURATION")]
    source_longest_wait: String,
}

/// The schedule and its time zone.
#[derive(Debug)]
pub struct Clock {
    /// When refreshes are due; `None` when switched off.
    pub schedule: Option<Schedule>,
    /// The time zone of the schedule and of trading days.
    pub zone: TimeZone,
}

/// When to refresh.
#[derive(Debug, Clone)]
pub struct RefreshConfig {
    /// The ticks at which to refresh; `None` when switched off.
    pub schedule: Option<Schedule>,
    /// Refreshes after changes of the source; `None` when switched off.
    pub sources: Option<SourceConfig>,
}

/// How changes of the source tables lead to a refresh.
#[derive(Debug, Clone, Copy)]
pub struct SourceConfig {
    /// The time between two checks of the counters in Postgres.
    pub interval: Duration,
    /// How long the source must be unchanged before the view is refreshed: a loader may still be running.
    pub quiet: Duration,
    /// The longest time from the first change to the refresh.
    pub longest_wait: Duration,
}

impl ToleranceArgs {
    /// Both durations. Fails when one is not a duration.
    pub fn check(&self) -> Result<Tolerance, Problems> {
        Problems::or(|problems| self.read(problems))
    }

    pub(super) fn read(&self, problems: &mut Problems) -> Option<Tolerance> {
        let view = problems.note(duration("TREEMAP_MAX_AGE", &self.max_age, AGES));
        let data = problems.note(duration("TREEMAP_MAX_DATA_AGE", &self.max_data_age, AGES));
        Some(Tolerance { view: view?, data: data? })
    }
}

impl ScheduleArgs {
    /// The schedule and its zone. Fails when one of them cannot be used.
    pub fn check(&self) -> Result<Clock, Problems> {
        Problems::or(|problems| self.read(problems))
    }

    pub(super) fn read(&self, problems: &mut Problems) -> Option<Clock> {
        let zone = problems.note(TimeZone::get(self.refresh_timezone.trim()).map_err(|_| {
            format!(
                "TREEMAP_REFRESH_TIMEZONE is {:?}; expected a name of the time zone database, as Australia/Sydney",
                self.refresh_timezone
            )
        }));
        let schedule = unless_off(&self.refresh_schedule).map(|pattern| {
            Schedule::parse(pattern, zone.clone().unwrap_or(TimeZone::UTC)).map_err(|reason| {
                format!(
                    "TREEMAP_REFRESH_SCHEDULE is {pattern:?}: {reason}; expected minute, hour, day, month and weekday, \
                     as 0 3 * * *, or off"
                )
            })
        });
        let schedule = schedule.map_or(Some(None), |schedule| problems.note(schedule).map(Some));
        Some(Clock { schedule: schedule?, zone: zone? })
    }
}

impl SourceArgs {
    /// `Some(None)` when switched off.
    #[expect(clippy::option_option, reason = "refused, switched off, or set")]
    pub(super) fn read(&self, problems: &mut Problems) -> Option<Option<SourceConfig>> {
        let quiet = problems.note(duration("TREEMAP_SOURCE_QUIET", &self.source_quiet, ["100ms", "1d"]));
        let longest_wait =
            problems.note(duration("TREEMAP_SOURCE_LONGEST_WAIT", &self.source_longest_wait, ["1s", "7d"]));
        let interval = match unless_off(&self.source_interval) {
            None => Some(None),
            Some(text) => problems.note(duration("TREEMAP_SOURCE_INTERVAL", text, INTERVALS)).map(Some),
        };
        let (quiet, longest_wait) = (quiet?, longest_wait?);
        Some(interval?.map(|interval| SourceConfig { interval, quiet, longest_wait }))
    }
}
