//! Packets from the network: to a Service they get a backend, from a remote backend they return to their client.

use aya_ebpf::{helpers::generated::bpf_get_prandom_u32, programs::TcContext};
use roadstead_abi::{Addr, CtKey, DropReason, SvcValue};
use roadstead_datapath::{
    nat::NewFlow,
    select,
    verdict::{Origin, endpoint_set},
};

use crate::{
    conntrack,
    drops::Drop,
    maps::{SCRATCH, Scratch},
    packet::{self, Flow, Parsed},
    reject, rewrite, route, service,
};

/// Verdicts of tc in the form tcx takes them: NEXT lets other programs on the device see the packet.
pub(crate) const NEXT: i32 = -1;
pub(crate) const SHOT: i32 = 2;
/// `skb->pkt_type` of a packet for this host (include/uapi/linux/if_packet.h).
const PACKET_HOST: u32 = 0;

/// Runs the program and turns what it says into a verdict.
#[inline(always)]
pub(crate) fn run(ctx: &TcContext) -> i32 {
    // SAFETY: the context is the kernel's, valid for the program's run.
    if unsafe { (*ctx.skb.skb).pkt_type } != PACKET_HOST {
        return NEXT;
    }
    // A tagged packet is met again on the VLAN's own device.
    // SAFETY: as above.
    if unsafe { (*ctx.skb.skb).vlan_present } != 0 {
        return NEXT;
    }
    let Some(pointer) = SCRATCH.get_ptr_mut(0) else { return NEXT };
    // SAFETY: the element is this CPU's, and this program's alone (see `maps`); the reference ends with the run.
    let scratch = unsafe { &mut *pointer };
    match packet::parse(ctx, &mut scratch.key) {
        Ok(Parsed::Flow(flow)) => match try_flow(ctx, scratch, &flow) {
            Ok(verdict) => verdict,
            Err(drop) => refuse(ctx, scratch, &flow, drop),
        },
        Ok(Parsed::Other(reason)) => to_address(&scratch.key.dst, reason),
        Ok(Parsed::NotIp) => NEXT,
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
    if !service::is_vip(destination) {
        return NEXT;
    }
    Drop::from(reason).count();
    SHOT
}

#[inline(always)]
fn refuse(ctx: &TcContext, scratch: &Scratch, flow: &Flow, drop: Drop) -> i32 {
    drop.count();
    if !drop.reason.is_rejected() {
        return SHOT;
    }
    reject::port_unreachable(ctx, flow, &scratch.key).unwrap_or(SHOT)
}

#[inline(always)]
fn try_flow(ctx: &TcContext, scratch: &mut Scratch, flow: &Flow) -> Result<i32, Drop> {
    if let Some(found) = frontend(&scratch.key) {
        if conntrack::existing(scratch, flow).is_none() {
            new_flow(ctx, scratch, &found)?;
        }
        return forward(ctx, scratch, flow);
    }
    let is_vip = service::is_vip(&scratch.key.dst);
    // Replies of remote backends come to the node's own address, at a port of ours. And a flow outlives the port or
    // Service that it came by (kube-proxy never looks at an established flow again).
    if (is_vip || may_have_flows(&scratch.key)) && conntrack::existing(scratch, flow).is_some() {
        return forward(ctx, scratch, flow);
    }
    if is_vip {
        return Err(DropReason::UnknownPort.into());
    }
    Ok(NEXT)
}

#[inline(always)]
fn may_have_flows(key: &CtKey) -> bool {
    select::is_snat_port(key.dport) || service::node().is_some_and(|node| service::is_node_port(node, key.dport))
}

#[inline(always)]
fn frontend(key: &CtKey) -> Option<SvcValue> {
    if let Some(found) = service::at_address(key.dst, key.dport, key.proto) {
        return Some(found);
    }
    let node = service::node()?;
    if service::is_node_port(node, key.dport) && service::serves_node_ports(&key.dst) {
        return service::at_node_port(&key.dst, key.dport, key.proto);
    }
    None
}

#[inline(always)]
fn new_flow(ctx: &TcContext, scratch: &mut Scratch, found: &SvcValue) -> Result<(), Drop> {
    let set = endpoint_set(found, Origin::External).map_err(|reason| Drop::of(reason, found.service))?;
    // SAFETY: the helper takes nothing and returns a number.
    let number = unsafe { bpf_get_prandom_u32() };
    let (backend_id, backend) = service::pick(found.service, set, number)?;
    let way =
        route::to_backend(ctx, &mut scratch.route, &backend.addr).map_err(|reason| Drop::of(reason, found.service))?;
    let now = conntrack::now();
    let flow = NewFlow { key: &scratch.key, backend, backend_id, service: found.service, way, now };
    conntrack::create(&flow, &mut scratch.entry, &mut scratch.other_key, &mut scratch.other_entry)
}

#[inline(always)]
fn forward(ctx: &TcContext, scratch: &Scratch, flow: &Flow) -> Result<i32, Drop> {
    rewrite::apply(ctx, flow, &scratch.key, &scratch.entry)?;
    if scratch.entry.ifindex == 0 {
        return Ok(NEXT);
    }
    Ok(route::send(scratch.entry.ifindex))
}
