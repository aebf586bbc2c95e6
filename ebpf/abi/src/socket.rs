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
    /// Bits of [`node_flags`].
    pub flags: u32,
    /// How many of `services` count.
    pub service_networks: u32,
    /// Zero.
    pub reserved: u32,
    /// Where cluster addresses come from; what no Service has there is dropped. The first `service_networks` count.
    pub services: [Network; MAX_SERVICE_NETWORKS],
}

const _: () = assert!(size_of::<NodeConfig>() == 56 + 32 * MAX_SERVICE_NETWORKS);

/// Most networks of cluster addresses: every packet of no Service is compared with each.
pub const MAX_SERVICE_NETWORKS: usize = 4;

/// A network in the form in which it is compared at once.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Network {
    /// The network's address, host bits 0.
    pub addr: Addr,
    /// Ones where the address counts.
    pub mask: Addr,
}

impl Network {
    /// Whether the address lies in the network.
    #[inline(always)]
    #[must_use]
    pub const fn contains(&self, addr: &Addr) -> bool {
        let (a, n, m) = (addr.words(), self.addr.words(), self.mask.words());
        (a[0] & m[0]) ^ n[0] | (a[1] & m[1]) ^ n[1] | (a[2] & m[2]) ^ n[2] | (a[3] & m[3]) ^ n[3] == 0
    }
}

/// Flags of the node.
pub mod node_flags {
    /// `--masquerade kube-proxy`: every flow that kube-proxy masquerades is masqueraded.
    pub const KUBE_PROXY: u32 = 1 << 0;
    /// `--masquerade-all`: flows of pods to cluster addresses are masqueraded too.
    pub const MASQUERADE_ALL: u32 = 1 << 1;
    /// The networks of pods are known (kube-proxy: a local traffic detector is configured).
    pub const PODS_KNOWN: u32 = 1 << 2;
    /// The programs of an earlier ABI version run behind these ones, and their flows are being taken over: what is unknown
    /// and opens no connection is theirs.
    pub const TAKING_OVER: u32 = 1 << 3;
}

/// Values of the map of the node's own addresses.
pub mod node_address {
    /// Node ports are served at it.
    pub const SERVES_NODE_PORTS: u32 = 1 << 0;
}
