//! Reading a packet: Ethernet, IPv4 or IPv6, TCP or UDP, as far as balancing needs it.
//!
//! Unknown protocols are told apart from malformed packets: the former pass to the stack, the latter drop.

use aya_ebpf::programs::TcContext;
use roadstead_abi::{Addr, Be16, CtKey, DropReason, proto};

/// Length of the Ethernet header; VLAN tags are out of band by the time tc sees a packet.
pub(crate) const ETH_LEN: usize = 14;
const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;
const TCP_LEN: usize = 20;
const UDP_LEN: usize = 8;
const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;
const IPV6_FRAGMENT: u8 = 44;

/// What a packet is to the balancer.
pub(crate) enum Parsed {
    /// TCP or UDP.
    Flow(Flow),
    /// Another protocol, or a fragment; of the tuple only the addresses are known.
    Other(DropReason),
    /// Not IP.
    NotIp,
}

/// A TCP or UDP packet; its tuple stands in the scratch element.
#[derive(Clone, Copy)]
pub(crate) struct Flow {
    /// Offset of the TCP or UDP header.
    pub(crate) l4: usize,
    /// TCP or UDP.
    pub(crate) proto: u8,
    /// TCP flags; 0 for UDP.
    pub(crate) tcp_flags: u8,
    /// The IP version.
    pub(crate) family: Family,
}

/// The IP version.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

/// TCP flags that matter.
pub(crate) mod tcp {
    pub(crate) const FIN: u8 = 0x01;
    pub(crate) const SYN: u8 = 0x02;
    pub(crate) const RST: u8 = 0x04;
    pub(crate) const ACK: u8 = 0x10;
}

impl Flow {
    /// A packet that opens a TCP connection.
    #[inline(always)]
    pub(crate) fn is_opening(&self) -> bool {
        self.proto == proto::TCP && self.tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN
    }
}

/// The packet's bytes at a constant or bounded offset, if it is that long.
#[inline(always)]
pub(crate) fn ptr_at<T>(ctx: &TcContext, offset: usize) -> Option<*mut T> {
    let start = ctx.data();
    if start + offset + size_of::<T>() > ctx.data_end() {
        return None;
    }
    Some((start + offset) as *mut T)
}

/// Reads a value of integers or byte arrays at an offset.
#[inline(always)]
pub(crate) fn read<T: Copy>(ctx: &TcContext, offset: usize) -> Option<T> {
    let pointer = ptr_at::<T>(ctx, offset)?;
    // SAFETY: `ptr_at` has checked the bounds; any bytes are a value of the integers and arrays read here.
    Some(unsafe { pointer.read_unaligned() })
}

/// Parses the headers; the tuple goes to `key`.
///
/// # Errors
/// [`DropReason::Malformed`] for an IP packet shorter than its headers say.
#[inline(always)]
pub(crate) fn parse(ctx: &TcContext, key: &mut CtKey) -> Result<Parsed, DropReason> {
    let Some(ethertype) = read::<u16>(ctx, 12) else { return Ok(Parsed::NotIp) };
    match u16::from_be(ethertype) {
        ETH_P_IP => parse_v4(ctx, key).ok_or(DropReason::Malformed),
        ETH_P_IPV6 => parse_v6(ctx, key).ok_or(DropReason::Malformed),
        _ => Ok(Parsed::NotIp),
    }
}

#[inline(always)]
fn parse_v4(ctx: &TcContext, key: &mut CtKey) -> Option<Parsed> {
    pull(ctx, ETH_LEN + IPV4_LEN)?;
    let version: u8 = read(ctx, ETH_LEN)?;
    let header_len = usize::from(version & 0x0f) * 4;
    if version >> 4 != 4 || header_len < IPV4_LEN {
        return None;
    }
    key.src = Addr::v4(read(ctx, ETH_LEN + 12)?);
    key.dst = Addr::v4(read(ctx, ETH_LEN + 16)?);
    // More fragments, or an offset: RFC 791.
    if u16::from_be(read(ctx, ETH_LEN + 6)?) & 0x3fff != 0 {
        return Some(Parsed::Other(DropReason::Fragment));
    }
    transport(ctx, key, Family::V4, read(ctx, ETH_LEN + 9)?, ETH_LEN + header_len)
}

#[inline(always)]
fn parse_v6(ctx: &TcContext, key: &mut CtKey) -> Option<Parsed> {
    pull(ctx, ETH_LEN + IPV6_LEN)?;
    key.src = Addr::from_words(read(ctx, ETH_LEN + 8)?);
    key.dst = Addr::from_words(read(ctx, ETH_LEN + 24)?);
    let next: u8 = read(ctx, ETH_LEN + 6)?;
    if next == IPV6_FRAGMENT {
        return Some(Parsed::Other(DropReason::Fragment));
    }
    transport(ctx, key, Family::V6, next, ETH_LEN + IPV6_LEN)
}

#[inline(always)]
fn transport(ctx: &TcContext, key: &mut CtKey, family: Family, proto: u8, l4: usize) -> Option<Parsed> {
    let tcp_flags = match proto {
        proto::TCP => {
            pull(ctx, l4 + TCP_LEN)?;
            read::<u8>(ctx, l4 + 13)?
        }
        proto::UDP => {
            pull(ctx, l4 + UDP_LEN)?;
            0
        }
        _ => return Some(Parsed::Other(DropReason::UnknownProtocol)),
    };
    key.sport = Be16(read(ctx, l4)?);
    key.dport = Be16(read(ctx, l4 + 2)?);
    key.proto = proto;
    key.reserved = [0; 3];
    Some(Parsed::Flow(Flow { l4, proto, tcp_flags, family }))
}

/// Makes sure that the packet's first bytes can be read directly; `None` when it is shorter.
#[inline(always)]
fn pull(ctx: &TcContext, length: usize) -> Option<()> {
    if ctx.data() + length <= ctx.data_end() {
        return Some(());
    }
    ctx.pull_data(length as u32).ok()
}
