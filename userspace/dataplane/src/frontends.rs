//! From a Service to frontends: which (address, port, protocol) triples this node serves for it, and by which endpoints.
//!
//! The rules are kube-proxy's (pkg/proxy/serviceport.go, nftables/proxier.go). One Service is looked at here; conflicts
//! between Services, and what has changed since the last snapshot, are [`crate::compiler`]'s.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use ipnet::IpNet;
use roadstead_abi::{Addr, Be16, SvcKey, kind, scope, svc_flags};
use roadstead_datapath::conntrack::Clock;
use roadstead_model::{
    EndpointSlice, IpFamily, ObjectName, Problem, Protocol, Selection, Service, ServiceKind, ServicePort, TrafficPolicy,
};

pub use crate::compiler::Compiler;
use crate::{
    addresses::{Prefix, port, to_map},
    topology::{Candidate, EndpointSets, Place, Uses},
};

/// What has changed since the delta before; the first one holds everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// Frontends that are new or other than they were, and those that are gone. Each key stands here once.
    pub frontends: Vec<(SvcKey, Option<Frontend>)>,
    /// Addresses that belong to Services alone, with their [`kind`], and those that no more do.
    pub vips: Vec<(Addr, Option<u8>)>,
    /// All frontends that lose to an older Service now, changed or not.
    pub conflicts: Vec<Problem>,
}

/// One frontend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frontend {
    /// One of [`kind`].
    pub kind: u8,
    /// The Service's port and its endpoints.
    pub port: Arc<Port>,
}

impl Frontend {
    /// Endpoints under policy Cluster. A tombstone's sockets are in the cluster, so they get what a cluster address gives.
    #[must_use]
    pub fn cluster(&self) -> &[EndpointAddress] {
        let internal_local = self.port.flags & svc_flags::INTERNAL_LOCAL != 0;
        if self.kind == kind::TOMBSTONE && internal_local { &self.port.sets.local } else { &self.port.sets.cluster }
    }

    /// Endpoints under policy Local.
    #[must_use]
    pub fn local(&self) -> &[EndpointAddress] {
        if self.kind == kind::TOMBSTONE { &[] } else { &self.port.sets.local }
    }

    /// Networks that may reach the frontend, sorted; `None` lets everybody in.
    #[must_use]
    pub fn ranges(&self) -> Option<&Arc<[Prefix]>> {
        self.port.ranges.as_ref().filter(|_| self.kind == kind::LOAD_BALANCER)
    }
}

/// One port of a Service in one family: what all its frontends share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The unit of counters.
    pub name: ServicePortName,
    /// The transport protocol.
    pub protocol: Protocol,
    /// The family of its addresses and endpoints.
    pub family: IpFamily,
    /// Bits of [`svc_flags`].
    pub flags: u16,
    /// How long a client keeps its endpoint, in units of the programs' clock; 0 is none.
    pub affinity: u32,
    /// How an endpoint is chosen.
    pub selection: Selection,
    /// Networks that may reach load-balancer addresses.
    pub ranges: Option<Arc<[Prefix]>>,
    /// The endpoints.
    pub sets: EndpointSets,
}

/// A Service and the name of one of its ports.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServicePortName {
    /// The Service.
    pub service: ObjectName,
    /// `name` of the port; empty for an unnamed one.
    pub port: Arc<str>,
}

/// Address and port of an endpoint, in the form of the maps.
pub type EndpointAddress = (Addr, Be16);

/// What the agent brings to the question how Services are served.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The programs' clock.
    pub clock: Clock,
    /// How endpoints are chosen for Services that do not say.
    pub selection: Selection,
}

/// What the node brings to the question which frontends it serves.
#[derive(Clone, Copy, Debug)]
pub struct NodeView<'a> {
    /// The name of this node.
    pub name: &'a str,
    /// All its addresses: they stay reachable as themselves even where a Service names one as an external address.
    pub addresses: &'a [IpAddr],
    /// Its primary address of each family: where source ranges admit it, they admit its way back to itself.
    pub primary: &'a [IpAddr],
}

/// What of the node and the other nodes decides about frontends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeFacts {
    pub(crate) name: String,
    pub(crate) zone: Option<String>,
    /// Addresses of this node and the others.
    pub(crate) hosts: BTreeSet<IpAddr>,
    pub(crate) primary: Vec<IpAddr>,
}

/// One Service, compiled.
#[derive(Debug, Default)]
pub(crate) struct Compiled {
    pub(crate) ports: Vec<Arc<Port>>,
    pub(crate) claims: Vec<(SvcKey, Frontend)>,
    /// Addresses that belong to Services alone.
    pub(crate) vips: Vec<(Addr, u8)>,
    /// Addresses of endpoints that answer, of any port and family, sorted.
    pub(crate) live: Vec<Addr>,
}

impl Compiled {
    /// Compiles a Service; ports that are as they were `before` stay the same `Arc`.
    pub(crate) fn of(
        service: &Service,
        slices: &[Arc<EndpointSlice>],
        node: &NodeFacts,
        options: Options,
        before: &Self,
    ) -> Self {
        let mut compiled = Self { live: live(slices), ..Self::default() };
        if !is_ours(service) {
            return compiled;
        }
        for service_port in service.ports.iter().filter(|port| port.protocol != Protocol::Sctp) {
            for family in [IpFamily::V4, IpFamily::V6] {
                let reach = Reach::of(service, service_port, family);
                if !reach.is_empty() {
                    compiled.add_port(service, service_port, &reach, (slices, node, options), before);
                }
            }
        }
        compiled
    }

    fn add_port(
        &mut self,
        service: &Service,
        service_port: &ServicePort,
        reach: &Reach,
        (slices, node, options): (&[Arc<EndpointSlice>], &NodeFacts, Options),
        before: &Self,
    ) {
        let family = reach.family;
        let candidates = candidates(slices, service_port, family);
        let place = Place { node: &node.name, zone: node.zone.as_deref() };
        let sets = EndpointSets::of(&candidates, reach.uses(service), place);
        let old = before.ports.get(self.ports.len());
        let port = Port {
            name: name(service, service_port, old),
            protocol: service_port.protocol,
            family,
            flags: flags(service, reach, &sets),
            affinity: service.affinity_seconds.map_or(0, |seconds| options.clock.units(seconds)),
            selection: service.selection.unwrap_or(options.selection),
            ranges: reach.ranges(service, node),
            sets,
        };
        let port = old.filter(|old| ***old == port).map_or_else(|| Arc::new(port), Arc::clone);
        self.add_claims(service_port, reach, &port, node);
        self.ports.push(port);
    }

    fn add_claims(&mut self, service_port: &ServicePort, reach: &Reach, shared: &Arc<Port>, node: &NodeFacts) {
        let first = self.claims.len();
        for (kind, ip) in reach.addresses() {
            let addr = to_map(ip);
            if is_vip(node, kind, &ip) {
                self.vips.push((addr, kind));
            }
            let proto = service_port.protocol.number();
            let key = SvcKey { addr, port: port(service_port.port), proto, scope: scope::ADDRESS };
            // A Service may name an address twice, as external and load-balancer address; the first kind stands.
            if self.claims.iter().skip(first).any(|(claimed, _)| *claimed == key) {
                continue;
            }
            self.claims.push((key, Frontend { kind, port: Arc::clone(shared) }));
        }
        if let Some(node_port) = reach.node_port {
            let scope = if reach.family == IpFamily::V4 { scope::NODE_PORT_V4 } else { scope::NODE_PORT_V6 };
            let proto = service_port.protocol.number();
            let key = SvcKey { addr: Addr::UNSPECIFIED, port: node_port, proto, scope };
            self.claims.push((key, Frontend { kind: kind::NODE_PORT, port: Arc::clone(shared) }));
        }
    }
}

/// Headless and external-name Services have nothing to balance; the label hands a Service to another proxy.
fn is_ours(service: &Service) -> bool {
    !matches!(service.kind, ServiceKind::ExternalName(_))
        && !service.is_headless()
        && !service.meta.labels.contains_key("service.kubernetes.io/service-proxy-name")
}

fn live(slices: &[Arc<EndpointSlice>]) -> Vec<Addr> {
    let endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
    let answering = endpoints.filter(|endpoint| endpoint.ready || endpoint.serving);
    let mut live: Vec<_> = answering.map(|endpoint| to_map(endpoint.ip)).collect();
    live.sort_unstable();
    live.dedup();
    live
}

fn name(service: &Service, service_port: &ServicePort, old: Option<&Arc<Port>>) -> ServicePortName {
    let old = old.map(|old| &old.name).filter(|old| *old.port == *service_port.name);
    old.filter(|old| old.service == service.meta.name).cloned().unwrap_or_else(|| ServicePortName {
        service: service.meta.name.clone(),
        port: service_port.name.as_str().into(),
    })
}

fn flags(service: &Service, reach: &Reach, sets: &EndpointSets) -> u16 {
    let mut flags = 0;
    if service.internal_policy == TrafficPolicy::Local {
        flags |= svc_flags::INTERNAL_LOCAL;
    }
    if service.external_policy == TrafficPolicy::Local && reach.is_external() {
        flags |= svc_flags::EXTERNAL_LOCAL;
    }
    if sets.any {
        flags |= svc_flags::HAS_ENDPOINTS;
    }
    flags
}

/// Endpoints of the family whose slice serves the port, matched by name and protocol.
fn candidates<'a>(
    slices: &'a [Arc<EndpointSlice>],
    service_port: &ServicePort,
    family: IpFamily,
) -> Vec<Candidate<'a>> {
    let mut found = Vec::with_capacity(slices.first().map_or(0, |slice| slice.endpoints.len()));
    for slice in slices.iter().filter(|slice| slice.family == family) {
        let served = slice
            .ports
            .iter()
            .filter(|candidate| candidate.name == service_port.name && candidate.protocol == service_port.protocol);
        for slice_port in served {
            let number = port(slice_port.port);
            found.extend(slice.endpoints.iter().map(|endpoint| (endpoint, (to_map(endpoint.ip), number))));
        }
    }
    found
}

/// Whether the address belongs to Services alone, so that whatever no Service serves there is refused. An external
/// address is somebody's, as is one of a node that stands in `status.loadBalancer`.
fn is_vip(node: &NodeFacts, kind: u8, ip: &IpAddr) -> bool {
    match kind {
        kind::CLUSTER_IP => true,
        kind::LOAD_BALANCER => !node.hosts.contains(ip),
        _ => false,
    }
}

/// How one port of a Service is reached in one family.
struct Reach {
    family: IpFamily,
    cluster: Vec<IpAddr>,
    balancer: Vec<IpAddr>,
    external: Vec<IpAddr>,
    node_port: Option<Be16>,
}

impl Reach {
    fn of(service: &Service, service_port: &ServicePort, family: IpFamily) -> Self {
        let of_family = |ip: &IpAddr| IpFamily::of(*ip) == family;
        let node_port = service_port.node_port.filter(|_| service.ip_families.contains(&family));
        Self {
            family,
            cluster: service.cluster_ips.iter().copied().filter(of_family).collect(),
            balancer: service.captured_ips().filter(of_family).collect(),
            external: service.external_ips.iter().copied().filter(of_family).collect(),
            node_port: node_port.map(port),
        }
    }

    fn addresses(&self) -> impl Iterator<Item = (u8, IpAddr)> {
        let cluster = self.cluster.iter().map(|ip| (kind::CLUSTER_IP, *ip));
        let balancer = self.balancer.iter().map(|ip| (kind::LOAD_BALANCER, *ip));
        cluster.chain(balancer).chain(self.external.iter().map(|ip| (kind::EXTERNAL_IP, *ip)))
    }

    fn is_empty(&self) -> bool {
        self.cluster.is_empty() && !self.is_external()
    }

    /// Whether clients outside the cluster reach it; without that the external policy has no meaning.
    fn is_external(&self) -> bool {
        self.node_port.is_some() || !self.balancer.is_empty() || !self.external.is_empty()
    }

    fn uses(&self, service: &Service) -> Uses {
        let internal_local = service.internal_policy == TrafficPolicy::Local;
        let external_local = service.external_policy == TrafficPolicy::Local && self.is_external();
        Uses { cluster: !internal_local || self.is_external(), local: internal_local || external_local }
    }

    /// Who may reach the load-balancer addresses. As in kube-proxy, ranges of the other family count for nothing: a
    /// Service that has no others is open to this one. If the node itself may, so may the addresses: what the node sends to
    /// one of them can come back with that address as its source.
    fn ranges(&self, service: &Service, node: &NodeFacts) -> Option<Arc<[Prefix]>> {
        let of_family = |network: &&IpNet| IpFamily::of(network.addr()) == self.family;
        let networks: Vec<_> = service.load_balancer.source_ranges.iter().filter(of_family).collect();
        if networks.is_empty() || self.balancer.is_empty() {
            return None;
        }
        let mut prefixes: Vec<_> = networks.iter().map(|network| Prefix::of(network)).collect();
        if networks.iter().any(|network| node.primary.iter().any(|ip| network.contains(ip))) {
            prefixes.extend(self.balancer.iter().map(|ip| Prefix::host(*ip)));
        }
        prefixes.sort_unstable();
        prefixes.dedup();
        Some(prefixes.into())
    }
}

#[cfg(test)]
#[path = "frontends_tests.rs"]
mod tests;
