//! The first question about every packet: can any Service have to do with it? An array lookup, whatever the number of
//! Services. The answer yes may be wrong, which costs a lookup; the answer no is right.

use roadstead_abi::{
    Addr, Be16,
    check::{filter_bit, salt},
};

use roadstead_datapath::select;

use crate::maps::{CLIENTS, FILTER};

/// Whether the address may have frontends, or flows that came by one.
#[inline(always)]
pub(crate) fn may_be_frontend(addr: &Addr) -> bool {
    has(filter_bit(salt::FRONTEND, addr, Be16(0)))
}

/// Whether the address may be this node's.
#[inline(always)]
pub(crate) fn may_be_node(addr: &Addr) -> bool {
    has(filter_bit(salt::NODE, addr, Be16(0)))
}

/// Whether address and port may be a backend's.
#[inline(always)]
pub(crate) fn may_be_backend(addr: &Addr, port: Be16) -> bool {
    has(filter_bit(salt::BACKEND, addr, port))
}

/// Whether answers of a flow may go to the address and port.
#[inline(always)]
pub(crate) fn may_be_client(addr: &Addr, port: Be16) -> bool {
    CLIENTS.get(select::client_mark(addr, port)).is_some_and(|mark| *mark != 0)
}

/// Marks the address and port that answers of a flow will go to, before there is one.
#[inline(always)]
pub(crate) fn mark_client(addr: &Addr, port: Be16) {
    let Some(mark) = CLIENTS.get_ptr_mut(select::client_mark(addr, port)) else { return };
    // SAFETY: the map returned the pointer; every writer stores the same word.
    unsafe { mark.write(1) };
}

#[inline(always)]
fn has(bit: u32) -> bool {
    FILTER.get(bit >> 6).is_some_and(|word| word >> (bit & 63) & 1 != 0)
}
