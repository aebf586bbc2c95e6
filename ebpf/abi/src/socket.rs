//! What the socket programs remember, and the node's own values.

use crate::{Addr, Be16};

/// The Service address that a socket asked for, kept with the socket, and the backend it got instead.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Peer {
    /// The address that the application connected to.
    pub asked: Addr,
    /// The backend's address.
    pub backend: Addr,
    /// The port that the application connected to.
    pub asked_port: Be16,
    /// The backend's port.
    pub backend_port: Be16,
}

const _: () = assert!(size_of::<Peer>() == 36);

/// A UDP socket and a backend that it talks to.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct UdpReverseKey {
    /// `SO_COOKIE` of the socket.
    pub cookie: u64,
    /// The backend's address.
    pub addr: Addr,
    /// The backend's port.
    pub port: Be16,
    /// Zero.
    pub reserved: [u16; 3],
}

const _: () = assert!(size_of::<UdpReverseKey>() == 32);

/// What the programs need to know about the node; one entry, written whole.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NodeConfig {
    /// `SO_NETNS_COOKIE` of the network namespace that the agent runs in: its sockets are the node's, others a pod's.
    pub netns_cookie: u64,
    /// The node's IPv4 address, source of forwarded flows; unspecified when it has none.
    pub ipv4: Addr,
    /// The node's IPv6 address, likewise.
    pub ipv6: Addr,
    /// First node port, host order.
    pub node_port_first: u16,
    /// Last node port, host order.
    pub node_port_last: u16,
    /// Zero.
    pub reserved: u32,
}

const _: () = assert!(size_of::<NodeConfig>() == 48);
