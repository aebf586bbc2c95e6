//! Objects for the tests of this crate, in as few words as a table row has room for.

use std::{collections::BTreeMap, sync::Arc};

use roadstead_model::{
    BackendPort, ConfigMap, Endpoint, EndpointPort, EndpointSlice, Host, Ingress, IngressBackend, IngressClass,
    IngressPath, IngressRule, IpFamily, LoadBalancerSpec, Metadata, ObjectName, PathType, Protocol, Service,
    ServiceKind, ServicePort, SliceOrigin, Snapshot, TargetPort, TrafficPolicy,
};

pub(crate) fn name(text: &str) -> ObjectName {
    let (namespace, name) = text.split_once('/').expect("namespace/name");
    ObjectName::new(namespace, name)
}

pub(crate) fn meta(text: &str) -> Metadata {
    Metadata { name: name(text), labels: BTreeMap::new(), annotations: BTreeMap::new(), created: None }
}

pub(crate) fn port(number: u16) -> BackendPort {
    BackendPort::Number(number.try_into().expect("not zero"))
}

pub(crate) fn backend(service: &str) -> IngressBackend {
    IngressBackend::Service { service: ObjectName::new("default", service), port: port(80) }
}

pub(crate) fn ingress(text: &str) -> Ingress {
    let meta = meta(text);
    Ingress { meta, class: None, default_backend: None, tls: Vec::new(), rules: Vec::new(), status: Vec::new() }
}

pub(crate) fn host(text: &str) -> Host {
    text.strip_prefix("*.").map_or_else(|| Host::Exact(text.to_owned()), |rest| Host::Wildcard(rest.to_owned()))
}

/// A rule whose paths are written `P /foo service`, `E /foo service` or `I /foo service`.
pub(crate) fn rule(host_name: Option<&str>, paths: &[&str]) -> IngressRule {
    let paths = paths.iter().map(|text| {
        let mut words = text.split(' ');
        let path_type = match words.next().expect("type") {
            "P" => PathType::Prefix,
            "E" => PathType::Exact,
            _ => PathType::ImplementationSpecific,
        };
        let path = words.next().expect("path").to_owned();
        IngressPath { path, path_type, backend: backend(words.next().expect("service")) }
    });
    IngressRule { host: host_name.map(host), paths: paths.collect() }
}

pub(crate) fn add(snapshot: &mut Snapshot, ingress: Ingress) {
    snapshot.ingresses.insert(ingress.meta.name.clone(), Arc::new(ingress));
}

pub(crate) fn class(snapshot: &mut Snapshot, name: &str, controller: &str, is_default: bool) {
    let class = IngressClass { name: name.to_owned(), controller: controller.to_owned(), is_default };
    snapshot.ingress_classes.insert(name.to_owned(), Arc::new(class));
}

pub(crate) fn service(snapshot: &mut Snapshot, text: &str, port_name: &str, number: u16) {
    let number = number.try_into().expect("not zero");
    let port = ServicePort {
        name: port_name.to_owned(),
        protocol: Protocol::Tcp,
        port: number,
        target: TargetPort::Number(number),
        node_port: None,
        app_protocol: None,
    };
    let service = Service {
        meta: meta(text),
        kind: ServiceKind::ClusterIp,
        selector: BTreeMap::new(),
        cluster_ips: Vec::new(),
        ip_families: vec![IpFamily::V4, IpFamily::V6],
        ports: vec![port],
        external_ips: Vec::new(),
        external_policy: TrafficPolicy::Cluster,
        internal_policy: TrafficPolicy::Cluster,
        affinity_seconds: None,
        publish_not_ready: false,
        traffic_distribution: None,
        selection: None,
        load_balancer: LoadBalancerSpec::default(),
        status: Vec::new(),
    };
    snapshot.services.insert(name(text), Arc::new(service));
}

/// A slice of endpoints, each `ready`, `draining` or `down`.
pub(crate) fn slice(snapshot: &mut Snapshot, text: &str, port_name: &str, number: u16, endpoints: &[(&str, &str)]) {
    let endpoints = endpoints.iter().map(|(ip, state)| Endpoint {
        ip: ip.parse().expect("an address"),
        ready: *state == "ready",
        serving: *state != "down",
        terminating: *state == "draining",
        node: None,
        zone: None,
        zone_hints: Vec::new(),
        node_hints: Vec::new(),
    });
    let number = number.try_into().expect("not zero");
    let slice = EndpointSlice {
        meta: meta(text),
        service: name(text),
        family: IpFamily::V4,
        ports: vec![EndpointPort { name: port_name.to_owned(), protocol: Protocol::Tcp, port: number }],
        endpoints: endpoints.collect(),
        origin: SliceOrigin::EndpointSlice,
    };
    snapshot.slices.entry(name(text)).or_default().push(Arc::new(slice));
}

pub(crate) fn config_map(text: &str, data: &[(&str, &str)]) -> ConfigMap {
    let data = data.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    ConfigMap { meta: meta(text), data: data.collect() }
}
