//! New TCP connections, or requests, at a steady rate, while something happens to the node that they pass.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Args;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{Sender, channel};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::answer::{self, Answer, micros};
use super::running;

/// The flags of `probe load`.
#[derive(Args, Debug)]
pub struct LoadFlags {
    /// Where to connect to
    address: SocketAddr,
    /// New connections a second
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
    /// How long a connection may take from its start to the greeting, in milliseconds
    #[arg(long, default_value_t = 5000, value_name = "MS")]
    timeout: u64,
}

/// What the connections or requests came to.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LoadReport {
    /// How many got a greeting, or the answer of an echo server.
    pub answered: u64,
    /// How many did not.
    pub failed: u64,
    /// Who greeted, how often.
    pub names: BTreeMap<String, u64>,
    /// What failed, how often.
    pub errors: BTreeMap<String, u64>,
    /// The slowest greeting, in microseconds.
    pub slowest_us: u64,
    /// The longest time without a greeting, in microseconds.
    pub longest_gap_us: u64,
}

impl LoadReport {
    fn take(&mut self, outcome: Result<String, String>, took: Duration) {
        match outcome {
            Ok(name) => {
                self.answered += 1;
                *self.names.entry(name).or_default() += 1;
                self.slowest_us = self.slowest_us.max(micros(took));
            }
            Err(error) => {
                self.failed += 1;
                *self.errors.entry(error).or_default() += 1;
            }
        }
    }
}

/// One connection's end.
struct Finished {
    outcome: Result<String, String>,
    started: Instant,
    ended: Instant,
}

pub(super) fn run(flags: &LoadFlags) -> Result<LoadReport> {
    let (address, limit) = (flags.address, Duration::from_millis(flags.timeout));
    pace(flags.rate, move || connection(address, limit))
}

/// Makes attempts at a steady rate until standard input ends. An attempt tells who answered, or what failed.
pub(super) fn pace<Attempt>(rate: u32, attempt: impl Fn() -> Attempt + Send + 'static) -> Result<LoadReport>
where
    Attempt: Future<Output = Result<String, String>> + Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    let ended = running::standard_input_ends();
    println!("{}", running::STARTED);
    runtime.block_on(async {
        let (sender, mut finished) = channel(1024);
        let needed = move || ended.recv_timeout(Duration::ZERO) == Err(running::STILL_OPEN);
        tokio::spawn(attempts(rate, attempt, sender, needed));
        let (mut report, mut last) = (LoadReport::default(), None::<Instant>);
        // Ends when the last connection has dropped its sender. In order of their ends, so gaps are seen.
        while let Some(Finished { outcome, started, ended }) = finished.recv().await {
            if outcome.is_ok() {
                let gap = last.replace(ended).map_or(Duration::ZERO, |last| ended.saturating_duration_since(last));
                report.longest_gap_us = report.longest_gap_us.max(micros(gap));
            }
            report.take(outcome, ended - started);
        }
        Ok(report)
    })
}

/// Starts attempts for as long as they are needed.
async fn attempts<Attempt>(
    rate: u32,
    attempt: impl Fn() -> Attempt,
    sender: Sender<Finished>,
    needed: impl Fn() -> bool,
) where
    Attempt: Future<Output = Result<String, String>> + Send + 'static,
{
    let mut ticks = interval(Duration::from_secs(1) / rate);
    // A machine that stood still goes on at the rate, not in a burst.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while needed() {
        ticks.tick().await;
        let (attempt, sender) = (attempt(), sender.clone());
        tokio::spawn(async move {
            let started = Instant::now();
            let outcome = attempt.await;
            // The receiver lives until all senders are gone.
            let _sent = sender.send(Finished { outcome, started, ended: Instant::now() }).await;
        });
    }
}

async fn connection(address: SocketAddr, limit: Duration) -> Result<String, String> {
    match timeout(limit, greeting(address)).await {
        Ok(Ok(name)) => Ok(name),
        Ok(Err(error)) => Err(answer::kind(&error.into())),
        Err(_) => Err("timeout".to_owned()),
    }
}

async fn greeting(address: SocketAddr) -> io::Result<String> {
    let mut line = String::new();
    BufReader::new(TcpStream::connect(address).await?).read_line(&mut line).await?;
    if line.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut answer = Answer::default();
    answer.take(line.as_bytes());
    Ok(answer.outcome())
}
