//! The endpoints behind a backend: what the Service's slices say is ready, or at least still serving.

use std::{collections::BTreeSet, net::SocketAddr};

use roadstead_model::{
    BackendPort, Endpoint, EndpointSlice, IpFamily, ObjectName, Protocol, Service, ServiceKind, ServicePort, Snapshot,
};

use crate::Backend;

/// Why a backend has no endpoints to choose from; each of them is a 503 for the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointsError {
    /// There is no such Service.
    NoService(ObjectName),
    /// The Service has no such TCP port.
    NoPort(ObjectName, BackendPort),
    /// The Service is only a DNS alias.
    ExternalName(ObjectName),
}

impl std::fmt::Display for EndpointsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoService(name) => write!(f, "service {name} does not exist"),
            Self::NoPort(name, port) => write!(f, "service {name} has no TCP port {port}"),
            Self::ExternalName(name) => write!(f, "service {name} is of type ExternalName, which is not served"),
        }
    }
}

impl std::error::Error for EndpointsError {}

/// The endpoints that take requests for a backend, sorted: those that are ready, or where none is, those that are still
/// serving while they terminate. Where the Service has two families, those of its first, so that a pod is not counted twice.
///
/// # Errors
/// [`EndpointsError`] when the Service or the port does not exist; an empty list is no error.
pub fn endpoints_of(snapshot: &Snapshot, backend: &Backend) -> Result<Vec<SocketAddr>, EndpointsError> {
    let name = &backend.service;
    let service = snapshot.services.get(name).ok_or_else(|| EndpointsError::NoService(name.clone()))?;
    if matches!(service.kind, ServiceKind::ExternalName(_)) {
        return Err(EndpointsError::ExternalName(name.clone()));
    }
    let port = service_port(service, &backend.port)
        .ok_or_else(|| EndpointsError::NoPort(name.clone(), backend.port.clone()))?;
    let collect = |usable: fn(&Endpoint) -> bool| collect(snapshot.slices_of(name), port, usable);
    let ready = collect(|endpoint| endpoint.ready);
    let chosen = if ready.is_empty() { collect(|endpoint| endpoint.serving && endpoint.terminating) } else { ready };
    Ok(primary_family(chosen, service))
}

fn service_port<'a>(service: &'a Service, wanted: &BackendPort) -> Option<&'a ServicePort> {
    let mut tcp = service.ports.iter().filter(|port| port.protocol == Protocol::Tcp);
    match wanted {
        BackendPort::Number(number) => tcp.find(|port| port.port == *number),
        BackendPort::Name(name) => tcp.find(|port| port.name == *name),
    }
}

fn collect(
    slices: &[std::sync::Arc<EndpointSlice>],
    port: &ServicePort,
    usable: fn(&Endpoint) -> bool,
) -> BTreeSet<SocketAddr> {
    let mut found = BTreeSet::new();
    for slice in slices {
        let ports = slice.ports.iter().filter(|own| own.name == port.name && own.protocol == Protocol::Tcp);
        for own in ports {
            let usable = slice.endpoints.iter().filter(|endpoint| usable(endpoint));
            found.extend(usable.map(|endpoint| SocketAddr::new(endpoint.ip, own.port.get())));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    fn check(port: BackendPort, endpoints: &[(&str, &str)], expected: &[&str]) {
        let mut snapshot = Snapshot::default();
        fixture::service(&mut snapshot, "default/web", "http", 80);
        fixture::slice(&mut snapshot, "default/web", "http", 8080, endpoints);
        let backend = Backend { service: ObjectName::new("default", "web"), port };
        let found: Vec<_> = endpoints_of(&snapshot, &backend).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(found, expected, "{endpoints:?}");
    }

    #[test]
    fn ready_endpoints_serve_and_terminating_ones_only_when_no_other_does() {
        let by_name = || BackendPort::Name("http".to_owned());
        let ready_and_draining = [("10.0.0.2", "ready"), ("10.0.0.1", "ready"), ("10.0.0.3", "draining")];
        check(by_name(), &ready_and_draining, &["10.0.0.1:8080", "10.0.0.2:8080"]);
        check(fixture::port(80), &ready_and_draining, &["10.0.0.1:8080", "10.0.0.2:8080"]);
        check(by_name(), &[("10.0.0.3", "draining"), ("10.0.0.4", "down")], &["10.0.0.3:8080"]);
        check(by_name(), &[("10.0.0.4", "down")], &[]);
        check(by_name(), &[("10.0.0.1", "ready"), ("fd00::1", "ready")], &["10.0.0.1:8080"]);
        check(by_name(), &[("fd00::1", "ready")], &["[fd00::1]:8080"]);
    }

    #[test]
    fn what_does_not_exist_is_told_apart() {
        let mut snapshot = Snapshot::default();
        fixture::service(&mut snapshot, "default/web", "http", 80);
        let ask = |service: &str, port| {
            endpoints_of(&snapshot, &Backend { service: ObjectName::new("default", service), port }).unwrap_err()
        };
        assert_eq!(ask("gone", fixture::port(80)).to_string(), "service default/gone does not exist");
        assert_eq!(ask("web", fixture::port(81)).to_string(), "service default/web has no TCP port 81");
    }
}
