//! From a snapshot to frontends: which (address, port, protocol) triples this node serves, and by which endpoints.
//!
//! The endpoint sets follow kube-proxy's `CategorizeEndpoints` (pkg/proxy/topology.go): ready endpoints, or where there
//! is none the serving ones that are terminating; the Local set is the same over this node's endpoints.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use roadstead_abi::{Addr, Be16, SvcKey, kind, scope, svc_flags};
use roadstead_model::{
    Endpoint, IpFamily, ObjectName, ObjectRef, Problem, Protocol, Service, ServiceKind, ServicePort, Severity,
    Snapshot, TrafficPolicy,
};

use crate::addresses::{port, to_map};

/// Everything that the maps shall hold about Services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontends {
    /// By key.
    pub by_key: BTreeMap<SvcKey, Frontend>,
    /// Addresses that belong to Services alone; the value is a [`kind`].
    pub vips: BTreeMap<Addr, u8>,
    /// Endpoints of each Service port that still answer, ready or not: flows to them go on.
    pub serving: BTreeMap<ServicePortName, BTreeSet<EndpointAddress>>,
    /// Frontends that lost to an older Service.
    pub conflicts: Vec<Problem>,
}

/// One frontend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frontend {
    /// The Service's port, the unit of counters.
    pub port: ServicePortName,
    /// One of [`kind`].
    pub kind: u8,
    /// Bits of [`svc_flags`].
    pub flags: u16,
    /// Endpoints under policy Cluster, sorted.
    pub cluster: Vec<EndpointAddress>,
    /// Endpoints under policy Local, sorted.
    pub local: Vec<EndpointAddress>,
}

/// A Service and the name of one of its ports.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServicePortName {
    /// The Service.
    pub service: ObjectName,
    /// `name` of the port; empty for an unnamed one.
    pub port: String,
}

/// Address and port of an endpoint, in the form of the maps.
pub type EndpointAddress = (Addr, Be16);

/// What the node brings to the question which frontends it serves.
#[derive(Clone, Copy, Debug)]
pub struct NodeView<'a> {
    /// The name of this node.
    pub name: &'a str,
    /// Its addresses: they stay reachable as themselves even where a Service names one as an external address.
    pub addresses: &'a [IpAddr],
}

/// Decides all frontends of a snapshot. Where two Services claim a triple, the older one has it.
#[must_use]
pub fn compile(snapshot: &Snapshot, node: NodeView<'_>) -> Frontends {
    let mut services: Vec<_> = snapshot.services.values().collect();
    services.sort_by_key(|service| service.meta.age_order());
    let mut frontends = Frontends::default();
    for service in services {
        if is_ours(service) {
            add_service(&mut frontends, snapshot, service, node);
        }
    }
    frontends
}

/// Headless and external-name Services have nothing to balance; the label hands a Service to another proxy.
fn is_ours(service: &Service) -> bool {
    !matches!(service.kind, ServiceKind::ExternalName(_))
        && !service.is_headless()
        && !service.meta.labels.contains_key("service.kubernetes.io/service-proxy-name")
}

fn add_service(frontends: &mut Frontends, snapshot: &Snapshot, service: &Service, node: NodeView<'_>) {
    for service_port in &service.ports {
        if service_port.protocol == Protocol::Sctp {
            continue;
        }
        for family in [IpFamily::V4, IpFamily::V6] {
            let sets = EndpointSets::of(snapshot, service, service_port, family, node.name);
            add_port(frontends, snapshot, service, service_port, &sets, node);
            let name = ServicePortName { service: service.meta.name.clone(), port: service_port.name.clone() };
            frontends.serving.entry(name).or_default().extend(sets.serving);
        }
    }
}

fn add_port(
    frontends: &mut Frontends,
    snapshot: &Snapshot,
    service: &Service,
    service_port: &ServicePort,
    sets: &EndpointSets,
    node: NodeView<'_>,
) {
    let family = sets.family;
    let of_family = |ip: &IpAddr| IpFamily::of(*ip) == family;
    let mut add = |kind: u8, ip: IpAddr| {
        let addr = to_map(ip);
        let key = SvcKey {
            addr,
            port: port(service_port.port),
            proto: service_port.protocol.number(),
            scope: scope::ADDRESS,
        };
        if is_vip(snapshot, node, kind, &ip) {
            frontends.vips.entry(addr).or_insert(kind);
        }
        insert(&mut frontends.by_key, &mut frontends.conflicts, key, sets.frontend(service, service_port, kind));
    };
    service.cluster_ips.iter().copied().filter(of_family).for_each(|ip| add(kind::CLUSTER_IP, ip));
    service.captured_ips().filter(of_family).for_each(|ip| add(kind::LOAD_BALANCER, ip));
    service.external_ips.iter().copied().filter(of_family).for_each(|ip| add(kind::EXTERNAL_IP, ip));
    if let Some(node_port) = service_port.node_port
        && service.ip_families.contains(&family)
    {
        let scope = if family == IpFamily::V4 { scope::NODE_PORT_V4 } else { scope::NODE_PORT_V6 };
        let key =
            SvcKey { addr: Addr::UNSPECIFIED, port: port(node_port), proto: service_port.protocol.number(), scope };
        let frontend = sets.frontend(service, service_port, kind::NODE_PORT);
        insert(&mut frontends.by_key, &mut frontends.conflicts, key, frontend);
    }
}

/// Whether the address belongs to Services alone, so that whatever no Service serves there is refused. An external
/// address is somebody's, as is one of a node that stands in `status.loadBalancer`.
fn is_vip(snapshot: &Snapshot, node: NodeView<'_>, kind: u8, ip: &IpAddr) -> bool {
    let is_nodes = || {
        let mut nodes = snapshot.nodes.values();
        nodes.any(|node| node.internal_ips.contains(ip) || node.external_ips.contains(ip))
    };
    match kind {
        kind::CLUSTER_IP => true,
        kind::LOAD_BALANCER => !node.addresses.contains(ip) && !is_nodes(),
        _ => false,
    }
}

fn insert(by_key: &mut BTreeMap<SvcKey, Frontend>, conflicts: &mut Vec<Problem>, key: SvcKey, frontend: Frontend) {
    let Some(holder) = by_key.get(&key) else {
        by_key.insert(key, frontend);
        return;
    };
    // One Service may name an address twice, as external and load-balancer address; the first kind stands.
    if holder.port == frontend.port {
        return;
    }
    conflicts.push(Problem {
        severity: Severity::Error,
        place: None,
        object: Some(ObjectRef { kind: "Service".to_owned(), name: frontend.port.service.clone() }),
        field: None,
        reason: format!(
            "{} port {} is already served for {}, which is older",
            crate::addresses::from_map(&key.addr),
            key.port.get(),
            holder.port.service
        ),
    });
}

/// The endpoints of one Service port in one family.
#[derive(Clone, Debug, PartialEq, Eq)]
struct EndpointSets {
    family: IpFamily,
    cluster: BTreeSet<EndpointAddress>,
    local: BTreeSet<EndpointAddress>,
    serving: BTreeSet<EndpointAddress>,
    any: bool,
}

impl EndpointSets {
    fn of(snapshot: &Snapshot, service: &Service, service_port: &ServicePort, family: IpFamily, node: &str) -> Self {
        let endpoints = endpoints_of(snapshot, service, service_port, family);
        let everywhere = usable(endpoints.iter().copied());
        let here = usable(endpoints.iter().copied().filter(|(endpoint, _)| endpoint.is_on(node)));
        let any = !everywhere.is_empty();
        let answers = |endpoint: &Endpoint| endpoint.ready || endpoint.serving;
        let serving = endpoints.iter().filter(|(endpoint, _)| answers(endpoint)).map(|(_, address)| *address).collect();
        Self { family, cluster: everywhere, local: here, serving, any }
    }

    fn frontend(&self, service: &Service, service_port: &ServicePort, kind: u8) -> Frontend {
        let mut flags = 0;
        if service.internal_policy == TrafficPolicy::Local {
            flags |= svc_flags::INTERNAL_LOCAL;
        }
        if service.external_policy == TrafficPolicy::Local {
            flags |= svc_flags::EXTERNAL_LOCAL;
        }
        if self.any {
            flags |= svc_flags::HAS_ENDPOINTS;
        }
        Frontend {
            port: ServicePortName { service: service.meta.name.clone(), port: service_port.name.clone() },
            kind,
            flags,
            cluster: self.cluster.iter().copied().collect(),
            local: self.local.iter().copied().collect(),
        }
    }
}

/// Endpoints of the family whose slice serves the port, matched by name and protocol.
fn endpoints_of<'a>(
    snapshot: &'a Snapshot,
    service: &Service,
    service_port: &ServicePort,
    family: IpFamily,
) -> Vec<(&'a Endpoint, EndpointAddress)> {
    let mut found = Vec::new();
    for slice in snapshot.slices_of(&service.meta.name).iter().filter(|slice| slice.family == family) {
        let served = slice
            .ports
            .iter()
            .filter(|candidate| candidate.name == service_port.name && candidate.protocol == service_port.protocol);
        for slice_port in served {
            let address = |endpoint: &Endpoint| (to_map(endpoint.ip), port(slice_port.port));
            found.extend(slice.endpoints.iter().map(|endpoint| (endpoint, address(endpoint))));
        }
    }
    found
}

/// The ready ones; where there is none, those that still serve while they terminate (KEP-1669).
fn usable<'a>(endpoints: impl Iterator<Item = (&'a Endpoint, EndpointAddress)> + Clone) -> BTreeSet<EndpointAddress> {
    let ready: BTreeSet<_> =
        endpoints.clone().filter(|(endpoint, _)| endpoint.ready).map(|(_, address)| address).collect();
    if !ready.is_empty() {
        return ready;
    }
    endpoints.filter(|(endpoint, _)| endpoint.serving && endpoint.terminating).map(|(_, address)| address).collect()
}

#[cfg(test)]
#[path = "frontends_tests.rs"]
mod tests;
