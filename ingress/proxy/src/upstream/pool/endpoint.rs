//! One endpoint and what is known of it: requests under way, failures, times.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use super::{health::Health, md5, now, speed::Speed};

/// An endpoint of a pool; the same object for as long as it is in the pool.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    /// What a cookie says of it, so that it does not say the address: salted with the pool's name, as ingress-nginx does.
    pub(super) key: u128,
    pub(super) in_flight: AtomicUsize,
    pub(super) health: Health,
    pub(super) speed: Speed,
}

impl Endpoint {
    pub(super) fn new(address: SocketAddr, pool: &str) -> Self {
        Self {
            address,
            key: md5(&[pool, &address.to_string()]),
            in_flight: AtomicUsize::new(0),
            health: Health::default(),
            speed: Speed::default(),
        }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Connections to it failed, and the time to try again has not come. Asks for the time only where that matters.
    pub(super) fn is_ejected(&self) -> bool {
        self.health.was_ejected() && self.health.is_ejected(now())
    }
}

/// A request that an endpoint has, until its answer ends. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct InUse {
    pub(super) endpoint: Arc<Endpoint>,
    /// When it began, where its time counts.
    timed: Option<Instant>,
    answered: bool,
}

impl InUse {
    pub(super) fn new(endpoint: Arc<Endpoint>, timing: Timing) -> Self {
        endpoint.in_flight.fetch_add(1, Ordering::Relaxed);
        let timed = (timing == Timing::Counts).then(Instant::now);
        Self { endpoint, timed, answered: false }
    }

    /// Where it is.
    pub(crate) fn address(&self) -> SocketAddr {
        self.endpoint.address
    }

    /// There is an answer: only then the time tells something of the endpoint.
    pub(super) fn answered(&mut self) {
        self.answered = true;
    }
}

/// Whether a request's time is of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timing {
    /// For the moving average.
    Counts,
    /// Nobody asks for it.
    Ignored,
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.endpoint.in_flight.fetch_sub(1, Ordering::Relaxed);
        let time = self.timed.filter(|_| self.answered).map_or(Duration::ZERO, |since| since.elapsed());
        if !time.is_zero() {
            self.endpoint.speed.observe(time, now());
        }
    }
}
