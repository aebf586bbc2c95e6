//! UDP: send a datagram, read the answer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::Result;
use clap::Args;

use super::{Answer, Repeat};

/// The longest answer that is read.
const LONGEST: usize = 65_536;

/// The flags of `probe udp`.
#[derive(Args, Debug)]
pub struct UdpFlags {
    /// Where to send to
    address: SocketAddr,
    /// The own address, in place of the system's choice
    #[arg(long, value_name = "IP")]
    from: Option<IpAddr>,
    /// Do not connect the socket: whoever answers is heard, and ICMP errors are not
    #[arg(long)]
    unconnected: bool,
    /// What to send
    #[arg(long, default_value = "ahoy")]
    payload: String,
    #[command(flatten)]
    pub(super) repeat: Repeat,
}

pub(super) fn probe(flags: &UdpFlags, timeout: Duration) -> Answer {
    Answer::of(|answer| exchange(flags, timeout, answer))
}

fn exchange(flags: &UdpFlags, timeout: Duration, answer: &mut Answer) -> Result<()> {
    let any: IpAddr = match flags.address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((flags.from.unwrap_or(any), 0))?;
    socket.set_read_timeout(Some(timeout))?;
    if flags.unconnected {
        socket.send_to(flags.payload.as_bytes(), flags.address)?;
    } else {
        socket.connect(flags.address)?;
        answer.peer = Some(socket.peer_addr()?);
        socket.send(flags.payload.as_bytes())?;
    }
    answer.local = Some(socket.local_addr()?);
    let mut buffer = vec![0; LONGEST];
    let (length, source) = socket.recv_from(&mut buffer)?;
    answer.source = Some(source);
    answer.take(buffer.get(..length).unwrap_or_default());
    Ok(())
}
