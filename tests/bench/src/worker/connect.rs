//! The client that opens one connection after the other and times each.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Args;
use serde_json::json;

use super::{PATIENCE, ask, open};
use crate::series::Series;

/// The flags of `roadstead-bench connect`.
#[derive(Args, Debug)]
pub(crate) struct ConnectFlags {
    /// Address and port
    #[arg(long)]
    to: SocketAddr,
    /// How many connections are timed
    #[arg(long)]
    count: usize,
    /// How many go before them: caches, neighbours and routes are warm then
    #[arg(long, default_value_t = 50)]
    warm_up: usize,
}

/// Prints one line of JSON: times in microseconds, connections a second.
pub(crate) fn run(flags: &ConnectFlags) -> Result<()> {
    for _ in 0..flags.warm_up {
        one(flags.to)?;
    }
    let mut opened = Vec::with_capacity(flags.count);
    let mut whole = Vec::with_capacity(flags.count);
    let started = Instant::now();
    for _ in 0..flags.count {
        let (first, all) = one(flags.to)?;
        opened.push(micros(first));
        whole.push(micros(all));
    }
    let elapsed = started.elapsed();
    let (opened, whole) = (Series::from(opened), Series::from(whole));
    let line = json!({
        "connect_p50": opened.median(),
        "connect_p99": opened.quantile(0.99),
        "whole_p50": whole.median(),
        "whole_p99": whole.quantile(0.99),
        "per_second": flags.count as f64 / elapsed.as_secs_f64(),
    });
    println!("{line}");
    Ok(())
}

/// Connect, request, answer, close: the time until connect(2) returned, and until the end.
fn one(to: SocketAddr) -> Result<(Duration, Duration)> {
    let started = Instant::now();
    let mut stream = open(to).with_context(|| format!("no connection to {to}"))?;
    let opened = started.elapsed();
    ask(&mut stream)?;
    drop(stream);
    let whole = started.elapsed();
    anyhow::ensure!(whole < PATIENCE, "a connection to {to} took {whole:?}");
    Ok((opened, whole))
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
