//! The hasher of this crate's tables. Their keys come from the configuration, tens of thousands at a first sync, where
//! the standard library's hash is a good part of the time.
//!
//! Words are folded by rotation and multiplication, and mixed once at the end by the mix that the programs use. The seed
//! differs from process to process, so nobody can write a configuration whose keys collide.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher, Hasher, RandomState},
    sync::OnceLock,
};

use roadstead_abi::check::mix;

/// A map with this hasher.
pub(crate) type Map<K, V> = HashMap<K, V, Seeded>;
/// A set with this hasher.
pub(crate) type Set<K> = HashSet<K, Seeded>;

/// Makes hashers that start with this process's seed.
#[derive(Clone, Debug)]
pub(crate) struct Seeded(u64);

impl Default for Seeded {
    fn default() -> Self {
        static SEED: OnceLock<u64> = OnceLock::new();
        Self(*SEED.get_or_init(|| RandomState::new().hash_one(0)))
    }
}

impl BuildHasher for Seeded {
    type Hasher = Folded;

    fn build_hasher(&self) -> Folded {
        Folded(self.0)
    }
}

/// The words so far.
pub(crate) struct Folded(u64);

impl Folded {
    fn fold(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

impl Hasher for Folded {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| self.fold(u64::from_ne_bytes(*word)));
        if !rest.is_empty() {
            let mut word = [0; 8];
            word.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
            self.fold(u64::from_ne_bytes(word));
        }
    }

    fn write_u8(&mut self, number: u8) {
        self.fold(u64::from(number));
    }

    fn write_u16(&mut self, number: u16) {
        self.fold(u64::from(number));
    }

    fn write_u32(&mut self, number: u32) {
        self.fold(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        self.fold(number);
    }

    fn write_usize(&mut self, number: usize) {
        self.fold(number as u64);
    }

    fn finish(&self) -> u64 {
        mix(self.0, 0)
    }
}

#[cfg(test)]
mod tests {
    use roadstead_abi::Addr;

    use super::*;

    #[test]
    fn neighbouring_addresses_fall_into_different_places() {
        let places: Set<u64> = (0..10_000_u32)
            .map(|host| Seeded::default().hash_one(Addr::v4((0x0a60_0000 + host).to_be_bytes())) >> 40)
            .collect();
        // 10,000 balls in 16,777,216 urns: 3 fall on another by chance.
        assert!(places.len() > 9_970, "{}", places.len());
    }
}
