//! Choosing one slot of a set, and one source port of the node's range.

use roadstead_abi::{
    Addr, Be16, EndpointSet, SlotRange,
    check::{self, SEED, mix},
};

/// Source ports for forwarded flows, host order: two ranges that the kernel's default ephemeral range (32768-60999,
/// `net.ipv4.ip_local_port_range`) and the node ports (30000-32767) leave free.
pub const SNAT_PORTS: [core::ops::RangeInclusive<u16>; 2] = [61_000..=65_535, 10_000..=29_999];

const FIRST_LEN: u32 = 65_535 - 61_000 + 1;
const SECOND_LEN: u32 = 29_999 - 10_000 + 1;

/// The slot for a random or hashed number: multiplication and shift instead of a division; the bias is below
/// count / 2^32.
#[inline(always)]
#[must_use]
pub fn slot(set: SlotRange, number: u32) -> u32 {
    set.base + ((u64::from(number) * u64::from(set.count)) >> 32) as u32
}

/// The slot of a set for a number: by the Maglev table where the Service has one, else among the members. The number is
/// the flow's hash for a table, so that every node chooses the same, and random otherwise.
#[inline(always)]
#[must_use]
pub fn slot_of_set(set: &EndpointSet, number: u32) -> u32 {
    if set.table.count > 0 { slot(set.table, number) } else { slot(set.members, number) }
}

/// The source port to try at this attempt for a flow with this hash.
#[inline(always)]
#[must_use]
pub fn snat_port(hash: u32, attempt: u32) -> Be16 {
    // Each flow has a step of its own: with one for all, taken ports form runs along it, and a third of the ports in use
    // is enough for a flow to meet none but taken ones. It is odd and below 3,067, so prime to the number of ports, which
    // is 8 times 3,067: no attempt repeats another.
    let step = ((hash >> 15) % 3_066) | 1;
    let index = hash.wrapping_add(attempt.wrapping_mul(step)) % (FIRST_LEN + SECOND_LEN);
    let port = if index < FIRST_LEN { 61_000 + index } else { 10_000 + (index - FIRST_LEN) };
    Be16::new(port as u16)
}

/// Whether a destination port may be one of ours.
#[inline(always)]
#[must_use]
pub fn is_snat_port(port: Be16) -> bool {
    let port = port.get();
    port >= 61_000 || (10_000..=29_999).contains(&port)
}

/// The mark of a client at the port that answers to it go to.
#[inline(always)]
#[must_use]
pub fn client_mark(addr: &Addr, port: Be16) -> u32 {
    check::client_mark(addr, u16::from(is_snat_port(port)))
}

/// A mix of a flow's addresses and ports; equal inputs give equal outputs on every node.
#[inline(always)]
#[must_use]
pub fn flow_hash(src: &Addr, dst: &Addr, sport: Be16, dport: Be16) -> u32 {
    let (a, b) = (src.words(), dst.words());
    let mut hash = SEED;
    hash = mix(hash, u64::from(a[0]) << 32 | u64::from(a[1]));
    hash = mix(hash, u64::from(a[2]) << 32 | u64::from(a[3]));
    hash = mix(hash, u64::from(b[0]) << 32 | u64::from(b[1]));
    hash = mix(hash, u64::from(b[2]) << 32 | u64::from(b[3]));
    hash = mix(hash, u64::from(sport.0) << 16 | u64::from(dport.0));
    (hash >> 32) as u32
}

/// A mix of one number, for socket cookies.
#[inline(always)]
#[must_use]
pub fn cookie_hash(cookie: u64, dport: Be16) -> u32 {
    (mix(mix(SEED, cookie), u64::from(dport.0)) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_slot_of_a_set_is_reached_about_equally() {
        let set = SlotRange { base: 100, count: 7 };
        let mut hits = [0_u32; 7];
        for step in 0..70_000_u32 {
            hits[(slot(set, step.wrapping_mul(0x9e37_79b9)) - 100) as usize] += 1;
        }
        for (index, hit) in hits.into_iter().enumerate() {
            assert!((9_000..=11_000).contains(&hit), "slot {index} was hit {hit} times of 70000");
        }
    }

    #[test]
    fn flows_that_differ_in_the_port_spread_over_a_set() {
        let (src, dst) = (Addr::v4([192, 0, 2, 1]), Addr::v4([198, 51, 100, 1]));
        let set = SlotRange { base: 0, count: 5 };
        let mut hits = [0_u32; 5];
        for port in 32_768..42_768_u16 {
            hits[slot(set, flow_hash(&src, &dst, Be16::new(port), Be16::new(80))) as usize] += 1;
        }
        for (index, hit) in hits.into_iter().enumerate() {
            assert!((1_700..=2_300).contains(&hit), "slot {index} was hit {hit} times of 10000");
        }
    }

    #[test]
    fn with_half_of_the_ports_taken_a_flow_finds_a_free_one() {
        let (src, dst) = (Addr::v4([192, 0, 2, 1]), Addr::v4([198, 51, 100, 1]));
        let mut taken = [false; 65_536];
        for flow in 0..(FIRST_LEN + SECOND_LEN) / 2 {
            let hash = flow_hash(&src, &dst, Be16::new((10_000 + flow) as u16), Be16::new(80));
            let free = (0..roadstead_abi::limits::SNAT_ATTEMPTS).any(|attempt| {
                let port = &mut taken[usize::from(snat_port(hash, attempt).get())];
                !core::mem::replace(port, true)
            });
            assert!(free, "flow {flow} finds none");
        }
    }

    proptest! {
        #[test]
        fn a_slot_lies_in_its_set(base in 0..1_000_000_u32, count in 1..100_000_u32, number: u32) {
            let slot = slot(SlotRange { base, count }, number);
            prop_assert!(slot >= base && slot < base + count);
        }

        #[test]
        fn source_ports_are_ours_and_differ_between_attempts(hash: u32) {
            let mut seen = [0_u16; 16];
            for attempt in 0..16 {
                let port = snat_port(hash, attempt);
                prop_assert!(is_snat_port(port));
                prop_assert!(SNAT_PORTS.iter().any(|range| range.contains(&port.get())));
                prop_assert!(!seen.contains(&port.get()));
                seen[attempt as usize] = port.get();
            }
        }
    }
}
