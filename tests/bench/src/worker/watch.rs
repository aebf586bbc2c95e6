//! The client that notices a change: it connects again and again until another server answers, or any.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;
use serde_json::json;

use super::{PATIENCE, ask, open};
use crate::clock;

/// What the watcher prints when it has got its first answer from another server than it waits for.
pub(crate) const WATCHING: &str = "watching";
/// How long the change may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(240);

/// The flags of `roadstead-bench watch`.
#[derive(Args, Debug)]
pub(crate) struct WatchFlags {
    /// Address and port
    #[arg(long)]
    to: SocketAddr,
    /// The address of the server that is waited for (default: whoever answers)
    #[arg(long)]
    until: Option<Ipv4Addr>,
    /// Milliseconds between two connections
    #[arg(long, default_value_t = 0)]
    pause_millis: u64,
    /// Give a connection up after so many milliseconds: a first segment that nobody took is sent again only after a second
    #[arg(long)]
    patience_millis: Option<u64>,
}

/// Prints one line of JSON: the monotonic time at which the first connection to the new server began, in nanoseconds.
pub(crate) fn run(flags: &WatchFlags) -> Result<()> {
    let started = Instant::now();
    let mut told = false;
    let pause = Duration::from_millis(flags.pause_millis);
    while started.elapsed() < DEADLINE {
        thread::sleep(pause);
        let began = clock::monotonic()?;
        // A connection that the change broke is not an answer; the next one is.
        let opened = match flags.patience_millis {
            Some(patience) => TcpStream::connect_timeout(&flags.to, Duration::from_millis(patience)),
            None => open(flags.to),
        };
        let Ok(answer) = opened.map_err(anyhow::Error::from).and_then(|mut stream| {
            stream.set_read_timeout(Some(PATIENCE))?;
            ask(&mut stream)
        }) else {
            continue;
        };
        if flags.until.is_none_or(|until| answer == until) {
            println!("{}", json!({ "nanoseconds": u64::try_from(began.as_nanos())? }));
            return Ok(());
        }
        if !told {
            println!("{WATCHING}");
            told = true;
        }
    }
    bail!("{} is not answered as is waited for within {DEADLINE:?}", flags.to)
}
