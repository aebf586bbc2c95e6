//! Interfaces: addresses are announced where flags and L2Advertisements say and nowhere else, and announced again on one
//! that was lost, replaced, or has another hardware address.

use std::time::Duration;

use roadstead_lab::{Capture, Place, wait_until};

use super::fixture::{LATE, SOON};
use super::segment::{FIRST, Segment, lacks_tools, learn, mac_of, neighbour, run, text};

/// The hardware address of the node on the second cable.
const SECOND_MAC: [u8; 6] = [2, 0, 0, 0, 0x78, 0x11];

/// Asks on a device of the client for both addresses. Whether anybody answered ARP; of NDP the captures tell, as `ndisc6`
/// takes what it hears on other devices for an answer.
fn answered_on(client: &Place, device: &str) -> bool {
    let [v4, v6] = FIRST.map(|ip| ip.to_string());
    let _asked = run(client, "ndisc6", &["-n", "-m", "-r", "2", "-w", "200", &v6, device]);
    run(client, "arping", &["-f", "-c", "3", "-w", "1", "-I", device, &v4]).status.success()
}

/// Advertisements from a hardware address.
fn advertised(capture: &Capture, mac: [u8; 6]) -> usize {
    let is_one =
        |bytes: &[u8]| bytes.get(6..12) == Some(&mac) && bytes.get(12) == Some(&0x86) && bytes.get(54) == Some(&136);
    capture.frames().iter().filter(|frame| is_one(&frame.bytes)).count()
}

/// Frames from a hardware address that tell or ask about one of the addresses.
fn told(capture: &Capture, mac: [u8; 6]) -> usize {
    let about = |bytes: &[u8]| {
        FIRST.iter().any(|ip| match ip {
            std::net::IpAddr::V4(ip) => bytes.windows(4).any(|window| window == ip.octets()),
            std::net::IpAddr::V6(ip) => bytes.windows(16).any(|window| window == ip.octets()),
        })
    };
    capture.frames().iter().filter(|frame| frame.bytes.get(6..12) == Some(&mac) && about(&frame.bytes)).count()
}

#[test]
fn addresses_are_told_on_selected_interfaces_alone() {
    if lacks_tools() {
        return;
    }
    let Some(mut segment) = Segment::alone("interfaces") else { return };
    let (node, client) = (segment.lab.node("node-a").host().clone(), segment.lab.client().clone());
    node.ip(&[
        format!("link add eth1 address 02:00:00:00:78:11 type veth peer name eth1 netns {}", client.namespace()),
        "link set eth1 up".to_owned(),
        "addr add 192.168.78.11/24 dev eth1".to_owned(),
        "addr add fd78::11/64 dev eth1 nodad".to_owned(),
    ])
    .unwrap();
    client
        .ip(&["link set eth1 up", "addr add 192.168.78.100/24 dev eth1", "addr add fd78::100/64 dev eth1 nodad"])
        .unwrap();
    let eth1 = &["--interface", "eth1"][..];
    let cases = [
        ("", &[][..], [true, false]),
        ("", eth1, [true, true]),
        ("interfaces: [eth1]", eth1, [false, true]),
        ("interfaces: [eth0, no-such]", eth1, [true, false]),
        ("", &["--interface", "eth1", "--exclude-interface", "^eth1$"], [true, false]),
        ("interfaces: [eth1]", &[], [false, false]),
    ];
    for (spec, flags, expected) in cases {
        let captures = ["eth0", "eth1"].map(|device| client.capture(device).unwrap());
        segment.advertise(spec);
        segment.start("node-a", flags);
        // A node without such an interface has nothing to say.
        let said = if expected == [false; 2] { "started" } else { "announces the address" };
        let times = if expected == [false; 2] { 1 } else { 2 };
        let speaker = segment.take("node-a");
        wait_until(LATE, said, || speaker.log().matches(said).count() >= times).unwrap_or_else(|error| {
            panic!("{spec} {flags:?}: {error}:\n{}", speaker.log_tail(20));
        });
        let macs = [node_mac(&node), SECOND_MAC];
        let answered = ["eth0", "eth1"].map(|device| answered_on(&client, device));
        assert_eq!(answered, expected, "{spec} {flags:?}");
        for ((capture, mac), expected) in captures.iter().zip(macs).zip(expected) {
            let announced = told(capture, mac);
            // Before they are handed out addresses are asked for everywhere, in both families, at most three times.
            assert!(if expected { announced > 6 } else { announced <= 6 }, "{spec} {flags:?}: {announced} frames");
            assert_eq!(advertised(capture, mac) > 0, expected, "{spec} {flags:?}");
        }
        speaker.terminate(LATE).unwrap();
    }
}

/// Without flags: every interface in a subnet but those that MetalLB excludes, or that its ConfigMap does.
#[test]
fn the_configmap_excludes_interfaces() {
    let Some(mut segment) = Segment::alone("excluded") else { return };
    let host = segment.lab.node("node-a").host().clone();
    let cable = [
        "link add eth1 type veth peer name far1",
        "link set far1 up",
        "link set eth1 up",
        "addr add 192.168.78.11/24 dev eth1",
    ];
    host.ip(&cable).unwrap();
    segment.start_anywhere("node-a", &[]);
    segment.wait_owned(FIRST);
    let speaker = segment.speaker("node-a");
    let uses = |interface: &str| {
        let log = speaker.log();
        let count = |what: &str| log.matches(&format!("{what} the interface interface={interface}")).count();
        count("uses") > count("left")
    };
    // The bridge of the pods has an address and is no place to announce on.
    let are = |expected: [bool; 3]| ["eth0", "eth1", "cni0"].map(uses) == expected;
    let wait = |what: &str, expected| {
        let took =
            wait_until(LATE, what, || are(expected)).unwrap_or_else(|error| panic!("{error}:\n{}", speaker.log()));
        assert!(took < SOON, "{what}, but only after {took:.1?}");
    };
    wait("at first", [true, true, false]);
    let map = |patterns: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: metallb-excludel2, namespace: metallb-system}}\n\
             data:\n  excludel2.yaml: |\n    announcedInterfacesToExclude: {patterns}\n"
        )
    };
    segment.lab.apply("excludel2.yaml", &map("[\"^eth1$\", \"^cni\"]")).unwrap();
    wait("the ConfigMap excludes one", [true, false, false]);
    segment.lab.apply("excludel2.yaml", &map("[\"^eth0$\"]")).unwrap();
    wait("the ConfigMap excludes another one", [false, true, true]);
    segment.lab.delete("excludel2.yaml").unwrap();
    wait("without it the usual ones are excluded", [true, true, false]);
}

fn node_mac(node: &Place) -> [u8; 6] {
    let [a, b, c, d] = node.v4().octets();
    [2, 0, a, b, c, d]
}

/// The kernel's list of multicast groups of a node's `eth0` has that of the address.
fn has_joined(node: &Place) -> bool {
    text(node, "ip", &["maddr", "show", "dev", "eth0"]).contains("ff02::1:ff00:200")
}

#[test]
fn a_lost_cable_is_noticed_at_once_and_its_return_is_a_new_beginning() {
    let Some(mut segment) = Segment::alone("flap") else { return };
    segment.start_all();
    let (node, client) = (segment.lab.node("node-a"), segment.lab.client().clone());
    let (host, speaker) = (node.host().clone(), segment.speaker("node-a"));
    assert!(has_joined(&host));
    for round in 1..=3 {
        segment.lab.cut(node).unwrap();
        let left = || speaker.log().matches("left the interface").count() == round;
        let took = wait_until(LATE, "the speaker notices", left).unwrap();
        assert!(took < Duration::from_millis(300), "round {round}: noticed only after {took:.1?}");
        wait_until(LATE, "the group is left with the interface", || !has_joined(&host)).unwrap();
        let capture = client.capture("eth0").unwrap();
        segment.lab.mend(node).unwrap();
        // In each family: told again, and heard by the group.
        let back = || told(&capture, node_mac(&host)) >= 3 && has_joined(&host);
        let took = wait_until(LATE, "the addresses are told again", back).unwrap();
        assert!(took < SOON, "round {round}: only after {took:.1?}");
        segment.wait_owned(FIRST);
    }
}

#[test]
fn an_interface_that_was_replaced_or_renumbered_is_announced_on_again() {
    let Some(mut segment) = Segment::alone("replaced") else { return };
    segment.start_all();
    let (node, client) = (segment.lab.node("node-a"), segment.lab.client().clone());
    let host = node.host().clone();
    segment.lab.replace_cable(node).unwrap();
    segment.wait_owned(FIRST);
    wait_until(LATE, "the group is joined on the new interface", || has_joined(&host)).unwrap();
    client.ip(&["neigh flush dev eth0"]).unwrap();
    FIRST.iter().for_each(|ip| assert_eq!(learn(&client, *ip), mac_of(&host)));
    let other = "02:00:00:00:00:77";
    host.ip(&[format!("link set eth0 address {other}")]).unwrap();
    // Nobody asks: the entries change by what the node tells.
    let moved = || FIRST.iter().all(|ip| neighbour(&client, *ip).is_some_and(|(mac, _)| mac == other));
    let took = wait_until(LATE, "the client learns the new hardware address", moved).unwrap();
    assert!(took < SOON, "only after {took:.1?}");
}

#[test]
fn a_port_of_a_bridge_is_left_to_the_bridge() {
    let Some(mut segment) = Segment::alone("bridge") else { return };
    let (host, client) = (segment.lab.node("node-a").host().clone(), segment.lab.client().clone());
    let bridge = "02:00:00:00:00:88";
    host.ip(&[
        &format!("link add br1 address {bridge} type bridge mcast_snooping 0 stp_state 0"),
        "link set eth0 master br1",
        "link set br1 up",
        "addr flush dev eth0",
        "addr add 192.168.77.11/24 dev br1",
        "addr add fd77::11/64 dev br1 nodad",
    ])
    .unwrap();
    segment.start("node-a", &["--interface", "br1"]);
    let speaker = segment.speaker("node-a");
    wait_until(LATE, "both are announced", || speaker.log().matches("announces the address").count() == 2).unwrap();
    assert!(speaker.log().contains("port of a bridge"), "{}", speaker.log_tail(10));
    for ip in FIRST {
        let answers = roadstead_lab::who_has(&client, ip, Duration::from_millis(300)).unwrap();
        let macs: Vec<String> = answers.keys().map(ToString::to_string).collect();
        assert_eq!(macs, [bridge], "{ip}");
    }
}

#[test]
fn an_address_that_the_host_itself_has_is_told_about() {
    let Some(mut segment) = Segment::alone("local") else { return };
    let host = segment.lab.node("node-a").host().clone();
    segment.start_all();
    let speaker = segment.speaker("node-a");
    assert!(!speaker.log().contains("has the address of a Service"));
    host.ip(&[format!("addr add {}/32 dev lo", FIRST[0]), format!("addr add {}/64 dev eth0 nodad", FIRST[1])]).unwrap();
    let warned = || speaker.log().contains("arp_ignore=1") && speaker.log().contains("whoever is elected");
    wait_until(LATE, "both are warned of", warned).unwrap_or_else(|error| panic!("{error}\n{}", speaker.log_tail(9)));
    // On the other interface the kernel does not stand in the way, so the node goes on to answer there.
    segment.wait_owned(FIRST);
    let announced = || speaker.log().matches(": announces the address ip=").count();
    let before = announced();
    host.ip(&[format!("addr del {}/64 dev eth0", FIRST[1])]).unwrap();
    wait_until(LATE, "it is announced again", || announced() > before).unwrap();
}
