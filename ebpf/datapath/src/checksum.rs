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
    fn the_example_of_rfc_1071_section_3_sums_up() {
        let bytes: [[u8; 2]; 4] = [[0x00, 0x01], [0xf2, 0x03], [0xf4, 0xf5], [0xf6, 0xf7]];
        let words = bytes.map(u16::from_be_bytes);
        assert_eq!(fold(sum_words(&words)), 0xddf2);
    }
}
