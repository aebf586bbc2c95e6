//! The policies: one endpoint of several, where nothing binds a request to one.

use std::sync::{Arc, atomic::Ordering};

use roadstead_routes::Policy;

use super::{endpoint::Endpoint, members::Members, now, ring::set_of};

impl Members {
    /// An endpoint that is not among `tried`. Ready ones go before draining ones, and both before those that are left alone
    /// because their connections failed: whatever there is, a request is not given up while there is one.
    pub(super) fn by_policy(&self, policy: Policy, tried: &[Arc<Endpoint>]) -> Option<&Arc<Endpoint>> {
        let fresh = |endpoint: &Arc<Endpoint>| !is_among(tried, endpoint);
        let sound = |endpoint: &Arc<Endpoint>| fresh(endpoint) && !self.is_out(endpoint);
        self.pick(&self.ready, policy, sound)
            .or_else(|| self.pick(&self.draining, policy, sound))
            .or_else(|| self.pick(&self.ready, policy, fresh))
            .or_else(|| self.pick(&self.draining, policy, fresh))
    }

    /// The endpoint that a key leads to: the first on the ring that may take it.
    pub(super) fn by_key(&self, key: &[u8], tried: &[Arc<Endpoint>]) -> Option<&Arc<Endpoint>> {
        let mut walk = self.ring().walk(key).filter_map(|address| self.ready_at(address));
        walk.find(|endpoint| !is_among(tried, endpoint) && !self.is_out(endpoint))
    }

    /// Any endpoint of the set that a key leads to. The last set is filled up from the first, so that all are as large.
    pub(super) fn by_set(&self, key: &[u8], size: usize, tried: &[Arc<Endpoint>]) -> Option<&Arc<Endpoint>> {
        let set = set_of(key, self.ready.len().div_ceil(size.max(1)))?;
        let places = (0..size.min(self.ready.len())).map(move |place| (set * size + place) % self.ready.len());
        let set = places.filter_map(|place| self.ready.get(place));
        any(set.filter(|endpoint| !is_among(tried, endpoint) && !self.is_out(endpoint)))
    }

    fn pick<'m>(
        &self,
        list: &'m [Arc<Endpoint>],
        policy: Policy,
        fits: impl Fn(&Arc<Endpoint>) -> bool,
    ) -> Option<&'m Arc<Endpoint>> {
        match policy {
            Policy::RoundRobin => self.in_turn(list, fits),
            Policy::LeastConnections => self.least_busy(list, fits),
            Policy::Ewma => faster_of_two(list.iter().filter(|endpoint| fits(endpoint))),
            Policy::Random => any(list.iter().filter(|endpoint| fits(endpoint))),
        }
    }

    /// The next in turn. One that does not fit loses its turn: its neighbour gets no more than the others.
    fn in_turn<'m>(
        &self,
        list: &'m [Arc<Endpoint>],
        fits: impl Fn(&Arc<Endpoint>) -> bool,
    ) -> Option<&'m Arc<Endpoint>> {
        let turns = list.iter().map(|_| self.turn.fetch_add(1, Ordering::Relaxed));
        let in_turn = turns.filter_map(|turn| list.get(turn.checked_rem(list.len())?)).find(|endpoint| fits(endpoint));
        // Others may have had the turns between.
        in_turn.or_else(|| list.iter().find(|endpoint| fits(endpoint)))
    }

    /// The one with the fewest requests; between equals, turn by turn.
    fn least_busy<'m>(
        &self,
        list: &'m [Arc<Endpoint>],
        fits: impl Fn(&Arc<Endpoint>) -> bool,
    ) -> Option<&'m Arc<Endpoint>> {
        let start = self.turn.fetch_add(1, Ordering::Relaxed).checked_rem(list.len())?;
        let (before, from) = list.split_at_checked(start)?;
        from.iter().chain(before).filter(|endpoint| fits(endpoint)).min_by_key(|endpoint| endpoint.in_flight())
    }
}

/// Endpoints are the same object for as long as they are in a pool.
pub(super) fn is_among(tried: &[Arc<Endpoint>], endpoint: &Arc<Endpoint>) -> bool {
    tried.iter().any(|other| Arc::ptr_eq(other, endpoint))
}

/// As ingress-nginx does: two different ones at random, and of them the one with the lower average.
fn faster_of_two<'m>(mut fitting: impl Iterator<Item = &'m Arc<Endpoint>> + Clone) -> Option<&'m Arc<Endpoint>> {
    let count = fitting.clone().count();
    if count < 2 {
        return fitting.next();
    }
    let first = fastrand::usize(..count);
    let second = (first + fastrand::usize(1..count)) % count;
    let (first, second) = (fitting.clone().nth(first)?, fitting.nth(second)?);
    let now = now();
    Some(if second.speed.score(now) < first.speed.score(now) { second } else { first })
}

fn any<'m>(mut fitting: impl Iterator<Item = &'m Arc<Endpoint>> + Clone) -> Option<&'m Arc<Endpoint>> {
    let count = fitting.clone().count();
    if count == 0 { None } else { fitting.nth(fastrand::usize(..count)) }
}
