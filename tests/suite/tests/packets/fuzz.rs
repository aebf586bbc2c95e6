//! A million mutated frames through each packet program: every one gets a verdict, and none leaves rewritten by half.

use roadstead_dataplane::load::{INTERNAL_PROGRAMS, UPLINK_PROGRAMS};

use super::{
    bench::Bench,
    frames::{Frame, Transport},
};
use crate::cases;

const NEXT: i32 = -1;
const DROP: i32 = 2;
const REDIRECT: i32 = 7;
const ETH_LEN: usize = 14;

/// Frames a program; `ROADSTEAD_FUZZ_FRAMES` asks for another number.
const FRAMES: u64 = 1_000_000;
/// The first state of the generator; `ROADSTEAD_FUZZ_SEED` asks for another.
const SEED: u64 = 0x5eed_0000_0000_0001;

#[test]
fn mutated_frames_get_a_verdict_and_are_never_rewritten_by_half() {
    let Some(bench) = Bench::open() else { return };
    let asked = |name: &str, default| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (frames, seed) = (asked("ROADSTEAD_FUZZ_FRAMES", FRAMES), asked("ROADSTEAD_FUZZ_SEED", SEED));
    let seeds = seed_frames();
    // Flows that frames may hit.
    for frame in &seeds {
        let _any = bench.programs.run("uplink_in", frame);
    }
    println!("seed {seed:#x}, {frames} frames a program from {} seed frames", seeds.len());
    for program in UPLINK_PROGRAMS.iter().chain(&INTERNAL_PROGRAMS) {
        let (mut random, mut counts, mut rewritten) = (Random(seed), [0_u64; 4], 0_u64);
        for _ in 0..frames {
            let frame = random.mutate(&seeds);
            // A frame that the kernel itself refuses to make a packet of is no news of the programs.
            let Ok(ran) = bench.programs.run(program, &frame) else {
                counts[3] += 1;
                continue;
            };
            let kind = [NEXT, DROP, REDIRECT].iter().position(|verdict| *verdict == ran.verdict);
            counts[kind.unwrap_or_else(|| panic!("{program} says {} to {frame:02x?}", ran.verdict))] += 1;
            if ran.verdict == NEXT && ran.packet != frame {
                rewritten += 1;
                assert_whole(program, &frame, &ran.packet);
            }
        }
        let [next, dropped, redirected, refused] = counts;
        println!(
            "{program}: {next} passed ({rewritten} rewritten), {dropped} dropped, {redirected} redirected, {refused} no packets"
        );
        assert!(next > 0, "{program}: mutations leave some frames alone");
    }
}

/// Every kind of frame that the programs know, of both families.
fn seed_frames() -> Vec<Vec<u8>> {
    let v4 = cases("192.0.2.9", "198.51.100.10", "192.0.2.1", "203.0.113.5");
    let v6 = cases("2001:db8::9", "2001:db8:ff::10", "2001:db8::1", "2001:db8:5::5");
    let mut seeds: Vec<_> = v4.into_iter().chain(v6).map(|case| case.frame.bytes()).collect();
    let places = [["192.0.2.9", "198.51.100.10", "127.0.0.9"], ["2001:db8::9", "2001:db8:ff::10", "::1"]];
    for [client, vip, backend] in places {
        for transport in [Transport::Tcp, Transport::TcpAck, Transport::Udp] {
            let there = Frame::new(client, vip, 40_000, 80, transport);
            let back = Frame::new(backend, client, 8_080, 40_000, transport);
            seeds.extend([there.bytes(), back.bytes()]);
            seeds.extend([there.moved(vip, client, 80, 40_000).too_big(client, vip), there.too_big(backend, client)]);
            seeds.extend(there.in_fragments());
            seeds.extend(back.in_fragments());
        }
    }
    seeds
}

/// A xorshift generator.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).unwrap()
    }

    /// One of the seeds with some bytes changed, most of them in the headers, and one in eight cut.
    pub(super) fn mutate(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut frame = seeds[self.below(seeds.len())].clone();
        for _ in 0..self.below(5) {
            let at = self.below(frame.len().min(80));
            frame[at] = u8::try_from(self.below(256)).unwrap();
        }
        if self.below(8) == 0 {
            // The kernel takes no frame shorter than its Ethernet header for a test run.
            frame.truncate(ETH_LEN + self.below(frame.len() - ETH_LEN + 1));
        }
        frame
    }
}

/// A packet that was rewritten and passes is rewritten whole: nothing but addresses, ports and checksums differs, and the
/// checksums are as right or as wrong as they were.
fn assert_whole(program: &str, before: &[u8], after: &[u8]) {
    let label = || format!("{program}\nbefore {before:02x?}\nafter  {after:02x?}");
    assert_eq!(before.len(), after.len(), "{}", label());
    let (header, allowed) = if before[12..14] == [8, 0] { (20, 10..20) } else { (40, 8..40) };
    let header_len = if header == 20 { usize::from(before[ETH_LEN] & 15) * 4 } else { header };
    let l4 = before.len().min(ETH_LEN + header_len);
    for (at, (old, new)) in before.iter().zip(after).enumerate() {
        let in_header = at >= ETH_LEN && allowed.contains(&(at - ETH_LEN));
        assert!(old == new || in_header || at >= l4, "byte {at}: {}", label());
    }
    if header == 20 {
        assert_eq!(residue(&[&before[ETH_LEN..l4]]), residue(&[&after[ETH_LEN..l4]]), "IPv4 checksum: {}", label());
    }
    let proto = if header == 20 { before[ETH_LEN + 9] } else { before[ETH_LEN + 6] };
    let is_fragment = header == 20 && (before[ETH_LEN + 6] & 0x3f, before[ETH_LEN + 7]) != (0, 0) || proto == 44;
    // The sum of a datagram in fragments is not in one packet; a UDP checksum of 0 is none.
    if is_fragment || !matches!(proto, 1 | 6 | 17 | 58) || proto == 17 && before[l4 + 6..l4 + 8] == [0, 0] {
        return;
    }
    // The addresses count too, but for ICMP over IPv4.
    let addresses = if header == 20 { ETH_LEN + 12..ETH_LEN + 20 } else { ETH_LEN + 8..ETH_LEN + 40 };
    let addresses = if proto == 1 { 0..0 } else { addresses };
    let [old, new] = [before, after].map(|packet| residue(&[&packet[addresses.clone()], &packet[l4..]]));
    assert_eq!(old, new, "transport checksum: {}", label());
}

/// The one's complement sum, with 0 for its other form 0xffff.
fn residue(parts: &[&[u8]]) -> u32 {
    let mut sum = 0_u32;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum % 0xffff
}
