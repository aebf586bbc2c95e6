//! Service frontends, slots and backends: what `dataplane` writes and the programs look up for a new flow.

use crate::{Addr, Be16, check};

/// Key of the map of frontends.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct SvcKey {
    /// The Service's address; unspecified for a node port.
    pub addr: Addr,
    /// The Service's port, or the node port.
    pub port: Be16,
    /// IP protocol number.
    pub proto: u8,
    /// One of [`scope`].
    pub scope: u8,
}

const _: () = assert!(size_of::<SvcKey>() == 20);

impl SvcKey {
    /// The part of [`SvcValue::check`] that this key demands.
    #[inline(always)]
    #[must_use]
    pub const fn check(&self) -> u16 {
        check::of_frontend(&self.addr, self.port, self.proto, self.scope)
    }
}

/// What the address of a [`SvcKey`] means.
pub mod scope {
    /// The address itself.
    pub const ADDRESS: u8 = 0;
    /// Any address of this node that serves node ports, IPv4.
    pub const NODE_PORT_V4: u8 = 1;
    /// Any address of this node that serves node ports, IPv6.
    pub const NODE_PORT_V6: u8 = 2;
}

/// Consecutive slots that hold the ids of a set of backends.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct SlotRange {
    /// Index of the first slot.
    pub base: u32,
    /// Number of slots; 0 is the empty set.
    pub count: u32,
}

/// A set of backends in the two forms in which it is chosen from.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct EndpointSet {
    /// Each backend once, ids ascending.
    pub members: SlotRange,
    /// The Maglev table over the members; empty where the Service is balanced at random.
    pub table: SlotRange,
}

/// Value of the map of frontends. It is written whole, so a lookup sees the old sets or the new ones, never a mix.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SvcValue {
    /// Low half: [`SvcKey::check`]; high half: the number of this write. An element that is replaced under a reader may
    /// be filled anew at once, so the word is compared before and after the rest is read. It stands first because it is
    /// overwritten first.
    pub check: u32,
    /// Id of the Service's port, for counters; never 0.
    pub service: u32,
    /// Bits of [`svc_flags`].
    pub flags: u16,
    /// One of [`kind`].
    pub kind: u8,
    /// Zero.
    pub reserved: u8,
    /// `sessionAffinity: ClientIP`: how long a client keeps its backend, in units of the programs' clock; 0 is none.
    pub affinity: u32,
    /// Id of the source ranges that may reach the frontend; 0 lets everybody in.
    pub ranges: u32,
    /// Endpoints that traffic under policy Cluster may use.
    pub cluster: EndpointSet,
    /// Endpoints that traffic under policy Local may use.
    pub local: EndpointSet,
}

const _: () = assert!(size_of::<SvcValue>() == 52);

/// How a frontend came to be, which decides the policy that applies.
pub mod kind {
    /// A cluster address: the internal traffic policy applies.
    pub const CLUSTER_IP: u8 = 0;
    /// A port of the node: the external traffic policy applies, as for the kinds below.
    pub const NODE_PORT: u8 = 1;
    /// An address of `status.loadBalancer`.
    pub const LOAD_BALANCER: u8 = 2;
    /// An address of `spec.externalIPs`.
    pub const EXTERNAL_IP: u8 = 3;
    /// A UDP endpoint that is gone: sockets of this node that are connected to it get another one of its Service.
    pub const TOMBSTONE: u8 = 4;
}

/// Flags of a frontend.
pub mod svc_flags {
    /// `internalTrafficPolicy: Local`.
    pub const INTERNAL_LOCAL: u16 = 1 << 0;
    /// `externalTrafficPolicy: Local`.
    pub const EXTERNAL_LOCAL: u16 = 1 << 1;
    /// Some usable endpoint exists on some node: an empty set then means drop, otherwise reject.
    pub const HAS_ENDPOINTS: u16 = 1 << 2;
}

/// Value of the array of backends; a zeroed one is free.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Backend {
    /// The endpoint's address.
    pub addr: Addr,
    /// The endpoint's port.
    pub port: Be16,
    /// Zero.
    pub reserved: u16,
}

const _: () = assert!(size_of::<Backend>() == 20);

/// Data of a key of the tree of source ranges: a prefix covers the id whole and some bits of the address.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct RangeData {
    /// [`SvcValue::ranges`].
    pub id: u32,
    /// A network's address.
    pub addr: Addr,
}

const _: () = assert!(size_of::<RangeData>() == 20);

impl RangeData {
    /// Bits before the address.
    pub const ID_BITS: u32 = 32;
}

/// Flags of the values of the tree of networks.
pub mod network {
    /// Pods have their addresses from it (`--pod-cidr`, `spec.podCIDRs` of the nodes).
    pub const POD: u32 = 1 << 0;
}

/// Key of the map of session affinity.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct AffinityKey {
    /// The client's address; for a socket, whose source is not known yet, [`AffinityKey::of_socket`].
    pub client: Addr,
    /// Id of the Service's port.
    pub service: u32,
}

const _: () = assert!(size_of::<AffinityKey>() == 20);

impl AffinityKey {
    /// A socket's client is its network namespace: pods and the node have one each. The words are no address that a
    /// packet could have: they begin with the multicast prefix.
    #[inline(always)]
    #[must_use]
    pub const fn of_socket(netns_cookie: u64, family: u8, service: u32) -> Self {
        let marker = u32::from_ne_bytes([0xff, 0xff, 0, family]);
        let client = Addr::from_words([marker, 0, netns_cookie as u32, (netns_cookie >> 32) as u32]);
        Self { client, service }
    }
}

/// Value of the map of session affinity.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Affinity {
    /// Id of the backend.
    pub backend: u32,
    /// When the client last opened a flow, in units of the programs' clock.
    pub last_seen: u32,
}
