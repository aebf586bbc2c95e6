//! What a Service asks for, checked as far as it can be without knowing what the others have.

use std::collections::BTreeSet;

use roadstead_model::{IpFamily, Service};

use crate::{is_ours, pools::Pools, reason::Reason};

/// A Service that may be served, and by which pools.
pub(crate) struct Request<'a> {
    pub(crate) service: &'a Service,
    /// Families of the cluster addresses, in their order.
    pub(crate) families: Vec<IpFamily>,
    /// Pools to assign from, in the order to try.
    pub(crate) serving: Vec<usize>,
    /// Pools that an address already held or asked for may come from: the serving ones first, then those that do not
    /// assign by themselves.
    pub(crate) holding: Vec<usize>,
}

impl<'a> Request<'a> {
    pub(crate) fn new(service: &'a Service, pools: &Pools<'_>) -> Result<Self, Reason> {
        let spec = &service.load_balancer;
        if !is_ours(service) {
            return Err(Reason::OtherClass(spec.class.clone().unwrap_or_default()));
        }
        let families = families(service);
        if families.is_empty() {
            return Err(Reason::NoClusterIp);
        }
        if pools.is_empty() {
            return Err(Reason::NoPools);
        }
        check_requested(service, &families)?;
        let Some(name) = &spec.requested_pool else {
            let serving = pools.serving(service);
            let others = pools.admitting(service).filter(|pool| !serving.contains(pool));
            let holding = serving.iter().copied().chain(others).collect();
            return Ok(Self { service, families, serving, holding });
        };
        let named = pools.named(name);
        if named.is_empty() {
            return Err(Reason::UnknownPool(name.clone()));
        }
        let serving: Vec<usize> = pools.admitting(service).filter(|pool| named.contains(pool)).collect();
        if serving.is_empty() {
            return Err(Reason::PoolRefuses(name.clone()));
        }
        Ok(Self { service, families, holding: serving.clone(), serving })
    }
}

fn families(service: &Service) -> Vec<IpFamily> {
    let mut families = Vec::new();
    for family in service.cluster_ips.iter().map(|ip| IpFamily::of(*ip)) {
        if !families.contains(&family) {
            families.push(family);
        }
    }
    families
}

fn check_requested(service: &Service, families: &[IpFamily]) -> Result<(), Reason> {
    let ips = &service.load_balancer.requested_ips;
    let mut requested = BTreeSet::new();
    for family in ips.iter().map(|ip| IpFamily::of(*ip)) {
        if !requested.insert(family) {
            return Err(Reason::TwoOfOneFamily(family));
        }
    }
    if !ips.is_empty() && requested != families.iter().copied().collect() {
        let requested = requested.into_iter().collect();
        return Err(Reason::RequestedFamilies { requested, service: families.to_vec() });
    }
    Ok(())
}
