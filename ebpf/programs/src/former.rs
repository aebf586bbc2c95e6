//! The node that announced an address before it came here in a planned way: its connections go on there.

use aya_ebpf::{bindings::__sk_buff, programs::TcContext};
use roadstead_abi::{Addr, DropReason, announced::AnnouncedKey, proto};

use crate::{
    layer2::{Mac, NOT_OURS, count, now},
    maps::{ANNOUNCED, Scratch},
    packet::{Family, Packet, read},
    rewrite, route, service,
};

/// Whether another node may know the packet's connection, where this one does not.
#[inline(always)]
pub(crate) fn may_know(packet: &Packet) -> bool {
    packet.proto == proto::TCP && !packet.is_opening()
}

/// Sends a segment of a connection that this node does not know to the node that announced the address before, which
/// may know it; [`NOT_OURS`] where there is none, or where the segment comes from there; a negative number is that of a
/// [`DropReason`]. A function of its own as `layer2::answer` is.
#[inline(never)]
pub(crate) fn hand_on(skb: *mut __sk_buff, scratch: &mut Scratch, is_v4: u32) -> i32 {
    let family = if is_v4 != 0 { Family::V4 } else { Family::V6 };
    match try_hand_on(&TcContext::new(skb), scratch, family) {
        Ok(Some(verdict)) => verdict,
        Ok(None) => NOT_OURS,
        Err(reason) => -(reason as i32),
    }
}

#[inline(always)]
fn try_hand_on(ctx: &TcContext, scratch: &mut Scratch, family: Family) -> Result<Option<i32>, DropReason> {
    scratch.announced_key = AnnouncedKey { addr: scratch.key.dst, ifindex: route::ifindex(ctx) };
    let Some(entry) = ANNOUNCED.get_ptr(&scratch.announced_key) else { return Ok(None) };
    // SAFETY: the map returned the pointer.
    scratch.announced = unsafe { entry.read() };
    let entry = &scratch.announced;
    let is_none = entry.check != scratch.announced_key.check() || entry.former == Addr::UNSPECIFIED;
    if is_none || now() >= entry.former_until {
        return Ok(None);
    }
    let Some(node) = service::node() else { return Ok(None) };
    let source = if entry.former.is_v4() { &node.ipv4 } else { &node.ipv6 };
    let Some(way) = route::on_link(ctx, &mut scratch.route, source, &entry.former) else { return Ok(None) };
    let from: Mac = read(ctx, 6).ok_or(DropReason::Malformed)?;
    // It would come back from there for ever.
    if from == way.destination {
        return Ok(None);
    }
    rewrite::one_hop_less(ctx, family)?;
    ctx.store(0, &[way.destination, way.source], 0).map_err(|_| DropReason::Rewrite)?;
    count(&scratch.announced_key, 0, 1);
    Ok(Some(route::back(way.ifindex, 0)))
}
