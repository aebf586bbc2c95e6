//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).
//!
//! Differences are one's complement sums in host order of words in memory order, the form that the kernel's
//! `bpf_l4_csum_replace` takes with a `from` of 0.

use roadstead_abi::{Addr, Be16};

/// Folds a sum to 16 bits.
#[inline(always)]
#[must_use]
pub fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// Folds a sum to 32 bits, end-around carry kept.
#[inline(always)]
fn fold32(sum: u64) -> u32 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    sum as u32
}

/// The sum of the IPv6 pseudo-header (RFC 8200 section 8.1) of so many bytes of this protocol: in memory order, unfolded.
#[inline(always)]
#[must_use]
pub fn pseudo_header_v6(src: &Addr, dst: &Addr, length: u16, proto: u8) -> u64 {
    let (s, d) = (src.words(), dst.words());
    u64::from(s[0])
        + u64::from(s[1])
        + u64::from(s[2])
        + u64::from(s[3])
        + u64::from(d[0])
        + u64::from(d[1])
        + u64::from(d[2])
        + u64::from(d[3])
        + u64::from(length.to_be())
        + u64::from(u16::from_ne_bytes([0, proto]))
}

/// The difference that replacing one address by another makes. Mapped IPv4 addresses share their first twelve bytes,
/// which cancel out, so the same sum serves both families.
#[inline(always)]
#[must_use]
pub fn addr_diff(old: &Addr, new: &Addr) -> u32 {
    let (old, new) = (old.words(), new.words());
    let sum = u64::from(!old[0])
        + u64::from(!old[1])
        + u64::from(!old[2])
        + u64::from(!old[3])
        + u64::from(new[0])
        + u64::from(new[1])
        + u64::from(new[2])
        + u64::from(new[3]);
    fold32(sum)
}

/// [`addr_diff`] of two IPv4 addresses, which differ in the last word alone.
#[inline(always)]
#[must_use]
pub fn addr_diff_v4(old: &Addr, new: &Addr) -> u32 {
    fold32(u64::from(!old.last_word()) + u64::from(new.last_word()))
}

/// The sum of two differences.
#[inline(always)]
#[must_use]
pub fn add(a: u32, b: u32) -> u32 {
    fold32(u64::from(a) + u64::from(b))
}

/// The difference that replacing two ports makes.
#[inline(always)]
#[must_use]
pub fn ports_diff(old: (Be16, Be16), new: (Be16, Be16)) -> u32 {
    let sum = u64::from(!old.0.0) + u64::from(!old.1.0) + u64::from(new.0.0) + u64::from(new.1.0);
    fold32(sum)
}

/// A checksum field after a difference (RFC 1624, equation 3).
#[inline(always)]
#[must_use]
pub fn update(field: u16, diff: u32) -> u16 {
    !fold(u64::from(!field) + u64::from(diff))
}

/// How the kernel keeps the transport checksum of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kept {
    /// In the field, whole.
    InField,
    /// The field holds the sum of the pseudo-header, and a device or the receiver completes it (CHECKSUM_PARTIAL).
    Offloaded,
    /// One cannot tell.
    Unknown,
}

/// How a checksum is kept, from what the kernel's helper has made of the field when it was told a difference of the
/// pseudo-header.
#[inline(always)]
#[must_use]
pub fn kept(before: u16, after: u16, diff: u32) -> Kept {
    let whole = after == update(before, diff);
    let offloaded = after == fold(u64::from(before) + u64::from(diff));
    match (whole, offloaded) {
        (true, false) => Kept::InField,
        (false, true) => Kept::Offloaded,
        _ => Kept::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sum_words(words: &[u16]) -> u64 {
        words.iter().copied().map(u64::from).sum()
    }

    /// The checksum of 20 words computed from scratch.
    fn full(words: &[u16; 20]) -> u16 {
        !fold(sum_words(words))
    }

    fn words_of(src: &Addr, dst: &Addr, sport: u16, dport: u16, payload: u16) -> [u16; 20] {
        let mut words = [0_u16; 20];
        for (index, word) in src.octets().chunks(2).chain(dst.octets().chunks(2)).enumerate() {
            words[index] = u16::from_ne_bytes([word[0], word[1]]);
        }
        words[16] = sport;
        words[17] = dport;
        words[18] = payload;
        words
    }

    proptest! {
        #[test]
        fn an_updated_checksum_equals_one_from_scratch(
            old: ([u8; 16], [u8; 16], u16, u16),
            new: ([u8; 16], [u8; 16], u16, u16),
            payload: u16,
        ) {
            let before = full(&words_of(&Addr::v6(old.0), &Addr::v6(old.1), old.2, old.3, payload));
            let after = full(&words_of(&Addr::v6(new.0), &Addr::v6(new.1), new.2, new.3, payload));
            let addrs = add(addr_diff(&Addr::v6(old.0), &Addr::v6(new.0)), addr_diff(&Addr::v6(old.1), &Addr::v6(new.1)));
            let ports = ports_diff((Be16(old.2), Be16(old.3)), (Be16(new.2), Be16(new.3)));
            let updated = update(update(before, addrs), ports);
            // 0x0000 and 0xffff are the same number in one's complement.
            prop_assert!(updated == after || (updated ^ after) == 0xffff && (after == 0 || updated == 0));
        }
    }

    #[test]
    fn the_short_way_for_ipv4_gives_the_same_sum() {
        let (a, b) = (Addr::v4([192, 0, 2, 1]), Addr::v4([10, 244, 1, 5]));
        for (old, new) in [(a, b), (b, a), (a, a)] {
            let (long, short) = (addr_diff(&old, &new), addr_diff_v4(&old, &new));
            assert_eq!(update(0x1234, long), update(0x1234, short));
        }
    }

    #[test]
    fn what_the_kernel_did_to_a_field_tells_how_it_keeps_the_checksum() {
        let diff = addr_diff(&Addr::v4([192, 0, 2, 1]), &Addr::v4([10, 244, 1, 5]));
        for before in [0x1234_u16, 0xfffe, 0x0001] {
            assert_eq!(kept(before, update(before, diff), diff), Kept::InField);
            assert_eq!(kept(before, fold(u64::from(before) + u64::from(diff)), diff), Kept::Offloaded);
        }
        assert_eq!(kept(0x1234, 0x1234, addr_diff(&Addr::UNSPECIFIED, &Addr::UNSPECIFIED)), Kept::Unknown);
        assert_eq!(kept(0x1234, 0x4321, diff), Kept::Unknown);
    }

    #[test]
    fn the_example_of_rfc_1071_section_3_sums_up() {
        let bytes: [[u8; 2]; 4] = [[0x00, 0x01], [0xf2, 0x03], [0xf4, 0xf5], [0xf6, 0xf7]];
        let words = bytes.map(u16::from_be_bytes);
        assert_eq!(fold(sum_words(&words)), 0xddf2);
    }
}
