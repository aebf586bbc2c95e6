//! One allocation under way: first what is held is locked, then what is pending is served.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use roadstead_model::{FamilyPolicy, IpFamily, ObjectName};

use crate::{
    Allocation, Assignment, Cleared, Table,
    ledger::{Ledger, sharing_conflict},
    pools::{Cursors, Pools},
    reason::Reason,
    request::Request,
};

pub(crate) struct Run<'a> {
    pools: &'a Pools<'a>,
    ledger: Ledger<'a>,
    cursors: Cursors,
    closed: &'a BTreeMap<ObjectName, Reason>,
}

impl<'a> Run<'a> {
    pub(crate) fn new(
        pools: &'a Pools<'a>,
        held: &Table,
        occupied: &'a BTreeSet<IpAddr>,
        closed: &'a BTreeMap<ObjectName, Reason>,
    ) -> Self {
        Self { pools, ledger: Ledger::beside(held, occupied), cursors: Cursors::default(), closed }
    }

    /// Keeps what these Services had from all others.
    pub(crate) fn beside(mut self, kept: Vec<(&ObjectName, &Vec<IpAddr>)>) -> Self {
        kept.into_iter().for_each(|(name, ips)| self.ledger.reserve(name, ips));
        self
    }

    /// Serves the requests, which come in order of age.
    pub(crate) fn serve_all(mut self, requests: Vec<Request<'a>>, prior: &Table, allocation: &mut Allocation) {
        let misfits = misfits(&requests, prior);
        let mut requests: Vec<(usize, Request<'a>)> = requests
            .into_iter()
            .map(|request| (misfits.get(&request.service.meta.name).copied().unwrap_or(0), request))
            .collect();
        requests.sort_by_key(|(misfits, _)| *misfits);
        let mut pending = Vec::new();
        for (_, request) in requests {
            let name = &request.service.meta.name;
            if let Some(reason) = self.closed.get(name) {
                let kept = self.keep(&request, prior.get(name), reason);
                allocation.services.insert(name.clone(), kept);
                continue;
            }
            let held = match prior.get(name).filter(|ips| !ips.is_empty()) {
                None => None,
                Some(ips) => match self.lock(&request, ips) {
                    Ok(assignment) => Some(assignment),
                    Err(reason) => {
                        allocation.cleared.insert(name.clone(), Cleared { ips: ips.clone(), reason });
                        None
                    }
                },
            };
            match held {
                Some(held) if held.ips.len() == request.families.len() || held.reason.is_some() => {
                    allocation.services.insert(name.clone(), held);
                }
                held => pending.push((request, held)),
            }
        }
        // Whoever asks for one certain address goes before those that any address suits, then by age.
        pending.sort_by_key(|(request, _)| {
            (request.service.load_balancer.requested_ips.is_empty(), request.service.meta.age_order())
        });
        for (request, held) in pending {
            let assignment = match held {
                Some(held) => self.complete(&request, held),
                None => self.serve(&request),
            };
            allocation.services.insert(request.service.meta.name.clone(), assignment);
        }
    }

    /// Keeps what the Service had, if all of it may still be had from one pool; else tells why not. An address of a family
    /// that the Service no longer asks for is let go alone, where MetalLB would let go both.
    fn lock(&mut self, request: &Request<'a>, prior: &[IpAddr]) -> Result<Assignment, Reason> {
        let mut ips: Vec<IpAddr> = Vec::new();
        for ip in prior {
            let family = IpFamily::of(*ip);
            if request.families.contains(&family) && ips.iter().all(|ip| IpFamily::of(*ip) != family) {
                ips.push(*ip);
            }
        }
        if ips.is_empty() {
            return Err(Reason::OtherFamilies { families: request.families.clone() });
        }
        if ips.len() < request.families.len() && request.service.family_policy == FamilyPolicy::RequireDualStack {
            return Err(Reason::NeedsBoth);
        }
        let spec = &request.service.load_balancer;
        let agrees = || spec.requested_ips.len() == ips.len() && spec.requested_ips.iter().all(|ip| ips.contains(ip));
        if spec.request_error.is_none() && !spec.requested_ips.is_empty() && !agrees() {
            return Err(Reason::OthersRequested);
        }
        let offering = request.holding.iter().copied().find(|pool| ips.iter().all(|ip| self.pools.offers(*pool, *ip)));
        let pool = offering.ok_or_else(|| self.pools.why_not_offered(request, &ips))?;
        let taken = |ip: &IpAddr| self.ledger.occupied(*ip).or_else(|| self.ledger.conflict(request.service, *ip));
        if let Some(reason) = ips.iter().find_map(taken) {
            return Err(reason);
        }
        let reason = spec.request_error.clone().map(Reason::BadRequest);
        Ok(Assignment { reason, ..self.take(request, ips, pool) })
    }

    /// Leaves a Service that nothing is decided about what it has, or at least nobody else.
    fn keep(&mut self, request: &Request<'a>, prior: Option<&Vec<IpAddr>>, reason: &Reason) -> Assignment {
        let Some(ips) = prior.filter(|ips| !ips.is_empty()) else { return refused(reason.clone()) };
        let kept = self.lock(request, ips).unwrap_or_else(|_| refused(reason.clone()));
        let rest: Vec<IpAddr> = ips.iter().filter(|ip| !kept.ips.contains(ip)).copied().collect();
        self.ledger.reserve(&request.service.meta.name, &rest);
        kept
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
        self.take(request, ips, pool)
    }

    fn serve(&mut self, request: &Request<'a>) -> Assignment {
        let spec = &request.service.load_balancer;
        if let Some(error) = &spec.request_error {
            return refused(Reason::BadRequest(error.clone()));
        }
        if !spec.requested_ips.is_empty() {
            return self.serve_requested(request);
        }
        for pools in &request.serving {
            if let Some(assignment) = self.serve_from(request, pools) {
                return assignment;
            }
        }
        refused(self.why_none(request))
    }

    /// Both families from one pool go before one family from any; a later rank of pools is not asked when an earlier one
    /// has something.
    fn serve_from(&mut self, request: &Request<'a>, pools: &[usize]) -> Option<Assignment> {
        for pool in pools {
            if let Some(mut ips) = self.find_all(request, &request.families, *pool) {
                ips.sort_by_key(|ip| IpFamily::of(*ip));
                return Some(self.take(request, ips, *pool));
            }
        }
        if request.families.len() < 2 || request.service.family_policy == FamilyPolicy::RequireDualStack {
            return None;
        }
        for family in &request.families {
            for pool in pools {
                if let Some(ips) = self.find_all(request, &[*family], *pool) {
                    let served = self.take(request, ips, *pool);
                    // There is nothing to add, or the pool had been found above; what is missing is the reason.
                    return Some(self.complete(request, served));
                }
            }
        }
        None
    }

    fn serve_requested(&mut self, request: &Request<'a>) -> Assignment {
        let ips = request.service.load_balancer.requested_ips.clone();
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
        let serving: Vec<usize> = request.serving.iter().flatten().copied().collect();
        if serving.is_empty() {
            return Reason::NoPoolForService;
        }
        let both = request.service.family_policy == FamilyPolicy::RequireDualStack;
        let name = |pool: &usize| self.pools.name(*pool).map(|name| name.name.to_string());
        let families = request.families.clone();
        let has = |pool: &usize| {
            let mut has = families.iter().map(|family| self.pools.has_family(*pool, *family));
            if both { has.all(|has| has) } else { has.any(|has| has) }
        };
        if !serving.iter().any(has) {
            return Reason::FamilyNotInPools { families, pools: serving.iter().filter_map(name).collect() };
        }
        let pools = serving.iter().filter(|pool| has(pool)).filter_map(name).collect();
        if both { Reason::NoPair { pools } } else { Reason::Exhausted { families, pools } }
    }

    fn take(&mut self, request: &Request<'a>, ips: Vec<IpAddr>, pool: usize) -> Assignment {
        for ip in &ips {
            self.ledger.claim(request.service, *ip);
        }
        Assignment { ips, pool: self.pools.name(pool).cloned(), reason: None }
    }
}

fn refused(reason: Reason) -> Assignment {
    Assignment { reason: Some(reason), ..Assignment::default() }
}

/// With how many of those that held an address beside it a Service can no longer share it, for those where that is not 0.
/// Who has most of them is the one whose sharing key, port or policy changed, and goes last; of two nobody knows, and the
/// older one stays.
fn misfits(requests: &[Request<'_>], prior: &Table) -> BTreeMap<ObjectName, usize> {
    let mut holders: BTreeMap<IpAddr, Vec<&Request<'_>>> = BTreeMap::new();
    for request in requests {
        let ips: BTreeSet<&IpAddr> = prior.get(&request.service.meta.name).into_iter().flatten().collect();
        for ip in ips {
            holders.entry(*ip).or_default().push(request);
        }
    }
    let mut misfits = BTreeMap::new();
    for (ip, together) in holders.iter().filter(|(_, together)| together.len() > 1) {
        for one in together {
            let others = together.iter().filter(|other| other.service.meta.name != one.service.meta.name);
            let count = others.filter(|other| sharing_conflict(one.service, other.service, *ip).is_some()).count();
            if count > 0 {
                *misfits.entry(one.service.meta.name.clone()).or_insert(0) += count;
            }
        }
    }
    misfits
}
