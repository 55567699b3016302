//! The state of the view, and its problems.

use std::{collections::HashMap, time::SystemTime};

use jiff::{
    SignedDuration, Timestamp,
    civil::{Date, Weekday},
};
use serde_json::{Value, json};

use crate::{
    config::Clock,
    migrate,
    postgres::{Session, error::DbError},
    treemap::freshness::{Freshness, Tolerance, age},
    view::contents::{Refresh, View},
};

/// Everything that `treemap status` shows.
#[derive(Debug)]
pub struct Status {
    /// What the view holds.
    pub view: View,
    /// The newest refreshes, newest first.
    pub refreshes: Vec<Refresh>,
    /// The next tick of the schedule; `None` when it is switched off.
    pub next_tick: Option<Timestamp>,
    /// How many trading days the newest report is behind today.
    pub lag: Option<usize>,
    /// Problems that ops should fix, one sentence each; empty when all is well.
    pub problems: Vec<String>,
}

impl Status {
    /// Reads everything.
    ///
    /// Fails: the database cannot be reached, or the role lacks a privilege.
    pub async fn read(session: &Session, tolerance: Tolerance, clock: &Clock) -> Result<Self, DbError> {
        let view = View::read(session).await?;
        let refreshes =
            if let View::Missing | View::Foreign = view { Vec::new() } else { Refresh::newest(session).await? };
        let mut problems = migrate::differences(session).await?;
        if !problems.is_empty() {
            problems.push("mend the above with: treemap migrate".into());
        }
        match &view {
            // The differences already include these.
            View::Missing | View::Foreign => {}
            View::Unpopulated => problems.push("the view was never filled; fill it with: treemap refresh".into()),
            View::Populated(contents) => problems.extend(staleness(contents.freshness, tolerance)),
        }
        let now = Timestamp::now();
        let today = now.to_zoned(clock.zone.clone()).date();
        let lag =
            view.contents().and_then(|contents| contents.freshness.data_date).map(|date| trading_days(date, today));
        let next_tick = clock.schedule.as_ref().and_then(|schedule| schedule.next(now));
        Ok(Self { view, refreshes, next_tick, lag, problems })
    }

    /// The status as JSON.
    pub fn json(&self) -> Value {
        let contents = self.view.contents();
        let freshness = contents.map(|contents| contents.freshness).unwrap_or_default();
        let text = |instant: Option<Timestamp>| instant.map(|instant| instant.to_string());
        let date = |date: Option<Date>| date.map(|date| date.to_string());
        let refreshes = self.refreshes.iter().map(|refresh| {
            json!({
                "id": refresh.id,
                "tick": text(refresh.tick),
                "started_at": refresh.started_at.to_string(),
                "seconds": refresh.seconds(),
                "rows": refresh.rows,
                "data_date": date(refresh.data_date),
                "who": refresh.who,
            })
        });
        json!({
            "well": self.problems.is_empty(),
            "problems": self.problems,
            "view": self.view.state(),
            "rows": contents.map(|contents| contents.rows),
            "industries": contents.map(|contents| contents.industries),
            "periods": contents.map(|contents| contents.periods.iter().cloned().collect::<HashMap<_, _>>()),
            "last_refreshed": text(freshness.last_refreshed),
            "age_seconds": freshness.last_refreshed.map(|instant| age(instant).as_secs()),
            "data_date": date(freshness.data_date),
            "data_lag_trading_days": self.lag,
            "next_tick": text(self.next_tick),
            "refreshes": refreshes.collect::<Vec<_>>(),
        })
    }
}

fn staleness(freshness: Freshness, tolerance: Tolerance) -> Vec<String> {
    let (Some(view_age), Some(data_age), Some(data_date)) =
        (freshness.view_age(), freshness.data_age(), freshness.data_date)
    else {
        return vec!["the view holds no stocks; load reports and a company list, then: treemap refresh".into()];
    };
    let allowed = |duration| SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX);
    let now = SystemTime::now();
    let mut stale = Vec::new();
    if now >= freshness.view_stale_from(tolerance) {
        stale.push(format!(
            "the view was last refreshed {} ago, and may be {} old; refresh it with: treemap refresh",
            words(view_age),
            words(allowed(tolerance.view))
        ));
    }
    if now >= freshness.data_stale_from(tolerance) {
        stale.push(format!(
            "the newest report is of {data_date}, {} ago, and may be {} old; load newer ones with: treemap load shorts",
            words(data_age),
            words(allowed(tolerance.data))
        ));
    }
    stale
}

/// The number of weekdays after `date` up to and including `today`, both in the time zone of the exchange. Public
/// holidays are counted too: the service has no calendar of them.
pub fn trading_days(date: Date, today: Date) -> usize {
    let days = date.series(jiff::ToSpan::days(1)).skip(1).take_while(|day| *day <= today);
    days.filter(|day| !matches!(day.weekday(), Weekday::Saturday | Weekday::Sunday)).count()
}

/// A duration in whole seconds, minutes, hours or days, for people to read.
pub fn words(duration: SignedDuration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        ..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    #[test]
    fn the_lag_counts_weekdays() {
        let friday = date(2026, 11, 20);
        assert_eq!(trading_days(friday, friday), 0);
        assert_eq!(trading_days(friday, date(2026, 11, 22)), 0);
        assert_eq!(trading_days(friday, date(2026, 11, 23)), 1);
        assert_eq!(trading_days(friday, date(2026, 11, 30)), 6);
        assert_eq!(trading_days(friday, date(2026, 11, 19)), 0, "a report of tomorrow is not behind");
    }
}
