//! The Services as the API server is given them: with the labels that tools put on, and slices as the controller of
//! EndpointSlices writes them, pod by pod.

use serde_json::{Value, json};

use crate::state::{FLIP_NODE_PORT, NAMESPACE, PORT, Service, State, TARGET_NODE_PORT};

/// Where Services are made, and where their slices are.
pub(crate) const SERVICES: &str = "/api/v1/namespaces/bench/services";
pub(crate) const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/bench/endpointslices";

/// The namespace of all of them.
pub(crate) fn namespace() -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
}

/// The Services of a measurement as this one has them: of node ports those that somebody asks, for the API server takes a
/// quarter of a second to give one out while many others are made.
pub(crate) fn services(state: &State) -> Vec<Service> {
    let is_asked = |port: &u16| [TARGET_NODE_PORT, FLIP_NODE_PORT].contains(port);
    let plain = |service: Service| Service { node_port: service.node_port.filter(is_asked), ..service };
    state.all().into_iter().map(plain).collect()
}

/// A Service. It has no selector: no controller shall exchange its slices.
pub(crate) fn service(service: &Service) -> Value {
    let mut port = json!({"name": "http", "port": PORT, "targetPort": service.target_port});
    if let (Some(node_port), Some(port)) = (service.node_port, port.as_object_mut()) {
        port.insert("nodePort".to_owned(), json!(node_port));
    }
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": service.name, "namespace": NAMESPACE, "labels": labels(service)},
        "spec": {
            "type": if service.node_port.is_some() { "NodePort" } else { "ClusterIP" },
            "clusterIP": service.vip,
            "ports": [port],
        },
    })
}

/// The slice of a Service, whose pods are all on this node.
pub(crate) fn slice(service: &Service, node: &str) -> Value {
    let mut labels = labels(service);
    if let Some(labels) = labels.as_object_mut() {
        labels.insert("kubernetes.io/service-name".to_owned(), json!(service.name));
        labels.insert("endpointslice.kubernetes.io/managed-by".to_owned(), json!("bench.roadstead.dev"));
    }
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": slice_name(service), "namespace": NAMESPACE, "labels": labels},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": service.target_port, "protocol": "TCP"}],
        "endpoints": endpoints(service, node),
    })
}

/// What exchanges the endpoints of its slice.
pub(crate) fn exchange(service: &Service, node: &str) -> Value {
    json!({ "endpoints": endpoints(service, node) })
}

/// Where the slice of a Service is.
pub(crate) fn slice_path(service: &Service) -> String {
    format!("{SLICES}/{}", slice_name(service))
}

/// With the tail that the controller's names have.
fn slice_name(service: &Service) -> String {
    format!("{}-x7k2p", service.name)
}

fn labels(service: &Service) -> Value {
    json!({
        "app.kubernetes.io/name": service.name,
        "app.kubernetes.io/instance": format!("{}-production", service.name),
        "app.kubernetes.io/managed-by": "Helm",
    })
}

fn endpoints(service: &Service, node: &str) -> Value {
    let pod = |(index, address): (usize, &std::net::Ipv4Addr)| {
        json!({
            "addresses": [address],
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "nodeName": node,
            "zone": "rack-1",
            "targetRef": {
                "kind": "Pod",
                "namespace": NAMESPACE,
                "name": format!("{}-6d4cf56db6-{index:05}", service.name),
                "uid": format!("00000000-0000-4000-8000-{:012x}", address.to_bits()),
            },
        })
    };
    service.endpoints.iter().enumerate().map(pod).collect()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::state::Side;

    #[test]
    fn a_slice_belongs_to_its_service_and_has_all_endpoints() {
        let state = State { count: 3, pod: (1..=5).map(|host| Ipv4Addr::new(10, 244, 3, host)).collect() };
        let all = services(&state);
        assert_eq!(all.iter().filter(|service| service.node_port.is_some()).count(), 2);
        for one in all {
            let (object, slice) = (service(&one), slice(&one, "node-c"));
            let name = object.pointer("/metadata/name");
            assert_eq!(slice.pointer("/metadata/labels/kubernetes.io~1service-name"), name);
            assert_eq!(object.pointer("/spec/ports/0/name"), slice.pointer("/ports/0/name"), "ports meet by name");
            assert_eq!(object.pointer("/spec/ports/0/nodePort").is_some(), one.node_port.is_some());
            assert_eq!(slice["endpoints"].as_array().unwrap().len(), one.endpoints.len());
            assert!(slice_path(&one).ends_with(slice["metadata"]["name"].as_str().unwrap()));
        }
    }

    #[test]
    fn an_exchange_leads_to_the_other_side() {
        let state = State { count: 1, pod: vec![Ipv4Addr::new(10, 244, 3, 11), Ipv4Addr::new(10, 244, 3, 101)] };
        let exchange = exchange(&state.flip(Side::Second), "node-c");
        assert_eq!(exchange.pointer("/endpoints/0/addresses/0"), Some(&json!("10.244.3.101")));
    }
}
