//! The allocator: which Service gets which addresses of which pool, or why it gets none.
//!
//! It stands on the configuration's way between `model` and the status that `sources` writes back. It is a pure function
//! of a snapshot and the assignments before it: no clock, no chance, no order of arrival. Speakers that read the same
//! objects come to the same answer if they held the same before; that they did is not known here, so `speaker` compares
//! the tables of all nodes and hands a node that joins the table of those that run. It deliberately does not decide who
//! announces an address: that is `layer2`.
//!
//! Two phases keep addresses where they are: first every earlier assignment that is still valid is locked, then what is
//! pending is served. The rules are MetalLB's; where this differs, the place says so.

#![forbid(unsafe_code)]

mod ledger;
mod pools;
mod reason;
mod request;

use std::{collections::BTreeMap, net::IpAddr};

use roadstead_model::{IpFamily, ObjectName, Service, ServiceKind, Snapshot};

use crate::{
    ledger::Ledger,
    pools::{Cursors, Pools},
    request::Request,
};
pub use crate::{pools::pool_of, reason::Reason};

/// The `loadBalancerClass` that this speaker serves besides Services without a class.
pub const LOAD_BALANCER_CLASS: &str = "roadstead.dev/speaker";

/// What every Service of type LoadBalancer gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allocation {
    /// By Service; other types of Service do not appear.
    pub services: BTreeMap<ObjectName, Assignment>,
    /// By pool, in the order of names.
    pub pools: BTreeMap<ObjectName, PoolUsage>,
}

/// What one Service gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assignment {
    /// At most one address a family, in the order of the Service's families.
    pub ips: Vec<IpAddr>,
    /// The pool that all the addresses come from.
    pub pool: Option<ObjectName>,
    /// Why there is no address, or only that of one family for a Service of both.
    pub reason: Option<Reason>,
}

/// How full a pool is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolUsage {
    /// Addresses that may be assigned; saturates for huge IPv6 ranges.
    pub capacity: u128,
    /// Addresses that are assigned, shared ones counted once.
    pub in_use: u128,
}

impl Allocation {
    /// The assignments that hold an address, as status and as the next allocation's `prior`.
    #[must_use]
    pub fn assigned(&self) -> BTreeMap<ObjectName, Vec<IpAddr>> {
        let held = self.services.iter().filter(|(_, assignment)| !assignment.ips.is_empty());
        held.map(|(name, assignment)| (name.clone(), assignment.ips.clone())).collect()
    }
}

/// The assignments that the Services' status tells of.
#[must_use]
pub fn prior_of(snapshot: &Snapshot) -> BTreeMap<ObjectName, Vec<IpAddr>> {
    let services = snapshot.services.iter().filter(|(_, service)| !service.status.is_empty());
    services.map(|(name, service)| (name.clone(), service.status.iter().map(|entry| entry.ip).collect())).collect()
}

/// Whether this speaker is the one to serve the Service.
#[must_use]
pub fn is_ours(service: &Service) -> bool {
    let class = service.load_balancer.class.as_deref();
    service.kind == ServiceKind::LoadBalancer && class.is_none_or(|class| class == LOAD_BALANCER_CLASS)
}

/// Assigns addresses to all Services of type LoadBalancer. `prior` holds what they had; for a Service that it does not
/// name, there was nothing.
#[must_use]
pub fn allocate(snapshot: &Snapshot, prior: &BTreeMap<ObjectName, Vec<IpAddr>>) -> Allocation {
    allocate_beside(snapshot, prior, &BTreeMap::new())
}

/// As [`allocate`], beside Services of which too little is known to judge them: what they hold is given to nobody else,
/// and those of them that are in the snapshot get nothing.
#[must_use]
pub fn allocate_beside(
    snapshot: &Snapshot,
    prior: &BTreeMap<ObjectName, Vec<IpAddr>>,
    held: &BTreeMap<ObjectName, Vec<IpAddr>>,
) -> Allocation {
    let pools = Pools::new(snapshot);
    let mut run = Run { ledger: Ledger::beside(held), cursors: Cursors::default(), pools: &pools };
    let mut allocation = Allocation::default();
    let mut requests = Vec::new();
    for service in snapshot.services.values().filter(|service| service.kind == ServiceKind::LoadBalancer) {
        let request = match held.contains_key(&service.meta.name) {
            true => Err(Reason::Withheld),
            false => Request::new(service, &pools),
        };
        match request {
            Ok(request) => requests.push(request),
            Err(reason) => {
                let refused = Assignment { reason: Some(reason), ..Assignment::default() };
                allocation.services.insert(service.meta.name.clone(), refused);
            }
        }
    }
    requests.sort_by_key(|request| request.service.meta.age_order());
    let mut pending = Vec::new();
    for request in requests {
        let held = prior.get(&request.service.meta.name).and_then(|ips| run.lock(&request, ips));
        match held {
            Some(assignment) if assignment.ips.len() == request.families.len() => {
                allocation.services.insert(request.service.meta.name.clone(), assignment);
            }
            held => pending.push((request, held)),
        }
    }
    // Whoever asks for one certain address goes before those that any address suits.
    pending.sort_by_key(|(request, _)| request.service.load_balancer.requested_ips.is_empty());
    for (request, held) in pending {
        let assignment = match held {
            Some(held) => run.complete(&request, held),
            None => run.serve(&request),
        };
        allocation.services.insert(request.service.meta.name.clone(), assignment);
    }
    allocation.pools = pools.usage(&allocation);
    allocation
}

/// One allocation under way.
struct Run<'a> {
    pools: &'a Pools<'a>,
    ledger: Ledger<'a>,
    cursors: Cursors,
}

impl<'a> Run<'a> {
    /// Keeps what the Service had, if all of it may still be had from one pool. An address of a family that the Service
    /// no longer asks for is let go alone.
    fn lock(&mut self, request: &Request<'a>, prior: &[IpAddr]) -> Option<Assignment> {
        let ips: Vec<IpAddr> = request
            .families
            .iter()
            .filter_map(|family| prior.iter().copied().find(|ip| IpFamily::of(*ip) == *family))
            .collect();
        let wanted = &request.service.load_balancer.requested_ips;
        let agrees = wanted.len() == ips.len() && wanted.iter().all(|ip| ips.contains(ip));
        if ips.is_empty() || !(wanted.is_empty() || agrees) {
            return None;
        }
        let pool = request.holding.iter().copied().find(|pool| ips.iter().all(|ip| self.pools.offers(*pool, *ip)))?;
        if ips.iter().any(|ip| self.ledger.conflict(request.service, *ip).is_some()) {
            return None;
        }
        Some(self.take(request, ips, pool))
    }

    /// Adds the missing family to a Service that holds one of two, from the pool that it already has.
    fn complete(&mut self, request: &Request<'a>, held: Assignment) -> Assignment {
        let missing: Vec<IpFamily> = request
            .families
            .iter()
            .copied()
            .filter(|family| held.ips.iter().all(|ip| IpFamily::of(*ip) != *family))
            .collect();
        let pool = held.pool.as_ref().and_then(|name| self.pools.position(name));
        let found = pool.and_then(|pool| self.find_all(request, &missing, pool).map(|ips| (pool, ips)));
        let Some((pool, added)) = found else {
            let pools = held.pool.iter().map(|pool| pool.name.to_string()).collect();
            let has = |family: &IpFamily| pool.is_some_and(|pool| self.pools.has_family(pool, *family));
            let reason = if missing.iter().any(has) {
                Reason::Exhausted { families: missing, pools }
            } else {
                Reason::FamilyNotInPools { families: missing, pools }
            };
            return Assignment { reason: Some(reason), ..held };
        };
        let mut ips = held.ips;
        ips.extend(added);
        ips.sort_by_key(|ip| request.families.iter().position(|family| *family == IpFamily::of(*ip)));
        self.take(request, ips, pool)
    }

    fn serve(&mut self, request: &Request<'a>) -> Assignment {
        if !request.service.load_balancer.requested_ips.is_empty() {
            return self.serve_requested(request);
        }
        for pool in &request.serving {
            if let Some(ips) = self.find_all(request, &request.families, *pool) {
                return self.take(request, ips, *pool);
            }
        }
        // No pool has both families: one address serves half the clients, none serves nobody. The model does not tell
        // RequireDualStack from PreferDualStack; MetalLB would leave the former pending.
        if request.families.len() > 1 {
            for family in &request.families {
                for pool in &request.serving {
                    if let Some(ips) = self.find_all(request, &[*family], *pool) {
                        let served = self.take(request, ips, *pool);
                        return self.complete(request, served);
                    }
                }
            }
        }
        Assignment { reason: Some(self.why_none(request)), ..Assignment::default() }
    }

    fn serve_requested(&mut self, request: &Request<'a>) -> Assignment {
        let refused = |reason| Assignment { reason: Some(reason), ..Assignment::default() };
        let mut ips = request.service.load_balancer.requested_ips.clone();
        ips.sort_by_key(|ip| request.families.iter().position(|family| *family == IpFamily::of(*ip)));
        let offering = request.holding.iter().copied().find(|pool| ips.iter().all(|ip| self.pools.offers(*pool, *ip)));
        let Some(pool) = offering else {
            return refused(self.pools.why_not_offered(request, &ips));
        };
        let taken = |ip: &IpAddr| self.ledger.reserved(*ip).or_else(|| self.ledger.conflict(request.service, *ip));
        if let Some(reason) = ips.iter().find_map(taken) {
            return refused(reason);
        }
        self.take(request, ips, pool)
    }

    fn find_all(&mut self, request: &Request<'a>, families: &[IpFamily], pool: usize) -> Option<Vec<IpAddr>> {
        let mut find =
            |family: &IpFamily| self.pools.find(pool, *family, request.service, &self.ledger, &mut self.cursors);
        families.iter().map(&mut find).collect()
    }

    fn why_none(&self, request: &Request<'a>) -> Reason {
        if request.serving.is_empty() {
            return Reason::NoPoolForService;
        }
        let name = |pool: &usize| self.pools.name(*pool).map(|name| name.name.to_string());
        let has = |pool: &usize| request.families.iter().any(|family| self.pools.has_family(*pool, *family));
        if !request.serving.iter().any(has) {
            let pools = request.serving.iter().filter_map(name).collect();
            return Reason::FamilyNotInPools { families: request.families.clone(), pools };
        }
        let pools = request.serving.iter().filter(|pool| has(pool)).filter_map(name).collect();
        Reason::Exhausted { families: request.families.clone(), pools }
    }

    fn take(&mut self, request: &Request<'a>, ips: Vec<IpAddr>, pool: usize) -> Assignment {
        for ip in &ips {
            self.ledger.claim(request.service, *ip);
        }
        Assignment { ips, pool: self.pools.name(pool).cloned(), reason: None }
    }
}
