//! Filling the pinned maps with a state of a test's own, past the reconciler: for the differential test.

use aya::{
    Pod,
    maps::{Array, HashMap, LpmTrie, MapData, MapError as AyaMapError, PerCpuHashMap, lpm_trie::Key},
};
use roadstead_abi::{
    Addr, Affinity, AffinityKey, Backend, CtEntry, CtKey, DropKey, NodeConfig, RangeData, SvcKey, SvcValue, limits,
    map_names,
};

use roadstead_datapath::select;

use crate::{
    explain::MemoryView,
    maps::{MapError, open},
    pins::Pins,
};

/// The maps that a verdict depends on, for writing.
pub struct TestMaps {
    node: Array<MapData, NodeConfig>,
    services: HashMap<MapData, SvcKey, SvcValue>,
    slots: Array<MapData, u32>,
    backends: Array<MapData, Backend>,
    vips: HashMap<MapData, Addr, u32>,
    node_addresses: HashMap<MapData, Addr, u32>,
    networks: LpmTrie<MapData, Addr, u32>,
    ranges: LpmTrie<MapData, RangeData, u32>,
    conntrack: HashMap<MapData, CtKey, CtEntry>,
    clients: Array<MapData, u32>,
    affinity: HashMap<MapData, AffinityKey, Affinity>,
    filter: Array<MapData, u64>,
    uplinks: HashMap<MapData, u32, u32>,
    drops: PerCpuHashMap<MapData, DropKey, u64>,
    /// Words of the filter that are not zero.
    written: Vec<u32>,
    /// Marks that are set.
    marked: Vec<u32>,
}

impl TestMaps {
    /// Opens the pinned maps and empties the filter.
    ///
    /// # Errors
    /// When one is not there.
    pub fn open(pins: &Pins) -> Result<Self, MapError> {
        Ok(Self {
            node: open(pins, map_names::NODE)?,
            services: open(pins, map_names::SERVICES)?,
            slots: open(pins, map_names::SLOTS)?,
            backends: open(pins, map_names::BACKENDS)?,
            vips: open(pins, map_names::VIPS)?,
            node_addresses: open(pins, map_names::NODE_ADDRESSES)?,
            networks: open(pins, map_names::NETWORKS)?,
            ranges: open(pins, map_names::RANGES)?,
            conntrack: open(pins, map_names::CONNTRACK)?,
            clients: open(pins, map_names::CLIENTS)?,
            affinity: open(pins, map_names::AFFINITY)?,
            filter: open(pins, map_names::FILTER)?,
            uplinks: open(pins, map_names::UPLINKS)?,
            drops: open(pins, map_names::DROPS)?,
            written: (0..limits::FILTER_BITS / 64).collect(),
            marked: (0..limits::CLIENTS).collect(),
        })
    }

    /// Puts a state in the place of whatever the maps hold; slots and backends behind its own stay.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn fill(&mut self, state: &MemoryView, uplinks: &[u32]) -> Result<(), MapError> {
        self.try_fill(state, uplinks).map_err(|source| MapError {
            map: "of the test",
            operation: "fill",
            source: Box::new(source),
        })
    }

    fn try_fill(&mut self, state: &MemoryView, uplinks: &[u32]) -> Result<(), AyaMapError> {
        replace(&mut self.services, state.services.iter().map(|(key, value)| (*key, *value)))?;
        replace(&mut self.vips, state.vips.iter().map(|(key, value)| (*key, *value)))?;
        replace(&mut self.node_addresses, state.node_addresses.iter().map(|(key, value)| (*key, *value)))?;
        replace(&mut self.conntrack, state.flows.iter().map(|(key, value)| (*key, *value)))?;
        self.mark_clients(state.flows.keys())?;
        replace(&mut self.affinity, state.affinities.iter().map(|(key, value)| (*key, *value)))?;
        replace(&mut self.uplinks, uplinks.iter().map(|index| (*index, 1)))?;
        replace_trie(
            &mut self.networks,
            state.networks.iter().map(|(addr, bits, flags)| (Key::new(*bits, *addr), *flags)),
        )?;
        let ranges = state
            .ranges
            .iter()
            .map(|(id, addr, bits)| (Key::new(RangeData::ID_BITS + bits, RangeData { id: *id, addr: *addr }), 1));
        replace_trie(&mut self.ranges, ranges)?;
        for (index, id) in (0..).zip(&state.slots) {
            self.slots.set(index, id, 0)?;
        }
        for (index, backend) in (0..).zip(&state.backends) {
            self.backends.set(index, backend, 0)?;
        }
        for index in self.written.drain(..) {
            self.filter.set(index, 0, 0)?;
        }
        for (index, word) in &state.filter {
            self.filter.set(*index, word, 0)?;
            self.written.push(*index);
        }
        let counted: Vec<_> = self.drops.keys().collect::<Result<_, _>>()?;
        counted.iter().try_for_each(|key| self.drops.remove(key))?;
        self.node.set(0, state.node.unwrap_or_default(), 0)
    }
}

impl TestMaps {
    /// Marks exactly the clients of these flows, as the programs do when they create one.
    fn mark_clients<'a>(&mut self, flows: impl Iterator<Item = &'a CtKey>) -> Result<(), AyaMapError> {
        for mark in self.marked.drain(..) {
            self.clients.set(mark, 0, 0)?;
        }
        // Both directions' keys: what is marked in vain costs a lookup, as an answer of the filter in error.
        self.marked.extend(flows.map(|key| select::client_mark(&key.dst, key.dport)));
        self.marked.iter().try_for_each(|mark| self.clients.set(*mark, 1, 0))
    }
}

fn replace<K: Pod, V: Pod>(
    map: &mut HashMap<MapData, K, V>,
    entries: impl Iterator<Item = (K, V)>,
) -> Result<(), AyaMapError> {
    let old: Vec<_> = map.keys().collect::<Result<_, _>>()?;
    old.iter().try_for_each(|key| map.remove(key))?;
    entries.into_iter().try_for_each(|(key, value)| map.insert(key, value, 0))
}

fn replace_trie<K: Pod, V: Pod>(
    map: &mut LpmTrie<MapData, K, V>,
    entries: impl Iterator<Item = (Key<K>, V)>,
) -> Result<(), AyaMapError> {
    let old: Vec<_> = map.keys().collect::<Result<_, _>>()?;
    old.iter().try_for_each(|key| map.remove(key))?;
    entries.into_iter().try_for_each(|(key, value)| map.insert(&key, value, 0))
}
