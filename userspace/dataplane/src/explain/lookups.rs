//! The lookups of `programs/src/{service,filter,conntrack}.rs`, over a [`View`].

use std::collections::BTreeSet;

use roadstead_abi::{
    Addr, AffinityKey, Be16, CtEntry, CtKey, DropReason, EndpointSet, NodeConfig, SlotRange, SvcKey, SvcValue,
    check::{filter_bit, salt},
    ct_flags, network, node_address, scope,
};
use roadstead_datapath::{conntrack as timing, select, verdict::Origin};

use super::{Packet, View, ViewError};

pub(super) fn may_be_frontend(view: &impl View, addr: &Addr) -> Result<bool, ViewError> {
    view.filter(filter_bit(salt::FRONTEND, addr, Be16(0)))
}

pub(super) fn may_be_node(view: &impl View, addr: &Addr) -> Result<bool, ViewError> {
    view.filter(filter_bit(salt::NODE, addr, Be16(0)))
}

pub(super) fn may_be_backend(view: &impl View, addr: &Addr, port: Be16) -> Result<bool, ViewError> {
    view.filter(filter_bit(salt::BACKEND, addr, port))
}

pub(super) fn may_be_client(view: &impl View, addr: &Addr, port: Be16) -> Result<bool, ViewError> {
    view.client(select::client_mark(addr, port))
}

/// Whether the packet may be for a port of this node that is ours.
pub(super) fn is_for_our_port(view: &impl View, key: &CtKey, node: &NodeConfig) -> Result<bool, ViewError> {
    Ok((select::is_snat_port(key.dport) || is_node_port(node, key.dport)) && may_be_node(view, &key.dst)?)
}

pub(super) fn is_node_port(node: &NodeConfig, port: Be16) -> bool {
    (node.node_port_first..=node.node_port_last).contains(&port.get())
}

pub(super) fn at_address(view: &impl View, addr: Addr, port: Be16, proto: u8) -> Result<Option<SvcValue>, ViewError> {
    find(view, &SvcKey { addr, port, proto, scope: scope::ADDRESS })
}

pub(super) fn at_node_port(
    view: &impl View,
    family_of: &Addr,
    port: Be16,
    proto: u8,
) -> Result<Option<SvcValue>, ViewError> {
    let scope = if family_of.is_v4() { scope::NODE_PORT_V4 } else { scope::NODE_PORT_V6 };
    find(view, &SvcKey { addr: Addr::UNSPECIFIED, port, proto, scope })
}

fn find(view: &impl View, key: &SvcKey) -> Result<Option<SvcValue>, ViewError> {
    let check = u32::from(key.check());
    Ok(view.service(key)?.filter(|value| value.check & 0xffff == check))
}

/// The frontend that a packet is for.
pub(super) fn frontend(
    view: &impl View,
    key: &CtKey,
    node: &NodeConfig,
    to_frontend: bool,
    to_node_port: bool,
) -> Result<Option<SvcValue>, ViewError> {
    if to_frontend && let Some(found) = at_address(view, key.dst, key.dport, key.proto)? {
        return Ok(Some(found));
    }
    if !to_node_port || !is_node_port(node, key.dport) || !serves_node_ports(view, &key.dst)? {
        return Ok(None);
    }
    at_node_port(view, &key.dst, key.dport, key.proto)
}

pub(super) fn serves_node_ports(view: &impl View, addr: &Addr) -> Result<bool, ViewError> {
    Ok(view.node_address(addr)?.is_some_and(|flags| flags & node_address::SERVES_NODE_PORTS != 0))
}

pub(super) fn is_vip(view: &impl View, addr: &Addr) -> Result<bool, ViewError> {
    Ok(view.vip(addr)?.is_some())
}

/// Whether cluster addresses are taken from where this address lies.
pub(super) fn is_of_services(node: &NodeConfig, addr: &Addr) -> bool {
    let networks = usize::try_from(node.service_networks).unwrap_or(usize::MAX);
    node.services.iter().take(networks).any(|network| network.contains(addr))
}

pub(super) fn origin(view: &impl View, source: &Addr) -> Result<Origin, ViewError> {
    if view.node_address(source)?.is_some() {
        return Ok(Origin::Node);
    }
    let is_pod = view.network(source)?.is_some_and(|flags| flags & network::POD != 0);
    Ok(if is_pod { Origin::Pod } else { Origin::External })
}

pub(super) fn lets_in(view: &impl View, found: &SvcValue, client: &Addr) -> Result<bool, ViewError> {
    Ok(found.ranges == 0 || view.range(found.ranges, client)?)
}

/// The flow of a packet, as `conntrack::existing`: its entry, or none with the keys that a new one would replace.
#[derive(Default)]
pub(super) struct Known {
    pub(super) entry: Option<CtEntry>,
    pub(super) forgotten: Vec<CtKey>,
}

pub(super) fn existing(view: &impl View, packet: &Packet) -> Result<Known, ViewError> {
    let none = |forgotten| Known { entry: None, forgotten };
    let Some(entry) = view.flow(&packet.key)?.filter(|entry| entry.check == packet.key.check()) else {
        return Ok(none(Vec::new()));
    };
    if packet.is_opening() && is_over(view, &entry, packet.key.proto)? {
        return Ok(none(vec![packet.key, entry.reverse_key(packet.key.proto)]));
    }
    Ok(Known { entry: Some(entry), forgotten: Vec::new() })
}

/// Whether a SYN may open the tuple anew.
fn is_over(view: &impl View, entry: &CtEntry, proto: u8) -> Result<bool, ViewError> {
    if entry.flags & ct_flags::REPLY != 0 {
        return Ok(false);
    }
    let reply_flags = view.flow(&entry.reverse_key(proto))?.map_or(0, |reply| reply.flags);
    let leads_there = view.backend(entry.backend)?.is_some_and(|b| b.addr == entry.dst && b.port == entry.dport);
    Ok(timing::reopens(entry.flags | reply_flags) || !leads_there)
}

/// The ids that a new flow may get: the client's last one, the one that the Maglev table gives, or every member.
/// `number` is the flow's hash or the socket's; without it a table gives any of its own.
pub(super) fn choices(
    view: &impl View,
    found: &SvcValue,
    set: &EndpointSet,
    number: Option<u32>,
    client: &AffinityKey,
) -> Result<Vec<Result<u32, DropReason>>, ViewError> {
    if found.affinity != 0
        && let Some(last) = last_backend(view, found, set, client)?
    {
        return Ok(vec![Ok(last)]);
    }
    let slots = match number {
        Some(number) if set.table.count > 0 => vec![select::slot_of_set(set, number)],
        _ if set.table.count > 0 => indices(set.table),
        _ => indices(set.members),
    };
    let ids: BTreeSet<_> = slots
        .into_iter()
        .map(|slot| Ok(view.slot(slot)?.ok_or(DropReason::Inconsistent)))
        .collect::<Result<_, ViewError>>()?;
    Ok(ids.into_iter().collect())
}

fn indices(range: SlotRange) -> Vec<u32> {
    (range.base..range.base.saturating_add(range.count)).collect()
}

fn last_backend(
    view: &impl View,
    found: &SvcValue,
    set: &EndpointSet,
    client: &AffinityKey,
) -> Result<Option<u32>, ViewError> {
    let Some(last) = view.affinity(client)? else { return Ok(None) };
    if !timing::keeps_backend(last.last_seen, view.now(), found.affinity)
        || !is_member(view, set.members, last.backend)?
    {
        return Ok(None);
    }
    Ok(view.backend(last.backend)?.map(|_| last.backend))
}

/// A binary search, as the programs do it.
fn is_member(view: &impl View, set: SlotRange, id: u32) -> Result<bool, ViewError> {
    let (mut low, mut high) = (set.base, set.base.wrapping_add(set.count));
    while low < high {
        let middle = low + (high - low) / 2;
        match view.slot(middle)? {
            Some(found) if found == id => return Ok(true),
            Some(found) if found < id => low = middle + 1,
            Some(_) => high = middle,
            None => return Ok(false),
        }
    }
    Ok(false)
}
