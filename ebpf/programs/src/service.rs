//! From an address to a backend: the lookups that only a new flow pays in full.

use roadstead_abi::{Addr, Backend, Be16, DropReason, NodeConfig, SlotRange, SvcKey, SvcValue, scope};
use roadstead_datapath::select;

use crate::{
    drops::Drop,
    maps::{BACKENDS, NODE, NODE_PORT_IPS, SERVICES, SLOTS, VIPS},
};

/// The node's values; `None` before the agent's first write.
#[inline(always)]
pub(crate) fn node() -> Option<&'static NodeConfig> {
    NODE.get(0)
}

/// The frontend at an address and port, no node port.
#[inline(always)]
pub(crate) fn at_address(addr: Addr, port: Be16, proto: u8) -> Option<SvcValue> {
    let key = SvcKey { addr, port, proto, scope: scope::ADDRESS };
    // SAFETY: the value is copied out at once; the agent replaces values whole.
    unsafe { SERVICES.get(key) }.copied()
}

/// The frontend at a node port, for an address of `family_of`'s family.
#[inline(always)]
pub(crate) fn at_node_port(family_of: &Addr, port: Be16, proto: u8) -> Option<SvcValue> {
    let scope = if family_of.is_v4() { scope::NODE_PORT_V4 } else { scope::NODE_PORT_V6 };
    let key = SvcKey { addr: Addr::UNSPECIFIED, port, proto, scope };
    // SAFETY: as in `at_address`.
    unsafe { SERVICES.get(key) }.copied()
}

/// Whether a port lies in the range of node ports.
#[inline(always)]
pub(crate) fn is_node_port(node: &NodeConfig, port: Be16) -> bool {
    let port = port.get();
    port >= node.node_port_first && port <= node.node_port_last
}

/// Whether the address is the node's and serves node ports.
#[inline(always)]
pub(crate) fn serves_node_ports(addr: &Addr) -> bool {
    NODE_PORT_IPS.get_ptr(addr).is_some()
}

/// Whether the address belongs to Services alone.
#[inline(always)]
pub(crate) fn is_vip(addr: &Addr) -> bool {
    VIPS.get_ptr(addr).is_some()
}

/// Picks a backend of a set by a random or hashed number.
///
/// # Errors
/// [`DropReason::Inconsistent`] when the slot names no backend.
#[inline(always)]
pub(crate) fn pick(service: u32, set: SlotRange, number: u32) -> Result<(u32, &'static Backend), Drop> {
    let missing = Drop::of(DropReason::Inconsistent, service);
    let id = *SLOTS.get(select::slot(set, number)).ok_or(missing)?;
    let backend = BACKENDS.get(id).ok_or(missing)?;
    if backend.port.0 == 0 {
        return Err(missing);
    }
    Ok((id, backend))
}
