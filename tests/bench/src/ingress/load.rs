//! One sample: a client for some seconds, and what the proxy's processes ran meanwhile.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use super::cpu::Stretch;
use super::plan::Plan;
use super::site::{PLAIN, SECURE};
use super::stage::{Running, Stage, quiet};
use crate::series::Series;
use crate::worker::http::endpoint::LARGE;

/// What the client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Case {
    Http1,
    Tls,
    Http2,
    Handshakes,
    Large,
}

impl Case {
    pub(crate) const ALL: [Self; 5] = [Self::Http1, Self::Tls, Self::Http2, Self::Handshakes, Self::Large];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Http1 => "HTTP/1.1 keep-alive, 1 KiB",
            Self::Tls => "HTTP/1.1 over TLS, 1 KiB",
            Self::Http2 => "HTTP/2 over TLS, 1 KiB",
            Self::Handshakes => "new TLS 1.3 connection, one request",
            Self::Large => "HTTP/1.1 keep-alive, 1 MiB",
        }
    }

    /// The client, for a remark.
    pub(crate) fn client(self) -> &'static str {
        match self {
            Self::Http1 | Self::Tls => "wrk -t1 -c32",
            Self::Http2 => "h2load -t1 -c8 -m16",
            Self::Handshakes => "own client, 16 at once, no resumption, ECDSA P-256, nothing verified by the client",
            Self::Large => "wrk -t1 -c8",
        }
    }
}

/// What one sample came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// Microseconds that the proxy ran for one request.
    pub(crate) cpu: f64,
    pub(crate) per_second: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    /// Processors that others kept busy meanwhile.
    pub(crate) foreign: f64,
}

/// What a client tells.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told {
    pub(crate) count: f64,
    pub(crate) per_second: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

/// Takes a sample.
pub(crate) fn sample(stage: &Stage, running: &Running, case: Case, plan: &Plan) -> Result<Sample> {
    let ports = running.proxy.ports();
    let (plain, secure) = (ports.http_address(), ports.https_address());
    measure(running, plan, || match case {
        Case::Http1 => wrk(stage, &format!("http://{plain}/"), PLAIN, 32, plan),
        Case::Tls => wrk(stage, &format!("https://{secure}/"), SECURE, 32, plan),
        Case::Large => wrk(stage, &format!("http://{plain}{LARGE}"), PLAIN, 8, plan),
        Case::Http2 => h2load(stage, secure, plan),
        Case::Handshakes => {
            let millis = (plan.seconds * 1000).to_string();
            let to = secure.to_string();
            told(&stage.ask(&["handshakes", "--to", &to, "--host", SECURE, "--millis", &millis])?)
        }
    })
    .with_context(|| format!("{}, {}", running.proxy.name(), case.name()))
}

/// What the proxy runs while a client is at work.
pub(crate) fn measure(running: &Running, plan: &Plan, client: impl FnOnce() -> Result<Told>) -> Result<Sample> {
    quiet(plan)?;
    let (stretch, before) = (Stretch::begin()?, running.nanoseconds()?);
    let told = client()?;
    let (after, foreign) = (running.nanoseconds()?, stretch.foreign()?);
    running.empty_logs()?;
    let cpu = after.saturating_sub(before) as f64 / 1e3 / told.count.max(1.0);
    Ok(Sample { cpu, per_second: told.per_second, p50_ms: told.p50_ms, p99_ms: told.p99_ms, foreign })
}

impl Sample {
    pub(crate) fn json(samples: &[Self]) -> Value {
        let all = |field: fn(&Self) -> f64| samples.iter().map(field).collect::<Vec<_>>();
        json!({
            "cpu_us": all(|sample| sample.cpu),
            "per_second": all(|sample| sample.per_second),
            "p50_ms": all(|sample| sample.p50_ms),
            "p99_ms": all(|sample| sample.p99_ms),
            "foreign_processors": all(|sample| sample.foreign),
        })
    }
}

/// The answer of a client of our own.
pub(crate) fn told(answer: &Value) -> Result<Told> {
    let number = |name: &str| answer.get(name).and_then(Value::as_f64).with_context(|| format!("no {name}"));
    ensure!(number("failed")? < 1.0, "requests failed: {answer}");
    Ok(Told {
        count: number("count")?,
        per_second: number("per_second")?,
        p50_ms: number("p50_ms")?,
        p99_ms: number("p99_ms")?,
    })
}

/// Keep-alive connections that each ask again as soon as they are answered.
pub(crate) fn wrk(stage: &Stage, url: &str, host: &str, connections: u32, plan: &Plan) -> Result<Told> {
    let mut command = Command::new("wrk");
    command.args(["--threads", "1", "--connections", &connections.to_string(), "--latency"]);
    command.args(["--duration", &format!("{}s", plan.seconds), "--header", &format!("Host: {host}"), url]);
    let output = stage.run(&command)?;
    parse_wrk(&String::from_utf8_lossy(&output.stdout))
}

fn parse_wrk(text: &str) -> Result<Told> {
    if let Some(line) = text.lines().map(str::trim).find(|line| line.starts_with("Non-2xx")) {
        bail!("{line}");
    }
    let field = |name: &str| {
        let lines = text.lines().map(str::trim);
        let value = lines.filter_map(|line| line.strip_prefix(name)).map(str::trim).next();
        value.with_context(|| format!("wrk does not tell {name}"))
    };
    let count = text.lines().find_map(|line| line.split_once(" requests in ")?.0.trim().parse().ok());
    Ok(Told {
        count: count.context("wrk tells no number of requests")?,
        per_second: field("Requests/sec:")?.parse().context("no rate")?,
        p50_ms: millis(field("50%")?)?,
        p99_ms: millis(field("99%")?)?,
    })
}

/// `1.20ms`, `960.00us` or `1.05s`.
fn millis(text: &str) -> Result<f64> {
    let units = [("us", 1e-3), ("ms", 1.0), ("s", 1e3), ("m", 6e4)];
    let parsed = units.iter().find_map(|(unit, factor)| Some(text.strip_suffix(unit)?.parse::<f64>().ok()? * factor));
    parsed.with_context(|| format!("{text} is no time"))
}

/// About as many as the faster ones do in a second.
const H2_REQUESTS: u64 = 15_000;

/// Eight connections with sixteen streams each.
fn h2load(stage: &Stage, to: SocketAddr, plan: &Plan) -> Result<Told> {
    let log = stage.file("h2load.log");
    let _none = fs::remove_file(&log);
    let mut command = Command::new("h2load");
    command.args(["--threads=1", "--clients=8", "--max-concurrent-streams=16"]);
    // A number and no duration: at the end of one, h2load may wait for an answer for ever (seen with 1.52).
    command.args([&format!("--requests={}", plan.seconds * H2_REQUESTS), &format!("--connect-to={to}")]);
    command.arg(format!("--log-file={}", log.display())).arg(format!("https://{SECURE}/"));
    let output = stage.run(&command)?;
    let times = fs::read_to_string(&log).context("h2load wrote no times")?;
    parse_h2load(&String::from_utf8_lossy(&output.stdout), &times)
}

/// What it prints, and its file with a line a request: start, status, microseconds.
fn parse_h2load(text: &str, times: &str) -> Result<Told> {
    let part = |end: &str| {
        let parts = text.lines().filter(|line| line.starts_with("requests:")).flat_map(|line| line.split([',', ':']));
        parts.filter_map(|part| part.trim().strip_suffix(end)?.trim().parse::<f64>().ok()).next()
    };
    let (done, good) = (part("done").context("h2load tells no number")?, part("succeeded").unwrap_or_default());
    ensure!(done > 0.0 && good >= done, "{} of {done} requests failed", done - good);
    let rate = text.lines().find_map(|line| line.split_once("finished in ")?.1.split(", ").nth(1));
    let rate = rate.and_then(|rate| rate.strip_suffix(" req/s")?.parse().ok()).context("h2load tells no rate")?;
    let times: Series = times
        .lines()
        .filter_map(|line| line.split('\t').nth(2)?.parse::<f64>().ok())
        .map(|micros| micros / 1e3)
        .collect();
    Ok(Told { count: good, per_second: rate, p50_ms: times.median(), p99_ms: times.quantile(0.99) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRK: &str = "Running 1s test @ http://127.0.0.1:8080/
  1 threads and 8 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency    95.04us   98.92us   2.87ms   99.10%
  Latency Distribution
     50%   92.00us
     99%    1.80ms
  63172 requests in 1.00s, 8.92MB read
Requests/sec:  63143.84
";

    const H2LOAD: &str = "finished in 1.00s, 8000.00 req/s, 523.95KB/s
requests: 8000 total, 8120 started, 8000 done, 8000 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 8000 2xx, 0 3xx, 0 4xx, 0 5xx
";

    fn check(told: Result<Told>, expected: [f64; 4]) {
        let told = told.unwrap();
        assert_eq!([told.count, told.per_second, told.p50_ms, told.p99_ms], expected);
    }

    #[test]
    fn what_clients_print_is_read() {
        check(parse_wrk(WRK), [63172.0, 63143.84, 0.092, 1.8]);
        check(parse_h2load(H2LOAD, "1\t200\t1000\n2\t200\t3000\n3\t200\t2000\n"), [8000.0, 8000.0, 2.0, 2.98]);
    }

    #[test]
    fn failed_requests_are_no_figures() {
        assert!(parse_wrk(&format!("{WRK}  Non-2xx or 3xx responses: 7\n")).is_err());
        assert!(parse_h2load(&H2LOAD.replace("8000 succeeded", "7000 succeeded"), "").is_err());
    }
}
