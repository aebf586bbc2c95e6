//! The slot array: which parts of it are free, and which sets of backends stand in the others.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use roadstead_abi::SlotRange;

use crate::hash::Map;

/// Sets of backend ids, each written once: frontends with equal sets share their slots.
#[derive(Debug)]
pub(crate) struct Sets {
    free: FreeSlots,
    by_ids: Map<Arc<[u32]>, SlotRange>,
    by_range: Map<SlotRange, Held>,
    slots: usize,
    /// Slots in use beyond which there is no room for tables: a Service without one is served still.
    table_end: usize,
}

#[derive(Debug)]
struct Held {
    ids: Arc<[u32]>,
    /// Frontends that name the set.
    holders: u32,
    /// Since when nobody does.
    unused: Option<Instant>,
}

impl Sets {
    /// An array of this size without any set.
    pub(crate) fn new(size: u32) -> Self {
        let table_end = (size - size / 8) as usize;
        Self { free: FreeSlots::new(size), by_ids: Map::default(), by_range: Map::default(), slots: 0, table_end }
    }

    /// Makes room for so many more sets.
    pub(crate) fn reserve(&mut self, sets: usize) {
        self.by_ids.reserve(sets);
        self.by_range.reserve(sets);
    }

    /// Slots in use.
    pub(crate) fn slots(&self) -> usize {
        self.slots
    }

    /// Where a set stands.
    pub(crate) fn find(&self, ids: &[u32]) -> Option<SlotRange> {
        self.by_ids.get(ids).copied()
    }

    /// The ids of a set.
    pub(crate) fn ids(&self, range: SlotRange) -> Option<&Arc<[u32]>> {
        self.by_range.get(&range).map(|held| &held.ids)
    }

    /// Takes slots for a set that stands nowhere yet; `None` when there are none.
    pub(crate) fn add(&mut self, ids: &[u32]) -> Option<SlotRange> {
        let range = self.free.take(u32::try_from(ids.len()).ok()?)?;
        self.insert(range, ids.into());
        Some(range)
    }

    /// Whether a table of this length may be added.
    pub(crate) fn has_room_for_table(&self, len: usize) -> bool {
        self.slots + len <= self.table_end
    }

    /// Takes these very slots, for a set found in the maps; whether all of them were free.
    pub(crate) fn claim(&mut self, range: SlotRange, ids: &[u32]) -> bool {
        let is_free = self.free.claim(range);
        if is_free {
            self.insert(range, ids.into());
        }
        is_free
    }

    fn insert(&mut self, range: SlotRange, ids: Arc<[u32]>) {
        self.slots += ids.len();
        // Of two equal sets that were found in the maps, the first is used.
        self.by_ids.entry(Arc::clone(&ids)).or_insert(range);
        self.by_range.insert(range, Held { ids, holders: 0, unused: None });
    }

    /// One more frontend names the set.
    pub(crate) fn hold(&mut self, range: SlotRange) {
        if let Some(held) = self.by_range.get_mut(&range) {
            held.holders += 1;
            held.unused = None;
        }
    }

    /// One less does; whether nobody does since `now`.
    pub(crate) fn let_go(&mut self, range: SlotRange, now: Instant) -> bool {
        let Some(held) = self.by_range.get_mut(&range) else { return false };
        held.holders = held.holders.saturating_sub(1);
        if held.holders == 0 {
            held.unused = Some(now);
        }
        held.holders == 0
    }

    pub(crate) fn is_held(&self, range: SlotRange) -> bool {
        self.by_range.get(&range).is_some_and(|held| held.holders > 0)
    }

    /// Whether nobody has named the set since this very moment.
    pub(crate) fn is_unused_since(&self, range: SlotRange, since: Instant) -> bool {
        self.by_range.get(&range).is_some_and(|held| held.unused == Some(since))
    }

    /// Gives the slots of a set back; its ids.
    pub(crate) fn remove(&mut self, range: SlotRange) -> Option<Arc<[u32]>> {
        let ids = self.by_range.remove(&range)?.ids;
        if self.by_ids.get(&ids) == Some(&range) {
            self.by_ids.remove(&ids);
        }
        self.slots -= ids.len();
        self.free.give_back(range);
        Some(ids)
    }
}

/// Free ranges by their first slot and by their length; neighbours are joined when they are given back.
#[derive(Clone, Debug)]
struct FreeSlots {
    by_base: BTreeMap<u32, u32>,
    by_len: BTreeSet<(u32, u32)>,
}

impl FreeSlots {
    /// All slots of an array of this size are free.
    fn new(size: u32) -> Self {
        Self { by_base: BTreeMap::from([(0, size)]), by_len: BTreeSet::from([(size, 0)]) }
    }

    /// Takes `count` consecutive slots, out of the shortest range that has them; `None` when there is none.
    fn take(&mut self, count: u32) -> Option<SlotRange> {
        let &(len, base) = self.by_len.range((count, 0)..).next()?;
        let range = SlotRange { base, count };
        self.split(base, len, range);
        Some(range)
    }

    /// Takes these very slots; whether all of them were free.
    fn claim(&mut self, range: SlotRange) -> bool {
        let Some((&base, &len)) = self.by_base.range(..=range.base).next_back() else { return false };
        let fits = u64::from(range.base) + u64::from(range.count) <= u64::from(base) + u64::from(len);
        if fits {
            self.split(base, len, range);
        }
        fits
    }

    /// Gives a range back.
    fn give_back(&mut self, range: SlotRange) {
        if range.count == 0 {
            return;
        }
        let (mut base, mut len) = (range.base, range.count);
        if let Some((&before, &before_len)) = self.by_base.range(..base).next_back()
            && before + before_len == base
        {
            self.remove(before, before_len);
            (base, len) = (before, len + before_len);
        }
        if let Some(&after_len) = self.by_base.get(&(base + len)) {
            self.remove(base + len, after_len);
            len += after_len;
        }
        self.insert(base, len);
    }

    fn split(&mut self, base: u32, len: u32, taken: SlotRange) {
        self.remove(base, len);
        self.insert(base, taken.base - base);
        let (end, taken_end) = (base + len, taken.base + taken.count);
        self.insert(taken_end, end - taken_end);
    }

    fn insert(&mut self, base: u32, len: u32) {
        if len > 0 {
            self.by_base.insert(base, len);
            self.by_len.insert((len, base));
        }
    }

    fn remove(&mut self, base: u32, len: u32) {
        self.by_base.remove(&base);
        self.by_len.remove(&(len, base));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_are_claimed_only_once() {
        let mut free = FreeSlots::new(10);
        assert!(free.claim(SlotRange { base: 4, count: 3 }));
        assert!(!free.claim(SlotRange { base: 6, count: 1 }));
        assert!(!free.claim(SlotRange { base: 8, count: 3 }));
        assert_eq!(free.take(4), Some(SlotRange { base: 0, count: 4 }));
        assert_eq!(free.take(4), None);
        assert_eq!(free.take(3), Some(SlotRange { base: 7, count: 3 }));
    }

    #[test]
    fn a_set_stands_once_and_goes_when_nobody_names_it() {
        let (mut sets, now) = (Sets::new(100), Instant::now());
        let range = sets.add(&[1, 2, 3]).unwrap();
        assert_eq!(sets.find(&[1, 2, 3]), Some(range));
        sets.hold(range);
        sets.hold(range);
        assert!(!sets.let_go(range, now) && sets.is_held(range));
        assert!(sets.let_go(range, now) && sets.is_unused_since(range, now));
        sets.hold(range);
        assert!(!sets.is_unused_since(range, now), "somebody names it again");
        assert_eq!(sets.slots(), 3);
        assert_eq!(sets.remove(range).as_deref(), Some([1, 2, 3].as_slice()));
        assert_eq!((sets.find(&[1, 2, 3]), sets.slots()), (None, 0));
    }

    proptest! {
        #[test]
        fn taken_ranges_never_overlap_and_all_space_comes_back(steps in proptest::collection::vec((1..40_u32, any::<bool>()), 1..200)) {
            let mut free = FreeSlots::new(500);
            let mut taken: Vec<SlotRange> = Vec::new();
            for (count, give_back) in steps {
                if give_back && !taken.is_empty() {
                    free.give_back(taken.swap_remove(count as usize % taken.len()));
                    continue;
                }
                if let Some(range) = free.take(count) {
                    prop_assert!(range.base + range.count <= 500);
                    for other in &taken {
                        prop_assert!(range.base + range.count <= other.base || other.base + other.count <= range.base);
                    }
                    taken.push(range);
                }
            }
            for range in taken {
                free.give_back(range);
            }
            prop_assert_eq!(free.take(500), Some(SlotRange { base: 0, count: 500 }));
        }
    }
}
