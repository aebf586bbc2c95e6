//! The maps: all of them, with who writes and who reads. Layouts and sizes stand in `abi`.

use aya_ebpf::{
    bindings::bpf_fib_lookup,
    macros::map,
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, PerCpuHashMap, RingBuf},
};
use roadstead_abi::{
    Addr, Affinity, AffinityKey, Backend, Counters, CtEntry, CtKey, DropKey, FragmentKey, FragmentPorts, NodeConfig,
    Peer, RangeData, RejectBudget, SvcKey, SvcValue, Trace, UdpReverseKey,
    announced::{Announced, AnnouncedKey, Answers, MAX_ANNOUNCED, Speaker},
    limits,
};

use crate::{drops::Drop, packet::Parcel};

/// Frontends. The agent writes, every program reads.
#[map]
pub(crate) static SERVICES: HashMap<SvcKey, SvcValue> = HashMap::with_max_entries(limits::SERVICES, NO_PREALLOC);

/// Backend ids in ranges: sets and Maglev tables. The agent writes, every program reads.
#[map]
pub(crate) static SLOTS: Array<u32> = Array::with_max_entries(limits::SLOTS, 0);

/// Backends by id. The agent writes, every program reads.
#[map]
pub(crate) static BACKENDS: Array<Backend> = Array::with_max_entries(limits::BACKENDS, 0);

/// Addresses of Services; the value is a `kind`. The agent writes, every program reads.
#[map]
pub(crate) static VIPS: HashMap<Addr, u32> = HashMap::with_max_entries(limits::VIPS, NO_PREALLOC);

/// Addresses of this node; the value is a set of `node_address`. The agent writes, every program reads.
#[map]
pub(crate) static NODE_ADDRESSES: HashMap<Addr, u32> = HashMap::with_max_entries(limits::NODE_ADDRESSES, 0);

/// Source ranges by the id that a frontend names. The agent writes, every program reads for new flows.
#[map]
pub(crate) static RANGES: LpmTrie<RangeData, u32> = LpmTrie::with_max_entries(limits::RANGES, NO_PREALLOC);

/// Networks of pods; the value is a set of `network`. The agent writes, the packet programs read for new flows.
#[map]
pub(crate) static NETWORKS: LpmTrie<Addr, u32> = LpmTrie::with_max_entries(limits::NETWORKS, NO_PREALLOC);

/// A bit for each address that is worth a lookup, and for some that are not. The agent writes, every program reads: a
/// packet of no Service costs no more than this.
#[map]
pub(crate) static FILTER: Array<u64> = Array::with_max_entries(limits::FILTER_BITS / 64, 0);

/// Devices with the uplink programs attached, by index. The agent writes, the packet programs read.
#[map]
pub(crate) static UPLINKS: HashMap<u32, u32> = HashMap::with_max_entries(limits::UPLINKS, 0);

/// Flows. The packet programs write, read and stamp, the agent frees. Never LRU: a new flow must not evict a live one;
/// preallocated: an insert costs a third of one that allocates.
#[map]
pub(crate) static CONNTRACK: HashMap<CtKey, CtEntry> = HashMap::with_max_entries(limits::CONNTRACK, 0);

/// Ports of fragmented datagrams. The packet programs write and read. LRU: what is not asked for again is forgotten.
#[map]
pub(crate) static FRAGMENTS: LruHashMap<FragmentKey, FragmentPorts> =
    LruHashMap::with_max_entries(limits::FRAGMENTS, 0);

/// Which backend a client had, for Services with session affinity. Every program writes and reads. LRU: a forgotten
/// client gets another backend.
#[map]
pub(crate) static AFFINITY: LruHashMap<AffinityKey, Affinity> = LruHashMap::with_max_entries(limits::AFFINITY, 0);

/// A mark for each address that answers of a flow may go to, set before the flow is created and never cleared. The packet
/// programs write and read: traffic of clients without flows needs no lookup in the table. Words, because nobody else can
/// write a part of an element.
#[map]
pub(crate) static CLIENTS: Array<u32> = Array::with_max_entries(limits::CLIENTS, 0);

/// What a connected socket asked for, by its cookie; `sock_release` frees it. The socket programs write and read. Not a
/// storage of the socket's own: that is allocated at every connect, which costs three times as much. LRU: what a socket
/// of the kernel leaves, for which nobody calls `sock_release`, makes way.
#[map]
pub(crate) static SOCKET_PEERS: LruHashMap<u64, Peer> = LruHashMap::with_max_entries(limits::SOCKET_PEERS, 0);

/// What a UDP socket asked for when it reached a backend. The socket programs write and read. LRU: a forgotten one
/// costs the application a strange source address, not its flow.
#[map]
pub(crate) static UDP_REVERSE: LruHashMap<UdpReverseKey, Peer> = LruHashMap::with_max_entries(limits::UDP_REVERSE, 0);

/// Counters by (reason, service). Every program writes, the agent reads.
#[map]
pub(crate) static DROPS: PerCpuHashMap<DropKey, u64> = PerCpuHashMap::with_max_entries(limits::DROPS, 0);

/// Traffic by id of the Service port. Every program writes, the agent reads.
#[map]
pub(crate) static SERVICE_COUNTERS: PerCpuArray<Counters> = PerCpuArray::with_max_entries(limits::COUNTERS, 0);

/// Traffic by id of the backend. Every program writes, the agent reads.
#[map]
pub(crate) static BACKEND_COUNTERS: PerCpuArray<Counters> = PerCpuArray::with_max_entries(limits::COUNTERS, 0);

/// New flows and drops, while somebody traces. Every program writes, `roadstead trace` reads.
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(limits::EVENTS, 0);

/// Whether somebody traces, one entry. `roadstead trace` writes, every program reads.
#[map]
pub(crate) static TRACE: Array<Trace> = Array::with_max_entries(1, 0);

/// What is left of a CPU's budget for rejections. The packet programs write and read.
#[map]
pub(crate) static REJECTIONS: PerCpuArray<RejectBudget> = PerCpuArray::with_max_entries(1, 0);

/// The node's own values, one entry. The agent writes, every program reads.
#[map]
pub(crate) static NODE: Array<NodeConfig> = Array::with_max_entries(1, 0);

/// Addresses that this node announces, by interface. The speaker writes, `uplink_in` reads. Pinned apart, as the next two.
#[map]
pub(crate) static ANNOUNCED: HashMap<AnnouncedKey, Announced> = HashMap::with_max_entries(MAX_ANNOUNCED, NO_PREALLOC);

/// What was done for them. The speaker makes the elements and reads them, `uplink_in` adds.
#[map]
pub(crate) static ANSWERS: PerCpuHashMap<AnnouncedKey, Answers> =
    PerCpuHashMap::with_max_entries(MAX_ANNOUNCED, NO_PREALLOC);

/// The speaker's stamp and port, one entry. The speaker writes, `uplink_in` reads.
#[map]
pub(crate) static SPEAKER: Array<Speaker> = Array::with_max_entries(1, 0);

/// A neighbour solicitation while it is looked at; nothing survives a run.
#[map]
pub(crate) static QUESTION: PerCpuArray<Question> = PerCpuArray::with_max_entries(1, 0);

/// The element of [`QUESTION`].
#[repr(C)]
pub(crate) struct Question {
    /// Bytes of the message.
    pub(crate) length: u32,
    /// Zero.
    pub(crate) reserved: u32,
    /// The ICMPv6 message, in units of eight bytes as its options are.
    pub(crate) message: [u64; 64],
}

/// What the packet programs work on: larger than the stack would bear. One element a program, because one may run on a
/// CPU while another is suspended on it. Nothing survives a run.
#[map]
pub(crate) static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(4, 0);

/// An element of [`SCRATCH`].
#[repr(C)]
pub(crate) struct Scratch {
    /// The packet's tuple; for an ICMP error the tuple of a packet that would answer the one it quotes.
    pub(crate) key: CtKey,
    /// The entry of its flow.
    pub(crate) entry: CtEntry,
    /// The other direction's key, while a flow is created or freed.
    pub(crate) other_key: CtKey,
    /// The other direction's entry, while a flow is created.
    pub(crate) other_entry: CtEntry,
    /// What the packet is.
    pub(crate) parcel: Parcel,
    /// The datagram that a fragment belongs to.
    pub(crate) fragment: FragmentKey,
    /// Why the packet is refused.
    pub(crate) drop: Drop,
    /// Whether a new flow keeps its source port.
    pub(crate) keeps: u32,
    /// The frontend of a new flow.
    pub(crate) service: SvcValue,
    /// A question to the routing table.
    pub(crate) route: bpf_fib_lookup,
    /// The address that the packet is for, as the speaker announces it.
    pub(crate) announced: Announced,
    /// Its key.
    pub(crate) announced_key: AnnouncedKey,
}

/// `BPF_F_NO_PREALLOC`: maps that are written by configuration only take memory as they fill.
const NO_PREALLOC: u32 = 1;
