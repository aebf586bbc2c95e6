//! Peers' probes: one that is meant for this node's speaker comes back with the age of its stamp, anything else passes.

use std::net::IpAddr;

use etherparse::{NetHeaders, PacketBuilder, PacketHeaders, TransportHeader};
use nix::time::{ClockId, clock_gettime};
use roadstead_abi::{Be16, announced::probe};
use roadstead_dataplane::responder::{PROBES, Responder, Speaker};

use super::bench::Bench;

const NEXT: i32 = -1;
const REDIRECT: i32 = 7;
const PORT: u16 = 7_946;
const AGE: u64 = 1_234;
/// Client and node.
const PLACES: [[&str; 2]; 2] = [["192.0.2.9", "192.0.2.1"], ["2001:db8::9", "2001:db8::1"]];

fn probe() -> Vec<u8> {
    let nonce = *b"sixteen bytes of";
    [&probe::MAGIC[..], &probe::VERSION, &nonce, &[0; 8]].concat()
}

fn datagram(from: &str, to: &str, port: u16, payload: &[u8]) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], [0; 6]);
    let mut bytes = Vec::new();
    let ip = match (from.parse().unwrap(), to.parse().unwrap()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ethernet.ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => ethernet.ipv6(from.octets(), to.octets(), 64),
        _ => panic!("two families"),
    };
    ip.udp(7_000, port).write(&mut bytes, payload).unwrap();
    bytes
}

fn stamp(responder: &mut Responder, port: u16) {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap();
    let now = u64::try_from(std::time::Duration::from(now).as_nanos()).unwrap();
    responder.stamp(Speaker { stamp: now - AGE * 1_000_000, port: Be16::new(port), reserved: [0; 3] }).unwrap();
}

#[test]
fn a_probe_comes_back_with_the_age_of_the_stamp() {
    let Some(bench) = Bench::open() else { return };
    let mut responder = bench.responder();
    stamp(&mut responder, PORT);
    for [client, node] in PLACES {
        let sent = datagram(client, node, PORT, &probe());
        let ran = bench.programs.run("uplink_in", &sent).unwrap();
        assert_eq!((ran.verdict, ran.packet.len()), (REDIRECT, sent.len()), "{node}: one for one, of one size");
        assert_eq!((&ran.packet[..6], &ran.packet[6..12]), (&sent[6..12], &sent[..6]), "{node}");
        let echo = PacketHeaders::from_ethernet_slice(&ran.packet).unwrap();
        let Some(TransportHeader::Udp(udp)) = &echo.transport else { panic!("{echo:?}") };
        assert_eq!((udp.source_port, udp.destination_port), (PORT, 7_000));
        let payload = echo.payload.slice();
        let checksum = match echo.net.as_ref().unwrap() {
            NetHeaders::Ipv4(ip, _) => {
                assert_eq!((IpAddr::from(ip.source), IpAddr::from(ip.destination)), (ip_of(node), ip_of(client)));
                assert_eq!(ip.header_checksum, ip.calc_header_checksum(), "{node}: IPv4 checksum");
                udp.calc_checksum_ipv4(ip, payload).unwrap()
            }
            NetHeaders::Ipv6(ip, _) => {
                assert_eq!((IpAddr::from(ip.source), IpAddr::from(ip.destination)), (ip_of(node), ip_of(client)));
                udp.calc_checksum_ipv6(ip, payload).unwrap()
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(udp.checksum, checksum, "{node}: UDP checksum");
        assert_eq!(&payload[..4], b"RSEC");
        assert_eq!(payload[4..probe::AGE], probe()[4..probe::AGE], "{node}: version and nonce stay");
        let age = u64::from_be_bytes(payload[probe::AGE..].try_into().unwrap());
        assert!((AGE..AGE + 1_000).contains(&age), "{age} ms");
    }
    assert_eq!(responder.answers(&PROBES).unwrap().answers, 2);
}

#[test]
fn a_datagram_without_a_checksum_comes_back_without_one() {
    let Some(bench) = Bench::open() else { return };
    stamp(&mut bench.responder(), PORT);
    let mut sent = datagram("192.0.2.9", "192.0.2.1", PORT, &probe());
    sent[40..42].fill(0);
    let ran = bench.programs.run("uplink_in", &sent).unwrap();
    assert_eq!((ran.verdict, &ran.packet[40..42]), (REDIRECT, [0, 0].as_slice()));
}

#[test]
fn whatever_is_no_probe_for_this_node_passes_untouched() {
    let Some(bench) = Bench::open() else { return };
    let mut responder = bench.responder();
    let changed = |frame: &[u8], at: usize, value: u8| {
        let mut frame = frame.to_vec();
        frame[at] = value;
        frame
    };
    for [client, node] in PLACES {
        let payload = if node.contains(':') { 62 } else { 42 };
        let sent = datagram(client, node, PORT, &probe());
        let elsewhere = if node.contains(':') { "2001:db8:5::5" } else { "203.0.113.5" };
        let mut cases = vec![
            ("another port", datagram(client, node, PORT + 1, &probe())),
            ("another node's address", datagram(client, elsewhere, PORT, &probe())),
            ("an echo", changed(&sent, payload + 2, b'E')),
            ("another version", changed(&sent, payload + 4, 2)),
            ("a byte that is not zero", changed(&sent, payload + 7, 1)),
            ("a byte less", datagram(client, node, PORT, &probe()[..31])),
            ("a byte more", datagram(client, node, PORT, &[probe().as_slice(), &[0]].concat())),
            ("TCP", changed(&sent, if node.contains(':') { 20 } else { 23 }, 6)),
            ("to another station", changed(&sent, 5, 9)),
            ("of a group", changed(&sent, 6, 3)),
        ];
        if node == "192.0.2.1" {
            cases.push(("a fragment", changed(&sent, 20, 0x20)));
            cases.push(("with options", changed(&sent, 14, 0x46)));
        }
        stamp(&mut responder, PORT);
        for (what, frame) in cases {
            let ran = bench.programs.run("uplink_in", &frame).unwrap();
            assert_eq!((ran.verdict, ran.packet == frame), (NEXT, true), "{what} at {node}");
        }
        stamp(&mut responder, 0);
        let ran = bench.programs.run("uplink_in", &sent).unwrap();
        assert_eq!((ran.verdict, ran.packet == sent), (NEXT, true), "a speaker without peers");
    }
    assert_eq!(responder.answers(&PROBES).unwrap().answers, 0);
}

fn ip_of(text: &str) -> IpAddr {
    text.parse().unwrap()
}
