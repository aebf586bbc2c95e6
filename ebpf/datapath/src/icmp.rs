//! ICMP errors that the programs send: port unreachable, by which a client learns at once that nobody serves it.
//!
//! RFC 792 (type 3, code 3) and RFC 4443 section 3.1 (type 1, code 4). The programs trim the packet to the quoted part,
//! make room before it and write what stands here.

use roadstead_abi::Addr;

use crate::checksum::{fold, pseudo_header_v6};

/// The protocol number of ICMPv6.
pub const ICMPV6: u8 = 58;

/// TTL and hop limit of the errors, as Linux sends them.
pub const HOP_LIMIT: u8 = 64;

/// IPv4 header and ICMP header, 28 bytes as words in memory order.
pub type UnreachableV4 = [u32; 7];
/// IPv6 header and ICMPv6 header, 48 bytes as words in memory order.
pub type UnreachableV6 = [u32; 12];

/// Headers of an ICMP port unreachable from `src` to `dst` (IPv4) that quotes `quoted` bytes whose words sum up to
/// `sum` (memory order, unfolded).
#[inline(always)]
#[must_use]
pub fn port_unreachable_v4(src: &Addr, dst: &Addr, quoted: u16, sum: u64) -> UnreachableV4 {
    let total = (28 + quoted).to_be_bytes();
    let icmp = (!fold(u64::from(u16::from_ne_bytes([3, 3])) + sum)).to_ne_bytes();
    // Version 4, header of 5 words, class CS6 as Linux gives errors; no fragments; protocol 1.
    let first = u32::from_ne_bytes([0x45, 0xc0, total[0], total[1]]);
    let second = u32::from_ne_bytes([0, 0, 0x40, 0]);
    let ttl_word = [HOP_LIMIT, 1];
    let (src, dst) = (src.last_word(), dst.last_word());
    let header = u64::from(first)
        + u64::from(second)
        + u64::from(u16::from_ne_bytes(ttl_word))
        + u64::from(src)
        + u64::from(dst);
    let check = (!fold(header)).to_ne_bytes();
    let third = u32::from_ne_bytes([ttl_word[0], ttl_word[1], check[0], check[1]]);
    [first, second, third, src, dst, u32::from_ne_bytes([3, 3, icmp[0], icmp[1]]), 0]
}

/// Headers of an ICMPv6 port unreachable from `src` to `dst` that quotes `quoted` bytes whose words sum up to `sum`
/// (memory order, unfolded). The checksum covers the pseudo-header (RFC 8200 section 8.1).
#[inline(always)]
#[must_use]
pub fn port_unreachable_v6(src: &Addr, dst: &Addr, quoted: u16, sum: u64) -> UnreachableV6 {
    let (s, d) = (src.words(), dst.words());
    let pseudo = pseudo_header_v6(src, dst, 8 + quoted, ICMPV6);
    let length = (8 + quoted).to_be_bytes();
    let icmp = (!fold(u64::from(u16::from_ne_bytes([1, 4])) + pseudo + sum)).to_ne_bytes();
    let first = u32::from_ne_bytes([0x60, 0, 0, 0]);
    let second = u32::from_ne_bytes([length[0], length[1], ICMPV6, HOP_LIMIT]);
    let error = u32::from_ne_bytes([1, 4, icmp[0], icmp[1]]);
    [first, second, s[0], s[1], s[2], s[3], d[0], d[1], d[2], d[3], error, 0]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The checksum of bytes in network order, from scratch; 0 over a region that holds its own valid checksum.
    fn check(bytes: &[u8], pseudo: u64) -> u16 {
        let sum: u64 =
            bytes.chunks(2).map(|pair| u64::from(u16::from_ne_bytes([pair[0], *pair.get(1).unwrap_or(&0)]))).sum();
        !fold(sum + pseudo)
    }

    fn sum_of(bytes: &[u8]) -> u64 {
        bytes.chunks(2).map(|pair| u64::from(u16::from_ne_bytes([pair[0], pair[1]]))).sum()
    }

    fn bytes_of<const WORDS: usize, const BYTES: usize>(words: [u32; WORDS]) -> [u8; BYTES] {
        core::array::from_fn(|index| words[index / 4].to_ne_bytes()[index % 4])
    }

    #[test]
    fn ipv4_headers_carry_valid_checksums() {
        let quote: [u8; 28] = core::array::from_fn(|index| (index * 7) as u8);
        let (src, dst) = (Addr::v4([192, 0, 2, 1]), Addr::v4([198, 51, 100, 2]));
        let head = bytes_of::<7, 28>(port_unreachable_v4(&src, &dst, 28, sum_of(&quote)));
        assert_eq!(check(&head[..20], 0), 0, "IPv4 header");
        assert_eq!(check(&head[20..], sum_of(&quote)), 0, "ICMP");
        assert_eq!((head[2], head[3], head[9], head[20], head[21]), (0, 56, 1, 3, 3));
    }

    #[test]
    fn ipv6_headers_carry_a_valid_checksum() {
        let quote: [u8; 48] = core::array::from_fn(|index| (index * 5) as u8);
        let (src, dst) = (
            Addr::v6(*b"\xfd\x77\0\0\0\0\0\0\0\0\0\0\0\0\x02\0"),
            Addr::v6(*b"\xfd\x77\0\0\0\0\0\0\0\0\0\0\0\0\0\x64"),
        );
        let head = bytes_of::<12, 48>(port_unreachable_v6(&src, &dst, 48, sum_of(&quote)));
        let pseudo =
            sum_of(&src.octets()) + sum_of(&dst.octets()) + u64::from(56_u16.to_be()) + u64::from(58_u16.to_be());
        assert_eq!(check(&head[40..], pseudo + sum_of(&quote)), 0, "ICMPv6");
        assert_eq!((head[4], head[5], head[6], head[40], head[41]), (0, 56, 58, 1, 4));
    }
}
