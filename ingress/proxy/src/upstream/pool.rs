//! The endpoints of one backend. A pool outlives generations of routes: pods come and go without touching a route.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwap;

/// Endpoints, taken in turn by all threads together.
#[derive(Debug, Default)]
pub struct Pool {
    endpoints: ArcSwap<Vec<SocketAddr>>,
    turn: AtomicUsize,
}

impl Pool {
    /// Replaces the endpoints; requests on their way keep the one that they have.
    pub fn set(&self, endpoints: Vec<SocketAddr>) {
        if **self.endpoints.load() != endpoints {
            self.endpoints.store(Arc::new(endpoints));
        }
    }

    /// How many endpoints there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.endpoints.load().len()
    }

    /// Whether there are no endpoints.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The next endpoint in turn that is not among `tried`.
    #[must_use]
    pub fn pick(&self, tried: &[SocketAddr]) -> Option<SocketAddr> {
        let endpoints = self.endpoints.load();
        let start = self.turn.fetch_add(1, Ordering::Relaxed);
        let place = start.checked_rem(endpoints.len())?;
        let (before, from) = endpoints.split_at(place);
        from.iter().chain(before).find(|endpoint| !tried.contains(endpoint)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 80))
    }

    #[test]
    fn endpoints_are_taken_in_turn() {
        let pool = Pool::default();
        assert_eq!(pool.pick(&[]), None);
        pool.set((1..=10).map(address).collect());
        let mut seen: Vec<_> = (0..10).map(|_| pool.pick(&[]).unwrap()).collect();
        seen.sort();
        assert_eq!(seen, (1..=10).map(address).collect::<Vec<_>>());
    }

    #[test]
    fn a_tried_endpoint_is_not_taken_again() {
        let pool = Pool::default();
        pool.set(vec![address(1), address(2)]);
        for _ in 0..4 {
            assert_eq!(pool.pick(&[address(1)]), Some(address(2)));
            assert_eq!(pool.pick(&[address(1), address(2)]), None);
        }
    }
}
