//! Objects for the tests of this crate, in as few words as a table row has room for.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use roadstead_model::{
    BackendPort, ConfigMap, Endpoint, EndpointPort, EndpointSlice, FamilyPolicy, Host, Ingress, IngressBackend,
    IngressClass, IngressPath, IngressRule, IngressStatus, IpFamily, LoadBalancerSpec, Metadata, ObjectName, PathType,
    Protocol, Service, ServiceKind, ServicePort, SliceOrigin, Snapshot, TargetPort, TrafficPolicy,
};

use crate::{Facts, Scheme, Variable, normalise, request_host};

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
    let status = IngressStatus::default();
    Ingress { meta, class: None, default_backend: None, tls: Vec::new(), rules: Vec::new(), status }
}

/// An Ingress with these of ingress-nginx's annotations.
pub(crate) fn annotated(text: &str, annotations: &[(&str, &str)]) -> Ingress {
    let mut ingress = ingress(text);
    for (key, value) in annotations {
        ingress.meta.annotations.insert(format!("nginx.ingress.kubernetes.io/{key}"), (*value).to_owned());
    }
    ingress
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
        family_policy: FamilyPolicy::SingleStack,
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

/// What a group of settings reads from annotations of ingress-nginx's prefix, and what it reports.
pub(crate) fn read<T>(
    annotations: &[(&str, &str)],
    read: impl FnOnce(&mut crate::settings::Reader<'_>) -> T,
) -> (T, Vec<String>) {
    let mut ingress = ingress("default/web");
    annotate(&mut ingress, annotations);
    let mut problems = Vec::new();
    let mut reader = crate::settings::Reader::of_ingress(&ingress, &mut problems);
    let settings = read(&mut reader);
    reader.finish();
    (settings, problems.iter().map(ToString::to_string).collect())
}

pub(crate) fn annotate(ingress: &mut Ingress, annotations: &[(&str, &str)]) {
    for (key, value) in annotations {
        ingress.meta.annotations.insert(format!("nginx.ingress.kubernetes.io/{key}"), (*value).to_owned());
    }
}

/// The ConfigMap of options that an instance for class `nginx` reads.
pub(crate) fn options(snapshot: &mut Snapshot, options: &[(&str, &str)]) {
    let config_map = config_map("ingress-nginx/ingress-nginx-controller", options);
    snapshot.config_maps.insert(config_map.meta.name.clone(), Arc::new(config_map));
}

/// A request with nothing but its line and its host.
pub(crate) struct Asked<'a> {
    pub(crate) scheme: Scheme,
    pub(crate) host: &'a str,
    pub(crate) target: &'a str,
}

impl Facts for Asked<'_> {
    fn value(&self, variable: &Variable) -> Cow<'_, [u8]> {
        let (path, query) = self.target.split_once('?').unwrap_or((self.target, ""));
        let escaped = || self.target.replace('%', "%25").replace('/', "%2F");
        match variable {
            Variable::Host => request_host(self.host).into_owned().into_bytes().into(),
            Variable::Authority => self.host.as_bytes().into(),
            Variable::Scheme => self.scheme.as_str().as_bytes().into(),
            Variable::RequestUri => self.target.as_bytes().into(),
            Variable::EscapedRequestUri => escaped().into_bytes().into(),
            Variable::Path => normalise(path).expect("a path"),
            Variable::Query => query.as_bytes().into(),
            Variable::Argument(name) => {
                let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
                pairs.find(|(found, _)| **found == **name).map_or("", |(_, value)| value).as_bytes().into()
            }
            other => panic!("{other:?} is not asked for here"),
        }
    }
}
