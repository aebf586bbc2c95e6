//! connect(2) and sendmsg(2), as `programs/src/sock.rs`.

use roadstead_abi::{Addr, AffinityKey, Be16, DropReason, NodeConfig, SvcValue, kind};
use roadstead_datapath::{
    select,
    verdict::{Origin, decide, origin_of_socket},
};

use super::{
    Candidate, Explanation, Policy, Rule, View, ViewError, lookups,
    open::{backend, together},
};

/// A system call of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// The address asked for.
    pub asked: Addr,
    /// The port asked for.
    pub port: Be16,
    /// IP protocol number.
    pub protocol: u8,
    /// Family of the socket, 4 or 6; one of IPv6 may ask for IPv4 addresses.
    pub family: u8,
    /// Whose process it is.
    pub socket: Socket,
}

/// The socket of a [`Call`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Socket {
    /// `SO_NETNS_COOKIE`; `None` for a pod whose namespace is not known.
    pub netns_cookie: Option<u64>,
    /// `SO_COOKIE`, where it is known: some choices follow from it.
    pub cookie: Option<u64>,
}

/// Explains connect(2), or a datagram of an unconnected socket but for its choice among the candidates. A `Pass` leaves
/// the address to the packet programs.
///
/// # Errors
/// When a map cannot be read.
pub fn connect(view: &impl View, call: &Call) -> Result<Explanation, ViewError> {
    let Some(node) = view.node()? else { return Ok(Explanation::pass(Rule::Unconfigured)) };
    let may_be_frontend = lookups::may_be_frontend(view, &call.asked)?;
    if !may_be_frontend && !lookups::is_node_port(&node, call.port) {
        return Ok(Explanation::pass(Rule::NoService));
    }
    let is_nodes = call.socket.netns_cookie == Some(node.netns_cookie);
    let Some(found) = frontend(view, call, &node, may_be_frontend, is_nodes)? else {
        if may_be_frontend && lookups::is_vip(view, &call.asked)? {
            return Ok(refused(DropReason::UnknownPort, 0));
        }
        return Ok(Explanation::pass(Rule::NoService));
    };
    let origin = origin_of_socket(is_nodes, node.flags);
    if is_for_packets(view, &found, origin, &node, call)? {
        return Ok(Explanation { service: found.service, ..Explanation::pass(Rule::LeftToPackets) });
    }
    match decide(&found, origin, node.flags) {
        Ok(decision) => {
            let number = call.socket.cookie.map(|cookie| select::cookie_hash(cookie, call.port));
            let client = AffinityKey::of_socket(call.socket.netns_cookie.unwrap_or(0), call.family, found.service);
            let choices = lookups::choices(view, &found, &decision.set, number, &client)?;
            let candidates = choices.into_iter().map(|id| candidate(view, id)).collect::<Result<_, _>>()?;
            let refused = |reason| Explanation { frontend: Some(found), ..refused(reason, found.service) };
            Ok(together(refused, &found, Policy::of(&found, origin), candidates))
        }
        Err(reason) => Ok(Explanation { frontend: Some(found), ..refused(reason, found.service) }),
    }
}

/// Silence is the packet programs' business.
fn refused(reason: DropReason, service: u32) -> Explanation {
    if reason.is_rejected() || reason == DropReason::Inconsistent {
        // Even what the maps disagree on is answered with ECONNREFUSED.
        return Explanation { verdict: super::Verdict::Reject, ..Explanation::refused(reason, service, true) };
    }
    Explanation { service, ..Explanation::pass(Rule::LeftToPackets) }
}

fn candidate(view: &impl View, id: Result<u32, DropReason>) -> Result<Candidate, ViewError> {
    Ok(match backend(view, id)? {
        Ok((id, backend)) => Candidate { id, backend, place: None, entry: Ok(None), masquerade: false },
        Err(missing) => missing,
    })
}

fn frontend(
    view: &impl View,
    call: &Call,
    node: &NodeConfig,
    may_be_frontend: bool,
    is_nodes: bool,
) -> Result<Option<SvcValue>, ViewError> {
    if may_be_frontend && let Some(found) = lookups::at_address(view, call.asked, call.port, call.protocol)? {
        return Ok(Some(found).filter(|found| found.kind != kind::TOMBSTONE));
    }
    if !lookups::is_node_port(node, call.port) {
        return Ok(None);
    }
    let ours = lookups::serves_node_ports(view, &call.asked)? || (call.asked.is_loopback() && is_nodes);
    if ours { lookups::at_node_port(view, &call.asked, call.port, call.protocol) } else { Ok(None) }
}

fn is_for_packets(
    view: &impl View,
    found: &SvcValue,
    origin: Origin,
    node: &NodeConfig,
    call: &Call,
) -> Result<bool, ViewError> {
    if found.ranges == 0 {
        return Ok(false);
    }
    let source = if call.family == 4 { &node.ipv4 } else { &node.ipv6 };
    Ok(!matches!(origin, Origin::Node) || !lookups::lets_in(view, found, source)?)
}
