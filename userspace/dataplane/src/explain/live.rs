//! The pinned maps of an agent, read one lookup at a time; whether the agent runs makes no difference.

use aya::maps::{Array, HashMap, LpmTrie, MapData, MapError as AyaMapError, lpm_trie::Key};
use nix::time::{ClockId, clock_gettime};
use roadstead_abi::{
    Addr, Affinity, AffinityKey, Backend, CLOCK_SHIFT, CtEntry, CtKey, NodeConfig, RangeData, SvcKey, SvcValue,
    map_names,
};

use super::{View, ViewError};
use crate::{
    clock::clock,
    maps::{MapError, open},
    pins::Pins,
};

/// The maps in the kernel, for reading.
pub struct KernelView {
    node: Array<MapData, NodeConfig>,
    services: HashMap<MapData, SvcKey, SvcValue>,
    slots: Array<MapData, u32>,
    backends: Array<MapData, Backend>,
    vips: HashMap<MapData, Addr, u32>,
    node_addresses: HashMap<MapData, Addr, u32>,
    networks: LpmTrie<MapData, Addr, u32>,
    ranges: LpmTrie<MapData, RangeData, u32>,
    conntrack: HashMap<MapData, CtKey, CtEntry>,
    affinity: HashMap<MapData, AffinityKey, Affinity>,
    clients: Array<MapData, u32>,
    filter: Array<MapData, u64>,
    now: u32,
}

impl KernelView {
    /// Opens the pinned maps.
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
            affinity: open(pins, map_names::AFFINITY)?,
            clients: open(pins, map_names::CLIENTS)?,
            filter: open(pins, map_names::FILTER)?,
            now: estimated_now(),
        })
    }

    /// Puts this time of the programs' clock in the place of an estimate, for whoever has asked the program that tells it.
    pub fn set_now(&mut self, now: u32) {
        self.now = now;
    }
}

/// The programs' clock, to about a unit: the kernel's count of timer ticks begins five minutes before it would overflow
/// 32 bits (`INITIAL_JIFFIES`), and advances with the monotonic clock.
fn estimated_now() -> u32 {
    let hz = u64::from(clock().hz);
    let since_boot = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |time| time.tv_sec());
    let first = u64::from(u32::MAX) + 1 - 300 * hz;
    let units = (first + u64::try_from(since_boot).unwrap_or(0) * hz) >> CLOCK_SHIFT;
    u32::try_from(units & u64::from(u32::MAX)).unwrap_or(u32::MAX)
}

/// What a lookup found; a key that is not there is no error.
fn found<T>(result: Result<T, AyaMapError>, map: &'static str) -> Result<Option<T>, ViewError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(AyaMapError::KeyNotFound | AyaMapError::OutOfBounds { .. }) => Ok(None),
        Err(AyaMapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(source) => Err(ViewError::Map(MapError { map, operation: "read", source: Box::new(source) })),
    }
}

impl View for KernelView {
    fn node(&self) -> Result<Option<NodeConfig>, ViewError> {
        found(self.node.get(&0, 0), map_names::NODE)
    }

    fn service(&self, key: &SvcKey) -> Result<Option<SvcValue>, ViewError> {
        found(self.services.get(key, 0), map_names::SERVICES)
    }

    fn slot(&self, index: u32) -> Result<Option<u32>, ViewError> {
        found(self.slots.get(&index, 0), map_names::SLOTS)
    }

    fn backend(&self, id: u32) -> Result<Option<Backend>, ViewError> {
        found(self.backends.get(&id, 0), map_names::BACKENDS)
    }

    fn vip(&self, addr: &Addr) -> Result<Option<u32>, ViewError> {
        found(self.vips.get(addr, 0), map_names::VIPS)
    }

    fn node_address(&self, addr: &Addr) -> Result<Option<u32>, ViewError> {
        found(self.node_addresses.get(addr, 0), map_names::NODE_ADDRESSES)
    }

    fn network(&self, addr: &Addr) -> Result<Option<u32>, ViewError> {
        found(self.networks.get(&Key::new(128, *addr), 0), map_names::NETWORKS)
    }

    fn range(&self, id: u32, addr: &Addr) -> Result<bool, ViewError> {
        let key = Key::new(RangeData::ID_BITS + 128, RangeData { id, addr: *addr });
        Ok(found(self.ranges.get(&key, 0), map_names::RANGES)?.is_some())
    }

    fn flow(&self, key: &CtKey) -> Result<Option<CtEntry>, ViewError> {
        found(self.conntrack.get(key, 0), map_names::CONNTRACK)
    }

    fn affinity(&self, key: &AffinityKey) -> Result<Option<Affinity>, ViewError> {
        found(self.affinity.get(key, 0), map_names::AFFINITY)
    }

    fn client(&self, mark: u32) -> Result<bool, ViewError> {
        Ok(found(self.clients.get(&mark, 0), map_names::CLIENTS)?.is_some_and(|mark| mark != 0))
    }

    fn filter(&self, bit: u32) -> Result<bool, ViewError> {
        Ok(found(self.filter.get(&(bit >> 6), 0), map_names::FILTER)?.is_some_and(|word| word >> (bit & 63) & 1 != 0))
    }

    fn now(&self) -> u32 {
        self.now
    }
}
