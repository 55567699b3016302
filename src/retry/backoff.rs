//! The pause before the next try: doubled each time up to a cap, and random, so that replicas do not come back as one.

use std::time::Duration;

/// Pauses between `first` and `cap`.
#[derive(Debug)]
pub struct Backoff {
    first: Duration,
    cap: Duration,
    next: Duration,
}

impl Backoff {
    /// Pauses that begin at up to `first`, and grow up to `cap`.
    #[must_use]
    pub const fn new(first: Duration, cap: Duration) -> Self {
        Self { first, cap, next: first }
    }

    /// The next pause: between half of its size and all of it.
    pub fn pause(&mut self) -> Duration {
        let full = self.next.min(self.cap);
        self.next = full * 2;
        full.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// Begins again, after a success.
    pub const fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_cap_and_begin_again_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
        for full in [1, 2, 4, 5, 5] {
            let pause = backoff.pause().as_secs_f64() / f64::from(full);
            assert!((0.5..=1.0).contains(&pause), "{pause} of {full} s");
        }
        backoff.reset();
        assert!(backoff.pause() <= Duration::from_secs(1));
    }
}
