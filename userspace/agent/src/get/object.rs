//! Objects as `-o json` and `-o yaml` show them: in the shape of the API, with what `sources` filled in.
//!
//! Scripts read this; fields are only ever added.

use std::sync::Arc;

use roadstead_model::{
    BackendPort, CONFLICTS_ANNOTATION, EndpointSlice, Host, Ingress, IngressBackend, IngressIpMode, IngressStatus,
    IpAddressPool, Metadata, Node, Service, ServiceKind, ServicePort, TargetPort, TrafficPolicy,
};
use serde_json::{Map, Value, json};

fn metadata(meta: &Metadata) -> Value {
    let mut object = Map::new();
    if !meta.name.namespace.is_empty() {
        object.insert("namespace".to_owned(), json!(&*meta.name.namespace));
    }
    object.insert("name".to_owned(), json!(&*meta.name.name));
    for (key, labels) in [("labels", &meta.labels), ("annotations", &meta.annotations)] {
        if !labels.is_empty() {
            object.insert(key.to_owned(), json!(labels));
        }
    }
    Value::Object(object)
}

/// Leaves out what is not set, as the API does.
fn set(object: &mut Value, key: &str, value: Option<Value>) {
    if let (Value::Object(object), Some(value)) = (object, value) {
        object.insert(key.to_owned(), value);
    }
}

fn texts<T: ToString>(values: &[T]) -> Option<Value> {
    let texts: Vec<String> = values.iter().map(ToString::to_string).collect();
    (!texts.is_empty()).then(|| json!(texts))
}

pub(super) fn service(service: &Service) -> Value {
    let mut spec = json!({
        "type": service.kind.as_str(),
        "ports": service.ports.iter().map(port).collect::<Vec<_>>(),
        "sessionAffinity": if service.affinity_seconds.is_some() { "ClientIP" } else { "None" },
    });
    if let ServiceKind::ExternalName(name) = &service.kind {
        set(&mut spec, "externalName", Some(json!(name)));
    } else {
        let first = service.cluster_ips.first().map_or_else(|| "None".to_owned(), ToString::to_string);
        set(&mut spec, "clusterIP", Some(json!(first)));
        set(&mut spec, "clusterIPs", texts(&service.cluster_ips));
        set(&mut spec, "ipFamilies", texts(&service.ip_families));
        set(&mut spec, "internalTrafficPolicy", Some(policy(service.internal_policy)));
    }
    if matches!(service.kind, ServiceKind::NodePort | ServiceKind::LoadBalancer) || !service.external_ips.is_empty() {
        set(&mut spec, "externalTrafficPolicy", Some(policy(service.external_policy)));
    }
    let affinity = service.affinity_seconds.map(|seconds| json!({"clientIP": {"timeoutSeconds": seconds}}));
    set(&mut spec, "sessionAffinityConfig", affinity);
    set(&mut spec, "selector", (!service.selector.is_empty()).then(|| json!(service.selector)));
    set(&mut spec, "externalIPs", texts(&service.external_ips));
    set(&mut spec, "publishNotReadyAddresses", service.publish_not_ready.then_some(json!(true)));
    set(&mut spec, "trafficDistribution", service.traffic_distribution.as_ref().map(|text| json!(text)));
    set(&mut spec, "loadBalancerClass", service.load_balancer.class.as_ref().map(|class| json!(class)));
    set(&mut spec, "loadBalancerSourceRanges", texts(&service.load_balancer.source_ranges));
    let health = service.load_balancer.health_check_node_port;
    set(&mut spec, "healthCheckNodePort", health.map(|port| json!(port.get())));
    let ingress = service.status.iter().map(|entry| {
        let mode = match entry.mode {
            IngressIpMode::Vip => "VIP",
            IngressIpMode::Proxy => "Proxy",
        };
        json!({"ip": entry.ip.to_string(), "ipMode": mode})
    });
    object("v1", "Service", &service.meta, [("spec", spec), ("status", balancer(&ingress.collect::<Vec<_>>()))])
}

fn port(port: &ServicePort) -> Value {
    let mut shown = json!({"port": port.port.get(), "protocol": port.protocol.to_string()});
    set(&mut shown, "name", (!port.name.is_empty()).then(|| json!(port.name)));
    let target = match &port.target {
        TargetPort::Number(number) => json!(number.get()),
        TargetPort::Name(name) => json!(name),
    };
    set(&mut shown, "targetPort", Some(target));
    set(&mut shown, "nodePort", port.node_port.map(|number| json!(number.get())));
    set(&mut shown, "appProtocol", port.app_protocol.as_ref().map(|text| json!(text)));
    shown
}

fn policy(policy: TrafficPolicy) -> Value {
    match policy {
        TrafficPolicy::Cluster => json!("Cluster"),
        TrafficPolicy::Local => json!("Local"),
    }
}

fn balancer(ingress: &[Value]) -> Value {
    if ingress.is_empty() { json!({"loadBalancer": {}}) } else { json!({"loadBalancer": {"ingress": ingress}}) }
}

fn object<const N: usize>(version: &str, kind: &str, meta: &Metadata, parts: [(&str, Value); N]) -> Value {
    let mut object = json!({"apiVersion": version, "kind": kind, "metadata": metadata(meta)});
    for (key, part) in parts {
        set(&mut object, key, Some(part));
    }
    object
}

/// The slices of one Service, as a list of them.
pub(super) fn endpoints(meta: &Metadata, slices: &[Arc<EndpointSlice>]) -> Value {
    let items: Vec<Value> = slices.iter().map(|slice| self::slice(slice)).collect();
    let name = json!({"namespace": &*meta.name.namespace, "name": &*meta.name.name});
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSliceList", "metadata": name, "items": items})
}

fn slice(slice: &EndpointSlice) -> Value {
    let endpoints = slice.endpoints.iter().map(|endpoint| {
        let mut shown = json!({
            "addresses": [endpoint.ip.to_string()],
            "conditions": {
                "ready": endpoint.ready,
                "serving": endpoint.serving,
                "terminating": endpoint.terminating,
            },
        });
        set(&mut shown, "nodeName", endpoint.node.as_ref().map(|node| json!(node)));
        set(&mut shown, "zone", endpoint.zone.as_ref().map(|zone| json!(zone)));
        shown
    });
    let endpoints: Vec<Value> = endpoints.collect();
    let ports = slice
        .ports
        .iter()
        .map(|port| json!({"name": port.name, "protocol": port.protocol.to_string(), "port": port.port.get()}));
    let parts = [
        ("addressType", json!(slice.family.to_string())),
        ("endpoints", Value::Array(endpoints)),
        ("ports", ports.collect()),
    ];
    let mut shown = object("discovery.k8s.io/v1", "EndpointSlice", &slice.meta, parts);
    // Slices made from Endpoints and Pods lack the label; in the API it is how one finds the Service.
    if let Some(meta) = shown.get_mut("metadata").and_then(Value::as_object_mut) {
        let labels = meta.entry("labels").or_insert_with(|| json!({}));
        set(labels, "kubernetes.io/service-name", Some(json!(&*slice.service.name)));
    }
    shown
}

pub(super) fn ingress(ingress: &Ingress) -> Value {
    let rules = ingress.rules.iter().map(|rule| {
        let paths = rule.paths.iter().map(|path| {
            let mut shown = json!({"pathType": path.path_type.to_string(), "backend": backend(&path.backend)});
            set(&mut shown, "path", (!path.path.is_empty()).then(|| json!(path.path)));
            shown
        });
        let paths: Vec<Value> = paths.collect();
        let mut shown = json!({});
        set(&mut shown, "host", rule.host.as_ref().map(|host| json!(host.to_string())));
        set(&mut shown, "http", (!paths.is_empty()).then(|| json!({"paths": paths})));
        shown
    });
    let rules: Vec<Value> = rules.collect();
    let tls = ingress.tls.iter().map(|tls| {
        let mut shown = json!({});
        set(&mut shown, "hosts", texts::<Host>(&tls.hosts));
        set(&mut shown, "secretName", tls.secret.as_ref().map(|secret| json!(&*secret.name)));
        shown
    });
    let tls: Vec<Value> = tls.collect();
    let mut spec = json!({});
    set(&mut spec, "ingressClassName", ingress.class.as_ref().map(|class| json!(class)));
    set(&mut spec, "defaultBackend", ingress.default_backend.as_ref().map(backend));
    set(&mut spec, "tls", (!tls.is_empty()).then_some(Value::Array(tls)));
    set(&mut spec, "rules", (!rules.is_empty()).then_some(Value::Array(rules)));
    let IngressStatus { addresses, conflicts } = &ingress.status;
    let status: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip.to_string()})).collect();
    let parts = [("spec", spec), ("status", balancer(&status))];
    let mut meta = ingress.meta.clone();
    if !conflicts.is_empty() {
        meta.annotations.insert(CONFLICTS_ANNOTATION.to_owned(), conflicts.join("\n"));
    }
    object("networking.k8s.io/v1", "Ingress", &meta, parts)
}

fn backend(backend: &IngressBackend) -> Value {
    match backend {
        IngressBackend::Service { service, port } => {
            let port = match port {
                BackendPort::Number(number) => json!({"number": number.get()}),
                BackendPort::Name(name) => json!({"name": name}),
            };
            json!({"service": {"name": &*service.name, "port": port}})
        }
        IngressBackend::Resource { kind, name } => json!({"resource": {"kind": kind, "name": name}}),
    }
}

pub(super) fn pool(pool: &IpAddressPool, status: Option<&Value>) -> Value {
    let spec = json!({
        "addresses": texts(&pool.addresses),
        "autoAssign": pool.auto_assign,
        "avoidBuggyIPs": pool.avoid_buggy_ips,
    });
    let mut shown = object("metallb.io/v1beta1", "IPAddressPool", &pool.meta, [("spec", spec)]);
    set(&mut shown, "status", status.cloned());
    shown
}

pub(super) fn node(node: &Node) -> Value {
    let mut spec = json!({});
    set(&mut spec, "podCIDRs", texts(&node.pod_cidrs));
    let lists = [("InternalIP", &node.internal_ips), ("ExternalIP", &node.external_ips)];
    let addresses: Vec<Value> = lists
        .iter()
        .flat_map(|(kind, ips)| ips.iter().map(move |ip| json!({"type": kind, "address": ip.to_string()})))
        .collect();
    object("v1", "Node", &node.meta, [("spec", spec), ("status", json!({"addresses": addresses}))])
}
