//! Entry points for fuzzing the parsers of foreign bytes, and a short seeded run of them as a test.

mod datagram;

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use crate::{
    announce,
    conflict::{DEFEND_INTERVAL, Probes, Rivals, claim, question},
    responder::{Station, respond},
    wire::{ArpOperation, Body, Frame, Mac, mend},
};

pub use datagram::{datagram_seeds, document_seeds, fuzz_datagram, fuzz_document};

/// The addresses that a node announces while it is fuzzed: one of each family.
const ANNOUNCED: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))];
const OURS: Station = Station { mac: Mac([2, 0, 0, 0, 0, 1]), link_local: None };
const OTHER: Station = Station { mac: Mac([2, 0, 0, 0, 0, 9]), link_local: None };

/// A frame that was understood is written and read again to the same value; anything else is only refused.
///
/// # Panics
/// When the round trip fails, which is what fuzzing looks for.
pub fn fuzz_frame(bytes: &[u8]) {
    if let Ok(frame) = Frame::parse(bytes) {
        assert_eq!(Frame::parse(&frame.encode()), Ok(frame), "a frame does not survive writing and reading");
    }
}

/// Frames that a neighbour sends: questions, claims, announcements and answers about the addresses that are announced.
#[must_use]
pub fn neighbours() -> Vec<Vec<u8>> {
    let (ours, all) = (BTreeSet::from(ANNOUNCED), ANNOUNCED.iter());
    let told = all.clone().flat_map(|ip| announce::frames(&OTHER, *ip));
    let asked: Vec<Frame> = all.map(|ip| question(&OTHER, *ip)).collect();
    let answered =
        asked.iter().filter_map(|frame| respond(&OURS, &ours, &frame.encode()).ok()).map(|reply| reply.frame);
    told.chain(asked.iter().copied()).chain(answered).map(|frame| frame.encode()).collect()
}

/// A frame from anybody gets an answer only if it asks for an address that is announced, and then one that is well-formed,
/// tells the truth, and is no question itself. A claim is noted for addresses of ours alone, and answered once in a while.
///
/// # Panics
/// When one of these promises is broken, which is what fuzzing looks for.
pub fn fuzz_neighbour(bytes: &[u8]) {
    let mut mended = bytes.to_vec();
    mend(&mut mended);
    for bytes in [bytes, &mended] {
        check_answer(bytes);
        if let Some((ip, mac)) = Frame::parse(bytes).ok().and_then(|frame| claim(&frame)) {
            check_claim(ip, mac);
        }
    }
}

fn check_answer(bytes: &[u8]) {
    let ours = BTreeSet::from(ANNOUNCED);
    let (Ok(frame), Ok(reply)) = (Frame::parse(bytes), respond(&OURS, &ours, bytes)) else { return };
    let asked = match frame.body {
        Body::Arp(arp) => (arp.operation == ArpOperation::Request).then_some(IpAddr::V4(arp.target_ip)),
        Body::Solicitation(asked) => Some(asked.target.into()),
        Body::Advertisement(_) => None,
    };
    assert_eq!(asked, Some(reply.ip), "an answer to what was not asked");
    assert!(ours.contains(&reply.ip), "an answer for what is not announced");
    assert_eq!(claim(&reply.frame), Some((reply.ip, OURS.mac)), "an answer that does not tell the truth");
    assert_eq!(reply.frame.source, OURS.mac, "an answer in another's name");
    let written = reply.frame.encode();
    assert_eq!(Frame::parse(&written), Ok(reply.frame), "a malformed answer");
    assert!(respond(&OTHER, &ours, &written).is_err(), "an answer that asks for an answer");
}

fn check_claim(ip: IpAddr, mac: Mac) {
    let now = Duration::from_secs(1);
    let mut probes = Probes::default();
    ANNOUNCED.iter().for_each(|ip| probes.begin(now, *ip));
    assert_eq!(probes.heard(now, ip, mac), ANNOUNCED.contains(&ip), "a claim of what nobody asked for was noted");
    assert!(probes.occupied().keys().all(|noted| *noted == ip), "a claim of one address was noted for another");
    let mut rivals = Rivals::default();
    assert!(rivals.heard(now, ip, mac).defend);
    let until = now + DEFEND_INTERVAL - Duration::from_millis(1);
    assert!(!rivals.heard(now, ip, mac).defend && !rivals.heard(until, ip, mac).defend, "a rival makes this node talk");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// xorshift64*: the same bytes in every run.
    fn random(state: &mut u64) -> u64 {
        *state ^= *state >> 12;
        *state ^= *state << 25;
        *state ^= *state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(super) fn check(seeds: &[Vec<u8>], target: fn(&[u8])) {
        assert!(!seeds.is_empty());
        let mut state = 0x5eed;
        for round in 0..20_000 {
            let mut bytes = seeds[round % seeds.len()].clone();
            for _ in 0..random(&mut state) % 4 {
                let position = usize::try_from(random(&mut state)).unwrap() % bytes.len();
                bytes[position] ^= 1 << (random(&mut state) % 8);
            }
            if random(&mut state).is_multiple_of(4) {
                bytes.truncate(usize::try_from(random(&mut state)).unwrap() % bytes.len());
            }
            target(&bytes);
        }
    }

    #[test]
    fn mutated_frames_are_refused_or_survive_a_round_trip() {
        check(&neighbours(), fuzz_frame);
    }

    #[test]
    fn mutated_frames_get_answers_to_questions_alone() {
        assert_eq!(neighbours().len(), 7);
        check(&neighbours(), fuzz_neighbour);
    }
}
