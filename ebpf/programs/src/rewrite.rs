//! Rewriting a packet's addresses and ports, checksums included.
//!
//! The helper for the transport checksum knows whether it is complete, partial (offloaded) or absent. Everything else is
//! put together from the packet's bytes and stored by one helper call: a program that writes packets directly is made to
//! copy every packet that a socket keeps for retransmission, also those that are none of its business, which costs ten
//! times what the program does. After a helper every packet pointer is fetched anew.

use aya_ebpf::{helpers::generated::bpf_csum_update, programs::TcContext};
use roadstead_abi::{Addr, CtEntry, CtKey, DropReason, proto};
use roadstead_datapath::checksum::{self, Kept};

use crate::{
    drops::Drop,
    icmp_error,
    packet::{ETH_LEN, Family, Form, Packet, read},
};

pub(crate) const BPF_F_RECOMPUTE_CSUM: u64 = 1;
pub(crate) const BPF_F_PSEUDO_HDR: u64 = 0x10;
const BPF_F_MARK_MANGLED_0: u64 = 0x20;

/// Writes the entry's tuple into the packet; one hop less where the packet is sent on from here.
///
/// # Errors
/// [`DropReason::HopLimit`] when the packet may not be sent on, [`DropReason::Rewrite`] when it cannot be written.
#[inline(always)]
pub(crate) fn apply(ctx: &TcContext, packet: &Packet, key: &CtKey, entry: &CtEntry) -> Result<(), Drop> {
    let sends_on = entry.ifindex != 0;
    if sends_on && hops(ctx, packet.family).ok_or(DropReason::Malformed)? <= 1 {
        return Err(Drop::of(DropReason::HopLimit, entry.service));
    }
    let failed = Drop::of(DropReason::Rewrite, entry.service);
    if packet.form == Form::Error {
        return icmp_error::apply(ctx, packet, key, entry).ok_or(failed);
    }
    let addresses = addresses_diff(packet.family, key, entry);
    let transport =
        if packet.has_header() { Some(transport(ctx, packet, key, entry, addresses).ok_or(failed)?) } else { None };
    match packet.family {
        Family::V4 => write_v4(ctx, packet, entry, addresses, u16::from(sends_on), transport).ok_or(failed),
        Family::V6 => write_v6(ctx, packet, entry, addresses, u8::from(sends_on), transport).ok_or(failed),
    }
}

#[inline(always)]
fn addresses_diff(family: Family, key: &CtKey, entry: &CtEntry) -> u32 {
    match family {
        Family::V4 => {
            checksum::add(checksum::addr_diff_v4(&key.src, &entry.src), checksum::addr_diff_v4(&key.dst, &entry.dst))
        }
        Family::V6 => {
            checksum::add(checksum::addr_diff(&key.src, &entry.src), checksum::addr_diff(&key.dst, &entry.dst))
        }
    }
}

#[inline(always)]
fn hops(ctx: &TcContext, family: Family) -> Option<u8> {
    match family {
        Family::V4 => read(ctx, ETH_LEN + 8),
        Family::V6 => read(ctx, ETH_LEN + 7),
    }
}

/// A transport header's beginning: what is to be written of it.
#[derive(Clone, Copy)]
enum Transport {
    /// TCP, to its checksum.
    Tcp([u16; 9]),
    /// UDP, whole.
    Udp([u16; 4]),
}

/// Ports and checksum as they shall be. The helper knows how the checksum is kept; asked about the addresses, it shows that
/// by what it does, and the ports need no second call.
#[inline(always)]
fn transport(ctx: &TcContext, packet: &Packet, key: &CtKey, entry: &CtEntry, addresses: u32) -> Option<Transport> {
    let ports = checksum::ports_diff((key.sport, key.dport), (entry.sport, entry.dport));
    if packet.proto == proto::UDP {
        let mut header: [u16; 4] = read(ctx, packet.l4)?;
        let before = header[3];
        // A UDP checksum of 0 is none (RFC 768) and stays 0.
        if before != 0 {
            header = updated(ctx, packet.l4, 3, (before, addresses, ports), BPF_F_MARK_MANGLED_0)?;
            let new = checksum_after(before, header[3], addresses, ports);
            header[3] = if new == 0 { 0xffff } else { new };
        }
        [header[0], header[1]] = [entry.sport.0, entry.dport.0];
        return Some(Transport::Udp(header));
    }
    let header: [u16; 9] = read(ctx, packet.l4)?;
    let before = header[8];
    let mut header: [u16; 9] = updated(ctx, packet.l4, 8, (before, addresses, ports), 0)?;
    header[8] = checksum_after(before, header[8], addresses, ports);
    [header[0], header[1]] = [entry.sport.0, entry.dport.0];
    Some(Transport::Tcp(header))
}

/// The header after the helper was told of the addresses, and of the ports too where the answer does not show how the
/// checksum is kept. `word` is the checksum's place.
#[inline(always)]
fn updated<const WORDS: usize>(
    ctx: &TcContext,
    l4: usize,
    word: usize,
    (before, addresses, ports): (u16, u32, u32),
    flags: u64,
) -> Option<[u16; WORDS]> {
    let field = l4 + 2 * word;
    ctx.l4_csum_replace(field, 0, addresses.into(), flags | BPF_F_PSEUDO_HDR).ok()?;
    let header: [u16; WORDS] = read(ctx, l4)?;
    if checksum::kept(before, header[word], addresses) == Kept::Unknown {
        ctx.l4_csum_replace(field, 0, ports.into(), flags).ok()?;
        return read(ctx, l4);
    }
    Some(header)
}

/// The field with the ports in it: the helper has put them there, or they go there now, or a device will.
#[inline(always)]
fn checksum_after(before: u16, after: u16, addresses: u32, ports: u32) -> u16 {
    match checksum::kept(before, after, addresses) {
        Kept::InField => checksum::update(after, ports),
        Kept::Offloaded | Kept::Unknown => after,
    }
}

/// Bytes 8 to 19 of an IPv4 header: TTL and protocol, checksum, source, destination.
#[repr(C, packed)]
#[derive(Clone, Copy)]
struct HeaderV4 {
    ttl_word: u16,
    check: u16,
    src: u32,
    dst: u32,
}

/// What follows it at once where there are no options.
#[repr(C, packed)]
struct Joined<H, T> {
    header: H,
    transport: T,
}

#[inline(always)]
fn write_v4(
    ctx: &TcContext,
    packet: &Packet,
    entry: &CtEntry,
    addresses: u32,
    hops: u16,
    transport: Option<Transport>,
) -> Option<()> {
    const AT: usize = ETH_LEN + 8;
    let [ttl_word, check]: [u16; 2] = read(ctx, AT)?;
    let new_ttl_word = (u16::from_be(ttl_word) - (hops << 8)).to_be();
    let diff = checksum::add(addresses, u32::from(!ttl_word) + u32::from(new_ttl_word));
    let header = HeaderV4 {
        ttl_word: new_ttl_word,
        check: checksum::update(check, diff),
        src: entry.src.last_word(),
        dst: entry.dst.last_word(),
    };
    let has_options = packet.l4 != ETH_LEN + 20;
    match transport {
        Some(Transport::Tcp(transport)) if !has_options => ctx.store(AT, &Joined { header, transport }, 0).ok(),
        Some(Transport::Udp(transport)) if !has_options => ctx.store(AT, &Joined { header, transport }, 0).ok(),
        _ => {
            write_transport(ctx, packet, transport)?;
            ctx.store(AT, &header, 0).ok()
        }
    }
}

#[inline(always)]
fn write_transport(ctx: &TcContext, packet: &Packet, transport: Option<Transport>) -> Option<()> {
    match transport {
        Some(Transport::Tcp(header)) => ctx.store(packet.l4, &header, 0).ok(),
        Some(Transport::Udp(header)) => ctx.store(packet.l4, &header, 0).ok(),
        None => Some(()),
    }
}

/// Bytes 6 to 39 of an IPv6 header: next header and hop limit, source, destination.
#[repr(C, packed)]
#[derive(Clone, Copy)]
struct HeaderV6 {
    next: u8,
    limit: u8,
    src: Addr,
    dst: Addr,
}

/// IPv6 has no header checksum that would balance the change, so a packet's complete checksum (CHECKSUM_COMPLETE) must
/// follow the header; the pseudo-header update above takes it back. The helper for that does nothing for other packets.
#[inline(always)]
fn write_v6(
    ctx: &TcContext,
    packet: &Packet,
    entry: &CtEntry,
    addresses: u32,
    hops: u8,
    transport: Option<Transport>,
) -> Option<()> {
    const AT: usize = ETH_LEN + 6;
    let [next, limit]: [u8; 2] = read(ctx, AT)?;
    let header = HeaderV6 { next, limit: limit - hops, src: entry.src, dst: entry.dst };
    let (old, new) = (u16::from_ne_bytes([next, limit]), u16::from_ne_bytes([next, limit - hops]));
    let diff = checksum::add(addresses, u32::from(!old) + u32::from(new));
    // SAFETY: the helper gets the program's own context; it fails where the packet has no such checksum.
    unsafe { bpf_csum_update(ctx.skb.skb, diff) };
    let has_fragment_header = packet.l4 != ETH_LEN + 40;
    match transport {
        Some(Transport::Tcp(transport)) if !has_fragment_header => ctx.store(AT, &Joined { header, transport }, 0).ok(),
        Some(Transport::Udp(transport)) if !has_fragment_header => ctx.store(AT, &Joined { header, transport }, 0).ok(),
        _ => {
            write_transport(ctx, packet, transport)?;
            ctx.store(AT, &header, 0).ok()
        }
    }
}
