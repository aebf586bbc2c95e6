//! The endpoints of a pool at one moment, in sorted lists, and how they follow from those of the moment before.

use std::{
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use roadstead_routes::Endpoints;

use super::{Census, endpoint::Endpoint, now, ring::Ring};

/// One state of a pool.
#[derive(Debug, Default)]
pub(super) struct Members {
    /// Those that take any request, sorted by address.
    pub(super) ready: Vec<Arc<Endpoint>>,
    /// Those that are still serving while they terminate, sorted by address.
    pub(super) draining: Vec<Arc<Endpoint>>,
    /// Counts the turns; the ready endpoint at this place, modulo their number, is next.
    pub(super) turn: AtomicUsize,
    ring: OnceLock<Ring>,
}

impl Members {
    pub(super) fn new(endpoints: &Endpoints, before: &Self, pool: &str) -> Self {
        let supposed = before.average_speed();
        let member = |address: &SocketAddr| {
            let known = find(&before.ready, *address).or_else(|| find(&before.draining, *address));
            known.cloned().unwrap_or_else(|| {
                let endpoint = Endpoint::new(*address, pool);
                if let Some(average) = supposed {
                    endpoint.speed.write(average, now());
                }
                Arc::new(endpoint)
            })
        };
        let ready: Vec<_> = endpoints.ready.iter().map(member).collect();
        let draining = endpoints.draining.iter().map(member).collect();
        let turn = AtomicUsize::new(before.next_turn(&ready));
        Self { ready, draining, turn, ring: OnceLock::new() }
    }

    /// Whether these are the very endpoints.
    pub(super) fn are(&self, endpoints: &Endpoints) -> bool {
        let same = |members: &[Arc<Endpoint>], addresses: &[SocketAddr]| {
            members.iter().map(|member| &member.address).eq(addresses)
        };
        same(&self.ready, &endpoints.ready) && same(&self.draining, &endpoints.draining)
    }

    /// The turn goes on behind the endpoint that had it last, whether that is still there or not.
    fn next_turn(&self, ready: &[Arc<Endpoint>]) -> usize {
        let last = self.turn.load(Ordering::Relaxed).wrapping_sub(1).checked_rem(self.ready.len());
        match last.and_then(|place| self.ready.get(place)) {
            Some(last) => ready.partition_point(|endpoint| endpoint.address <= last.address),
            // Proxies that start together must not all begin with the same endpoint.
            None => fastrand::usize(..ready.len().max(1)),
        }
    }

    /// ingress-nginx's slow start: what is new is supposed to be as fast as the others are.
    fn average_speed(&self) -> Option<f64> {
        let known: Vec<f64> = self.ready.iter().filter_map(|endpoint| endpoint.speed.known()).collect();
        #[expect(clippy::cast_precision_loss, reason = "a number of endpoints fits")]
        (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64)
    }

    /// The ring of all endpoints, made when it is first asked for. Draining ones are on it, so that their clients find them.
    pub(super) fn ring(&self) -> &Ring {
        self.ring.get_or_init(|| Ring::new(self.ready.iter().chain(&self.draining).map(|endpoint| endpoint.address)))
    }

    /// The endpoint with this address, draining or not.
    pub(super) fn at(&self, address: SocketAddr) -> Option<&Arc<Endpoint>> {
        self.ready_at(address).or_else(|| find(&self.draining, address))
    }

    pub(super) fn ready_at(&self, address: SocketAddr) -> Option<&Arc<Endpoint>> {
        find(&self.ready, address)
    }

    /// The endpoint that a cookie names.
    pub(super) fn with_key(&self, key: u128) -> Option<&Arc<Endpoint>> {
        self.ready.iter().chain(&self.draining).find(|endpoint| endpoint.key == key)
    }

    /// Whether an endpoint is left alone. Where that would leave fewer than half of them, the failures are more likely on
    /// this side of the network or everywhere, and none is.
    pub(super) fn is_out(&self, endpoint: &Endpoint) -> bool {
        endpoint.is_ejected() && self.ejected() * 2 <= self.ready.len()
    }

    /// Whether one more may be left alone: at most half of them are.
    pub(super) fn may_eject(&self) -> bool {
        (self.ejected() + 1) * 2 <= self.ready.len()
    }

    fn ejected(&self) -> usize {
        self.ready.iter().filter(|endpoint| endpoint.is_ejected()).count()
    }

    pub(super) fn census(&self) -> Census {
        Census {
            ready: self.ready.len(),
            draining: self.draining.len(),
            ejected: self.ejected(),
            in_flight: self.ready.iter().chain(&self.draining).map(|endpoint| endpoint.in_flight()).sum(),
        }
    }
}

fn find(sorted: &[Arc<Endpoint>], address: SocketAddr) -> Option<&Arc<Endpoint>> {
    let place = sorted.binary_search_by(|endpoint| endpoint.address.cmp(&address)).ok()?;
    sorted.get(place)
}
