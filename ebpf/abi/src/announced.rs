//! What the speaker tells the programs: the addresses that this node announces, and until when it may.
//!
//! These maps are pinned apart from the others, under a version of their own: the speaker writes them, and neither daemon
//! need be of the other's build. A change of a layout or meaning here raises [`VERSION`].

use crate::{Addr, Be16, check};

/// Number of these layouts; part of the path under which the maps are pinned.
pub const VERSION: u32 = 1;

/// An address on an interface.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct AnnouncedKey {
    /// The address.
    pub addr: Addr,
    /// Index of the interface that questions come in on.
    pub ifindex: u32,
}

const _: () = assert!(size_of::<AnnouncedKey>() == 20);

impl AnnouncedKey {
    /// What [`Announced::check`] of this key's entry holds.
    #[inline(always)]
    #[must_use]
    pub fn check(&self) -> u32 {
        check::of_tuple(&self.addr, &Addr::UNSPECIFIED, Be16(self.ifindex as u16), Be16((self.ifindex >> 16) as u16))
    }
}

/// How questions for an address are answered. Times are nanoseconds of the monotonic clock (`bpf_ktime_get_ns`).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Announced {
    /// From then on nothing is answered. A speaker that is alive moves it on.
    pub lease_until: u64,
    /// Until then segments of connections that this node does not know go to `former`.
    pub former_until: u64,
    /// The node that announced the address before it came here in a planned way, an address of it on the segment;
    /// unspecified for none.
    pub former: Addr,
    /// The interface's link-local address, source of advertisements; unspecified for none.
    pub link_local: Addr,
    /// [`AnnouncedKey::check`] of the key that it was stored under, as in [`crate::CtEntry::check`].
    pub check: u32,
    /// The interface's hardware address.
    pub mac: [u8; 6],
    /// Zero.
    pub reserved: [u16; 3],
}

const _: () = assert!(size_of::<Announced>() == 64);

/// What was done for an address on an interface. Under the unspecified address on interface 0 the probes are counted.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Answers {
    /// Questions that were answered; probes that were echoed.
    pub answers: u64,
    /// Segments that went to the former owner.
    pub handed_on: u64,
}

/// The speaker itself; one entry.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Speaker {
    /// When it last stirred, in nanoseconds of the monotonic clock.
    pub stamp: u64,
    /// Where it hears its peers, UDP; 0 when it hears none.
    pub port: Be16,
    /// Zero.
    pub reserved: [u16; 3],
}

const _: () = assert!(size_of::<Speaker>() == 16);

/// The datagram by which a peer that has not been heard asks whether its node is alive: magic, version, three zero bytes, a
/// nonce, and room for the answer. The echo differs in its magic and in the room, which holds the age of
/// [`Speaker::stamp`] in milliseconds (big endian).
pub mod probe {
    /// Bytes of either.
    pub const LENGTH: usize = 32;
    /// What a probe begins with.
    pub const MAGIC: [u8; 4] = *b"RSPB";
    /// What an echo begins with.
    pub const ECHO: [u8; 4] = *b"RSEC";
    /// What follows the magic: version 1 and zeros.
    pub const VERSION: [u8; 4] = [1, 0, 0, 0];
    /// Offset of the room.
    pub const AGE: usize = 24;
}

/// Longest ICMPv6 message of a question that is looked at, in bytes: the solicitation and 60 units of options. Longer
/// ones are left to the speaker's own socket.
pub const LONGEST_QUESTION: usize = 504;

/// Addresses on interfaces.
pub const MAX_ANNOUNCED: u32 = 32_768;

/// Names of the maps in the object, and of their pins.
pub mod map_names {
    /// Addresses that questions are answered for.
    pub const ANNOUNCED: &str = "ANNOUNCED";
    /// What was done for them.
    pub const ANSWERS: &str = "ANSWERS";
    /// The speaker itself.
    pub const SPEAKER: &str = "SPEAKER";

    /// All of them.
    pub const ALL: [&str; 3] = [ANNOUNCED, ANSWERS, SPEAKER];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_two_interfaces_have_two_check_words() {
        let on = |ifindex| AnnouncedKey { addr: Addr::v4([192, 0, 2, 1]), ifindex }.check();
        assert!(on(2) != on(3) && on(2) != on(2 + (1 << 16)) && on(2) != 0);
    }
}
