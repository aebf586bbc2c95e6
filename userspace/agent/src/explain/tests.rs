//! Explanations on manifests: every kind of frontend from every side.

use clap::Parser;
use serde_json::{Value, json};

use super::*;

const MANIFESTS: &str = r"
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Node, metadata: {name: node-a}, spec: {podCIDRs: [10.244.1.0/24, 'fd00:244:1::/64']},
   status: {addresses: [{type: InternalIP, address: 192.0.2.11}, {type: InternalIP, address: '2001:db8::11'}]}}
- {apiVersion: v1, kind: Node, metadata: {name: node-b}, spec: {podCIDRs: [10.244.2.0/24, 'fd00:244:2::/64']},
   status: {addresses: [{type: InternalIP, address: 192.0.2.12}]}}
- apiVersion: v1
  kind: Service
  metadata: {name: web, namespace: shop}
  spec:
    type: LoadBalancer
    clusterIPs: [10.96.0.10, 'fd00:10:96::10']
    ipFamilies: [IPv4, IPv6]
    ipFamilyPolicy: RequireDualStack
    externalIPs: [203.0.113.5]
    ports: [{name: http, port: 80, nodePort: 30080}, {name: dns, port: 53, nodePort: 30053, protocol: UDP}]
  status: {loadBalancer: {ingress: [{ip: 203.0.113.200}]}}
- apiVersion: v1
  kind: Service
  metadata: {name: near, namespace: shop}
  spec:
    type: NodePort
    clusterIP: 10.96.0.11
    externalTrafficPolicy: Local
    internalTrafficPolicy: Local
    ports: [{port: 80, nodePort: 30081}]
- {apiVersion: v1, kind: Service, metadata: {name: idle, namespace: shop}, spec: {clusterIP: 10.96.0.12, ports: [{port: 80}]}}
- apiVersion: discovery.k8s.io/v1
  kind: EndpointSlice
  metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
  addressType: IPv4
  ports: [{name: http, port: 8080}, {name: dns, port: 5353, protocol: UDP}]
  endpoints: [{addresses: [10.244.1.5], nodeName: node-a}, {addresses: [10.244.2.5], nodeName: node-b}]
- apiVersion: discovery.k8s.io/v1
  kind: EndpointSlice
  metadata: {name: web-2, namespace: shop, labels: {kubernetes.io/service-name: web}}
  addressType: IPv6
  ports: [{name: http, port: 8080}]
  endpoints: [{addresses: ['fd00:244:1::5'], nodeName: node-a}]
- apiVersion: discovery.k8s.io/v1
  kind: EndpointSlice
  metadata: {name: near-1, namespace: shop, labels: {kubernetes.io/service-name: near}}
  addressType: IPv4
  ports: [{port: 8080}]
  endpoints: [{addresses: [10.244.2.7], nodeName: node-b}]
";

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    flags: ExplainFlags,
}

/// The answer to a command line, as JSON.
fn explain(line: &str) -> Value {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("all.yaml"), MANIFESTS).unwrap();
    let state = folder.path().join("state");
    let own = ["--manifests", folder.path().to_str().unwrap(), "--state-dir", state.to_str().unwrap()];
    let node = if line.contains("--node-name") { "" } else { "--node-name node-a" };
    let all = ["explain"].into_iter().chain(own).chain(line.split(' ')).chain(node.split_whitespace());
    let flags = Line::try_parse_from(all).unwrap_or_else(|error| panic!("{error}")).flags;
    offline::answer(&flags, flags.question().unwrap()).unwrap().json()
}

/// What is expected: verdict, Service, port, kind, endpoints, masquerade, rule.
type Row = (&'static str, &'static str, Option<[&'static str; 3]>, &'static [&'static str], bool, &'static str);

const WEB: &[&str] = &["10.244.1.5:8080", "10.244.2.5:8080"];

#[test]
fn every_side_and_kind_is_explained_by_its_rule() {
    let web = |kind| Some(["shop/web", "http", kind]);
    let rows: &[Row] = &[
        ("10.244.1.5 10.96.0.10:80", "forward", web("ClusterIP"), WEB, false, "cluster-ip, policy Cluster"),
        ("192.0.2.11 10.96.0.10:80", "forward", web("ClusterIP"), WEB, false, "cluster-ip, policy Cluster"),
        ("198.51.100.1 192.0.2.11:30080", "forward", web("NodePort"), WEB, true, "node-port, policy Cluster"),
        (
            "198.51.100.1:4000 203.0.113.200:80/tcp",
            "forward",
            web("LoadBalancer"),
            WEB,
            true,
            "load-balancer, policy Cluster",
        ),
        ("198.51.100.1 203.0.113.5:80", "forward", web("ExternalIP"), WEB, true, "external-ip, policy Cluster"),
        ("127.0.0.1 127.0.0.1:30080", "forward", web("NodePort"), WEB, false, "node-port, policy Cluster"),
        (
            "2001:db8::9 [2001:db8::11]:30080",
            "forward",
            web("NodePort"),
            &["[fd00:244:1::5]:8080"],
            false,
            "node-port, policy Cluster",
        ),
        (
            "198.51.100.1 192.0.2.11:30053/udp",
            "forward",
            Some(["shop/web", "dns", "NodePort"]),
            &["10.244.1.5:5353", "10.244.2.5:5353"],
            true,
            "node-port, policy Cluster",
        ),
        ("198.51.100.1 203.0.113.200:81", "reject", None, &[], false, "no such port at an address of Services: reject"),
        ("10.244.1.5 10.96.0.10:81", "reject", None, &[], false, "no such port at an address of Services: reject"),
        ("10.244.1.5 10.96.0.99:80", "drop", None, &[], false, "unallocated address of the service network: drop"),
        (
            "10.244.1.5 10.96.0.12:80",
            "reject",
            Some(["shop/idle", "80", "ClusterIP"]),
            &[],
            false,
            "no endpoints anywhere: reject",
        ),
        (
            "198.51.100.1 192.0.2.11:30081",
            "drop",
            Some(["shop/near", "80", "NodePort"]),
            &[],
            false,
            "no endpoint on this node, policy Local: drop",
        ),
        (
            "10.244.1.5 192.0.2.11:30081",
            "forward",
            Some(["shop/near", "80", "NodePort"]),
            &["10.244.2.7:8080"],
            false,
            "node-port, policy Local, short cut from inside the cluster",
        ),
        (
            "10.244.1.5 10.96.0.11:80",
            "drop",
            Some(["shop/near", "80", "ClusterIP"]),
            &[],
            false,
            "no endpoint on this node, policy Local: drop",
        ),
        ("198.51.100.1 203.0.113.77:80", "pass", None, &[], false, "no address of a Service"),
        ("192.0.2.11 192.0.2.11:22", "pass", None, &[], false, "no address of a Service"),
    ];
    for (line, verdict, service, endpoints, masquerade, rule) in rows {
        let [name, port, kind] = service.map_or([None; 3], |names| names.map(Some));
        let expected = json!({
            "verdict": verdict, "service": name, "port": port, "kind": kind, "endpoints": endpoints,
            "masquerade": masquerade, "affinity": false, "rule": rule,
        });
        assert_eq!(explain(line), expected, "{line}");
    }
}

#[test]
fn the_flags_of_the_node_count() {
    let masquerade = |line: &str| explain(line)["masquerade"].as_bool().unwrap();
    let packets = "--socket-lb off";
    assert!(!masquerade(&format!("10.244.1.6 10.96.0.10:80 {packets}")));
    assert!(masquerade(&format!("10.244.1.6 10.96.0.10:80 {packets} --masquerade kube-proxy --masquerade-all")));
    assert!(masquerade(&format!("10.244.1.6 192.0.2.11:30080 {packets} --masquerade kube-proxy")));
    assert!(!masquerade("198.51.100.1 192.0.2.11:30081 --node-name node-b"));
    assert_eq!(explain("198.51.100.1 192.0.2.12:30081 --node-name node-b")["verdict"], "forward");
    let elsewhere = explain("198.51.100.1 192.0.2.11:30080 --nodeport-addresses 198.51.100.0/24");
    assert_eq!(elsewhere["verdict"], "pass");
}

#[test]
fn what_is_no_question_is_refused() {
    for line in ["x 10.96.0.10:80", "10.0.0.1 10.96.0.10", "10.0.0.1 10.96.0.10:80/sctp", "10.0.0.1 fd00::1:80"] {
        let all = ["explain"].into_iter().chain(line.split(' '));
        assert!(Line::try_parse_from(all).is_err(), "{line}");
    }
    let flags = Line::try_parse_from(["explain", "10.0.0.1", "[fd00::1]:80"]).unwrap().flags;
    assert!(flags.question().is_err(), "two families");
}
