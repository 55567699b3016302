//! The state of the view, and its problems.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use jiff::{
    SignedDuration, Timestamp,
    civil::{Date, Weekday},
};
use serde_json::{Value, json};

use crate::{
    config::Clock,
    migrate,
    postgres::{
        Session,
        error::{DbError, Kind},
    },
    proto::treemap::v1::Treemap,
    treemap::freshness::{Freshness, Tolerance, age},
    view::contents::{Refresh, View},
};

/// Reads some 20 days of reports.
const SOURCE_READ_WITHIN: Duration = Duration::from_secs(30);
/// A day with fewer than one stock for this many of a usual day is a problem.
const FEW: i64 = 2;

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
    /// Whether Postgres counts the changes of the source tables: else only a new day is noticed before the next tick. `None` where the
    /// source was not looked at.
    pub counted: Option<bool>,
    /// Problems that ops should fix, one sentence each; empty when all is well.
    pub problems: Vec<String>,
}

impl Status {
    /// Reads everything that can be read. What else cannot be is a problem.
    ///
    /// Fails: the database cannot be reached, or the role lacks a privilege.
    pub async fn read(session: &Session, tolerance: Tolerance, clock: &Clock) -> Result<Self, DbError> {
        let mut problems = migrate::differences(session).await?;
        if !problems.is_empty() {
            problems.push("repair the above with: treemap migrate".into());
        }
        let view = match View::read(session).await {
            Err(error) if problems.is_empty() => return Err(error),
            view => found(session, view, &mut problems).await?.unwrap_or(View::Foreign),
        };
        let mut refreshes = Vec::new();
        if !matches!(view, View::Missing | View::Foreign) {
            let newest = Refresh::newest(session).await;
            refreshes = found(session, newest, &mut problems).await?.unwrap_or_default();
        }
        let mut counted = None;
        match &view {
            // The differences already include these.
            View::Missing | View::Foreign => {}
            View::Unpopulated => problems.push("the view was never filled; fill it with: treemap refresh".into()),
            View::Populated(contents) => {
                problems.extend(staleness(contents.freshness, tolerance));
                let source = Source::read(session).await;
                match found(session, source, &mut problems).await?.flatten() {
                    Some(source) => {
                        counted = Some(!source.uncounted);
                        problems.extend(source.problems(contents.freshness.data_date));
                    }
                    None if contents.freshness.future_rows > 0 => problems.push(format!(
                        "{} rows of shorts had a date in the future at the last refresh, and are left out of the view",
                        contents.freshness.future_rows
                    )),
                    None => {}
                }
            }
        }
        let now = Timestamp::now();
        let today = now.to_zoned(clock.zone.clone()).date();
        let lag =
            view.contents().and_then(|contents| contents.freshness.data_date).map(|date| trading_days(date, today));
        let next_tick = clock.schedule.as_ref().and_then(|schedule| schedule.next(now));
        Ok(Self { view, refreshes, next_tick, lag, counted, problems })
    }

    /// Compares with what a server serves, or with why it does not.
    pub fn compare(&mut self, server: &str, answer: Result<Treemap, String>) {
        let held = self.view.contents().map(|contents| contents.freshness).unwrap_or_default();
        match answer {
            Err(problem) => self.problems.push(format!("the server at {server} does not answer: {problem}")),
            Ok(treemap) => {
                let instant = treemap.refreshed_at.and_then(|at| Timestamp::new(at.seconds, at.nanos).ok());
                if instant != held.last_refreshed {
                    let words = |at: Option<Timestamp>| at.map_or_else(|| "no refresh".into(), |at| format!("{at:.0}"));
                    self.problems.push(format!(
                        "the server at {server} serves the refresh of {}, and the view holds that of {}: does it use this database, and can it reach it?",
                        words(instant),
                        words(held.last_refreshed)
                    ));
                }
            }
        }
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
            "source_changes_counted": self.counted,
            "refreshes": refreshes.collect::<Vec<_>>(),
        })
    }
}

/// What a look found. `None` where it failed, with its reason as a problem: the others still have their turn.
async fn found<T>(
    session: &Session,
    look: Result<T, DbError>,
    problems: &mut Vec<String>,
) -> Result<Option<T>, DbError> {
    match look {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind == Kind::Unreachable || session.client().batch_execute("ROLLBACK").await.is_err() => {
            Err(error)
        }
        Err(error) => {
            problems.push(error.to_string());
            Ok(None)
        }
    }
}

/// The source tables as they are now.
struct Source {
    /// The newest day that is not in the future.
    newest: Option<Date>,
    /// How many stocks that day has, and how many a day has usually.
    stocks: Option<i64>,
    usual_stocks: Option<i64>,
    /// The newest day in the view.
    newest_figures: Option<Date>,
    /// Rows of the last 30 days with a time of day in their date.
    timed_rows: i64,
    /// Rows with a date in the future: how many, the first date and the last, as Postgres writes them.
    future: Option<(i64, String, String)>,
    /// The last refresh has seen all changes that are counted.
    seen: bool,
    /// Changes are not counted.
    uncounted: bool,
}

impl Source {
    /// `None` where the role may not look, or an earlier version has no such function.
    async fn read(session: &Session) -> Result<Option<Self>, DbError> {
        const MAY: &str = "SELECT coalesce(\
            has_function_privilege(to_regprocedure('public.treemap_source_facts()'), 'EXECUTE'), false)";
        const FACTS: &str = "SELECT * FROM public.treemap_source_facts()";
        session
            .read("look at the source tables", SOURCE_READ_WITHIN, async {
                if !session.client().query_typed_one(MAY, &[]).await?.try_get::<_, bool>(0)? {
                    return Ok(None);
                }
                let row = session.client().query_typed_one(FACTS, &[]).await?;
                let future: i64 = row.try_get("future_rows")?;
                let future = match (future, row.try_get("future_first")?, row.try_get("future_last")?) {
                    (1.., Some(first), Some(last)) => Some((future, first, last)),
                    _ => None,
                };
                Ok(Some(Self {
                    newest: row.try_get("newest")?,
                    stocks: row.try_get("newest_stocks")?,
                    usual_stocks: row.try_get("usual_stocks")?,
                    newest_figures: row.try_get("newest_figures")?,
                    timed_rows: row.try_get("timed_rows")?,
                    future,
                    seen: row.try_get("seen")?,
                    uncounted: row.try_get("uncounted")?,
                }))
            })
            .await
    }

    /// What people should look at, where the view holds data up to `served`.
    fn problems(&self, served: Option<Date>) -> Vec<String> {
        let mut problems = Vec::new();
        if let Some((rows, first, last)) = &self.future {
            problems.push(format!(
                "{rows} rows of shorts have a date in the future, {first} to {last}, and are left out of the view; correct or delete them"
            ));
        }
        if let (Some(newest), Some(stocks), Some(usual)) = (self.newest, self.stocks, self.usual_stocks)
            && stocks * FEW < usual
        {
            problems.push(format!(
                "the newest day, {newest}, has {stocks} stocks, where a day has {usual} usually: was its report cut off? Load it again"
            ));
        }
        if let (Some(figures), Some(served)) = (self.newest_figures, served)
            && figures < served
        {
            problems.push(format!(
                "no stock has a position on {served}, the newest day, and all figures are of {figures} or before: \
                 are its percents empty or unreadable? Load it again"
            ));
        }
        if self.timed_rows > 0 {
            problems.push(format!(
                "{} rows of shorts in the last 30 days have a time of day in \"DATE\", and are doubled when their day is loaded again; \
                 set it to midnight",
                self.timed_rows
            ));
        }
        if self.seen && self.newest > served {
            let (newest, served) = (words_of(self.newest), words_of(served));
            problems.push(format!(
                "shorts has reports up to {newest} and the view up to {served}, though no change was counted since its last refresh; \
                 refresh it with: treemap refresh"
            ));
        }
        problems
    }
}

fn words_of(date: Option<Date>) -> String {
    date.map_or_else(|| "no day".into(), |date| date.to_string())
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
