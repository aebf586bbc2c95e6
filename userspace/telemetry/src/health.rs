//! What a daemon says about itself: its metrics, whether it works, whether it may be relied upon.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use prometheus::{Registry, TextEncoder};

/// State behind the health endpoints; clones share it.
#[derive(Clone, Debug)]
pub struct Health(Arc<State>);

#[derive(Debug)]
struct State {
    registry: Registry,
    ready: AtomicBool,
    live: AtomicBool,
}

impl Health {
    /// Live, not yet ready, with the metrics of this registry.
    #[must_use]
    pub fn new(registry: Registry) -> Self {
        Self(Arc::new(State { registry, ready: AtomicBool::new(false), live: AtomicBool::new(true) }))
    }

    /// Says whether the first full configuration is in place.
    pub fn set_ready(&self, ready: bool) {
        self.0.ready.store(ready, Ordering::Relaxed);
    }

    /// Says whether the daemon works; one that does not should be started again.
    pub fn set_live(&self, live: bool) {
        self.0.live.store(live, Ordering::Relaxed);
    }

    /// Whether the first full configuration is in place.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.is_live() && self.0.ready.load(Ordering::Relaxed)
    }

    /// Whether the daemon works.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.0.live.load(Ordering::Relaxed)
    }

    /// The registry's metrics in Prometheus' text format.
    pub(crate) fn metrics(&self) -> prometheus::Result<String> {
        TextEncoder::new().encode_to_string(&self.0.registry.gather())
    }
}
