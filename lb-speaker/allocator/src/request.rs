//! What a Service asks for, checked as far as it can be without knowing what the others have.

use std::collections::BTreeSet;

use roadstead_model::{FamilyPolicy, IpFamily, Service};

use crate::{classes::Classes, pools::Pools, reason::Reason};

/// A Service that may be served, and by which pools.
pub(crate) struct Request<'a> {
    pub(crate) service: &'a Service,
    /// Families of the cluster addresses, in the order of preference.
    pub(crate) families: Vec<IpFamily>,
    /// Pools to assign from, rank by rank, in the order to try.
    pub(crate) serving: Vec<Vec<usize>>,
    /// Pools that an address already held or asked for may come from: the serving ones first, then those that do not
    /// assign by themselves.
    pub(crate) holding: Vec<usize>,
}

impl<'a> Request<'a> {
    pub(crate) fn new(service: &'a Service, pools: &Pools<'_>, classes: &Classes) -> Result<Self, Reason> {
        let spec = &service.load_balancer;
        if !classes.serve(service) {
            return Err(spec.class.clone().map_or(Reason::NoClass, Reason::OtherClass));
        }
        let families = families(service);
        if families.is_empty() {
            return Err(Reason::NoClusterIp);
        }
        if pools.is_empty() {
            return Err(Reason::NoPools);
        }
        if families.len() < 2 && service.family_policy == FamilyPolicy::RequireDualStack {
            return Err(Reason::NeedsTwoClusterIps);
        }
        check_requested(service, &families)?;
        let Some(name) = &spec.requested_pool else {
            let (serving, holding) = (pools.serving(service).into(), pools.holding(service));
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
        Ok(Self { service, families, holding: serving.clone(), serving: vec![serving] })
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
    if ips.len() > 2 {
        return Err(Reason::TooMany(ips.len()));
    }
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
