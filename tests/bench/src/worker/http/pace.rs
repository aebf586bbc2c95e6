//! Requests at a fixed rate, whatever the answers do: a late answer does not put off the next request of another
//! connection, and every time is counted from when its request was due (open loop), so that a stall is seen by all that
//! it kept waiting.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use clap::Args;
use serde_json::json;

use super::{Reader, connect, request};
use crate::series::Series;

/// The flags of `roadstead-bench pace`.
#[derive(Args, Debug)]
pub(crate) struct PaceFlags {
    /// Address and port
    #[arg(long)]
    to: SocketAddr,
    /// The name in Host
    #[arg(long)]
    host: String,
    /// Requests a second, over all connections
    #[arg(long)]
    rate: u32,
    /// How long
    #[arg(long)]
    millis: u64,
    /// Keep-alive connections that take turns
    #[arg(long, default_value_t = 32)]
    connections: u32,
}

/// Prints one line of JSON: how many, how many failed, and milliseconds from when a request was due to its answer.
pub(crate) fn run(flags: &PaceFlags) -> Result<()> {
    let between = Duration::from_secs(1).checked_div(flags.rate).context("no rate")?;
    let total = u32::try_from(u64::from(flags.rate) * flags.millis / 1000).context("too many requests")?;
    // Connections are made before the first request is due.
    let start = Instant::now() + Duration::from_millis(100);
    let client = |first: u32| -> Result<(Vec<f64>, u64)> {
        let (wanted, mut reader) = (request(&flags.host, "/"), Reader::default());
        let (mut stream, mut times, mut failed) = (connect(flags.to)?, Vec::new(), 0);
        for number in (first..total).step_by(flags.connections as usize) {
            let due = start + between * number;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            match reader.ask(&mut stream, &wanted) {
                Ok(answer) if answer.status == 200 && answer.stays_open => {
                    times.push(due.elapsed().as_secs_f64() * 1e3);
                }
                _ => {
                    failed += 1;
                    stream = connect(flags.to)?;
                }
            }
        }
        Ok((times, failed))
    };
    let done: Vec<Result<_>> = thread::scope(|scope| {
        let clients: Vec<_> = (0..flags.connections).map(|first| scope.spawn(move || client(first))).collect();
        clients.into_iter().map(|client| client.join().map_err(|_| anyhow!("a client panicked"))?).collect()
    });
    let (mut times, mut failed) = (Vec::new(), 0);
    for client in done {
        let (some, more) = client?;
        times.extend(some);
        failed += more;
    }
    let (count, times) = (times.len(), Series::from(times));
    let line = json!({
        "count": count,
        "failed": failed,
        "per_second": count as f64 * 1e3 / flags.millis as f64,
        "p50_ms": times.median(),
        "p99_ms": times.quantile(0.99),
    });
    println!("{line}");
    Ok(())
}
