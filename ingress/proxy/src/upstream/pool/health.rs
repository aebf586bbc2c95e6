//! Passive health: an endpoint whose connections fail one after the other is left alone for a while.
//!
//! Only connections count: those that cannot be made, and those that break before an answer. An answer of whatever status
//! proves that the endpoint lives; what it says is the application's matter, and a client could provoke it. Readiness probes
//! come first in Kubernetes; this bridges the seconds until they notice.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

/// An endpoint is never left alone for longer at a time.
const LONGEST: Duration = Duration::from_secs(300);

/// When an endpoint is left alone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Failures in a row; 0 for never.
    pub(super) fails: u32,
    /// For how long the first time.
    pub(super) time: Duration,
}

/// Failures of one endpoint. Times are milliseconds of the pool's clock, which are never 0.
#[derive(Debug, Default)]
pub(super) struct Health {
    fails: AtomicU32,
    /// How often in a row it was left alone.
    ejections: AtomicU32,
    /// Until when it is; 0 where it never was since its last success.
    until: AtomicU64,
}

impl Health {
    /// Whether it is worth asking for the time.
    pub(super) fn was_ejected(&self) -> bool {
        self.until.load(Ordering::Relaxed) != 0
    }

    pub(super) fn is_ejected(&self, now: u64) -> bool {
        self.until.load(Ordering::Relaxed) > now
    }

    /// It answered. Writes nothing where nothing was wrong: the counters are shared by all threads.
    pub(super) fn succeed(&self) {
        if self.fails.load(Ordering::Relaxed) != 0 {
            self.fails.store(0, Ordering::Relaxed);
        }
        if self.was_ejected() {
            self.ejections.store(0, Ordering::Relaxed);
            self.until.store(0, Ordering::Relaxed);
        }
    }

    /// A connection failed. The endpoint is left alone when that was once too often and `may_eject` agrees; after its time
    /// the next failure is enough, and each time is twice as long as the one before. Tells whether it was.
    pub(super) fn fail(&self, now: u64, limits: Limits, may_eject: impl FnOnce() -> bool) -> bool {
        let fails = self.fails.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if limits.fails == 0 || fails < limits.fails || self.is_ejected(now) || !may_eject() {
            return false;
        }
        let before = self.ejections.fetch_add(1, Ordering::Relaxed);
        let time = limits.time.saturating_mul(1 << before.min(16)).min(LONGEST.max(limits.time));
        let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.until.store(now.saturating_add(milliseconds), Ordering::Relaxed);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { fails: 3, time: Duration::from_secs(10) };

    #[test]
    fn failures_in_a_row_eject_for_longer_each_time() {
        let health = Health::default();
        let fail = |now| health.fail(now, LIMITS, || true);
        assert!(!fail(1) && !fail(1) && !health.was_ejected());
        assert!(fail(1_000));
        assert!(health.is_ejected(10_999) && !health.is_ejected(11_000));
        assert!(!fail(5_000), "a request that was under way does not prolong it");
        let mut now = 11_000;
        for seconds in [20, 40, 80, 160, 300, 300] {
            assert!(fail(now), "one failure is enough after that");
            assert!(health.is_ejected(now + seconds * 1_000 - 1), "{seconds}");
            now += seconds * 1_000;
            assert!(!health.is_ejected(now), "{seconds}");
        }
        health.succeed();
        assert!(!health.was_ejected());
        assert!(!fail(now) && !fail(now) && fail(now));
        assert!(health.is_ejected(now + 9_999) && !health.is_ejected(now + 10_000), "all is forgiven");
    }

    #[test]
    fn a_success_between_starts_anew() {
        let health = Health::default();
        for _ in 0..10 {
            assert!(!health.fail(1, LIMITS, || true));
            assert!(!health.fail(1, LIMITS, || true));
            health.succeed();
        }
    }

    #[test]
    fn it_can_be_off_and_it_can_be_refused() {
        let (off, refused) = (Health::default(), Health::default());
        for _ in 0..10 {
            assert!(!off.fail(1, Limits { fails: 0, ..LIMITS }, || true));
            assert!(!refused.fail(1, LIMITS, || false));
        }
        assert!(!off.was_ejected() && !refused.was_ejected());
    }
}
