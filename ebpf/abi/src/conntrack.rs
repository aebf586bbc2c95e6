//! Conntrack: a flow through this node is a pair of entries, written and freed together.
//!
//! The programs create both entries and touch `last_seen` and `flags`; the agent's collector frees expired pairs.

use crate::{Addr, Be16, check};

/// A packet's tuple as it arrives at the program that looks it up.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct CtKey {
    /// Source address.
    pub src: Addr,
    /// Destination address.
    pub dst: Addr,
    /// Source port.
    pub sport: Be16,
    /// Destination port.
    pub dport: Be16,
    /// IP protocol number.
    pub proto: u8,
    /// Zero.
    pub reserved: [u8; 3],
}

const _: () = assert!(size_of::<CtKey>() == 40);

impl CtKey {
    /// The tuple of packets in the other direction, before anybody translates them.
    #[inline(always)]
    #[must_use]
    pub const fn reversed(&self) -> Self {
        Self { src: self.dst, dst: self.src, sport: self.dport, dport: self.sport, proto: self.proto, reserved: [0; 3] }
    }

    /// What [`CtEntry::check`] of this key's entry holds.
    #[inline(always)]
    #[must_use]
    pub fn check(&self) -> u32 {
        check::of_tuple(&self.src, &self.dst, self.sport, self.dport)
    }
}

/// The tuple that a packet leaves with, and the flow's state in this direction.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CtEntry {
    /// [`CtKey::check`] of the key that it was stored under. The kernel may hand an element that a lookup has found to
    /// another key at once, so whoever copies an entry compares this word afterwards.
    pub check: u32,
    /// Device to send the packet to; 0 leaves the way to the stack.
    pub ifindex: u32,
    /// Source address to write.
    pub src: Addr,
    /// Destination address to write.
    pub dst: Addr,
    /// Source port to write.
    pub sport: Be16,
    /// Destination port to write.
    pub dport: Be16,
    /// Bits of [`ct_flags`].
    pub flags: u32,
    /// Id of the Service's port.
    pub service: u32,
    /// Id of the backend.
    pub backend: u32,
    /// Time of the last packet in this direction, or of creation, in units of the programs' clock ([`crate::CLOCK_SHIFT`]).
    pub last_seen: u32,
    /// Zero: what makes this another layout.
    #[cfg(feature = "next-abi")]
    pub next: u32,
}

const _: () = assert!(size_of::<CtEntry>() == if cfg!(feature = "next-abi") { 64 } else { 60 });

impl CtEntry {
    /// The key under which the other direction's entry is stored: packets that answer one rewritten by `self`.
    #[inline(always)]
    #[must_use]
    pub const fn reverse_key(&self, proto: u8) -> CtKey {
        CtKey { src: self.dst, dst: self.src, sport: self.dport, dport: self.sport, proto, reserved: [0; 3] }
    }

    /// Writes [`CtEntry::reverse_key`] in place: the programs have no stack to return it on.
    #[inline(always)]
    pub fn write_reverse_key(&self, proto: u8, key: &mut CtKey) {
        key.src = self.dst;
        key.dst = self.src;
        key.sport = self.dport;
        key.dport = self.sport;
        key.proto = proto;
        key.reserved = [0; 3];
    }
}

/// State of one direction of a flow.
pub mod ct_flags {
    /// The direction from backend to client.
    pub const REPLY: u32 = 1 << 0;
    /// A packet was seen in this direction.
    pub const SEEN: u32 = 1 << 1;
    /// TCP: a FIN was seen in this direction.
    pub const FIN: u32 = 1 << 2;
    /// TCP: a RST was the last thing seen in this direction.
    pub const RST: u32 = 1 << 3;
    /// TCP, forward direction: the client has acknowledged something, so it is no forged address.
    pub const ACKED: u32 = 1 << 4;
    /// Reply direction: translated where the packet leaves towards its client, after the stack and its packet filters;
    /// without it, where the packet comes in.
    pub const AT_EGRESS: u32 = 1 << 5;
    /// The device of `ifindex` takes the packet as if it had come in there.
    pub const INGRESS: u32 = 1 << 6;
}

/// A datagram whose fragments are on the way; later ones carry no ports.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct FragmentKey {
    /// Source address.
    pub src: Addr,
    /// Destination address.
    pub dst: Addr,
    /// Identification of the datagram: 16 bits for IPv4, 32 for IPv6; as the packet holds it.
    pub id: u32,
    /// IP protocol number.
    pub proto: u8,
    /// Zero.
    pub reserved: [u8; 3],
}

const _: () = assert!(size_of::<FragmentKey>() == 40);

/// The ports of a fragmented datagram.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FragmentPorts {
    /// Source port.
    pub sport: Be16,
    /// Destination port.
    pub dport: Be16,
}
