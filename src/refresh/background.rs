//! When the view is refreshed: at each tick of the schedule, for a tick that was missed, and when the source tables
//! have changed. How often that is one refresh over all replicas, Postgres decides: `refresh_treemap_data()` refreshes once per
//! tick and once per change.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::time::Instant;
use tracing::Instrument;

use super::{Outcome, Reason, refresh_once};
use crate::{
    config::{RefreshConfig, SourceConfig},
    metrics::{Metrics, RefreshResult},
    postgres::{
        Db,
        error::{DbError, Kind},
    },
    retry::{FailureLog, backoff::Backoff},
    telemetry::step_span,
    view::last_refreshed,
};

/// The longest sleep: a clock that was set, a machine that slept, or a view that was emptied is noticed this soon.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);
/// Reads two counters and a row of the log.
const SOURCE_STATE_WITHIN: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// A change of the source that no refresh has seen yet.
#[derive(Debug, PartialEq)]
struct Change {
    state: Option<String>,
    first_seen: Instant,
    last_changed: Instant,
}

/// Refreshes as `config` says, for ever, and signs the log as `who`. A failed step is logged once per cause, and retried.
/// `primary` is where it refreshes and looks: a standby has no counters of changes.
pub async fn keep_fresh(
    primary: Db,
    config: RefreshConfig,
    who: String,
    mut failures: FailureLog,
    metrics: Arc<Metrics>,
) {
    let mut turns = vec![Turn::of(Cause::Schedule)];
    turns.extend(config.sources.map(|sources| Turn::of(Cause::Source(sources))));
    let mut refreshes = Refreshes { primary, config, who, metrics, last_handled: None, change: None, uncounted: false };
    let log = |words: &str| tracing::error!("cannot keep the view fresh; retrying: {words}");
    loop {
        failures.attempt(log);
        for turn in &mut turns {
            if turn.at > Instant::now() {
                continue;
            }
            let next = match turn.cause {
                Cause::Schedule => refreshes.fill_and_tick().await,
                Cause::Source(sources) => refreshes.look_at_the_source(sources).await,
            };
            turn.failing = next.is_err();
            let pause = next.inspect(|_| turn.backoff.reset()).unwrap_or_else(|error| {
                refreshes.metrics.refresh(RefreshResult::Failed);
                failures.failed(&error, log);
                turn.backoff.pause(error.kind.longest_pause())
            });
            turn.at = Instant::now() + pause;
        }
        if !turns.iter().any(|turn| turn.failing)
            && let Some(ended) = failures.succeeded()
        {
            tracing::info!(seconds = ended.seconds, failed = ended.attempts, "refreshes work again");
        }
        let next = turns.iter().map(|turn| turn.at.saturating_duration_since(Instant::now())).min();
        if refreshes.primary.pause(next.unwrap_or(LONGEST_SLEEP)).await {
            turns.iter_mut().filter(|turn| turn.failing).for_each(Turn::again);
        }
    }
}

/// Why the view may have to be refreshed, looked at on its own: a cause that fails does not keep the other from its turn.
struct Turn {
    cause: Cause,
    at: Instant,
    failing: bool,
    backoff: Backoff,
}

#[derive(Clone, Copy)]
enum Cause {
    /// It is not filled, or a tick of the schedule is due.
    Schedule,
    /// The source tables have changed.
    Source(SourceConfig),
}

impl Turn {
    fn of(cause: Cause) -> Self {
        Self { cause, at: Instant::now(), failing: false, backoff: Backoff::new(FIRST_PAUSE) }
    }

    /// Has its turn at once, as if it had never failed.
    fn again(&mut self) {
        self.at = Instant::now();
        self.backoff.reset();
    }
}

struct Refreshes {
    primary: Db,
    config: RefreshConfig,
    who: String,
    metrics: Arc<Metrics>,
    /// The last tick that needs nothing more.
    last_handled: Option<Timestamp>,
    change: Option<Change>,
    /// Whether it was logged that changes are not counted.
    uncounted: bool,
}

impl Refreshes {
    /// Fills a view that is not filled, and refreshes for a tick that is due. Gives how long no other is.
    async fn fill_and_tick(&mut self) -> Result<Duration, DbError> {
        let due = self.config.schedule.as_ref().and_then(|schedule| schedule.last_due(Timestamp::now()));
        let due = due.filter(|due| self.last_handled < Some(*due));
        let tick = match due {
            Some(due) if self.last_handled.is_some() => Some(due),
            // At the start, a tick of an earlier time counts only if the view is older.
            _ => {
                let refreshed = self.filled().await?;
                due.filter(|due| refreshed < Some(*due))
            }
        };
        if let Some(tick) = tick {
            self.refresh(Reason::Tick(tick)).await?;
        }
        self.last_handled = due.or(self.last_handled);
        let now = Timestamp::now();
        let next = self.config.schedule.as_ref().and_then(|schedule| schedule.next(now));
        let until = next.and_then(|tick| Duration::try_from(tick.duration_since(now)).ok());
        Ok(until.map_or(LONGEST_SLEEP, |until| until.min(LONGEST_SLEEP)))
    }

    /// Fills the view, if it is not filled. Gives when it was refreshed last.
    async fn filled(&self) -> Result<Option<Timestamp>, DbError> {
        match last_refreshed(&self.primary).await {
            // Nobody can be reading it, whatever the log says of earlier refreshes.
            Err(error) if error.kind == Kind::NotPopulated => {
                self.refresh(Reason::NeverFilled).await?;
                last_refreshed(&self.primary).await
            }
            read => read,
        }
    }

    /// Refreshes for a change of the source that has waited long enough. Gives how long not to look again.
    async fn look_at_the_source(&mut self, sources: SourceConfig) -> Result<Duration, DbError> {
        if self.change_is_due(sources).await? {
            self.refresh(Reason::SourceChanged).await?;
            self.change = None;
        }
        Ok(sources.interval)
    }

    async fn refresh(&self, reason: Reason) -> Result<(), DbError> {
        let session = self.primary.session("refresh the view").await?;
        match refresh_once(&session, reason, Some(&self.who)).instrument(step_span("refresh")).await? {
            Outcome::Refreshed { rows, data_date, seconds } => {
                self.metrics.refresh(RefreshResult::Refreshed);
                self.metrics.refresh_took(seconds);
                let why = match reason {
                    Reason::Tick(tick) => format!("for the tick of {tick}"),
                    Reason::SourceChanged => "because its source has changed".into(),
                    Reason::NeverFilled => "because it was never filled".into(),
                    Reason::ByHand => "by hand".into(),
                };
                let data_date = data_date.map(tracing::field::display);
                tracing::info!(rows, data_date, seconds, "refreshed the view {why}");
            }
            Outcome::AlreadyDone => {
                self.metrics.refresh(RefreshResult::AlreadyDone);
                tracing::debug!(?reason, "another replica has refreshed the view");
            }
        }
        Ok(())
    }

    /// Looks at the source; true when a change of it has waited long enough.
    async fn change_is_due(&mut self, sources: SourceConfig) -> Result<bool, DbError> {
        // What the view holds is what the row of the log with the same last_refreshed has computed; others may be of another database.
        const STATEMENT: &str = "SELECT public.treemap_source_state(), (SELECT source_state FROM public.treemap_refreshes \
            WHERE last_refreshed IS NOT DISTINCT FROM (SELECT max(last_refreshed) FROM public.mv_treemap_data) \
            ORDER BY finished_at DESC LIMIT 1)";
        let mut states: (Option<String>, Option<String>) = (None, None);
        self.primary
            .rows("look at the source tables", SOURCE_STATE_WITHIN, STATEMENT, &[], |row| {
                states = (row.try_get(0)?, row.try_get(1)?);
                Ok(())
            })
            .await?;
        let (state, refreshed) = states;
        let now = Instant::now();
        if !self.uncounted && state.as_deref().is_some_and(|state| state.contains("uncounted")) {
            self.uncounted = true;
            tracing::warn!(
                "Postgres does not count the changes of a source table (a foreign table, a function, Citus, or track_counts \
                 is off): a new day is noticed, and a change of an older one only by the next tick of the schedule"
            );
        }
        if state == refreshed {
            self.change = None;
            return Ok(false);
        }
        let change = self.change.get_or_insert(Change { state: None, first_seen: now, last_changed: now });
        if change.state != state {
            change.state = state;
            change.last_changed = now;
        }
        Ok(now - change.last_changed >= sources.quiet || now - change.first_seen >= sources.longest_wait)
    }
}
