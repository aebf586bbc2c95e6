//! TCP connections that are kept and used, while something happens to the node that they pass.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use clap::Args;
use serde::{Deserialize, Serialize};

use super::answer::{self, Answer};
use super::running;

/// The flags of `probe hold`.
#[derive(Args, Clone, Copy, Debug)]
pub struct HoldFlags {
    /// Where to connect to
    address: SocketAddr,
    /// How many connections to keep
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    connections: u16,
    /// How long to pause between two lines, in milliseconds
    #[arg(long, default_value_t = 20, value_name = "MS")]
    every: u64,
    /// How long one line may take there and back, in milliseconds
    #[arg(long, default_value_t = 5000, value_name = "MS")]
    timeout: u64,
}

/// What held connections came to.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct HoldReport {
    /// The echo server at the other end of the first one.
    pub name: Option<String>,
    /// All echo servers at their other ends, with the number of connections.
    pub names: BTreeMap<String, u64>,
    /// How many lines came back.
    pub exchanged: u64,
    /// How many lines came back on the connection with the fewest.
    pub fewest: u64,
    /// How long the slowest took, in microseconds.
    pub slowest_us: u64,
    /// How many connections broke.
    pub broken: u64,
    /// Why the first of them did; `None` where all held until they were no longer needed.
    pub error: Option<String>,
}

/// One connection's part of the report.
#[derive(Debug, Default)]
struct Held {
    name: Option<String>,
    exchanged: u64,
    slowest: Duration,
    error: Option<String>,
}

pub(super) fn run(flags: &HoldFlags) -> Result<HoldReport> {
    let ended = running::standard_input_ends();
    let (started, starts) = channel();
    let (needed, connections): (Vec<_>, Vec<_>) = (0..flags.connections).map(|_| start(*flags, &started)).unzip();
    drop(started);
    // Fewer where one broke before its greeting; its report says why.
    if starts.iter().count() == connections.len() {
        println!("{}", running::STARTED);
        // Nothing is sent: the end of standard input ends the channel.
        let _end = ended.recv();
    }
    drop(needed);
    let mut report = HoldReport { fewest: u64::MAX, ..HoldReport::default() };
    for connection in connections {
        report.take(connection.join().map_err(|_| anyhow!("a connection's thread panicked"))?);
    }
    Ok(report)
}

/// Starts one connection. It tells when it is greeted, and ends when the sender is dropped.
fn start(flags: HoldFlags, started: &Sender<()>) -> (Sender<()>, JoinHandle<Held>) {
    let (needed, ended) = channel();
    let started = started.clone();
    let connection = thread::spawn(move || {
        let mut held = Held::default();
        held.error = held.hold(&flags, started, &ended).err().map(|error| answer::kind(&error));
        held
    });
    (needed, connection)
}

impl Held {
    /// Exchanges lines until there is no more need to.
    fn hold(&mut self, flags: &HoldFlags, started: Sender<()>, ended: &Receiver<()>) -> Result<()> {
        let (timeout, pause) = (Duration::from_millis(flags.timeout), Duration::from_millis(flags.every));
        let mut stream = TcpStream::connect_timeout(&flags.address, timeout)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(timeout))?;
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        let mut greeting = Answer::default();
        greeting.take(next(&mut lines)?.as_bytes());
        self.name = greeting.name().map(str::to_owned);
        // The receiver waits for all.
        let _told = started.send(());
        drop(started);
        while ended.recv_timeout(pause) == Err(running::STILL_OPEN) {
            let (line, sent) = (format!("line {}", self.exchanged), Instant::now());
            writeln!(stream, "{line}")?;
            (next(&mut lines)? == line).then_some(()).context("another line came back than was sent")?;
            self.slowest = self.slowest.max(sent.elapsed());
            self.exchanged += 1;
        }
        Ok(())
    }
}

fn next(lines: &mut Lines<BufReader<TcpStream>>) -> std::io::Result<String> {
    lines.next().unwrap_or_else(|| Err(std::io::ErrorKind::UnexpectedEof.into()))
}

impl HoldReport {
    fn take(&mut self, held: Held) {
        if let Some(name) = &held.name {
            *self.names.entry(name.clone()).or_default() += 1;
        }
        self.name = self.name.take().or(held.name);
        self.exchanged += held.exchanged;
        self.fewest = self.fewest.min(held.exchanged);
        self.slowest_us = self.slowest_us.max(answer::micros(held.slowest));
        self.broken += u64::from(held.error.is_some());
        self.error = self.error.take().or(held.error);
    }
}
