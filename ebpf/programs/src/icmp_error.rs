//! Translating an ICMP error about a translated packet: who gets it, and the packet that it quotes, so that the one who
//! sent that packet knows it again. Without this no path MTU is ever discovered through a Service's address.
//!
//! The quoted transport checksum is left as it is: receivers find the socket by addresses and ports.

use aya_ebpf::programs::TcContext;
use roadstead_abi::{Addr, CtEntry, CtKey, ct_flags};
use roadstead_datapath::checksum;

use crate::{
    packet::{ETH_LEN, Family, Packet, read},
    rewrite::{BPF_F_PSEUDO_HDR, BPF_F_RECOMPUTE_CSUM},
};

const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;
const ICMP_LEN: usize = 8;

/// Rewrites the error; `key` is the tuple that would answer the quoted packet, `entry` its flow's. `None` when it cannot
/// be written; some of it may be by then.
#[inline(always)]
pub(crate) fn apply(ctx: &TcContext, packet: &Packet, key: &CtKey, entry: &CtEntry) -> Option<()> {
    match packet.family {
        Family::V4 => apply_v4(ctx, packet, key, entry),
        Family::V6 => apply_v6(ctx, packet, key, entry),
    }
}

/// The error's source stays the router's, unless the flow has a mask towards the receiver: a client hears only the
/// address that it asked, a backend of a masqueraded flow only the node.
#[inline(always)]
fn outer_source(sender: Addr, key: &CtKey, entry: &CtEntry) -> Addr {
    let masked = entry.flags & ct_flags::REPLY != 0 || entry.src != key.src;
    if masked { entry.src } else { sender }
}

/// The quoted packet went the other way: its source is where a packet of this direction is sent to.
#[inline(always)]
fn quoted_addresses(key: &CtKey, entry: &CtEntry) -> u32 {
    checksum::add(checksum::addr_diff(&key.dst, &entry.dst), checksum::addr_diff(&key.src, &entry.src))
}

#[inline(always)]
fn apply_v4(ctx: &TcContext, packet: &Packet, key: &CtKey, entry: &CtEntry) -> Option<()> {
    let (inner, icmp) = (packet.l4 - IPV4_LEN, packet.l4 - IPV4_LEN - ICMP_LEN);
    let ports = checksum::ports_diff((key.dport, key.sport), (entry.dport, entry.sport));
    // The quoted header's own checksum takes back what its addresses change.
    ctx.l3_csum_replace(inner + 10, 0, quoted_addresses(key, entry).into(), 0).ok()?;
    ctx.l4_csum_replace(icmp + 2, 0, ports.into(), 0).ok()?;
    ctx.store(inner + 12, &[entry.dst.last_word(), entry.src.last_word()], 0).ok()?;
    ctx.store(packet.l4, &[entry.dport.0, entry.sport.0], 0).ok()?;
    let (src, dst) = (Addr::v4_word(read(ctx, ETH_LEN + 12)?), Addr::v4_word(read(ctx, ETH_LEN + 16)?));
    let new_src = outer_source(src, key, entry);
    let outer = checksum::add(checksum::addr_diff(&src, &new_src), checksum::addr_diff(&dst, &entry.dst));
    ctx.l3_csum_replace(ETH_LEN + 10, 0, outer.into(), 0).ok()?;
    ctx.store(ETH_LEN + 12, &[new_src.last_word(), entry.dst.last_word()], 0).ok()
}

#[inline(always)]
fn apply_v6(ctx: &TcContext, packet: &Packet, key: &CtKey, entry: &CtEntry) -> Option<()> {
    const CHECK: usize = ETH_LEN + IPV6_LEN + 2;
    const INNER: usize = ETH_LEN + IPV6_LEN + ICMP_LEN;
    let ports = checksum::ports_diff((key.dport, key.sport), (entry.dport, entry.sport));
    let quoted = checksum::add(quoted_addresses(key, entry), ports);
    let src = Addr::from_words(read(ctx, ETH_LEN + 8)?);
    let dst = Addr::from_words(read(ctx, ETH_LEN + 24)?);
    let new_src = outer_source(src, key, entry);
    let outer = checksum::add(checksum::addr_diff(&src, &new_src), checksum::addr_diff(&dst, &entry.dst));
    ctx.l4_csum_replace(CHECK, 0, outer.into(), BPF_F_PSEUDO_HDR).ok()?;
    ctx.l4_csum_replace(CHECK, 0, quoted.into(), 0).ok()?;
    ctx.store(INNER + 8, &[entry.dst, entry.src], 0).ok()?;
    ctx.store(packet.l4, &[entry.dport.0, entry.sport.0], 0).ok()?;
    ctx.store(ETH_LEN + 8, &[new_src, entry.dst], BPF_F_RECOMPUTE_CSUM).ok()
}
