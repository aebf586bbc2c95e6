//! Numbers for names: the ids of backends, of Service ports and of lists of source ranges, with a count of who uses them.

use std::{collections::BTreeSet, hash::Hash};

use crate::hash::Map;

/// Names and their numbers, from 1 on; the lowest free one is given out.
#[derive(Debug)]
pub(crate) struct Ids<N> {
    by_name: Map<N, u32>,
    /// By number; the first is nobody's.
    entries: Vec<Entry<N>>,
    /// Free numbers below the number of entries. Every number from there on is free.
    free: BTreeSet<u32>,
    /// No number from here on is given out.
    end: u32,
}

#[derive(Debug)]
struct Entry<N> {
    /// Unknown for a number that is reserved, and for a free one.
    name: Option<N>,
    holders: u32,
}

impl<N> Default for Entry<N> {
    fn default() -> Self {
        Self { name: None, holders: 0 }
    }
}

impl<N: Clone + Eq + Hash> Ids<N> {
    pub(crate) fn new(end: u32) -> Self {
        Self { by_name: Map::default(), entries: vec![Entry::default()], free: BTreeSet::new(), end }
    }

    /// Makes room for so many more.
    pub(crate) fn reserve_room(&mut self, names: usize) {
        self.by_name.reserve(names);
        self.entries.reserve(names);
    }

    pub(crate) fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Every number from here on is free.
    pub(crate) fn end(&self) -> u32 {
        self.count()
    }

    pub(crate) fn id(&self, name: &N) -> Option<u32> {
        self.by_name.get(name).copied()
    }

    pub(crate) fn name(&self, id: u32) -> Option<&N> {
        self.entry(id)?.name.as_ref()
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &N> {
        self.entries.iter().filter_map(|entry| entry.name.as_ref())
    }

    /// Keeps a number from being given out; only [`Ids::claim`] takes it.
    pub(crate) fn reserve(&mut self, id: u32) {
        if id >= self.end || self.free.remove(&id) {
            return;
        }
        for skipped in self.count()..id {
            self.free.insert(skipped);
            self.entries.push(Entry::default());
        }
        if id == self.count() {
            self.entries.push(Entry::default());
        }
    }

    /// Takes this very number for a name, if neither has another partner.
    pub(crate) fn claim(&mut self, name: N, id: u32) -> bool {
        if id == 0 || id >= self.end || self.name(id).is_some() || self.by_name.contains_key(&name) {
            return false;
        }
        self.reserve(id);
        if let Some(entry) = self.entry_mut(id) {
            entry.name = Some(name.clone());
        }
        self.by_name.insert(name, id);
        true
    }

    /// The lowest free number, for a name that has none.
    pub(crate) fn assign(&mut self, name: N) -> Option<u32> {
        let id = self.free.first().copied().unwrap_or_else(|| self.count());
        self.claim(name, id).then_some(id)
    }

    /// Frees a number, and forgets its name.
    pub(crate) fn release(&mut self, id: u32) {
        if id == 0 || id >= self.count() {
            return;
        }
        if let Some(name) = self.entry_mut(id).and_then(|entry| entry.name.take()) {
            self.by_name.remove(&name);
        }
        self.free.insert(id);
    }

    /// One more uses the number.
    pub(crate) fn hold(&mut self, id: u32) {
        if let Some(entry) = self.entry_mut(id) {
            entry.holders += 1;
        }
    }

    /// One less uses it; whether nobody does any more.
    pub(crate) fn let_go(&mut self, id: u32) -> bool {
        let Some(entry) = self.entry_mut(id) else { return false };
        entry.holders = entry.holders.saturating_sub(1);
        entry.holders == 0
    }

    pub(crate) fn is_held(&self, id: u32) -> bool {
        self.entry(id).is_some_and(|entry| entry.holders > 0)
    }

    fn count(&self) -> u32 {
        u32::try_from(self.entries.len()).unwrap_or(u32::MAX)
    }

    fn entry(&self, id: u32) -> Option<&Entry<N>> {
        self.entries.get(usize::try_from(id).ok()?)
    }

    fn entry_mut(&mut self, id: u32) -> Option<&mut Entry<N>> {
        self.entries.get_mut(usize::try_from(id).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_free_number_is_given_out_and_reserved_ones_are_not() {
        let mut ids = Ids::new(9);
        ids.reserve(3);
        ids.reserve(4_000_000_000);
        assert!(ids.claim("five", 5));
        let given: Vec<_> = ["a", "b", "c", "d"].into_iter().map(|name| ids.assign(name)).collect();
        assert_eq!(given, [Some(1), Some(2), Some(4), Some(6)]);
        assert!(ids.claim("three", 3));
        ids.release(2);
        assert_eq!((ids.assign("e"), ids.assign("f"), ids.assign("g")), (Some(2), Some(7), Some(8)));
        assert_eq!(ids.assign("h"), None, "the end");
        assert!(!ids.claim("again", 5) && !ids.claim("five", 8) && !ids.claim("zero", 0));
        assert_eq!((ids.len(), ids.name(5), ids.id(&"five")), (8, Some(&"five"), Some(5)));
    }

    #[test]
    fn a_number_is_free_when_its_last_holder_lets_go() {
        let mut ids = Ids::new(9);
        let id = ids.assign("a").unwrap();
        ids.hold(id);
        ids.hold(id);
        assert_eq!((ids.let_go(id), ids.is_held(id), ids.let_go(id), ids.is_held(id)), (false, true, true, false));
    }
}
