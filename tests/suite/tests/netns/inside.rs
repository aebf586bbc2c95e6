//! Pods and hosts reach a Service at every address that it has, also themselves through it.

use std::net::SocketAddr;

use roadstead_lab::{Place, Probe, demo::Cluster};

use super::fixture::{WEB, assert_answered, at, lab};

/// The cluster addresses of the Service `web`.
const CLUSTER: [&str; 2] = ["10.96.0.10", "fd00:10:96::10"];

#[test]
fn every_address_serves_pods_and_hosts() {
    let Some(lab) = lab("inside") else { return };
    let cluster = Cluster::start(&lab).unwrap();
    let hosts = ["node-a", "node-b"].map(|node| lab.node(node).host());
    let pods = ["web-1", "web-2", "api-1"].map(|pod| cluster.pod(pod).unwrap());
    let ips: Vec<std::net::IpAddr> = CLUSTER.map(|ip| ip.parse().unwrap()).into_iter().chain(cluster.web).collect();
    let node_ports = |port| hosts.into_iter().flat_map(move |host| at(host, port));
    let tcp: Vec<_> = ips.iter().map(|ip| SocketAddr::new(*ip, 9000)).chain(node_ports(30900)).collect();
    let udp: Vec<_> = ips.iter().map(|ip| SocketAddr::new(*ip, 5353)).chain(node_ports(30053)).collect();
    for place in pods.into_iter().chain(hosts) {
        tcp.iter().for_each(|to| assert_answered(place, &Probe::tcp(*to), &WEB));
        udp.iter().for_each(|to| assert_answered(place, &Probe::udp(*to), &WEB));
    }
    loopback(hosts[0], pods[0]);
}

/// A node port is there on the node's own loopback, but not on a pod's.
fn loopback(host: &Place, pod: &Place) {
    for ip in ["127.0.0.1", "::1"] {
        let (tcp, udp) = (SocketAddr::new(ip.parse().unwrap(), 30900), SocketAddr::new(ip.parse().unwrap(), 30053));
        assert_answered(host, &Probe::tcp(tcp), &WEB);
        assert_answered(host, &Probe::udp(udp), &WEB);
        let answer = pod.probe_once(&Probe::tcp(tcp)).unwrap();
        assert_eq!(answer.error.as_deref(), Some("ECONNREFUSED"), "a pod's loopback is its own");
    }
}
