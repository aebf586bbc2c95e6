//! Neighbour solicitations and advertisements (RFC 4861, sections 4.3, 4.4 and 7.1) in IPv6 without extension headers.

use std::net::Ipv6Addr;

use super::{Body, FrameError, Mac, take};

/// `ff02::1`: all nodes of the link.
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

const ICMPV6: u8 = 58;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const OPTION_SOURCE_MAC: u8 = 1;
const OPTION_TARGET_MAC: u8 = 2;
const FLAG_SOLICITED: u8 = 0x40;
const FLAG_OVERRIDE: u8 = 0x20;

/// "Who has this address?"
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighborSolicitation {
    /// IPv6 source; `::` in duplicate address detection.
    pub source: Ipv6Addr,
    /// IPv6 destination: the target, or its solicited-node group.
    pub destination: Ipv6Addr,
    /// The address asked for.
    pub target: Ipv6Addr,
    /// The asker's hardware address; hosts may leave it out of a unicast question.
    pub source_mac: Option<Mac>,
}

/// "I have this address."
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighborAdvertisement {
    /// IPv6 source.
    pub source: Ipv6Addr,
    /// IPv6 destination.
    pub destination: Ipv6Addr,
    /// The address told about.
    pub target: Ipv6Addr,
    /// S: the answer to a question of the destination.
    pub solicited: bool,
    /// O: replaces a hardware address that the receiver holds.
    pub replaces: bool,
    /// The hardware address of the target.
    pub target_mac: Option<Mac>,
}

/// The group that a question for the address goes to (RFC 4291, section 2.7.1).
#[must_use]
pub fn solicited_node(ip: Ipv6Addr) -> Ipv6Addr {
    const PREFIX: u128 = 0xff02_0000_0000_0000_0000_0001_ff00_0000;
    (PREFIX | (u128::from(ip) & 0x00ff_ffff)).into()
}

pub(super) fn multicast_mac(group: Ipv6Addr) -> Mac {
    let [.., a, b, c, d] = group.octets();
    Mac([0x33, 0x33, a, b, c, d])
}

pub(super) fn parse(bytes: &[u8]) -> Result<Body, FrameError> {
    let ([version, ..], rest) = take::<4>(bytes)?;
    let (length, rest) = take::<2>(rest)?;
    let ([next_header, hop_limit], rest) = take::<2>(rest)?;
    let (source, rest) = take::<16>(rest)?;
    let (destination, rest) = take::<16>(rest)?;
    let payload = rest.get(..usize::from(u16::from_be_bytes(length))).ok_or(FrameError::Truncated)?;
    if version >> 4 != 6 || next_header != ICMPV6 {
        return Err(FrameError::OtherProtocol);
    }
    let ([kind, code, _, _, flags, _, _, _], rest) = take::<8>(payload)?;
    if kind != SOLICITATION && kind != ADVERTISEMENT {
        return Err(FrameError::OtherProtocol);
    }
    if hop_limit != 255 {
        return Err(FrameError::HopLimit);
    }
    let (source, destination) = (Ipv6Addr::from(source), Ipv6Addr::from(destination));
    if checksum(source, destination, payload) != 0 {
        return Err(FrameError::Checksum);
    }
    let (target, options) = take::<16>(rest)?;
    let target = Ipv6Addr::from(target);
    if code != 0 || target.is_multicast() || source.is_multicast() {
        return Err(FrameError::InvalidNdp);
    }
    if kind == SOLICITATION {
        let source_mac = mac_option(options, OPTION_SOURCE_MAC)?;
        if source.is_unspecified() && (source_mac.is_some() || destination != solicited_node(target)) {
            return Err(FrameError::InvalidNdp);
        }
        return Ok(Body::Solicitation(NeighborSolicitation { source, destination, target, source_mac }));
    }
    let (solicited, replaces) = (flags & FLAG_SOLICITED != 0, flags & FLAG_OVERRIDE != 0);
    if solicited && destination.is_multicast() {
        return Err(FrameError::InvalidNdp);
    }
    let target_mac = mac_option(options, OPTION_TARGET_MAC)?;
    Ok(Body::Advertisement(NeighborAdvertisement { source, destination, target, solicited, replaces, target_mac }))
}

/// Looks through the options for a hardware address. An option of length 0 makes the whole message invalid; unknown
/// ones are passed over.
fn mac_option(mut options: &[u8], wanted: u8) -> Result<Option<Mac>, FrameError> {
    let mut found = None;
    while let [kind, units, ..] = *options {
        let length = usize::from(units) * 8;
        if length == 0 {
            return Err(FrameError::InvalidNdp);
        }
        let (option, rest) = options.split_at_checked(length).ok_or(FrameError::InvalidNdp)?;
        if let (true, [_, _, mac @ ..]) = (kind == wanted && found.is_none(), option) {
            found = mac.first_chunk().copied().map(Mac);
        }
        options = rest;
    }
    if options.is_empty() { Ok(found) } else { Err(FrameError::InvalidNdp) }
}

impl NeighborSolicitation {
    /// The Ethernet destination for a multicast IPv6 destination.
    #[must_use]
    pub fn group_mac(&self) -> Mac {
        multicast_mac(self.destination)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let body = message(SOLICITATION, 0, self.target, self.source_mac.map(|mac| (OPTION_SOURCE_MAC, mac)));
        packet(self.source, self.destination, body)
    }
}

impl NeighborAdvertisement {
    /// The Ethernet destination for a multicast IPv6 destination.
    #[must_use]
    pub fn group_mac(&self) -> Mac {
        multicast_mac(self.destination)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let solicited = if self.solicited { FLAG_SOLICITED } else { 0 };
        let replaces = if self.replaces { FLAG_OVERRIDE } else { 0 };
        let option = self.target_mac.map(|mac| (OPTION_TARGET_MAC, mac));
        packet(self.source, self.destination, message(ADVERTISEMENT, solicited | replaces, self.target, option))
    }
}

fn message(kind: u8, flags: u8, target: Ipv6Addr, option: Option<(u8, Mac)>) -> Vec<u8> {
    let mut body = vec![kind, 0, 0, 0, flags, 0, 0, 0];
    body.extend(target.octets());
    if let Some((option, mac)) = option {
        body.extend([option, 1]);
        body.extend(mac.0);
    }
    body
}

fn packet(source: Ipv6Addr, destination: Ipv6Addr, mut body: Vec<u8>) -> Vec<u8> {
    let sum = checksum(source, destination, &body).to_be_bytes();
    for (byte, value) in body.iter_mut().skip(2).zip(sum) {
        *byte = value;
    }
    let length = u16::try_from(body.len()).unwrap_or(u16::MAX).to_be_bytes();
    let head = [[0x60, 0, 0, 0], [length[0], length[1], ICMPV6, 255]].concat();
    [&head[..], &source.octets(), &destination.octets(), &body].concat()
}

/// Puts the right checksum into a frame of ICMPv6, for fuzzing: chance would never get past it.
pub(crate) fn mend(frame: &mut [u8]) {
    let Some((head, body)) = frame.split_at_mut_checked(54) else { return };
    let addresses = (head.get(22..38), head.get(38..54));
    let (Some(source), Some(destination)) = addresses else { return };
    let (Ok(source), Ok(destination)) = (<[u8; 16]>::try_from(source), <[u8; 16]>::try_from(destination)) else {
        return;
    };
    let length =
        head.get(18..20).map_or(0, |bytes| bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)));
    let Some(message) = body.get_mut(..length).filter(|message| message.len() >= 4) else { return };
    message.iter_mut().skip(2).take(2).for_each(|byte| *byte = 0);
    let sum = checksum(source.into(), destination.into(), message).to_be_bytes();
    message.iter_mut().skip(2).zip(sum).for_each(|(byte, value)| *byte = value);
}

/// The Internet checksum over pseudo-header and message (RFC 8200, section 8.1); 0 over a message that carries its own.
fn checksum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    let words = |bytes: &[u8]| -> u32 {
        bytes
            .chunks(2)
            .map(|pair| pair.iter().fold(0, |word, byte| word << 8 | u32::from(*byte)) << (8 * (pair.len() & 1)))
            .sum()
    };
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    let mut sum = words(&source.octets()) + words(&destination.octets()) + words(message) + length + u32::from(ICMPV6);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    // The fold above leaves at most sixteen bits.
    !u16::try_from(sum).unwrap_or(u16::MAX)
}
