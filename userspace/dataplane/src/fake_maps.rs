//! Maps in memory that check every write, and fail by order.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
};

use roadstead_abi::{Addr, Backend, NodeConfig, SlotRange, SvcKey, SvcValue, scope};

use crate::{
    addresses::Prefix,
    filter::{self, WORDS},
    frontends::EndpointAddress,
    maps::{MapError, Maps},
    reconcile::ranges_of,
};

/// A frontend may only name slots, backends and source ranges that are there already, and bits of the filter must be set.
#[derive(Clone, Default)]
pub(crate) struct FakeMaps {
    pub(crate) services: BTreeMap<SvcKey, SvcValue>,
    pub(crate) slots: BTreeMap<u32, u32>,
    pub(crate) backends: BTreeMap<u32, Backend>,
    pub(crate) vips: BTreeMap<Addr, u32>,
    pub(crate) ranges: BTreeSet<(u32, Prefix)>,
    pub(crate) networks: BTreeMap<Prefix, u32>,
    pub(crate) node_addresses: BTreeMap<Addr, u32>,
    pub(crate) node: Option<NodeConfig>,
    pub(crate) filter: BTreeMap<u32, u64>,
    /// Writes until the next failure; 0 never fails.
    pub(crate) fail_in: Cell<u32>,
    pub(crate) writes: Cell<u32>,
}

impl FakeMaps {
    fn write(&self) -> Result<(), MapError> {
        self.writes.set(self.writes.get() + 1);
        if self.fail_in.get() == 0 {
            return Ok(());
        }
        self.fail_in.set(self.fail_in.get() - 1);
        if self.fail_in.get() == 0 {
            return Err(MapError { map: "FAKE", operation: "write", source: "ordered to fail".into() });
        }
        Ok(())
    }

    pub(crate) fn ids(&self, range: SlotRange) -> Vec<u32> {
        (range.base..range.base + range.count).map(|slot| self.slots[&slot]).collect()
    }

    /// The endpoints of a set, sorted.
    pub(crate) fn endpoints(&self, range: SlotRange) -> Vec<EndpointAddress> {
        let backends = self.ids(range).into_iter().map(|id| self.backends[&id]);
        let mut endpoints: Vec<_> = backends.map(|backend| (backend.addr, backend.port)).collect();
        endpoints.sort_unstable();
        endpoints
    }

    pub(crate) fn has_bit(&self, bit: u32) -> bool {
        self.filter.get(&(bit / 64)).is_some_and(|word| word & 1 << (bit % 64) != 0)
    }
}

impl Maps for FakeMaps {
    fn services(&self) -> Result<Vec<(SvcKey, SvcValue)>, MapError> {
        Ok(self.services.iter().map(|(key, value)| (*key, *value)).collect())
    }
    fn put_service(&mut self, key: &SvcKey, value: &SvcValue) -> Result<(), MapError> {
        self.write()?;
        assert_eq!(value.check & 0xffff, u32::from(key.check()));
        assert_ne!(self.services.get(key).map(|old| old.check), Some(value.check), "each write has another number");
        assert!(key.scope != scope::ADDRESS || self.has_bit(filter::frontend(&key.addr)));
        for range in ranges_of(value) {
            for endpoint in self.endpoints(range) {
                assert_ne!(endpoint.1.0, 0, "a frontend names a free backend");
                assert!(self.has_bit(filter::backend(&endpoint)));
            }
        }
        for members in [value.cluster.members, value.local.members] {
            assert!(self.ids(members).is_sorted(), "programs search the members");
        }
        assert!(value.ranges == 0 || self.ranges.iter().any(|(id, _)| *id == value.ranges));
        self.services.insert(*key, *value);
        Ok(())
    }
    fn remove_service(&mut self, key: &SvcKey) -> Result<(), MapError> {
        self.write()?;
        self.services.remove(key);
        Ok(())
    }
    fn slots(&self, range: SlotRange) -> Result<Vec<u32>, MapError> {
        let slot = |slot| self.slots.get(&slot).copied().unwrap_or_default();
        Ok((range.base..range.base + range.count).map(slot).collect())
    }
    fn put_slots(&mut self, base: u32, ids: &[u32]) -> Result<(), MapError> {
        self.write()?;
        for (slot, id) in (base..).zip(ids) {
            for range in self.services.values().flat_map(ranges_of) {
                assert!(slot < range.base || slot >= range.base + range.count, "slot {slot} is in use");
            }
            self.slots.insert(slot, *id);
        }
        Ok(())
    }
    fn backend(&self, id: u32) -> Result<Backend, MapError> {
        Ok(self.backends.get(&id).copied().unwrap_or_default())
    }
    fn put_backend(&mut self, id: u32, backend: &Backend) -> Result<(), MapError> {
        self.write()?;
        for range in self.services.values().flat_map(ranges_of) {
            assert!(!self.ids(range).contains(&id), "backend {id} is in use");
        }
        self.backends.insert(id, *backend);
        Ok(())
    }
    fn vips(&self) -> Result<Vec<(Addr, u32)>, MapError> {
        Ok(self.vips.iter().map(|(addr, kind)| (*addr, *kind)).collect())
    }
    fn put_vip(&mut self, addr: &Addr, kind: u32) -> Result<(), MapError> {
        self.write()?;
        assert!(self.has_bit(filter::frontend(addr)));
        self.vips.insert(*addr, kind);
        Ok(())
    }
    fn remove_vip(&mut self, addr: &Addr) -> Result<(), MapError> {
        self.write()?;
        self.vips.remove(addr);
        Ok(())
    }
    fn ranges(&self) -> Result<Vec<(u32, Prefix)>, MapError> {
        Ok(self.ranges.iter().copied().collect())
    }
    fn put_range(&mut self, id: u32, range: &Prefix) -> Result<(), MapError> {
        self.write()?;
        assert!(self.services.values().all(|value| value.ranges != id), "the list {id} is in use");
        self.ranges.insert((id, *range));
        Ok(())
    }
    fn remove_range(&mut self, id: u32, range: &Prefix) -> Result<(), MapError> {
        self.write()?;
        assert!(self.services.values().all(|value| value.ranges != id), "the list {id} is in use");
        self.ranges.remove(&(id, *range));
        Ok(())
    }
    fn networks(&self) -> Result<Vec<(Prefix, u32)>, MapError> {
        Ok(self.networks.iter().map(|(network, flags)| (*network, *flags)).collect())
    }
    fn put_network(&mut self, network: &Prefix, flags: u32) -> Result<(), MapError> {
        self.write()?;
        self.networks.insert(*network, flags);
        Ok(())
    }
    fn remove_network(&mut self, network: &Prefix) -> Result<(), MapError> {
        self.write()?;
        self.networks.remove(network);
        Ok(())
    }
    fn node_addresses(&self) -> Result<Vec<(Addr, u32)>, MapError> {
        Ok(self.node_addresses.iter().map(|(addr, flags)| (*addr, *flags)).collect())
    }
    fn put_node_address(&mut self, addr: &Addr, flags: u32) -> Result<(), MapError> {
        self.write()?;
        assert!(self.has_bit(filter::node(addr)));
        self.node_addresses.insert(*addr, flags);
        Ok(())
    }
    fn remove_node_address(&mut self, addr: &Addr) -> Result<(), MapError> {
        self.write()?;
        self.node_addresses.remove(addr);
        Ok(())
    }
    fn filter(&self) -> Result<Vec<u64>, MapError> {
        let mut words = vec![0; WORDS];
        self.filter.iter().for_each(|(index, word)| words[*index as usize] = *word);
        Ok(words)
    }
    fn put_filter(&mut self, words: &[(u32, u64)]) -> Result<(), MapError> {
        self.write()?;
        self.filter.extend(words.iter().copied());
        Ok(())
    }
    fn put_node(&mut self, node: &NodeConfig) -> Result<(), MapError> {
        self.write()?;
        self.node = Some(*node);
        Ok(())
    }
}
