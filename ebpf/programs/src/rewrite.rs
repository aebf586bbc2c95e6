//! Rewriting a packet's addresses and ports, checksums included.
//!
//! The helpers for the transport checksum know whether it is complete, partial (offloaded) or absent; the header
//! itself is written directly. After a helper every packet pointer is fetched anew.

use aya_ebpf::{helpers::generated::bpf_csum_update, programs::TcContext};
use roadstead_abi::{Addr, CtEntry, CtKey, DropReason, proto};
use roadstead_datapath::checksum::{self, Kept};

use crate::{
    drops::Drop,
    icmp_error,
    packet::{ETH_LEN, Family, Form, Packet, load, ptr_at, read, store},
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
    if packet.has_header() {
        transport(ctx, packet, key, entry, addresses).ok_or(failed)?;
    }
    match packet.family {
        Family::V4 => addresses_v4(ctx, entry, addresses, u16::from(sends_on)).ok_or(failed),
        Family::V6 => addresses_v6(ctx, entry, addresses, u8::from(sends_on)).ok_or(failed),
    }
}

/// One hop less, and nothing else.
///
/// # Errors
/// As [`apply`].
#[inline(always)]
pub(crate) fn one_hop_less(ctx: &TcContext, family: Family) -> Result<(), DropReason> {
    if hops(ctx, family).ok_or(DropReason::Malformed)? <= 1 {
        return Err(DropReason::HopLimit);
    }
    let hopped = match family {
        Family::V4 => one_hop_less_v4(ctx),
        Family::V6 => one_hop_less_v6(ctx),
    };
    hopped.ok_or(DropReason::Rewrite)
}

#[inline(always)]
fn one_hop_less_v4(ctx: &TcContext) -> Option<()> {
    let head = ptr_at::<[u16; 2]>(ctx, ETH_LEN + 8)?;
    // SAFETY: `ptr_at` has checked the bounds.
    let [old, check] = unsafe { load(head) };
    let new = (u16::from_be(old) - 0x100).to_be();
    // SAFETY: as above.
    unsafe { store(head, [new, checksum::update(check, u32::from(!old) + u32::from(new))]) };
    Some(())
}

#[inline(always)]
fn one_hop_less_v6(ctx: &TcContext) -> Option<()> {
    let head = ptr_at::<[u8; 2]>(ctx, ETH_LEN + 6)?;
    // SAFETY: `ptr_at` has checked the bounds.
    let [next, limit] = unsafe { load(head) };
    // SAFETY: as above.
    unsafe { store(head, [next, limit - 1]) };
    let (old, new) = (u16::from_ne_bytes([next, limit]), u16::from_ne_bytes([next, limit - 1]));
    // SAFETY: as in `addresses_v6`.
    unsafe { bpf_csum_update(ctx.skb.skb, u32::from(!old) + u32::from(new)) };
    Some(())
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

/// Checksum and ports. The helper knows how the checksum is kept; asked about the addresses, it shows that by what it
/// does, and the ports need no second call.
#[inline(always)]
fn transport(ctx: &TcContext, packet: &Packet, key: &CtKey, entry: &CtEntry, addresses: u32) -> Option<()> {
    let ports = checksum::ports_diff((key.sport, key.dport), (entry.sport, entry.dport));
    let is_udp = packet.proto == proto::UDP;
    let (field, flags) = if is_udp { (packet.l4 + 6, BPF_F_MARK_MANGLED_0) } else { (packet.l4 + 16, 0) };
    let before: u16 = read(ctx, field)?;
    // A UDP checksum of 0 is none (RFC 768) and stays 0.
    if !(is_udp && before == 0) {
        ctx.l4_csum_replace(field, 0, addresses.into(), flags | BPF_F_PSEUDO_HDR).ok()?;
        let pointer = ptr_at::<u16>(ctx, field)?;
        // SAFETY: `ptr_at` has checked the bounds.
        let after = unsafe { load(pointer) };
        match checksum::kept(before, after, addresses) {
            Kept::InField => {
                let new = checksum::update(after, ports);
                // SAFETY: as above. 0 would be none.
                unsafe { store(pointer, if is_udp && new == 0 { 0xffff } else { new }) };
            }
            Kept::Offloaded => {}
            Kept::Unknown => ctx.l4_csum_replace(field, 0, ports.into(), flags).ok()?,
        }
    }
    let pointer = ptr_at::<[u16; 2]>(ctx, packet.l4)?;
    // SAFETY: `ptr_at` has checked the bounds.
    unsafe { store(pointer, [entry.sport.0, entry.dport.0]) };
    Some(())
}

#[inline(always)]
fn addresses_v4(ctx: &TcContext, entry: &CtEntry, addresses: u32, hops: u16) -> Option<()> {
    // TTL and protocol, checksum, source, destination: bytes 8 to 19 of the header.
    let head = ptr_at::<[u16; 2]>(ctx, ETH_LEN + 8)?;
    let tail = ptr_at::<[u32; 2]>(ctx, ETH_LEN + 12)?;
    // SAFETY: `ptr_at` has checked the bounds.
    let [ttl_word, check] = unsafe { load(head) };
    let new_ttl_word = (u16::from_be(ttl_word) - (hops << 8)).to_be();
    let diff = checksum::add(addresses, u32::from(!ttl_word) + u32::from(new_ttl_word));
    // SAFETY: as above.
    unsafe { store(head, [new_ttl_word, checksum::update(check, diff)]) };
    // SAFETY: as above.
    unsafe { store(tail, [entry.src.last_word(), entry.dst.last_word()]) };
    Some(())
}

/// IPv6 has no header checksum that would balance the change, so a packet's complete checksum (CHECKSUM_COMPLETE) must
/// follow the header; the pseudo-header update above takes it back. The helper does nothing for other packets, and costs a
/// quarter of one that stores bytes and keeps the checksum.
#[inline(always)]
fn addresses_v6(ctx: &TcContext, entry: &CtEntry, addresses: u32, hops: u8) -> Option<()> {
    let head = ptr_at::<[u8; 2]>(ctx, ETH_LEN + 6)?;
    let tail = ptr_at::<[Addr; 2]>(ctx, ETH_LEN + 8)?;
    // SAFETY: `ptr_at` has checked the bounds.
    let [next, limit] = unsafe { load(head) };
    let (old, new) = (u16::from_ne_bytes([next, limit]), u16::from_ne_bytes([next, limit - hops]));
    // SAFETY: as above.
    unsafe { store(head, [next, limit - hops]) };
    // SAFETY: as above.
    unsafe { store(tail, [entry.src, entry.dst]) };
    let diff = checksum::add(addresses, u32::from(!old) + u32::from(new));
    // SAFETY: the helper gets the program's own context; it fails where the packet has no such checksum.
    unsafe { bpf_csum_update(ctx.skb.skb, diff) };
    Some(())
}
