//! Where a backend is: on this node, behind one of its devices or beyond an uplink; and how a packet gets there.

use aya_ebpf::{
    EbpfContext as _,
    bindings::bpf_fib_lookup,
    helpers::generated::{bpf_fib_lookup as fib_lookup, bpf_redirect, bpf_redirect_neigh},
    programs::TcContext,
};
use roadstead_abi::{Addr, CtEntry, DropReason, ct_flags};
use roadstead_datapath::way::Place;

use crate::maps::UPLINKS;

/// Verdicts of tc in the form tcx takes them: NEXT lets other programs on the device see the packet.
pub(crate) const NEXT: i32 = -1;
pub(crate) const SHOT: i32 = 2;
/// A redirected packet comes in on the device instead of leaving by it.
pub(crate) const BPF_F_INGRESS: u64 = 1;
/// The loopback device is the first one of every network namespace.
pub(crate) const LOOPBACK: u32 = 1;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// Results of `bpf_fib_lookup` (include/uapi/linux/bpf.h).
const FIB_SUCCESS: i64 = 0;
const FIB_NOT_FORWARDED: i64 = 4;
const FIB_FORWARDING_OFF: i64 = 5;
const FIB_ENCAPSULATED: i64 = 6;
const FIB_NO_NEIGHBOUR: i64 = 7;
const FIB_TOO_LONG: i64 = 8;

/// Where a backend is, with the device towards it (0 for an address of this node).
///
/// # Errors
/// [`DropReason::NoRoute`].
#[inline(always)]
pub(crate) fn place(
    ctx: &TcContext,
    query: &mut bpf_fib_lookup,
    source: &Addr,
    destination: &Addr,
) -> Result<(Place, u32), DropReason> {
    let result = lookup(ctx, query, source, destination, ifindex(ctx));
    match result {
        // With forwarding off the stack can still deliver to the node itself, and drops the rest; a route with an
        // encapsulation of its own is the stack's to take.
        FIB_NOT_FORWARDED | FIB_FORWARDING_OFF | FIB_ENCAPSULATED => Ok((Place::Here, 0)),
        // The length is judged where the packet is sent.
        FIB_SUCCESS | FIB_NO_NEIGHBOUR | FIB_TOO_LONG => {
            let device = query.ifindex;
            let beyond = UPLINKS.get_ptr(&device).is_some();
            Ok((if beyond { Place::Beyond } else { Place::Behind }, device))
        }
        _ => Err(DropReason::NoRoute),
    }
}

/// The way to a neighbour: device and hardware addresses.
pub(crate) struct OnLink {
    pub(crate) ifindex: u32,
    pub(crate) destination: [u8; 6],
    pub(crate) source: [u8; 6],
}

/// The way to an address that is a neighbour beyond an uplink, and whose hardware address is known; `None` for any other:
/// a router would send a packet for a Service's address back here.
#[inline(always)]
pub(crate) fn on_link(
    ctx: &TcContext,
    query: &mut bpf_fib_lookup,
    source: &Addr,
    destination: &Addr,
) -> Option<OnLink> {
    if lookup(ctx, query, source, destination, ifindex(ctx)) != FIB_SUCCESS {
        return None;
    }
    // The helper puts a gateway's address in the place of the destination.
    // SAFETY: both are integers, for which any bytes are a value.
    let next = unsafe { query.__bindgen_anon_4.ipv6_dst };
    let wanted = destination.words();
    let is_neighbour = if destination.is_v4() { next[0] == wanted[3] } else { next == wanted };
    if !is_neighbour || UPLINKS.get_ptr(&query.ifindex).is_none() {
        return None;
    }
    Some(OnLink { ifindex: query.ifindex, destination: query.dmac, source: query.smac })
}

/// Sends the packet on as its flow's entry says.
#[inline(always)]
pub(crate) fn send(ctx: &TcContext, entry: &CtEntry) -> i32 {
    if entry.ifindex == 0 {
        return NEXT;
    }
    if entry.flags & ct_flags::INGRESS != 0 {
        // To another hardware address than the loopback device's, which is zero, the packet would be another host's.
        return match ctx.store(0, &[0_u8; 6], 0) {
            Ok(()) => back(entry.ifindex, BPF_F_INGRESS),
            Err(_) => SHOT,
        };
    }
    // SAFETY: no parameters are passed, so the helper looks the neighbour of the packet's destination up itself.
    (unsafe { bpf_redirect_neigh(entry.ifindex, core::ptr::null_mut(), 0, 0) }) as i32
}

/// Sends the packet out of a device, or with [`BPF_F_INGRESS`] into it, with the hardware addresses that it has.
#[inline(always)]
pub(crate) fn back(ifindex: u32, flags: u64) -> i32 {
    // SAFETY: the helper takes a device index and flags.
    (unsafe { bpf_redirect(ifindex, flags) }) as i32
}

/// The device that the packet came in on, or leaves through.
#[inline(always)]
pub(crate) fn ifindex(ctx: &TcContext) -> u32 {
    // SAFETY: the context is the kernel's, valid for the program's run.
    unsafe { (*ctx.skb.skb).ifindex }
}

#[inline(always)]
fn lookup(ctx: &TcContext, query: &mut bpf_fib_lookup, source: &Addr, destination: &Addr, ifindex: u32) -> i64 {
    // SAFETY: all fields are integers, for which zero is a value.
    *query = unsafe { core::mem::zeroed() };
    query.ifindex = ifindex;
    if destination.is_v4() {
        query.family = AF_INET;
        query.__bindgen_anon_3.ipv4_src = source.words()[3];
        query.__bindgen_anon_4.ipv4_dst = destination.words()[3];
    } else {
        query.family = AF_INET6;
        query.__bindgen_anon_3.ipv6_src = source.words();
        query.__bindgen_anon_4.ipv6_dst = destination.words();
    }
    // SAFETY: the helper gets the context and a query of the size it is told.
    unsafe { fib_lookup(ctx.as_ptr(), query, size_of::<bpf_fib_lookup>() as i32, 0) }
}
