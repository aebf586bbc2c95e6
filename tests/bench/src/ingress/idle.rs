//! Idle connections: how much more memory a proxy needs while it holds many that have asked once.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use roadstead_lab::wait_until;
use serde_json::json;

use super::plan::Plan;
use super::proxies::Proxy;
use super::results::by_proxy;
use super::site::{PLAIN, SECURE};
use super::stage::{Stage, quiet};
use crate::report::{Report, Table, number};
use crate::service::progress;
use crate::worker::http::hold;

/// How long all connections may take to be made.
const OPENING: Duration = Duration::from_secs(60);
/// The descriptors of a process that are not clients' connections: endpoints', listeners, files.
const OTHER_FILES: u64 = 1_000;

/// What carries the connections.
#[derive(Clone, Copy, Debug)]
enum Over {
    Tcp,
    Tls,
}

/// One proxy's figures.
struct Held {
    proxy: Proxy,
    /// MiB before anybody came.
    empty: f64,
    /// KiB a connection in the clear.
    plain: f64,
    /// KiB a connection over TLS.
    tls: f64,
}

/// Holds connections to one proxy after the other, each started for it, and adds the table.
pub(crate) fn run(stage: &Stage, plan: &Plan, report: &mut Report) -> Result<()> {
    let most = usize::try_from(stage.files.saturating_sub(OTHER_FILES))?;
    let (plain, tls) = (plan.idle.min(most), plan.idle_tls.min(most));
    let mut all = Vec::new();
    for proxy in stage.proxies() {
        progress(&format!("{plain} idle connections: {}", proxy.name()));
        let (_, plain) = hold_on(stage, plan, proxy, plain, Over::Tcp)?;
        let (empty, tls) = hold_on(stage, plan, proxy, tls, Over::Tls)?;
        all.push(Held { proxy, empty, plain, tls });
    }
    let mut remarks =
        vec!["Shared pages are divided among those who share them (PSS). Every connection has asked once.".to_owned()];
    if plain < plan.idle {
        remarks.push(format!("{plain} and not {}: a process here may have {} files.", plan.idle, stage.files));
    }
    let head =
        ["proxy", "MiB, no connections", &format!("KiB each of {plain}"), &format!("KiB each of {tls} over TLS")];
    let row =
        |held: &Held| vec![held.proxy.name().to_owned(), number(held.empty), number(held.plain), number(held.tls)];
    report.table(&Table {
        title: "Memory of idle keep-alive connections".to_owned(),
        head: head.map(str::to_owned).to_vec(),
        rows: all.iter().map(row).collect(),
        remarks,
    });
    let raw = all.iter().map(|held| {
        (held.proxy, json!({ "empty_mib": held.empty, "plain_kib_each": held.plain, "tls_kib_each": held.tls }))
    });
    report.raw("idle", by_proxy(raw));
    Ok(())
}

/// MiB before, and KiB more for each connection.
fn hold_on(stage: &Stage, plan: &Plan, proxy: Proxy, count: usize, over: Over) -> Result<(f64, f64)> {
    let running = stage.start(proxy, 0, PLAIN)?;
    quiet(plan)?;
    let empty = running.mebibytes()?;
    let ports = proxy.ports();
    let (to, host, flag) = match over {
        Over::Tcp => (ports.http_address(), PLAIN, None),
        Over::Tls => (ports.https_address(), SECURE, Some("--tls")),
    };
    let (to, number) = (to.to_string(), count.to_string());
    let mut arguments = vec!["hold", "--to", &to, "--host", host, "--count", &number];
    arguments.extend(flag);
    let client = stage.spawn("hold", &arguments)?;
    let waited = wait_until(OPENING, "the connections are held", || {
        client.log().contains(hold::HOLDING) || !client.is_running()
    });
    waited.with_context(|| format!("{}: {}", proxy.name(), client.log_tail(3)))?;
    ensure!(client.is_running(), "the client of {} ended: {}", proxy.name(), client.log_tail(3));
    let full = running.mebibytes()?;
    client.kill()?;
    running.stop();
    Ok((empty, (full - empty) * 1024.0 / count as f64))
}
