//! A failure that lasts: told once when it begins and once when it ends, however many loops run into it, and however
//! often each of them tries.

pub mod backoff;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout},
};

use crate::postgres::error::{DbError, Kind};

/// How long a loop waits to hear what the database says to another. A look that is not back by then is not the good news.
const PATIENCE: Duration = Duration::from_secs(8);

/// Whether the database is out of reach. The loop that reads from it finds out and tells; the others have it look, and
/// keep quiet about what it tells.
#[derive(Debug)]
pub struct Outage {
    looks_begun: AtomicU64,
    last_look: watch::Sender<Look>,
    look_again: Arc<Notify>,
}

#[derive(Debug, Clone, Copy)]
struct Look {
    number: u64,
    answered: bool,
}

impl Outage {
    /// An outage that is found out by whoever `look_again` wakes.
    #[must_use]
    pub fn new(look_again: Arc<Notify>) -> Self {
        let last_look = watch::Sender::new(Look { number: 0, answered: true });
        Self { looks_begun: AtomicU64::new(0), last_look, look_again }
    }

    fn look_begins(&self) {
        self.looks_begun.fetch_add(1, Ordering::Relaxed);
    }

    fn look_ended(&self, answered: bool) {
        self.last_look.send_replace(Look { number: self.looks_begun.load(Ordering::Relaxed), answered });
    }

    /// Whether the database answers a look that begins now.
    async fn answers(&self) -> bool {
        let mut last_look = self.last_look.subscribe();
        if !last_look.borrow().answered {
            return false;
        }
        let begun = self.looks_begun.load(Ordering::Relaxed);
        self.look_again.notify_one();
        let later = timeout(PATIENCE, last_look.wait_for(|look| look.number > begun)).await;
        later.is_ok_and(|look| look.is_ok_and(|look| look.answered))
    }
}

/// The trouble that a loop is in, if any.
#[derive(Debug)]
pub struct Trouble {
    outage: Arc<Outage>,
    finds_out: bool,
    begun: Option<Begun>,
}

#[derive(Debug)]
struct Begun {
    at: Instant,
    failed: u32,
    /// How often this loop did not reach a database that answered the other.
    alone: u32,
    told: Vec<Kind>,
}

/// A trouble that is over.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    /// How long it lasted, in seconds.
    pub seconds: u64,
    /// How many steps failed.
    pub failed: u32,
}

impl Trouble {
    /// For the loop that finds out whether the database answers.
    #[must_use]
    pub const fn of_the_database(outage: Arc<Outage>) -> Self {
        Self { outage, finds_out: true, begun: None }
    }

    /// For any other loop.
    #[must_use]
    pub const fn of_a_loop(outage: Arc<Outage>) -> Self {
        Self { outage, finds_out: false, begun: None }
    }

    /// A step begins.
    pub fn begin(&self) {
        if self.finds_out {
            self.outage.look_begins();
        }
    }

    /// Notes a failed step; gives the words to tell, unless this kind of failure was told already, or is another's to tell.
    pub async fn met(&mut self, error: &DbError) -> Option<String> {
        let kind = error.kind;
        let begun =
            self.begun.get_or_insert_with(|| Begun { at: Instant::now(), failed: 0, alone: 0, told: Vec::new() });
        begun.failed += 1;
        if self.finds_out {
            self.outage.look_ended(kind != Kind::Unreachable);
        } else if kind == Kind::Unreachable {
            if self.outage.answers().await {
                begun.alone += 1;
            }
            // A single time says nothing: connections are cut.
            if begun.alone < 2 {
                return None;
            }
        }
        if begun.told.contains(&kind) {
            return None;
        }
        begun.told.push(kind);
        Some(error.to_string())
    }

    /// Notes a step that succeeded; tells of the trouble that it ended, if that had been told.
    pub fn over(&mut self) -> Option<Ended> {
        if self.finds_out {
            self.outage.look_ended(true);
        }
        let begun = self.begun.take().filter(|begun| !begun.told.is_empty())?;
        Some(Ended { seconds: begun.at.elapsed().as_secs(), failed: begun.failed })
    }
}
