//! Traffic that goes on while a cluster is changed: new connections and requests at a steady rate, of which none may fail.

use std::net::SocketAddr;

use roadstead_lab::{LoadReport, Place, Probe, Running};

use super::fixture::Cluster;

/// Traffic that goes on until it is asked for: a name for each, and what came of it.
pub(crate) struct Traffic(Vec<(&'static str, Running<LoadReport>)>);

impl Traffic {
    /// None yet.
    pub(crate) fn none() -> Self {
        Self(Vec::new())
    }

    /// Two hundred connections a second in all: from the client by the balancer's address and a node's port, from a node by
    /// the cluster's address.
    pub(crate) fn start(cluster: &Cluster, balancer: SocketAddr, node_port: u16, inside: SocketAddr) -> Self {
        let (client, node) = (cluster.lab.client(), cluster.lab.node("node-b").host());
        let by_node = SocketAddr::new(cluster.lab.node("node-a").host().v4().into(), node_port);
        let mut traffic = Self::none();
        traffic.connections("balancer", client, balancer, 100);
        traffic.connections("node port", client, by_node, 50);
        traffic.connections("cluster address", node, inside, 50);
        traffic
    }

    /// Adds connections from a place, so many a second.
    pub(crate) fn connections(&mut self, name: &'static str, from: &Place, to: SocketAddr, rate: u32) {
        self.0.push((name, from.load(to, rate).unwrap()));
    }

    /// Adds an HTTP request from a place, so many times a second.
    pub(crate) fn requests(&mut self, name: &'static str, from: &Place, request: &Probe, rate: u32) {
        self.0.push((name, from.requests(request, rate).unwrap()));
    }

    /// Ends it: everything was answered.
    #[track_caller]
    pub(crate) fn finish(self, cluster: &Cluster) {
        for (name, load) in self.0 {
            let report = load.finish().unwrap();
            println!("{name}: {report:?}");
            assert!(report.failed == 0 && report.answered > 50, "{name}: {report:?}\n{}", cluster.daemon_logs());
        }
    }
}
