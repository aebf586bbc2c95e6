//! Reading a packet: Ethernet, IPv4 or IPv6, then TCP, UDP or an ICMP error about one of them, as far as balancing needs
//! it. Fragments are told by their datagram.
//!
//! Unknown protocols are told apart from malformed packets: the former pass to the stack, the latter drop.

use aya_ebpf::programs::TcContext;
use roadstead_abi::{Addr, Be16, CtKey, DropReason, FragmentPorts, proto};
use roadstead_datapath::icmp::ICMPV6;

use crate::maps::{FRAGMENTS, Scratch};

/// Length of the Ethernet header; VLAN tags are out of band by the time tc sees a packet.
pub(crate) const ETH_LEN: usize = 14;
const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;
const TCP_LEN: usize = 20;
const UDP_LEN: usize = 8;
const ICMP_LEN: usize = 8;
const FRAGMENT_LEN: usize = 8;
pub(crate) const ETH_P_IP: u16 = 0x0800;
pub(crate) const ETH_P_IPV6: u16 = 0x86dd;
const IPV6_FRAGMENT: u8 = 44;
const ICMP: u8 = 1;

/// What a packet is to the balancer.
pub(crate) enum Parsed {
    /// TCP, UDP, a fragment of them, or an ICMP error about them.
    Flow(Packet),
    /// Another protocol, or a fragment that nobody knows; of the tuple only the addresses are known.
    Other(DropReason),
    /// Not IP.
    NotIp,
}

/// A packet of a flow; its tuple stands in the scratch element.
#[derive(Clone, Copy)]
pub(crate) struct Packet {
    /// Offset of the TCP or UDP header; in an ICMP error that of the quoted one.
    pub(crate) l4: usize,
    /// TCP or UDP.
    pub(crate) proto: u8,
    /// TCP flags; 0 for UDP and for what is no whole packet.
    pub(crate) tcp_flags: u8,
    /// The IP version.
    pub(crate) family: Family,
    /// How much of a packet it is.
    pub(crate) form: Form,
}

/// A [`Packet`] on its way through the scratch element. What comes from there is unknown to the verifier, so that it
/// walks what follows once, not once for every kind of packet; without this `uplink_in` takes seven times as many steps.
#[repr(C)]
pub(crate) struct Parcel {
    l4: u32,
    proto: u8,
    tcp_flags: u8,
    family: u8,
    form: u8,
}

impl Parcel {
    #[inline(always)]
    fn put(&mut self, packet: &Packet) {
        let parcel = Self {
            l4: packet.l4 as u32,
            proto: packet.proto,
            tcp_flags: packet.tcp_flags,
            family: packet.family as u8,
            form: packet.form as u8,
        };
        // SAFETY: the reference is valid; volatile, so that the compiler remembers nothing of it.
        unsafe { core::ptr::from_mut(self).write_volatile(parcel) };
    }

    #[inline(always)]
    fn take(&self) -> Packet {
        // SAFETY: as in `put`.
        let parcel = unsafe { core::ptr::from_ref(self).read_volatile() };
        let family = if parcel.family == Family::V4 as u8 { Family::V4 } else { Family::V6 };
        let form = match parcel.form {
            0 => Form::Whole,
            1 => Form::First,
            2 => Form::Later,
            _ => Form::Error,
        };
        // The mask is larger than any offset: IPv4 with all options, ICMP, and the quoted IPv4 header end at 102.
        Packet { l4: (parcel.l4 & 0x7f) as usize, proto: parcel.proto, tcp_flags: parcel.tcp_flags, family, form }
    }
}

/// How much of a packet of its flow a packet is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// A whole one.
    Whole = 0,
    /// The first fragment, which has the ports.
    First = 1,
    /// A later fragment.
    Later = 2,
    /// An ICMP error that quotes one of the other direction.
    Error = 3,
}

/// The IP version.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    V4 = 4,
    V6 = 6,
}

/// TCP flags that matter.
pub(crate) mod tcp {
    pub(crate) const FIN: u8 = 0x01;
    pub(crate) const SYN: u8 = 0x02;
    pub(crate) const RST: u8 = 0x04;
    pub(crate) const ACK: u8 = 0x10;
}

impl Packet {
    /// A packet that opens a TCP connection.
    #[inline(always)]
    pub(crate) fn is_opening(&self) -> bool {
        self.proto == proto::TCP && self.tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN
    }

    /// Whether it has a transport header of its own, so that a new flow could begin with it.
    #[inline(always)]
    pub(crate) fn has_header(&self) -> bool {
        matches!(self.form, Form::Whole | Form::First)
    }
}

/// The packet's bytes at a constant or bounded offset, if it is that long.
#[inline(always)]
pub(crate) fn ptr_at<T>(ctx: &TcContext, offset: usize) -> Option<*mut T> {
    let start = ctx.data();
    if start + offset + size_of::<T>() > ctx.data_end() {
        return None;
    }
    Some((start + offset) as *mut T)
}

/// Reads a value of integers or byte arrays at an offset.
#[inline(always)]
pub(crate) fn read<T: Copy>(ctx: &TcContext, offset: usize) -> Option<T> {
    let pointer = ptr_at::<T>(ctx, offset)?;
    // SAFETY: `ptr_at` has checked the bounds; any bytes are a value of the integers and arrays read here.
    Some(unsafe { load(pointer) })
}

/// Loads a value from the packet at once, as C programs do. The compiler is told that the pointer is aligned: else it
/// would load byte by byte, which costs more than the rest of parsing. The kernel lets programs load unaligned words
/// where the machine can, and refuses the program elsewhere.
///
/// # Safety
/// The bytes must be inside the packet.
#[inline(always)]
pub(crate) unsafe fn load<T: Copy>(pointer: *const T) -> T {
    // SAFETY: the caller's promise; alignment as told above.
    unsafe { pointer.read() }
}

/// The counterpart of [`load`].
///
/// # Safety
/// The bytes must be inside the packet.
#[inline(always)]
pub(crate) unsafe fn store<T: Copy>(pointer: *mut T, value: T) {
    // SAFETY: the caller's promise; alignment as told at `load`.
    unsafe { pointer.write(value) };
}

/// A header whose bounds have been checked.
#[derive(Clone, Copy)]
pub(crate) struct Header<const LEN: usize>(*const u8);

impl<const LEN: usize> Header<LEN> {
    /// The header at an offset, if the packet is that long.
    #[inline(always)]
    pub(crate) fn at(ctx: &TcContext, offset: usize) -> Option<Self> {
        Some(Self(ptr_at::<[u8; LEN]>(ctx, offset)?.cast()))
    }

    /// The integers or byte arrays at an offset in the header.
    #[inline(always)]
    pub(crate) fn field<const OFFSET: usize, T: Copy>(self) -> T {
        const { assert!(OFFSET + size_of::<T>() <= LEN) };
        // SAFETY: `at` has checked the bounds of the header, and the assertion those of the field.
        let pointer = unsafe { self.0.add(OFFSET) }.cast::<T>();
        // SAFETY: as above; any bytes are a value of the integers and arrays read here.
        unsafe { load(pointer) }
    }
}

/// Parses the headers; the tuple goes to the scratch element.
///
/// # Errors
/// [`DropReason::Malformed`] for an IP packet shorter than its headers say.
#[inline(always)]
pub(crate) fn parse(ctx: &TcContext, scratch: &mut Scratch) -> Result<Parsed, DropReason> {
    let Some(ethertype) = read::<u16>(ctx, 12) else { return Ok(Parsed::NotIp) };
    let parsed = match u16::from_be(ethertype) {
        ETH_P_IP => {
            pull(ctx);
            parse_v4(ctx, scratch)
        }
        ETH_P_IPV6 => {
            pull(ctx);
            parse_v6(ctx, scratch)
        }
        _ => return Ok(Parsed::NotIp),
    };
    match parsed {
        Some(Parsed::Flow(packet)) => {
            scratch.parcel.put(&packet);
            Ok(Parsed::Flow(scratch.parcel.take()))
        }
        Some(other) => Ok(other),
        None => Err(DropReason::Malformed),
    }
}

/// Makes sure that the headers can be read directly, if the packet has them: the kernel keeps the rest of a packet in
/// pages.
#[inline(always)]
pub(crate) fn pull(ctx: &TcContext) {
    const HEADERS: usize = 110;
    let at_hand = ctx.data_end() - ctx.data();
    let length = ctx.len() as usize;
    if at_hand < HEADERS && at_hand < length {
        // Failing shows when a header is read.
        let _ = ctx.pull_data(if length < HEADERS { length as u32 } else { HEADERS as u32 });
    }
}

#[inline(always)]
fn parse_v4(ctx: &TcContext, scratch: &mut Scratch) -> Option<Parsed> {
    let ip = Header::<IPV4_LEN>::at(ctx, ETH_LEN)?;
    let version: u8 = ip.field::<0, _>();
    let header_len = usize::from(version & 0x0f) * 4;
    if version >> 4 != 4 || header_len < IPV4_LEN {
        return None;
    }
    let key = &mut scratch.key;
    key.src = Addr::v4_word(ip.field::<12, _>());
    key.dst = Addr::v4_word(ip.field::<16, _>());
    let proto: u8 = ip.field::<9, _>();
    let id: u16 = ip.field::<4, _>();
    // More fragments, or an offset: RFC 791.
    let fragment = u16::from_be(ip.field::<6, _>()) & 0x3fff;
    let l4 = ETH_LEN + header_len;
    if fragment != 0 {
        return fragment_of(ctx, scratch, Family::V4, proto, l4, u32::from(id), fragment & 0x1fff == 0);
    }
    if proto == ICMP {
        return error_v4(ctx, &mut scratch.key, l4);
    }
    transport(ctx, key, Family::V4, proto, l4, Form::Whole)
}

#[inline(always)]
fn parse_v6(ctx: &TcContext, scratch: &mut Scratch) -> Option<Parsed> {
    const L4: usize = ETH_LEN + IPV6_LEN;
    let ip = Header::<IPV6_LEN>::at(ctx, ETH_LEN)?;
    let key = &mut scratch.key;
    key.src = Addr::from_words(ip.field::<8, _>());
    key.dst = Addr::from_words(ip.field::<24, _>());
    let next: u8 = ip.field::<6, _>();
    if next == IPV6_FRAGMENT {
        let fragment = Header::<FRAGMENT_LEN>::at(ctx, L4)?;
        // 13 bits of offset, two reserved ones, then "more": RFC 8200 section 4.5.
        let is_first = u16::from_be(fragment.field::<2, _>()) & 0xfff8 == 0;
        let (proto, id) = (fragment.field::<0, u8>(), fragment.field::<4, u32>());
        return fragment_of(ctx, scratch, Family::V6, proto, L4 + FRAGMENT_LEN, id, is_first);
    }
    if next == ICMPV6 {
        return error_v6(ctx, &mut scratch.key);
    }
    transport(ctx, key, Family::V6, next, L4, Form::Whole)
}

#[inline(always)]
fn transport(ctx: &TcContext, key: &mut CtKey, family: Family, proto: u8, l4: usize, form: Form) -> Option<Parsed> {
    let (ports, tcp_flags): ([u16; 2], u8) = match proto {
        proto::TCP => {
            let tcp = Header::<TCP_LEN>::at(ctx, l4)?;
            (tcp.field::<0, _>(), tcp.field::<13, _>())
        }
        proto::UDP => (Header::<UDP_LEN>::at(ctx, l4)?.field::<0, _>(), 0),
        _ => return Some(Parsed::Other(DropReason::UnknownProtocol)),
    };
    set_ports(key, proto, Be16(ports[0]), Be16(ports[1]));
    Some(Parsed::Flow(Packet { l4, proto, tcp_flags, family, form }))
}

#[inline(always)]
fn set_ports(key: &mut CtKey, proto: u8, sport: Be16, dport: Be16) {
    key.sport = sport;
    key.dport = dport;
    key.proto = proto;
    key.reserved = [0; 3];
}

/// The first fragment is a packet like another; the ports of a later one are those that the first one has left.
#[inline(always)]
fn fragment_of(
    ctx: &TcContext,
    scratch: &mut Scratch,
    family: Family,
    proto: u8,
    l4: usize,
    id: u32,
    is_first: bool,
) -> Option<Parsed> {
    let (key, fragment) = (&mut scratch.key, &mut scratch.fragment);
    fragment.src = key.src;
    fragment.dst = key.dst;
    fragment.id = id;
    fragment.proto = proto;
    fragment.reserved = [0; 3];
    if is_first {
        return transport(ctx, key, family, proto, l4, Form::First);
    }
    if proto != proto::TCP && proto != proto::UDP {
        return Some(Parsed::Other(DropReason::UnknownProtocol));
    }
    // SAFETY: the value is copied out at once.
    let Some(ports) = (unsafe { FRAGMENTS.get(&*fragment) }).copied() else {
        return Some(Parsed::Other(DropReason::Fragment));
    };
    set_ports(key, proto, ports.sport, ports.dport);
    Some(Parsed::Flow(Packet { l4, proto, tcp_flags: 0, family, form: Form::Later }))
}

/// Keeps the ports for the later fragments of the packet's datagram.
#[inline(always)]
pub(crate) fn remember_fragment(scratch: &Scratch) {
    let ports = FragmentPorts { sport: scratch.key.sport, dport: scratch.key.dport };
    // A full table forgets the oldest; failing costs the datagram.
    let _ = FRAGMENTS.insert(&scratch.fragment, ports, 0);
}

/// Destination unreachable, time exceeded, parameter problem: RFC 792. They quote the IPv4 header and eight bytes.
#[inline(always)]
fn error_v4(ctx: &TcContext, key: &mut CtKey, icmp: usize) -> Option<Parsed> {
    let [kind, _]: [u8; 2] = Header::<ICMP_LEN>::at(ctx, icmp)?.field::<0, _>();
    let other = Some(Parsed::Other(DropReason::UnknownProtocol));
    if !matches!(kind, 3 | 11 | 12) {
        return other;
    }
    let inner = icmp + ICMP_LEN;
    let Some(quote) = Header::<{ IPV4_LEN + 8 }>::at(ctx, inner) else { return other };
    let (version, proto): (u8, u8) = (quote.field::<0, _>(), quote.field::<9, _>());
    let offset = u16::from_be(quote.field::<6, _>()) & 0x1fff;
    // Quoted options would move the ports; nobody sends them.
    if version != 0x45 || offset != 0 || (proto != proto::TCP && proto != proto::UDP) {
        return other;
    }
    key.src = Addr::v4_word(quote.field::<16, _>());
    key.dst = Addr::v4_word(quote.field::<12, _>());
    Some(about(key, Family::V4, proto, quote.field::<IPV4_LEN, _>(), inner + IPV4_LEN))
}

/// Types 1 to 4: RFC 4443 section 3. They quote as much as fits.
#[inline(always)]
fn error_v6(ctx: &TcContext, key: &mut CtKey) -> Option<Parsed> {
    const INNER: usize = ETH_LEN + IPV6_LEN + ICMP_LEN;
    let kind: u8 = Header::<ICMP_LEN>::at(ctx, ETH_LEN + IPV6_LEN)?.field::<0, _>();
    let other = Some(Parsed::Other(DropReason::UnknownProtocol));
    if !matches!(kind, 1..=4) {
        return other;
    }
    let Some(quote) = Header::<{ IPV6_LEN + 8 }>::at(ctx, INNER) else { return other };
    let proto: u8 = quote.field::<6, _>();
    if proto != proto::TCP && proto != proto::UDP {
        return other;
    }
    key.src = Addr::from_words(quote.field::<24, _>());
    key.dst = Addr::from_words(quote.field::<8, _>());
    Some(about(key, Family::V6, proto, quote.field::<IPV6_LEN, _>(), INNER + IPV6_LEN))
}

/// The error goes the way of a packet that answers the quoted one.
#[inline(always)]
fn about(key: &mut CtKey, family: Family, proto: u8, quoted_ports: [u16; 2], l4: usize) -> Parsed {
    set_ports(key, proto, Be16(quoted_ports[1]), Be16(quoted_ports[0]));
    Parsed::Flow(Packet { l4, proto, tcp_flags: 0, family, form: Form::Error })
}
