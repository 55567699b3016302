//! A failure that lasts is logged once when it begins and once when it ends, however often the loop retries. When the whole database
//! is away, only the loop that reads from it logs that.

pub mod backoff;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use crate::postgres::error::{DbError, Kind};

/// A connection that is lost and made again this soon is not worth a line.
const BRIEF: Duration = Duration::from_secs(1);

/// When the loop that reads last reached the database. The other loops look here before they log that they cannot reach it.
#[derive(Debug)]
pub struct LastRead {
    at: Mutex<Option<Instant>>,
    /// Wakes the loop that reads.
    look_again: Arc<Notify>,
}

impl LastRead {
    /// `look_again` wakes the loop that reads.
    pub fn new(look_again: Arc<Notify>) -> Arc<Self> {
        Arc::new(Self { at: Mutex::new(None), look_again })
    }

    fn reached(&self) {
        *self.at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn at(&self) -> Option<Instant> {
        *self.at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a loop has logged of the failure that it is in, if any.
#[derive(Debug)]
pub struct FailureLog {
    last_read: Arc<LastRead>,
    reads: bool,
    attempt_began: Instant,
    failure: Option<Failure>,
}

#[derive(Debug)]
struct Failure {
    began: Instant,
    attempts: u32,
    logged: Vec<Kind>,
    /// The last attempt that did not reach the database: when it failed, and what to log.
    unreached: Option<(Instant, String)>,
    /// How often the loop that reads has reached the database soon after this one had not.
    alone: u32,
}

/// A failure that is over.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    /// How long it lasted, in seconds.
    pub seconds: u64,
    /// How many attempts failed.
    pub attempts: u32,
}

impl FailureLog {
    /// For the loop that reads, which logs that the database cannot be reached.
    pub fn of_the_reader(last_read: Arc<LastRead>) -> Self {
        Self { reads: true, ..Self::of_another(last_read) }
    }

    /// For any other loop.
    pub fn of_another(last_read: Arc<LastRead>) -> Self {
        Self { last_read, reads: false, attempt_began: Instant::now(), failure: None }
    }

    /// An attempt begins. Logs that this loop alone cannot reach the database, once that is sure: the loop that reads has reached it,
    /// twice, after this one had not. Once says nothing: connections are cut.
    pub fn attempt(&mut self, log: impl FnOnce(&str)) {
        self.attempt_began = Instant::now();
        if let Some(failure) = &mut self.failure
            && let Some((_, words)) = failure.unreached.take_if(|(at, _)| self.last_read.at() > Some(*at))
        {
            failure.alone += 1;
            if failure.alone > 1 && failure.is_new(Kind::Unreachable) {
                log(&words);
            }
        }
    }

    /// Records a failed attempt. Logs it, unless this kind of failure was logged already, or is for the loop that reads to log.
    pub fn failed(&mut self, error: &DbError, log: impl FnOnce(&str)) {
        let attempt_began = self.attempt_began;
        let failure = self.failure.get_or_insert_with(|| Failure {
            began: attempt_began,
            attempts: 0,
            logged: Vec::new(),
            unreached: None,
            alone: 0,
        });
        failure.attempts += 1;
        if error.kind == Kind::Unreachable {
            if !self.reads {
                failure.unreached = Some((Instant::now(), error.to_string()));
                self.last_read.look_again.notify_one();
                return;
            }
            if failure.attempts == 1 && failure.began.elapsed() < BRIEF {
                return;
            }
        }
        if failure.is_new(error.kind) {
            log(&error.to_string());
        }
    }

    /// Records an attempt that succeeded; gives the failure that it ended, if that had been logged.
    pub fn succeeded(&mut self) -> Option<Ended> {
        if self.reads {
            self.last_read.reached();
        }
        let failure = self.failure.take().filter(|failure| !failure.logged.is_empty())?;
        Some(Ended { seconds: failure.began.elapsed().as_secs(), attempts: failure.attempts })
    }
}

impl Failure {
    /// Whether this kind was not logged yet; from now on it was.
    fn is_new(&mut self, kind: Kind) -> bool {
        let new = !self.logged.contains(&kind);
        if new {
            self.logged.push(kind);
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A loop with the lines that it has logged.
    struct Loop {
        failures: FailureLog,
        lines: u32,
    }

    impl Loop {
        fn fails(&mut self) {
            let error = DbError::of_kind(Kind::Unreachable, "test", "no answer");
            let lines = &mut self.lines;
            self.failures.attempt(|_| *lines += 1);
            self.failures.failed(&error, |_| *lines += 1);
        }
    }

    fn reader_and_other() -> [Loop; 2] {
        let last_read = LastRead::new(Arc::default());
        let logs = [FailureLog::of_the_reader(last_read.clone()), FailureLog::of_another(last_read)];
        logs.map(|failures| Loop { failures, lines: 0 })
    }

    #[test]
    fn only_the_reader_logs_that_the_database_is_away() {
        let [mut reader, mut other] = reader_and_other();
        reader.failures.succeeded();
        for _ in 0..5 {
            other.fails();
            reader.fails();
        }
        assert_eq!((reader.lines, other.lines), (1, 0));
        // It is back for the reader, while the other's attempt is still under way.
        assert!(reader.failures.succeeded().is_some());
        other.fails();
        assert_eq!(other.lines, 0);
        assert!(other.failures.succeeded().is_none());
    }

    #[test]
    fn a_loop_that_alone_cannot_reach_the_database_logs_that_once() {
        let [mut reader, mut other] = reader_and_other();
        for lines in [0, 0, 1, 1, 1] {
            other.fails();
            assert_eq!(other.lines, lines);
            reader.failures.succeeded();
        }
        assert_eq!(other.failures.succeeded().unwrap().attempts, 5);
    }
}
