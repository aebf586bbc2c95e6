//! Ethernet frames, built and read by etherparse: an oracle that shares no code with the programs.

use std::net::IpAddr;

use etherparse::{
    Icmpv4Type, Icmpv6Type, IpNumber, LaxPacketHeaders, NetHeaders, PacketBuilder, PacketBuilderStep, PacketHeaders,
    PayloadSlice, TransportHeader, icmpv4, ip_number,
};

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    /// A SYN.
    Tcp,
    /// A segment of an established connection.
    TcpAck,
    /// A SYN that answers one.
    TcpSynAck,
    /// A reset that answers a SYN.
    TcpRst,
    Udp,
    /// An echo request of the frame's family.
    Icmp,
}

impl Transport {
    /// What a server answers to it.
    pub(crate) fn answer(self) -> Self {
        match self {
            Self::Tcp => Self::TcpSynAck,
            other => other,
        }
    }
}

/// A frame to a device without a hardware address, as the loopback device is.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    pub(crate) sport: u16,
    pub(crate) dport: u16,
    transport: Transport,
    fragment: bool,
    cut: usize,
}

const PAYLOAD: &[u8] = b"a payload of odd length";
const ETH_LEN: usize = 14;

impl Frame {
    pub(crate) fn new(src: &str, dst: &str, sport: u16, dport: u16, transport: Transport) -> Self {
        let (src, dst) = (src.parse().unwrap(), dst.parse().unwrap());
        Self { src, dst, sport, dport, transport, fragment: false, cut: 0 }
    }

    /// A fragment that is not the first of its datagram.
    pub(crate) fn later_fragment(mut self) -> Self {
        self.fragment = true;
        self
    }

    /// The frame with its transport header cut to this many bytes.
    pub(crate) fn cut(mut self, header: usize) -> Self {
        self.cut = header;
        self
    }

    /// The same frame after translation.
    pub(crate) fn moved(&self, src: &str, dst: &str, sport: u16, dport: u16) -> Self {
        Self { src: src.parse().unwrap(), dst: dst.parse().unwrap(), sport, dport, ..self.clone() }
    }

    /// An ICMP error about this frame, from a router to the frame's sender: "too big", with a path MTU of 1280. It quotes
    /// the IP header and eight bytes, as the oldest routers do.
    pub(crate) fn too_big(&self, router: &str, to: &str) -> Vec<u8> {
        let header = if self.dst.is_ipv4() { 20 } else { 40 };
        let quote = self.built()[ETH_LEN..ETH_LEN + header + 8].to_vec();
        let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], [0; 6]);
        let mut bytes = Vec::new();
        match (router.parse().unwrap(), to.parse().unwrap()) {
            (IpAddr::V4(router), IpAddr::V4(to)) => {
                let error = icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1280 };
                let icmp = ethernet.ipv4(router.octets(), to.octets(), 60);
                icmp.icmpv4(Icmpv4Type::DestinationUnreachable(error)).write(&mut bytes, &quote).unwrap();
            }
            (IpAddr::V6(router), IpAddr::V6(to)) => {
                let icmp = ethernet.ipv6(router.octets(), to.octets(), 60);
                icmp.icmpv6(Icmpv6Type::PacketTooBig { mtu: 1280 }).write(&mut bytes, &quote).unwrap();
            }
            _ => panic!("two families in one error"),
        }
        bytes
    }

    /// The frame in fragments: the first with the transport header and eight bytes more, the second with the rest.
    pub(crate) fn in_fragments(&self) -> [Vec<u8>; 2] {
        const FIRST: usize = 16;
        let whole = self.built();
        let header = if self.dst.is_ipv4() { 20 } else { 40 };
        let (head, data) = whole[ETH_LEN..].split_at(header);
        let part = |range: std::ops::Range<usize>, more: bool| {
            let (offset, data) = (range.start / 8, &data[range]);
            let mut bytes = whole[..ETH_LEN].to_vec();
            let mut head = head.to_vec();
            if header == 20 {
                head[2..4].copy_from_slice(&u16::try_from(20 + data.len()).unwrap().to_be_bytes());
                head[4..8].copy_from_slice(&[0, 7, u8::from(more) << 5, u8::try_from(offset).unwrap()]);
                head[10..12].fill(0);
                let sum: u32 = head.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
                let sum = u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
                head[10..12].copy_from_slice(&(!sum).to_be_bytes());
            } else {
                head[4..6].copy_from_slice(&u16::try_from(8 + data.len()).unwrap().to_be_bytes());
                let next = std::mem::replace(&mut head[6], 44);
                let place = u16::try_from(offset * 8).unwrap() | u16::from(more);
                head.extend([next, 0]);
                head.extend(place.to_be_bytes());
                head.extend([0, 0, 0, 7]);
            }
            bytes.extend(head);
            bytes.extend(data);
            bytes
        };
        [part(0..FIRST, true), part(FIRST..data.len(), false)]
    }

    /// The frame on the wire, checksums and all.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.built();
        let header = if self.dst.is_ipv4() { 20 } else { 40 };
        if self.fragment && self.dst.is_ipv4() {
            bytes[ETH_LEN + 7] = 0x07;
        } else if self.fragment {
            // The fragment header takes the place of the datagram's beginning.
            bytes[ETH_LEN + 6] = 44;
            bytes[ETH_LEN + header..ETH_LEN + header + 8].copy_from_slice(&[17, 0, 0, 0x39, 0, 0, 0, 7]);
        }
        if self.cut > 0 {
            bytes.truncate(ETH_LEN + header + self.cut);
        }
        bytes
    }

    fn built(&self) -> Vec<u8> {
        let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], [0; 6]);
        let ip = match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => ethernet.ipv4(src.octets(), dst.octets(), 61),
            (IpAddr::V6(src), IpAddr::V6(dst)) => ethernet.ipv6(src.octets(), dst.octets(), 61),
            _ => panic!("two families in one frame"),
        };
        self.with_transport(ip)
    }

    fn with_transport(&self, ip: PacketBuilderStep<etherparse::IpHeaders>) -> Vec<u8> {
        let mut bytes = Vec::new();
        let (sport, dport) = (self.sport, self.dport);
        match self.transport {
            Transport::Tcp => ip.tcp(sport, dport, 1_000, 64_240).syn().write(&mut bytes, &[]),
            Transport::TcpSynAck => ip.tcp(sport, dport, 5_000, 64_240).syn().ack(1_001).write(&mut bytes, &[]),
            Transport::TcpRst => ip.tcp(sport, dport, 0, 0).rst().ack(1_001).write(&mut bytes, &[]),
            Transport::TcpAck => ip.tcp(sport, dport, 1_001, 64_240).ack(5_001).write(&mut bytes, PAYLOAD),
            Transport::Udp => ip.udp(sport, dport).write(&mut bytes, PAYLOAD),
            Transport::Icmp if self.dst.is_ipv4() => ip.icmpv4_echo_request(7, 1).write(&mut bytes, PAYLOAD),
            Transport::Icmp => ip.icmpv6_echo_request(7, 1).write(&mut bytes, PAYLOAD),
        }
        .unwrap();
        bytes
    }

    /// Reads a TCP or UDP frame back.
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let headers = PacketHeaders::from_ethernet_slice(bytes).unwrap();
        let (src, dst) = addresses(headers.net.as_ref().unwrap());
        let (sport, dport, transport) = match headers.transport.as_ref().unwrap() {
            TransportHeader::Tcp(tcp) => (tcp.source_port, tcp.destination_port, Transport::Tcp),
            TransportHeader::Udp(udp) => (udp.source_port, udp.destination_port, Transport::Udp),
            other => panic!("{other:?}"),
        };
        Self { src, dst, sport, dport, transport, fragment: false, cut: 0 }
    }

    /// The packet is this frame to the byte, checksums computed from scratch; MAC addresses are not compared.
    pub(crate) fn assert_is(&self, packet: &[u8], label: &str) {
        assert_eq!(packet.get(ETH_LEN..).unwrap(), &self.bytes()[ETH_LEN..], "{label}");
    }

    /// The packet is the reset that follows the ICMPv6 error, with a valid checksum.
    fn assert_reset_by(&self, packet: &[u8], label: &str) {
        let headers = PacketHeaders::from_ethernet_slice(packet).unwrap();
        assert_eq!(addresses(headers.net.as_ref().unwrap()), (self.dst, self.src), "{label}");
        let (Some(NetHeaders::Ipv6(ip, _)), Some(TransportHeader::Tcp(tcp))) = (&headers.net, &headers.transport)
        else {
            panic!("{label}: {headers:?}")
        };
        assert_eq!((tcp.source_port, tcp.destination_port), (self.dport, self.sport), "{label}");
        assert!(tcp.rst && !tcp.syn, "{label}");
        assert_eq!(tcp.calc_checksum_ipv6(ip, &[]).unwrap(), tcp.checksum, "{label}: checksum");
        let numbers = (tcp.sequence_number, tcp.acknowledgment_number, tcp.ack);
        let expected = if self.transport == Transport::Tcp { (0, 1_001, true) } else { (5_001, 0, false) };
        assert_eq!(numbers, expected, "{label}");
    }

    /// The packet is an ICMP port unreachable that answers this frame: from its destination to its source, quoting it,
    /// with valid checksums.
    pub(crate) fn assert_rejected_by(&self, packet: &[u8], label: &str) {
        let is_tcp = matches!(self.transport, Transport::Tcp | Transport::TcpAck);
        if is_tcp && self.dst.is_ipv6() {
            return self.assert_reset_by(packet, label);
        }
        let headers = PacketHeaders::from_ethernet_slice(packet).unwrap();
        assert_eq!(addresses(headers.net.as_ref().unwrap()), (self.dst, self.src), "{label}");
        let (PayloadSlice::Icmpv4(quote) | PayloadSlice::Icmpv6(quote)) = headers.payload else {
            panic!("{label}: {:?}", headers.payload)
        };
        match (headers.net.as_ref().unwrap(), headers.transport.unwrap()) {
            (NetHeaders::Ipv4(ip, _), TransportHeader::Icmpv4(icmp)) => {
                assert_eq!(ip.header_checksum, ip.calc_header_checksum(), "{label}: IPv4 checksum");
                assert_eq!(icmp.icmp_type.calc_checksum(quote), icmp.checksum, "{label}: ICMP checksum");
                assert_eq!(packet[ETH_LEN + 20..ETH_LEN + 22], [3, 3], "{label}");
                assert_eq!(ip.protocol, IpNumber::ICMP, "{label}");
            }
            (NetHeaders::Ipv6(ip, _), TransportHeader::Icmpv6(icmp)) => {
                let checksum = icmp.icmp_type.calc_checksum(ip.source, ip.destination, quote).unwrap();
                assert_eq!(checksum, icmp.checksum, "{label}: ICMPv6 checksum");
                assert_eq!(packet[ETH_LEN + 40..ETH_LEN + 42], [1, 4], "{label}");
                assert_eq!(ip.next_header, ip_number::IPV6_ICMP, "{label}");
            }
            other => panic!("{label}: {other:?}"),
        }
        assert_eq!(quote, &self.bytes()[ETH_LEN..ETH_LEN + quote.len()], "{label}: the quote");
        let quoted = LaxPacketHeaders::from_ip(quote).unwrap();
        assert_eq!(addresses(quoted.net.as_ref().unwrap()), (self.src, self.dst), "{label}: the quote");
    }
}

fn addresses(net: &NetHeaders) -> (IpAddr, IpAddr) {
    match net {
        NetHeaders::Ipv4(ip, _) => (ip.source.into(), ip.destination.into()),
        NetHeaders::Ipv6(ip, _) => (ip.source.into(), ip.destination.into()),
        other => panic!("{other:?}"),
    }
}
