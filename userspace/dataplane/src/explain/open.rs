//! Opening a flow, as `programs/src/open.rs` and `conntrack::create`: one [`Candidate`] for each backend that it may get.

use roadstead_abi::{
    Addr, AffinityKey, Backend, CtEntry, CtKey, DropReason, NodeConfig, SvcValue, ct_flags, kind, limits, node_flags,
    svc_flags,
};
use roadstead_datapath::{
    nat::NewFlow,
    select,
    verdict::{Origin, Verdict as Decision, decide},
    way::{self, Arrival, Circumstances, Next, Place, Way},
};

use super::{
    Candidate, Explanation, Packet, Policy, Routes, Rule, Verdict, View, ViewError,
    lookups::{self, Known},
};

/// The loopback device is the first one of every network namespace.
pub(super) const LOOPBACK: u32 = 1;

/// What the model works on while a flow is opened.
pub(super) struct Opening<'a, V, R> {
    pub(super) view: &'a V,
    pub(super) routes: &'a R,
    pub(super) packet: &'a Packet,
    pub(super) node: &'a NodeConfig,
    pub(super) found: SvcValue,
    pub(super) arrival: Arrival,
    /// What is known of an older flow of the tuple.
    pub(super) known: &'a Known,
}

/// Explains a new flow.
pub(super) fn flow<V: View, R: Routes>(opening: &Opening<'_, V, R>) -> Result<Explanation, ViewError> {
    let Opening { view, packet, node, found, .. } = opening;
    let refused = |reason| Explanation {
        frontend: Some(*found),
        ..Explanation::refused(reason, found.service, packet.has_header())
    };
    if !lookups::lets_in(*view, found, &packet.key.src)? {
        return Ok(refused(DropReason::SourceRange));
    }
    let origin = origin(opening)?;
    let decision = match decide(found, origin, node.flags) {
        Ok(decision) => decision,
        Err(reason) => return Ok(refused(reason)),
    };
    let is_strange = node.flags & node_flags::PODS_KNOWN != 0 && !matches!(origin, Origin::Pod);
    let beside = matches!(opening.arrival, Arrival::Pod) && is_strange;
    let opening = &Opening { arrival: if beside { Arrival::Beside } else { opening.arrival }, ..*opening };
    let key = &packet.key;
    let hash = (!packet.any_port).then(|| select::flow_hash(&key.src, &key.dst, key.sport, key.dport));
    let client = AffinityKey { client: key.src, service: found.service };
    let mut candidates = Vec::new();
    for id in lookups::choices(*view, found, &decision.set, hash, &client)? {
        candidates.push(candidate(opening, &decision, id)?);
    }
    Ok(together(refused, found, Policy::of(found, origin), candidates))
}

/// The flow is refused where every choice would be.
pub(super) fn together(
    refused: impl Fn(DropReason) -> Explanation,
    found: &SvcValue,
    policy: Policy,
    candidates: Vec<Candidate>,
) -> Explanation {
    let failed = candidates.iter().map(|candidate| candidate.entry.err()).collect::<Option<Vec<_>>>();
    if let Some(reasons) = failed {
        let reason = reasons.first().copied().unwrap_or(DropReason::Inconsistent);
        return Explanation { candidates, ..refused(reason) };
    }
    Explanation {
        verdict: Verdict::Forward,
        rule: Rule::Frontend { kind: found.kind, policy },
        reason: None,
        service: found.service,
        frontend: Some(*found),
        candidates,
        flow: None,
    }
}

fn origin<V: View, R>(opening: &Opening<'_, V, R>) -> Result<Origin, ViewError> {
    let Opening { view, packet, node, found, arrival, .. } = opening;
    if matches!(arrival, Arrival::Host) {
        return Ok(Origin::Node);
    }
    let decides = found.flags & svc_flags::EXTERNAL_LOCAL != 0 || node.flags & node_flags::KUBE_PROXY != 0;
    if !decides && !matches!(arrival, Arrival::Pod) {
        return Ok(Origin::External);
    }
    lookups::origin(*view, &packet.key.src)
}

fn candidate<V: View, R: Routes>(
    opening: &Opening<'_, V, R>,
    decision: &Decision,
    id: Result<u32, DropReason>,
) -> Result<Candidate, ViewError> {
    let (id, backend) = match backend(opening.view, id)? {
        Ok(found) => found,
        Err(candidate) => return Ok(candidate),
    };
    let blank = Candidate { id, backend, place: None, entry: Ok(None), masquerade: false };
    let refused = |candidate, reason| Ok(Candidate { entry: Err(reason), ..candidate });
    let Opening { view, routes, packet, node, found, arrival, .. } = opening;
    let source = if backend.addr.is_v4() { &node.ipv4 } else { &node.ipv6 };
    let (place, device) = match routes.place(source, &backend.addr)? {
        Ok(place) => place,
        Err(reason) => return refused(blank, reason),
    };
    let placed = Candidate { place: Some(place), ..blank };
    let asked_node = matches!(arrival, Arrival::Host) && view.node_address(&packet.key.dst)?.is_some();
    let way = way::find(Circumstances {
        arrival: *arrival,
        place,
        masquerade: decision.masquerade,
        is_exact: node.flags & node_flags::KUBE_PROXY != 0,
        hairpin: backend.addr == packet.key.src,
        asked_node,
        asked_itself: packet.key.src == packet.key.dst,
        asked_gone: found.kind == kind::TOMBSTONE,
    });
    let chosen = Candidate { masquerade: way.snat, ..placed };
    if way.snat && *source == Addr::UNSPECIFIED {
        return refused(chosen, DropReason::NoNodeAddress);
    }
    let reply_device = match reply_device(opening, source, &way)? {
        Ok(device) => device,
        Err(reason) => return refused(chosen, reason),
    };
    // What is met on the loopback device has its way through the stack already.
    let is_there = matches!(way.forward, Next::Loopback) && packet.ifindex == LOOPBACK;
    let (forward_ifindex, forward_flags) = if is_there { (0, 0) } else { next(way.forward, device) };
    let (reply_ifindex, reply_flags) = next(way.reply, reply_device);
    let flow = NewFlow {
        key: &packet.key,
        backend: &backend,
        backend_id: id,
        service: found.service,
        snat: way.snat.then_some(source),
        forward_ifindex,
        reply_ifindex,
        forward_flags,
        reply_flags: reply_flags | if way.at_egress { ct_flags::AT_EGRESS } else { 0 },
        now: view.now(),
    };
    let entry = create(*view, opening.known, &flow)?.and_then(|entry| sent(packet, entry));
    Ok(Candidate { entry: entry.map(Some), ..chosen })
}

/// The backend of an id; an endpoint that is chosen by affinity or slot and is not there is one that the maps disagree on.
pub(super) fn backend(
    view: &impl View,
    id: Result<u32, DropReason>,
) -> Result<Result<(u32, Backend), Candidate>, ViewError> {
    let missing =
        |id, reason| Candidate { id, backend: Backend::default(), place: None, entry: Err(reason), masquerade: false };
    let id = match id {
        Ok(id) => id,
        Err(reason) => return Ok(Err(missing(0, reason))),
    };
    let backend = view.backend(id)?.filter(|backend| backend.port.0 != 0);
    Ok(backend.map(|backend| (id, backend)).ok_or_else(|| missing(id, DropReason::Inconsistent)))
}

fn reply_device<V: View, R: Routes>(
    opening: &Opening<'_, V, R>,
    source: &Addr,
    way: &Way,
) -> Result<Result<u32, DropReason>, ViewError> {
    if !matches!(way.reply, Next::Device) {
        return Ok(Ok(0));
    }
    if matches!(opening.arrival, Arrival::Uplink) {
        return Ok(Ok(opening.packet.ifindex));
    }
    Ok(match opening.routes.place(source, &opening.packet.key.src)? {
        Ok((Place::Here, _)) => Err(DropReason::NoRoute),
        Ok((_, device)) => Ok(device),
        Err(reason) => Err(reason),
    })
}

fn next(next: Next, device: u32) -> (u32, u32) {
    match next {
        Next::Stack => (0, 0),
        Next::Device => (device, 0),
        Next::Loopback => (LOOPBACK, ct_flags::INGRESS),
    }
}

/// The forward entry of the new pair, with the first source port that is free towards the backend.
fn create(view: &impl View, known: &Known, flow: &NewFlow<'_>) -> Result<Result<CtEntry, DropReason>, ViewError> {
    let key = flow.key;
    let hash = select::flow_hash(&key.src, &key.dst, key.sport, key.dport);
    let mut entry = CtEntry::default();
    flow.write_forward(key.sport, &mut entry);
    for attempt in 0..limits::SNAT_ATTEMPTS {
        if attempt > 0 || !flow.keeps_source_port() {
            entry.sport = select::snat_port(hash, attempt);
        }
        let reply = entry.reverse_key(key.proto);
        if is_free(view, known, &reply)? {
            // A flow whose answers look like its own packets cannot be told apart from itself.
            return Ok(if reply == *key { Err(DropReason::Inconsistent) } else { Ok(entry) });
        }
    }
    Ok(Err(DropReason::NoSourcePort))
}

fn is_free(view: &impl View, known: &Known, key: &CtKey) -> Result<bool, ViewError> {
    Ok(known.forgotten.contains(key) || view.flow(key)?.is_none())
}

/// What is sent on from here loses a hop.
pub(super) fn sent(packet: &Packet, entry: CtEntry) -> Result<CtEntry, DropReason> {
    if entry.ifindex != 0 && packet.hops <= 1 { Err(DropReason::HopLimit) } else { Ok(entry) }
}
