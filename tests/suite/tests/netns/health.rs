//! What a load balancer in front of the cluster hears at a Service's health check port on each node.

use roadstead_lab::{Lab, Node, Probe, demo::Cluster};
use serde_json::json;

use super::fixture::{at, edit, followed, lab};

const PORT: u16 = 31990;
const FILE: &str = "checked.yaml";
/// Two ready endpoints on node-a, a terminating one on node-b.
const CHECKED: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: checked, namespace: shop}
spec:
  type: LoadBalancer
  externalTrafficPolicy: Local
  healthCheckNodePort: 31990
  ipFamilyPolicy: PreferDualStack
  ports: [{port: 9004}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: checked-4, namespace: shop, labels: {kubernetes.io/service-name: checked}}
addressType: IPv4
ports: [{port: 9000}]
endpoints:
- {addresses: [10.244.1.11], nodeName: node-a}
- {addresses: [10.244.1.12], nodeName: node-a}
- {addresses: [10.244.2.11], nodeName: node-b, conditions: {ready: false, serving: true, terminating: true}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: checked-6, namespace: shop, labels: {kubernetes.io/service-name: checked}}
addressType: IPv6
ports: [{port: 9000}]
endpoints:
- {addresses: ["fd00:10:244:1::11"], nodeName: node-a}
- {addresses: ["fd00:10:244:1::12"], nodeName: node-a}
- {addresses: ["fd00:10:244:2::11"], nodeName: node-b, conditions: {ready: false, serving: true, terminating: true}}
"#;

#[test]
fn load_balancers_are_sent_to_nodes_with_ready_endpoints() {
    let Some(lab) = lab("health") else { return };
    let _cluster = Cluster::start(&lab).unwrap();
    let (node_a, node_b) = (lab.node("node-a"), lab.node("node-b"));
    let say = |a, b| hears(&lab, node_a, a) && hears(&lab, node_b, b);
    followed("the port is open", || lab.apply(FILE, CHECKED).unwrap(), || say(Some(2), Some(0)));
    let ready =
        ("nodeName: node-a}", "nodeName: node-a, conditions: {ready: false, serving: true, terminating: true}}");
    followed("all terminate", || edit(&lab, FILE, ready.0, ready.1), || say(Some(0), Some(0)));
    followed("all are back", || lab.apply(FILE, CHECKED).unwrap(), || say(Some(2), Some(0)));
    let policy = ("externalTrafficPolicy: Local\n  healthCheckNodePort: 31990", "externalTrafficPolicy: Cluster");
    followed("nobody asks any more", || edit(&lab, FILE, policy.0, policy.1), || say(None, None));
    followed("somebody asks again", || lab.apply(FILE, CHECKED).unwrap(), || say(Some(2), Some(0)));
}

/// Whether the node says at both of its addresses that it has so many endpoints; `None` is a closed port.
fn hears(lab: &Lab, node: &Node, endpoints: Option<u64>) -> bool {
    at(node.host(), PORT).into_iter().all(|address| {
        let answer = lab.client().probe_once(&Probe::http(&format!("http://{address}/"))).unwrap();
        let Some(endpoints) = endpoints else { return answer.error.as_deref() == Some("ECONNREFUSED") };
        let body = json!({
            "service": {"namespace": "shop", "name": "checked"},
            "localEndpoints": endpoints,
            "serviceProxyHealthy": true,
        });
        answer.status == Some(if endpoints == 0 { 503 } else { 200 })
            && answer.answer == body
            && answer.headers.get("x-load-balancing-endpoint-weight") == Some(&endpoints.to_string())
    })
}
