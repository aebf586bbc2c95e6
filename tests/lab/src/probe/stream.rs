//! TCP: connect, read the greeting.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use socket2::{Domain, Socket, Type};

use super::{Answer, Repeat};

/// The longest greeting that is read.
const LONGEST_LINE: u64 = 64 << 10;

/// The flags of `probe tcp`.
#[derive(Args, Debug)]
pub struct TcpFlags {
    /// Where to connect to
    address: SocketAddr,
    /// The own address, in place of the system's choice
    #[arg(long, value_name = "IP")]
    from: Option<IpAddr>,
    #[command(flatten)]
    pub(super) repeat: Repeat,
}

pub(super) fn probe(flags: &TcpFlags, timeout: Duration) -> Answer {
    Answer::of(|answer| greeting(flags, timeout, answer))
}

fn greeting(flags: &TcpFlags, timeout: Duration, answer: &mut Answer) -> Result<()> {
    let socket = Socket::new(Domain::for_address(flags.address), Type::STREAM, None)?;
    if let Some(from) = flags.from {
        socket.bind(&SocketAddr::new(from, 0).into())?;
    }
    socket.connect_timeout(&flags.address.into(), timeout)?;
    let stream = TcpStream::from(socket);
    answer.peer = Some(stream.peer_addr()?);
    answer.local = Some(stream.local_addr()?);
    stream.set_read_timeout(Some(timeout))?;
    let mut line = Vec::new();
    BufReader::new(stream.take(LONGEST_LINE)).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
    }
    answer.take(&line);
    Ok(())
}
