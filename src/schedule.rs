//! When a refresh is due: a cron pattern in a time zone. The croner library handles daylight saving: a wall-clock time
//! that is skipped in spring runs at the first instant after the gap; a time that comes twice in autumn runs once.

use croner::{
    Cron,
    parser::{CronParser, Seconds, Year},
};
use jiff::{Timestamp, tz::TimeZone};

/// A cron pattern that fires again, and its time zone.
#[derive(Debug, Clone)]
pub struct Schedule {
    cron: Cron,
    zone: TimeZone,
}

impl Schedule {
    /// Parses a pattern of five fields (minute, hour, day, month, weekday), or of six with seconds in front.
    ///
    /// Fails: the text is not a pattern, or the pattern never fires.
    pub fn parse(pattern: &str, zone: TimeZone) -> Result<Self, String> {
        let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
        let cron = parser.parse(pattern.trim()).map_err(|error| error.to_string())?;
        let schedule = Self { cron, zone };
        schedule.next(Timestamp::now()).map(|_| schedule).ok_or_else(|| "it never fires".into())
    }

    /// The first tick after `instant`.
    pub fn next(&self, instant: Timestamp) -> Option<Timestamp> {
        self.cron.find_next_occurrence(&instant.to_zoned(self.zone.clone()), false).ok().map(|tick| tick.timestamp())
    }

    /// The last tick at or before `instant`. Ticks are the same on every replica, even when their clocks differ.
    pub fn last_due(&self, instant: Timestamp) -> Option<Timestamp> {
        self.cron.find_previous_occurrence(&instant.to_zoned(self.zone.clone()), true).ok().map(|tick| tick.timestamp())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sydney(pattern: &str) -> Schedule {
        Schedule::parse(pattern, TimeZone::get("Australia/Sydney").unwrap()).unwrap()
    }

    /// The ticks between two instants, computed in two ways that must agree: by `next`, and by `last_due` each minute.
    fn ticks(schedule: &Schedule, from: &str, until: &str) -> Vec<String> {
        let (from, until): (Timestamp, Timestamp) = (from.parse().unwrap(), until.parse().unwrap());
        let forward: Vec<_> = std::iter::successors(schedule.next(from), |tick| schedule.next(*tick))
            .take_while(|tick| *tick <= until)
            .collect();
        let mut watched = Vec::new();
        let mut now = from;
        while now <= until {
            if let Some(due) = schedule.last_due(now).filter(|due| *due > from && watched.last() < Some(due)) {
                watched.push(due);
            }
            now += jiff::SignedDuration::from_secs(60);
        }
        assert_eq!(forward, watched);
        forward.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_default_runs_once_a_day_through_both_changes_of_the_clock_in_sydney() {
        let schedule = sydney("0 3 * * *");
        // The clock goes from 02:00 to 03:00 on 4 October 2026: 03:00 comes an hour sooner.
        assert_eq!(
            ticks(&schedule, "2026-10-02T00:00:00Z", "2026-10-05T00:00:00Z"),
            ["2026-10-02T17:00:00Z", "2026-10-03T16:00:00Z", "2026-10-04T16:00:00Z"]
        );
        // And back from 03:00 to 02:00 on 4 April 2027.
        assert_eq!(
            ticks(&schedule, "2027-04-02T00:00:00Z", "2027-04-05T00:00:00Z"),
            ["2027-04-02T16:00:00Z", "2027-04-03T17:00:00Z", "2027-04-04T17:00:00Z"]
        );
    }

    #[test]
    fn a_time_that_the_clock_skips_runs_after_the_gap_and_one_that_it_repeats_runs_once() {
        let schedule = sydney("30 2 * * *");
        assert_eq!(
            ticks(&schedule, "2026-10-02T00:00:00Z", "2026-10-05T00:00:00Z"),
            ["2026-10-02T16:30:00Z", "2026-10-03T16:00:00Z", "2026-10-04T15:30:00Z"]
        );
        assert_eq!(
            ticks(&schedule, "2027-04-02T00:00:00Z", "2027-04-05T00:00:00Z"),
            ["2027-04-02T15:30:00Z", "2027-04-03T15:30:00Z", "2027-04-04T16:30:00Z"]
        );
    }

    #[test]
    fn weekdays_are_counted_from_sunday() {
        // 22 November 2026 is a Sunday.
        assert_eq!(
            ticks(&sydney("0 3 * * 1"), "2026-11-21T13:00:00Z", "2026-11-29T13:00:00Z"),
            ["2026-11-22T16:00:00Z"]
        );
    }

    #[test]
    fn what_is_no_pattern_or_never_fires_is_refused() {
        for pattern in ["", "often", "* * * *", "61 * * * *", "0 9 31 2 *", "* * * * * * 2030"] {
            assert!(Schedule::parse(pattern, TimeZone::UTC).is_err(), "{pattern:?}");
        }
        assert!(Schedule::parse("0 9 31 2 *", TimeZone::UTC).unwrap_err().contains("never fires"));
    }
}
