//! Entry points for fuzzing the parsers of foreign bytes, and a short seeded run of them as a test.

use std::time::Duration;

use crate::{membership, wire::Frame};

/// A frame that was understood is written and read again to the same value; anything else is only refused.
///
/// # Panics
/// When the round trip fails, which is what fuzzing looks for.
pub fn fuzz_frame(bytes: &[u8]) {
    if let Ok(frame) = Frame::parse(bytes) {
        assert_eq!(Frame::parse(&frame.encode()), Ok(frame), "a frame does not survive writing and reading");
    }
}

/// A datagram from anybody never does more than be refused or counted; nothing but the configured peers becomes known.
///
/// # Panics
/// When a stranger becomes a member, which is what fuzzing looks for.
pub fn fuzz_datagram(bytes: &[u8]) {
    for key in [None, Some(membership::Key::new(b"key"))] {
        let mut member = membership::Membership::new("a", 1, ["b".to_owned()], key, Duration::ZERO);
        let heard = member.receive(Duration::ZERO, bytes, |_| true);
        let known: Vec<&str> = member.states().map(|(name, _)| name).collect();
        assert_eq!(known, ["b"], "a stranger became a member after {heard:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{announce, membership::Membership, responder::Station, wire::Mac};

    /// xorshift64*: the same bytes in every run.
    fn random(state: &mut u64) -> u64 {
        *state ^= *state >> 12;
        *state ^= *state << 25;
        *state ^= *state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn check(seeds: &[Vec<u8>], target: fn(&[u8])) {
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
        let station = Station { mac: Mac([2, 0, 0, 0, 0, 1]), link_local: None };
        let ips = ["192.0.2.1", "2001:db8::1"].map(|ip| ip.parse().unwrap());
        let frames = ips.iter().flat_map(|ip| announce::frames(&station, *ip));
        check(&frames.map(|frame| frame.encode()).collect::<Vec<_>>(), fuzz_frame);
    }

    #[test]
    fn mutated_datagrams_make_nobody_known() {
        let seeds = [None, Some(membership::Key::new(b"key"))].map(|key| {
            let mut member = Membership::new("b", 7, ["a".to_owned()], key, Duration::ZERO);
            member.tick(Duration::ZERO).heartbeat.unwrap()
        });
        check(&seeds, fuzz_datagram);
    }
}
