//! Hashes that kernel and user side must agree on: check words against recycled map elements, and the filter's bits.

use crate::{Addr, Be16};

/// One round of a multiply-xorshift mix (the finaliser's idea is MurmurHash3's).
#[inline(always)]
#[must_use]
pub const fn mix(state: u64, word: u64) -> u64 {
    let mut x = (state ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x ^= x >> 32;
    x = x.wrapping_mul(0xd6e8_feb8_6659_fd93);
    x ^ (x >> 29)
}

/// The start of every hash.
pub const SEED: u64 = 0x517c_c1b7_2722_0a95;

/// Half of an address in a form that is cheap to make on either side.
#[inline(always)]
const fn fold(addr: &Addr) -> u64 {
    let w = addr.words();
    (w[0] as u64 ^ (w[3] as u64) << 32) ^ ((w[1] as u64) << 17 ^ (w[2] as u64) << 7)
}

/// The hash of a tuple; never 0, so that a zeroed element fits no key.
#[inline(always)]
#[must_use]
pub const fn of_tuple(src: &Addr, dst: &Addr, sport: Be16, dport: Be16) -> u32 {
    let ports = (sport.0 as u64) << 16 | dport.0 as u64;
    (mix(fold(src) ^ ports, fold(dst)) >> 32) as u32 | 1
}

/// The 16 bits of a frontend's key that stand in its value; the other 16 bits of that word count its writes.
#[inline(always)]
#[must_use]
pub const fn of_frontend(addr: &Addr, port: Be16, proto: u8, scope: u8) -> u16 {
    let rest = (port.0 as u64) << 16 | (proto as u64) << 8 | scope as u64;
    (mix(SEED ^ rest, fold(addr)) >> 40) as u16
}

/// A bit of the filter: what kind of thing is looked for, and the address (and port) that it is looked for at.
#[inline(always)]
#[must_use]
pub const fn filter_bit(salt: u64, addr: &Addr, port: Be16) -> u32 {
    (mix(salt ^ port.0 as u64, fold(addr)) >> 40) as u32 & (crate::limits::FILTER_BITS - 1)
}

/// The mark of a client in the map of those that have flows. The ports that stand for it in masqueraded flows have a mark
/// of their own (`is_masqueraded` is 0 or 1): else one such flow would have every answer to the node looked up.
#[inline(always)]
#[must_use]
pub const fn client_mark(addr: &Addr, is_masqueraded: u16) -> u32 {
    filter_bit(salt::CLIENT, addr, Be16(is_masqueraded)) & (crate::limits::CLIENTS - 1)
}

/// Salts of [`filter_bit`].
pub mod salt {
    /// An address with frontends, or with flows that came by one; port 0.
    pub const FRONTEND: u64 = 0x2545_f491_4f6c_dd1d;
    /// An address of this node; port 0.
    pub const NODE: u64 = 0x9e6c_63d0_876a_3f6b;
    /// A backend with its port, one that flows lead to included.
    pub const BACKEND: u64 = 0x5851_f42d_4c95_7f2d;
    /// A client with flows ([`client_mark`](super::client_mark)).
    pub const CLIENT: u64 = 0xd1b5_4a32_d192_ed03;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bits_of_neighbouring_addresses_spread() {
        let mut seen = [0_u64; 1 << 10];
        let mut twice = 0;
        for host in 0..4_096_u32 {
            let bytes = host.to_be_bytes();
            let bit = filter_bit(salt::FRONTEND, &Addr::v4([10, 96, bytes[2], bytes[3]]), Be16(0));
            let (word, mask) = ((bit >> 6) as usize % seen.len(), 1_u64 << (bit & 63));
            twice += u32::from(seen[word] & mask != 0);
            seen[word] |= mask;
        }
        // 4,096 balls in 65,536 urns: 125 fall on another by chance.
        assert!(twice < 200, "{twice} of 4096 share a bit");
    }

    #[test]
    fn a_tuple_and_its_reverse_differ() {
        let (a, b) = (Addr::v4([10, 0, 0, 1]), Addr::v4([10, 0, 0, 2]));
        let (x, y) = (Be16::new(1_000), Be16::new(80));
        assert_ne!(of_tuple(&a, &b, x, y), of_tuple(&b, &a, y, x));
        assert_ne!(of_tuple(&a, &b, x, y), 0);
        assert_ne!(of_frontend(&a, x, 6, 0), of_frontend(&a, x, 17, 0));
    }
}
