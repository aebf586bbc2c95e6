//! The allocator: which Service gets which addresses of which pool, or why it gets none.
//!
//! It stands on the configuration's way between `model` and the status that `sources` writes back. It is a pure function
//! of a snapshot and the assignments before it: no clock, no chance, no order of arrival. Speakers that read the same
//! objects come to the same answer if they held the same before; that they did is not known here, so of several speakers
//! one assigns, and the others are told what (`layer2::replica`), for which Services can be `closed`. It deliberately does not decide who
//! announces an address: that is `layer2`.
//!
//! Two phases keep addresses where they are: first every earlier assignment that is still valid is locked, then what is
//! pending is served. The rules are MetalLB's; where this differs, the place says so.

#![forbid(unsafe_code)]

mod classes;
mod ledger;
mod observe;
mod pools;
mod reason;
mod request;
mod run;
mod usage;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use roadstead_model::{ObjectName, ServiceKind, Snapshot};

pub use crate::{
    classes::{Classes, LOAD_BALANCER_CLASS},
    observe::observed,
    pools::pool_of,
    reason::Reason,
    usage::{FamilyUsage, PoolUsage},
};
use crate::{pools::Pools, request::Request, run::Run};

/// Addresses by the Service that holds them.
type Table = BTreeMap<ObjectName, Vec<IpAddr>>;

/// What every Service of type LoadBalancer gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allocation {
    /// By Service; other types of Service do not appear.
    pub services: BTreeMap<ObjectName, Assignment>,
    /// By pool, in the order of names.
    pub pools: BTreeMap<ObjectName, PoolUsage>,
    /// What Services of ours held before and could not keep.
    pub cleared: BTreeMap<ObjectName, Cleared>,
}

/// What one Service gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assignment {
    /// At most one address a family: IPv4 first, or in the order in which they were held or asked for, as MetalLB lists them.
    pub ips: Vec<IpAddr>,
    /// The pool that all the addresses come from.
    pub pool: Option<ObjectName>,
    /// Why there is no address, or only that of one family for a Service of both.
    pub reason: Option<Reason>,
}

/// Addresses that were taken from a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cleared {
    /// All that it held.
    pub ips: Vec<IpAddr>,
    /// Why it could not keep them.
    pub reason: Reason,
}

impl Allocation {
    /// The assignments that hold an address, as status and as the next allocation's `prior`.
    #[must_use]
    pub fn assigned(&self) -> Table {
        let held = self.services.iter().filter(|(_, assignment)| !assignment.ips.is_empty());
        held.map(|(name, assignment)| (name.clone(), assignment.ips.clone())).collect()
    }
}

/// Whether the two Services of the snapshot may have the address together. Of one that is not in the snapshot nothing is
/// known, and whoever assigned it the address knew better.
#[must_use]
pub fn may_share(snapshot: &Snapshot, one: &ObjectName, other: &ObjectName, ip: IpAddr) -> bool {
    let both = snapshot.services.get(one).zip(snapshot.services.get(other));
    both.is_none_or(|(one, other)| ledger::sharing_conflict(one, other, ip).is_none())
}

/// The assignments that the Services' status tells of.
#[must_use]
pub fn prior_of(snapshot: &Snapshot) -> Table {
    let services = snapshot.services.iter().filter(|(_, service)| !service.status.is_empty());
    services.map(|(name, service)| (name.clone(), service.status.iter().map(|entry| entry.ip).collect())).collect()
}

/// Assigns addresses to all Services of type LoadBalancer. `prior` holds what they had; for a Service that it does not
/// name, there was nothing.
#[must_use]
pub fn allocate(snapshot: &Snapshot, prior: &Table) -> Allocation {
    allocate_beside(snapshot, prior, &BTreeMap::new(), &BTreeSet::new(), &Classes::default())
}

/// As [`allocate`], for Services of these classes, and beside Services of which too little is known to judge them: what
/// they hold is given to nobody else, and those of them that are in the snapshot get nothing. Addresses that are
/// `occupied`, by hosts outside the cluster, are given to nobody and taken from whoever had them.
#[must_use]
pub fn allocate_beside(
    snapshot: &Snapshot,
    prior: &Table,
    held: &Table,
    occupied: &BTreeSet<IpAddr>,
    classes: &Classes,
) -> Allocation {
    allocate_within(snapshot, prior, held, occupied, classes, &BTreeMap::new())
}

/// As [`allocate_beside`], where nothing is decided about the Services that are `closed`: each keeps what it had as long as
/// the rules let it, gets nothing new, and what the rules would take from it is given to nobody else; the reason that stands
/// with it says why.
#[must_use]
pub fn allocate_within(
    snapshot: &Snapshot,
    prior: &Table,
    held: &Table,
    occupied: &BTreeSet<IpAddr>,
    classes: &Classes,
    closed: &BTreeMap<ObjectName, Reason>,
) -> Allocation {
    let pools = Pools::new(snapshot);
    let mut allocation = Allocation::default();
    let (mut requests, mut kept) = (Vec::new(), Vec::new());
    for service in snapshot.services.values().filter(|service| service.kind == ServiceKind::LoadBalancer) {
        let name = &service.meta.name;
        let request = match held.contains_key(name) {
            true => Err(Reason::Withheld),
            false => Request::new(service, &pools, classes),
        };
        match request {
            Ok(request) => requests.push(request),
            Err(reason) => {
                // What is another controller's is not ours to clear, and what is withheld is kept.
                let had = prior.get(name).filter(|_| classes.serve(service) && reason != Reason::Withheld);
                if closed.contains_key(name) {
                    kept.extend(had.map(|ips| (name, ips)));
                } else if let Some(ips) = had {
                    allocation.cleared.insert(name.clone(), Cleared { ips: ips.clone(), reason: reason.clone() });
                }
                let refused = Assignment { reason: Some(reason), ..Assignment::default() };
                allocation.services.insert(name.clone(), refused);
            }
        }
    }
    requests.sort_by_key(|request| request.service.meta.age_order());
    Run::new(&pools, held, occupied, closed).beside(kept).serve_all(requests, prior, &mut allocation);
    allocation.pools = pools.usage(&allocation);
    allocation
}
