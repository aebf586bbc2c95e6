//! Telling a client that nobody serves it: an ICMP port unreachable, built from the packet itself, as kube-proxy's
//! REJECT. A TCP client sees ECONNREFUSED at once; over IPv6 a reset follows (`datapath::reset` says why).
//!
//! The packet is trimmed to what is quoted (IP header and as much of the transport header as a trimmed checksum offload
//! allows: 20 bytes of TCP, 8 of UDP), the error's headers are pushed before it, and it goes back where it came from.

use aya_ebpf::{
    EbpfContext as _,
    helpers::generated::{bpf_csum_diff, bpf_skb_change_tail},
    programs::TcContext,
};
use roadstead_abi::{CtKey, limits, proto};
use roadstead_datapath::{
    icmp::{self, UnreachableV6},
    reset::{Offload, Segment, reset_v6},
};

use crate::{
    conntrack,
    maps::REJECTIONS,
    packet::{ETH_LEN, Family, Packet, ptr_at, read, tcp},
    route,
};

const BPF_ADJ_ROOM_MAC: u32 = 1;

/// Turns the packet into the error and sends it back by the device that it was met on, out of it or with
/// [`route::BPF_F_INGRESS`] into it; `None` when it cannot be built or the CPU has sent enough, then the packet drops.
#[inline(always)]
pub(crate) fn port_unreachable(ctx: &TcContext, packet: &Packet, key: &CtKey, flags: u64) -> Option<i32> {
    if !packet.has_header() || !within_budget() {
        return None;
    }
    match (packet.family, packet.proto) {
        (Family::V4, proto::TCP) => reply_v4::<40>(ctx, packet, key)?,
        (Family::V4, _) => reply_v4::<28>(ctx, packet, key)?,
        (Family::V6, proto::TCP) => reply_and_reset(ctx, packet, key, flags)?,
        (Family::V6, _) => reply_v6::<48>(ctx, packet, key)?,
    }
    Some(route::back(route::ifindex(ctx), flags))
}

/// A flood of strangers' packets must not become a flood of answers (RFC 1812 section 4.3.2.8, RFC 4443 section 2.4 f).
#[inline(always)]
fn within_budget() -> bool {
    let Some(pointer) = REJECTIONS.get_ptr_mut(0) else { return false };
    // SAFETY: the map returned the pointer, and the element is this CPU's own.
    let budget = unsafe { &mut *pointer };
    let now = conntrack::now();
    if budget.time != now {
        budget.time = now;
        budget.count = 0;
    }
    budget.count += 1;
    budget.count <= limits::REJECTIONS
}

/// Sends the error as a copy, and leaves the reset in its place. A reset is never answered with one.
#[inline(always)]
fn reply_and_reset(ctx: &TcContext, packet: &Packet, key: &CtKey, flags: u64) -> Option<()> {
    let segment = Segment {
        seq: u32::from_be(read(ctx, packet.l4 + 4)?),
        ack: u32::from_be(read(ctx, packet.l4 + 8)?),
        flags: packet.tcp_flags,
    };
    reply_v6::<60>(ctx, packet, key)?;
    if packet.tcp_flags & tcp::RST != 0 {
        return Some(());
    }
    ctx.clone_redirect(route::ifindex(ctx), flags).ok()?;
    ctx.adjust_room(-(size_of::<UnreachableV6>() as i32), BPF_ADJ_ROOM_MAC, 0).ok()?;
    let packet = reset_v6(key, segment, offload(ctx)?);
    ctx.store(ETH_LEN, &packet, 0).ok()
}

/// Whether the checksum is left to the device. The kernel does not tell; but its helper leaves such a field alone when
/// the change is not one of the pseudo-header. The field is overwritten afterwards.
#[inline(always)]
fn offload(ctx: &TcContext) -> Option<Offload> {
    const FIELD: usize = ETH_LEN + 40 + 16;
    let before: u16 = read(ctx, FIELD)?;
    ctx.l4_csum_replace(FIELD, 0, 0x1234, 0).ok()?;
    let after: u16 = read(ctx, FIELD)?;
    Some(if before == after { Offload::Partial } else { Offload::Complete })
}

/// Packets with IP options are dropped instead: their quote would have no constant length.
#[inline(always)]
fn reply_v4<const QUOTE: usize>(ctx: &TcContext, packet: &Packet, key: &CtKey) -> Option<()> {
    if packet.l4 != ETH_LEN + 20 {
        return None;
    }
    let sum = quote_sum::<QUOTE>(ctx)?;
    let head = icmp::port_unreachable_v4(&key.dst, &key.src, QUOTE as u16, sum);
    make_room::<QUOTE>(ctx, size_of_val(&head) as i32)?;
    ctx.store(ETH_LEN, &head, 0).ok()?;
    swap_macs(ctx)
}

#[inline(always)]
fn reply_v6<const QUOTE: usize>(ctx: &TcContext, packet: &Packet, key: &CtKey) -> Option<()> {
    if packet.l4 != ETH_LEN + 40 {
        return None;
    }
    let sum = quote_sum::<QUOTE>(ctx)?;
    let head = icmp::port_unreachable_v6(&key.dst, &key.src, QUOTE as u16, sum);
    make_room::<QUOTE>(ctx, size_of_val(&head) as i32)?;
    ctx.store(ETH_LEN, &head, 0).ok()?;
    swap_macs(ctx)
}

#[inline(always)]
fn quote_sum<const QUOTE: usize>(ctx: &TcContext) -> Option<u64> {
    let quote = ptr_at::<[u8; QUOTE]>(ctx, ETH_LEN)?;
    // SAFETY: the helper reads the bytes whose bounds `ptr_at` has checked; their number is a multiple of four.
    let sum = unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, quote.cast(), QUOTE as u32, 0) };
    u64::try_from(sum).ok()
}

#[inline(always)]
fn make_room<const QUOTE: usize>(ctx: &TcContext, head: i32) -> Option<()> {
    // SAFETY: the helper gets the program's own context; every packet pointer is fetched anew after it.
    let trimmed = unsafe { bpf_skb_change_tail(ctx.as_ptr().cast(), (ETH_LEN + QUOTE) as u32, 0) };
    if trimmed != 0 {
        return None;
    }
    ctx.adjust_room(head, BPF_ADJ_ROOM_MAC, 0).ok()
}

#[inline(always)]
fn swap_macs(ctx: &TcContext) -> Option<()> {
    let macs: [u8; 12] = read(ctx, 0)?;
    let swapped =
        [macs[6], macs[7], macs[8], macs[9], macs[10], macs[11], macs[0], macs[1], macs[2], macs[3], macs[4], macs[5]];
    ctx.store(0, &swapped, 0).ok()
}
