//! Numbers for names: the ids of backends and of Service ports.

use std::collections::{BTreeMap, BTreeSet};

/// Names and their numbers, from 1 on; the lowest free one is given out.
#[derive(Debug)]
pub(crate) struct Ids<N> {
    by_name: BTreeMap<N, u32>,
    by_id: BTreeMap<u32, N>,
    /// Free numbers below `next`.
    free: BTreeSet<u32>,
    /// Every number from here on is free.
    next: u32,
}

impl<N> Default for Ids<N> {
    fn default() -> Self {
        Self { by_name: BTreeMap::new(), by_id: BTreeMap::new(), free: BTreeSet::new(), next: 1 }
    }
}

impl<N: Clone + Ord> Ids<N> {
    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Every number from here on is free.
    pub(crate) fn end(&self) -> u32 {
        self.next
    }

    pub(crate) fn id(&self, name: &N) -> Option<u32> {
        self.by_name.get(name).copied()
    }

    pub(crate) fn name(&self, id: u32) -> Option<&N> {
        self.by_id.get(&id)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &N> {
        self.by_name.keys()
    }

    /// Keeps a number from being given out; only [`Ids::claim`] takes it.
    pub(crate) fn reserve(&mut self, id: u32) {
        if id >= self.next {
            self.free.extend(self.next..id);
            self.next = id.saturating_add(1);
        } else {
            self.free.remove(&id);
        }
    }

    /// Takes this very number for a name, if neither has another partner.
    pub(crate) fn claim(&mut self, name: N, id: u32) -> bool {
        if id == 0 || self.by_id.contains_key(&id) || self.by_name.contains_key(&name) {
            return false;
        }
        self.reserve(id);
        self.by_id.insert(id, name.clone());
        self.by_name.insert(name, id);
        true
    }

    /// The lowest free number below `end`, for a name that has none.
    pub(crate) fn assign(&mut self, name: N, end: u32) -> Option<u32> {
        let id = self.free.first().copied().unwrap_or(self.next);
        (id < end && self.claim(name, id)).then_some(id)
    }

    pub(crate) fn release(&mut self, name: &N) {
        if let Some(id) = self.by_name.remove(name) {
            self.by_id.remove(&id);
            self.free.insert(id);
        }
    }

    pub(crate) fn retain(&mut self, keep: impl Fn(&N) -> bool) {
        let gone: Vec<N> = self.by_name.keys().filter(|name| !keep(name)).cloned().collect();
        for name in gone {
            self.release(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_free_number_is_given_out_and_reserved_ones_are_not() {
        let mut ids = Ids::default();
        ids.reserve(3);
        assert!(ids.claim("five", 5));
        let given: Vec<_> = ["a", "b", "c", "d"].into_iter().map(|name| ids.assign(name, 100)).collect();
        assert_eq!(given, [Some(1), Some(2), Some(4), Some(6)]);
        assert!(ids.claim("three", 3));
        ids.release(&"b");
        assert_eq!((ids.assign("e", 100), ids.assign("f", 8), ids.assign("g", 8)), (Some(2), Some(7), None));
        assert!(!ids.claim("again", 5) && !ids.claim("five", 50) && !ids.claim("zero", 0));
        ids.retain(|name| *name == "five");
        assert_eq!((ids.len(), ids.name(5), ids.id(&"five")), (1, Some(&"five"), Some(5)));
    }
}
