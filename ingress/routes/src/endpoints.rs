//! The endpoints behind a backend: what the Service's slices say is ready, or still serving while it terminates.
//!
//! Which of them takes a request is the proxy's matter; what is decided here changes with the objects alone. Where slices carry
//! hints, a controller or `sources` put them there because the Service asks for it (`trafficDistribution`, topology-mode).

mod nearby;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use roadstead_model::{
    BackendPort, Endpoint, EndpointSlice, IpFamily, ObjectName, ObjectRef, Port, Problem, Protocol, Service,
    ServiceKind, ServicePort, Severity, Snapshot, TargetPort,
};

use crate::{Backend, Reach, Table};
use nearby::{Nearby, Place};

/// What can take requests for a backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// Those that take any request, sorted.
    pub ready: Vec<SocketAddr>,
    /// Those that are still serving while they terminate, sorted: for clients that are bound to them, and for everybody where no
    /// other is left.
    pub draining: Vec<SocketAddr>,
    /// A name that DNS knows the endpoints of, and their port, for a Service of type ExternalName.
    pub external: Option<(String, Port)>,
}

/// Why a backend has no endpoints to choose from; each of them is a 503 for the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointsError {
    /// There is no such Service.
    NoService(ObjectName),
    /// The Service has no such TCP port.
    NoPort(ObjectName, BackendPort),
    /// The Service is to be reached by its own address and has none.
    Headless(ObjectName),
    /// The Service stands for a name that may not be asked for.
    ExternalName(ObjectName, String),
}

impl std::fmt::Display for EndpointsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoService(name) => write!(f, "service {name} does not exist"),
            Self::NoPort(name, port) => write!(f, "service {name} has no TCP port {port}"),
            Self::Headless(name) => write!(f, "service {name} has no cluster address, which service-upstream asks for"),
            Self::ExternalName(name, external) => {
                write!(f, "service {name} has the external name {external:?}, which is no name of another host")
            }
        }
    }
}

impl std::error::Error for EndpointsError {}

impl Endpoints {
    /// Those that take a request that is bound to none.
    #[must_use]
    pub fn usable(&self) -> &[SocketAddr] {
        if self.ready.is_empty() { &self.draining } else { &self.ready }
    }
}

/// What follows from backends without endpoints to choose from, by their index: told to every Ingress that leads to one.
#[must_use]
pub fn unserved(table: &Table, errors: &BTreeMap<usize, EndpointsError>) -> Vec<Problem> {
    if errors.is_empty() {
        return Vec::new();
    }
    let used = table.routes().iter().flat_map(|route| route.backends().map(|id| (id.index(), &route.ingress)));
    let told: BTreeSet<(usize, &ObjectName)> = used.filter(|(id, _)| errors.contains_key(id)).collect();
    let problem = |(id, name): (usize, &ObjectName)| {
        // The controller's own default backend is no Ingress's.
        let object = (!name.name.is_empty()).then(|| ObjectRef { kind: "Ingress".to_owned(), name: name.clone() });
        let reason = format!("{}; requests get 503", errors.get(&id)?);
        Some(Problem { severity: Severity::Warning, place: None, object, field: None, reason })
    };
    told.into_iter().filter_map(problem).collect()
}

/// The endpoints of a backend. Where the Service has two families, those of its first, so that a pod is not counted twice;
/// where it asks for it, those near `node`.
///
/// # Errors
/// [`EndpointsError`] when the Service or the port does not exist; empty lists are no error.
pub fn endpoints_of(snapshot: &Snapshot, backend: &Backend, node: Option<&str>) -> Result<Endpoints, EndpointsError> {
    let name = &backend.service;
    let service = snapshot.services.get(name).ok_or_else(|| EndpointsError::NoService(name.clone()))?;
    if let ServiceKind::ExternalName(external) = &service.kind {
        return external_name(service, external, &backend.port);
    }
    let port = service_port(service, &backend.port)
        .ok_or_else(|| EndpointsError::NoPort(name.clone(), backend.port.clone()))?;
    if backend.reach == Reach::ClusterIp {
        let ip = service.cluster_ips.first().ok_or_else(|| EndpointsError::Headless(name.clone()))?;
        let ready = vec![SocketAddr::new(*ip, port.port.get())];
        return Ok(Endpoints { ready, ..Endpoints::default() });
    }
    let slices = snapshot.slices_of(name);
    let place = Place { node, zone: node.and_then(|node| snapshot.nodes.get(node)?.zone()) };
    let ready: Vec<&Endpoint> = endpoints(slices).filter(|endpoint| endpoint.ready).collect();
    let nearby = Nearby::of(&ready, place);
    let ready = collect(slices, port, |endpoint| endpoint.ready && nearby.takes(endpoint, place));
    let mut draining = collect(slices, port, |endpoint| !endpoint.ready && endpoint.serving && endpoint.terminating);
    // A pod that two slices disagree about is as ready as the better of them says.
    draining.retain(|address| !ready.contains(address));
    Ok(Endpoints { ready: primary_family(ready, service), draining: primary_family(draining, service), external: None })
}

fn endpoints(slices: &[Arc<EndpointSlice>]) -> impl Iterator<Item = &Endpoint> {
    slices.iter().flat_map(|slice| &slice.endpoints)
}

pub(crate) fn service_port<'a>(service: &'a Service, wanted: &BackendPort) -> Option<&'a ServicePort> {
    let mut tcp = service.ports.iter().filter(|port| port.protocol == Protocol::Tcp);
    match wanted {
        BackendPort::Number(number) => tcp.find(|port| port.port == *number),
        // A default backend is named without a port.
        BackendPort::Name(name) if name.is_empty() => tcp.next(),
        BackendPort::Name(name) => tcp.find(|port| port.name == *name),
    }
}

fn collect(
    slices: &[Arc<EndpointSlice>],
    port: &ServicePort,
    usable: impl Fn(&Endpoint) -> bool,
) -> BTreeSet<SocketAddr> {
    let mut found = BTreeSet::new();
    for slice in slices {
        let named = slice.ports.iter().filter(|own| own.name == port.name && own.protocol == Protocol::Tcp);
        let mut numbers: Vec<Port> = named.map(|own| own.port).collect();
        if let (true, TargetPort::Number(number)) = (slice.ports.is_empty(), &port.target) {
            // A slice without ports leaves them to the Service.
            numbers.push(*number);
        }
        for number in numbers {
            let usable = slice.endpoints.iter().filter(|endpoint| usable(endpoint));
            found.extend(usable.map(|endpoint| SocketAddr::new(endpoint.ip, number.get())));
        }
    }
    found
}

fn primary_family(chosen: BTreeSet<SocketAddr>, service: &Service) -> Vec<SocketAddr> {
    let primary = service.ip_families.first().copied();
    let is_primary = |address: &SocketAddr| primary == Some(IpFamily::of(address.ip()));
    if chosen.iter().any(is_primary) {
        return chosen.into_iter().filter(is_primary).collect();
    }
    chosen.into_iter().collect()
}

/// A name stands for itself, an address for an endpoint. A Service of this type need not list the port that an Ingress names.
fn external_name(service: &Service, external: &str, wanted: &BackendPort) -> Result<Endpoints, EndpointsError> {
    let name = &service.meta.name;
    let listed = service_port(service, wanted);
    let port = match (listed.map(|port| (&port.target, port.port)), wanted) {
        (Some((TargetPort::Number(target), _)), _) => *target,
        (Some((TargetPort::Name(_), port)), _) => port,
        (None, BackendPort::Number(number)) => *number,
        (None, BackendPort::Name(_)) => return Err(EndpointsError::NoPort(name.clone(), wanted.clone())),
    };
    let host = external.trim_end_matches('.');
    match host.parse::<IpAddr>() {
        Ok(ip) if !ip.is_loopback() && !ip.is_unspecified() => {
            let ready = vec![SocketAddr::new(ip, port.get())];
            Ok(Endpoints { ready, ..Endpoints::default() })
        }
        Err(_) if is_foreign_name(host) => {
            Ok(Endpoints { external: Some((host.to_owned(), port)), ..Endpoints::default() })
        }
        _ => Err(EndpointsError::ExternalName(name.clone(), external.to_owned())),
    }
}

/// An RFC 1123 name; never one of this host, whose own ports are not for the cluster's users.
fn is_foreign_name(host: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let lower = host.to_ascii_lowercase();
    host.len() <= 253 && host.split('.').all(is_label) && lower != "localhost" && !lower.ends_with(".localhost")
}

#[cfg(test)]
#[path = "endpoints_tests.rs"]
mod tests;
