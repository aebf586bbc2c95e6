//! Who holds which address in this run, and who may share it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use roadstead_model::{Labels, ObjectName, Service, TrafficPolicy};

use crate::reason::Reason;

/// All claims made so far.
#[derive(Default)]
pub(crate) struct Ledger<'a> {
    holders: BTreeMap<IpAddr, Vec<&'a Service>>,
    by_key: BTreeMap<&'a str, BTreeSet<IpAddr>>,
    /// Held by Services of which nothing else is known. Who has such an address already shares it and may keep it;
    /// nobody comes to it.
    reserved: BTreeMap<IpAddr, ObjectName>,
    /// Hosts outside the cluster have these.
    occupied: Option<&'a BTreeSet<IpAddr>>,
}

impl<'a> Ledger<'a> {
    pub(crate) fn beside(held: &BTreeMap<ObjectName, Vec<IpAddr>>, occupied: &'a BTreeSet<IpAddr>) -> Self {
        let reserved = held.iter().flat_map(|(name, ips)| ips.iter().map(|ip| (*ip, name.clone()))).collect();
        Self { reserved, occupied: Some(occupied), ..Self::default() }
    }

    /// Keeps what a Service had from all others.
    pub(crate) fn reserve(&mut self, name: &ObjectName, ips: &[IpAddr]) {
        self.reserved.extend(ips.iter().map(|ip| (*ip, name.clone())));
    }

    pub(crate) fn is_free(&self, ip: IpAddr) -> bool {
        !self.holders.contains_key(&ip) && !self.reserved.contains_key(&ip) && self.occupied(ip).is_none()
    }

    /// Why nobody can come to the address; `None` where it is not reserved.
    pub(crate) fn reserved(&self, ip: IpAddr) -> Option<Reason> {
        let held = self.reserved.get(&ip).map(|by| Reason::InUse { ip, by: by.clone() });
        held.or_else(|| self.occupied(ip))
    }

    /// Why nobody can have the address; `None` where no host outside the cluster has it.
    pub(crate) fn occupied(&self, ip: IpAddr) -> Option<Reason> {
        self.occupied.is_some_and(|occupied| occupied.contains(&ip)).then_some(Reason::Occupied(ip))
    }

    /// Addresses between the two ends that are held under the Service's sharing key.
    pub(crate) fn shared(&self, service: &Service, first: IpAddr, last: IpAddr) -> impl Iterator<Item = IpAddr> {
        let ips = sharing_key(service).and_then(|key| self.by_key.get(key));
        ips.into_iter().flat_map(move |ips| ips.range(first..=last).copied())
    }

    /// Why the Service cannot hold the address beside its holders; `None` means that it can. A holder that asks for the
    /// address again is not in its own way.
    pub(crate) fn conflict(&self, service: &Service, ip: IpAddr) -> Option<Reason> {
        let holders = self.holders.get(&ip)?;
        let others = holders.iter().filter(|holder| holder.meta.name != service.meta.name);
        others.filter_map(|holder| sharing_conflict(service, holder, ip)).next()
    }

    pub(crate) fn claim(&mut self, service: &'a Service, ip: IpAddr) {
        let holders = self.holders.entry(ip).or_default();
        if holders.iter().any(|holder| holder.meta.name == service.meta.name) {
            return;
        }
        holders.push(service);
        if let Some(key) = sharing_key(service) {
            self.by_key.entry(key).or_default().insert(ip);
        }
    }
}

fn sharing_key(service: &Service) -> Option<&str> {
    service.load_balancer.sharing_key.as_deref().filter(|key| !key.is_empty())
}

/// With policy Local an address must lead to the same pods for both, or a node without one's pods would draw the other's
/// traffic. Unlike MetalLB, a Service without selector and with policy Local does not count as Cluster.
fn backend_key(service: &Service) -> Option<&Labels> {
    (service.external_policy == TrafficPolicy::Local).then_some(&service.selector)
}

/// Why the two Services cannot hold the address together.
pub(crate) fn sharing_conflict(service: &Service, holder: &Service, ip: IpAddr) -> Option<Reason> {
    let by = holder.meta.name.clone();
    let key = sharing_key(service);
    if key.is_none() || key != sharing_key(holder) {
        return Some(Reason::InUse { ip, by });
    }
    let taken = service
        .ports
        .iter()
        .find(|port| holder.ports.iter().any(|other| (other.protocol, other.port) == (port.protocol, port.port)));
    if let Some(port) = taken {
        return Some(Reason::PortInUse { ip, by, protocol: port.protocol, port: port.port });
    }
    (backend_key(service) != backend_key(holder)).then_some(Reason::PolicyDiffers { ip, by })
}
