//! Connections that have asked once and then stay open, silent, until the process is killed.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use super::tls::{Connector, Stream};
use super::{Reader, connect, request};

/// What the client prints when all connections are idle.
pub(crate) const HOLDING: &str = "holding";
/// Whoever started it kills it long before.
const LONGEST: Duration = Duration::from_secs(600);

/// The flags of `roadstead-bench hold`.
#[derive(Args, Debug)]
pub(crate) struct HoldFlags {
    /// Address and port
    #[arg(long)]
    to: SocketAddr,
    /// The name in Host, and in SNI
    #[arg(long)]
    host: String,
    /// How many
    #[arg(long)]
    count: usize,
    /// Over TLS
    #[arg(long)]
    tls: bool,
}

/// A held connection.
enum Held {
    Plain(#[expect(dead_code, reason = "held, not used")] TcpStream),
    Encrypted(#[expect(dead_code, reason = "held, not used")] Box<Stream>),
}

/// Opens them one after the other, says so, and waits for its end.
pub(crate) fn run(flags: &HoldFlags) -> Result<()> {
    let connector = flags.tls.then(|| Connector::new(&flags.host)).transpose()?;
    let (wanted, mut reader, mut held) = (request(&flags.host, "/"), Reader::default(), Vec::new());
    for number in 0..flags.count {
        let (answer, connection) = match &connector {
            None => {
                let mut stream = connect(flags.to).with_context(|| format!("connection {number}"))?;
                (reader.ask(&mut stream, &wanted), Held::Plain(stream))
            }
            Some(connector) => {
                let mut stream = connector.open(flags.to).with_context(|| format!("connection {number}"))?;
                (reader.ask(&mut stream, &wanted), Held::Encrypted(Box::new(stream)))
            }
        };
        let answer = answer.with_context(|| format!("the answer on connection {number}"))?;
        ensure!(answer.status == 200 && answer.stays_open, "connection {number}: {answer:?}");
        held.push(connection);
    }
    println!("{HOLDING}");
    std::thread::sleep(LONGEST);
    drop(held);
    Ok(())
}
