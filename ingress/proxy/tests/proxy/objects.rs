//! Snapshots in few words.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use roadstead_model::{
    BackendPort, ConfigMap, Endpoint, EndpointPort, EndpointSlice, FamilyPolicy, Host, Ingress, IngressBackend,
    IngressPath, IngressRule, IngressStatus, IngressTls, IpFamily, LoadBalancerSpec, Metadata, ObjectName, PathType,
    Protocol, Secret, Service, ServiceKind, ServicePort, SliceOrigin, Snapshot, TargetPort, TrafficPolicy,
};

use roadstead_routes::Controller;

fn meta(name: &str) -> Metadata {
    let name = ObjectName::new("default", name);
    Metadata { name, labels: BTreeMap::new(), annotations: BTreeMap::new(), created: None }
}

fn host(text: &str) -> Host {
    text.strip_prefix("*.").map_or_else(|| Host::Exact(text.to_owned()), |rest| Host::Wildcard(rest.to_owned()))
}

/// A synced snapshot with nothing in it.
pub(crate) fn empty() -> Snapshot {
    Snapshot { synced: true, ..Snapshot::default() }
}

/// A Service `name`, port 80, with these endpoints. Each gets a slice of its own: slices have one port for all.
pub(crate) fn service(snapshot: &mut Snapshot, name: &str, endpoints: &[SocketAddr]) {
    let port = 80.try_into().expect("not zero");
    let service = Service {
        meta: meta(name),
        kind: ServiceKind::ClusterIp,
        selector: BTreeMap::new(),
        cluster_ips: Vec::new(),
        ip_families: vec![IpFamily::V4],
        family_policy: FamilyPolicy::SingleStack,
        ports: vec![ServicePort {
            name: String::new(),
            protocol: Protocol::Tcp,
            port,
            target: TargetPort::Number(port),
            node_port: None,
            app_protocol: None,
        }],
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
    let object = ObjectName::new("default", name);
    snapshot.services.insert(object.clone(), Arc::new(service));
    let slices = endpoints.iter().map(|address| Arc::new(slice(name, *address))).collect();
    snapshot.slices.insert(object, slices);
}

fn slice(service: &str, address: SocketAddr) -> EndpointSlice {
    let port = address.port().try_into().expect("not zero");
    EndpointSlice {
        meta: meta(&format!("{service}-{}", address.port())),
        service: ObjectName::new("default", service),
        family: IpFamily::V4,
        ports: vec![EndpointPort { name: String::new(), protocol: Protocol::Tcp, port }],
        endpoints: vec![Endpoint {
            ip: address.ip(),
            ready: true,
            serving: true,
            terminating: false,
            node: None,
            zone: None,
            zone_hints: Vec::new(),
            node_hints: Vec::new(),
        }],
        origin: SliceOrigin::EndpointSlice,
    }
}

/// An Ingress with prefix paths `(host, path, service)`, and TLS entries `(host, secret)`.
pub(crate) fn ingress(snapshot: &mut Snapshot, name: &str, paths: &[(&str, &str, &str)], tls: &[(&str, &str)]) {
    let rules = paths.iter().map(|(host_name, path, service)| IngressRule {
        host: Some(host(host_name)),
        paths: vec![IngressPath {
            path: (*path).to_owned(),
            path_type: PathType::Prefix,
            backend: IngressBackend::Service {
                service: ObjectName::new("default", service),
                port: BackendPort::Number(80.try_into().expect("not zero")),
            },
        }],
    });
    let tls = tls.iter().map(|(host_name, secret)| IngressTls {
        hosts: vec![host(host_name)],
        secret: Some(ObjectName::new("default", secret)),
    });
    let ingress = Ingress {
        meta: meta(name),
        class: None,
        default_backend: None,
        tls: tls.collect(),
        rules: rules.collect(),
        status: IngressStatus::default(),
    };
    snapshot.ingresses.insert(ingress.meta.name.clone(), Arc::new(ingress));
}

/// Sets one of ingress-nginx's annotations of an Ingress that is there.
pub(crate) fn annotate(snapshot: &mut Snapshot, ingress: &str, annotations: &[(&str, &str)]) {
    let object = snapshot.ingresses.get_mut(&ObjectName::new("default", ingress)).expect("the Ingress is there");
    let object = Arc::make_mut(object);
    for (key, value) in annotations {
        object.meta.annotations.insert(format!("nginx.ingress.kubernetes.io/{key}"), (*value).to_owned());
    }
}

/// Changes an Ingress that is there.
pub(crate) fn edit(snapshot: &mut Snapshot, ingress: &str, change: impl FnOnce(&mut Ingress)) {
    let object = snapshot.ingresses.get_mut(&ObjectName::new("default", ingress)).expect("the Ingress is there");
    change(Arc::make_mut(object));
}

/// A Secret of no particular type.
pub(crate) fn opaque_secret(snapshot: &mut Snapshot, name: &str, data: &[(&str, &str)]) {
    let data = data.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec())).collect();
    let secret = Secret { meta: meta(name), kind: "Opaque".to_owned(), data };
    snapshot.secrets.insert(secret.meta.name.clone(), Arc::new(secret));
}

/// A ConfigMap in namespace `default`.
pub(crate) fn config_map(snapshot: &mut Snapshot, name: &str, data: &[(&str, &str)]) {
    let data = data.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let config_map = ConfigMap { meta: meta(name), data };
    snapshot.config_maps.insert(config_map.meta.name.clone(), Arc::new(config_map));
}

/// Options of the controller, and the controller that goes by them.
pub(crate) fn controller(snapshot: &mut Snapshot, data: &[(&str, &str)]) -> Controller {
    let data = data.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let config_map = ConfigMap { meta: meta("options"), data };
    let name = config_map.meta.name.clone();
    snapshot.config_maps.insert(name.clone(), Arc::new(config_map));
    Controller { config_map: Some(name), ..Controller::default() }
}

/// A Secret of type kubernetes.io/tls.
pub(crate) fn secret(snapshot: &mut Snapshot, name: &str, certificate: &str, key: &str) {
    secret_of(snapshot, name, "kubernetes.io/tls", &[("tls.crt", certificate), ("tls.key", key)]);
}

/// A Secret of any type.
pub(crate) fn secret_of(snapshot: &mut Snapshot, name: &str, kind: &str, data: &[(&str, &str)]) {
    let data = data.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec())).collect();
    let secret = Secret { meta: meta(name), kind: kind.to_owned(), data };
    snapshot.secrets.insert(secret.meta.name.clone(), Arc::new(secret));
}

/// The controller's ConfigMap, as the proxies of these tests look for it.
pub(crate) fn options(snapshot: &mut Snapshot, data: &[(&str, &str)]) {
    let data = data.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let config_map = ConfigMap { meta: meta("options"), data };
    snapshot.config_maps.insert(config_map.meta.name.clone(), Arc::new(config_map));
}
