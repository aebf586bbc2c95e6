//! The frames that the programs are measured with: TCP over IPv4 in Ethernet.

use std::net::SocketAddrV4;

use roadstead_lab::Mac;

/// Length of the whole frame; headers and a little payload.
const LEN: usize = 118;
const ETHERNET: usize = 14;

/// What a TCP segment says about its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Segment {
    /// The first of a connection.
    Opening,
    /// One in the middle.
    Middle,
}

/// A frame from one address to another. Its checksums are those of nothing: programs update them by the difference, and
/// nobody else looks.
pub(crate) fn tcp(station: Mac, from: SocketAddrV4, to: SocketAddrV4, segment: Segment) -> Vec<u8> {
    let mut frame = Vec::with_capacity(LEN);
    frame.extend(station.0);
    frame.extend([0x02, 0, 0, 0, 0, 1, 0x08, 0x00]);
    let total = u16::try_from(LEN - ETHERNET).unwrap_or(u16::MAX);
    frame.extend([0x45, 0]);
    frame.extend(total.to_be_bytes());
    // Identification, "don't fragment", time to live, TCP, checksum.
    frame.extend([0x12, 0x34, 0x40, 0, 64, 6, 0, 0]);
    frame.extend(from.ip().octets());
    frame.extend(to.ip().octets());
    frame.extend(from.port().to_be_bytes());
    frame.extend(to.port().to_be_bytes());
    frame.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50]);
    frame.push(if segment == Segment::Opening { 0x02 } else { 0x10 });
    // Window, checksum, urgent pointer.
    frame.extend([0xff, 0xff, 0, 0, 0, 0]);
    frame.resize(LEN, 0);
    frame
}

/// Source and destination of a frame of this kind.
pub(crate) fn addresses(frame: &[u8]) -> Option<(SocketAddrV4, SocketAddrV4)> {
    let word = |at: usize| frame.get(at..at + 4)?.try_into().ok().map(|bytes: [u8; 4]| bytes.into());
    let port = |at: usize| frame.get(at..at + 2)?.try_into().ok().map(u16::from_be_bytes);
    Some((SocketAddrV4::new(word(26)?, port(34)?), SocketAddrV4::new(word(30)?, port(36)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_tells_its_addresses() {
        let (from, to) = ("192.0.2.1:1024".parse().unwrap(), "198.51.100.10:80".parse().unwrap());
        let frame = tcp(Mac([2, 0, 192, 0, 2, 9]), from, to, Segment::Opening);
        assert_eq!((frame.len(), addresses(&frame)), (LEN, Some((from, to))));
        assert_eq!(addresses(&frame[..30]), None);
    }
}
