//! What a daemon says about itself: its metrics, whether it works, whether it may be relied upon.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use prometheus::{Registry, TextEncoder};

/// How long an update may wait; kube-proxy gives itself two of its longest periods, a minute.
const PENDING_FOR: Duration = Duration::from_secs(60);

/// State behind the health endpoints; clones share it.
#[derive(Clone, Debug)]
pub struct Health(Arc<State>);

#[derive(Debug)]
struct State {
    registry: Registry,
    ready: AtomicBool,
    live: AtomicBool,
    eligible: AtomicBool,
    pending_since: Mutex<Option<Instant>>,
}

impl Health {
    /// Live, not yet ready, with nothing pending, on a node that stays, with the metrics of this registry.
    #[must_use]
    pub fn new(registry: Registry) -> Self {
        Self(Arc::new(State {
            registry,
            ready: AtomicBool::new(false),
            live: AtomicBool::new(true),
            eligible: AtomicBool::new(true),
            pending_since: Mutex::new(None),
        }))
    }

    /// Says whether the first full configuration is in place.
    pub fn set_ready(&self, ready: bool) {
        self.0.ready.store(ready, Ordering::Relaxed);
    }

    /// Says whether the daemon works; one that does not should be started again.
    pub fn set_live(&self, live: bool) {
        self.0.live.store(live, Ordering::Relaxed);
    }

    /// Says whether traffic should come to this node at all: not to one that is about to go (KEP-3836).
    pub fn set_eligible(&self, eligible: bool) {
        self.0.eligible.store(eligible, Ordering::Relaxed);
    }

    /// Says whether an update waits to be carried out. One that waits for a minute makes the daemon count as one that
    /// does not work.
    pub fn set_pending(&self, pending: bool) {
        self.set_pending_at(pending, Instant::now());
    }

    fn set_pending_at(&self, pending: bool, now: Instant) {
        let mut since = self.0.pending_since.lock().unwrap_or_else(PoisonError::into_inner);
        *since = pending.then(|| since.unwrap_or(now));
    }

    /// Whether the first full configuration is in place.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.is_live() && self.0.ready.load(Ordering::Relaxed)
    }

    /// Whether the daemon works: it does not say otherwise, and no update waits for too long. The node is left out.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.is_live_at(Instant::now())
    }

    fn is_live_at(&self, now: Instant) -> bool {
        let since = *self.0.pending_since.lock().unwrap_or_else(PoisonError::into_inner);
        let overdue = since.is_some_and(|since| now.saturating_duration_since(since) >= PENDING_FOR);
        self.0.live.load(Ordering::Relaxed) && !overdue
    }

    /// Whether traffic should come to this node.
    #[must_use]
    pub fn is_eligible(&self) -> bool {
        self.0.eligible.load(Ordering::Relaxed)
    }

    /// The registry's metrics in Prometheus' text format.
    pub(crate) fn metrics(&self) -> prometheus::Result<String> {
        TextEncoder::new().encode_to_string(&self.0.registry.gather())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_may_wait_for_less_than_a_minute() {
        let health = Health::new(Registry::new());
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        health.set_pending_at(true, start);
        health.set_pending_at(true, after(50));
        assert!(health.is_live_at(after(59)));
        assert!(!health.is_live_at(after(60)), "the first one counts");
        health.set_pending_at(false, after(70));
        assert!(health.is_live_at(after(200)));
        health.set_pending_at(true, after(200));
        assert!(health.is_live_at(after(259)) && !health.is_live_at(after(260)));
    }
}
