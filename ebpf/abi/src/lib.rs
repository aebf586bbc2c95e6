//! What the BPF programs and the agent agree on: keys and values of the maps, flags, drop reasons, limits.
//!
//! It stands between `programs` (kernel side) and `dataplane` (user side); both compile it, so a layout cannot differ.
//! Every type is `repr(C)` without implicit padding, because the kernel compares keys as bytes. Addresses are 16 bytes
//! in network order, IPv4 as `::ffff:a.b.c.d`; ports are [`Be16`]; everything else is in host order.
//!
//! A change of any layout or meaning raises [`ABI_VERSION`]: the agent pins maps in a folder of that number, so that two
//! versions never share a map.

#![no_std]
#![deny(unsafe_code)]

pub mod announced;
pub mod check;
mod conntrack;
mod counters;
mod drop_reason;
pub mod harness;
mod service;
mod socket;

pub use conntrack::{CtEntry, CtKey, FragmentKey, FragmentPorts, ct_flags};
pub use counters::{Counters, Event, RejectBudget, Trace, hook};
pub use drop_reason::{DropKey, DropReason};
pub use service::{
    Affinity, AffinityKey, Backend, EndpointSet, RangeData, SlotRange, SvcKey, SvcValue, kind, network, scope,
    svc_flags,
};
pub use socket::{MAX_SERVICE_NETWORKS, Network, NodeConfig, Peer, UdpReverseKey, node_address, node_flags};

/// Number of the map layouts; part of the path under which maps and links are pinned.
pub const ABI_VERSION: u32 = if cfg!(feature = "next-abi") { 4 } else { 3 };

/// The programs' clock is the kernel's count of timer ticks (`jiffies64`), shifted by this: free to read, a quarter of a
/// second to 2.6 s long. The program `clock` tells its time.
pub const CLOCK_SHIFT: u32 = 8;

/// Sizes of the maps. The conntrack size is a default: the agent may load another.
pub mod limits {
    /// Frontends: (address, port, protocol) triples.
    pub const SERVICES: u32 = 262_144;
    /// Slots: backend ids in ranges, several ranges a Service while one replaces another.
    pub const SLOTS: u32 = 4_194_304;
    /// Backends: distinct (address, port) pairs.
    pub const BACKENDS: u32 = 262_144;
    /// Addresses that belong to Services.
    pub const VIPS: u32 = 131_072;
    /// Addresses of this node.
    pub const NODE_ADDRESSES: u32 = 4_096;
    /// Source ranges of all Services.
    pub const RANGES: u32 = 262_144;
    /// Networks of pods.
    pub const NETWORKS: u32 = 16_384;
    /// Clients that keep their backend.
    pub const AFFINITY: u32 = 65_536;
    /// Fragmented datagrams on their way.
    pub const FRAGMENTS: u32 = 16_384;
    /// Service ports, and backends, with counters of their own; those with higher ids share the counters of id 0.
    pub const COUNTERS: u32 = 65_536;
    /// Bits of the filter, a power of two.
    pub const FILTER_BITS: u32 = 1 << 22;
    /// Marks of clients with flows, a power of two.
    pub const CLIENTS: u32 = 1 << 17;
    /// Connected sockets whose names are remembered.
    pub const SOCKET_PEERS: u32 = 131_072;
    /// Bytes of the ring of events, a power of two.
    pub const EVENTS: u32 = 1 << 20;
    /// Rejections a CPU sends in a unit of the programs' clock.
    pub const REJECTIONS: u32 = 2_000;
    /// Devices with programs attached.
    pub const UPLINKS: u32 = 256;
    /// Conntrack entries; a flow has two.
    pub const CONNTRACK: u32 = 524_288;
    /// Unconnected UDP sockets' conversations.
    pub const UDP_REVERSE: u32 = 65_536;
    /// (reason, service) pairs that are counted.
    pub const DROPS: u32 = 16_384;
    /// Attempts to find a free source port for a new flow before it is dropped.
    pub const SNAT_ATTEMPTS: u32 = 16;
}

/// Names of the maps in the object, and of their pins.
pub mod map_names {
    /// Service frontends.
    pub const SERVICES: &str = "SERVICES";
    /// Ranges of backend ids.
    pub const SLOTS: &str = "SLOTS";
    /// Backends by id.
    pub const BACKENDS: &str = "BACKENDS";
    /// Service addresses.
    pub const VIPS: &str = "VIPS";
    /// Addresses of the node.
    pub const NODE_ADDRESSES: &str = "NODE_ADDRESSES";
    /// Source ranges.
    pub const RANGES: &str = "RANGES";
    /// Networks of pods.
    pub const NETWORKS: &str = "NETWORKS";
    /// Session affinity.
    pub const AFFINITY: &str = "AFFINITY";
    /// Ports of fragmented datagrams.
    pub const FRAGMENTS: &str = "FRAGMENTS";
    /// Which addresses are worth a lookup.
    pub const FILTER: &str = "FILTER";
    /// Traffic by Service port.
    pub const SERVICE_COUNTERS: &str = "SERVICE_COUNTERS";
    /// Traffic by backend.
    pub const BACKEND_COUNTERS: &str = "BACKEND_COUNTERS";
    /// Events for whoever traces.
    pub const EVENTS: &str = "EVENTS";
    /// Whether anybody traces.
    pub const TRACE: &str = "TRACE";
    /// Devices with programs attached.
    pub const UPLINKS: &str = "UPLINKS";
    /// Conntrack.
    pub const CONNTRACK: &str = "CONNTRACK";
    /// Which addresses answers of flows may go to.
    pub const CLIENTS: &str = "CLIENTS";
    /// The address that a connected socket asked for.
    pub const SOCKET_PEERS: &str = "SOCKET_PEERS";
    /// The address that an unconnected UDP socket asked for.
    pub const UDP_REVERSE: &str = "UDP_REVERSE";
    /// Counters of packets and connections that were not forwarded.
    pub const DROPS: &str = "DROPS";
    /// The node's own values.
    pub const NODE: &str = "NODE";

    /// All of them, as they are pinned.
    pub const ALL: [&str; 21] = [
        SERVICES,
        SLOTS,
        BACKENDS,
        VIPS,
        NODE_ADDRESSES,
        RANGES,
        NETWORKS,
        AFFINITY,
        FRAGMENTS,
        FILTER,
        UPLINKS,
        CONNTRACK,
        CLIENTS,
        SOCKET_PEERS,
        UDP_REVERSE,
        DROPS,
        SERVICE_COUNTERS,
        BACKEND_COUNTERS,
        EVENTS,
        TRACE,
        NODE,
    ];
}

/// An IP address as the maps hold it: 16 bytes in network order, IPv4 mapped into IPv6. Four words rather than bytes, so
/// that the programs copy and compare it in four instructions instead of sixteen.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Addr([u32; 4]);

impl Addr {
    /// `::`, the address part of node-port keys.
    pub const UNSPECIFIED: Self = Self([0; 4]);

    /// An IPv4 address from its four bytes in network order.
    #[inline(always)]
    #[must_use]
    pub const fn v4(bytes: [u8; 4]) -> Self {
        Self([0, 0, MAPPED, u32::from_ne_bytes(bytes)])
    }

    /// An IPv4 address from its word in memory order.
    #[inline(always)]
    #[must_use]
    pub const fn v4_word(word: u32) -> Self {
        Self([0, 0, MAPPED, word])
    }

    /// An address from its sixteen bytes in network order.
    #[inline(always)]
    #[must_use]
    pub const fn v6(b: [u8; 16]) -> Self {
        Self([
            u32::from_ne_bytes([b[0], b[1], b[2], b[3]]),
            u32::from_ne_bytes([b[4], b[5], b[6], b[7]]),
            u32::from_ne_bytes([b[8], b[9], b[10], b[11]]),
            u32::from_ne_bytes([b[12], b[13], b[14], b[15]]),
        ])
    }

    /// An address from four words in memory order.
    #[inline(always)]
    #[must_use]
    pub const fn from_words(words: [u32; 4]) -> Self {
        Self(words)
    }

    /// The address as four words in memory order, for checksums and comparisons.
    #[inline(always)]
    #[must_use]
    pub const fn words(&self) -> [u32; 4] {
        self.0
    }

    /// The sixteen bytes in network order.
    #[inline(always)]
    #[must_use]
    pub const fn octets(&self) -> [u8; 16] {
        let (a, b, c, d) =
            (self.0[0].to_ne_bytes(), self.0[1].to_ne_bytes(), self.0[2].to_ne_bytes(), self.0[3].to_ne_bytes());
        [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3], c[0], c[1], c[2], c[3], d[0], d[1], d[2], d[3]]
    }

    /// The last word in memory order: the IPv4 address, where it is one.
    #[inline(always)]
    #[must_use]
    pub const fn last_word(&self) -> u32 {
        self.0[3]
    }

    /// Whether it is an IPv4 address in its mapped form.
    #[inline(always)]
    #[must_use]
    pub const fn is_v4(&self) -> bool {
        self.0[0] == 0 && self.0[1] == 0 && self.0[2] == MAPPED
    }

    /// 127.0.0.0/8 or `::1`.
    #[inline(always)]
    #[must_use]
    pub const fn is_loopback(&self) -> bool {
        if self.is_v4() {
            return u32::from_be(self.0[3]) >> 24 == 127;
        }
        self.0[0] == 0 && self.0[1] == 0 && self.0[2] == 0 && self.0[3] == u32::from_ne_bytes([0, 0, 0, 1])
    }
}

impl PartialOrd for Addr {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Addr {
    /// The order of the addresses as numbers.
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        self.octets().cmp(&other.octets())
    }
}

/// The third word of a mapped IPv4 address.
const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

/// A 16-bit number in network byte order: a port as packets and keys hold it.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Be16(pub u16);

impl Be16 {
    /// From host order.
    #[inline(always)]
    #[must_use]
    pub const fn new(host: u16) -> Self {
        Self(host.to_be())
    }

    /// To host order.
    #[inline(always)]
    #[must_use]
    pub const fn get(self) -> u16 {
        u16::from_be(self.0)
    }
}

/// IP protocol numbers that are balanced.
pub mod proto {
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
}

#[cfg(feature = "user")]
#[expect(unsafe_code, reason = "aya's Pod promises that any bytes are a value of the type")]
mod pod {
    use super::{
        Affinity, AffinityKey, Backend, Counters, CtEntry, CtKey, DropKey, Event, FragmentKey, FragmentPorts,
        NodeConfig, Peer, RangeData, SvcKey, SvcValue, Trace, UdpReverseKey,
    };

    macro_rules! pod {
        ($($name:ty),*) => {
            $(
                // SAFETY: repr(C) of integers and arrays of integers, without padding (see the size assertions), so
                // every byte pattern is a value; the types own nothing.
                unsafe impl aya::Pod for $name {}
            )*
        };
    }

    pod!(SvcKey, SvcValue, Backend, CtKey, CtEntry, UdpReverseKey, Peer, DropKey, NodeConfig, super::Addr);
    pod!(super::harness::Round);
    pod!(super::announced::AnnouncedKey, super::announced::Announced, super::announced::Answers);
    pod!(super::announced::Speaker);
    pod!(Affinity, AffinityKey, Counters, Event, FragmentKey, FragmentPorts, RangeData, Trace);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_round_trip_through_words_and_bytes() {
        let cases = [Addr::v4([192, 0, 2, 1]), Addr::UNSPECIFIED, Addr::v6(*b"0123456789abcdef")];
        for addr in cases {
            assert_eq!(Addr::from_words(addr.words()), addr);
            assert_eq!(Addr::v6(addr.octets()), addr);
        }
    }

    #[test]
    fn families_and_loopbacks_are_told_apart() {
        let v6_loopback = Addr::v6([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        let cases = [
            (Addr::v4([127, 9, 9, 9]), true, true),
            (Addr::v4([10, 0, 0, 1]), true, false),
            (v6_loopback, false, true),
            (Addr::UNSPECIFIED, false, false),
        ];
        for (addr, v4, loopback) in cases {
            assert_eq!((addr.is_v4(), addr.is_loopback()), (v4, loopback), "{addr:?}");
        }
    }
}
