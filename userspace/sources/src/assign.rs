//! Cluster addresses and node ports for Services that name none: a pure function of all Services and the ranges, so that
//! every node that reads the same files agrees. The function stops being pure where two manifests name the same address or
//! port, which is an error anyway: of two that are equally old the one that holds it in the last snapshot keeps it, so that a
//! newcomer throws nothing out; after a restart, names decide.
//!
//! What manifests name goes first, oldest Service first. The rest, in order of names, takes the slot that a hash of its
//! name points to, or the next free one: another Service moves only those whose slot it takes.

use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
    ops::Deref,
    sync::Arc,
};

use ipnet::IpNet;
use roadstead_model::{FamilyPolicy, IpFamily, ObjectName, Port, Protocol, Service, ServiceKind, TrafficPolicy};

use crate::{flags::LoadOptions, hash::fnv1a, object::Draft};

/// Why a Service got no address or port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Conflict {
    pub(crate) service: ObjectName,
    pub(crate) field: String,
    pub(crate) reason: String,
}

/// The addresses and ports of a Service: those that its manifest names and those that it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Assigned {
    ip_families: Vec<IpFamily>,
    cluster_ips: Vec<IpAddr>,
    /// One for each of its ports.
    node_ports: Vec<Option<Port>>,
    health_check_node_port: Option<Port>,
}

impl Assigned {
    /// The Service complete with them.
    pub(crate) fn complete(self, draft: &Draft) -> Service {
        let mut service = Service::clone(&draft.service);
        service.ip_families = self.ip_families;
        service.cluster_ips = self.cluster_ips;
        for (port, node_port) in service.ports.iter_mut().zip(self.node_ports) {
            port.node_port = node_port;
        }
        service.load_balancer.health_check_node_port = self.health_check_node_port;
        service
    }

    /// Whether the Service has just these.
    pub(crate) fn are_those_of(&self, service: &Service) -> bool {
        self.ip_families == service.ip_families
            && self.cluster_ips == service.cluster_ips
            && self.node_ports.iter().copied().eq(service.ports.iter().map(|port| port.node_port))
            && self.health_check_node_port == service.load_balancer.health_check_node_port
    }
}

/// What each Service has by itself, in order of names: those of an API server have all that they are to have.
pub(crate) fn as_written<D: Deref<Target = Draft>>(drafts: &BTreeMap<ObjectName, D>) -> Vec<(ObjectName, Assigned)> {
    let written = |draft: &Draft| {
        let service = &draft.service;
        Assigned {
            ip_families: service.ip_families.clone(),
            cluster_ips: service.cluster_ips.clone(),
            node_ports: service.ports.iter().map(|port| port.node_port).collect(),
            health_check_node_port: service.load_balancer.health_check_node_port,
        }
    };
    drafts.iter().map(|(name, draft)| (name.clone(), written(draft))).collect()
}

/// What each Service gets, in order of names, and the conflicts for which others are left out.
pub(crate) fn assign<D: Deref<Target = Draft>>(
    drafts: &BTreeMap<ObjectName, D>,
    options: &LoadOptions,
    last: &BTreeMap<ObjectName, Arc<Service>>,
) -> (Vec<(ObjectName, Assigned)>, Vec<Conflict>) {
    let mut assigner = Assigner::new(options);
    let mut by_age: Vec<&Draft> = drafts.values().map(|draft| &**draft).collect();
    by_age.sort_by_cached_key(|draft| {
        let (age, name) = draft.service.meta.age_order();
        let held = last.get(name).is_some_and(|running| holds(running, &draft.service));
        (age, !held, name)
    });
    let refused: HashSet<_> =
        by_age.into_iter().filter(|draft| !assigner.take(draft)).map(|draft| &draft.service.meta.name).collect();
    let mut assigned = Vec::with_capacity(drafts.len());
    for (name, draft) in drafts.iter().filter(|(name, _)| !refused.contains(name)) {
        assigned.extend(assigner.complete(draft).map(|assigned| (name.clone(), assigned)));
    }
    (assigned, assigner.conflicts)
}

struct Assigner<'a> {
    options: &'a LoadOptions,
    /// The families that `--service-cidr` has a range of, the primary one first.
    served: Vec<IpFamily>,
    ips: HashSet<IpAddr>,
    ports: HashSet<(Protocol, Port)>,
    conflicts: Vec<Conflict>,
}

impl<'a> Assigner<'a> {
    fn new(options: &'a LoadOptions) -> Self {
        let mut served: Vec<IpFamily> = Vec::new();
        for cidr in &options.service_cidrs {
            let family = IpFamily::of(cidr.addr());
            if !served.contains(&family) {
                served.push(family);
            }
        }
        Self { options, served, ips: HashSet::new(), ports: HashSet::new(), conflicts: Vec::new() }
    }

    fn conflict(&mut self, draft: &Draft, field: &str, reason: String) {
        let (service, field) = (draft.service.meta.name.clone(), field.to_owned());
        self.conflicts.push(Conflict { service, field, reason });
    }

    /// Takes what the manifest names; all of it or nothing.
    fn take(&mut self, draft: &Draft) -> bool {
        let before = self.conflicts.len();
        let service = &draft.service;
        for ip in &service.cluster_ips {
            if !self.options.service_cidrs.iter().any(|cidr| cidr.contains(ip)) {
                self.conflict(draft, "spec.clusterIP", format!("{ip} lies outside every --service-cidr"));
            } else if self.ips.contains(ip) {
                self.conflict(draft, "spec.clusterIP", format!("{ip} belongs to another Service"));
            }
        }
        let range = self.options.node_port_range;
        let mut own = HashSet::new();
        for (field, protocol, port) in explicit_ports(service) {
            if !range.contains(port) {
                self.conflict(draft, &field, format!("{port} lies outside --node-port-range {range}"));
            } else if self.ports.contains(&(protocol, port)) {
                self.conflict(draft, &field, format!("{port}/{protocol} belongs to another Service"));
            } else if !own.insert((protocol, port)) {
                self.conflict(draft, &field, format!("{port}/{protocol} is given twice"));
            }
        }
        let good = self.conflicts.len() == before;
        if good {
            self.ips.extend(&service.cluster_ips);
            self.ports.extend(explicit_ports(service).map(|(_, protocol, port)| (protocol, port)));
        }
        good
    }

    fn complete(&mut self, draft: &Draft) -> Option<Assigned> {
        let service = &draft.service;
        let ip_families = self.families(draft)?;
        let external_name = matches!(service.kind, ServiceKind::ExternalName(_));
        let without = draft.headless || external_name;
        let cluster_ips = if without { service.cluster_ips.clone() } else { self.cluster_ips(draft, &ip_families)? };
        let balanced = service.kind == ServiceKind::LoadBalancer;
        let wanted = service.kind == ServiceKind::NodePort || balanced && draft.allocate_node_ports;
        let named = || service.ports.iter().map(|port| port.node_port).collect();
        let node_ports = if wanted { self.node_ports(draft)? } else { named() };
        let mut health_check_node_port = service.load_balancer.health_check_node_port;
        if balanced && service.external_policy == TrafficPolicy::Local && health_check_node_port.is_none() {
            let key = format!("{}/health", service.meta.name);
            health_check_node_port = Some(self.node_port(draft, "spec.healthCheckNodePort", &key, Protocol::Tcp)?);
        }
        Some(Assigned { ip_families, cluster_ips, node_ports, health_check_node_port })
    }

    /// `ipFamilies` by policy: the families there are ranges for, the primary one first.
    fn families(&mut self, draft: &Draft) -> Option<Vec<IpFamily>> {
        let served = self.served.clone();
        let mut families = draft.service.ip_families.clone();
        // Endpoints of a headless Service without a selector may be of any family.
        let free = draft.headless && draft.service.selector.is_empty();
        if let Some(missing) = families.iter().find(|family| !served.contains(family)).filter(|_| !free) {
            let reason = format!("{missing} has no --service-cidr");
            self.conflict(draft, "spec.ipFamilies", reason);
            return None;
        }
        let wanted = if draft.service.family_policy == FamilyPolicy::SingleStack { 1 } else { 2 };
        for family in served {
            if families.len() < wanted && !families.contains(&family) {
                families.push(family);
            }
        }
        if draft.service.family_policy == FamilyPolicy::RequireDualStack && families.len() < 2 && !free {
            let reason = "is RequireDualStack, but --service-cidr names one family only".to_owned();
            self.conflict(draft, "spec.ipFamilyPolicy", reason);
            return None;
        }
        Some(families)
    }

    fn cluster_ips(&mut self, draft: &Draft, families: &[IpFamily]) -> Option<Vec<IpAddr>> {
        let service = &draft.service;
        let mut ips = service.cluster_ips.clone();
        for family in families.iter().copied() {
            if ips.iter().any(|ip| IpFamily::of(*ip) == family) {
                continue;
            }
            let cidr = self.options.service_cidrs.iter().find(|cidr| IpFamily::of(cidr.addr()) == family).copied();
            let hash = spread(service.meta.name.to_string().as_bytes());
            let ip = cidr.and_then(|cidr| free_ip(cidr, hash, &self.ips));
            let Some(ip) = ip else {
                self.conflict(draft, "spec.clusterIP", format!("no {family} address of --service-cidr is free"));
                return None;
            };
            self.ips.insert(ip);
            ips.push(ip);
        }
        Some(ips)
    }

    /// The node port of each port: the one that it names, else a free one.
    fn node_ports(&mut self, draft: &Draft) -> Option<Vec<Option<Port>>> {
        let mut node_ports = Vec::with_capacity(draft.service.ports.len());
        for (index, port) in draft.service.ports.iter().enumerate() {
            if port.node_port.is_some() {
                node_ports.push(port.node_port);
                continue;
            }
            let field = format!("spec.ports[{index}].nodePort");
            // Without the protocol in the key, TCP and UDP of one number get one node port, as DNS wants it.
            let key = format!("{}/{}", draft.service.meta.name, port.port);
            node_ports.push(Some(self.node_port(draft, &field, &key, port.protocol)?));
        }
        Some(node_ports)
    }

    fn node_port(&mut self, draft: &Draft, field: &str, key: &str, protocol: Protocol) -> Option<Port> {
        let range = self.options.node_port_range;
        let (first, last) = (u64::from(range.first().get()), u64::from(range.last().get()));
        let size = last - first + 1;
        let start = spread(key.as_bytes()) % size;
        let free = (0..size)
            .filter_map(|step| Port::new(u16::try_from(first + (start + step) % size).ok()?))
            .find(|port| !self.ports.contains(&(protocol, *port)));
        let Some(port) = free else {
            self.conflict(draft, field, format!("no port of --node-port-range {range} is free"));
            return None;
        };
        self.ports.insert((protocol, port));
        Some(port)
    }
}

/// Whether the running Service has every address and port that the new version of it names.
fn holds(running: &Service, named: &Service) -> bool {
    let mut ports = explicit_ports(named);
    named.cluster_ips.iter().all(|ip| running.cluster_ips.contains(ip))
        && ports.all(|(_, protocol, port)| {
            explicit_ports(running).any(|(_, other, number)| (other, number) == (protocol, port))
        })
}

fn explicit_ports(service: &Service) -> impl Iterator<Item = (String, Protocol, Port)> + '_ {
    let ports =
        service.ports.iter().enumerate().filter_map(|(index, port)| {
            Some((format!("spec.ports[{index}].nodePort"), port.protocol, port.node_port?))
        });
    let health = service.load_balancer.health_check_node_port;
    ports.chain(health.map(|port| ("spec.healthCheckNodePort".to_owned(), Protocol::Tcp, port)))
}

/// The free address of the network that the hash points to or comes next, leaving out the network's own address and
/// the broadcast one. As in the API server (KEP-3070), the lowest addresses, which people like to choose by hand, go last.
fn free_ip(cidr: IpNet, hash: u64, taken: &HashSet<IpAddr>) -> Option<IpAddr> {
    let (base, bits) = match cidr.network() {
        IpAddr::V4(ip) => (u128::from(ip.to_bits()), 32 - u32::from(cidr.prefix_len())),
        IpAddr::V6(ip) => (ip.to_bits(), 128 - u32::from(cidr.prefix_len())),
    };
    // More than 2^32 addresses are not needed, and a hash of 64 bits spreads well over these.
    let size = 1u128 << bits.min(32);
    let end = if cidr.network().is_ipv4() { size.saturating_sub(1) } else { size };
    let low = (size / 16).clamp(16, 256);
    let address = |offset: u128| -> Option<IpAddr> {
        let ip = base.checked_add(offset)?;
        match cidr {
            IpNet::V4(_) => Some(IpAddr::V4(u32::try_from(ip).ok()?.into())),
            IpNet::V6(_) => Some(IpAddr::V6(ip.into())),
        }
    };
    let probe = |from: u128, to: u128| {
        let size = to.checked_sub(from).filter(|size| *size > 0)?;
        let start = u128::from(hash) % size;
        (0..size).filter_map(|step| address(from + (start + step) % size)).find(|ip| !taken.contains(ip))
    };
    probe(low.max(1), end).or_else(|| probe(1, low.min(end)))
}

/// A number by which names are spread evenly.
fn spread(bytes: &[u8]) -> u64 {
    let hash = fnv1a(bytes.iter().copied());
    // The last bytes barely reach FNV's upper bits; one more round of mixing spreads names that differ in them.
    (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 8
}

#[cfg(test)]
#[path = "assign_tests.rs"]
mod tests;
