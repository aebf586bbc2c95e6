//! Sockets of the node and its pods: a Service's address becomes a backend's before the first packet, so that no packet
//! needs translation. `recvmsg` and `getpeername` tell the application the address that it asked for.

use aya_ebpf::{
    EbpfContext as _,
    bindings::bpf_sock_addr,
    helpers::generated::{bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_set_retval},
    programs::{SockAddrContext, SockContext},
};
use roadstead_abi::{
    Addr, AffinityKey, Backend, Be16, CtKey, DropReason, NodeConfig, Peer, SvcValue, UdpReverseKey, hook, kind, proto,
};
use roadstead_datapath::{
    select,
    verdict::{Origin, decide, origin_of_socket},
};

use crate::{
    counters::{self, Telling},
    drops::Drop,
    filter,
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
    let call = Call { hook, asked, port, protocol, family: FAMILY };
    match translate(ctx, &call) {
        Ok(None) => ALLOW,
        Ok(Some(backend)) => {
            set_address::<FAMILY>(sock, &backend.addr);
            set_port(sock, backend.port);
            ALLOW
        }
        Err(drop) => refuse(drop, &call),
    }
}

/// What a system call asks for.
#[derive(Clone, Copy)]
struct Call {
    hook: Hook,
    asked: Addr,
    port: Be16,
    protocol: u8,
    family: u8,
}

impl Call {
    /// The tuple for whoever traces; the source is not known yet.
    #[inline(always)]
    fn key(&self) -> CtKey {
        CtKey {
            src: Addr::UNSPECIFIED,
            dst: self.asked,
            sport: Be16(0),
            dport: self.port,
            proto: self.protocol,
            reserved: [0; 3],
        }
    }
}

/// Silence is the packet programs' business: the address stays, and the packets end there.
#[inline(always)]
fn refuse(drop: Drop, call: &Call) -> i32 {
    if !drop.is_rejected() && !drop.is(DropReason::Inconsistent) {
        return ALLOW;
    }
    drop.count();
    drop.tell(&call.key(), hook::SOCKET, 0);
    // SAFETY: the helper sets what the system call returns (kernel 5.18 and later).
    unsafe { bpf_set_retval(-ECONNREFUSED) };
    DENY
}

#[inline(always)]
fn translate(ctx: &SockAddrContext, call: &Call) -> Result<Option<&'static Backend>, Drop> {
    let Some(node) = service::node() else { return Ok(None) };
    let may_be_frontend = filter::may_be_frontend(&call.asked);
    if !may_be_frontend && !service::is_node_port(node, call.port) {
        return Ok(None);
    }
    let netns = netns_cookie(ctx);
    let mut found = SvcValue::default();
    if !frontend(call, node, may_be_frontend, netns, &mut found) {
        if may_be_frontend && service::is_vip(&call.asked) {
            return Err(DropReason::UnknownPort.into());
        }
        return Ok(None);
    }
    let origin = origin_of_socket(netns == node.netns_cookie, node.flags);
    if is_for_packets(&found, origin, node, call.family) {
        return Ok(None);
    }
    let verdict = decide(&found, origin, node.flags).map_err(|reason| Drop::of(reason, found.service))?;
    let cookie = socket_cookie(ctx);
    // One unconnected socket keeps to one backend as long as the set stays.
    let hash = select::cookie_hash(cookie, call.port);
    let client = AffinityKey::of_socket(netns, call.family, found.service);
    let (id, backend) = match call.hook {
        Hook::Connect => service::choose(&found, &verdict.set, hash, &client)?,
        Hook::SendMsg => service::choose_by(&found, &verdict.set, hash, &client)?,
    };
    let peer = Peer { asked: call.asked, backend: backend.addr, asked_port: call.port, backend_port: backend.port };
    remember(call, cookie, peer);
    counters::connection(found.service, id);
    tell(call, &found, backend);
    Ok(Some(backend))
}

#[inline(always)]
fn tell(call: &Call, found: &SvcValue, backend: &Backend) {
    counters::tell(Telling {
        key: &call.key(),
        backend: &backend.addr,
        backend_port: backend.port,
        hook: hook::SOCKET,
        reason: 0,
        service: found.service,
        ifindex: 0,
    });
}

#[inline(always)]
fn frontend(call: &Call, node: &NodeConfig, may_be_frontend: bool, netns: u64, found: &mut SvcValue) -> bool {
    if may_be_frontend && service::at_address(call.asked, call.port, call.protocol, found) {
        // A socket that asks for an endpoint which is gone means that one; its packets are another matter.
        return found.kind != kind::TOMBSTONE;
    }
    if !service::is_node_port(node, call.port) {
        return false;
    }
    // A pod's loopback is its own.
    let ours = service::serves_node_ports(&call.asked) || (call.asked.is_loopback() && netns == node.netns_cookie);
    ours && service::at_node_port(&call.asked, call.port, call.protocol, found)
}

/// Whether the address stays and the packet programs judge: a pod's source is not known yet where it matters, and what
/// the node may not reach is dropped in silence.
#[inline(always)]
fn is_for_packets(found: &SvcValue, origin: Origin, node: &NodeConfig, family: u8) -> bool {
    if found.ranges == 0 {
        return false;
    }
    let source = if family == 4 { &node.ipv4 } else { &node.ipv6 };
    !matches!(origin, Origin::Node) || !service::lets_in(found, source)
}

/// Failing to remember costs the application the Service's address in getpeername, nothing else.
#[inline(always)]
fn remember(call: &Call, cookie: u64, peer: Peer) {
    if call.hook == Hook::Connect {
        let _ = SOCKET_PEERS.insert(cookie, peer, 0);
    }
    if call.protocol == proto::UDP {
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
    // SAFETY: copied out at once. The element may be another socket's by then, whose backend would have to be this one's.
    let Some(peer) = (unsafe { SOCKET_PEERS.get(socket_cookie(ctx)) }).copied() else { return ALLOW };
    let sock = ctx.sock_addr;
    if address::<FAMILY>(sock) == peer.backend && port(sock) == peer.backend_port {
        set_address::<FAMILY>(sock, &peer.asked);
        set_port(sock, peer.asked_port);
    }
    ALLOW
}

/// The last close: what the socket asked for is forgotten.
#[inline(always)]
pub(crate) fn released(ctx: &SockContext) -> i32 {
    // SAFETY: the helper gets the program's own context.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    // Most sockets have nothing there.
    let _ = SOCKET_PEERS.remove(cookie);
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
