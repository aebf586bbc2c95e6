//! The client that notices a change: it connects again and again until another server answers.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;
use serde_json::json;

use super::{ask, open};
use crate::clock;

/// What the watcher prints when it has got its first answer from another server than it waits for.
pub(crate) const WATCHING: &str = "watching";
/// How long the change may take.
const DEADLINE: Duration = Duration::from_secs(120);

/// The flags of `roadstead-bench watch`.
#[derive(Args, Debug)]
pub(crate) struct WatchFlags {
    /// Address and port
    #[arg(long)]
    to: SocketAddr,
    /// The address of the server that is waited for
    #[arg(long)]
    until: Ipv4Addr,
}

/// Prints one line of JSON: the monotonic time at which the first connection to the new server began, in nanoseconds.
pub(crate) fn run(flags: &WatchFlags) -> Result<()> {
    let started = Instant::now();
    let mut told = false;
    while started.elapsed() < DEADLINE {
        let began = clock::monotonic()?;
        // A connection that the change broke is not an answer; the next one is.
        let Ok(answer) = open(flags.to).map_err(anyhow::Error::from).and_then(|mut stream| ask(&mut stream)) else {
            continue;
        };
        if answer == flags.until {
            println!("{}", json!({ "nanoseconds": u64::try_from(began.as_nanos())? }));
            return Ok(());
        }
        if !told {
            println!("{WATCHING}");
            told = true;
        }
    }
    bail!("{} did not answer within {DEADLINE:?}", flags.until)
}
