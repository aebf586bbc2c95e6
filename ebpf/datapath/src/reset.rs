//! TCP resets over IPv6, sent after the ICMPv6 error that says the same.
//!
//! Linux drops an ICMPv6 error for a socket that connect(2) still holds (`LockDroppedIcmps`; seen on 6.18 where client
//! and node share a machine) and asks again a second later. A reset is queued to the socket instead, so the client
//! learns at once either way. RFC 9293 section 3.5.2 says what a reset carries.

use roadstead_abi::{CtKey, proto::TCP};

use crate::{
    checksum::{fold, pseudo_header_v6},
    icmp::HOP_LIMIT,
};

/// Flags of TCP, in the low byte of the fourth word.
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// The part of a segment that a reset answers.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// Sequence number, host order.
    pub seq: u32,
    /// Acknowledgement number, host order.
    pub ack: u32,
    /// TCP flags.
    pub flags: u8,
}

/// How the checksum field of the packet is finished.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Offload {
    /// By nobody: the field holds the checksum.
    Complete,
    /// By the device or the receiver (CHECKSUM_PARTIAL): the field holds the sum of the pseudo-header.
    Partial,
}

/// IPv6 and TCP header, 60 bytes as words in memory order, of the reset that answers a SYN or a late segment with the
/// tuple `key`.
#[inline(always)]
#[must_use]
pub fn reset_v6(key: &CtKey, segment: Segment, offload: Offload) -> [u32; 15] {
    let (src, dst) = (key.dst.words(), key.src.words());
    let ports = u32::from(key.dport.0) | u32::from(key.sport.0) << 16;
    #[cfg(target_endian = "big")]
    let ports = ports.rotate_left(16);
    // A segment that acknowledges something is answered with that number, another one is acknowledged.
    let (seq, ack, flags) =
        if segment.flags & ACK != 0 { (segment.ack, 0, RST) } else { (0, segment.seq.wrapping_add(1), RST | ACK) };
    let (seq, ack) = (seq.to_be(), ack.to_be());
    let control = u32::from_ne_bytes([5 << 4, flags, 0, 0]);
    let pseudo = pseudo_header_v6(&key.dst, &key.src, 20, TCP);
    let check = match offload {
        Offload::Partial => fold(pseudo),
        Offload::Complete => !fold(pseudo + u64::from(ports) + u64::from(seq) + u64::from(ack) + u64::from(control)),
    };
    let [high, low] = check.to_ne_bytes();
    [
        u32::from_ne_bytes([0x60, 0, 0, 0]),
        u32::from_ne_bytes([0, 20, 6, HOP_LIMIT]),
        src[0],
        src[1],
        src[2],
        src[3],
        dst[0],
        dst[1],
        dst[2],
        dst[3],
        ports,
        seq,
        ack,
        control,
        u32::from_ne_bytes([high, low, 0, 0]),
    ]
}

#[cfg(test)]
mod tests {
    use roadstead_abi::{Addr, Be16};

    use super::*;

    const KEY: CtKey = CtKey {
        src: Addr::v6(*b"\xfd\x77\0\0\0\0\0\0\0\0\0\0\0\0\0\x64"),
        dst: Addr::v6(*b"\xfd\x77\0\0\0\0\0\0\0\0\0\0\0\0\x02\0"),
        sport: Be16::new(40_000),
        dport: Be16::new(80),
        proto: TCP,
        reserved: [0; 3],
    };

    fn bytes(words: [u32; 15]) -> [u8; 60] {
        core::array::from_fn(|index| words[index / 4].to_ne_bytes()[index % 4])
    }

    #[test]
    fn a_reset_answers_the_segment_from_the_address_that_was_asked() {
        const SYN: u8 = 2;
        // Flags, then sequence, acknowledgement and flags of the reset.
        let cases = [(SYN, 0, 1_001, RST | ACK), (ACK, 7_000, 0, RST), (SYN | ACK, 7_000, 0, RST)];
        for (flags, seq, ack, reset_flags) in cases {
            let segment = Segment { seq: 1_000, ack: 7_000, flags };
            let packet = bytes(reset_v6(&KEY, segment, Offload::Complete));
            assert_eq!(packet[8..24], KEY.dst.octets());
            assert_eq!(packet[24..40], KEY.src.octets());
            assert_eq!([packet[40], packet[41], packet[42], packet[43]], [0, 80, 0x9c, 0x40]);
            let number = |at: usize| u32::from_be_bytes([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]]);
            assert_eq!((number(44), number(48), packet[53]), (seq, ack, reset_flags), "{flags:#x}");
        }
    }

    #[test]
    fn the_checksum_is_whole_or_left_to_the_device() {
        let segment = Segment { seq: 1_000, ack: 0, flags: 2 };
        let sum = |bytes: &[u8]| -> u64 {
            bytes.chunks(2).map(|pair| u64::from(u16::from_ne_bytes([pair[0], pair[1]]))).sum()
        };
        let pseudo = sum(&KEY.src.octets()) + sum(&KEY.dst.octets()) + sum(&[0, 20, 0, 6]);
        let whole = bytes(reset_v6(&KEY, segment, Offload::Complete));
        assert_eq!(fold(pseudo + sum(&whole[40..])), 0xffff);
        let partial = bytes(reset_v6(&KEY, segment, Offload::Partial));
        assert_eq!(u16::from_ne_bytes([partial[56], partial[57]]), fold(pseudo));
    }
}
