//! Listening sockets: one per thread and address, sharing the port by SO_REUSEPORT, so that no thread hands a connection on.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
};

use anyhow::Context;
use socket2::{Domain, Protocol, Socket, Type};

const BACKLOG: i32 = 4096;

/// Binds an address once a thread. Port 0 becomes the same free port for all; `[::]` takes IPv4 too, and is `0.0.0.0` on a
/// host without IPv6.
///
/// # Errors
/// The address cannot be bound.
pub fn bind(address: SocketAddr, threads: usize) -> anyhow::Result<Vec<TcpListener>> {
    let first = match bind_one(address) {
        Err(error) if error.raw_os_error() == Some(EAFNOSUPPORT) && address.ip().is_unspecified() => {
            tracing::warn!(%address, "no IPv6 on this host, listening on IPv4 alone");
            bind_one(SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port())))
        }
        bound => bound,
    };
    let first = first.with_context(|| format!("cannot listen on {address}"))?;
    let bound = first.local_addr().context("cannot read the address of a listener")?;
    let mut all = vec![first];
    while all.len() < threads {
        all.push(bind_one(bound).with_context(|| format!("cannot listen on {bound} again"))?);
    }
    Ok(all)
}

/// Linux' number for "address family not supported by protocol".
const EAFNOSUPPORT: i32 = 97;

fn bind_one(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // A restart must not wait for connections in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
