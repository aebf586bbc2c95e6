//! Existing and new flows in the conntrack map.

use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use roadstead_abi::{CtEntry, DropReason, ct_flags, limits};
use roadstead_datapath::{conntrack as timing, nat::NewFlow, select};

use crate::{
    drops::Drop,
    maps::{BACKENDS, CONNTRACK, Scratch},
    packet::{Flow, tcp},
};

const BPF_NOEXIST: u64 = 1;
const EEXIST: i32 = -17;

/// Seconds of the monotonic clock, at the resolution of the timer tick.
#[inline(always)]
pub(crate) fn now() -> u32 {
    // SAFETY: the helper takes nothing and returns a number (kernel 5.11 and later).
    let nanoseconds = unsafe { bpf_ktime_get_coarse_ns() };
    (nanoseconds / 1_000_000_000) as u32
}

/// Copies the entry of the packet's flow to the scratch element and stamps it; `None` for a new flow.
#[inline(always)]
pub(crate) fn existing(scratch: &mut Scratch, flow: &Flow) -> Option<()> {
    let pointer = CONNTRACK.get_ptr_mut(&scratch.key)?;
    // SAFETY: the map returned the pointer. The element may be freed and reused meanwhile, so it is copied out at once;
    // what a recycled element would be stamped with below is a flag or a time too many, which only moves its expiry.
    scratch.entry = unsafe { *pointer };
    if flow.is_opening() && is_over(scratch, flow.proto) {
        forget(scratch, flow.proto);
        return None;
    }
    let entry = &scratch.entry;
    // Traffic after a RST shows that the RST was a stray one.
    let flags = (entry.flags & !ct_flags::RST) | seen_flags(entry.flags, flow.tcp_flags);
    let now = now();
    // Written only when they change: a store dirties the cache line that the other direction's CPU reads.
    if flags != entry.flags {
        // SAFETY: as above.
        unsafe { (*pointer).flags = flags };
    }
    if now != entry.last_seen {
        // SAFETY: as above.
        unsafe { (*pointer).last_seen = now };
    }
    Some(())
}

/// Creates both entries of a flow; the forward one stands in `entry` afterwards. `other_key` and `other_entry` are
/// room to work in.
///
/// # Errors
/// [`DropReason::ConntrackFull`], or [`DropReason::NoSourcePort`] when every port tried is taken.
#[inline(always)]
pub(crate) fn create(
    flow: &NewFlow<'_>,
    entry: &mut CtEntry,
    other_key: &mut roadstead_abi::CtKey,
    other_entry: &mut CtEntry,
) -> Result<(), Drop> {
    let key = flow.key;
    let hash = select::flow_hash(&key.src, &key.dst, key.sport, key.dport);
    flow.write_reply(other_entry);
    flow.write_forward(key.sport, entry);
    let mut attempt = 0;
    while attempt < limits::SNAT_ATTEMPTS {
        if attempt > 0 || !flow.keeps_source_port() {
            entry.sport = select::snat_port(hash, attempt);
        }
        entry.write_reverse_key(key.proto, other_key);
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
    // SAFETY: copied out at once, as in `existing`.
    let winner = unsafe { CONNTRACK.get(flow.key) };
    *entry = *winner.ok_or(Drop::of(DropReason::Inconsistent, flow.service))?;
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
