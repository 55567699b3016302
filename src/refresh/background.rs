//! Decides when the view is refreshed: at each tick of the schedule, for a tick that was missed, and when the source tables
//! have changed. How often that comes to a refresh over all replicas, Postgres decides: `refresh_treemap_data()` runs once per
//! tick and once per change.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::time::Instant;
use tracing::Instrument;

use super::{Outcome, Reason, refresh_once};
use crate::{
    config::{Policy, Sources},
    metrics::Metrics,
    postgres::{
        Db,
        error::{DbError, Kind},
    },
    retry::{Trouble, backoff::Backoff},
    telemetry::step_span,
    view::last_refreshed,
};

/// The longest sleep: a clock that was set, or a machine that slept, is noticed this soon.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);
/// A look reads two counters and a row of the log.
const LOOK: Duration = Duration::from_secs(5);

/// A change of the source that no refresh has seen yet.
#[derive(Debug, PartialEq)]
struct Change {
    state: Option<String>,
    first_seen: Instant,
    last_changed: Instant,
}

/// Refreshes by `policy` for ever, signing the log as `who`. A failed step is told once per cause, and tried again.
/// `primary` is where it is done and looked at: a standby knows of no changes.
pub async fn keep_fresh(primary: Db, policy: Policy, who: String, mut trouble: Trouble, metrics: Arc<Metrics>) {
    let mut refresher =
        Refresher { primary, policy, who, metrics, handled: None, change: None, next_look: Instant::now() };
    let mut backoff = Backoff::new(Duration::from_millis(500), Kind::TimedOut.longest_pause());
    loop {
        let pause = match refresher.step().await {
            Ok(()) => {
                if let Some(ended) = trouble.over() {
                    tracing::info!(seconds = ended.seconds, failed = ended.failed, "refreshes work again");
                }
                backoff.reset();
                refresher.pause(Timestamp::now())
            }
            Err(error) => {
                refresher.metrics.refresh("failed");
                if let Some(words) = trouble.met(&error).await {
                    tracing::error!("the view is not refreshed, and this is tried again: {words}");
                }
                backoff.pause().min(error.kind.longest_pause())
            }
        };
        tokio::time::sleep(pause).await;
    }
}

struct Refresher {
    primary: Db,
    policy: Policy,
    who: String,
    metrics: Arc<Metrics>,
    /// The last tick that needs nothing more.
    handled: Option<Timestamp>,
    change: Option<Change>,
    next_look: Instant,
}

impl Refresher {
    /// Does what is due now.
    async fn step(&mut self) -> Result<(), DbError> {
        if let Some(due) = self.policy.schedule.as_ref().and_then(|schedule| schedule.last_due(Timestamp::now()))
            && self.handled < Some(due)
        {
            // At the start, a tick that came while nobody was there counts only if the view is older.
            if self.handled.is_some() || self.view_is_older_than(due).await? {
                self.refresh(Reason::Tick(due)).await?;
            }
            self.handled = Some(due);
        }
        if let Some(sources) = self.policy.sources
            && self.next_look <= Instant::now()
        {
            if self.change_is_ripe(sources).await? {
                self.refresh(Reason::SourceChanged).await?;
                self.change = None;
            }
            self.next_look = Instant::now() + sources.interval;
        }
        Ok(())
    }

    /// How long nothing is due.
    fn pause(&self, now: Timestamp) -> Duration {
        let next_tick = self.policy.schedule.as_ref().and_then(|schedule| schedule.next(now));
        let until_tick = next_tick.and_then(|tick| Duration::try_from(tick.duration_since(now)).ok());
        let until_look = self.policy.sources.map(|_| self.next_look.saturating_duration_since(Instant::now()));
        [until_tick, until_look].into_iter().flatten().fold(LONGEST_SLEEP, Duration::min)
    }

    async fn refresh(&self, reason: Reason) -> Result<(), DbError> {
        let session = self.primary.session("refresh the view").await?;
        match refresh_once(&session, reason, Some(&self.who)).instrument(step_span("refresh")).await? {
            Outcome::Refreshed { rows, data_date, seconds } => {
                self.metrics.refreshed(seconds);
                let why = match reason {
                    Reason::Tick(tick) => format!("for the tick of {tick}"),
                    Reason::SourceChanged => "because its source has changed".into(),
                    Reason::ByHand => "by hand".into(),
                };
                let data_date = data_date.map(tracing::field::display);
                tracing::info!(rows, data_date, seconds, "refreshed the view {why}");
            }
            Outcome::AlreadyDone => {
                self.metrics.refresh("already_done");
                tracing::debug!(?reason, "another replica has refreshed the view");
            }
        }
        Ok(())
    }

    async fn view_is_older_than(&self, tick: Timestamp) -> Result<bool, DbError> {
        match last_refreshed(&self.primary).await {
            Ok(refreshed) => Ok(refreshed < Some(tick)),
            // Restored without its rows, say: nobody can be reading it.
            Err(error) if error.kind == Kind::NotPopulated => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Looks at the source, and tells whether a change has waited long enough.
    async fn change_is_ripe(&mut self, sources: Sources) -> Result<bool, DbError> {
        const STATEMENT: &str = "SELECT public.treemap_source_state(), \
            (SELECT source_state FROM public.treemap_refreshes ORDER BY id DESC LIMIT 1)";
        let mut states: (Option<String>, Option<String>) = (None, None);
        self.primary
            .rows("look at the source tables", LOOK, STATEMENT, &[], |row| {
                states = (row.try_get(0)?, row.try_get(1)?);
                Ok(())
            })
            .await?;
        let (state, refreshed) = states;
        let now = Instant::now();
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
