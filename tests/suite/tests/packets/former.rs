//! Segments of connections that the node does not know go to the node that announced the address before, and never back
//! to where they came from.

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
    thread,
};

use nix::{
    net::if_::if_nametoindex,
    sched::{CloneFlags, unshare},
};
use roadstead_abi::DropReason;
use roadstead_dataplane::{
    addresses::to_map,
    responder::{Announced, AnnouncedKey},
};

use super::{
    bench::Bench,
    frames::{Frame, Transport},
};

const NEXT: i32 = -1;
const DROP: i32 = 2;
const REDIRECT: i32 = 7;
const OURS: [u8; 6] = [2, 0, 0, 0, 0, 1];
const FORMER: [u8; 6] = [2, 0, 0, 0, 0, 12];
const CLIENT: [u8; 6] = [2, 0, 0, 0, 0, 9];

/// An uplink with the former owner as a neighbour, one whose hardware address nobody knows, and a router.
const DEVICES: &str = "\
link set lo up
link add up0 address 02:00:00:00:00:01 type veth peer name up1
link set up0 up
link set up1 up
addr add 192.0.2.1/24 dev up0
addr add 2001:db8::1/64 dev up0 nodad
neigh add 192.0.2.12 lladdr 02:00:00:00:00:0c dev up0
neigh add 2001:db8::12 lladdr 02:00:00:00:00:0c dev up0
neigh add 192.0.2.254 lladdr 02:00:00:00:00:fe dev up0
route add 10.7.0.0/16 via 192.0.2.254
";

/// Client and Service of each family, with an address of the former owner, of this family or the other.
const PLACES: [[&str; 3]; 3] = [
    ["192.0.2.9", "198.51.100.10", "192.0.2.12"],
    ["2001:db8::9", "2001:db8:ff::10", "2001:db8::12"],
    ["2001:db8::9", "2001:db8:ff::10", "192.0.2.12"],
];

#[test]
fn segments_without_a_flow_here_go_to_the_former_owner() {
    if nix::unistd::Uid::effective().is_root() {
        // The thread that enters a namespace ends with the test.
        thread::spawn(hand_on).join().unwrap();
    } else {
        eprintln!("skipped: loading BPF programs needs root");
    }
}

/// The frame to the uplink, from a station.
fn from(station: [u8; 6], frame: &Frame) -> Vec<u8> {
    let mut bytes = frame.bytes();
    bytes[..6].copy_from_slice(&OURS);
    bytes[6..12].copy_from_slice(&station);
    bytes
}

/// The frame as the former owner gets it: other stations, one hop less.
fn handed_on(sent: &[u8]) -> Vec<u8> {
    let mut bytes = [&FORMER[..], &OURS, &sent[12..]].concat();
    if sent[12..14] == [0x86, 0xdd] {
        bytes[21] -= 1;
        return bytes;
    }
    bytes[22] -= 1;
    bytes[24..26].fill(0);
    let mut sum: u32 = bytes[14..34].chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    sum = (sum & 0xffff) + (sum >> 16);
    bytes[24..26].copy_from_slice(&(!u16::try_from(sum).unwrap()).to_be_bytes());
    bytes
}

fn hand_on() {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    ip(DEVICES);
    for name in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        std::fs::write(Path::new("/proc/sys/net").join(name), "1").unwrap();
    }
    let uplink = if_nametoindex("up0").unwrap();
    let Some(mut bench) = Bench::open() else { return };
    bench.add_uplink(uplink);
    let mut responder = bench.responder();
    for (number, [client, vip, former]) in (0_u16..).zip(PLACES) {
        let label = format!("{vip}, from {former}");
        let key = AnnouncedKey { addr: to_map(vip.parse().unwrap()), ifindex: uplink };
        let entry = |former: &str, former_until| Announced {
            lease_until: u64::MAX,
            former: to_map(former.parse().unwrap()),
            former_until,
            mac: OURS,
            ..Announced::default()
        };
        let port = 41_000 + number * 100;
        let frame = |port, transport| Frame::new(client, vip, port, 80, transport);
        let run = |bench: &Bench, frame: &[u8]| bench.programs.run_on("uplink_in", frame, uplink).unwrap();
        responder.put(key, &entry(former, u64::MAX)).unwrap();
        let before = responder.answers(&key).unwrap().handed_on;
        for transport in [Transport::TcpAck, Transport::TcpRst, Transport::TcpSynAck] {
            let sent = from(CLIENT, &frame(port, transport));
            let ran = run(&bench, &sent);
            assert_eq!(ran.verdict, REDIRECT, "{label}: {transport:?}");
            assert_eq!(ran.packet, handed_on(&sent), "{label}: {transport:?}");
        }
        let error = Frame::new(vip, client, 80, port, Transport::Tcp).too_big(client, vip);
        let error = [&OURS[..], &CLIENT, &error[12..]].concat();
        assert_eq!(run(&bench, &error).packet, handed_on(&error), "{label}: an ICMP error about a connection");
        assert_eq!(responder.answers(&key).unwrap().handed_on, before + 4, "{label}");
        assert!(bench.conntrack_entries() == usize::from(number) * 10, "{label}: no flow begins");

        let mut last_hop = from(CLIENT, &frame(port, Transport::TcpAck));
        last_hop[if client.contains(':') { 21 } else { 22 }] = 1;
        let drops = bench.drops();
        assert_eq!(run(&bench, &last_hop).verdict, DROP, "{label}: the last hop");
        assert_eq!(bench.drops_since(&drops), [DropReason::HopLimit], "{label}");

        // What follows is as if there were no former owner: the node takes the flow. Each takes two entries.
        let taken = |bench: &Bench, station, port, transport, what: &str| {
            let ran = run(bench, &from(station, &frame(port, transport)));
            assert_eq!(ran.verdict, NEXT, "{label}: {what}");
            let seen = Frame::parse(&ran.packet);
            assert_eq!(seen.dport, 8_080, "{label}: {what}");
        };
        taken(&bench, FORMER, port + 1, Transport::TcpAck, "it came from there");
        taken(&bench, CLIENT, port + 2, Transport::Tcp, "a new connection");
        taken(&bench, CLIENT, port + 2, Transport::TcpAck, "a connection of this node");
        responder.put(key, &entry(former, 1)).unwrap();
        taken(&bench, CLIENT, port + 3, Transport::TcpAck, "too late");
        let unknown = if former.contains(':') { "2001:db8::13" } else { "192.0.2.13" };
        responder.put(key, &entry(unknown, u64::MAX)).unwrap();
        taken(&bench, CLIENT, port + 4, Transport::TcpAck, "nobody knows its hardware address");
        responder.put(key, &entry("10.7.0.1", u64::MAX)).unwrap();
        taken(&bench, CLIENT, port + 5, Transport::TcpAck, "it is no neighbour");
        assert_eq!(responder.answers(&key).unwrap().handed_on, before + 4, "{label}");
    }
}

fn ip(batch: &str) {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let mut child = Command::new("ip").env("PATH", path).args(["-batch", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(batch.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}
