//! ARP for IPv4 over Ethernet (RFC 826): 28 bytes.

use std::net::Ipv4Addr;

use super::{FrameError, Mac, take};

/// Hardware type Ethernet, protocol IPv4, their address lengths.
const PREFIX: [u8; 6] = [0, 1, 0x08, 0x00, 6, 4];

/// Request or reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArpOperation {
    /// "Who has?", 1.
    Request,
    /// "I have", 2.
    Reply,
}

/// An ARP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArpPacket {
    /// Request or reply.
    pub operation: ArpOperation,
    /// Sender's hardware address.
    pub sender_mac: Mac,
    /// Sender's address; 0.0.0.0 in a probe (RFC 5227).
    pub sender_ip: Ipv4Addr,
    /// Target's hardware address; without meaning in a request.
    pub target_mac: Mac,
    /// Target's address.
    pub target_ip: Ipv4Addr,
}

impl ArpPacket {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, FrameError> {
        let (prefix, rest) = take::<6>(bytes)?;
        let (operation, rest) = take::<2>(rest)?;
        let (sender_mac, rest) = take::<6>(rest)?;
        let (sender_ip, rest) = take::<4>(rest)?;
        let (target_mac, rest) = take::<6>(rest)?;
        let (target_ip, _padding) = take::<4>(rest)?;
        let operation = match (prefix, operation) {
            (PREFIX, [0, 1]) => ArpOperation::Request,
            (PREFIX, [0, 2]) => ArpOperation::Reply,
            _ => return Err(FrameError::OtherArp),
        };
        Ok(Self {
            operation,
            sender_mac: Mac(sender_mac),
            sender_ip: sender_ip.into(),
            target_mac: Mac(target_mac),
            target_ip: target_ip.into(),
        })
    }

    pub(super) fn encode(&self) -> [u8; 28] {
        let operation = match self.operation {
            ArpOperation::Request => [0, 1],
            ArpOperation::Reply => [0, 2],
        };
        let mut bytes = [0; 28];
        let parts: [&[u8]; 6] = [
            &PREFIX,
            &operation,
            &self.sender_mac.0,
            &self.sender_ip.octets(),
            &self.target_mac.0,
            &self.target_ip.octets(),
        ];
        for (byte, value) in bytes.iter_mut().zip(parts.into_iter().flatten()) {
            *byte = *value;
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Body, Frame};

    /// A request for 192.0.2.1 from 192.0.2.9, as Linux sends it, with the padding to 60 bytes.
    const REQUEST: &str =
        "ffffffffffff 02005e000209 0806 0001 0800 06 04 0001 02005e000209 c0000209 000000000000 c0000201
                           000000000000000000000000000000000000";

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<char> = hex.chars().filter(|digit| !digit.is_whitespace()).collect();
        digits.chunks(2).map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap()).collect()
    }

    fn request() -> Frame {
        let sender_mac = Mac([2, 0, 0x5e, 0, 2, 9]);
        Frame {
            destination: Mac::BROADCAST,
            source: sender_mac,
            body: Body::Arp(ArpPacket {
                operation: ArpOperation::Request,
                sender_mac,
                sender_ip: Ipv4Addr::new(192, 0, 2, 9),
                target_mac: Mac([0; 6]),
                target_ip: Ipv4Addr::new(192, 0, 2, 1),
            }),
        }
    }

    #[test]
    fn a_request_is_read_and_written_byte_for_byte() {
        let wire = bytes(REQUEST);
        assert_eq!(wire.len(), 60);
        assert_eq!(Frame::parse(&wire), Ok(request()));
        assert_eq!(request().encode(), wire[..42]);
    }

    #[test]
    fn other_bytes_are_refused_by_name() {
        let changed = |position: usize, value: u8| {
            let mut wire = bytes(REQUEST);
            wire[position] = value;
            wire
        };
        let cases = [
            (bytes(REQUEST)[..41].to_vec(), FrameError::Truncated),
            (Vec::new(), FrameError::Truncated),
            (changed(13, 0x00), FrameError::OtherProtocol),
            (changed(15, 6), FrameError::OtherArp),
            (changed(16, 9), FrameError::OtherArp),
            (changed(18, 8), FrameError::OtherArp),
            (changed(21, 3), FrameError::OtherArp),
        ];
        for (wire, error) in cases {
            assert_eq!(Frame::parse(&wire), Err(error), "{wire:02x?}");
        }
    }
}
