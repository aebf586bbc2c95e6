//! New TLS connections: each is opened, asks once and is closed.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use clap::Args;
use serde_json::json;

use super::tls::Connector;
use super::{Reader, request};
use crate::series::Series;

/// The flags of `roadstead-bench handshakes`.
#[derive(Args, Debug)]
pub(crate) struct HandshakeFlags {
    /// Address and port
    #[arg(long)]
    to: SocketAddr,
    /// The name in SNI and Host
    #[arg(long)]
    host: String,
    /// How long new connections are begun
    #[arg(long)]
    millis: u64,
    /// Connections at once
    #[arg(long, default_value_t = 16)]
    parallel: usize,
}

/// Prints one line of JSON: how many, how many failed, connections a second, and milliseconds until the answer was read.
pub(crate) fn run(flags: &HandshakeFlags) -> Result<()> {
    let connector = Connector::new(&flags.host)?;
    let (started, length) = (Instant::now(), Duration::from_millis(flags.millis));
    let client = || {
        let (mut times, mut failed, wanted) = (Vec::new(), 0_u64, request(&flags.host, "/"));
        while started.elapsed() < length {
            let began = Instant::now();
            match one(&connector, flags.to, &wanted) {
                Ok(200) => times.push(began.elapsed().as_secs_f64() * 1e3),
                _ => failed += 1,
            }
        }
        (times, failed)
    };
    let done: Vec<Result<_>> = thread::scope(|scope| {
        let clients: Vec<_> = (0..flags.parallel).map(|_| scope.spawn(client)).collect();
        clients.into_iter().map(|client| client.join().map_err(|_| anyhow!("a client panicked"))).collect()
    });
    let elapsed = started.elapsed();
    let (mut times, mut failed) = (Vec::new(), 0);
    for client in done {
        let (some, more) = client?;
        times.extend(some);
        failed += more;
    }
    let count = times.len();
    let times = Series::from(times);
    let line = json!({
        "count": count,
        "failed": failed,
        "per_second": count as f64 / elapsed.as_secs_f64(),
        "p50_ms": times.median(),
        "p99_ms": times.quantile(0.99),
    });
    println!("{line}");
    Ok(())
}

fn one(connector: &Connector, to: SocketAddr, request: &[u8]) -> Result<u16> {
    let mut stream = connector.open(to).context("no handshake")?;
    Ok(Reader::default().ask(&mut stream, request).context("no answer")?.status)
}
