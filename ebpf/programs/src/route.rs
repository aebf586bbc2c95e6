//! Where a backend is: on this node, or behind one of its uplinks.

use aya_ebpf::{
    EbpfContext as _,
    bindings::bpf_fib_lookup,
    helpers::generated::{bpf_fib_lookup as fib_lookup, bpf_redirect_neigh},
    programs::TcContext,
};
use roadstead_abi::{Addr, DropReason};
use roadstead_datapath::nat::Way;

use crate::{maps::UPLINKS, service};

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// Results of `bpf_fib_lookup` (include/uapi/linux/bpf.h).
const FIB_SUCCESS: i64 = 0;
const FIB_NOT_FORWARDED: i64 = 4;
const FIB_FORWARDING_OFF: i64 = 5;
const FIB_ENCAPSULATED: i64 = 6;
const FIB_NO_NEIGHBOUR: i64 = 7;
const FIB_TOO_LONG: i64 = 8;

/// How packets of a new flow reach the backend.
///
/// Remote is what leaves through an uplink: only there do replies come back to the programs. An address of this node,
/// or behind another device of it (a pod), is local.
///
/// # Errors
/// [`DropReason::NoRoute`] or [`DropReason::NoNodeAddress`].
#[inline(always)]
pub(crate) fn to_backend(
    ctx: &TcContext,
    query: &mut bpf_fib_lookup,
    backend: &Addr,
) -> Result<Way<'static>, DropReason> {
    let node = service::node().ok_or(DropReason::NoNodeAddress)?;
    let source = if backend.is_v4() { &node.ipv4 } else { &node.ipv6 };
    let ingress = ingress_ifindex(ctx);
    let result = lookup(ctx, query, source, backend, ingress);
    let ifindex = query.ifindex;
    match result {
        // With forwarding off the stack can still deliver to the node itself, and drops the rest; a route with an
        // encapsulation of its own is the stack's to take.
        FIB_NOT_FORWARDED | FIB_FORWARDING_OFF | FIB_ENCAPSULATED => Ok(Way::Local),
        // The length is judged where the packet is sent.
        FIB_SUCCESS | FIB_NO_NEIGHBOUR | FIB_TOO_LONG => {
            if UPLINKS.get_ptr(&ifindex).is_none() {
                return Ok(Way::Local);
            }
            if *source == Addr::UNSPECIFIED {
                return Err(DropReason::NoNodeAddress);
            }
            Ok(Way::Remote { node: source, ifindex, client_ifindex: ingress })
        }
        _ => Err(DropReason::NoRoute),
    }
}

/// Sends the packet out of a device, to the neighbour that its destination routes to.
#[inline(always)]
pub(crate) fn send(ifindex: u32) -> i32 {
    // SAFETY: no parameters are passed, so the helper looks the neighbour up itself.
    (unsafe { bpf_redirect_neigh(ifindex, core::ptr::null_mut(), 0, 0) }) as i32
}

/// The device that the packet came in on, or leaves through.
#[inline(always)]
pub(crate) fn ingress_ifindex(ctx: &TcContext) -> u32 {
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
