//! Hostile neighbours: invented, changed and replayed ARP and NDP frames, floods, and traffic that is nobody's question.
//! Nothing of it moves an address, silences its owner or makes it talk.
//!
//! What the nodes' kernels believe of each other's own addresses is left alone: whoever poisons that cuts the speakers off
//! from each other, as any two hosts.

use std::{collections::BTreeSet, net::UdpSocket, time::Instant};

use roadstead_lab::{Capture, Mac, Place, wait_for, wait_until};

use super::fixture::LATE;
use super::segment::{FIRST, Segment};

/// xorshift64*, so that a run can be told by its seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 16) as usize % bound
    }
}

/// How often the speakers have seen a change of members.
fn changes(segment: &Segment) -> usize {
    ["node-a", "node-b"].iter().map(|node| segment.speaker(node).log().matches("members changed").count()).sum()
}

/// Whether a frame claims a node's own address, or asks for it.
fn is_of_nodes(frame: &[u8]) -> bool {
    let is = |at: usize, ip: &[u8]| frame.get(at..at + ip.len()) == Some(ip);
    let v4 = [11, 12].map(|last| [192, 168, 77, last]);
    let v6 = [0x11, 0x12].map(|last| std::net::Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, last).octets());
    v4.iter().any(|ip| is(28, ip) || is(38, ip)) || v6.iter().any(|ip| is(22, ip) || is(62, ip))
}

/// Frames as a neighbour may invent them: real ones with other bytes, from hardware addresses that nobody has.
fn invented(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut frame = seeds[random.below(seeds.len())].clone();
    for _ in 0..random.below(5) {
        let at = 12 + random.below(frame.len() - 12);
        frame[at] = match random.below(3) {
            0 => frame[at] ^ (1 << random.below(8)),
            1 => random.next() as u8,
            _ => [0, 1, 2, 0xff][random.below(4)],
        };
    }
    // The switch must not learn that a node's address is here: that would be an attack on it, not on the speaker.
    let last = random.next().to_be_bytes();
    frame[6..12].copy_from_slice(&[2, 0xbb, last[0], last[1], last[2], last[3]]);
    if random.below(8) == 0 {
        let length = 14 + random.below(frame.len() - 14);
        frame.truncate(length);
    }
    frame
}

/// A machine that stands still for 160 ms makes a peer look dead too; frames that do would do it every time.
#[test]
fn invented_and_replayed_frames_change_nothing() {
    let seed = 20_261_126;
    println!("seed {seed}");
    assert!((0..3).any(|_| change_nothing(seed)), "three times of three a speaker held another for dead");
}

/// False where a speaker held another for dead meanwhile.
fn change_nothing(seed: u64) -> bool {
    let Some(mut segment) = Segment::new("invented") else { return true };
    let client = segment.lab.client().clone();
    let capture = client.capture("eth0").unwrap();
    for node in ["node-a", "node-b"] {
        segment.start(node, &["--announce-interval", "0", "--realtime-priority", "10"]);
    }
    segment.wait_owned(FIRST);
    let owners = FIRST.map(|ip| segment.wait_owner(ip));
    let of = |name: &str, at: usize| format!("{name}{{ip=\"{}\"}}", FIRST[at]);
    let sent =
        |segment: &Segment| [0, 1].map(|at| segment.counter(&owners[at], &of("metallb_layer2_gratuitous_sent", at)));
    segment.wait_quiet();
    let [arp_before, ndp_before] = sent(&segment);
    // All that ARP and NDP have said so far, the nodes' own frames among it.
    let heard: BTreeSet<Vec<u8>> = capture.frames().into_iter().map(|frame| frame.bytes).collect();
    let seeds: Vec<Vec<u8>> = heard
        .into_iter()
        .filter(|bytes| {
            !is_of_nodes(bytes)
                && bytes.len() > 40
                && (bytes[12..14] == [8, 6] || bytes[12..14] == [0x86, 0xdd] && bytes[20] == 58)
        })
        .collect();
    assert!(seeds.len() > 6, "{}", seeds.len());
    let (before, mut random) = (changes(&segment), Random(seed));
    let frames = (0..9_000).map(|_| invented(&seeds, &mut random)).filter(|frame| !is_of_nodes(frame));
    let frames: Vec<Vec<u8>> = frames.collect();
    client.inject("eth0", &frames, 3).unwrap();
    // Each of the real ones once more, from where it does not come from.
    client.inject("eth0", &seeds, 1).unwrap();
    for (ip, owner) in FIRST.into_iter().zip(&owners) {
        let same = || segment.owner(ip).as_ref() == Some(owner);
        wait_until(LATE, &format!("{owner} alone answers for {ip}"), same).unwrap();
    }
    if changes(&segment) != before {
        return false;
    }
    // Two frames or one, once in ten seconds for each address, however many claim it: all of it took four or so.
    let [arp, ndp] = sent(&segment);
    let (arp, ndp) = (arp - arp_before, ndp - ndp_before);
    // Of changed advertisements few have a right checksum, so there may be no claim in NDP.
    assert!((2..=4).contains(&arp) && ndp <= 2, "{arp} {ndp}");
    for owner in &owners {
        let log = segment.speaker(owner).log();
        let told = log.matches("which this node announces").count();
        assert!((1..=16).contains(&told), "eight rivals of each address are told apart, not {told}");
        assert!(log.lines().count() < 60, "{}", log.lines().count());
    }
    true
}

/// Heartbeats of a node, as its own `eth0` sends them, until the end of the flood has come to it.
fn heartbeats(capture: &Capture, node: &Place) -> Option<usize> {
    let (mac, mut frames) = (Mac::of(node.v4()).0, capture.frames());
    let is_last = |bytes: &[u8]| bytes.get(6..8) == Some(&[2, 0xcc]) && bytes.get(8..12) >= Some(&LAST.to_be_bytes());
    frames.truncate(frames.iter().position(|frame| is_last(&frame.bytes))?);
    let is_one = |bytes: &[u8]| {
        bytes.get(6..12) == Some(&mac)
            && bytes.get(23) == Some(&17)
            && bytes.get(36..38) == Some(&7946_u16.to_be_bytes())
    };
    Some(frames.iter().filter(|frame| is_one(&frame.bytes)).count())
}

/// Frames of the flood, and the number of one near its end.
const FLOOD: u32 = 20_000;
const LAST: u32 = FLOOD - 100;

#[test]
fn a_flood_of_questions_and_claims_delays_no_heartbeat() {
    let Some(mut segment) = Segment::new("flood") else { return };
    // Before all ordinary work: this is about what a flood does to a speaker, not what it does to two processors.
    for node in ["node-a", "node-b"] {
        segment.start(node, &["--realtime-priority", "10"]);
    }
    segment.wait_owned(FIRST);
    let client = segment.lab.client().clone();
    let question = |number: u32, operation: u8| {
        let [a, b, c, d] = number.to_be_bytes();
        let head = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0xcc, a, b, c, d, 8, 6, 0, 1, 8, 0, 6, 4, 0, operation];
        // From a host beyond all that is used here, for an address that nobody announces.
        let rest = [2, 0xcc, a, b, c, d, 192, 168, 76, d, 0, 0, 0, 0, 0, 0, 192, 168, 77, 250];
        [head.as_slice(), &rest].concat()
    };
    // Some ten thousand a second: a broadcast storm, and less than what starves two processors.
    let frames: Vec<Vec<u8>> = (0..FLOOD).map(|number| question(number, 1 + u8::from(number % 2 == 1))).collect();
    let frame_count = "roadstead_speaker_frames_received_total";
    let node = segment.lab.node("node-a").host().clone();
    let (heard, capture, began) =
        (segment.counter("node-a", frame_count), node.capture("eth0").unwrap(), Instant::now());
    client.inject("eth0", &frames, 10).unwrap();
    let took = began.elapsed();
    assert!(segment.counter("node-a", frame_count) > heard + 1_000, "the flood reached the speaker");
    // One every 40 ms, to one peer. Each that is late makes all after it late, so what is missing was time lost.
    let due = usize::try_from(took.as_millis() / 40).unwrap();
    let sent = wait_for(LATE, "the end of the flood was captured", || heartbeats(&capture, &node)).unwrap();
    assert!(sent >= due * 8 / 10, "{sent} heartbeats in {took:?}");
    segment.wait_owned(FIRST);
}

#[test]
fn frames_that_are_no_speakers_business_stay_in_the_kernel() {
    let Some(mut segment) = Segment::alone("filter") else { return };
    segment.start_all();
    let (client, node) = (segment.lab.client().clone(), segment.lab.node("node-a").host().clone());
    let count = || segment.counter("node-a", "roadstead_speaker_frames_received_total");
    let before = count();
    for ip in [node.v4().into(), node.v6().into(), FIRST[0], FIRST[1]] {
        let sent = client.run(|| {
            let socket = UdpSocket::bind(if std::net::IpAddr::is_ipv4(&ip) { "0.0.0.0:0" } else { "[::]:0" })?;
            // Where nobody listens, the kernel says so now and then.
            Ok::<_, std::io::Error>((0..500).filter(|_| socket.send_to(b"not yours", (ip, 7)).is_ok()).count())
        });
        assert!(sent.unwrap().unwrap() > 100);
    }
    // A question after them has been heard, so all of them have been there.
    let ip = FIRST[0];
    wait_for(LATE, "the speaker answers", || segment.owner(ip)).unwrap();
    let heard = count() - before;
    assert!(heard < 60, "{heard} frames for 2,000 datagrams");
    assert!(heard > 0);
}
