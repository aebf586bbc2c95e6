//! Questions for the addresses that the speaker announces. Answered here they need no process: a speaker that restarts is
//! not missed, and one that is stopped falls silent when its lease ends.
//!
//! Who is answered, and with which bytes, is what `layer2::responder` says; a test holds both against each other. What is
//! not answered goes on as if nobody had looked.

use aya_ebpf::{
    EbpfContext as _,
    bindings::__sk_buff,
    helpers::generated::{bpf_csum_diff, bpf_ktime_get_ns, bpf_skb_change_tail, bpf_skb_load_bytes, bpf_skb_vlan_pop},
    programs::TcContext,
};
use roadstead_abi::{
    Addr,
    announced::{Announced, AnnouncedKey, LONGEST_QUESTION, probe},
    proto,
};
use roadstead_datapath::{
    icmp::ICMPV6,
    neighbour::{self, ADVERTISEMENT_LEN, ALL_NODES, ALL_NODES_MAC, ARP_LEN, ARP_REQUEST},
};

use crate::{
    echo,
    maps::{ANNOUNCED, ANSWERS, QUESTION, Question},
    packet::{self, ETH_LEN, ETH_P_IP, ETH_P_IPV6, Header, read},
    rewrite, route,
};

const ETH_P_ARP: u16 = 0x0806;
/// `skb->pkt_type` of a packet for this host.
pub(crate) const PACKET_HOST: u32 = 0;
const IPV6_HEADERS: usize = ETH_LEN + 40;
const SOLICITATION: u8 = 135;
/// Lengths of a frame with a probe: no other frame costs more than this look.
const PROBE_V4: u32 = (ETH_LEN + 20 + 8 + probe::LENGTH) as u32;
const PROBE_V6: u32 = (ETH_LEN + 40 + 8 + probe::LENGTH) as u32;
/// Bits of a VLAN tag that are the VLAN's number; a tag with number 0 has only a priority (IEEE 802.1Q 9.6).
const VLAN_ID: u32 = 0x0fff;

/// A hardware address.
pub(crate) type Mac = [u8; 6];

/// Answers a question or a probe: the verdict, or [`NOT_OURS`] for anything else. A function of its own: the verifier then
/// walks what follows once, not once for every reason why there is no answer.
#[inline(never)]
pub(crate) fn answer(skb: *mut __sk_buff) -> i32 {
    try_answer(&TcContext::new(skb)).unwrap_or(NOT_OURS)
}

/// No verdict of tc.
pub(crate) const NOT_OURS: i32 = 0x100;

#[inline(always)]
fn try_answer(ctx: &TcContext) -> Option<i32> {
    let ethertype = u16::from_be(read::<u16>(ctx, 12)?);
    let length = ctx.len();
    if ethertype == ETH_P_IP {
        return if length == PROBE_V4 { echo::answer::<20>(ctx) } else { None };
    }
    if ethertype == ETH_P_ARP {
        return arp(ctx);
    }
    if ethertype != ETH_P_IPV6 {
        return None;
    }
    packet::pull(ctx);
    let next: u8 = read(ctx, ETH_LEN + 6)?;
    if next == ICMPV6 {
        let kind: u8 = read(ctx, IPV6_HEADERS)?;
        return if kind == SOLICITATION { solicitation(ctx) } else { None };
    }
    if length == PROBE_V6 && next == proto::UDP { echo::answer::<40>(ctx) } else { None }
}

/// The entry of an address on the device that the packet came in on. An element that was given to another address between
/// lookup and copy is as good as none.
#[inline(always)]
fn announced(ctx: &TcContext, addr: Addr) -> Option<(AnnouncedKey, Announced)> {
    let key = AnnouncedKey { addr, ifindex: route::ifindex(ctx) };
    // SAFETY: the value is copied out at once.
    let entry = *unsafe { ANNOUNCED.get(&key) }?;
    if entry.check == key.check() { Some((key, entry)) } else { None }
}

/// The clock of leases and stamps.
#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: the helper takes nothing and returns a number.
    unsafe { bpf_ktime_get_ns() }
}

/// Adds to what was done for an address, which the speaker has made room for.
#[inline(always)]
pub(crate) fn count(key: &AnnouncedKey, answered: u64, handed_on: u64) {
    if let Some(answers) = ANSWERS.get_ptr_mut(key) {
        // SAFETY: the map returned the pointer, and the element is this CPU's own.
        let answers = unsafe { &mut *answers };
        answers.answers += answered;
        answers.handed_on += handed_on;
    }
}

/// Frames of a VLAN are its own device's; of those without one, a tag that has only a priority is not answered with.
#[inline(always)]
fn is_untagged(ctx: &TcContext) -> bool {
    // SAFETY: the context is the kernel's, valid for the program's run.
    let (present, tag) = unsafe { ((*ctx.skb.skb).vlan_present, (*ctx.skb.skb).vlan_tci) };
    present == 0 || tag & VLAN_ID == 0
}

/// Makes the frame this long, without a tag. Whoever calls it writes every byte.
#[inline(always)]
fn clear(ctx: &TcContext, length: usize) -> Option<()> {
    // SAFETY: the context is the kernel's, valid for the program's run.
    if unsafe { (*ctx.skb.skb).vlan_present } != 0 {
        // SAFETY: the helper gets the program's own context; no packet pointer is used after it.
        let popped = unsafe { bpf_skb_vlan_pop(ctx.skb.skb) };
        if popped != 0 {
            return None;
        }
    }
    // SAFETY: as above.
    let changed = unsafe { bpf_skb_change_tail(ctx.skb.skb, length as u32, 0) };
    if changed == 0 { Some(()) } else { None }
}

/// Sends the rewritten frame back by the device that it came in on.
#[inline(always)]
pub(crate) fn back(ctx: &TcContext, key: &AnnouncedKey) -> Option<i32> {
    count(key, 1, 0);
    Some(route::back(route::ifindex(ctx), 0))
}

#[inline(always)]
fn ethernet(destination: Mac, source: Mac, ethertype: u16) -> [u8; ETH_LEN] {
    let (d, s, [high, low]) = (destination, source, ethertype.to_be_bytes());
    [d[0], d[1], d[2], d[3], d[4], d[5], s[0], s[1], s[2], s[3], s[4], s[5], high, low]
}

#[inline(always)]
fn arp(ctx: &TcContext) -> Option<i32> {
    packet::pull(ctx);
    let frame = Header::<ARP_LEN>::at(ctx, 0)?;
    let request: [u8; 8] = frame.field::<ETH_LEN, _>();
    if request != ARP_REQUEST || !is_untagged(ctx) {
        return None;
    }
    let destination: Mac = frame.field::<0, _>();
    let asker: Mac = frame.field::<22, _>();
    let asker_ip: u32 = frame.field::<28, _>();
    let target: u32 = frame.field::<38, _>();
    let (key, entry) = announced(ctx, Addr::v4_word(target))?;
    let is_ours = destination == [0xff; 6] || destination == entry.mac;
    if !is_ours || neighbour::is_group(asker) || now() >= entry.lease_until {
        return None;
    }
    clear(ctx, ARP_LEN)?;
    ctx.store(0, &ethernet(asker, entry.mac, ETH_P_ARP), rewrite::BPF_F_RECOMPUTE_CSUM).ok()?;
    let reply = ArpReply { operation: [0, 1, 0x08, 0x00, 6, 4, 0, 2], sender: entry.mac, target, asker, asker_ip };
    ctx.store(ETH_LEN, &reply, rewrite::BPF_F_RECOMPUTE_CSUM).ok()?;
    back(ctx, &key)
}

/// An ARP reply behind its Ethernet header.
#[repr(C, packed)]
struct ArpReply {
    operation: [u8; 8],
    sender: Mac,
    target: u32,
    asker: Mac,
    asker_ip: u32,
}

const _: () = assert!(size_of::<ArpReply>() == ARP_LEN - ETH_LEN);

#[inline(always)]
fn solicitation(ctx: &TcContext) -> Option<i32> {
    let question = QUESTION.get_ptr_mut(0)?;
    // SAFETY: the element is this CPU's, and nobody else uses it during the run.
    let question = unsafe { &mut *question };
    let head = Header::<IPV6_HEADERS>::at(ctx, 0)?;
    let (version, hops): (u8, u8) = (head.field::<ETH_LEN, _>(), head.field::<{ ETH_LEN + 7 }, _>());
    let length = u16::from_be(head.field::<{ ETH_LEN + 4 }, _>());
    let destination: Mac = head.field::<0, _>();
    let sender: Mac = head.field::<6, _>();
    let from = Addr::from_words(head.field::<{ ETH_LEN + 8 }, _>());
    let to = Addr::from_words(head.field::<{ ETH_LEN + 24 }, _>());
    // A hop limit below 255 came through a router (RFC 4861 section 7.1).
    if version >> 4 != 6 || hops != 255 || !is_untagged(ctx) || neighbour::is_multicast(&from) {
        return None;
    }
    let asked = read_message(ctx, question, length, &from, &to)?;
    let is_detection = from == Addr::UNSPECIFIED;
    if is_detection && (asked.source_mac.is_some() || to != neighbour::solicited_node(&asked.target)) {
        return None;
    }
    let (key, entry) = announced(ctx, asked.target)?;
    let is_ours = destination[0] == 0x33 && destination[1] == 0x33 || destination == entry.mac;
    let asker = asked.source_mac.unwrap_or(sender);
    if !is_ours || neighbour::is_group(asker) || now() >= entry.lease_until {
        return None;
    }
    let source = if entry.link_local == Addr::UNSPECIFIED { &asked.target } else { &entry.link_local };
    // Who detects a duplicate has no address yet: all are told.
    let (told, told_mac) = if is_detection { (&ALL_NODES, ALL_NODES_MAC) } else { (&from, asker) };
    let packet = neighbour::advertisement(source, told, &asked.target, entry.mac, !is_detection);
    clear(ctx, ADVERTISEMENT_LEN)?;
    ctx.store(0, &ethernet(told_mac, entry.mac, ETH_P_IPV6), rewrite::BPF_F_RECOMPUTE_CSUM).ok()?;
    ctx.store(ETH_LEN, &packet, rewrite::BPF_F_RECOMPUTE_CSUM).ok()?;
    back(ctx, &key)
}

/// What a valid solicitation asks.
struct Asked {
    target: Addr,
    source_mac: Option<Mac>,
}

/// Reads the ICMPv6 message and demands what RFC 4861 section 7.1.1 demands of it.
#[inline(always)]
fn read_message(ctx: &TcContext, question: &mut Question, length: u16, from: &Addr, to: &Addr) -> Option<Asked> {
    const SOLICITATION_LEN: u16 = 24;
    let is_whole = IPV6_HEADERS as u32 + u32::from(length) <= ctx.len();
    // Options come in units of eight bytes.
    if !is_whole || length < SOLICITATION_LEN || length as usize > LONGEST_QUESTION || length & 7 != 0 {
        return None;
    }
    // By way of the element, so that the mask, which the verifier needs, survives the optimiser.
    // SAFETY: the reference is valid.
    unsafe { (&raw mut question.length).write_volatile(u32::from(length)) };
    // SAFETY: as above.
    let size = unsafe { (&raw const question.length).read_volatile() } & 0x1f8;
    if size == 0 {
        return None;
    }
    let message = question.message.as_mut_ptr();
    // SAFETY: the message's room is larger than the mask.
    let loaded = unsafe { bpf_skb_load_bytes(ctx.as_ptr(), IPV6_HEADERS as u32, message.cast(), size) };
    if loaded != 0 {
        return None;
    }
    // SAFETY: as above; the size is a multiple of four.
    let sum = unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, message.cast(), size, 0) };
    if !neighbour::is_intact(from, to, length, u64::try_from(sum).ok()?) {
        return None;
    }
    let [first, target_high, target_low, ..] = question.message;
    let code = first.to_ne_bytes()[1];
    let words = |pair: u64| {
        let [a, b, c, d, e, f, g, h] = pair.to_ne_bytes();
        (u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h]))
    };
    let ((a, b), (c, d)) = (words(target_high), words(target_low));
    let target = Addr::from_words([a, b, c, d]);
    if code != 0 || neighbour::is_multicast(&target) {
        return None;
    }
    let source_mac = source_option(question, size)?;
    Some(Asked { target, source_mac })
}

/// Looks through the options for the asker's hardware address, the first such option; `None` for a message that breaks
/// their rules. Unknown ones are passed over.
#[inline(always)]
fn source_option(question: &mut Question, size: u32) -> Option<Option<Mac>> {
    const SOURCE: u8 = 1;
    let mut found = 0_u64;
    let mut at = 24_u32;
    let mut step = 0;
    while step < 60 && at < size {
        // SAFETY: the offset is masked to the message's room, which is whole units.
        let unit = unsafe { question.message.as_ptr().byte_add((at & 0x1f8) as usize).read() };
        let [kind, units, ..] = unit.to_ne_bytes();
        if units == 0 {
            return None;
        }
        if kind == SOURCE && found == 0 {
            found = unit;
        }
        at += u32::from(units) * 8;
        step += 1;
    }
    if at != size {
        return None;
    }
    let [kind, _, mac @ ..] = found.to_ne_bytes();
    Some(if kind == SOURCE { Some(mac) } else { None })
}
