//! Frames of packets, built and read by etherparse, which shares no code with the programs.

use std::net::IpAddr;

use etherparse::{
    IpHeaders, LaxPacketHeaders, NetHeaders, PacketBuilder, PacketBuilderStep, PacketHeaders, TransportHeader,
};
use roadstead_abi::{Addr, Be16, CtKey, DropReason};
use roadstead_dataplane::{
    addresses::{from_map, to_map},
    explain::{Form, Packet},
};

const ETH_LEN: usize = 14;
const PAYLOAD: &[u8] = b"a payload of odd length";

/// The frame of a packet, to a device with this hardware address.
pub(crate) fn frame(packet: &Packet, mac: [u8; 6]) -> Vec<u8> {
    let key = &packet.key;
    let (sport, dport) = (key.sport.get(), key.dport.get());
    match packet.form {
        Form::Error => error(packet, mac),
        Form::Other(DropReason::Fragment) => later_fragment(packet, mac),
        Form::Other(_) => echo(packet, mac),
        _ if key.proto == 6 => {
            let mut tcp = ip(&key.src, &key.dst, packet.hops, mac).tcp(sport, dport, 1_000, 64_240);
            tcp = if packet.tcp_flags & 0x01 != 0 { tcp.fin() } else { tcp };
            tcp = if packet.tcp_flags & 0x02 != 0 { tcp.syn() } else { tcp };
            tcp = if packet.tcp_flags & 0x04 != 0 { tcp.rst() } else { tcp };
            tcp = if packet.tcp_flags & 0x10 != 0 { tcp.ack(1) } else { tcp };
            written(|bytes| tcp.write(bytes, PAYLOAD))
        }
        _ => written(|bytes| ip(&key.src, &key.dst, packet.hops, mac).udp(sport, dport).write(bytes, PAYLOAD)),
    }
}

fn written<E: std::fmt::Debug>(write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(&mut bytes).unwrap();
    bytes
}

fn ip(src: &Addr, dst: &Addr, hops: u8, mac: [u8; 6]) -> PacketBuilderStep<IpHeaders> {
    let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], mac);
    match (from_map(src), from_map(dst)) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => ethernet.ipv4(src.octets(), dst.octets(), hops),
        (IpAddr::V6(src), IpAddr::V6(dst)) => ethernet.ipv6(src.octets(), dst.octets(), hops),
        _ => panic!("two families in one frame"),
    }
}

fn echo(packet: &Packet, mac: [u8; 6]) -> Vec<u8> {
    let step = ip(&packet.key.src, &packet.key.dst, packet.hops, mac);
    if packet.key.dst.is_v4() {
        return written(|bytes| step.icmpv4_echo_request(7, 1).write(bytes, PAYLOAD));
    }
    written(|bytes| step.icmpv6_echo_request(7, 1).write(bytes, PAYLOAD))
}

fn later_fragment(packet: &Packet, mac: [u8; 6]) -> Vec<u8> {
    let key = &packet.key;
    let step = ip(&key.src, &key.dst, packet.hops, mac);
    let mut bytes = written(|bytes| step.udp(key.sport.get(), key.dport.get()).write(bytes, PAYLOAD));
    if key.dst.is_v4() {
        bytes[ETH_LEN + 7] = 0x07;
    } else {
        // The fragment header takes the place of the datagram's beginning.
        bytes[ETH_LEN + 6] = 44;
        bytes[ETH_LEN + 40..ETH_LEN + 48].copy_from_slice(&[17, 0, 0, 0x39, 0, 0, 0, 7]);
    }
    bytes
}

/// An ICMP port unreachable from the packet's source about the packet that its tuple answers.
fn error(packet: &Packet, mac: [u8; 6]) -> Vec<u8> {
    let asked = packet.key.reversed();
    let quoted = frame(&Packet { key: asked, form: Form::Whole, tcp_flags: 0x10, hops: 60, ..*packet }, mac);
    let quote = &quoted[ETH_LEN..];
    let step = ip(&packet.key.src, &packet.key.dst, packet.hops, mac);
    if asked.src.is_v4() {
        return written(|bytes| step.icmpv4_raw(3, 3, [0; 4]).write(bytes, &quote[..28]));
    }
    written(|bytes| step.icmpv6_raw(1, 4, [0; 4]).write(bytes, quote))
}

/// The tuple of a frame; of an ICMP error that of a packet which would answer the quoted one, with the outer
/// destination in the place of the quoted source if they agree.
pub(crate) fn tuple(bytes: &[u8], is_error: bool) -> CtKey {
    let headers = PacketHeaders::from_ethernet_slice(bytes).unwrap();
    let (src, dst) = addresses(headers.net.as_ref().unwrap());
    if !is_error {
        let (sport, dport, proto) = ports(headers.transport.as_ref().unwrap());
        return key(src, dst, sport, dport, proto);
    }
    let quote = headers.payload.slice();
    let quoted = LaxPacketHeaders::from_ip(quote).unwrap();
    let (inner_src, inner_dst) = addresses(quoted.net.as_ref().unwrap());
    assert_eq!(inner_src, dst, "an error goes to the source of what it quotes");
    let (proto, at) = if quote[0] >> 4 == 4 { (quote[9], 20) } else { (quote[6], 40) };
    let port = |at: usize| u16::from_be_bytes([quote[at], quote[at + 1]]);
    key(inner_dst, inner_src, port(at + 2), port(at), proto)
}

fn key(src: IpAddr, dst: IpAddr, sport: u16, dport: u16, proto: u8) -> CtKey {
    let (sport, dport) = (Be16::new(sport), Be16::new(dport));
    CtKey { src: to_map(src), dst: to_map(dst), sport, dport, proto, reserved: [0; 3] }
}

fn ports(transport: &TransportHeader) -> (u16, u16, u8) {
    match transport {
        TransportHeader::Tcp(tcp) => (tcp.source_port, tcp.destination_port, 6),
        TransportHeader::Udp(udp) => (udp.source_port, udp.destination_port, 17),
        other => panic!("{other:?}"),
    }
}

fn addresses(net: &NetHeaders) -> (IpAddr, IpAddr) {
    match net {
        NetHeaders::Ipv4(ip, _) => (ip.source.into(), ip.destination.into()),
        NetHeaders::Ipv6(ip, _) => (ip.source.into(), ip.destination.into()),
        other => panic!("{other:?}"),
    }
}

/// Whether the frame is the refusal that answers a packet: an ICMP error, or over IPv6 a reset, the other way.
pub(crate) fn is_refusal(bytes: &[u8], packet: &Packet) -> bool {
    let headers = PacketHeaders::from_ethernet_slice(bytes).unwrap();
    let (src, dst) = addresses(headers.net.as_ref().unwrap());
    let tells = match headers.transport {
        Some(TransportHeader::Icmpv4(_)) => bytes[ETH_LEN + 20..ETH_LEN + 22] == [3, 3],
        Some(TransportHeader::Icmpv6(_)) => bytes[ETH_LEN + 40..ETH_LEN + 42] == [1, 4],
        Some(TransportHeader::Tcp(tcp)) => tcp.rst && !packet.key.dst.is_v4(),
        _ => false,
    };
    tells && to_map(src) == packet.key.dst && to_map(dst) == packet.key.src
}
