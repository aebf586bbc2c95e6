//! The echo server of the lab's pods: over HTTP, TCP and UDP it tells its name, the peer that it saw and the address
//! that it was reached at. One process serves both families.

mod datagram;
mod http;
mod stream;

use std::net::{Ipv6Addr, SocketAddr};

use anyhow::{Context as _, Result};
use clap::Args;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

use crate::priority;

/// What the line begins with that it prints once it listens on all its ports; they follow as `http=PORT`, `tcp=PORT`,
/// `udp=PORT`, for a caller that left the choice to the system.
pub const LISTENING: &str = "listening";

/// The flags of `roadstead-lab echo`.
#[derive(Args, Debug)]
pub struct EchoFlags {
    /// The name to answer
    #[arg(long)]
    name: String,
    /// Answer HTTP/1.1, and HTTP/2 without TLS, at this port with JSON about the request
    #[arg(long, value_name = "PORT")]
    http: Vec<u16>,
    /// Send a line of JSON to each connection at this port, then every byte back
    #[arg(long, value_name = "PORT")]
    tcp: Vec<u16>,
    /// Answer each datagram at this port with JSON about it
    #[arg(long, value_name = "PORT")]
    udp: Vec<u16>,
    /// Go before all ordinary work, where that is allowed
    #[arg(long)]
    urgent: bool,
}

/// Serves until the process is ended.
///
/// # Errors
///
/// Where a port is in use.
pub fn run(flags: &EchoFlags) -> Result<()> {
    if flags.urgent {
        // Threads that are started from here on inherit it.
        priority::raise();
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    runtime.block_on(async {
        let mut line = LISTENING.to_owned();
        for port in &flags.http {
            let listener = listener(*port)?;
            line += &format!(" http={}", listener.local_addr()?.port());
            tokio::spawn(http::serve(listener, flags.name.clone()));
        }
        for port in &flags.tcp {
            let listener = listener(*port)?;
            line += &format!(" tcp={}", listener.local_addr()?.port());
            tokio::spawn(stream::serve(listener, flags.name.clone()));
        }
        for port in &flags.udp {
            let socket = socket(*port, Type::DGRAM, Protocol::UDP)?;
            let bound = socket.local_addr()?.as_socket().map_or(*port, |address| address.port());
            line += &format!(" udp={bound}");
            datagram::serve(&socket, flags.name.clone())?;
        }
        println!("{line}");
        std::future::pending::<()>().await;
        Ok(())
    })
}

fn listener(port: u16) -> Result<TcpListener> {
    /// Enough for a burst of the load probe.
    const BACKLOG: i32 = 1024;
    let socket = socket(port, Type::STREAM, Protocol::TCP)?;
    socket.listen(BACKLOG).with_context(|| format!("could not listen on port {port}"))?;
    socket.set_nonblocking(true)?;
    Ok(TcpListener::from_std(socket.into())?)
}

/// A socket for both families.
fn socket(port: u16, kind: Type, protocol: Protocol) -> Result<Socket> {
    let socket = Socket::new(Domain::IPV6, kind, Some(protocol)).context("no socket")?;
    socket.set_only_v6(false)?;
    // A host may serve addresses that no device of it has, by a route of type local: answers come from those too.
    socket.set_freebind_v6(true)?;
    if kind == Type::STREAM {
        // A restarted server does not wait for the connections of its predecessor to be forgotten.
        socket.set_reuse_address(true)?;
    }
    let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    socket.bind(&address.into()).with_context(|| format!("port {port} is in use"))?;
    Ok(socket)
}

/// An address as its own family writes it: sockets of both families see IPv4 as `::ffff:a.b.c.d`.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
