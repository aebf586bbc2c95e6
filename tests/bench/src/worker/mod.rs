//! The client and the server of the measurements, as processes of the lab's places.
//!
//! Plain blocking sockets, one connection after the other: what is measured is the sum of the path's costs, and a
//! runtime's would be part of it.

pub(crate) mod connect;
pub(crate) mod http;
pub(crate) mod send;
pub(crate) mod serve;
pub(crate) mod watch;

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result};

/// No wait on a socket is longer: whoever hangs is broken, and says so.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

const REQUEST: &[u8] = b"GET / HTTP/1.0\r\nHost: bench\r\n\r\n";

/// Sends the request on a connection and reads the answer: the address that the connection came to.
pub(crate) fn ask(stream: &mut TcpStream) -> Result<Ipv4Addr> {
    stream.write_all(REQUEST).context("the request could not be sent")?;
    let mut answer = [0; 256];
    let mut length = 0;
    loop {
        let room = answer.get_mut(length..).unwrap_or_default();
        match stream.read(room).context("the answer could not be read")? {
            0 => break,
            more => length += more,
        }
    }
    let text = std::str::from_utf8(answer.get(..length).unwrap_or_default()).context("the answer is no text")?;
    let body = text.rsplit("\r\n\r\n").next().unwrap_or_default();
    body.parse().with_context(|| format!("\"{text}\" is no answer of the server"))
}

/// Connects, with a deadline.
pub(crate) fn open(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}
