//! Opening a flow: what the verdict, the choice of a backend and the routing table make of its first packet.

use aya_ebpf::programs::TcContext;
use roadstead_abi::{Addr, AffinityKey, Be16, CtKey, DropReason, NodeConfig, ct_flags, kind, node_flags, svc_flags};
use roadstead_datapath::{
    nat::NewFlow,
    select,
    verdict::{Origin, decide},
    way::{self, Arrival, Circumstances, Next, Place, Way},
};

use crate::{
    conntrack, counters,
    drops::Drop,
    filter,
    maps::Scratch,
    route::{self, LOOPBACK},
    service,
};

/// Creates the flow of the packet whose frontend stands in the scratch element; its forward entry stands there too then.
///
/// # Errors
/// Why the flow is refused.
#[inline(always)]
pub(crate) fn flow(ctx: &TcContext, scratch: &mut Scratch, node: &NodeConfig, arrival: Arrival) -> Result<(), Drop> {
    let id = scratch.service.service;
    if !service::lets_in(&scratch.service, &scratch.key.src) {
        return Err(Drop::of(DropReason::SourceRange, id));
    }
    let origin = origin(scratch, node, arrival);
    let verdict = decide(&scratch.service, origin, node.flags).map_err(|reason| Drop::of(reason, id))?;
    let is_strange = node.flags & node_flags::PODS_KNOWN != 0 && !matches!(origin, Origin::Pod);
    let arrival = if matches!(arrival, Arrival::Pod) && is_strange { Arrival::Beside } else { arrival };
    let key = &scratch.key;
    let hash = select::flow_hash(&key.src, &key.dst, key.sport, key.dport);
    let client = AffinityKey { client: key.src, service: id };
    let (backend_id, backend) = service::choose(&scratch.service, &verdict.set, hash, &client)?;
    let source = if backend.addr.is_v4() { &node.ipv4 } else { &node.ipv6 };
    let (place, device) =
        route::place(ctx, &mut scratch.route, source, &backend.addr).map_err(|reason| Drop::of(reason, id))?;
    let circumstances = Circumstances {
        arrival,
        place,
        masquerade: verdict.masquerade,
        is_exact: node.flags & node_flags::KUBE_PROXY != 0,
        hairpin: backend.addr == scratch.key.src,
        asked_node: matches!(arrival, Arrival::Host) && service::node_address(&scratch.key.dst).is_some(),
        asked_itself: scratch.key.src == scratch.key.dst,
        asked_gone: scratch.service.kind == kind::TOMBSTONE,
    };
    let way = way::find(circumstances);
    if way.snat && *source == Addr::UNSPECIFIED {
        return Err(Drop::of(DropReason::NoNodeAddress, id));
    }
    let reply_device = reply_device(ctx, scratch, source, &way, arrival).map_err(|reason| Drop::of(reason, id))?;
    // What is met on the loopback device has its way through the stack already.
    let is_there = matches!(way.forward, Next::Loopback) && route::ifindex(ctx) == LOOPBACK;
    let (forward_ifindex, forward_flags) = if is_there { (0, 0) } else { next(way.forward, device) };
    let (reply_ifindex, reply_flags) = next(way.reply, reply_device);
    let at_egress = if way.at_egress { ct_flags::AT_EGRESS } else { 0 };
    let flow = NewFlow {
        key: &scratch.key,
        backend,
        backend_id,
        service: id,
        snat: if way.snat { Some(source) } else { None },
        forward_ifindex,
        reply_ifindex,
        forward_flags,
        reply_flags: reply_flags | at_egress,
        now: conntrack::now(),
    };
    let (entry, keeps) = (&mut scratch.entry, &mut scratch.keeps);
    conntrack::create(&flow, entry, &mut scratch.other_key, &mut scratch.other_entry, keeps)?;
    counters::connection(id, backend_id);
    Ok(())
}

/// Asked only where the verdict depends on it: it costs two lookups.
#[inline(always)]
fn origin(scratch: &Scratch, node: &NodeConfig, arrival: Arrival) -> Origin {
    if matches!(arrival, Arrival::Host) {
        return Origin::Node;
    }
    let decides = scratch.service.flags & svc_flags::EXTERNAL_LOCAL != 0 || node.flags & node_flags::KUBE_PROXY != 0;
    if !decides && !matches!(arrival, Arrival::Pod) {
        return Origin::External;
    }
    service::origin(&scratch.key.src)
}

/// Answers of a flow that bypasses the stack go back by the uplink that it came in on, or by the device that the pod is
/// routed to (the port of a bridge has no neighbours).
#[inline(always)]
fn reply_device(
    ctx: &TcContext,
    scratch: &mut Scratch,
    source: &Addr,
    way: &Way,
    arrival: Arrival,
) -> Result<u32, DropReason> {
    if !matches!(way.reply, Next::Device) {
        return Ok(0);
    }
    if matches!(arrival, Arrival::Uplink) {
        return Ok(route::ifindex(ctx));
    }
    let client = scratch.key.src;
    match route::place(ctx, &mut scratch.route, source, &client)? {
        (Place::Here, _) => Err(DropReason::NoRoute),
        (_, device) => Ok(device),
    }
}

/// The device and the flags of an entry whose packets go there.
#[inline(always)]
fn next(next: Next, device: u32) -> (u32, u32) {
    match next {
        Next::Stack => (0, 0),
        Next::Device => (device, 0),
        Next::Loopback => (LOOPBACK, ct_flags::INGRESS),
    }
}

/// Copies the frontend that the packet is for to the scratch element; whether there is one.
#[inline(always)]
pub(crate) fn frontend(scratch: &mut Scratch, node: &NodeConfig, to_frontend: bool, to_node_port: bool) -> bool {
    let CtKey { dst, dport, proto, .. } = scratch.key;
    if to_frontend && service::at_address(dst, dport, proto, &mut scratch.service) {
        return true;
    }
    to_node_port
        && service::is_node_port(node, dport)
        && service::serves_node_ports(&dst)
        && service::at_node_port(&dst, dport, proto, &mut scratch.service)
}

/// Whether the packet may be for a port of this node that is ours: a node port, or the source port of a masqueraded flow.
#[inline(always)]
pub(crate) fn is_for_our_port(key: &CtKey, node: &NodeConfig) -> bool {
    is_our_port(key.dport, node) && filter::may_be_node(&key.dst)
}

/// Whether the port would be ours at an address of this node.
#[inline(always)]
pub(crate) fn is_our_port(port: Be16, node: &NodeConfig) -> bool {
    select::is_snat_port(port) || service::is_node_port(node, port)
}
