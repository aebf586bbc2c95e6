//! Packets that come in, as `programs/src/incoming.rs`.

use roadstead_abi::{CtEntry, DropReason, NodeConfig, ct_flags, kind, node_flags};
use roadstead_datapath::way::Arrival;

use super::{
    Explanation, Form, Packet, Routes, Rule, Verdict, View, ViewError,
    lookups::{self, Known, existing},
    open::{self, Opening},
};

pub(super) fn explain<V: View, R: Routes>(
    view: &V,
    routes: &R,
    packet: &Packet,
    arrival: Arrival,
) -> Result<Explanation, ViewError> {
    if let Form::Other(reason) = packet.form {
        return to_address(view, packet, reason);
    }
    let Some(node) = view.node()? else { return Ok(Explanation::pass(Rule::Unconfigured)) };
    let key = &packet.key;
    let to_frontend = lookups::may_be_frontend(view, &key.dst)?;
    let to_our_port = !to_frontend && lookups::is_for_our_port(view, key, &node)?;
    if !to_frontend && !to_our_port && !lookups::may_be_backend(view, &key.src, key.sport)? {
        return Ok(unserved(packet, &node));
    }
    let may_be_known = to_frontend || to_our_port || lookups::may_be_client(view, &key.dst, key.dport)?;
    let known = if may_be_known { existing(view, packet)? } else { Known::default() };
    if let Some(entry) = known.entry {
        return Ok(forward(packet, entry));
    }
    if node.flags & node_flags::TAKING_OVER != 0 && !packet.is_opening() {
        return Ok(Explanation::pass(Rule::TakingOver));
    }
    // An address of the node may be a Service's too.
    let to_our_port = to_our_port || lookups::is_for_our_port(view, key, &node)?;
    if !to_frontend && !to_our_port {
        return Ok(unserved(packet, &node));
    }
    if packet.has_header()
        && let Some(found) = lookups::frontend(view, key, &node, to_frontend, to_our_port)?
    {
        if found.kind == kind::TOMBSTONE && !matches!(arrival, Arrival::Pod) {
            return Ok(Explanation::pass(Rule::GoneEndpoint));
        }
        return open::flow(&Opening { view, routes, packet, node: &node, found, arrival, known: &known });
    }
    if to_frontend && lookups::is_vip(view, &key.dst)? {
        return Ok(Explanation::refused(unknown(packet), 0, packet.has_header()));
    }
    Ok(unserved(packet, &node))
}

fn to_address(view: &impl View, packet: &Packet, reason: DropReason) -> Result<Explanation, ViewError> {
    let dst = &packet.key.dst;
    let is_services = lookups::may_be_frontend(view, dst)? && lookups::is_vip(view, dst)?;
    Ok(if is_services { Explanation::refused(reason, 0, false) } else { Explanation::pass(Rule::NoService) })
}

fn unknown(packet: &Packet) -> DropReason {
    match packet.form {
        Form::Error => DropReason::UnknownProtocol,
        Form::Later => DropReason::Fragment,
        Form::Whole | Form::Other(_) => DropReason::UnknownPort,
    }
}

fn unserved(packet: &Packet, node: &NodeConfig) -> Explanation {
    if lookups::is_of_services(node, &packet.key.dst) {
        return Explanation::refused(DropReason::UnallocatedAddress, 0, packet.has_header());
    }
    Explanation::pass(Rule::NoService)
}

fn forward(packet: &Packet, entry: CtEntry) -> Explanation {
    if entry.flags & ct_flags::AT_EGRESS != 0 {
        let service = entry.service;
        return Explanation { service, flow: Some(entry), ..Explanation::pass(Rule::AnswerAtEgress) };
    }
    established(packet, entry)
}

/// A packet of a flow that is translated here.
pub(super) fn established(packet: &Packet, entry: CtEntry) -> Explanation {
    if let Err(reason) = open::sent(packet, entry) {
        return Explanation { flow: Some(entry), ..Explanation::refused(reason, entry.service, false) };
    }
    Explanation {
        verdict: Verdict::Forward,
        rule: Rule::Established,
        service: entry.service,
        flow: Some(entry),
        ..Explanation::pass(Rule::Established)
    }
}
