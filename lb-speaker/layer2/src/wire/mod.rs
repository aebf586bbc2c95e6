//! Ethernet frames of ARP and neighbour discovery, byte for byte, written and read by hand.
//!
//! Foreign bytes enter here; what comes out is typed or a named refusal. 802.1Q tags are the business of the VLAN
//! device that the speaker listens on, so a tagged frame is none of ours.

mod arp;
mod ndp;

use std::fmt;

pub use arp::{ArpOperation, ArpPacket};
pub(crate) use ndp::mend;
pub use ndp::{ALL_NODES, NeighborAdvertisement, NeighborSolicitation, solicited_node};

const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV6: u16 = 0x86dd;

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// All stations.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Whether the address names a group; nobody sends from one.
    #[must_use]
    pub fn is_group(self) -> bool {
        let Self([first, ..]) = self;
        first & 1 == 1
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self([a, b, c, d, e, g]) = self;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A frame that asks or tells about addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Ethernet destination.
    pub destination: Mac,
    /// Ethernet source.
    pub source: Mac,
    /// What it carries.
    pub body: Body,
}

/// What a [`Frame`] carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// ARP for IPv4 over Ethernet.
    Arp(ArpPacket),
    /// An ICMPv6 neighbour solicitation.
    Solicitation(NeighborSolicitation),
    /// An ICMPv6 neighbour advertisement.
    Advertisement(NeighborAdvertisement),
}

/// Why bytes are no [`Frame`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The bytes end inside a header.
    #[error("the frame is truncated")]
    Truncated,
    /// Neither ARP nor ICMPv6 neighbour discovery.
    #[error("the frame is neither ARP nor neighbour discovery")]
    OtherProtocol,
    /// ARP for another hardware or network, or an operation that is neither request nor reply.
    #[error("the ARP packet is not a request or reply for IPv4 over Ethernet")]
    OtherArp,
    /// A hop limit below 255: the packet came through a router (RFC 4861, section 7.1).
    #[error("the hop limit is not 255")]
    HopLimit,
    /// The ICMPv6 checksum does not match.
    #[error("the ICMPv6 checksum is wrong")]
    Checksum,
    /// A code, target, option or address that RFC 4861, section 7.1, tells to discard.
    #[error("the neighbour discovery message is invalid")]
    InvalidNdp,
}

impl Frame {
    /// Reads a frame; trailing padding is ignored.
    ///
    /// # Errors
    /// When the bytes are not a valid frame of one of the kinds in [`Body`].
    pub fn parse(bytes: &[u8]) -> Result<Self, FrameError> {
        let (destination, rest) = take::<6>(bytes)?;
        let (source, rest) = take::<6>(rest)?;
        let (ethertype, rest) = take::<2>(rest)?;
        let body = match u16::from_be_bytes(ethertype) {
            ETHERTYPE_ARP => Body::Arp(ArpPacket::parse(rest)?),
            ETHERTYPE_IPV6 => ndp::parse(rest)?,
            _ => return Err(FrameError::OtherProtocol),
        };
        Ok(Self { destination: Mac(destination), source: Mac(source), body })
    }

    /// Writes the frame without padding: drivers pad to the 60 bytes that Ethernet asks for.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let (ethertype, payload) = match &self.body {
            Body::Arp(arp) => (ETHERTYPE_ARP, arp.encode().to_vec()),
            Body::Solicitation(solicitation) => (ETHERTYPE_IPV6, solicitation.encode()),
            Body::Advertisement(advertisement) => (ETHERTYPE_IPV6, advertisement.encode()),
        };
        [&self.destination.0[..], &self.source.0, &ethertype.to_be_bytes(), &payload].concat()
    }
}

/// Splits off the first `N` bytes.
fn take<const N: usize>(bytes: &[u8]) -> Result<([u8; N], &[u8]), FrameError> {
    bytes.split_first_chunk().map(|(head, rest)| (*head, rest)).ok_or(FrameError::Truncated)
}
