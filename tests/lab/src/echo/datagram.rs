//! UDP: every datagram is answered from the address that it was sent to, also on hosts with several.
//!
//! Tokio has no `recvmsg` with control messages, so this part runs on a thread of its own.

use std::io::{IoSlice, IoSliceMut};
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::AsRawFd as _;
use std::thread;

use anyhow::{Context as _, Result};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn6, cmsg_space, recvmsg, sendmsg, setsockopt, sockopt,
};
use serde_json::json;
use socket2::Socket;

/// The longest datagram of IPv4.
const LONGEST: usize = 65_507;

pub(super) fn serve(socket: &Socket, name: String) -> Result<()> {
    setsockopt(socket, sockopt::Ipv6RecvPacketInfo, &true).context("no destination addresses of datagrams")?;
    let socket = socket.try_clone()?;
    thread::spawn(move || {
        let mut buffer = vec![0; LONGEST];
        loop {
            // What fails here is one datagram: an ICMP error of an earlier answer, or a client that went away.
            if let Err(error) = answer(&socket, &mut buffer, &name) {
                eprintln!("datagram: {error:#}");
            }
        }
    });
    Ok(())
}

fn answer(socket: &Socket, buffer: &mut [u8], name: &str) -> Result<()> {
    let mut control = vec![0; cmsg_space::<libc::in6_pktinfo>()];
    let (length, peer, reached) = {
        let mut parts = [IoSliceMut::new(buffer)];
        let message = recvmsg::<SockaddrIn6>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty())?;
        let reached = message.cmsgs()?.find_map(|message| match message {
            ControlMessageOwned::Ipv6PacketInfo(info) => Some(Ipv6Addr::from(info.ipi6_addr.s6_addr)),
            _ => None,
        });
        (message.bytes, message.address.context("no sender")?, reached.context("no destination")?)
    };
    let peer = SocketAddrV6::from(peer);
    let local: SocketAddr = socket.local_addr()?.as_socket().context("no port")?;
    let payload = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).into_owned();
    let text = json!({
        "name": name,
        "peer": super::plain(peer.into()),
        "local": super::plain((reached, local.port()).into()),
        "payload": payload,
    });
    // The device is left to the route: a reply may leave by another one than the question came in by.
    let source = libc::in6_pktinfo {
        ipi6_addr: libc::in6_addr { s6_addr: reached.octets() },
        ipi6_ifindex: if reached.is_unicast_link_local() { peer.scope_id() } else { 0 },
    };
    let (text, source) = (text.to_string(), [ControlMessage::Ipv6PacketInfo(&source)]);
    sendmsg(
        socket.as_raw_fd(),
        &[IoSlice::new(text.as_bytes())],
        &source,
        MsgFlags::empty(),
        Some(&SockaddrIn6::from(peer)),
    )?;
    Ok(())
}
