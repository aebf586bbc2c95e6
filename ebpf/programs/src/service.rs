//! From an address to a backend: the lookups that only a new flow pays in full.

use aya_ebpf::{helpers::generated::bpf_get_prandom_u32, maps::lpm_trie::Key};
use roadstead_abi::{
    Addr, Affinity, AffinityKey, Backend, Be16, DropReason, EndpointSet, NodeConfig, RangeData, SlotRange, SvcKey,
    SvcValue, network, node_address, scope,
};
use roadstead_datapath::{conntrack as timing, select, verdict::Origin};

use crate::{
    conntrack,
    drops::Drop,
    maps::{AFFINITY, BACKENDS, NETWORKS, NODE, NODE_ADDRESSES, RANGES, SERVICES, SLOTS, VIPS},
};

/// The node's values; `None` before the agent's first write.
#[inline(always)]
pub(crate) fn node() -> Option<&'static NodeConfig> {
    NODE.get(0)
}

/// Copies the frontend at an address and port, no node port, to `value`; whether there is one.
#[inline(always)]
pub(crate) fn at_address(addr: Addr, port: Be16, proto: u8, value: &mut SvcValue) -> bool {
    find(&SvcKey { addr, port, proto, scope: scope::ADDRESS }, value)
}

/// The same for a node port at an address of `family_of`'s family.
#[inline(always)]
pub(crate) fn at_node_port(family_of: &Addr, port: Be16, proto: u8, value: &mut SvcValue) -> bool {
    let scope = if family_of.is_v4() { scope::NODE_PORT_V4 } else { scope::NODE_PORT_V6 };
    find(&SvcKey { addr: Addr::UNSPECIFIED, port, proto, scope }, value)
}

/// A value that was replaced while it was read, and its element filled anew, is read once more.
#[inline(always)]
fn find(key: &SvcKey, value: &mut SvcValue) -> bool {
    copy(key, value) || copy(key, value)
}

#[inline(always)]
fn copy(key: &SvcKey, value: &mut SvcValue) -> bool {
    let Some(pointer) = SERVICES.get_ptr(key) else { return false };
    // SAFETY: the map returned the pointer; volatile, so that the word is read before the rest and once more after it.
    let before = unsafe { (&raw const (*pointer).check).read_volatile() };
    // SAFETY: as above.
    *value = unsafe { pointer.read_volatile() };
    // SAFETY: as above.
    let after = unsafe { (&raw const (*pointer).check).read_volatile() };
    before == after && before as u16 == key.check()
}

/// Whether a port lies in the range of node ports.
#[inline(always)]
pub(crate) fn is_node_port(node: &NodeConfig, port: Be16) -> bool {
    let port = port.get();
    port >= node.node_port_first && port <= node.node_port_last
}

/// What the node has the address for, if it has it.
#[inline(always)]
pub(crate) fn node_address(addr: &Addr) -> Option<u32> {
    NODE_ADDRESSES.get_ptr(addr).map(|flags| {
        // SAFETY: the map returned the pointer; a word is read whole.
        unsafe { *flags }
    })
}

/// Whether the address is the node's and serves node ports.
#[inline(always)]
pub(crate) fn serves_node_ports(addr: &Addr) -> bool {
    node_address(addr).is_some_and(|flags| flags & node_address::SERVES_NODE_PORTS != 0)
}

/// Whether the address belongs to Services alone.
#[inline(always)]
pub(crate) fn is_vip(addr: &Addr) -> bool {
    VIPS.get_ptr(addr).is_some()
}

/// Whether cluster addresses are taken from where this address lies.
#[inline(always)]
pub(crate) fn is_of_services(node: &NodeConfig, addr: &Addr) -> bool {
    let mut index = 0;
    while index < node.services.len() {
        if index as u32 >= node.service_networks {
            return false;
        }
        if node.services[index].contains(addr) {
            return true;
        }
        index += 1;
    }
    false
}

/// Where a packet with this source address comes from.
#[inline(always)]
pub(crate) fn origin(source: &Addr) -> Origin {
    if node_address(source).is_some() {
        return Origin::Node;
    }
    match NETWORKS.get(Key::new(128, *source)) {
        Some(flags) if flags & network::POD != 0 => Origin::Pod,
        _ => Origin::External,
    }
}

/// Whether the frontend lets the client in.
#[inline(always)]
pub(crate) fn lets_in(found: &SvcValue, client: &Addr) -> bool {
    if found.ranges == 0 {
        return true;
    }
    let data = RangeData { id: found.ranges, addr: *client };
    RANGES.get(Key::new(RangeData::ID_BITS + 128, data)).is_some()
}

/// Chooses a backend of a set for a new flow: the client's last one where the Service has session affinity, else by the
/// flow's hash where it has a Maglev table, else at random.
///
/// # Errors
/// [`DropReason::Inconsistent`] when the slot names no backend.
#[inline(always)]
pub(crate) fn choose(
    found: &SvcValue,
    set: &EndpointSet,
    hash: u32,
    client: &AffinityKey,
) -> Result<(u32, &'static Backend), Drop> {
    // SAFETY: the helper takes nothing and returns a number.
    let number = if set.table.count > 0 { hash } else { unsafe { bpf_get_prandom_u32() } };
    choose_by(found, set, number, client)
}

/// The same, by a given number in place of a random one.
///
/// # Errors
/// As [`choose`].
#[inline(always)]
pub(crate) fn choose_by(
    found: &SvcValue,
    set: &EndpointSet,
    number: u32,
    client: &AffinityKey,
) -> Result<(u32, &'static Backend), Drop> {
    if found.affinity == 0 {
        return pick(found.service, set, number);
    }
    let now = conntrack::now();
    let (id, backend) = match last_backend(found, set, client, now) {
        Some(kept) => kept,
        None => pick(found.service, set, number)?,
    };
    // A full table forgets the oldest client.
    let _ = AFFINITY.insert(client, Affinity { backend: id, last_seen: now }, 0);
    Ok((id, backend))
}

#[inline(always)]
fn last_backend(
    found: &SvcValue,
    set: &EndpointSet,
    client: &AffinityKey,
    now: u32,
) -> Option<(u32, &'static Backend)> {
    // SAFETY: the value is copied out at once.
    let last = unsafe { AFFINITY.get(client) }.copied()?;
    if !timing::keeps_backend(last.last_seen, now, found.affinity) || !is_member(set.members, last.backend) {
        return None;
    }
    Some((last.backend, BACKENDS.get(last.backend)?))
}

/// Whether the set holds the backend; its ids ascend.
#[inline(always)]
fn is_member(set: SlotRange, id: u32) -> bool {
    let (mut low, mut high) = (set.base, set.base.wrapping_add(set.count));
    // 2^19 is more than there are backends.
    let mut step = 0;
    while step < 19 && low < high {
        let middle = low + (high - low) / 2;
        match SLOTS.get(middle) {
            Some(found) if *found == id => return true,
            Some(found) if *found < id => low = middle + 1,
            Some(_) => high = middle,
            None => return false,
        }
        step += 1;
    }
    false
}

#[inline(always)]
fn pick(service: u32, set: &EndpointSet, number: u32) -> Result<(u32, &'static Backend), Drop> {
    let missing = Drop::of(DropReason::Inconsistent, service);
    let id = *SLOTS.get(select::slot_of_set(set, number)).ok_or(missing)?;
    let backend = BACKENDS.get(id).ok_or(missing)?;
    if backend.port.0 == 0 {
        return Err(missing);
    }
    Ok((id, backend))
}
