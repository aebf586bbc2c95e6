//! How full the pinned maps are.

use aya::{
    Pod,
    maps::{Array, HashMap, LpmTrie, MapData, MapInfo, PerCpuHashMap},
};
use roadstead_abi::{
    Addr, Affinity, AffinityKey, Backend, CtEntry, CtKey, DropKey, FragmentKey, FragmentPorts, Peer, RangeData,
    SlotRange, SvcKey, SvcValue, UdpReverseKey, map_names,
};

use crate::{
    maps::{MapError, open},
    pins::Pins,
};

/// A map and its elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// Its name.
    pub map: &'static str,
    /// Elements in use.
    pub entries: usize,
    /// Elements that it has room for.
    pub most: u32,
}

/// The fill of every map that can become full.
///
/// # Errors
/// When one cannot be read.
pub fn fill(pins: &Pins) -> Result<Vec<Fill>, MapError> {
    let counted = [
        (map_names::SERVICES, hashed::<SvcKey, SvcValue>(pins, map_names::SERVICES)?),
        (map_names::SLOTS, slots(pins)?),
        (map_names::BACKENDS, backends(pins)?),
        (map_names::VIPS, hashed::<Addr, u32>(pins, map_names::VIPS)?),
        (map_names::NODE_ADDRESSES, hashed::<Addr, u32>(pins, map_names::NODE_ADDRESSES)?),
        (map_names::RANGES, prefixes::<RangeData>(pins, map_names::RANGES)?),
        (map_names::NETWORKS, prefixes::<Addr>(pins, map_names::NETWORKS)?),
        (map_names::CONNTRACK, hashed::<CtKey, CtEntry>(pins, map_names::CONNTRACK)?),
        (map_names::AFFINITY, hashed::<AffinityKey, Affinity>(pins, map_names::AFFINITY)?),
        (map_names::FRAGMENTS, hashed::<FragmentKey, FragmentPorts>(pins, map_names::FRAGMENTS)?),
        (map_names::SOCKET_PEERS, hashed::<u64, Peer>(pins, map_names::SOCKET_PEERS)?),
        (map_names::UDP_REVERSE, hashed::<UdpReverseKey, Peer>(pins, map_names::UDP_REVERSE)?),
        (map_names::UPLINKS, hashed::<u32, u32>(pins, map_names::UPLINKS)?),
        (map_names::DROPS, drops(pins)?),
    ];
    let with_most = |(map, entries)| Ok(Fill { map, entries, most: most(pins, map)? });
    counted.into_iter().map(with_most).collect()
}

fn most(pins: &Pins, map: &'static str) -> Result<u32, MapError> {
    let failed = |source| MapError { map, operation: "size", source: Box::new(source) };
    MapInfo::from_pin(pins.maps().join(map)).map(|info| info.max_entries()).map_err(failed)
}

/// Keys that come and go under the walk may be counted twice; a map never has more than it has room for.
fn bounded(pins: &Pins, map: &'static str, keys: impl Iterator) -> Result<usize, MapError> {
    Ok(keys.take(most(pins, map)? as usize).count())
}

fn hashed<K: Pod, V: Pod>(pins: &Pins, name: &'static str) -> Result<usize, MapError> {
    let map: HashMap<MapData, K, V> = open(pins, name)?;
    bounded(pins, name, map.keys())
}

fn prefixes<K: Pod>(pins: &Pins, name: &'static str) -> Result<usize, MapError> {
    let map: LpmTrie<MapData, K, u32> = open(pins, name)?;
    bounded(pins, name, map.keys())
}

fn drops(pins: &Pins) -> Result<usize, MapError> {
    let map: PerCpuHashMap<MapData, DropKey, u64> = open(pins, map_names::DROPS)?;
    bounded(pins, map_names::DROPS, map.keys())
}

/// Distinct ranges that frontends name; frontends share them.
fn slots(pins: &Pins) -> Result<usize, MapError> {
    let map: HashMap<MapData, SvcKey, SvcValue> = open(pins, map_names::SERVICES)?;
    let values = map.iter().flatten().map(|(_, value)| value);
    let sets = values.flat_map(|value| [value.cluster, value.local]);
    let ranges: std::collections::HashSet<SlotRange> = sets.flat_map(|set| [set.members, set.table]).collect();
    Ok(ranges.iter().map(|range| range.count as usize).sum())
}

fn backends(pins: &Pins) -> Result<usize, MapError> {
    let map: Array<MapData, Backend> = open(pins, map_names::BACKENDS)?;
    Ok(map.iter().flatten().filter(|backend| backend.port.0 != 0).count())
}
