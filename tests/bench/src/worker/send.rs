//! The sender of one long stream.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Args;
use serde_json::json;

use super::open;

/// Bytes handed to the kernel at once.
const CHUNK: usize = 1 << 17;

/// The flags of `roadstead-bench send`.
#[derive(Args, Debug)]
pub(crate) struct SendFlags {
    /// Address and port of a sink
    #[arg(long)]
    to: SocketAddr,
    /// For how many milliseconds
    #[arg(long)]
    millis: u64,
}

/// Prints one line of JSON: gigabits a second that arrived.
pub(crate) fn run(flags: &SendFlags) -> Result<()> {
    let mut stream = open(flags.to).with_context(|| format!("no connection to {}", flags.to))?;
    let chunk = vec![0x5a; CHUNK];
    let wanted = Duration::from_millis(flags.millis);
    let started = Instant::now();
    while started.elapsed() < wanted {
        stream.write_all(&chunk).context("the stream broke off")?;
    }
    stream.shutdown(Shutdown::Write).context("the stream could not be ended")?;
    let mut total = [0; 8];
    stream.read_exact(&mut total).context("the sink does not tell what it got")?;
    let bits = u64::from_be_bytes(total) as f64 * 8.0;
    println!("{}", json!({ "gigabits": bits / started.elapsed().as_secs_f64() / 1e9 }));
    Ok(())
}
