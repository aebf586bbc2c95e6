//! The maps in the kernel. Elements are written in batches where there are many (BPF_MAP_UPDATE_BATCH, kernel 5.6 and
//! later), one by one where the kernel knows no batches.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd},
    sync::Arc,
};

use aya::{
    Pod,
    maps::{
        Array, HashMap, IterableMap, LpmTrie, MapData, MapError as AyaMapError, PerCpuArray, PerCpuHashMap,
        lpm_trie::Key,
    },
};
use roadstead_abi::{
    Addr, Affinity, AffinityKey, Backend, Counters, CtEntry, CtKey, DropKey, NodeConfig, Peer, RangeData, SlotRange,
    SvcKey, SvcValue, UdpReverseKey, limits, map_names,
};

use crate::{
    addresses::Prefix,
    maps::{MapError, Maps, Stopped, one_by_one},
    pins::Pins,
    syscall::{self, BatchError},
};

/// So few elements are written one by one.
const FEW: usize = 4;

/// The maps in the kernel.
pub struct KernelMaps {
    services: HashMap<MapData, SvcKey, SvcValue>,
    slots: Array<MapData, u32>,
    backends: Array<MapData, Backend>,
    vips: HashMap<MapData, Addr, u32>,
    ranges: LpmTrie<MapData, RangeData, u32>,
    networks: LpmTrie<MapData, Addr, u32>,
    node_addresses: HashMap<MapData, Addr, u32>,
    filter: Array<MapData, u64>,
    node: Array<MapData, NodeConfig>,
}

/// Maps that only daemons' housekeeping touches.
pub struct FlowMaps {
    /// Conntrack.
    pub conntrack: HashMap<MapData, CtKey, CtEntry>,
    /// Marks of the clients that flows may have.
    pub clients: Array<MapData, u32>,
    /// Clients that keep their backend.
    pub affinity: HashMap<MapData, AffinityKey, Affinity>,
    /// What UDP sockets asked for.
    pub udp_reverse: HashMap<MapData, UdpReverseKey, Peer>,
    /// Drop counters.
    pub drops: PerCpuHashMap<MapData, DropKey, u64>,
    /// Traffic by Service port.
    pub service_counters: PerCpuArray<MapData, Counters>,
    /// Traffic by backend.
    pub backend_counters: PerCpuArray<MapData, Counters>,
    /// Devices with programs attached.
    pub uplinks: HashMap<MapData, u32, u32>,
}

impl KernelMaps {
    /// Takes the maps out of the loaded object.
    ///
    /// # Errors
    /// When a map is missing or of another type: the object and this crate are then of two versions.
    pub fn take(ebpf: &mut aya::Ebpf) -> Result<(Self, FlowMaps), MapError> {
        Self::from(|name| ebpf.take_map(name).ok_or_else(|| AyaMapError::InvalidName { name: name.to_owned() }))
    }

    /// Makes maps that no program uses, for benchmarks and tests of the reconciler.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn standalone() -> Result<Self, MapError> {
        const NO_PREALLOC: u32 = 1;
        let new = |name| failed(name, "make");
        Ok(Self {
            services: HashMap::create(limits::SERVICES, NO_PREALLOC).map_err(new(map_names::SERVICES))?,
            slots: Array::create(limits::SLOTS, 0).map_err(new(map_names::SLOTS))?,
            backends: Array::create(limits::BACKENDS, 0).map_err(new(map_names::BACKENDS))?,
            vips: HashMap::create(limits::VIPS, NO_PREALLOC).map_err(new(map_names::VIPS))?,
            ranges: LpmTrie::create(limits::RANGES, NO_PREALLOC).map_err(new(map_names::RANGES))?,
            networks: LpmTrie::create(limits::NETWORKS, NO_PREALLOC).map_err(new(map_names::NETWORKS))?,
            node_addresses: HashMap::create(limits::NODE_ADDRESSES, 0).map_err(new(map_names::NODE_ADDRESSES))?,
            filter: Array::create(limits::FILTER_BITS / 64, 0).map_err(new(map_names::FILTER))?,
            node: Array::create(1, 0).map_err(new(map_names::NODE))?,
        })
    }

    /// Opens the maps that an agent has pinned, running or not.
    ///
    /// # Errors
    /// When one is not there.
    pub fn open(pins: &Pins) -> Result<(Self, FlowMaps), MapError> {
        Self::from(|name| pinned(pins, name))
    }

    fn from(
        mut find: impl FnMut(&'static str) -> Result<aya::maps::Map, AyaMapError>,
    ) -> Result<(Self, FlowMaps), MapError> {
        let maps = Self {
            services: typed(&mut find, map_names::SERVICES)?,
            slots: typed(&mut find, map_names::SLOTS)?,
            backends: typed(&mut find, map_names::BACKENDS)?,
            vips: typed(&mut find, map_names::VIPS)?,
            ranges: typed(&mut find, map_names::RANGES)?,
            networks: typed(&mut find, map_names::NETWORKS)?,
            node_addresses: typed(&mut find, map_names::NODE_ADDRESSES)?,
            filter: typed(&mut find, map_names::FILTER)?,
            node: typed(&mut find, map_names::NODE)?,
        };
        let flows = FlowMaps {
            conntrack: typed(&mut find, map_names::CONNTRACK)?,
            clients: typed(&mut find, map_names::CLIENTS)?,
            affinity: typed(&mut find, map_names::AFFINITY)?,
            udp_reverse: typed(&mut find, map_names::UDP_REVERSE)?,
            drops: typed(&mut find, map_names::DROPS)?,
            service_counters: typed(&mut find, map_names::SERVICE_COUNTERS)?,
            backend_counters: typed(&mut find, map_names::BACKEND_COUNTERS)?,
            uplinks: typed(&mut find, map_names::UPLINKS)?,
        };
        Ok((maps, flows))
    }
}

/// Opens one pinned map by its name.
///
/// # Errors
/// When it is not there, or of another type.
pub fn open<T>(pins: &Pins, name: &'static str) -> Result<T, MapError>
where
    T: TryFrom<aya::maps::Map, Error = AyaMapError>,
{
    typed(&mut |name| pinned(pins, name), name)
}

fn pinned(pins: &Pins, name: &str) -> Result<aya::maps::Map, AyaMapError> {
    aya::maps::Map::from_map_data(MapData::from_pin(pins.maps().join(name))?)
}

fn typed<T>(
    find: &mut impl FnMut(&'static str) -> Result<aya::maps::Map, AyaMapError>,
    name: &'static str,
) -> Result<T, MapError>
where
    T: TryFrom<aya::maps::Map, Error = AyaMapError>,
{
    T::try_from(find(name).map_err(failed(name, "find"))?).map_err(failed(name, "open"))
}

fn failed(map: &'static str, operation: &'static str) -> impl FnOnce(AyaMapError) -> MapError {
    move |source| MapError { map, operation, source: Box::new(source) }
}

/// A key that is not there is removed already.
fn removed(result: Result<(), AyaMapError>, map: &'static str) -> Result<(), MapError> {
    match result {
        Err(AyaMapError::KeyNotFound) => Ok(()),
        Err(AyaMapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other.map_err(failed(map, "remove from")),
    }
}

fn fd<K: Pod, V>(map: &impl IterableMap<K, V>) -> BorrowedFd<'_> {
    map.map().fd().as_fd()
}

/// Writes a batch; whether the kernel knows how.
fn write_batch<K: Pod, V: Pod>(
    fd: BorrowedFd<'_>,
    map: &'static str,
    keys: &[K],
    values: &[V],
) -> Result<bool, Stopped> {
    match syscall::update_batch(fd, keys, values) {
        Ok(()) => Ok(true),
        Err(BatchError::Unsupported) => Ok(false),
        Err(BatchError::Stopped { written, error }) => {
            Err(Stopped { written, error: MapError { map, operation: "write", source: Box::new(error) } })
        }
    }
}

/// Reads elements in a batch; `None` where the kernel does not know how.
fn read_batch<K: Pod, V: Pod>(
    fd: BorrowedFd<'_>,
    map: &'static str,
    after: Option<K>,
    most: usize,
) -> Result<Option<Vec<(K, V)>>, MapError> {
    let refused = |error: io::Error| MapError { map, operation: "read", source: Box::new(error) };
    match syscall::lookup_batch(fd, after, most) {
        Ok(elements) => Ok(Some(elements)),
        Err(BatchError::Unsupported) => Ok(None),
        Err(BatchError::Stopped { error, .. }) => Err(refused(error)),
    }
}

/// Reads a part of an array.
fn read_array<V: Pod>(
    array: &Array<MapData, V>,
    map: &'static str,
    first: u32,
    count: u32,
) -> Result<Vec<V>, MapError> {
    if count as usize > FEW
        && let Some(elements) = read_batch::<u32, V>(fd(array), map, first.checked_sub(1), count as usize)?
    {
        return Ok(elements.into_iter().map(|(_, value)| value).collect());
    }
    (first..first.saturating_add(count)).map(|index| array.get(&index, 0).map_err(failed(map, "read"))).collect()
}

/// Reads a whole hash.
fn read_hash<K: Pod, V: Pod>(hash: &HashMap<MapData, K, V>, map: &'static str) -> Result<Vec<(K, V)>, MapError> {
    if let Some(elements) = read_batch(fd(hash), map, None, usize::MAX)? {
        return Ok(elements);
    }
    hash.iter().collect::<Result<_, _>>().map_err(failed(map, "read"))
}

fn range_key(id: u32, range: &Prefix) -> Key<RangeData> {
    Key::new(RangeData::ID_BITS + range.bits, RangeData { id, addr: range.addr })
}

fn network_key(network: &Prefix) -> Key<Addr> {
    Key::new(network.bits, network.addr)
}

impl Maps for KernelMaps {
    fn services(&self) -> Result<Vec<(SvcKey, SvcValue)>, MapError> {
        read_hash(&self.services, map_names::SERVICES)
    }

    fn put_service(&mut self, key: &SvcKey, value: &SvcValue) -> Result<(), MapError> {
        self.services.insert(key, value, 0).map_err(failed(map_names::SERVICES, "write"))
    }

    fn put_services(&mut self, entries: &[(SvcKey, SvcValue)]) -> Result<(), Stopped> {
        let (keys, values): (Vec<_>, Vec<_>) = entries.iter().copied().unzip();
        if entries.len() > FEW && write_batch(fd(&self.services), map_names::SERVICES, &keys, &values)? {
            return Ok(());
        }
        one_by_one(entries, |(key, value)| self.put_service(key, value))
    }

    fn remove_service(&mut self, key: &SvcKey) -> Result<(), MapError> {
        removed(self.services.remove(key), map_names::SERVICES)
    }

    fn slots(&self, range: SlotRange) -> Result<Vec<u32>, MapError> {
        read_array(&self.slots, map_names::SLOTS, range.base, range.count)
    }

    fn put_slots(&mut self, base: u32, ids: &[u32]) -> Result<(), MapError> {
        self.put_sets(&[(base, ids.into())]).map_err(|stopped| stopped.error)
    }

    fn put_sets(&mut self, sets: &[(u32, Arc<[u32]>)]) -> Result<(), Stopped> {
        let elements: Vec<(u32, u32)> =
            sets.iter().flat_map(|(base, ids)| (*base..).zip(ids.iter().copied())).collect();
        let (keys, values): (Vec<_>, Vec<_>) = elements.iter().copied().unzip();
        if elements.len() > FEW && write_batch(fd(&self.slots), map_names::SLOTS, &keys, &values)? {
            return Ok(());
        }
        one_by_one(&elements, |(index, id)| self.slots.set(*index, id, 0).map_err(failed(map_names::SLOTS, "write")))
    }

    fn backend(&self, id: u32) -> Result<Backend, MapError> {
        self.backends.get(&id, 0).map_err(failed(map_names::BACKENDS, "read"))
    }

    fn backends(&self, end: u32) -> Result<Vec<Backend>, MapError> {
        read_array(&self.backends, map_names::BACKENDS, 0, end.min(self.backends.len()))
    }

    fn put_backend(&mut self, id: u32, backend: &Backend) -> Result<(), MapError> {
        self.backends.set(id, backend, 0).map_err(failed(map_names::BACKENDS, "write"))
    }

    fn put_backends(&mut self, backends: &[(u32, Backend)]) -> Result<(), Stopped> {
        let (keys, values): (Vec<_>, Vec<_>) = backends.iter().copied().unzip();
        if backends.len() > FEW && write_batch(fd(&self.backends), map_names::BACKENDS, &keys, &values)? {
            return Ok(());
        }
        one_by_one(backends, |(id, backend)| self.put_backend(*id, backend))
    }

    fn vips(&self) -> Result<Vec<(Addr, u32)>, MapError> {
        read_hash(&self.vips, map_names::VIPS)
    }

    fn put_vip(&mut self, addr: &Addr, kind: u32) -> Result<(), MapError> {
        self.vips.insert(addr, kind, 0).map_err(failed(map_names::VIPS, "write"))
    }

    fn put_vips(&mut self, vips: &[(Addr, u32)]) -> Result<(), Stopped> {
        let (keys, values): (Vec<_>, Vec<_>) = vips.iter().copied().unzip();
        if vips.len() > FEW && write_batch(fd(&self.vips), map_names::VIPS, &keys, &values)? {
            return Ok(());
        }
        one_by_one(vips, |(addr, kind)| self.put_vip(addr, *kind))
    }

    fn remove_vip(&mut self, addr: &Addr) -> Result<(), MapError> {
        removed(self.vips.remove(addr), map_names::VIPS)
    }

    fn ranges(&self) -> Result<Vec<(u32, Prefix)>, MapError> {
        let range = |key: Key<RangeData>| {
            let data = key.data();
            (data.id, Prefix { bits: key.prefix_len().saturating_sub(RangeData::ID_BITS), addr: data.addr })
        };
        self.ranges
            .keys()
            .map(|key| key.map(range))
            .collect::<Result<_, _>>()
            .map_err(failed(map_names::RANGES, "read"))
    }

    fn put_range(&mut self, id: u32, range: &Prefix) -> Result<(), MapError> {
        self.ranges.insert(&range_key(id, range), 1, 0).map_err(failed(map_names::RANGES, "write"))
    }

    fn remove_range(&mut self, id: u32, range: &Prefix) -> Result<(), MapError> {
        removed(self.ranges.remove(&range_key(id, range)), map_names::RANGES)
    }

    fn networks(&self) -> Result<Vec<(Prefix, u32)>, MapError> {
        let network = |(key, flags): (Key<Addr>, u32)| (Prefix { bits: key.prefix_len(), addr: key.data() }, flags);
        self.networks
            .iter()
            .map(|element| element.map(network))
            .collect::<Result<_, _>>()
            .map_err(failed(map_names::NETWORKS, "read"))
    }

    fn put_network(&mut self, network: &Prefix, flags: u32) -> Result<(), MapError> {
        self.networks.insert(&network_key(network), flags, 0).map_err(failed(map_names::NETWORKS, "write"))
    }

    fn remove_network(&mut self, network: &Prefix) -> Result<(), MapError> {
        removed(self.networks.remove(&network_key(network)), map_names::NETWORKS)
    }

    fn node_addresses(&self) -> Result<Vec<(Addr, u32)>, MapError> {
        read_hash(&self.node_addresses, map_names::NODE_ADDRESSES)
    }

    fn put_node_address(&mut self, addr: &Addr, flags: u32) -> Result<(), MapError> {
        self.node_addresses.insert(addr, flags, 0).map_err(failed(map_names::NODE_ADDRESSES, "write"))
    }

    fn remove_node_address(&mut self, addr: &Addr) -> Result<(), MapError> {
        removed(self.node_addresses.remove(addr), map_names::NODE_ADDRESSES)
    }

    fn filter(&self) -> Result<Vec<u64>, MapError> {
        read_array(&self.filter, map_names::FILTER, 0, self.filter.len())
    }

    fn put_filter(&mut self, words: &[(u32, u64)]) -> Result<(), MapError> {
        let (keys, values): (Vec<_>, Vec<_>) = words.iter().copied().unzip();
        let batched = words.len() > FEW
            && write_batch(fd(&self.filter), map_names::FILTER, &keys, &values).map_err(|stopped| stopped.error)?;
        if batched {
            return Ok(());
        }
        let mut words = words.iter();
        words.try_for_each(|(index, word)| self.filter.set(*index, word, 0).map_err(failed(map_names::FILTER, "write")))
    }

    fn put_node(&mut self, node: &NodeConfig) -> Result<(), MapError> {
        self.node.set(0, node, 0).map_err(failed(map_names::NODE, "write"))
    }
}

#[cfg(test)]
mod tests {
    use roadstead_abi::{Be16, proto, scope};

    use super::*;

    /// Maps of the kernel, where this process may make some.
    fn maps() -> Option<KernelMaps> {
        match KernelMaps::standalone() {
            Ok(maps) => Some(maps),
            Err(error) => {
                eprintln!("skipped: {error}: needs CAP_BPF");
                None
            }
        }
    }

    fn key(number: u32) -> SvcKey {
        SvcKey { addr: Addr::v4(number.to_be_bytes()), port: Be16::new(80), proto: proto::TCP, scope: scope::ADDRESS }
    }

    #[test]
    fn batches_read_what_batches_wrote() {
        let Some(mut maps) = maps() else { return };
        // More than one reading's worth.
        let services: Vec<_> =
            (1..10_000).map(|number| (key(number), SvcValue { service: number, ..SvcValue::default() })).collect();
        maps.put_services(&services).unwrap();
        let mut found = maps.services().unwrap();
        found.sort_by_key(|(_, value)| value.service);
        assert_eq!(found, services);
        maps.remove_service(&key(5)).unwrap();
        maps.remove_service(&key(5)).unwrap();
        assert_eq!(maps.services().unwrap().len(), services.len() - 1);
        let ids: Arc<[u32]> = (1..10_000).collect();
        maps.put_sets(&[(7, Arc::clone(&ids)), (20_000, [1, 2].into())]).unwrap();
        assert_eq!(maps.slots(SlotRange { base: 7, count: 9_999 }).unwrap(), *ids);
        assert_eq!(maps.slots(SlotRange { base: 20_000, count: 3 }).unwrap(), [1, 2, 0]);
        let backend = |number: u16| Backend { addr: key(1).addr, port: Be16::new(number), reserved: 0 };
        let backends: Vec<_> = (1..100).map(|number| (u32::from(number), backend(number))).collect();
        maps.put_backends(&backends).unwrap();
        assert_eq!(maps.backends(3).unwrap(), [Backend::default(), backend(1), backend(2)]);
        assert_eq!(maps.backends(200).unwrap()[99], backend(99));
    }

    #[test]
    fn a_batch_that_is_refused_tells_how_far_it_came() {
        let Some(mut maps) = maps() else { return };
        let end = limits::SLOTS - 6;
        let stopped = maps.put_sets(&[(end, (1..11).collect())]).unwrap_err();
        assert_eq!(stopped.written, 6, "{}", stopped.error);
        assert_eq!(maps.slots(SlotRange { base: end, count: 6 }).unwrap(), [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn trees_and_filter_hold_what_they_are_given() {
        let Some(mut maps) = maps() else { return };
        let ranges =
            [Prefix { bits: 96, addr: Addr::v4([0; 4]) }, Prefix { bits: 120, addr: Addr::v4([203, 0, 113, 0]) }];
        for range in &ranges {
            maps.put_range(3, range).unwrap();
            maps.put_network(range, 1).unwrap();
        }
        maps.remove_range(3, &ranges[1]).unwrap();
        maps.remove_range(3, &ranges[1]).unwrap();
        assert_eq!(maps.ranges().unwrap(), [(3, ranges[0])]);
        assert_eq!(maps.networks().unwrap().len(), 2);
        let words: Vec<_> = (0..10_u32).map(|index| (index * 1_000, u64::from(index) + 1)).collect();
        maps.put_filter(&words).unwrap();
        let filter = maps.filter().unwrap();
        assert_eq!(
            (filter.len(), filter[9_000], filter.iter().filter(|word| **word != 0).count()),
            (limits::FILTER_BITS as usize / 64, 10, 10)
        );
    }
}
