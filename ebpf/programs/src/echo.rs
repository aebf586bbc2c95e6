//! Probes of the speaker's peers: each goes back with the age of the speaker's stamp, one datagram for one, of the same
//! size. So a peer knows a node that lives from one that is dead while its speaker does not speak.

use aya_ebpf::programs::TcContext;
use roadstead_abi::{
    Addr, Be16,
    announced::{AnnouncedKey, probe},
    proto,
};
use roadstead_datapath::{checksum, neighbour};

use crate::{
    layer2::{self, Mac, PACKET_HOST, now},
    maps::SPEAKER,
    packet::{self, ETH_LEN, read},
    service,
};

/// Sends a probe back.
#[inline(always)]
pub(crate) fn answer<const IP: usize>(ctx: &TcContext) -> Option<i32> {
    // SAFETY: the context is the kernel's, valid for the program's run.
    let (pkt_type, tagged) = unsafe { ((*ctx.skb.skb).pkt_type, (*ctx.skb.skb).vlan_present) };
    if pkt_type != PACKET_HOST || tagged != 0 {
        return None;
    }
    packet::pull(ctx);
    let is_udp = if IP == 20 { is_udp_v4(ctx)? } else { true };
    if !is_udp {
        return None;
    }
    let [sport, dport, length, _]: [u16; 4] = read(ctx, ETH_LEN + IP)?;
    let head: [u8; 8] = read(ctx, ETH_LEN + IP + 8)?;
    let speaker = SPEAKER.get(0)?;
    let [a, b, c, d] = probe::MAGIC;
    let [e, f, g, h] = probe::VERSION;
    let is_probe = head == [a, b, c, d, e, f, g, h] && u16::from_be(length) as usize == 8 + probe::LENGTH;
    if !is_probe || speaker.port.0 == 0 || speaker.port != Be16(dport) {
        return None;
    }
    let macs: [Mac; 2] = read(ctx, 0)?;
    let to =
        if IP == 20 { Addr::v4_word(read(ctx, ETH_LEN + 16)?) } else { Addr::from_words(read(ctx, ETH_LEN + 24)?) };
    service::node_address(&to)?;
    if neighbour::is_group(macs[1]) {
        return None;
    }
    if IP == 20 {
        let [from, to]: [u32; 2] = read(ctx, ETH_LEN + 12)?;
        ctx.store(ETH_LEN + 12, &[to, from], 0).ok()?;
    } else {
        let [from, to]: [Addr; 2] = read(ctx, ETH_LEN + 8)?;
        ctx.store(ETH_LEN + 8, &[to, from], 0).ok()?;
    }
    ctx.store(0, &[macs[1], macs[0]], 0).ok()?;
    ctx.store(ETH_LEN + IP, &[dport, sport], 0).ok()?;
    let age = now().saturating_sub(speaker.stamp) / 1_000_000;
    answer_probe::<IP>(ctx, age)?;
    layer2::back(ctx, &AnnouncedKey { addr: Addr::UNSPECIFIED, ifindex: 0 })
}

/// An unfragmented UDP packet without options that ends with its frame.
#[inline(always)]
fn is_udp_v4(ctx: &TcContext) -> Option<bool> {
    let [first, _]: [u8; 2] = read(ctx, ETH_LEN)?;
    let fragment: u16 = read(ctx, ETH_LEN + 6)?;
    let protocol: u8 = read(ctx, ETH_LEN + 9)?;
    Some(first == 0x45 && protocol == proto::UDP && u16::from_be(fragment) & 0x3fff == 0)
}

/// Writes magic and age. Swapping addresses and ports leaves a checksum as it is, this does not; the helper knows how the
/// checksum is kept.
#[inline(always)]
fn answer_probe<const IP: usize>(ctx: &TcContext, age: u64) -> Option<()> {
    const MANGLED_0: u64 = 0x20;
    let (payload, check) = (ETH_LEN + IP + 8, ETH_LEN + IP + 6);
    let old: [u32; 2] = read(ctx, payload + probe::AGE)?;
    let new: [u32; 2] = [((age >> 32) as u32).to_be(), (age as u32).to_be()];
    let sum = u64::from(!u32::from_ne_bytes(probe::MAGIC))
        + u64::from(u32::from_ne_bytes(probe::ECHO))
        + u64::from(!old[0])
        + u64::from(!old[1])
        + u64::from(new[0])
        + u64::from(new[1]);
    ctx.store(payload, &probe::ECHO, 0).ok()?;
    ctx.store(payload + probe::AGE, &new, 0).ok()?;
    let diff = u64::from(checksum::fold(sum));
    ctx.l4_csum_replace(check, 0, diff, MANGLED_0).ok()
}
