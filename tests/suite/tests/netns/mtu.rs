//! Packets that are too large for a link on their way: errors find back through the translation to who must send less,
//! and fragments find their flow.
//!
//! A client is two routers away from the segment, with a link of 1,280 bytes between the routers, so that neither its
//! MSS nor the backend's tells (RFC 1191, RFC 8201).

use std::{
    net::{IpAddr, SocketAddr},
    process::Command,
};

use roadstead_lab::{Capture, Frame, Place, Probe, wait_until};

use super::{
    expect::{protocol_and_destination, source},
    fixture::{LATE, ips},
    services::{Service, Via},
    stage::{From, Path, Stage},
    transfer::{body, echoed},
};

const MTU: u16 = 1280;
/// What every other link carries.
const USUAL: usize = 1500;
/// More than two packets, as a datagram.
const DATAGRAM: usize = 4000;
const ICMP: [u8; 2] = [1, 58];

/// Two Services of one endpoint each, one near, one far.
fn services(stage: &Stage) -> [(Service, &'static str); 2] {
    [("near", 41, "l"), ("far", 42, "r")]
        .map(|(name, number, endpoint)| (Service::new(name, number).endpoints(stage.ready(&[endpoint])), endpoint))
}

#[test]
fn a_client_behind_a_narrow_link_gets_a_megabyte() {
    let Some(mut stage) = Stage::new("narrow", &["l"], &["r"]) else { return };
    let far = stage.lab.add_far(MTU).unwrap();
    for (network, via) in [("198.51.100.0/24", ips(stage.node())[0]), ("fd51::/64", ips(stage.node())[1])] {
        far.router.ip(&[format!("route add {network} via {via}")]).unwrap();
    }
    let services = services(&stage);
    services.iter().for_each(|(service, _)| stage.serve(service));
    stage.start(&Path::Socket.flags());
    let body = body();
    for (service, endpoint) in &services {
        let pod = stage.server(endpoint);
        for (via, family) in [Via::NodePort, Via::Balancer].into_iter().flat_map(|via| [(via, 0), (via, 1)]) {
            let to = service.tcp(via, stage.node(), family);
            // What an end learns about the way is kept by destination, and tells itself in the next MSS.
            forget(&stage, &[pod, &far.client]);
            let (wire, client_wire) = (pod.capture("eth0").unwrap(), far.client.capture("eth0").unwrap());
            assert!(echoed(&far.client, to, body.as_bytes()) == body.as_bytes(), "{to} echoes something else");
            let too_big = wire
                .wait_for(LATE, "the backend hears of the narrow link", |frame| is_too_big(frame, ips(pod)[family]))
                .unwrap_or_else(|error| panic!("{to}: {error}"));
            assert_eq!(next_hop_mtu(&too_big), Some(MTU), "{to}");
            // Both ways: the client's own router tells the client about the address that it knows.
            client_wire
                .wait_for(LATE, "the client hears of the narrow link", |frame| is_too_big(frame, to.ip()))
                .unwrap_or_else(|error| panic!("{to}: {error}"));
            assert_answers_by(&client_wire, to);
        }
    }
}

/// The narrow link is behind the node: the error that a router of the cluster tells about a translated packet must reach
/// the client as one about its own.
#[test]
fn a_client_hears_of_a_narrow_link_behind_the_node() {
    let Some(mut stage) = Stage::new("narrow-pods", &["l"], &["r"]) else { return };
    let services = services(&stage);
    services.iter().for_each(|(service, _)| stage.serve(service));
    for (name, node) in [("l", stage.lab.node("node-a")), ("r", stage.lab.node("node-b"))] {
        let routes = ips(stage.server(name)).map(|ip| format!("route add {ip} dev cni0 mtu {MTU}"));
        node.host().ip(&routes).unwrap();
    }
    stage.start(&Path::Socket.flags());
    let (client, body) = (stage.lab.client(), body());
    for (service, _) in &services {
        for (via, family) in [Via::NodePort, Via::Balancer].into_iter().flat_map(|via| [(via, 0), (via, 1)]) {
            let to = service.tcp(via, stage.node(), family);
            forget(&stage, &[client]);
            let wire = client.capture("eth0").unwrap();
            assert!(echoed(client, to, body.as_bytes()) == body.as_bytes(), "{to} echoes something else");
            let too_big = wire
                .wait_for(LATE, "the client hears of the narrow link", |frame| is_too_big(frame, to.ip()))
                .unwrap_or_else(|error| panic!("{to}: {error}"));
            assert_eq!(next_hop_mtu(&too_big), Some(MTU), "{to}");
            assert_answers_by(&wire, to);
        }
    }
}

#[test]
fn fragments_find_their_flow_both_ways() {
    let Some(mut stage) = Stage::new("fragments", &["l"], &["r"]) else { return };
    let services = services(&stage);
    services.iter().for_each(|(service, _)| stage.serve(service));
    for path in Path::BOTH {
        stage.start_afresh(&path.flags());
        for (service, endpoint) in &services {
            // IPv6 is still to come (reference 1: a later stage).
            for via in [Via::NodePort, Via::Balancer] {
                let to = service.udp(via, stage.node(), 0);
                [From::External, From::Pod]
                    .iter()
                    .for_each(|from| assert_large_answer(stage.place(*from), to, endpoint));
            }
        }
    }
}

/// Five datagrams of several fragments each, there and back.
fn assert_large_answer(place: &Place, to: SocketAddr, endpoint: &str) {
    let payload: String = body().chars().take(DATAGRAM).collect();
    let wire = place.capture("eth0").unwrap();
    for answer in place.probe(&Probe::udp(to).payload(&payload).count(5)).unwrap() {
        assert_eq!((answer.name(), answer.error.as_deref()), (Some(endpoint), None), "{} to {to}", place.name());
        assert!(answer.answer.get("payload").and_then(|told| told.as_str()) == Some(&payload), "{to}: another payload");
    }
    let fragments = || wire.frames().into_iter().filter(|frame| is_fragment(&frame.bytes)).count();
    let all = || fragments() >= 5 * 2 * 3;
    wait_until(LATE, "three fragments each way", all).unwrap_or_else(|error| panic!("{to}: {error}: {}", fragments()));
}

fn is_fragment(frame: &[u8]) -> bool {
    const FRAGMENT_HEADER: u8 = 44;
    match frame.get(12..14) {
        // "More fragments", or an offset.
        Some([0x08, 0x00]) => frame.get(20..22).is_some_and(|word| word[0] & 0x3f != 0 || word[1] != 0),
        Some([0x86, 0xdd]) => frame.get(20) == Some(&FRAGMENT_HEADER),
        _ => false,
    }
}

/// An ICMP error "too big" (RFC 792 3/4, RFC 4443 2/0), to a place about a packet that it sent: the inner source is the
/// outer destination, and the inner packet is between this address and another.
fn is_too_big(frame: &Frame, about: IpAddr) -> bool {
    let judge = || {
        let (protocol, to) = protocol_and_destination(&frame.bytes)?;
        let (head, kind) = if to.is_ipv4() { (20, [3, 4]) } else { (40, [2, 0]) };
        let icmp = frame.bytes.get(14 + head..)?;
        let quoted = [frame.bytes.get(..14)?, icmp.get(8..)?].concat();
        let (inner_from, (_, inner_to)) = (source(&quoted)?, protocol_and_destination(&quoted)?);
        let of_its_own = inner_from == to && [inner_from, inner_to].contains(&about);
        Some(ICMP.contains(&protocol) && icmp.get(..2)? == kind && of_its_own)
    };
    judge().unwrap_or(false)
}

fn next_hop_mtu(too_big: &Frame) -> Option<u16> {
    // Bytes 6 and 7 of the message in ICMP, 4 to 7 in ICMPv6.
    let head = if too_big.bytes.get(12..14)? == [0x08, 0x00] { 20 } else { 40 };
    let at = 14 + head + 6;
    Some(u16::from_be_bytes(too_big.bytes.get(at..at + 2)?.try_into().ok()?))
}

/// Nobody but the address that was asked has sent TCP (reference 6.8, I2), and nothing longer than the links carry.
#[track_caller]
fn assert_answers_by(wire: &Capture, to: SocketAddr) {
    let frames = wire.frames();
    let to_client = frames.iter().filter(|frame| {
        let is_tcp =
            protocol_and_destination(&frame.bytes).is_some_and(|(protocol, ip)| protocol == 6 && ip != to.ip());
        is_tcp && frame.bytes.len() > USUAL / 2
    });
    let senders: std::collections::BTreeSet<_> = to_client.filter_map(|frame| source(&frame.bytes)).collect();
    assert_eq!(senders.into_iter().collect::<Vec<_>>(), [to.ip()], "somebody else spoke to the client");
}

/// Takes away what these places and the nodes have learnt about the ways of packets.
fn forget(stage: &Stage, places: &[&Place]) {
    for place in [stage.node(), stage.lab.node("node-b").host()].iter().chain(places) {
        for family in ["-4", "-6"] {
            let mut flush = Command::new("ip");
            flush.args([family, "-n", place.namespace(), "route", "flush", "cache"]);
            assert!(flush.status().unwrap().success(), "{flush:?}");
        }
    }
}
