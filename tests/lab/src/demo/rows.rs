//! The paths of a request, one row each.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::Result;

use super::checks;
use super::cluster::Cluster;
use super::table::Table;
use crate::place::Place;
use crate::probe::Probe;

/// The pods of the Service `web`.
pub(super) const WEB: &[&str] = &["web-1", "web-2", "web-3"];
/// The pods of the Service `api`.
pub(super) const API: &[&str] = &["api-1"];
/// The cluster addresses of the Service `web`, as its manifest names them.
const WEB_CLUSTER: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(10, 96, 0, 10)), IpAddr::V6(Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0x10))];
/// Those of the Service `idle`.
const IDLE_CLUSTER: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(10, 96, 0, 30)), IpAddr::V6(Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0x30))];
/// The host of the demo's Ingress.
pub(super) const SHOP: &str = "shop.example.com";

/// Shows every path that stands still.
pub(super) fn show(cluster: &Cluster<'_>, table: &mut Table) -> Result<()> {
    node_ports(cluster, table);
    cluster_ips(cluster, table)?;
    load_balancer(cluster, table);
    ingress(cluster, table);
    no_endpoint(cluster, table)
}

fn node_ports(cluster: &Cluster<'_>, table: &mut Table) {
    table.section("Node ports of Service web: pods on the node that is asked and on the other one");
    let client = cluster.lab.client();
    for node in cluster.lab.nodes() {
        let host = node.host();
        for address in [IpAddr::from(host.v4()), host.v6().into()] {
            let (tcp, udp) = (SocketAddr::new(address, 30900), SocketAddr::new(address, 30053));
            table.row("client", &format!("tcp {tcp}"), || checks::balanced(client, &Probe::tcp(tcp), WEB));
            table.row("client", &format!("udp {udp}"), || checks::balanced(client, &Probe::udp(udp), WEB));
        }
    }
}

fn cluster_ips(cluster: &Cluster<'_>, table: &mut Table) -> Result<()> {
    table.section("Cluster addresses of Service web: translated at connect, the client is told what it asked for");
    let host = cluster.lab.node("node-b").host();
    for place in [cluster.pod("api-1")?, host] {
        for address in WEB_CLUSTER {
            let (tcp, udp) = (SocketAddr::new(address, 9000), SocketAddr::new(address, 5353));
            let name = place.name();
            table.row(name, &format!("tcp {tcp}"), || checks::translated(place, &Probe::tcp(tcp), tcp, WEB));
            let probe = Probe::udp_unconnected(udp);
            table.row(name, &format!("udp {udp}"), || checks::translated(place, &probe, udp, WEB));
        }
    }
    Ok(())
}

fn load_balancer(cluster: &Cluster<'_>, table: &mut Table) {
    table.section("Addresses of Service web from the pool: one node announces them, all pods serve");
    let client = cluster.lab.client();
    for (question, address) in ["ARP", "NDP"].into_iter().zip(cluster.web) {
        table.row("client", &format!("{question} who has {address}"), || checks::announced(cluster.lab, address));
    }
    for address in cluster.web {
        let (tcp, udp) = (SocketAddr::new(address, 9000), SocketAddr::new(address, 5353));
        table.row("client", &format!("tcp {tcp}"), || checks::balanced(client, &Probe::tcp(tcp), WEB));
        table.row("client", &format!("udp {udp}"), || checks::balanced(client, &Probe::udp(udp), WEB));
    }
}

fn ingress(cluster: &Cluster<'_>, table: &mut Table) {
    let [v4, v6] = cluster.ingress;
    table.section(&format!("Ingress {SHOP} at {v4} and {v6}: certificate verified, pods by path"));
    let client = cluster.lab.client();
    for (family, address) in ["IPv4", "IPv6"].into_iter().zip(Cluster::at(cluster.ingress, 443)) {
        for (path, pods) in [("/", WEB), ("/api/orders", API)] {
            let probe = https(cluster, path, address);
            table.row("client", &format!("https://{SHOP}{path} {family}"), || checks::balanced(client, &probe, pods));
        }
    }
    let plain = Probe::http(&format!("http://{SHOP}/api")).at((v4, 80));
    let secure = format!("https://{SHOP}/api");
    table.row("client", &format!("http://{SHOP}/api IPv4"), || checks::redirected(client, &plain, &secure));
}

fn no_endpoint(cluster: &Cluster<'_>, table: &mut Table) -> Result<()> {
    table.section("Service idle has no endpoint: refused at once");
    let (client, node) = (cluster.lab.client(), cluster.lab.node("node-a").host());
    for address in [IpAddr::from(node.v4()), node.v6().into()] {
        refused(client, SocketAddr::new(address, 30999), SocketAddr::new(address, 30999), table);
    }
    for place in [cluster.pod("web-2")?, node] {
        for address in IDLE_CLUSTER {
            refused(place, SocketAddr::new(address, 9000), SocketAddr::new(address, 9000), table);
        }
    }
    Ok(())
}

fn refused(place: &Place, tcp: SocketAddr, udp: SocketAddr, table: &mut Table) {
    table.row(place.name(), &format!("tcp {tcp}"), || checks::refused(place, &Probe::tcp(tcp)));
    table.row(place.name(), &format!("udp {udp}"), || checks::refused(place, &Probe::udp(udp)));
}

/// A request to the demo's host, whose certificate is verified.
pub(super) fn https(cluster: &Cluster<'_>, path: &str, address: SocketAddr) -> Probe {
    Probe::http(&format!("https://{SHOP}{path}")).at(address).ca(&cluster.ca)
}
