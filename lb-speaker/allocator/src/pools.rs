//! The pools: their order, whom they admit, and the search for an address in one.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use roadstead_model::{AddressRange, IpAddressPool, IpFamily, Labels, ObjectName, Service, Snapshot};

use crate::{
    Allocation,
    ledger::Ledger,
    reason::Reason,
    request::Request,
    usage::{PoolUsage, usage},
};

/// How far the search for a free address has come in each range of each pool. Within a run addresses are only taken, so
/// what lies before the cursor is taken for good; without it a full pool would cost quadratic time.
pub(crate) type Cursors = BTreeMap<(usize, usize), u128>;

/// All pools in the order in which they serve: by priority, 0 last, then by name.
pub(crate) struct Pools<'a> {
    pools: Vec<&'a IpAddressPool>,
    snapshot: &'a Snapshot,
}

/// The pool that an address belongs to, in the order in which pools serve; for whoever has only a status to go by.
#[must_use]
pub fn pool_of<'a>(snapshot: &'a Snapshot, service: &Service, ip: IpAddr) -> Option<&'a IpAddressPool> {
    let pools = Pools::new(snapshot);
    let found = pools.holding(service).into_iter().find(|pool| pools.offers(*pool, ip))?;
    pools.pools.get(found).copied()
}

impl<'a> Pools<'a> {
    pub(crate) fn new(snapshot: &'a Snapshot) -> Self {
        let mut pools: Vec<&IpAddressPool> = snapshot.pools.values().map(AsRef::as_ref).collect();
        pools.sort_by_key(|pool| {
            let priority = pool.allocation.as_ref().map_or(0, |allocation| allocation.priority);
            (priority == 0, priority, &pool.meta.name.name, &pool.meta.name.namespace)
        });
        Self { pools, snapshot }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pools.is_empty()
    }

    pub(crate) fn name(&self, pool: usize) -> Option<&'a ObjectName> {
        self.pools.get(pool).map(|pool| &pool.meta.name)
    }

    pub(crate) fn position(&self, name: &ObjectName) -> Option<usize> {
        self.pools.iter().position(|pool| pool.meta.name == *name)
    }

    pub(crate) fn named(&self, name: &str) -> Vec<usize> {
        (0..self.pools.len()).filter(|pool| self.name(*pool).is_some_and(|full| *full.name == *name)).collect()
    }

    /// Pools whose selectors admit the Service, automatic or not.
    pub(crate) fn admitting(&self, service: &Service) -> impl Iterator<Item = usize> {
        let admits = move |pool: &&IpAddressPool| self.admits(pool, service);
        self.pools.iter().enumerate().filter(move |(_, pool)| admits(pool)).map(|(position, _)| position)
    }

    /// Automatic pools that admit the Service, in two ranks: those made for its namespace or labels, then those for
    /// everybody. A pool with nothing but a priority is for everybody (MetalLB would never assign from it).
    pub(crate) fn serving(&self, service: &Service) -> [Vec<usize>; 2] {
        let automatic = |position: &usize| self.pools.get(*position).is_some_and(|pool| pool.auto_assign);
        let pinned = |position: &usize| self.pools.get(*position).is_some_and(|pool| is_pinned(pool));
        let (pinned, rest) = self.admitting(service).filter(automatic).partition(pinned);
        [pinned, rest]
    }

    /// Pools that an address of the Service may come from: those that serve it by themselves, then the others that admit it.
    pub(crate) fn holding(&self, service: &Service) -> Vec<usize> {
        let serving: Vec<usize> = self.serving(service).into_iter().flatten().collect();
        let rest: Vec<usize> = self.admitting(service).filter(|pool| !serving.contains(pool)).collect();
        serving.into_iter().chain(rest).collect()
    }

    fn admits(&self, pool: &IpAddressPool, service: &Service) -> bool {
        let Some(allocation) = &pool.allocation else { return true };
        let namespace = &*service.meta.name.namespace;
        let none = Labels::new();
        let labels = self.snapshot.namespaces.get(namespace).map_or(&none, |namespace| &namespace.labels);
        let any_namespace = allocation.namespaces.is_empty() && allocation.namespace_selectors.is_empty();
        let in_namespace = any_namespace
            || allocation.namespaces.iter().any(|name| name == namespace)
            || allocation.namespace_selectors.iter().any(|selector| selector.matches(labels));
        let selectors = &allocation.service_selectors;
        let selected = selectors.is_empty() || selectors.iter().any(|selector| selector.matches(&service.meta.labels));
        in_namespace && selected
    }

    /// Whether the address lies in the pool and the pool does not leave it out.
    pub(crate) fn offers(&self, pool: usize, ip: IpAddr) -> bool {
        let offers = |pool: &&IpAddressPool| contains(pool, ip) && !(pool.avoid_buggy_ips && is_buggy(ip));
        self.pools.get(pool).is_some_and(offers)
    }

    pub(crate) fn has_family(&self, pool: usize, family: IpFamily) -> bool {
        self.pools.get(pool).is_some_and(|pool| pool.addresses.iter().any(|range| range.family() == family))
    }

    /// The first address, in the order of the pool's ranges and ascending within each, that is free or may be shared.
    pub(crate) fn find(
        &self,
        pool: usize,
        family: IpFamily,
        service: &Service,
        ledger: &Ledger<'_>,
        cursors: &mut Cursors,
    ) -> Option<IpAddr> {
        let avoid = self.pools.get(pool)?.avoid_buggy_ips;
        let ranges = self.pools.get(pool)?.addresses.iter().enumerate();
        ranges.filter(|(_, range)| range.family() == family).find_map(|(position, range)| {
            let cursor = cursors.entry((pool, position)).or_insert_with(|| number(range.first()));
            let free = first_free(range, cursor, avoid, ledger);
            let taken = |ip: IpAddr| ledger.reserved(ip).or_else(|| ledger.conflict(service, ip)).is_some();
            let usable = |ip: &IpAddr| !((avoid && is_buggy(*ip)) || taken(*ip));
            let shared = ledger.shared(service, range.first(), range.last()).find(usable);
            free.into_iter().chain(shared).min()
        })
    }

    /// Why no single pool offers all the addresses that the Service asks for.
    pub(crate) fn why_not_offered(&self, request: &Request<'_>, ips: &[IpAddr]) -> Reason {
        let missing = ips.iter().copied().find(|ip| !request.holding.iter().any(|pool| self.offers(*pool, *ip)));
        let Some(ip) = missing else { return Reason::NotInOnePool };
        let containing = |position: &&usize| self.pools.get(**position).is_some_and(|pool| contains(pool, ip));
        if let Some(pool) = request.holding.iter().find(containing).and_then(|pool| self.name(*pool)) {
            return Reason::Buggy { ip, pool: pool.name.to_string() };
        }
        if let Some(pool) = &request.service.load_balancer.requested_pool {
            return Reason::NotInPool { ip, pool: pool.clone() };
        }
        let refusing = self.pools.iter().find(|pool| contains(pool, ip));
        refusing.map_or(Reason::InNoPool(ip), |pool| Reason::PoolRefuses(pool.meta.name.name.to_string()))
    }

    pub(crate) fn usage(&self, allocation: &Allocation) -> BTreeMap<ObjectName, PoolUsage> {
        usage(self.pools.iter().copied(), allocation)
    }
}

fn is_pinned(pool: &IpAddressPool) -> bool {
    pool.allocation.as_ref().is_some_and(|allocation| {
        !(allocation.namespaces.is_empty()
            && allocation.namespace_selectors.is_empty()
            && allocation.service_selectors.is_empty())
    })
}

fn contains(pool: &IpAddressPool, ip: IpAddr) -> bool {
    pool.addresses.iter().any(|range| range.contains(ip))
}

/// Some consumer devices take IPv4 addresses that end in 0 or 255 for a network's own, whatever the mask.
fn is_buggy(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(ip) if matches!(ip.octets(), [_, _, _, 0 | 255]))
}

fn first_free(range: &AddressRange, cursor: &mut u128, avoid: bool, ledger: &Ledger<'_>) -> Option<IpAddr> {
    let last = number(range.last());
    while *cursor <= last {
        let ip = address(*cursor, range.family())?;
        if ledger.is_free(ip) && !(avoid && is_buggy(ip)) {
            return Some(ip);
        }
        *cursor = cursor.checked_add(1)?;
    }
    None
}

pub(crate) fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => u128::from(ip),
    }
}

fn address(number: u128, family: IpFamily) -> Option<IpAddr> {
    match family {
        IpFamily::V4 => u32::try_from(number).ok().map(|number| Ipv4Addr::from(number).into()),
        IpFamily::V6 => Some(Ipv6Addr::from(number).into()),
    }
}
