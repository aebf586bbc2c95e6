//! Changes: how long after a file's rename a new client gets the new answer, and which requests are lost meanwhile.

use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use roadstead_lab::{Process, wait_for, wait_until};
use serde_json::{Value, json};

use super::plan::Plan;
use super::proxies::{Notice, Proxy};
use super::results::by_proxy;
use super::site::{FLIPS, PLAIN, Side};
use super::stage::{Running, Stage, Turn, quiet};
use crate::report::{Report, Table, time};
use crate::series::Series;
use crate::service::progress;

/// How long one change may take.
const CHANGE: Duration = Duration::from_secs(30);
/// Between two changes: an old process of a peer has ended by then, and its last clients have noticed.
const SETTLE: Duration = Duration::from_millis(250);

/// What the changes of one proxy came to.
struct Changed {
    proxy: Proxy,
    seconds: Series,
    kept: Tally,
    fresh: Tally,
}

#[derive(Clone, Copy, Debug)]
struct Tally {
    asked: u64,
    lost: u64,
}

/// Changes one route of each proxy again and again, with few hosts and with many, and adds the tables.
pub(crate) fn run(stage: &Stage, plan: &Plan, report: &mut Report) -> Result<()> {
    for hosts in [0, plan.routes] {
        let mut all = Vec::new();
        // nginx logs in both of its rows or in none: its reload does not depend on it.
        for proxy in stage.proxies().filter(|proxy| *proxy != Proxy::NginxLogging) {
            progress(&format!("{} changes beside {hosts} hosts: {}", plan.edits, proxy.name()));
            quiet(plan)?;
            let running = stage.start_at(Turn::WithAll, proxy, hosts, PLAIN)?;
            let changed = change(stage, plan, &running);
            all.push(changed.with_context(|| format!("changes of {}", proxy.name()))?);
            running.stop();
        }
        report.table(&table(plan, hosts, &all));
        let raw = all.iter().map(|changed| (changed.proxy, changed.json()));
        report.raw(&format!("updates_beside_{hosts}_hosts"), by_proxy(raw));
    }
    Ok(())
}

fn change(stage: &Stage, plan: &Plan, running: &Running) -> Result<Changed> {
    let to = running.proxy.ports().http_address().to_string();
    let until = running.site.path("end-of-edits");
    let arguments = ["edits", "--to", &to, "--flips", FLIPS, "--stays", PLAIN, "--until", &until];
    let client = stage.spawn(&format!("edits-{}-{}", running.proxy.word(), running.site.hosts), &arguments)?;
    let mut side = Side::First;
    seen(&client, side, Duration::ZERO)?;
    let mut seconds = Vec::new();
    for _ in 0..plan.edits {
        thread::sleep(SETTLE);
        side = side.other();
        let began = running.proxy.flip(&running.site, side)?;
        if let Notice::Signal(signal) = running.proxy.notice() {
            running.signal(signal)?;
        }
        seconds.push(seen(&client, side, began)?.saturating_sub(began).as_secs_f64());
    }
    thread::sleep(SETTLE);
    fs::write(&until, "").context("the client cannot be ended")?;
    wait_until(CHANGE, "the client ends", || !client.is_running())?;
    let last = client.log_tail(1);
    let tallies: Value = serde_json::from_str(&last).with_context(|| format!("\"{last}\" is no tally"))?;
    let tally = |name: &str| -> Result<Tally> {
        let number = |field: &str| tallies.pointer(&format!("/{name}/{field}")).and_then(Value::as_u64);
        Ok(Tally { asked: number("asked").context("no number")?, lost: number("lost").context("no number")? })
    };
    Ok(Changed { proxy: running.proxy, seconds: seconds.into(), kept: tally("kept")?, fresh: tally("fresh")? })
}

/// When the client first got an answer of this side, not before `since`, on the monotonic clock.
fn seen(client: &Process, side: Side, since: Duration) -> Result<Duration> {
    let mark = side.mark().to_string();
    let found = wait_for(CHANGE, "the new answer", || {
        let log = client.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let of_side = lines.filter(|line| line.get("mark").and_then(Value::as_str) == Some(mark.as_str()));
        let mut times = of_side.filter_map(|line| line.get("nanoseconds")?.as_u64()).map(Duration::from_nanos);
        let time = times.find(|time| *time >= since);
        (time.is_some() || !client.is_running()).then_some(time)
    })?;
    match found {
        Some(time) => Ok(time),
        None => bail!("the client ended: {}", client.log_tail(3)),
    }
}

impl Changed {
    fn json(&self) -> Value {
        let tally = |tally: &Tally| json!({ "asked": tally.asked, "lost": tally.lost });
        json!({ "seconds": self.seconds.values(), "kept": tally(&self.kept), "fresh": tally(&self.fresh) })
    }
}

fn table(plan: &Plan, hosts: u32, all: &[Changed]) -> Table {
    let row = |changed: &Changed| {
        let lost = |tally: &Tally| format!("{} of {}", tally.lost, tally.asked);
        vec![
            changed.proxy.name().to_owned(),
            time(changed.seconds.median()),
            time(changed.seconds.quantile(0.99)),
            lost(&changed.kept),
            lost(&changed.fresh),
        ]
    };
    Table {
        title: format!("{} changes of one route beside {hosts} hosts: from the rename to the new answer", plan.edits),
        head: ["proxy", "median", "p99", "lost, keep-alive", "lost, new connections"].map(str::to_owned).to_vec(),
        rows: all.iter().map(row).collect(),
        remarks: [
            "roadstead and envoy (RDS from a file) watch their files; nginx gets SIGHUP, haproxy's master SIGUSR2. A lost",
            "request on a keep-alive connection is one that was sent and not answered with 200; browsers repeat such ones.",
            "Here alone all proxies run as any process does, on both processors and at the usual priority.",
        ]
        .map(str::to_owned)
        .to_vec(),
    }
}
