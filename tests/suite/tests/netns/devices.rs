//! Devices that come, go and are no longer wanted: what is attached follows, also over a restart.

use std::{fs, process::Command};

use roadstead_lab::{Lab, Mac, Node, Probe, Program, demo::Cluster, wait_until};

use super::fixture::{LATE, WEB, answers_are, assert_answered, at, ips, lab};

#[test]
fn a_device_made_anew_is_attached_to() {
    let Some(lab) = lab("device-anew") else { return };
    let cluster = Cluster::start(&lab).unwrap();
    let node = lab.node("node-a");
    let probe = Probe::tcp(at(node.host(), 30900)[0]);
    assert_answered(lab.client(), &probe, &WEB);
    let before = pins(node);
    make_anew(&lab, node);
    wait_until(LATE, "the new device is served", || answers_are(lab.client(), &probe, &WEB)).unwrap();
    assert_attached_once(node);
    assert_ne!(pins(node), before);

    // While nobody looks, and then an agent starts.
    cluster.kill(node, Program::Agent).unwrap();
    make_anew(&lab, node);
    cluster.restart(node, Program::Agent).unwrap();
    wait_until(LATE, "the new device is served", || answers_are(lab.client(), &probe, &WEB)).unwrap();
    assert_attached_once(node);
}

#[test]
fn a_device_that_is_no_longer_named_is_let_go() {
    let Some(lab) = lab("device-unnamed") else { return };
    let cluster = Cluster::start(&lab).unwrap();
    let node = lab.node("node-a");
    ip(&["-n", node.host().namespace(), "link", "add", "extra0", "type", "veth", "peer", "name", "extra1"]);
    cluster.kill(node, Program::Agent).unwrap();
    let mut command = node.command(Program::Agent).unwrap();
    command.args(["--device", "extra0"]);
    let both = node.start_with(Program::Agent, command).unwrap();
    both.wait_ready(LATE).unwrap();
    assert_eq!(pins(node).len(), 4, "two programs on each of two devices");
    both.kill().unwrap();
    let one = node.start(Program::Agent).unwrap();
    one.wait_ready(LATE).unwrap();
    assert_attached_once(node);
    assert_answered(lab.client(), &Probe::tcp(at(node.host(), 30900)[0]), &WEB);
}

/// What was pinned for other devices goes, after the new ones are served.
#[track_caller]
fn assert_attached_once(node: &Node) {
    let waited = wait_until(LATE, "one device has both programs", || pins(node).len() == 2);
    waited.unwrap_or_else(|error| panic!("{error}: {:?}", pins(node)));
}

/// The pinned links of the uplink programs.
fn pins(node: &Node) -> Vec<String> {
    let folders = fs::read_dir(node.bpffs()).unwrap().map(|entry| entry.unwrap().path().join("links"));
    // The speakers' folder has maps alone.
    let links = folders.into_iter().find(|links| links.exists()).unwrap();
    let names = fs::read_dir(links).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).filter(|n| n.starts_with("uplink")).collect();
    names.sort_unstable();
    names
}

/// Takes the node's `eth0` away and makes it again as it was, with another number.
fn make_anew(lab: &Lab, node: &Node) {
    let (id, inside) = (lab.id(), node.host().namespace());
    let (mac, segment) = (Mac::of(node.host().v4()).to_string(), format!("{id}.segment"));
    ip(&["-n", inside, "link", "del", "eth0"]);
    let veth = ["link", "add", "eth0", "address", &mac, "netns", inside, "type", "veth", "peer", "name", node.name()];
    ip(&[veth.as_slice(), &["netns", &segment]].concat());
    ip(&["-n", &segment, "link", "set", node.name(), "master", "br0", "up"]);
    ip(&["-n", inside, "link", "set", "eth0", "up"]);
    for (address, length) in ips(node.host()).into_iter().zip([24, 64]) {
        let text = format!("{address}/{length}");
        let nodad: &[&str] = if address.is_ipv6() { &["nodad"] } else { &[] };
        ip(&[&["-n", inside, "addr", "add", &text, "dev", "eth0"], nodad].concat());
    }
    for (other, via) in lab.nodes().iter().filter(|other| other.name() != node.name()).flat_map(routes) {
        ip(&["-n", inside, "route", "add", &other, "via", &via]);
    }
}

/// The ways to another node's pods.
fn routes(other: &Node) -> impl Iterator<Item = (String, String)> {
    other.pod_cidrs().into_iter().zip(ips(other.host()).map(|ip| ip.to_string()))
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().unwrap();
    assert!(output.status.success(), "ip {arguments:?}: {output:?}");
}
