//! Hostile neighbours: invented, changed and replayed ARP and NDP frames, floods, and traffic that is nobody's question.
//! Nothing of it moves an address, silences its owner or makes it talk.
//!
//! What the nodes' kernels believe of each other's own addresses is left alone: whoever poisons that cuts the speakers off
//! from each other, as any two hosts.

use std::{collections::BTreeSet, net::UdpSocket};

use roadstead_lab::{wait_for, wait_until};

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

#[test]
fn invented_and_replayed_frames_change_nothing() {
    let seed = 20_261_126;
    println!("seed {seed}");
    let Some(mut segment) = Segment::new("invented") else { return };
    let client = segment.lab.client().clone();
    let capture = client.capture("eth0").unwrap();
    for node in ["node-a", "node-b"] {
        segment.start(node, &["--announce-interval", "0", "--realtime-priority", "10"]);
    }
    segment.wait_owned(FIRST);
    let owners = FIRST.map(|ip| segment.owner(ip).unwrap());
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
    let frames = (0..20_000).map(|_| invented(&seeds, &mut random)).filter(|frame| !is_of_nodes(frame));
    let frames: Vec<Vec<u8>> = frames.collect();
    client.inject("eth0", &frames, 8).unwrap();
    // Each of the real ones once more, from where it does not come from.
    client.inject("eth0", &seeds, 1).unwrap();
    for (ip, owner) in FIRST.into_iter().zip(&owners) {
        let same = || segment.owner(ip).as_ref() == Some(owner);
        wait_until(LATE, &format!("{owner} alone answers for {ip}"), same).unwrap();
    }
    assert_eq!(changes(&segment), before, "no speaker held another for dead");
    // Two frames or one, once in ten seconds for each address, however many claim it: all of it took four or so.
    let [arp, ndp] = sent(&segment);
    let (arp, ndp) = (arp - arp_before, ndp - ndp_before);
    assert!((2..=4).contains(&arp) && (1..=2).contains(&ndp), "{arp} {ndp}");
    for owner in &owners {
        let log = segment.speaker(owner).log();
        let told = log.matches("which this node announces").count();
        assert!((1..=16).contains(&told), "eight rivals of each address are told apart, not {told}");
        assert!(log.lines().count() < 60, "{}", log.lines().count());
    }
}

#[test]
fn a_flood_of_questions_and_claims_delays_no_heartbeat() {
    let Some(mut segment) = Segment::new("flood") else { return };
    // Before all ordinary work: this is about what a flood does to a speaker, not what it does to two processors.
    for node in ["node-a", "node-b"] {
        segment.start(node, &["--realtime-priority", "10"]);
    }
    segment.wait_owned(FIRST);
    let client = segment.lab.client().clone();
    let (owner, before) = (segment.owner(FIRST[0]).unwrap(), changes(&segment));
    let question = |number: u32, operation: u8| {
        let [a, b, c, d] = number.to_be_bytes();
        let head = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0xcc, a, b, c, d, 8, 6, 0, 1, 8, 0, 6, 4, 0, operation];
        // From a host beyond all that is used here, for an address that nobody announces.
        let rest = [2, 0xcc, a, b, c, d, 192, 168, 76, d, 0, 0, 0, 0, 0, 0, 192, 168, 77, 250];
        [head.as_slice(), &rest].concat()
    };
    // Some thirty thousand a second: a broadcast storm, and less than what starves two processors.
    let frames: Vec<Vec<u8>> =
        (0..60_000).map(|number| question(number, 1 + u8::try_from(number % 2).unwrap())).collect();
    let frame_count = "roadstead_speaker_frames_received_total";
    let heard = segment.counter(&owner, frame_count);
    client.inject("eth0", &frames, 10).unwrap();
    assert!(segment.counter(&owner, frame_count) > heard + 1_000, "the flood reached the speaker");
    assert_eq!(changes(&segment), before, "no speaker held another for dead");
    assert_eq!(segment.owner(FIRST[0]), Some(owner));
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
