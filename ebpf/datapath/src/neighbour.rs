//! Answers to "who has this address?": an ARP reply (RFC 826) and a neighbour advertisement (RFC 4861 section 4.4). The
//! programs read the question and write what stands here; the rules of who is answered are `layer2::responder`'s, which
//! answers with the same bytes.

use roadstead_abi::Addr;

use crate::{
    checksum::{fold, pseudo_header_v6},
    icmp::ICMPV6,
};

/// An Ethernet frame with an ARP packet.
pub const ARP_LEN: usize = 42;
/// An Ethernet frame with an advertisement that has one option.
pub const ADVERTISEMENT_LEN: usize = 86;

/// Hardware type Ethernet, protocol IPv4, their address lengths, and "request".
pub const ARP_REQUEST: [u8; 8] = [0, 1, 0x08, 0x00, 6, 4, 0, 1];

/// IPv6 header and advertisement with its option, 72 bytes as words in memory order.
pub type Advertisement = [u32; 18];

/// `ff02::1`: all nodes of the link.
pub const ALL_NODES: Addr = Addr::v6([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
/// The hardware address of that group.
pub const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];

/// Whether a hardware address names a group.
#[inline(always)]
#[must_use]
pub const fn is_group(mac: [u8; 6]) -> bool {
    mac[0] & 1 != 0
}

/// Whether an IPv6 address names a group.
#[inline(always)]
#[must_use]
pub const fn is_multicast(addr: &Addr) -> bool {
    addr.words()[0].to_ne_bytes()[0] == 0xff
}

/// The group that a question for the address goes to (RFC 4291 section 2.7.1).
#[inline(always)]
#[must_use]
pub const fn solicited_node(addr: &Addr) -> Addr {
    let last = addr.words()[3] | u32::from_ne_bytes([0xff, 0, 0, 0]);
    Addr::from_words([u32::from_ne_bytes([0xff, 2, 0, 0]), 0, u32::from_ne_bytes([0, 0, 0, 1]), last])
}

/// Whether an ICMPv6 message whose words sum up to `sum` (memory order, unfolded) carries its right checksum (RFC 8200
/// section 8.1).
#[inline(always)]
#[must_use]
pub fn is_intact(src: &Addr, dst: &Addr, length: u16, sum: u64) -> bool {
    fold(pseudo_header_v6(src, dst, length, ICMPV6) + sum) == 0xffff
}

/// The advertisement that answers a question for `target`. O is set in every answer: a client that missed the
/// unsolicited advertisement after a failover would otherwise keep the dead node's hardware address (RFC 4861 section
/// 7.2.5); S in one to a host that asked, not in one that defends the address.
#[inline(always)]
#[must_use]
pub fn advertisement(src: &Addr, dst: &Addr, target: &Addr, mac: [u8; 6], solicited: bool) -> Advertisement {
    const LENGTH: u16 = 32;
    let (s, d, t) = (src.words(), dst.words(), target.words());
    let flags = u32::from_ne_bytes([if solicited { 0x60 } else { 0x20 }, 0, 0, 0]);
    // Target link-layer address, one unit of eight bytes.
    let option = u32::from_ne_bytes([2, 1, mac[0], mac[1]]);
    let rest = u32::from_ne_bytes([mac[2], mac[3], mac[4], mac[5]]);
    let sum = pseudo_header_v6(src, dst, LENGTH, ICMPV6)
        + u64::from(u16::from_ne_bytes([136, 0]))
        + u64::from(flags)
        + u64::from(t[0])
        + u64::from(t[1])
        + u64::from(t[2])
        + u64::from(t[3])
        + u64::from(option)
        + u64::from(rest);
    let check = (!fold(sum)).to_ne_bytes();
    let head = [u32::from_ne_bytes([0x60, 0, 0, 0]), u32::from_ne_bytes([0, LENGTH as u8, ICMPV6, 255])];
    let message = u32::from_ne_bytes([136, 0, check[0], check[1]]);
    [
        head[0], head[1], s[0], s[1], s[2], s[3], d[0], d[1], d[2], d[3], message, flags, t[0], t[1], t[2], t[3],
        option, rest,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Addr = Addr::v6(*b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\x01\x23\x45");
    const ASKER: Addr = Addr::v6(*b"\xfe\x80\0\0\0\0\0\0\0\0\0\0\0\0\0\x09");

    #[test]
    fn an_advertisement_is_as_on_the_wire() {
        let mac = [2, 0, 0, 0, 0, 1];
        let words = advertisement(&TARGET, &ASKER, &TARGET, mac, true);
        let bytes: [u8; 72] = core::array::from_fn(|index| words[index / 4].to_ne_bytes()[index % 4]);
        assert_eq!(bytes[..8], [0x60, 0, 0, 0, 0, 32, 58, 255]);
        assert_eq!((&bytes[8..24], &bytes[24..40]), (TARGET.octets().as_slice(), ASKER.octets().as_slice()));
        assert_eq!((bytes[40], bytes[41], bytes[44]), (136, 0, 0x60));
        assert_eq!((&bytes[48..64], &bytes[64..66]), (TARGET.octets().as_slice(), [2, 1].as_slice()));
        assert_eq!(bytes[66..], mac);
        let sum = |bytes: &[u8]| -> u64 {
            bytes.chunks(2).map(|pair| u64::from(u16::from_ne_bytes([pair[0], pair[1]]))).sum()
        };
        assert!(is_intact(&TARGET, &ASKER, 32, sum(&bytes[40..])));
        assert!(!is_intact(&TARGET, &ASKER, 40, sum(&bytes[40..])));
    }

    #[test]
    fn groups_are_told_from_hosts() {
        assert!(is_multicast(&ALL_NODES) && !is_multicast(&TARGET));
        assert!(is_group(ALL_NODES_MAC) && !is_group([2, 0, 0, 0, 0, 1]));
        assert_eq!(solicited_node(&TARGET), Addr::v6(*b"\xff\x02\0\0\0\0\0\0\0\0\0\x01\xff\x01\x23\x45"));
    }
}
