//! The maps: all of them, with who writes and who reads. Layouts and sizes stand in `abi`.

use aya_ebpf::{
    bindings::bpf_fib_lookup,
    btf_maps::SkStorage,
    macros::{btf_map, map},
    maps::{Array, HashMap, LruHashMap, PerCpuArray, PerCpuHashMap},
};
use roadstead_abi::{
    Addr, Backend, CtEntry, CtKey, DropKey, NodeConfig, Peer, SvcKey, SvcValue, UdpReverseKey, limits,
};

/// Frontends. The agent writes, every program reads.
#[map]
pub(crate) static SERVICES: HashMap<SvcKey, SvcValue> = HashMap::with_max_entries(limits::SERVICES, NO_PREALLOC);

/// Backend ids in ranges. The agent writes, every program reads.
#[map]
pub(crate) static SLOTS: Array<u32> = Array::with_max_entries(limits::SLOTS, 0);

/// Backends by id. The agent writes, every program reads.
#[map]
pub(crate) static BACKENDS: Array<Backend> = Array::with_max_entries(limits::BACKENDS, 0);

/// Addresses of Services; the value is a `kind`. The agent writes, every program reads.
#[map]
pub(crate) static VIPS: HashMap<Addr, u32> = HashMap::with_max_entries(limits::VIPS, NO_PREALLOC);

/// Addresses of this node that serve node ports. The agent writes, every program reads.
#[map]
pub(crate) static NODE_PORT_IPS: HashMap<Addr, u32> = HashMap::with_max_entries(limits::NODE_PORT_IPS, 0);

/// Devices with programs attached, by index. The agent writes, `uplink_in` reads.
#[map]
pub(crate) static UPLINKS: HashMap<u32, u32> = HashMap::with_max_entries(limits::UPLINKS, 0);

/// Flows. `uplink_in` writes, both uplink programs read and stamp, the agent frees. Never LRU: a new flow must not
/// evict a live one; preallocated: an insert costs a third of one that allocates.
#[map]
pub(crate) static CONNTRACK: HashMap<CtKey, CtEntry> = HashMap::with_max_entries(limits::CONNTRACK, 0);

/// What a connected socket asked for; freed with the socket. The socket programs write and read.
#[btf_map]
pub(crate) static SOCKET_PEERS: SkStorage<Peer> = SkStorage::new();

/// What a UDP socket asked for when it reached a backend. The socket programs write and read. LRU: a forgotten one
/// costs the application a strange source address, not its flow.
#[map]
pub(crate) static UDP_REVERSE: LruHashMap<UdpReverseKey, Peer> = LruHashMap::with_max_entries(limits::UDP_REVERSE, 0);

/// Counters by (reason, service). Every program writes, the agent reads.
#[map]
pub(crate) static DROPS: PerCpuHashMap<DropKey, u64> = PerCpuHashMap::with_max_entries(limits::DROPS, 0);

/// The node's own values, one entry. The agent writes, every program reads.
#[map]
pub(crate) static NODE: Array<NodeConfig> = Array::with_max_entries(1, 0);

/// What the uplink programs work on: larger than the stack would bear. One element a program, because one may run on a
/// CPU while the other is suspended on it. Nothing survives a run.
#[map]
pub(crate) static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(2, 0);

/// An element of [`SCRATCH`].
#[repr(C)]
pub(crate) struct Scratch {
    /// The packet's tuple.
    pub(crate) key: CtKey,
    /// The entry of its flow.
    pub(crate) entry: CtEntry,
    /// The other direction's key, while a flow is created or freed.
    pub(crate) other_key: CtKey,
    /// The other direction's entry, while a flow is created.
    pub(crate) other_entry: CtEntry,
    /// A question to the routing table.
    pub(crate) route: bpf_fib_lookup,
}

/// `BPF_F_NO_PREALLOC`: maps that are written by configuration only take memory as they fill.
const NO_PREALLOC: u32 = 1;
