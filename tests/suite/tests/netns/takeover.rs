//! The move from kube-proxy and back, on a node under traffic: the agent comes beside kube-proxy's rules, the rules go, and
//! in the end the rules come back before the agent goes. New connections are served all the time; those that are open when the
//! one takes over from the other break, as neither knows the other's flows, and that is told here too.
//!
//! The rules are a Service's as kube-proxy's mode `nftables` has them, as far as these flows meet them, with masquerading for
//! all: a bridge of pods without br_netfilter answers past the node otherwise.

use std::{net::SocketAddr, path::Path, process::Command, time::Duration};

use nix::sys::signal::Signal;
use roadstead_lab::{EchoPorts, Node, Place, Probe, Program, program, wait_until};

use super::fixture::{LATE, READY, at, finish_all, lab, served_for};

const RULES: &str = "\
add table ip kube-proxy
add chain ip kube-proxy nat-prerouting { type nat hook prerouting priority -100 ; }
add chain ip kube-proxy nat-output { type nat hook output priority -100 ; }
add chain ip kube-proxy nat-postrouting { type nat hook postrouting priority 100 ; }
add chain ip kube-proxy web
add rule ip kube-proxy web meta l4proto tcp dnat ip to numgen random mod 2 map { 0 : 10.244.1.11 . 9000, 1 : 10.244.2.11 . 9000 }
add rule ip kube-proxy nat-prerouting ip daddr 192.168.77.11 tcp dport 30970 meta mark set 0x4000 goto web
add rule ip kube-proxy nat-prerouting ip daddr 10.96.0.70 tcp dport 9000 meta mark set 0x4000 goto web
add rule ip kube-proxy nat-output ip daddr 10.96.0.70 tcp dport 9000 meta mark set 0x4000 goto web
add rule ip kube-proxy nat-postrouting meta mark 0x4000 masquerade
";

const SERVICE: &str = "\
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {type: NodePort, clusterIP: 10.96.0.70, ports: [{name: tcp, port: 9000, nodePort: 30970}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: tcp, port: 9000}]
endpoints: [{addresses: [10.244.1.11], nodeName: node-a}, {addresses: [10.244.2.11], nodeName: node-b}]
";

const BOTH: [&str; 2] = ["web-1", "web-2"];
const RATE: u32 = 200;
/// How many connections may be open at the changes, each of which takes some milliseconds.
const OPEN: u64 = 4;

#[test]
fn an_agent_takes_over_from_kube_proxy_and_hands_back() {
    let Some(lab) = lab("takeover") else { return };
    let node = lab.node("node-a");
    let pods = [("web-1", "node-a"), ("web-2", "node-b")].map(|(name, node)| lab.node(node).add_pod(name).unwrap());
    let _echoes = pods.each_ref().map(|pod| pod.start_echo(EchoPorts::USUAL).unwrap());
    let asking = node.add_pod("asking").unwrap();
    let rules = lab.folder().join("rules.nft");
    std::fs::write(&rules, RULES).unwrap();
    let Some(()) = nft(node.host(), &["-f".as_ref(), rules.as_os_str()]) else { return };
    lab.apply("web.yaml", SERVICE).unwrap();
    let ([node_port, _], cluster_ip): (_, SocketAddr) = (at(node.host(), 30970), "10.96.0.70:9000".parse().unwrap());
    let probes = [(lab.client(), node_port), (&asking, cluster_ip)];
    let served = |time: Duration| {
        probes.iter().for_each(|(place, to)| served_for(time, place, &Probe::tcp(*to), &BOTH));
    };
    let settled = Duration::from_secs(1);
    served(settled);
    let loads = probes.map(|(place, to)| place.load(to, RATE).unwrap());
    let holds = probes.map(|(place, to)| place.hold(to).unwrap());

    let agent = node.start(Program::Agent).unwrap();
    agent.wait_ready(READY).unwrap();
    served(settled);
    assert!(doctor(node).contains("table ip kube-proxy"), "doctor names what is left");
    nft(node.host(), &["delete table ip kube-proxy".as_ref()]).unwrap();
    served(settled);

    nft(node.host(), &["-f".as_ref(), rules.as_os_str()]).unwrap();
    agent.signal(Signal::SIGTERM).unwrap();
    wait_until(LATE, "the agent ends", || !agent.is_running()).unwrap();
    served(settled);
    cleanup(node.bpffs());
    served(settled);
    for report in finish_all(loads) {
        // Of 200 a second, those that are on their way at one of the two changes.
        assert!(report.failed <= OPEN && report.answered > 500, "{report:?}");
        assert!(BOTH.iter().all(|name| report.names.contains_key(*name)), "{report:?}");
    }
    for hold in holds {
        // The README warns of it. Should it hold one day, the README is to say so.
        let report = hold.finish().unwrap();
        assert!(report.broken == 1 && report.exchanged > 10, "{report:?}");
    }
}

fn doctor(node: &Node) -> String {
    let mut command = Command::new(program("roadstead").unwrap());
    command.args(["doctor", "--daemon", "agent", "--device", "eth0", "--bpffs"]).arg(node.bpffs());
    String::from_utf8(node.host().output(command).unwrap().stdout).unwrap()
}

fn cleanup(bpffs: &Path) {
    let mut command = Command::new(program("roadstead").unwrap());
    let output = command.arg("cleanup").arg("--bpffs").arg(bpffs).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// `None`, with a word on stderr, where there is no nft.
fn nft(host: &Place, arguments: &[&std::ffi::OsStr]) -> Option<()> {
    let mut command = Command::new("nft");
    command.args(arguments);
    match host.output(command) {
        Ok(output) => {
            assert!(output.status.success(), "{arguments:?}: {output:?}");
            Some(())
        }
        Err(error) => {
            eprintln!("skipped: {error:#}");
            None
        }
    }
}
