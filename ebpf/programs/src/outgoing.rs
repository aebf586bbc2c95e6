//! Packets that leave, to the network (`uplink_out`) or to pods (`int_out`): answers get the address that their client
//! asked for. What a process of this node itself sends to a Service, past the socket programs, is met here too.

use aya_ebpf::programs::TcContext;
use roadstead_abi::{DropReason, NodeConfig, ct_flags, hook, kind, node_flags, proto};
use roadstead_datapath::way::Arrival;

use crate::{
    conntrack, counters,
    drops::Drop,
    filter, glance,
    maps::{SCRATCH, Scratch},
    open,
    packet::{self, Form, Packet, Parsed},
    reject, rewrite,
    route::{self, NEXT, SHOT},
    service,
};

/// Where a program is attached, with the scratch element that is its own.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Device {
    Uplink = 1,
    Internal = 3,
}

/// Runs the program and turns what it says into a verdict. What cannot be parsed passes: this node sent it.
#[inline(always)]
pub(crate) fn run(ctx: &TcContext, device: Device) -> i32 {
    // SAFETY: the context is the kernel's, valid for the program's run.
    if unsafe { (*ctx.skb.skb).vlan_present } != 0 {
        return NEXT;
    }
    if device == Device::Internal && glance::is_nobodys(ctx) {
        return NEXT;
    }
    let Some(pointer) = SCRATCH.get_ptr_mut(device as u32) else { return NEXT };
    // SAFETY: the element is this CPU's, and this program's alone (see `maps`); the reference ends with the run.
    let scratch = unsafe { &mut *pointer };
    let Ok(Parsed::Flow(packet)) = packet::parse(ctx, scratch) else { return NEXT };
    match try_packet(ctx, scratch, &packet, device) {
        Ok(verdict) => verdict,
        Err(drop) => refuse(ctx, scratch, &packet, device, drop),
    }
}

/// The answer to a process of this node comes in where the packet would have left.
#[inline(always)]
fn refuse(ctx: &TcContext, scratch: &mut Scratch, packet: &Packet, device: Device, drop: Drop) -> i32 {
    let drop = drop.by_way_of(&mut scratch.drop);
    drop.count();
    let hook = if device == Device::Uplink { hook::UPLINK_OUT } else { hook::INT_OUT };
    drop.tell(&scratch.key, hook, route::ifindex(ctx));
    if !drop.is_rejected() {
        return SHOT;
    }
    reject::port_unreachable(ctx, packet, &scratch.key, route::BPF_F_INGRESS).unwrap_or(SHOT)
}

#[inline(always)]
fn try_packet(ctx: &TcContext, scratch: &mut Scratch, packet: &Packet, device: Device) -> Result<i32, Drop> {
    let key = &scratch.key;
    let to_frontend = filter::may_be_frontend(&key.dst);
    let may_be_known =
        to_frontend || filter::may_be_client(&key.dst, key.dport) && filter::may_be_backend(&key.src, key.sport);
    if may_be_known && conntrack::existing(scratch, packet).is_some() {
        return known(ctx, scratch, packet);
    }
    // Towards pods only those packets begin a flow that a socket of this node sends to an endpoint which is gone.
    if device == Device::Internal && !(to_frontend && packet.proto == proto::UDP) {
        conntrack::make_way(scratch, packet);
        return Ok(NEXT);
    }
    let Some(node) = service::node() else { return Ok(NEXT) };
    if to_frontend {
        return begin(ctx, scratch, packet, node, device);
    }
    if service::is_of_services(node, &scratch.key.dst) {
        return Err(DropReason::UnallocatedAddress.into());
    }
    conntrack::make_way(scratch, packet);
    Ok(NEXT)
}

/// A packet of a flow: an answer to be translated here, or a packet of a process of this node to a Service.
#[inline(always)]
fn known(ctx: &TcContext, scratch: &mut Scratch, packet: &Packet) -> Result<i32, Drop> {
    let flags = scratch.entry.flags;
    if flags & ct_flags::AT_EGRESS != 0 {
        // The stack has routed the packet already.
        scratch.entry.ifindex = 0;
    } else if flags & ct_flags::REPLY != 0 {
        return Ok(NEXT);
    }
    translate(ctx, scratch, packet)
}

#[inline(always)]
fn begin(
    ctx: &TcContext,
    scratch: &mut Scratch,
    packet: &Packet,
    node: &NodeConfig,
    device: Device,
) -> Result<i32, Drop> {
    // A segment in the middle of nothing is not this node's to answer for: its connection began elsewhere.
    let is_datagram = packet.proto != proto::TCP && node.flags & node_flags::TAKING_OVER == 0;
    let begins = packet.has_header() && (packet.is_opening() || is_datagram);
    if !begins {
        return Ok(NEXT);
    }
    if !open::frontend(scratch, node, true, false) {
        if device == Device::Uplink && service::is_vip(&scratch.key.dst) {
            return Err(DropReason::UnknownPort.into());
        }
        return Ok(NEXT);
    }
    let ours = service::node_address(&scratch.key.src).is_some();
    if device == Device::Internal && !(ours && scratch.service.kind == kind::TOMBSTONE) {
        return Ok(NEXT);
    }
    open::flow(ctx, scratch, node, if ours { Arrival::Host } else { Arrival::Late })?;
    translate(ctx, scratch, packet)
}

#[inline(always)]
fn translate(ctx: &TcContext, scratch: &Scratch, packet: &Packet) -> Result<i32, Drop> {
    if packet.form == Form::First {
        packet::remember_fragment(scratch);
    }
    rewrite::apply(ctx, packet, &scratch.key, &scratch.entry)?;
    counters::packet(&scratch.entry, ctx.len());
    Ok(route::send(ctx, &scratch.entry))
}
