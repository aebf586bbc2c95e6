//! One TCP connection that is kept and used, while something happens to the node that it passes.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Args;
use serde::{Deserialize, Serialize};

use super::answer::{self, Answer};
use super::running;

/// The flags of `probe hold`.
#[derive(Args, Debug)]
pub struct HoldFlags {
    /// Where to connect to
    address: SocketAddr,
    /// How long to pause between two lines, in milliseconds
    #[arg(long, default_value_t = 20, value_name = "MS")]
    every: u64,
    /// How long one line may take there and back, in milliseconds
    #[arg(long, default_value_t = 5000, value_name = "MS")]
    timeout: u64,
}

/// What a held connection came to.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct HoldReport {
    /// The echo server at its other end.
    pub name: Option<String>,
    /// How many lines came back.
    pub exchanged: u64,
    /// How long the slowest took, in microseconds.
    pub slowest_us: u64,
    /// Why it broke; `None` where it held until it was no longer needed.
    pub error: Option<String>,
}

pub(super) fn run(flags: &HoldFlags) -> Result<HoldReport> {
    let mut report = HoldReport::default();
    let ended = running::standard_input_ends();
    let pause = Duration::from_millis(flags.every);
    let held = hold(flags, &mut report, || !matches!(ended.recv_timeout(pause), Err(running::STILL_OPEN)));
    report.error = held.err().map(|error| answer::kind(&error));
    Ok(report)
}

/// Exchanges lines until there is no more need to.
fn hold(flags: &HoldFlags, report: &mut HoldReport, mut enough: impl FnMut() -> bool) -> Result<()> {
    let timeout = Duration::from_millis(flags.timeout);
    let mut stream = TcpStream::connect_timeout(&flags.address, timeout)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(timeout))?;
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let mut next = || lines.next().unwrap_or_else(|| Err(std::io::ErrorKind::UnexpectedEof.into()));
    let mut greeting = Answer::default();
    greeting.take(next()?.as_bytes());
    report.name = greeting.name().map(str::to_owned);
    println!("{}", running::STARTED);
    while !enough() {
        let (line, started) = (format!("line {}", report.exchanged), Instant::now());
        writeln!(stream, "{line}")?;
        (next()? == line).then_some(()).context("another line came back than was sent")?;
        report.slowest_us = report.slowest_us.max(answer::micros(started.elapsed()));
        report.exchanged += 1;
    }
    Ok(())
}
