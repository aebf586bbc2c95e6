//! The maps as the reconciler sees them: a trait, the kernel's maps behind it, and (in tests) fakes that fail by order.

use aya::maps::{Array, HashMap, MapData, MapError as AyaMapError, PerCpuHashMap};
use roadstead_abi::{
    Addr, Backend, CtEntry, CtKey, DropKey, NodeConfig, Peer, SlotRange, SvcKey, SvcValue, UdpReverseKey, map_names,
};

use crate::pins::Pins;

/// Maps that hold the state of Services. Every write is one map operation and is visible at once.
pub trait Maps {
    /// All frontends.
    ///
    /// # Errors
    /// [`MapError`], as all functions here, when the kernel refuses.
    fn services(&self) -> Result<Vec<(SvcKey, SvcValue)>, MapError>;
    /// Inserts or replaces a frontend.
    fn put_service(&mut self, key: &SvcKey, value: &SvcValue) -> Result<(), MapError>;
    /// Removes a frontend; one that is not there is no error.
    fn remove_service(&mut self, key: &SvcKey) -> Result<(), MapError>;
    /// The backend ids in a range.
    fn slots(&self, range: SlotRange) -> Result<Vec<u32>, MapError>;
    /// Writes backend ids from a slot on.
    fn put_slots(&mut self, base: u32, ids: &[u32]) -> Result<(), MapError>;
    /// A backend by id; a zeroed one is free.
    fn backend(&self, id: u32) -> Result<Backend, MapError>;
    /// Writes a backend.
    fn put_backend(&mut self, id: u32, backend: &Backend) -> Result<(), MapError>;
    /// All addresses of Services.
    fn vips(&self) -> Result<Vec<(Addr, u32)>, MapError>;
    /// Inserts or replaces an address.
    fn put_vip(&mut self, addr: &Addr, kind: u32) -> Result<(), MapError>;
    /// Removes an address; one that is not there is no error.
    fn remove_vip(&mut self, addr: &Addr) -> Result<(), MapError>;
    /// Addresses that serve node ports.
    fn node_port_ips(&self) -> Result<Vec<Addr>, MapError>;
    /// Adds one.
    fn put_node_port_ip(&mut self, addr: &Addr) -> Result<(), MapError>;
    /// Removes one; one that is not there is no error.
    fn remove_node_port_ip(&mut self, addr: &Addr) -> Result<(), MapError>;
    /// Writes the node's entry.
    fn put_node(&mut self, node: &NodeConfig) -> Result<(), MapError>;
}

/// A map operation that the kernel refused; worth another try.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} map {map}")]
pub struct MapError {
    /// Name of the map.
    pub map: &'static str,
    /// What was tried.
    pub operation: &'static str,
    /// The kernel's answer.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

fn failed(map: &'static str, operation: &'static str) -> impl FnOnce(AyaMapError) -> MapError {
    move |source| MapError { map, operation, source: Box::new(source) }
}

/// The maps in the kernel.
pub struct KernelMaps {
    services: HashMap<MapData, SvcKey, SvcValue>,
    slots: Array<MapData, u32>,
    backends: Array<MapData, Backend>,
    vips: HashMap<MapData, Addr, u32>,
    node_port_ips: HashMap<MapData, Addr, u32>,
    node: Array<MapData, NodeConfig>,
}

/// Maps that only daemons' housekeeping touches.
pub struct FlowMaps {
    /// Conntrack.
    pub conntrack: HashMap<MapData, CtKey, CtEntry>,
    /// What UDP sockets asked for.
    pub udp_reverse: HashMap<MapData, UdpReverseKey, Peer>,
    /// Drop counters.
    pub drops: PerCpuHashMap<MapData, DropKey, u64>,
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

    /// Opens the maps that an agent has pinned, running or not.
    ///
    /// # Errors
    /// When one is not there.
    pub fn open(pins: &Pins) -> Result<(Self, FlowMaps), MapError> {
        let folder = pins.maps();
        Self::from(|name| {
            let data = MapData::from_pin(folder.join(name))?;
            aya::maps::Map::from_map_data(data)
        })
    }

    fn from(
        mut find: impl FnMut(&'static str) -> Result<aya::maps::Map, AyaMapError>,
    ) -> Result<(Self, FlowMaps), MapError> {
        let maps = Self {
            services: typed(&mut find, map_names::SERVICES)?,
            slots: typed(&mut find, map_names::SLOTS)?,
            backends: typed(&mut find, map_names::BACKENDS)?,
            vips: typed(&mut find, map_names::VIPS)?,
            node_port_ips: typed(&mut find, map_names::NODE_ADDRESSES)?,
            node: typed(&mut find, map_names::NODE)?,
        };
        let mut filter: Array<MapData, u64> = typed(&mut find, map_names::FILTER)?;
        for index in 0..roadstead_abi::limits::FILTER_BITS / 64 {
            filter.set(index, u64::MAX, 0).map_err(failed(map_names::FILTER, "write"))?;
        }
        let flows = FlowMaps {
            conntrack: typed(&mut find, map_names::CONNTRACK)?,
            udp_reverse: typed(&mut find, map_names::UDP_REVERSE)?,
            drops: typed(&mut find, map_names::DROPS)?,
            uplinks: typed(&mut find, map_names::UPLINKS)?,
        };
        Ok((maps, flows))
    }
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

/// A key that is not there is removed already.
fn removed(result: Result<(), AyaMapError>, map: &'static str) -> Result<(), MapError> {
    match result {
        Err(AyaMapError::KeyNotFound) => Ok(()),
        Err(AyaMapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other.map_err(failed(map, "remove from")),
    }
}

impl Maps for KernelMaps {
    fn services(&self) -> Result<Vec<(SvcKey, SvcValue)>, MapError> {
        self.services.iter().collect::<Result<_, _>>().map_err(failed(map_names::SERVICES, "read"))
    }

    fn put_service(&mut self, key: &SvcKey, value: &SvcValue) -> Result<(), MapError> {
        self.services.insert(key, value, 0).map_err(failed(map_names::SERVICES, "write"))
    }

    fn remove_service(&mut self, key: &SvcKey) -> Result<(), MapError> {
        removed(self.services.remove(key), map_names::SERVICES)
    }

    fn slots(&self, range: SlotRange) -> Result<Vec<u32>, MapError> {
        (range.base..range.base.saturating_add(range.count))
            .map(|index| self.slots.get(&index, 0).map_err(failed(map_names::SLOTS, "read")))
            .collect()
    }

    fn put_slots(&mut self, base: u32, ids: &[u32]) -> Result<(), MapError> {
        for (index, id) in (base..).zip(ids) {
            self.slots.set(index, id, 0).map_err(failed(map_names::SLOTS, "write"))?;
        }
        Ok(())
    }

    fn backend(&self, id: u32) -> Result<Backend, MapError> {
        self.backends.get(&id, 0).map_err(failed(map_names::BACKENDS, "read"))
    }

    fn put_backend(&mut self, id: u32, backend: &Backend) -> Result<(), MapError> {
        self.backends.set(id, backend, 0).map_err(failed(map_names::BACKENDS, "write"))
    }

    fn vips(&self) -> Result<Vec<(Addr, u32)>, MapError> {
        self.vips.iter().collect::<Result<_, _>>().map_err(failed(map_names::VIPS, "read"))
    }

    fn put_vip(&mut self, addr: &Addr, kind: u32) -> Result<(), MapError> {
        self.vips.insert(addr, kind, 0).map_err(failed(map_names::VIPS, "write"))
    }

    fn remove_vip(&mut self, addr: &Addr) -> Result<(), MapError> {
        removed(self.vips.remove(addr), map_names::VIPS)
    }

    fn node_port_ips(&self) -> Result<Vec<Addr>, MapError> {
        self.node_port_ips.keys().collect::<Result<_, _>>().map_err(failed(map_names::NODE_ADDRESSES, "read"))
    }

    fn put_node_port_ip(&mut self, addr: &Addr) -> Result<(), MapError> {
        self.node_port_ips.insert(addr, 1, 0).map_err(failed(map_names::NODE_ADDRESSES, "write"))
    }

    fn remove_node_port_ip(&mut self, addr: &Addr) -> Result<(), MapError> {
        removed(self.node_port_ips.remove(addr), map_names::NODE_ADDRESSES)
    }

    fn put_node(&mut self, node: &NodeConfig) -> Result<(), MapError> {
        self.node.set(0, node, 0).map_err(failed(map_names::NODE, "write"))
    }
}
