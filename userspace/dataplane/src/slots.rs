//! Which parts of the slot array are free: first fit over ranges, neighbours joined when they are given back.

use std::collections::BTreeMap;

use roadstead_abi::SlotRange;

/// Free ranges by their first slot.
#[derive(Clone, Debug)]
pub(crate) struct FreeSlots(BTreeMap<u32, u32>);

impl FreeSlots {
    /// All slots of an array of this size are free.
    pub(crate) fn new(size: u32) -> Self {
        Self(BTreeMap::from([(0, size)]))
    }

    /// Takes `count` consecutive slots, the lowest that fit; `None` when there are none.
    pub(crate) fn take(&mut self, count: u32) -> Option<SlotRange> {
        let (&base, &len) = self.0.iter().find(|&(_, &len)| len >= count)?;
        let range = SlotRange { base, count };
        self.split(base, len, range);
        Some(range)
    }

    /// Takes these very slots, for ranges found in the maps; whether all of them were free.
    pub(crate) fn claim(&mut self, range: SlotRange) -> bool {
        let Some((&base, &len)) = self.0.range(..=range.base).next_back() else { return false };
        let fits = u64::from(range.base) + u64::from(range.count) <= u64::from(base) + u64::from(len);
        if fits {
            self.split(base, len, range);
        }
        fits
    }

    /// Gives a range back.
    pub(crate) fn give_back(&mut self, range: SlotRange) {
        if range.count == 0 {
            return;
        }
        let (mut base, mut len) = (range.base, range.count);
        if let Some((&before, &before_len)) = self.0.range(..base).next_back()
            && before + before_len == base
        {
            self.0.remove(&before);
            (base, len) = (before, len + before_len);
        }
        if let Some(after_len) = self.0.remove(&(base + len)) {
            len += after_len;
        }
        self.0.insert(base, len);
    }

    fn split(&mut self, base: u32, len: u32, taken: SlotRange) {
        self.0.remove(&base);
        if taken.base > base {
            self.0.insert(base, taken.base - base);
        }
        let (end, taken_end) = (base + len, taken.base + taken.count);
        if end > taken_end {
            self.0.insert(taken_end, end - taken_end);
        }
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
