//! TCP: connect, read the greeting.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::Result;
use clap::Args;

use super::{Answer, Repeat};

/// The longest greeting that is read.
const LONGEST_LINE: u64 = 64 << 10;

/// The flags of `probe tcp`.
#[derive(Args, Debug)]
pub struct TcpFlags {
    /// Where to connect to
    address: SocketAddr,
    #[command(flatten)]
    pub(super) repeat: Repeat,
}

pub(super) fn probe(flags: &TcpFlags, timeout: Duration) -> Answer {
    Answer::of(|answer| greeting(flags.address, timeout, answer))
}

fn greeting(address: SocketAddr, timeout: Duration, answer: &mut Answer) -> Result<()> {
    let stream = TcpStream::connect_timeout(&address, timeout)?;
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
