//! Sockets for whole Ethernet frames (`AF_PACKET`), for captures and for asking who has an address.

use std::io;
use std::mem::MaybeUninit;

use anyhow::{Context as _, Result};
use nix::net::if_::if_nametoindex;
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};

/// `ETH_P_ALL`: what comes in and what goes out.
pub(crate) const EVERY_PROTOCOL: u16 = 0x0003;
/// `ETH_P_ARP`.
pub(crate) const ARP: u16 = 0x0806;
/// `ETH_P_IPV6`.
pub(crate) const IPV6: u16 = 0x86dd;

/// Opens a socket for the frames of a device in the namespace of the calling thread.
pub(crate) fn open(device: &str, protocol: u16) -> Result<Socket> {
    let index = if_nametoindex(device).with_context(|| format!("no device {device}"))?;
    // Protocol 0 keeps frames of other devices out until the socket is bound to this one.
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0))).context("no packet socket")?;
    socket.bind(&address(index, protocol)?).with_context(|| format!("could not listen on {device}"))?;
    Ok(socket)
}

/// Reads one frame; `None` where there is none for now.
pub(crate) fn receive<'a>(socket: &Socket, buffer: &'a mut [MaybeUninit<u8>]) -> Option<&'a [u8]> {
    let length = socket.recv(buffer).ok()?;
    let filled = buffer.get(..length)?;
    // SAFETY: the kernel wrote the first `length` bytes, and `MaybeUninit<u8>` has the layout of `u8`.
    Some(unsafe { &*(std::ptr::from_ref(filled) as *const [u8]) })
}

/// Sends a frame on the device that the socket is bound to.
pub(crate) fn send(socket: &Socket, frame: &[u8]) -> io::Result<()> {
    socket.send(frame).map(drop)
}

fn address(index: u32, protocol: u16) -> Result<SockAddr> {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: `sockaddr_ll` is a socket address type of plain integers, for which all zeros are valid.
    let address = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    address.sll_family = u16::try_from(libc::AF_PACKET).context("AF_PACKET does not fit its field")?;
    address.sll_protocol = protocol.to_be();
    address.sll_ifindex = i32::try_from(index).context("the device's number does not fit its field")?;
    let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).context("an address is small")?;
    // SAFETY: the storage holds an address of this family and length, written just above.
    Ok(unsafe { SockAddr::new(storage, length) })
}
