//! An allocation as the Services' status tells it, for who announces what another has assigned.

use std::net::IpAddr;

use roadstead_model::{ServiceKind, Snapshot};

use crate::{Allocation, Assignment, Classes, Reason, pools::Pools};

/// What the Services of these classes have by their status. Addresses that no pool offers to their Service any more are left out,
/// as whoever assigns will take them back.
#[must_use]
pub fn observed(snapshot: &Snapshot, classes: &Classes) -> Allocation {
    let pools = Pools::new(snapshot);
    let mut allocation = Allocation::default();
    for service in snapshot.services.values().filter(|service| service.kind == ServiceKind::LoadBalancer) {
        let assignment = if classes.serve(service) {
            let ips: Vec<IpAddr> = service.status.iter().map(|entry| entry.ip).collect();
            let offers_all = |pool: &usize| ips.iter().all(|ip| pools.offers(*pool, *ip));
            let pool = pools.holding(service).into_iter().find(offers_all).filter(|_| !ips.is_empty());
            let pool = pool.and_then(|pool| pools.name(pool)).cloned();
            let ips = if pool.is_some() { ips } else { Vec::new() };
            Assignment { ips, pool, reason: None }
        } else {
            let class = service.load_balancer.class.clone();
            Assignment { reason: Some(class.map_or(Reason::NoClass, Reason::OtherClass)), ..Assignment::default() }
        };
        allocation.services.insert(service.meta.name.clone(), assignment);
    }
    allocation.pools = pools.usage(&allocation);
    allocation
}
