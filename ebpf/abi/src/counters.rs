//! What the programs count and tell: traffic of Services and backends, and events for `roadstead trace`.

use crate::{Addr, Be16, CtKey};

/// Traffic of a Service port or a backend, per CPU. Sockets are counted when they connect; their packets pass no program.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// New flows: packets that opened one, connect(2), datagrams of unconnected sockets.
    pub connections: u64,
    /// Packets from clients.
    pub in_packets: u64,
    /// Their bytes, Ethernet header included.
    pub in_bytes: u64,
    /// Packets to clients.
    pub out_packets: u64,
    /// Their bytes.
    pub out_bytes: u64,
}

/// One event, as the ring buffer carries it.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event {
    /// Nanoseconds of the monotonic clock.
    pub time: u64,
    /// The tuple; a socket's has no source.
    pub key: CtKey,
    /// The backend's address, where one was chosen.
    pub backend: Addr,
    /// The backend's port.
    pub backend_port: Be16,
    /// One of [`hook`].
    pub hook: u16,
    /// A [`crate::DropReason`] as a number; 0 for a new flow.
    pub reason: u32,
    /// Id of the Service's port, 0 where none is known.
    pub service: u32,
    /// The device, 0 for a socket.
    pub ifindex: u32,
}

const _: () = assert!(size_of::<Event>() == 80);

/// Which program an event comes from.
pub mod hook {
    /// connect(2) or sendmsg(2).
    pub const SOCKET: u16 = 1;
    /// A packet that came in on an uplink.
    pub const UPLINK_IN: u16 = 2;
    /// A packet that leaves through an uplink.
    pub const UPLINK_OUT: u16 = 3;
    /// A packet that came from a pod or the node itself.
    pub const INT_IN: u16 = 4;
    /// A packet to a pod.
    pub const INT_OUT: u16 = 5;
}

/// What `roadstead trace` asks for; one entry.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Trace {
    /// Events are written until this time of the monotonic clock, in nanoseconds: a tracer that was killed is forgotten.
    pub until: u64,
}

/// The budget of a CPU for ICMP errors and resets, which it makes from strangers' packets.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RejectBudget {
    /// Unit of the programs' clock that the count belongs to.
    pub time: u32,
    /// Rejections in that unit.
    pub count: u32,
}
