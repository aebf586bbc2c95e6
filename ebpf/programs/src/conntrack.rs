//! Existing and new flows in the conntrack map.

use aya_ebpf::helpers::generated::bpf_jiffies64;
use roadstead_abi::{CLOCK_SHIFT, CtEntry, DropReason, ct_flags, limits};
use roadstead_datapath::{conntrack as timing, nat::NewFlow, select};

use crate::{
    drops::Drop,
    filter,
    maps::{BACKENDS, CONNTRACK, Scratch},
    packet::{Form, Packet, tcp},
};

const BPF_NOEXIST: u64 = 1;
const EEXIST: i32 = -17;

/// The programs' clock (`abi::CLOCK_SHIFT`).
#[inline(always)]
pub(crate) fn now() -> u32 {
    // SAFETY: the helper takes nothing and returns a number; the verifier puts a read of the kernel's variable in its place.
    (unsafe { bpf_jiffies64() } >> CLOCK_SHIFT) as u32
}

/// Copies the entry of the packet's flow to the scratch element and stamps it; `None` for a new flow.
#[inline(always)]
pub(crate) fn existing(scratch: &mut Scratch, packet: &Packet) -> Option<()> {
    let check = scratch.key.check();
    // The element may be freed and given to another flow between the lookup and the copy: then once more.
    let mut pointer = CONNTRACK.get_ptr_mut(&scratch.key)?;
    copy(pointer, &mut scratch.entry);
    if scratch.entry.check != check {
        pointer = CONNTRACK.get_ptr_mut(&scratch.key)?;
        copy(pointer, &mut scratch.entry);
        if scratch.entry.check != check {
            return None;
        }
    }
    if packet.is_opening() && is_over(scratch, packet.proto) {
        forget(scratch, packet.proto);
        return None;
    }
    if packet.form != Form::Error {
        stamp(&scratch.entry, pointer, packet.tcp_flags);
    }
    Some(())
}

/// Copies an element that the map returned; elements are preallocated, so it is one whoever has it now. An assignment
/// would call memmove, which copies byte by byte.
#[inline(always)]
fn copy(from: *const CtEntry, to: &mut CtEntry) {
    // SAFETY: both are valid, and the scratch element is no part of the map.
    unsafe { core::ptr::copy_nonoverlapping(from, to, 1) };
}

/// Notes the packet in the entry. What a recycled element would be stamped with is a flag or a time too many, which only
/// moves its expiry.
#[inline(always)]
fn stamp(entry: &CtEntry, pointer: *mut CtEntry, tcp_flags: u8) {
    // Traffic after a RST shows that the RST was a stray one.
    let flags = (entry.flags & !ct_flags::RST) | seen_flags(entry.flags, tcp_flags);
    let now = now();
    // Written only when they change: a store dirties the cache line that the other direction's CPU reads.
    if flags != entry.flags {
        // SAFETY: the map returned the pointer.
        unsafe { (*pointer).flags = flags };
    }
    if now != entry.last_seen {
        // SAFETY: as above.
        unsafe { (*pointer).last_seen = now };
    }
}

/// Creates both entries of a flow; the forward one stands in `entry` afterwards. `other_key`, `other_entry` and `keeps` are
/// room to work in; the last one is read back so that the verifier walks what follows once (as `packet::Parcel`).
///
/// # Errors
/// [`DropReason::ConntrackFull`], or [`DropReason::NoSourcePort`] when every port tried is taken.
#[inline(always)]
pub(crate) fn create(
    flow: &NewFlow<'_>,
    entry: &mut CtEntry,
    other_key: &mut roadstead_abi::CtKey,
    other_entry: &mut CtEntry,
    keeps: &mut u32,
) -> Result<(), Drop> {
    let key = flow.key;
    let hash = select::flow_hash(&key.src, &key.dst, key.sport, key.dport);
    flow.write_reply(other_entry);
    flow.write_forward(key.sport, entry);
    // SAFETY: the reference is valid; volatile, so that the compiler remembers nothing of it.
    unsafe { core::ptr::from_mut(keeps).write_volatile(u32::from(flow.keeps_source_port())) };
    // SAFETY: as above.
    let keeps_source_port = unsafe { core::ptr::from_ref(keeps).read_volatile() } != 0;
    let mut attempt = 0;
    while attempt < limits::SNAT_ATTEMPTS {
        if attempt > 0 || !keeps_source_port {
            entry.sport = select::snat_port(hash, attempt);
        }
        entry.write_reverse_key(key.proto, other_key);
        other_entry.check = other_key.check();
        filter::mark_client(&other_key.dst, other_key.dport);
        match CONNTRACK.insert(&*other_key, &*other_entry, BPF_NOEXIST) {
            Ok(()) => return insert_forward(flow, entry, other_key),
            Err(EEXIST) => attempt += 1,
            Err(_) => return Err(Drop::of(DropReason::ConntrackFull, flow.service)),
        }
    }
    Err(Drop::of(DropReason::NoSourcePort, flow.service))
}

#[inline(always)]
fn insert_forward(flow: &NewFlow<'_>, entry: &mut CtEntry, other_key: &roadstead_abi::CtKey) -> Result<(), Drop> {
    let Err(error) = CONNTRACK.insert(flow.key, &*entry, BPF_NOEXIST) else { return Ok(()) };
    let _ = CONNTRACK.remove(other_key);
    if error != EEXIST {
        return Err(Drop::of(DropReason::ConntrackFull, flow.service));
    }
    // Another CPU created the flow between our lookup and our insert: its entry stands.
    let winner = CONNTRACK.get_ptr_mut(flow.key).ok_or(Drop::of(DropReason::Inconsistent, flow.service))?;
    copy(winner, entry);
    Ok(())
}

/// Whether a SYN may open the tuple anew: either side has closed the old connection, or its backend is gone.
#[inline(always)]
fn is_over(scratch: &mut Scratch, proto: u8) -> bool {
    let entry = &scratch.entry;
    if entry.flags & ct_flags::REPLY != 0 {
        return false;
    }
    entry.write_reverse_key(proto, &mut scratch.other_key);
    // SAFETY: only the flags are read, a word that is written whole.
    let reply_flags = unsafe { CONNTRACK.get(&scratch.other_key) }.map_or(0, |reply| reply.flags);
    timing::reopens(entry.flags | reply_flags)
        || !matches!(BACKENDS.get(entry.backend), Some(b) if b.addr == entry.dst && b.port == entry.dport)
}

/// A connection that opens to a backend itself, past its Services: what is left of a finished flow whose answers look the
/// same must not catch this one's.
#[inline(always)]
pub(crate) fn make_way(scratch: &mut Scratch, packet: &Packet) {
    let key = &scratch.key;
    let may_be_left = packet.is_opening()
        && filter::may_be_client(&key.src, key.sport)
        && filter::may_be_backend(&key.dst, key.dport);
    if !may_be_left {
        return;
    }
    scratch.other_key = scratch.key.reversed();
    let Some(pointer) = CONNTRACK.get_ptr_mut(&scratch.other_key) else { return };
    copy(pointer, &mut scratch.entry);
    if scratch.entry.check != scratch.other_key.check() || scratch.entry.flags & ct_flags::REPLY == 0 {
        return;
    }
    scratch.entry.write_reverse_key(packet.proto, &mut scratch.key);
    // SAFETY: only the flags are read, a word that is written whole.
    let forward_flags = unsafe { CONNTRACK.get(&scratch.key) }.map_or(0, |forward| forward.flags);
    if timing::reopens(scratch.entry.flags | forward_flags) {
        // Either may be gone already: the collector frees too.
        let _ = CONNTRACK.remove(&scratch.other_key);
        let _ = CONNTRACK.remove(&scratch.key);
    }
}

#[inline(always)]
fn forget(scratch: &mut Scratch, proto: u8) {
    scratch.entry.write_reverse_key(proto, &mut scratch.other_key);
    // Either may be gone already: the collector frees too.
    let _ = CONNTRACK.remove(&scratch.other_key);
    let _ = CONNTRACK.remove(&scratch.key);
}

#[inline(always)]
fn seen_flags(known: u32, tcp_flags: u8) -> u32 {
    let mut flags = ct_flags::SEEN;
    if known & ct_flags::REPLY == 0 && tcp_flags & (tcp::SYN | tcp::ACK) == tcp::ACK {
        flags |= ct_flags::ACKED;
    }
    if tcp_flags & tcp::FIN != 0 {
        flags |= ct_flags::FIN;
    }
    if tcp_flags & tcp::RST != 0 {
        flags |= ct_flags::RST;
    }
    flags
}
