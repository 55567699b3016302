//! The pause before the next try: doubled each time up to a cap, and random, so that replicas do not come back all at once.

use std::time::Duration;

/// Pauses that grow from `first`.
#[derive(Debug)]
pub struct Backoff {
    first: Duration,
    next: Duration,
}

impl Backoff {
    /// Pauses that begin at up to `first`.
    pub const fn new(first: Duration) -> Self {
        Self { first, next: first }
    }

    /// The next pause, between half of its size and all of it, and at most `cap`. A pause that was capped does not grow: after an
    /// outage with a short cap, a failure with a long one starts from the short one.
    pub fn pause(&mut self, cap: Duration) -> Duration {
        let full = self.next.min(cap);
        self.next = full * 2;
        full.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// Starts again from the first pause, after a success.
    pub const fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_cap_and_start_again_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_secs(1));
        for full in [1, 2, 4, 5, 5] {
            let pause = backoff.pause(Duration::from_secs(5)).as_secs_f64() / f64::from(full);
            assert!((0.5..=1.0).contains(&pause), "{pause} of {full} s");
        }
        backoff.reset();
        assert!(backoff.pause(Duration::from_secs(5)) <= Duration::from_secs(1));
    }

    #[test]
    fn a_long_outage_does_not_lengthen_the_pause_after_the_first_timeout() {
        let mut backoff = Backoff::new(Duration::from_millis(500));
        for _ in 0..100 {
            backoff.pause(Duration::from_secs(10));
        }
        assert!(backoff.pause(Duration::from_secs(900)) <= Duration::from_secs(20));
    }
}
