//! Service frontends, slots and backends: what `dataplane` writes and the programs look up for a new flow.

use crate::{Addr, Be16};

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

/// Value of the map of frontends. It is written whole, so a lookup sees the old sets or the new ones, never a mix.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SvcValue {
    /// Id of the Service's port, for counters; never 0.
    pub service: u32,
    /// Bits of [`svc_flags`].
    pub flags: u16,
    /// One of [`kind`].
    pub kind: u8,
    /// Zero.
    pub reserved: u8,
    /// Endpoints that traffic under policy Cluster may use.
    pub cluster: SlotRange,
    /// Endpoints that traffic under policy Local may use.
    pub local: SlotRange,
}

const _: () = assert!(size_of::<SvcValue>() == 24);

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
