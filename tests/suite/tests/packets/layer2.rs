//! Questions for announced addresses: the program and the speaker's own responder get the same frames and must send the
//! same bytes, or both none.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use nix::time::{ClockId, clock_gettime};
use roadstead_dataplane::{
    addresses::to_map,
    responder::{Announced, AnnouncedKey, Responder},
};
use roadstead_layer2::{
    responder::{Station, respond},
    wire::{ArpOperation, ArpPacket, Body, Frame, Mac, NeighborSolicitation, solicited_node},
};

use super::{bench::Bench, fuzz::Random};

const REDIRECT: i32 = 7;
const LOOPBACK: u32 = 1;
const OURS: Mac = Mac([2, 0, 0, 0, 0, 1]);
const ASKER: Mac = Mac([2, 0, 0, 0, 0, 9]);
const OTHER: Mac = Mac([2, 0, 0, 0, 0, 7]);
const VIP: &str = "203.0.113.77";
const VIP_6: &str = "2001:db8:77::1:2345";

/// Mutated frames; `ROADSTEAD_FUZZ_FRAMES` asks for another number.
const FRAMES: u64 = 300_000;
/// The first state of the generator; `ROADSTEAD_FUZZ_SEED` asks for another.
const SEED: u64 = 0x5eed_0000_0000_0002;

/// Both responders, told of the same addresses.
struct Both {
    bench: Bench,
    responder: Responder,
    station: Station,
    announced: BTreeSet<IpAddr>,
}

impl Both {
    fn open(link_local: Option<&str>) -> Option<Self> {
        let bench = Bench::open()?;
        let responder = bench.responder();
        let station = Station { mac: OURS, link_local: link_local.map(|ip| ip.parse().unwrap()) };
        let announced = [VIP, VIP_6].map(|ip| ip.parse().unwrap()).into();
        let mut both = Self { bench, responder, station, announced };
        both.lease(LOOPBACK, u64::MAX);
        Some(both)
    }

    fn key(&self, ip: &str, ifindex: u32) -> AnnouncedKey {
        AnnouncedKey { addr: to_map(ip.parse().unwrap()), ifindex }
    }

    fn lease(&mut self, ifindex: u32, lease_until: u64) {
        let link_local = self.station.link_local.map_or_else(Default::default, |ip| to_map(ip.into()));
        let entry = Announced { lease_until, mac: OURS.0, link_local, ..Announced::default() };
        let wanted: BTreeMap<_, _> = [VIP, VIP_6].map(|ip| (self.key(ip, ifindex), entry)).into();
        self.responder.follow(&wanted).unwrap();
    }

    /// What the program sends.
    fn in_kernel(&self, frame: &[u8]) -> Option<Vec<u8>> {
        // The kernel itself refuses to make a packet of some bytes: nothing comes of them either.
        let ran = self.bench.programs.run("uplink_in", frame).ok()?;
        if ran.verdict == REDIRECT { Some(ran.packet) } else { None }
    }

    /// Compares; whether there was an answer.
    fn compare(&self, frame: &[u8], label: &str) -> bool {
        let expected = respond(&self.station, &self.announced, frame).map(|reply| reply.frame.encode());
        let got = self.in_kernel(frame);
        assert_eq!(got.as_ref(), expected.as_ref().ok(), "{label}: {expected:02x?}\nquestion {frame:02x?}");
        got.is_some()
    }

    fn answers(&self, ip: &str) -> u64 {
        self.responder.answers(&self.key(ip, LOOPBACK)).unwrap().answers
    }
}

fn arp(destination: Mac, operation: ArpOperation, sender_ip: &str, target_ip: &str) -> Vec<u8> {
    let (sender_ip, target_ip) = (sender_ip.parse().unwrap(), target_ip.parse().unwrap());
    let packet = ArpPacket { operation, sender_mac: ASKER, sender_ip, target_mac: Mac([0; 6]), target_ip };
    Frame { destination, source: ASKER, body: Body::Arp(packet) }.encode()
}

fn solicitation(ethernet: Mac, source: &str, destination: Ipv6Addr, target: &str, source_mac: Option<Mac>) -> Vec<u8> {
    let (source, target) = (source.parse().unwrap(), target.parse().unwrap());
    let body = Body::Solicitation(NeighborSolicitation { source, destination, target, source_mac });
    Frame { destination: ethernet, source: ASKER, body }.encode()
}

/// The message with these options more, its length and checksum right.
fn with_options(frame: &[u8], options: &[u8]) -> Vec<u8> {
    let mut frame = [frame, options].concat();
    repair(&mut frame);
    frame
}

/// Sets the payload length of an IPv6 frame to what it is, and the checksum of the ICMPv6 message right.
fn repair(frame: &mut [u8]) {
    let Some(length) = frame.len().checked_sub(54).and_then(|length| u16::try_from(length).ok()) else { return };
    if length < 4 {
        return;
    }
    frame[18..20].copy_from_slice(&length.to_be_bytes());
    frame[56..58].fill(0);
    let words = frame[22..].chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])));
    let mut sum = words.sum::<u32>() + u32::from(length) + 58;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    frame[56..58].copy_from_slice(&(!u16::try_from(sum).unwrap()).to_be_bytes());
}

/// Questions of every kind, with whether they are answered.
fn questions() -> Vec<(&'static str, Vec<u8>, bool)> {
    use ArpOperation::{Reply, Request};
    let group = solicited_node(VIP_6.parse().unwrap());
    let [.., a, b, c, d] = group.octets();
    let to_group = Mac([0x33, 0x33, a, b, c, d]);
    let ask = |ethernet, source, option| solicitation(ethernet, source, group, VIP_6, option);
    let unicast: Ipv6Addr = VIP_6.parse().unwrap();
    let multicast = ask(to_group, "fe80::9", Some(ASKER));
    let bare = ask(to_group, "fe80::9", None);
    let nonce = [14, 1, 1, 2, 3, 4, 5, 6];
    let changed = |frame: &[u8], at: usize, value: u8| {
        let mut frame = frame.to_vec();
        frame[at] = value;
        frame
    };
    let repaired = |frame: &[u8], at: usize, value: u8| {
        let mut frame = changed(frame, at, value);
        repair(&mut frame);
        frame
    };
    let broadcast = arp(Mac::BROADCAST, Request, "203.0.113.9", VIP);
    let longest = [[200, 60, 0, 0, 0, 0, 0, 0].to_vec(), vec![0; 472]].concat();
    vec![
        ("ARP, broadcast", broadcast.clone(), true),
        ("ARP, padded to 60 bytes", [broadcast.as_slice(), &[0; 18]].concat(), true),
        ("ARP, unicast", arp(OURS, Request, "203.0.113.9", VIP), true),
        ("ARP probe", arp(Mac::BROADCAST, Request, "0.0.0.0", VIP), true),
        ("a rival's announcement", arp(Mac::BROADCAST, Request, VIP, VIP), true),
        ("ARP to another station", arp(OTHER, Request, "203.0.113.9", VIP), false),
        ("ARP reply", arp(Mac::BROADCAST, Reply, "203.0.113.9", VIP), false),
        ("ARP for another address", arp(Mac::BROADCAST, Request, "203.0.113.9", "203.0.113.78"), false),
        ("ARP of a group", changed(&broadcast, 22, 3), false),
        ("ARP cut short", broadcast[..41].to_vec(), false),
        ("ARP of another hardware", changed(&broadcast, 15, 6), false),
        ("NDP, multicast", multicast.clone(), true),
        ("NDP, another hardware address in the option", ask(to_group, "fe80::9", Some(OTHER)), true),
        ("NDP, no option", bare.clone(), true),
        ("NDP, unicast", solicitation(OURS, "2001:db8:77::9", unicast, VIP_6, None), true),
        ("NDP, unicast with option", solicitation(OURS, "2001:db8:77::9", unicast, VIP_6, Some(ASKER)), true),
        ("duplicate address detection", ask(to_group, "::", None), true),
        ("duplicate address detection with a nonce (RFC 7527)", with_options(&ask(to_group, "::", None), &nonce), true),
        ("duplicate address detection with a hardware address", ask(to_group, "::", Some(ASKER)), false),
        ("duplicate address detection, not to the group", solicitation(OURS, "::", unicast, VIP_6, None), false),
        ("NDP, an option after another", with_options(&bare, &[nonce, [1, 1, 2, 0, 0, 0, 0, 7]].concat()), true),
        ("NDP, two hardware addresses", with_options(&multicast, &[1, 1, 2, 0, 0, 0, 0, 7]), true),
        ("NDP, padded", [multicast.as_slice(), &[0; 9]].concat(), true),
        ("NDP, the longest options", with_options(&bare, &longest), true),
        ("NDP, an option of no length", with_options(&bare, &[14, 0, 0, 0, 0, 0, 0, 0]), false),
        ("NDP, an option beyond the end", with_options(&bare, &[14, 2, 0, 0, 0, 0, 0, 0]), false),
        ("NDP, half an option", with_options(&bare, &[14, 1, 0, 0]), false),
        ("NDP of a group", ask(to_group, "fe80::9", Some(Mac([3, 0, 0, 0, 0, 1]))), false),
        ("NDP to another station", ask(OTHER, "fe80::9", Some(ASKER)), false),
        ("NDP from a group", repaired(&multicast, 22, 0xff), false),
        ("NDP, hop limit 254", changed(&multicast, 21, 254), false),
        ("NDP, wrong checksum", changed(&multicast, 57, multicast[57] ^ 1), false),
        ("NDP, code 1", repaired(&multicast, 55, 1), false),
        ("NDP for a group", solicitation(to_group, "fe80::9", group, "ff02::1", Some(ASKER)), false),
        ("NDP for another address", solicitation(to_group, "fe80::9", group, "2001:db8:77::2:2345", None), false),
        ("NDP cut short", multicast[..85].to_vec(), false),
        ("an advertisement", repaired(&multicast, 54, 136), false),
    ]
}

#[test]
fn both_responders_answer_the_same_questions_with_the_same_bytes() {
    for link_local in [Some("fe80::1"), None] {
        let Some(both) = Both::open(link_local) else { return };
        let mut answered = 0;
        for (what, frame, expected) in questions() {
            assert_eq!(both.compare(&frame, what), expected, "{what}");
            answered += u64::from(expected);
        }
        assert!(answered > 10);
        assert_eq!(both.answers(VIP) + both.answers(VIP_6), answered, "every answer is counted");
    }
}

#[test]
fn mutated_questions_get_the_same_answer_of_both_or_none() {
    let Some(both) = Both::open(Some("fe80::1")) else { return };
    let asked = |name: &str, default| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (frames, seed) = (asked("ROADSTEAD_FUZZ_FRAMES", FRAMES), asked("ROADSTEAD_FUZZ_SEED", SEED));
    let (mut random, mut answered) = (Random(seed), 0_u64);
    let seeds: Vec<_> = questions().into_iter().map(|(_, frame, _)| frame).collect();
    println!("seed {seed:#x}, {frames} frames from {} questions", seeds.len());
    for number in 0..frames {
        let mut frame = random.mutate(&seeds);
        // A wrong checksum alone would hide what else the program thinks of a message.
        if random.below(4) > 0 && frame.get(12..14) == Some(&[0x86, 0xdd]) {
            repair(&mut frame);
        }
        answered += u64::from(both.compare(&frame, &format!("frame {number}")));
    }
    println!("{answered} answered");
    assert!(answered > frames / 20 && answered < frames, "{answered} of {frames}");
}

#[test]
fn the_program_is_silent_after_the_lease_and_on_other_interfaces() {
    let Some(mut both) = Both::open(Some("fe80::1")) else { return };
    let now = || Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap());
    let ns = |time: Duration| u64::try_from(time.as_nanos()).unwrap();
    let asked: Vec<_> = questions().into_iter().filter(|(.., answered)| *answered).map(|(_, frame, _)| frame).collect();
    let answered = |both: &Both| asked.iter().filter(|frame| both.in_kernel(frame).is_some()).count();
    assert_eq!(answered(&both), asked.len());
    both.lease(LOOPBACK + 1, u64::MAX);
    assert_eq!(answered(&both), 0, "another interface");
    both.lease(LOOPBACK, 0);
    assert_eq!(answered(&both), 0, "no lease");
    let until = now() + Duration::from_millis(300);
    both.lease(LOOPBACK, ns(until));
    let mut heard = 0;
    while now() < until + Duration::from_millis(100) {
        let (before, answer) = (now(), both.in_kernel(&asked[0]).is_some());
        assert!(!answer || before < until, "answered {:?} after the end", before - until);
        assert!(answer || now() >= until, "silent {:?} before the end", until - now());
        heard += u64::from(answer);
    }
    assert!(heard > 0);
    both.responder.follow(&BTreeMap::new()).unwrap();
    assert!(both.bench.responder().written().is_empty(), "nothing is left");
}

#[test]
fn what_an_earlier_speaker_wrote_is_found_and_changed_by_the_difference() {
    let Some(both) = Both::open(None) else { return };
    let mut later = both.bench.responder();
    assert_eq!(later.written(), both.responder.written());
    let left = both.key(VIP, LOOPBACK);
    let entry = Announced { lease_until: u64::MAX, mac: OURS.0, ..Announced::default() };
    let count = later.answers(&left).unwrap().answers;
    assert!(both.in_kernel(&arp(Mac::BROADCAST, ArpOperation::Request, "203.0.113.9", VIP)).is_some());
    later.follow(&[(left, entry)].into()).unwrap();
    assert_eq!(both.bench.responder().written().len(), 1);
    assert_eq!(later.answers(&left).unwrap().answers, count + 1, "a renewal keeps the count");
}
