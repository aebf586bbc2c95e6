//! How long to wait after a failure: pure, chance comes in as an argument.

use std::time::Duration;

/// Waits that double up to a bound, and what made the last one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Backoff {
    failures: u32,
}

/// Between which bounds waits grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    first: Duration,
    last: Duration,
}

impl Bounds {
    /// The server is there, the connection broke or it was too busy: soon again, for a change may be waiting.
    pub(crate) const BUSY: Self = Self { first: Duration::from_millis(50), last: Duration::from_secs(1) };
    /// It refuses, until somebody changes a role or installs a kind.
    pub(crate) const REFUSED: Self = Self { first: Duration::from_millis(500), last: Duration::from_secs(30) };
}

impl Backoff {
    /// The next wait: between half of it and all of it, by chance from 0 to 1, so that nodes that failed together do not come
    /// back together.
    pub(crate) fn next(&mut self, bounds: Bounds, chance: f64) -> Duration {
        let doubled = bounds.first.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        doubled.min(bounds.last).mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0)
    }

    /// It worked.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_their_bound_and_begin_anew() {
        let mut backoff = Backoff::default();
        let mut waits = |bounds, chance| (0..8).map(|_| backoff.next(bounds, chance).as_millis()).collect::<Vec<_>>();
        assert_eq!(waits(Bounds::BUSY, 1.0), [50, 100, 200, 400, 800, 1000, 1000, 1000]);
        backoff.reset();
        let mut waits = |bounds, chance| (0..8).map(|_| backoff.next(bounds, chance).as_millis()).collect::<Vec<_>>();
        assert_eq!(waits(Bounds::REFUSED, 0.0), [250, 500, 1000, 2000, 4000, 8000, 15_000, 15_000]);
        for _ in 0..100 {
            assert!(backoff.next(Bounds::REFUSED, 0.5) <= Duration::from_secs(30), "no overflow");
        }
    }
}
