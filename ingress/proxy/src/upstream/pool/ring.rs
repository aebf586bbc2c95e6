//! Consistent hashing: the ring for keys and cookies, and the sets that share a key.
//!
//! The ring is pingora-ketama, which places endpoints as nginx's `hash … consistent` does. Endpoints that come or go move only
//! the keys that they get or had.

use std::net::SocketAddr;

use md5::{Digest, Md5};
use pingora_ketama::{Bucket, Continuum, DEFAULT_POINT_MULTIPLE};

/// The ring of a pool's endpoints.
pub(super) struct Ring {
    continuum: Continuum,
    points: usize,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").field("points", &self.points).finish_non_exhaustive()
    }
}

impl Ring {
    pub(super) fn new(endpoints: impl Iterator<Item = SocketAddr>) -> Self {
        // The ring counts its nodes in 16 bits.
        let buckets: Vec<_> = endpoints.take(usize::from(u16::MAX)).map(|address| Bucket::new(address, 1)).collect();
        let points = buckets.len().saturating_mul(usize::try_from(DEFAULT_POINT_MULTIPLE).unwrap_or(1));
        Self { continuum: Continuum::new(&buckets), points }
    }

    /// The endpoints in the order in which they would take a key; with repetitions, but none is left out.
    pub(super) fn walk(&self, key: &[u8]) -> impl Iterator<Item = SocketAddr> {
        self.continuum.node_iter(key).take(self.points).copied()
    }
}

/// Which of `sets` a key belongs to, by a jump consistent hash (Lamping and Veach, 2014): one set more takes keys from all
/// others alike and moves none between them. `None` where there are no sets.
pub(super) fn set_of(key: &[u8], sets: usize) -> Option<usize> {
    let digest: [u8; 16] = Md5::digest(key).into();
    let mut state = u64::try_from(u128::from_be_bytes(digest) >> 64).unwrap_or_default();
    let sets = i64::try_from(sets).ok().filter(|sets| *sets > 0)?;
    let (mut chosen, mut next) = (0, 0_i64);
    while next < sets {
        chosen = next;
        state = state.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "as the algorithm is given")]
        let jumped = ((chosen + 1) as f64 * ((1_i64 << 31) as f64 / ((state >> 33) + 1) as f64)) as i64;
        next = jumped;
    }
    usize::try_from(chosen).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> impl Iterator<Item = String> {
        (0..10_000).map(|number| format!("key-{number}"))
    }

    #[test]
    fn one_set_more_takes_its_share_and_moves_nothing_else() {
        assert_eq!(set_of(b"key", 0), None);
        for sets in 1..20 {
            let mut moved = 0_usize;
            for key in keys() {
                let (before, after) = (set_of(key.as_bytes(), sets), set_of(key.as_bytes(), sets + 1));
                assert!(before == after || after == Some(sets), "{key} of {sets}");
                moved += usize::from(before != after);
            }
            let share = 10_000 / (sets + 1);
            assert!((share * 9 / 10..=share * 11 / 10).contains(&moved), "{moved} of {share}");
        }
    }

    #[test]
    fn a_walk_meets_every_endpoint() {
        let address = |last| SocketAddr::from(([10, 0, 0, last], 80));
        assert_eq!(Ring::new(std::iter::empty()).walk(b"key").next(), None);
        let ring = Ring::new((1..=9).map(address));
        for key in keys().take(100) {
            let mut met: Vec<_> = ring.walk(key.as_bytes()).collect();
            met.sort();
            met.dedup();
            assert_eq!(met.len(), 9, "{key}");
        }
    }
}
