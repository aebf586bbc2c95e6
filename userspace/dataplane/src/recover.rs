//! Reading back what an earlier agent has programmed, so that ids are kept and nothing that is right is written again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use roadstead_abi::{Addr, SlotRange, SvcKey, SvcValue, limits};

use crate::{
    addresses::Prefix,
    filter::Filter,
    hash::Map,
    ids::Ids,
    maps::{MapError, Maps},
    node::HeldNode,
    reconcile::{Pending, Reconciler, Unclaimed, distinct, ranges_of},
    slots::Sets,
};

impl<M: Maps> Reconciler<M> {
    /// Reads back what an earlier agent has programmed.
    ///
    /// # Errors
    /// When a map cannot be read.
    pub fn recover(maps: M) -> Result<Self, MapError> {
        let services: Map<SvcKey, SvcValue> = maps.services()?.into_iter().collect();
        let vips: Map<Addr, u32> = maps.vips()?.into_iter().collect();
        let mut reconciler = Self {
            unclaimed: Unclaimed::of(&services, &vips),
            filter: Filter::recovered(&maps.filter()?),
            node: HeldNode::recover(&maps)?,
            sets: Sets::new(limits::SLOTS),
            backends: Ids::new(limits::BACKENDS),
            ports: Ids::new(limits::SERVICES),
            ranges: Ids::new(limits::RANGES),
            serving: Map::default(),
            pending: Pending::default(),
            retired: VecDeque::new(),
            unused_ranges: Map::default(),
            doomed: Vec::new(),
            writes: 0,
            lacks_room: false,
            services,
            vips,
            maps,
        };
        reconciler.recover_sets()?;
        reconciler.recover_ranges()?;
        let values: Vec<SvcValue> = reconciler.services.values().copied().collect();
        for value in &values {
            // Whose the number was shows when the frontend is desired again.
            reconciler.ports.reserve(value.service);
            reconciler.hold(value);
        }
        reconciler.recover_filter()?;
        Ok(reconciler)
    }

    /// The bits of what is there: another ABI version's maps came without them.
    fn recover_filter(&mut self) -> Result<(), MapError> {
        let addresses = self.services.keys().map(|key| &key.addr).chain(self.vips.keys());
        addresses.for_each(|addr| self.filter.add_frontend(addr));
        self.backends.names().for_each(|endpoint| self.filter.add_backend(endpoint));
        self.node.addresses.keys().for_each(|addr| self.filter.add_node(addr));
        self.filter.write(&mut self.maps)
    }

    fn recover_sets(&mut self) -> Result<(), MapError> {
        let ranges: BTreeSet<SlotRange> = self.services.values().flat_map(ranges_of).collect();
        let end = ranges.iter().map(|range| range.base.saturating_add(range.count)).max().unwrap_or(0);
        let slots = self.maps.slots(SlotRange { base: 0, count: end.min(limits::SLOTS) })?;
        let of_range = |range: &SlotRange| slots.get(range.base as usize..range.base as usize + range.count as usize);
        let last = ranges.iter().filter_map(of_range).flatten().max().copied();
        let backends = self.maps.backends(last.map_or(0, |last| last.saturating_add(1)).min(limits::BACKENDS))?;
        for range in &ranges {
            let Some(ids) = of_range(range) else { continue };
            // Ranges that overlap were written by a broken agent; their frontends are written anew.
            if !self.sets.claim(*range, ids) {
                continue;
            }
            for id in distinct(ids) {
                let backend = backends.get(id as usize).filter(|backend| backend.port.0 != 0);
                if !backend.is_some_and(|backend| self.backends.claim((backend.addr, backend.port), id)) {
                    self.backends.reserve(id);
                }
                self.backends.hold(id);
            }
        }
        Ok(())
    }

    fn recover_ranges(&mut self) -> Result<(), MapError> {
        let mut lists: BTreeMap<u32, Vec<Prefix>> = BTreeMap::new();
        for (id, range) in self.maps.ranges()? {
            lists.entry(id).or_default().push(range);
        }
        let used: BTreeSet<u32> = self.services.values().map(|value| value.ranges).collect();
        for (id, mut list) in lists {
            list.sort_unstable();
            if !self.ranges.claim(list.into(), id) {
                self.ranges.reserve(id);
            }
            if !used.contains(&id) {
                self.retire_ranges(id, std::time::Instant::now());
            }
        }
        Ok(())
    }
}
