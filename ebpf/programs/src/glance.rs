//! A first look at a packet between pods, processes of the node and the network behind them: most of it is no Service's,
//! which its fixed places show without a copy of anything. Where they do not, the packet is parsed and judged in full.
//!
//! The answer is yes only where the judgement would be to let the packet pass and to change nothing.

use aya_ebpf::programs::TcContext;
use roadstead_abi::{Addr, Be16, proto};

use crate::{
    filter, open,
    packet::{ETH_P_IP, ETH_P_IPV6, Header, tcp},
    service,
};

/// Ethernet, IPv4 without options, TCP: at hand at once unless the packet is shorter.
const V4: usize = 54;
/// Ethernet, IPv6, TCP.
const V6: usize = 74;
/// Version 4, five words long.
const PLAIN: u8 = 0x45;

/// What a glance sees.
struct Glimpse {
    src: Addr,
    dst: Addr,
    sport: Be16,
    dport: Be16,
    is_opening: bool,
}

/// Whether the packet is no Service's, as far as a glance shows.
#[inline(always)]
pub(crate) fn is_nobodys(ctx: &TcContext) -> bool {
    let Some(packet) = v4(ctx) else { return v6(ctx).is_some_and(|packet| is_unserved(&packet)) };
    is_unserved(&packet)
}

/// The questions in the order of their cost; a filter may say yes in error, never no.
#[inline(always)]
fn is_unserved(packet: &Glimpse) -> bool {
    let Glimpse { src, dst, sport, dport, is_opening } = packet;
    let Some(node) = service::node() else { return false };
    if filter::may_be_frontend(dst) || open::is_our_port(*dport, node) && filter::may_be_node(dst) {
        return false;
    }
    if filter::may_be_client(dst, *dport) && filter::may_be_backend(src, *sport) {
        return false;
    }
    // What is left of a finished flow would be in the way.
    if *is_opening && filter::may_be_client(src, *sport) && filter::may_be_backend(dst, *dport) {
        return false;
    }
    !service::is_of_services(node, dst)
}

#[inline(always)]
fn v4(ctx: &TcContext) -> Option<Glimpse> {
    let head = Header::<V4>::at(ctx, 0)?;
    let (fragment, proto): (u16, u8) = (head.field::<20, _>(), head.field::<23, _>());
    let is_plain = head.field::<12, u16>() == ETH_P_IP.to_be() && head.field::<14, u8>() == PLAIN;
    // More fragments, or an offset: RFC 791.
    if !is_plain || u16::from_be(fragment) & 0x3fff != 0 {
        return None;
    }
    let (src, dst) = (Addr::v4_word(head.field::<26, _>()), Addr::v4_word(head.field::<30, _>()));
    glimpse(src, dst, head.field::<34, _>(), proto, head.field::<47, _>())
}

#[inline(always)]
fn v6(ctx: &TcContext) -> Option<Glimpse> {
    let head = Header::<V6>::at(ctx, 0)?;
    if head.field::<12, u16>() != ETH_P_IPV6.to_be() {
        return None;
    }
    let (src, dst) = (Addr::from_words(head.field::<22, _>()), Addr::from_words(head.field::<38, _>()));
    glimpse(src, dst, head.field::<54, _>(), head.field::<20, _>(), head.field::<67, _>())
}

#[inline(always)]
fn glimpse(src: Addr, dst: Addr, ports: [u16; 2], proto: u8, tcp_flags: u8) -> Option<Glimpse> {
    if proto != proto::TCP && proto != proto::UDP {
        return None;
    }
    let is_opening = proto == proto::TCP && tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN;
    Some(Glimpse { src, dst, sport: Be16(ports[0]), dport: Be16(ports[1]), is_opening })
}
