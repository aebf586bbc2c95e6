//! Entry points of the BPF programs: where a packet or a socket call enters, and where its verdict leaves.
//!
//! A packet from the network meets `uplink_in`, its answer `uplink_out`; a process of the node or of a pod meets the
//! `sock_*` programs before it has sent anything, and what gets past those meets `int_in` and `int_out` on the pod's
//! device. Entry points only translate: what is decided stands in the modules, and a [`Drop`](drops::Drop) becomes verdict
//! and counter in one place.

#![no_std]
#![no_main]

mod conntrack;
mod counters;
mod drops;
mod echo;
mod filter;
mod former;
mod glance;
mod icmp_error;
mod incoming;
mod layer2;
mod maps;
mod open;
mod outgoing;
mod packet;
mod reject;
mod rewrite;
mod route;
mod service;
mod sock;

use aya_ebpf::{
    bindings::__sk_buff,
    macros::{cgroup_sock, cgroup_sock_addr, classifier},
    programs::{SockAddrContext, SockContext, TcContext},
};

use crate::sock::Hook;

/// Packets that arrive on an uplink. Questions and probes come before anything of IP: they are asked of all stations, and a
/// Service's address takes no ICMP.
#[classifier]
pub fn uplink_in(ctx: TcContext) -> i32 {
    let verdict = layer2::answer(ctx.skb.skb);
    if verdict != layer2::NOT_OURS {
        return verdict;
    }
    balance(ctx.skb.skb)
}

/// The rest of `uplink_in`, a function of its own as the first part is: only beside each other their stacks fit.
#[inline(never)]
fn balance(skb: *mut __sk_buff) -> i32 {
    incoming::run(&TcContext::new(skb), incoming::Device::Uplink)
}

/// Packets that leave through an uplink.
#[classifier]
pub fn uplink_out(ctx: TcContext) -> i32 {
    outgoing::run(&ctx, outgoing::Device::Uplink)
}

/// Packets that come from a pod's device, or by the loopback device from the node itself.
#[classifier]
pub fn int_in(ctx: TcContext) -> i32 {
    incoming::run(&ctx, incoming::Device::Internal)
}

/// Packets that leave towards a pod.
#[classifier]
pub fn int_out(ctx: TcContext) -> i32 {
    outgoing::run(&ctx, outgoing::Device::Internal)
}

/// Tells the time of the programs' clock, for the agent, which has no other way to read it. Attached to nothing.
#[classifier]
pub fn clock(_: TcContext) -> i32 {
    conntrack::now() as i32
}

/// connect(2) to an IPv4 address.
#[cgroup_sock_addr(connect4)]
pub fn sock_connect4(ctx: SockAddrContext) -> i32 {
    sock::outgoing::<4>(&ctx, Hook::Connect)
}

/// connect(2) to an IPv6 address, mapped IPv4 included.
#[cgroup_sock_addr(connect6)]
pub fn sock_connect6(ctx: SockAddrContext) -> i32 {
    sock::outgoing::<6>(&ctx, Hook::Connect)
}

/// sendto(2) and sendmsg(2) with an IPv4 address on an unconnected UDP socket.
#[cgroup_sock_addr(sendmsg4)]
pub fn sock_sendmsg4(ctx: SockAddrContext) -> i32 {
    sock::outgoing::<4>(&ctx, Hook::SendMsg)
}

/// The same for IPv6.
#[cgroup_sock_addr(sendmsg6)]
pub fn sock_sendmsg6(ctx: SockAddrContext) -> i32 {
    sock::outgoing::<6>(&ctx, Hook::SendMsg)
}

/// recvfrom(2) and recvmsg(2) on a UDP socket: whose datagram it was, IPv4.
#[cgroup_sock_addr(recvmsg4)]
pub fn sock_recvmsg4(ctx: SockAddrContext) -> i32 {
    sock::received::<4>(&ctx)
}

/// The same for IPv6.
#[cgroup_sock_addr(recvmsg6)]
pub fn sock_recvmsg6(ctx: SockAddrContext) -> i32 {
    sock::received::<6>(&ctx)
}

/// getpeername(2), IPv4.
#[cgroup_sock_addr(getpeername4)]
pub fn sock_peername4(ctx: SockAddrContext) -> i32 {
    sock::peer_name::<4>(&ctx)
}

/// getpeername(2), IPv6.
#[cgroup_sock_addr(getpeername6)]
pub fn sock_peername6(ctx: SockAddrContext) -> i32 {
    sock::peer_name::<6>(&ctx)
}

/// The last close(2) of a socket.
#[cgroup_sock(sock_release)]
pub fn sock_release(ctx: SockContext) -> i32 {
    sock::released(&ctx)
}

/// The helpers that the programs call are for GPL-compatible programs.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // No path panics: indexing, division and formatting are absent. The loader would refuse the loop.
    loop {}
}
