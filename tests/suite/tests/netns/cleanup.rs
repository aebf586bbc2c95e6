//! `roadstead cleanup` leaves nothing of the agent in the kernel, and the next agent finds everything it needs.

use std::process::Command;

use roadstead_dataplane::cleanup::Loaded;
use roadstead_lab::{Node, Probe, Program, demo::Cluster, program, wait_until};

use super::fixture::{LATE, WEB, assert_answered, at, lab, needs_files};

#[test]
fn cleanup_leaves_nothing_behind() {
    let Some(lab) = lab("cleanup") else { return };
    let node = lab.node("node-a");
    let before = network(node);
    let cluster = Cluster::start(&lab).unwrap();
    let ports = at(node.host(), 30900).map(Probe::tcp);
    let cluster_ip = Probe::tcp("10.96.0.10:9000".parse::<std::net::SocketAddr>().unwrap());
    let pod = cluster.pod("web-1").unwrap();
    let served = || {
        ports.iter().for_each(|probe| assert_answered(lab.client(), probe, &WEB));
        assert_answered(pod, &cluster_ip, &WEB);
    };
    served();
    let loaded = Loaded::below(node.bpffs());
    assert!(loaded.programs.len() >= 10 && loaded.maps.len() >= 11, "{loaded:?}");
    for program in Program::ALL {
        cluster.kill(node, program).unwrap();
    }
    assert_eq!(Loaded::below(node.bpffs()), loaded, "a killed agent leaves all of it at work");
    served();

    let output =
        Command::new(program("roadstead").unwrap()).arg("cleanup").arg("--bpffs").arg(node.bpffs()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(!node.bpffs().exists(), "pins are left");
    // At once: the programs are off their hooks before the command has ended.
    for probe in &ports {
        let refused = lab.client().probe_once(probe).unwrap();
        assert_eq!(refused.error.as_deref(), Some("ECONNREFUSED"), "nothing translates any more");
    }
    assert!(!pod.probe_once(&cluster_ip).unwrap().ok, "nothing translates any more");
    // The kernel frees programs and maps a moment after their last user.
    wait_until(LATE, "programs and maps are gone", || loaded.left() == Loaded::default())
        .unwrap_or_else(|error| panic!("{error}: {:?}", loaded.left()));
    assert_eq!(network(node), before, "queueing disciplines, filters, devices and addresses are as before");

    cluster.restart(node, Program::Agent).unwrap();
    served();
}

#[test]
fn cleanup_of_nothing_is_no_error() {
    if needs_files("the test starts no daemon") {
        return;
    }
    let Some(lab) = lab("cleanup-nothing") else { return };
    let folder = lab.node("node-a").bpffs().join("absent");
    let output =
        Command::new(program("roadstead").unwrap()).arg("cleanup").arg("--bpffs").arg(folder).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// What a node's namespace holds of devices towards the network, addresses, queueing disciplines and filters.
fn network(node: &Node) -> String {
    let show = |command: &str, arguments: &[&str]| {
        let output = Command::new(command).args(["-n", node.host().namespace()]).args(arguments).output().unwrap();
        assert!(output.status.success(), "{command} {arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    [
        show("ip", &["-o", "addr", "show", "dev", "eth0"]),
        show("ip", &["-o", "addr", "show", "dev", "lo"]),
        show("tc", &["qdisc", "show", "dev", "eth0"]),
        show("tc", &["filter", "show", "dev", "eth0", "ingress"]),
        show("tc", &["filter", "show", "dev", "eth0", "egress"]),
    ]
    .concat()
}
