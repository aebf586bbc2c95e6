//! Counting traffic, per CPU, and telling events to whoever traces.

use aya_ebpf::{helpers::generated::bpf_ktime_get_ns, maps::PerCpuArray};
use roadstead_abi::{Addr, Be16, Counters, CtEntry, CtKey, Event, ct_flags, limits};

use crate::maps::{BACKEND_COUNTERS, EVENTS, SERVICE_COUNTERS, TRACE};

/// A packet of a flow.
#[inline(always)]
pub(crate) fn packet(entry: &CtEntry, bytes: u32) {
    let bytes = u64::from(bytes);
    if entry.flags & ct_flags::REPLY == 0 {
        each(entry.service, entry.backend, |counters| {
            counters.in_packets += 1;
            counters.in_bytes += bytes;
        });
    } else {
        each(entry.service, entry.backend, |counters| {
            counters.out_packets += 1;
            counters.out_bytes += bytes;
        });
    }
}

/// A new flow.
#[inline(always)]
pub(crate) fn connection(service: u32, backend: u32) {
    each(service, backend, |counters| counters.connections += 1);
}

#[inline(always)]
fn each(service: u32, backend: u32, add: impl Fn(&mut Counters)) {
    for (map, id) in [(&SERVICE_COUNTERS, service), (&BACKEND_COUNTERS, backend)] {
        add_to(map, id, &add);
    }
}

#[inline(always)]
fn add_to(map: &PerCpuArray<Counters>, id: u32, add: &impl Fn(&mut Counters)) {
    let index = if id < limits::COUNTERS { id } else { 0 };
    if let Some(pointer) = map.get_ptr_mut(index) {
        // SAFETY: the map returned the pointer, and the element is this CPU's own. A socket program may be interrupted by
        // a packet of its CPU between load and store; a count lost that way is a count, not a verdict.
        add(unsafe { &mut *pointer });
    }
}

/// An event about to be told.
#[derive(Clone, Copy)]
pub(crate) struct Telling<'a> {
    pub(crate) key: &'a CtKey,
    pub(crate) backend: &'a Addr,
    pub(crate) backend_port: Be16,
    /// One of `hook`.
    pub(crate) hook: u16,
    /// A drop reason, 0 for a new flow.
    pub(crate) reason: u32,
    pub(crate) service: u32,
    pub(crate) ifindex: u32,
}

/// Tells an event while somebody traces; a full ring loses it.
#[inline(always)]
pub(crate) fn tell(event: Telling<'_>) {
    let Some(trace) = TRACE.get(0) else { return };
    if trace.until == 0 {
        return;
    }
    // SAFETY: the helper takes nothing and returns a number.
    let time = unsafe { bpf_ktime_get_ns() };
    if time > trace.until {
        return;
    }
    let Some(mut room) = EVENTS.reserve::<Event>(0) else { return };
    let pointer = room.as_mut_ptr();
    // SAFETY: the ring has reserved the room, of the type's size and alignment.
    unsafe {
        pointer.write(Event {
            time,
            key: *event.key,
            backend: *event.backend,
            backend_port: event.backend_port,
            hook: event.hook,
            reason: event.reason,
            service: event.service,
            ifindex: event.ifindex,
        });
    }
    room.submit(0);
}
