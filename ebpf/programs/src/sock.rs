//! Sockets of the node and its pods: a Service's address becomes a backend's before the first packet, so that no packet
//! needs translation. `recvmsg` and `getpeername` tell the application the address that it asked for.

use aya_ebpf::{
    EbpfContext as _,
    bindings::bpf_sock_addr,
    helpers::generated::{bpf_get_netns_cookie, bpf_get_prandom_u32, bpf_get_socket_cookie, bpf_set_retval},
    programs::SockAddrContext,
};
use roadstead_abi::{Addr, Backend, Be16, DropReason, Peer, SvcValue, UdpReverseKey, proto};
use roadstead_datapath::{
    select,
    verdict::{Origin, endpoint_set},
};

use crate::{
    drops::Drop,
    maps::{SOCKET_PEERS, UDP_REVERSE},
    service,
};

const ALLOW: i32 = 1;
const DENY: i32 = 0;
const ECONNREFUSED: i32 = 111;

/// The system call that a program hooks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hook {
    /// connect(2), TCP or UDP.
    Connect,
    /// A datagram from an unconnected socket.
    SendMsg,
}

/// connect and sendmsg: `FAMILY` is 4 or 6, the fields of the context that hold the address.
#[inline(always)]
pub(crate) fn outgoing<const FAMILY: u8>(ctx: &SockAddrContext, hook: Hook) -> i32 {
    let sock = ctx.sock_addr;
    let Some(protocol) = protocol(sock) else { return ALLOW };
    let asked = address::<FAMILY>(sock);
    let port = port(sock);
    match translate(ctx, hook, asked, port, protocol) {
        Ok(None) => ALLOW,
        Ok(Some(backend)) => {
            set_address::<FAMILY>(sock, &backend.addr);
            set_port(sock, backend.port);
            ALLOW
        }
        Err(drop) => refuse(drop),
    }
}

/// Silence is the uplink's business: the address stays, and the packets end there.
#[inline(always)]
fn refuse(drop: Drop) -> i32 {
    if matches!(drop.reason, DropReason::NoLocalEndpoints) {
        return ALLOW;
    }
    drop.count();
    // SAFETY: the helper sets what the system call returns (kernel 5.18 and later).
    unsafe { bpf_set_retval(-ECONNREFUSED) };
    DENY
}

#[inline(always)]
fn translate(
    ctx: &SockAddrContext,
    hook: Hook,
    asked: Addr,
    port: Be16,
    protocol: u8,
) -> Result<Option<&'static Backend>, Drop> {
    let Some(found) = frontend(ctx, &asked, port, protocol) else {
        if service::is_vip(&asked) {
            return Err(DropReason::UnknownPort.into());
        }
        return Ok(None);
    };
    let set = endpoint_set(&found, Origin::InCluster).map_err(|reason| Drop::of(reason, found.service))?;
    let cookie = socket_cookie(ctx);
    let number = match hook {
        // SAFETY: the helper takes nothing and returns a number.
        Hook::Connect => unsafe { bpf_get_prandom_u32() },
        // One unconnected socket keeps to one backend as long as the set stays.
        Hook::SendMsg => select::cookie_hash(cookie, port),
    };
    let (_, backend) = service::pick(found.service, set, number)?;
    let peer = Peer { asked, backend: backend.addr, asked_port: port, backend_port: backend.port };
    remember(ctx, hook, protocol, cookie, peer);
    Ok(Some(backend))
}

#[inline(always)]
fn frontend(ctx: &SockAddrContext, asked: &Addr, port: Be16, protocol: u8) -> Option<SvcValue> {
    if let Some(found) = service::at_address(*asked, port, protocol) {
        return Some(found);
    }
    let node = service::node()?;
    if !service::is_node_port(node, port) {
        return None;
    }
    // A pod's loopback is its own.
    let ours = service::serves_node_ports(asked) || (asked.is_loopback() && netns_cookie(ctx) == node.netns_cookie);
    if ours { service::at_node_port(asked, port, protocol) } else { None }
}

/// Failing to remember costs the application the Service's address in getpeername, nothing else.
#[inline(always)]
fn remember(ctx: &SockAddrContext, hook: Hook, protocol: u8, cookie: u64, peer: Peer) {
    if hook == Hook::Connect {
        let mut value = peer;
        // SAFETY: the map hands out the storage of the context's own socket.
        let stored = unsafe { SOCKET_PEERS.get_or_insert_ptr_mut(ctx, Some(&mut value)) };
        if !stored.is_null() {
            // SAFETY: not null, and the storage lives as long as the socket.
            unsafe { *stored = peer };
        }
    }
    if protocol == proto::UDP {
        let key = UdpReverseKey { cookie, addr: peer.backend, port: peer.backend_port, reserved: [0; 3] };
        let _ = UDP_REVERSE.insert(key, peer, 0);
    }
}

/// recvmsg: the datagram of a backend gets the address that was asked for.
#[inline(always)]
pub(crate) fn received<const FAMILY: u8>(ctx: &SockAddrContext) -> i32 {
    let sock = ctx.sock_addr;
    let key =
        UdpReverseKey { cookie: socket_cookie(ctx), addr: address::<FAMILY>(sock), port: port(sock), reserved: [0; 3] };
    // SAFETY: copied out at once.
    if let Some(peer) = unsafe { UDP_REVERSE.get(key) }.copied() {
        set_address::<FAMILY>(sock, &peer.asked);
        set_port(sock, peer.asked_port);
    }
    ALLOW
}

/// getpeername: the backend that the socket is connected to is called what the application called it.
#[inline(always)]
pub(crate) fn peer_name<const FAMILY: u8>(ctx: &SockAddrContext) -> i32 {
    // SAFETY: the map hands out the storage of the context's own socket.
    let stored = unsafe { SOCKET_PEERS.get_ptr_mut(ctx) };
    if stored.is_null() {
        return ALLOW;
    }
    // SAFETY: not null, and the storage lives as long as the socket.
    let peer = unsafe { *stored };
    let sock = ctx.sock_addr;
    if address::<FAMILY>(sock) == peer.backend && port(sock) == peer.backend_port {
        set_address::<FAMILY>(sock, &peer.asked);
        set_port(sock, peer.asked_port);
    }
    ALLOW
}

#[inline(always)]
fn protocol(sock: *mut bpf_sock_addr) -> Option<u8> {
    // SAFETY: the context is the kernel's, valid for the program's run; the verifier allows this read.
    match unsafe { (&raw const (*sock).protocol).read_volatile() } {
        6 => Some(proto::TCP),
        17 => Some(proto::UDP),
        _ => None,
    }
}

/// Context fields are read and written word by word: the verifier allows no other width, and volatile keeps the
/// compiler from joining them.
#[inline(always)]
fn address<const FAMILY: u8>(sock: *mut bpf_sock_addr) -> Addr {
    if FAMILY == 4 {
        // SAFETY: as in `protocol`.
        let word = unsafe { (&raw const (*sock).user_ip4).read_volatile() };
        return Addr::v4(word.to_ne_bytes());
    }
    let mut words = [0_u32; 4];
    let mut index = 0;
    while index < 4 {
        // SAFETY: as in `protocol`; the index is below 4.
        words[index] = unsafe { (&raw const (*sock).user_ip6[index]).read_volatile() };
        index += 1;
    }
    Addr::from_words(words)
}

#[inline(always)]
fn set_address<const FAMILY: u8>(sock: *mut bpf_sock_addr, addr: &Addr) {
    let words = addr.words();
    if FAMILY == 4 {
        // SAFETY: as in `address`.
        unsafe { (&raw mut (*sock).user_ip4).write_volatile(words[3]) };
        return;
    }
    let mut index = 0;
    while index < 4 {
        // SAFETY: as in `address`.
        unsafe { (&raw mut (*sock).user_ip6[index]).write_volatile(words[index]) };
        index += 1;
    }
}

#[inline(always)]
fn port(sock: *mut bpf_sock_addr) -> Be16 {
    // SAFETY: as in `address`. The port stands in network order in the low half.
    Be16(unsafe { (&raw const (*sock).user_port).read_volatile() } as u16)
}

#[inline(always)]
fn set_port(sock: *mut bpf_sock_addr, port: Be16) {
    // SAFETY: as in `address`.
    unsafe { (&raw mut (*sock).user_port).write_volatile(u32::from(port.0)) };
}

#[inline(always)]
fn socket_cookie(ctx: &SockAddrContext) -> u64 {
    // SAFETY: the helper gets the program's own context.
    unsafe { bpf_get_socket_cookie(ctx.as_ptr()) }
}

#[inline(always)]
fn netns_cookie(ctx: &SockAddrContext) -> u64 {
    // SAFETY: the helper gets the program's own context.
    unsafe { bpf_get_netns_cookie(ctx.as_ptr()) }
}
