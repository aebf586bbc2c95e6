//! EndpointSlices and Endpoints, both to slices of the model.

use std::{net::IpAddr, sync::Arc};

use k8s_openapi::api::{core::v1 as core, discovery::v1 as discovery};
use roadstead_model::{Endpoint, EndpointPort, EndpointSlice, IpFamily, Metadata, ObjectName, SliceOrigin};

use super::metadata;
use crate::{
    findings::Findings,
    object::{Kind, Object},
};

/// Names the Service of a slice.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";
/// On Endpoints that are not to be mirrored.
const SKIP_MIRROR: &str = "endpointslice.kubernetes.io/skip-mirror";
/// On Endpoints that only hold a leader's lock.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";

pub(super) fn slice(wire: &discovery::EndpointSlice, findings: &mut Findings) -> Option<Object> {
    let meta = metadata(Kind::EndpointSlice, &wire.metadata, findings);
    let family = match wire.address_type.as_str() {
        "IPv4" => IpFamily::V4,
        "IPv6" => IpFamily::V6,
        "FQDN" => {
            findings.warn("addressType", "FQDN is not served, only IPv4 and IPv6 are");
            return Some(Object::Slices(Vec::new()));
        }
        other => {
            findings.error("addressType", format!("{other:?} is not known, expected IPv4, IPv6 or FQDN"));
            return None;
        }
    };
    let ports = slice_ports(wire, findings);
    let wire_endpoints = wire.endpoints.as_deref().unwrap_or_default();
    if wire_endpoints.len() > 1000 {
        findings.error("endpoints", "may hold at most 1000 endpoints");
    }
    let mut endpoints = Vec::with_capacity(wire_endpoints.len());
    for (index, wire_endpoint) in wire_endpoints.iter().enumerate() {
        endpoints.extend(endpoint(index, family, wire_endpoint, findings));
    }
    if findings.has_errors() {
        return None;
    }
    let Some(service) = meta.labels.get(SERVICE_LABEL).filter(|name| !name.is_empty()) else {
        return Some(Object::Slices(Vec::new()));
    };
    let service = ObjectName::new(&meta.name.namespace, service);
    let slice = EndpointSlice { service, meta, family, ports, endpoints, origin: SliceOrigin::EndpointSlice };
    Some(Object::Slices(vec![Arc::new(slice)]))
}

fn slice_ports(wire: &discovery::EndpointSlice, findings: &mut Findings) -> Vec<EndpointPort> {
    let mut ports: Vec<EndpointPort> = Vec::with_capacity(wire.ports.as_ref().map_or(0, Vec::len));
    for (index, port) in wire.ports.iter().flatten().enumerate() {
        let at = format!("ports[{index}]");
        let name = port.name.clone().unwrap_or_default();
        if !name.is_empty() {
            findings.label(format_args!("{at}.name"), &name);
        }
        if ports.iter().any(|other| other.name == name) {
            findings.error(format_args!("{at}.name"), format!("{name:?} names an earlier port too"));
        }
        let protocol = findings.protocol(format_args!("{at}.protocol"), port.protocol.as_deref());
        // A port without a number means "any", which a Service cannot balance to; kube-proxy leaves it out as well.
        let Some(number) = port.port else { continue };
        let number = findings.port(format_args!("{at}.port"), number);
        if let (Some(protocol), Some(port)) = (protocol, number) {
            ports.push(EndpointPort { name, protocol, port });
        }
    }
    ports
}

fn endpoint(index: usize, family: IpFamily, wire: &discovery::Endpoint, findings: &mut Findings) -> Option<Endpoint> {
    let at = format!("endpoints[{index}]");
    if wire.addresses.is_empty() {
        findings.error(format_args!("{at}.addresses"), "must hold at least one address");
    }
    if wire.addresses.len() > 100 {
        findings.error(format_args!("{at}.addresses"), "may hold at most 100 addresses");
    }
    let mut first = None;
    for (number, text) in wire.addresses.iter().enumerate() {
        let field = format!("{at}.addresses[{number}]");
        let Some(ip) = findings.routable_ip(&field, text) else { continue };
        if IpFamily::of(ip) != family {
            findings.error(field, format!("{ip} is not {family}, which addressType says"));
        }
        first = first.or(Some(ip));
    }
    let conditions = wire.conditions.as_ref();
    let ready = conditions.and_then(|conditions| conditions.ready).unwrap_or(true);
    let hints = wire.hints.as_ref();
    Some(Endpoint {
        ip: first?,
        ready,
        serving: conditions.and_then(|conditions| conditions.serving).unwrap_or(ready),
        terminating: conditions.and_then(|conditions| conditions.terminating).unwrap_or(false),
        node: wire.node_name.clone(),
        zone: wire.zone.clone(),
        zone_hints: hints
            .and_then(|hints| hints.for_zones.as_ref())
            .map(|zones| zones.iter().map(|zone| zone.name.clone()).collect())
            .unwrap_or_default(),
        node_hints: hints
            .and_then(|hints| hints.for_nodes.as_ref())
            .map(|nodes| nodes.iter().map(|node| node.name.clone()).collect())
            .unwrap_or_default(),
    })
}

pub(super) fn endpoints(wire: &core::Endpoints, findings: &mut Findings) -> Option<Object> {
    let meta = metadata(Kind::Endpoints, &wire.metadata, findings);
    let skip = meta.labels.get(SKIP_MIRROR).is_some_and(|value| value == "true");
    let skip = skip || meta.annotations.contains_key(LEADER);
    let mut slices = Vec::new();
    for (index, subset) in wire.subsets.iter().flatten().enumerate() {
        subset_slices(index, subset, &meta, findings, &mut slices);
    }
    if findings.has_errors() {
        return None;
    }
    Some(Object::Slices(if skip { Vec::new() } else { slices }))
}

/// One slice a family of the subset's addresses.
fn subset_slices(
    index: usize,
    subset: &core::EndpointSubset,
    meta: &Metadata,
    findings: &mut Findings,
    slices: &mut Vec<Arc<EndpointSlice>>,
) {
    let at = format!("subsets[{index}]");
    let ports = subset_ports(&at, subset, findings);
    let lists = [("addresses", &subset.addresses, true), ("notReadyAddresses", &subset.not_ready_addresses, false)];
    let mut endpoints = Vec::new();
    for (list, addresses, ready) in lists {
        for (number, address) in addresses.iter().flatten().enumerate() {
            let ip = findings.routable_ip(format_args!("{at}.{list}[{number}].ip"), &address.ip);
            endpoints.extend(ip.map(|ip| plain_endpoint(ip, ready, address.node_name.clone())));
        }
    }
    if endpoints.is_empty() && !findings.has_errors() {
        findings.error(&at, "must hold at least one address");
    }
    for family in [IpFamily::V4, IpFamily::V6] {
        let own: Vec<_> = endpoints.iter().filter(|endpoint| IpFamily::of(endpoint.ip) == family).cloned().collect();
        if own.is_empty() {
            continue;
        }
        let name = format!("{}-{index}-{}", meta.name.name, family.to_string().to_lowercase());
        let name = ObjectName::new(&meta.name.namespace, &name);
        slices.push(Arc::new(EndpointSlice {
            meta: Metadata { name, ..meta.clone() },
            service: meta.name.clone(),
            family,
            ports: ports.clone(),
            endpoints: own,
            origin: SliceOrigin::Endpoints,
        }));
    }
}

fn subset_ports(at: &str, subset: &core::EndpointSubset, findings: &mut Findings) -> Vec<EndpointPort> {
    let wire = subset.ports.as_deref().unwrap_or_default();
    let mut ports = Vec::new();
    for (index, port) in wire.iter().enumerate() {
        let at = format!("{at}.ports[{index}]");
        let name = port.name.clone().unwrap_or_default();
        if name.is_empty() && wire.len() > 1 {
            findings.error(format_args!("{at}.name"), "is missing, every port of several needs a name");
        }
        if !name.is_empty() {
            findings.label(format_args!("{at}.name"), &name);
        }
        let protocol = findings.protocol(format_args!("{at}.protocol"), port.protocol.as_deref());
        let number = findings.port(format_args!("{at}.port"), port.port);
        if let (Some(protocol), Some(port)) = (protocol, number) {
            ports.push(EndpointPort { name, protocol, port });
        }
    }
    ports
}

fn plain_endpoint(ip: IpAddr, ready: bool, node: Option<String>) -> Endpoint {
    Endpoint {
        ip,
        ready,
        serving: ready,
        terminating: false,
        node,
        zone: None,
        zone_hints: Vec::new(),
        node_hints: Vec::new(),
    }
}
