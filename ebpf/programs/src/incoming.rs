//! Packets that come in, from the network (`uplink_in`) or from pods and the node itself (`int_in`): those to a Service
//! get a backend, answers of masqueraded flows return to their client.

use aya_ebpf::programs::TcContext;
use roadstead_abi::{Addr, DropReason, NodeConfig, ct_flags, hook, kind, node_flags};
use roadstead_datapath::way::Arrival;

use crate::{
    conntrack, counters,
    drops::Drop,
    filter, former, glance, layer2,
    maps::{SCRATCH, Scratch},
    open,
    packet::{self, Form, Packet, Parsed},
    reject, rewrite,
    route::{self, LOOPBACK, NEXT, SHOT},
    service,
};

/// `skb->pkt_type` (include/uapi/linux/if_packet.h) of a packet for this host.
const PACKET_HOST: u32 = 0;
/// That of one to another hardware address: what a pod sends through a bridge, seen at the bridge's port.
const PACKET_OTHERHOST: u32 = 3;

/// Where a program is attached, with the scratch element that is its own.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Device {
    Uplink = 0,
    Internal = 2,
}

/// Runs the program and turns what it says into a verdict.
#[inline(always)]
pub(crate) fn run(ctx: &TcContext, device: Device) -> i32 {
    // SAFETY: the context is the kernel's, valid for the program's run.
    let pkt_type = unsafe { (*ctx.skb.skb).pkt_type };
    if pkt_type != PACKET_HOST && !(device == Device::Internal && pkt_type == PACKET_OTHERHOST) {
        return NEXT;
    }
    // A tagged packet is met again on the VLAN's own device.
    // SAFETY: as above.
    if unsafe { (*ctx.skb.skb).vlan_present } != 0 {
        return NEXT;
    }
    if device == Device::Internal && glance::is_nobodys(ctx) {
        return NEXT;
    }
    let Some(pointer) = SCRATCH.get_ptr_mut(device as u32) else { return NEXT };
    // SAFETY: the element is this CPU's, and this program's alone (see `maps`); the reference ends with the run.
    let scratch = unsafe { &mut *pointer };
    match packet::parse(ctx, scratch) {
        Ok(Parsed::Flow(packet)) => match try_packet(ctx, scratch, &packet, device) {
            Ok(verdict) => verdict,
            Err(drop) => refuse(ctx, scratch, &packet, device, drop),
        },
        Ok(Parsed::Other(reason)) => to_address(&scratch.key.dst, reason),
        Ok(Parsed::NotIp) => NEXT,
        // A pod's malformed packets are the stack's business.
        Err(_) if device == Device::Internal => NEXT,
        Err(reason) => {
            Drop::from(reason).count();
            SHOT
        }
    }
}

/// A packet that is neither TCP nor UDP: nobody but Services lives at their addresses, and the stack would route it
/// back to the network.
#[inline(always)]
fn to_address(destination: &Addr, reason: DropReason) -> i32 {
    if !filter::may_be_frontend(destination) || !service::is_vip(destination) {
        return NEXT;
    }
    Drop::from(reason).count();
    SHOT
}

#[inline(always)]
fn refuse(ctx: &TcContext, scratch: &mut Scratch, packet: &Packet, device: Device, drop: Drop) -> i32 {
    let drop = drop.by_way_of(&mut scratch.drop);
    drop.count();
    let hook = if device == Device::Uplink { hook::UPLINK_IN } else { hook::INT_IN };
    drop.tell(&scratch.key, hook, route::ifindex(ctx));
    if !drop.is_rejected() {
        return SHOT;
    }
    // What the loopback device sends comes in on it.
    let flags = if route::ifindex(ctx) == LOOPBACK { route::BPF_F_INGRESS } else { 0 };
    reject::port_unreachable(ctx, packet, &scratch.key, flags).unwrap_or(SHOT)
}

#[inline(always)]
fn try_packet(ctx: &TcContext, scratch: &mut Scratch, packet: &Packet, device: Device) -> Result<i32, Drop> {
    let Some(node) = service::node() else { return Ok(NEXT) };
    let key = &scratch.key;
    let to_frontend = filter::may_be_frontend(&key.dst);
    let to_our_port = !to_frontend && open::is_for_our_port(key, node);
    if !to_frontend && !to_our_port && !filter::may_be_backend(&key.src, key.sport) {
        return unserved(scratch, packet, node);
    }
    // Flows first: they outlive the port or Service that they came by (kube-proxy never looks at an established flow
    // again), and they are most of the packets.
    let may_be_known = to_frontend || to_our_port || filter::may_be_client(&key.dst, key.dport);
    if may_be_known && conntrack::existing(scratch, packet).is_some() {
        return forward(ctx, scratch, packet);
    }
    if node.flags & node_flags::TAKING_OVER != 0 && !packet.is_opening() {
        return Ok(NEXT);
    }
    if device == Device::Uplink && to_frontend && former::may_know(packet) {
        match former::hand_on(ctx.skb.skb, scratch, u32::from(packet.family == packet::Family::V4)) {
            layer2::NOT_OURS => {}
            reason if reason < 0 => return Err(Drop::numbered(reason.unsigned_abs())),
            verdict => return Ok(verdict),
        }
    }
    // An address of the node may be a Service's too.
    let to_our_port = to_our_port || open::is_for_our_port(&scratch.key, node);
    if !to_frontend && !to_our_port {
        return unserved(scratch, packet, node);
    }
    if packet.has_header() && open::frontend(scratch, node, to_frontend, to_our_port) {
        let arrival = arrival(ctx, device);
        if scratch.service.kind == kind::TOMBSTONE && !matches!(arrival, Arrival::Pod) {
            return Ok(NEXT);
        }
        open::flow(ctx, scratch, node, arrival)?;
        tell_new(ctx, scratch, device);
        return forward(ctx, scratch, packet);
    }
    if to_frontend && service::is_vip(&scratch.key.dst) {
        return Err(unknown(packet).into());
    }
    unserved(scratch, packet, node)
}

/// Why a packet to a Service's address belongs to no port of it.
#[inline(always)]
fn unknown(packet: &Packet) -> DropReason {
    match packet.form {
        Form::Error => DropReason::UnknownProtocol,
        Form::Later => DropReason::Fragment,
        Form::Whole | Form::First => DropReason::UnknownPort,
    }
}

/// A packet to no address of a Service: not ours, but where the address may become a Service's nobody else is.
#[inline(always)]
fn unserved(scratch: &mut Scratch, packet: &Packet, node: &NodeConfig) -> Result<i32, Drop> {
    if service::is_of_services(node, &scratch.key.dst) {
        return Err(DropReason::UnallocatedAddress.into());
    }
    conntrack::make_way(scratch, packet);
    Ok(NEXT)
}

#[inline(always)]
fn arrival(ctx: &TcContext, device: Device) -> Arrival {
    match device {
        Device::Uplink => Arrival::Uplink,
        Device::Internal if route::ifindex(ctx) == LOOPBACK => Arrival::Host,
        Device::Internal => Arrival::Pod,
    }
}

#[inline(always)]
fn tell_new(ctx: &TcContext, scratch: &Scratch, device: Device) {
    counters::tell(counters::Telling {
        key: &scratch.key,
        backend: &scratch.entry.dst,
        backend_port: scratch.entry.dport,
        hook: if device == Device::Uplink { hook::UPLINK_IN } else { hook::INT_IN },
        reason: 0,
        service: scratch.entry.service,
        ifindex: route::ifindex(ctx),
    });
}

/// Translates the packet and sends it on, unless it is an answer whose place for that is where it leaves.
#[inline(always)]
fn forward(ctx: &TcContext, scratch: &Scratch, packet: &Packet) -> Result<i32, Drop> {
    if scratch.entry.flags & ct_flags::AT_EGRESS != 0 {
        return Ok(NEXT);
    }
    if packet.form == Form::First {
        packet::remember_fragment(scratch);
    }
    rewrite::apply(ctx, packet, &scratch.key, &scratch.entry)?;
    counters::packet(&scratch.entry, ctx.len());
    Ok(route::send(ctx, &scratch.entry))
}
