//! Packets that leave, as `programs/src/outgoing.rs`.

use roadstead_abi::{CtEntry, DropReason, NodeConfig, ct_flags, kind, node_flags, proto};
use roadstead_datapath::way::Arrival;

use super::{
    Explanation, Form, Packet, Routes, Rule, View, ViewError,
    incoming::established,
    lookups::{self, Known, existing},
    open::{self, Opening},
};

/// Where the packet leaves.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Device {
    Uplink,
    Internal,
}

pub(super) fn explain<V: View, R: Routes>(
    view: &V,
    routes: &R,
    packet: &Packet,
    device: Device,
) -> Result<Explanation, ViewError> {
    if matches!(packet.form, Form::Other(_)) {
        return Ok(Explanation::pass(Rule::NoService));
    }
    let key = &packet.key;
    let to_frontend = lookups::may_be_frontend(view, &key.dst)?;
    let may_be_known = to_frontend
        || lookups::may_be_client(view, &key.dst, key.dport)? && lookups::may_be_backend(view, &key.src, key.sport)?;
    let mut known = Known::default();
    if may_be_known {
        known = existing(view, packet)?;
        if let Some(entry) = known.entry {
            return Ok(of_flow(packet, entry));
        }
    }
    if device == Device::Internal && !(to_frontend && key.proto == proto::UDP) {
        return Ok(Explanation::pass(Rule::NoService));
    }
    let Some(node) = view.node()? else { return Ok(Explanation::pass(Rule::Unconfigured)) };
    if to_frontend {
        return begin(view, routes, packet, &node, &known, device);
    }
    if lookups::is_of_services(&node, &key.dst) {
        return Ok(Explanation::refused(DropReason::UnallocatedAddress, 0, packet.has_header()));
    }
    Ok(Explanation::pass(Rule::NoService))
}

fn of_flow(packet: &Packet, mut entry: CtEntry) -> Explanation {
    if entry.flags & ct_flags::AT_EGRESS != 0 {
        // The stack has routed the packet already.
        entry.ifindex = 0;
    } else if entry.flags & ct_flags::REPLY != 0 {
        let service = entry.service;
        return Explanation { service, flow: Some(entry), ..Explanation::pass(Rule::TranslatedElsewhere) };
    }
    established(packet, entry)
}

fn begin<V: View, R: Routes>(
    view: &V,
    routes: &R,
    packet: &Packet,
    node: &NodeConfig,
    known: &Known,
    device: Device,
) -> Result<Explanation, ViewError> {
    let is_datagram = packet.key.proto != proto::TCP && node.flags & node_flags::TAKING_OVER == 0;
    let begins = packet.has_header() && (packet.is_opening() || is_datagram);
    if !begins {
        return Ok(Explanation::pass(Rule::NoFlow));
    }
    let Some(found) = lookups::frontend(view, &packet.key, node, true, false)? else {
        if device == Device::Uplink && lookups::is_vip(view, &packet.key.dst)? {
            return Ok(Explanation::refused(DropReason::UnknownPort, 0, packet.has_header()));
        }
        return Ok(Explanation::pass(Rule::NoService));
    };
    let ours = view.node_address(&packet.key.src)?.is_some();
    if device == Device::Internal && !(ours && found.kind == kind::TOMBSTONE) {
        return Ok(Explanation::pass(Rule::NoService));
    }
    let arrival = if ours { Arrival::Host } else { Arrival::Late };
    open::flow(&Opening { view, routes, packet, node, found, arrival, known })
}
