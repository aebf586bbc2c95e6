//! Packets to the network: answers of local backends get the address that their client asked for.

use aya_ebpf::programs::TcContext;
use roadstead_abi::{DropReason, ct_flags, proto};

use crate::{
    conntrack,
    drops::Drop,
    maps::{SCRATCH, Scratch},
    packet::{self, Flow, Parsed},
    rewrite, service,
    uplink_in::{NEXT, SHOT},
};

/// Runs the program and turns what it says into a verdict. What cannot be parsed passes: this node sent it.
#[inline(always)]
pub(crate) fn run(ctx: &TcContext) -> i32 {
    // SAFETY: the context is the kernel's, valid for the program's run.
    if unsafe { (*ctx.skb.skb).vlan_present } != 0 {
        return NEXT;
    }
    let Some(pointer) = SCRATCH.get_ptr_mut(1) else { return NEXT };
    // SAFETY: the element is this CPU's, and this program's alone (see `maps`); the reference ends with the run.
    let scratch = unsafe { &mut *pointer };
    let Ok(Parsed::Flow(flow)) = packet::parse(ctx, &mut scratch.key) else { return NEXT };
    match try_flow(ctx, scratch, &flow) {
        Ok(verdict) => verdict,
        Err(drop) => {
            drop.count();
            SHOT
        }
    }
}

#[inline(always)]
fn try_flow(ctx: &TcContext, scratch: &mut Scratch, flow: &Flow) -> Result<i32, Drop> {
    if conntrack::existing(scratch, flow).is_some() && scratch.entry.flags & ct_flags::REPLY != 0 {
        // The stack has routed the packet already.
        scratch.entry.ifindex = 0;
        rewrite::apply(ctx, flow, &scratch.key, &scratch.entry)?;
        return Ok(NEXT);
    }
    // A socket that was refused by policy Local keeps the Service's address; its packets end here, in silence.
    let begins = flow.is_opening() || flow.proto == proto::UDP;
    if begins && service::is_vip(&scratch.key.dst) {
        return Err(DropReason::NoLocalEndpoints.into());
    }
    Ok(NEXT)
}
