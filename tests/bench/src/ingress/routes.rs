//! Many routes: how long until the last one is served, the memory, and what a request to it costs.

use anyhow::{Context as _, Result};
use serde_json::json;

use super::load::{measure, wrk};
use super::plan::Plan;
use super::proxies::Proxy;
use super::results::{Rounds, by_proxy};
use super::site::{PATHS, PLAIN, host};
use super::stage::{Running, Stage, quiet, turn};
use crate::report::{Report, Table, number, spread, time};
use crate::series::Series;
use crate::service::progress;

/// Starts of each proxy.
const STARTS: usize = 3;

/// What a start came to.
struct Started {
    proxy: Proxy,
    seconds: Series,
    mebibytes: f64,
}

/// Starts all proxies with many hosts, measures requests to the first and the last of them, and adds the tables.
pub(crate) fn run(stage: &Stage, plan: &Plan, report: &mut Report) -> Result<()> {
    let last = host(plan.routes.saturating_sub(1));
    let (mut running, mut started) = (Vec::new(), Vec::new());
    for proxy in stage.proxies() {
        progress(&format!("{} hosts of {} paths: {}", plan.routes, PATHS.len(), proxy.name()));
        let (one, seconds) = start(stage, plan, proxy, &last)?;
        started.push(Started { proxy, seconds, mebibytes: one.mebibytes()? });
        running.push(one);
    }
    let (many, one) = requests(stage, plan, &running, &last)?;
    running.into_iter().for_each(Running::stop);
    report.table(&starts(plan, &started));
    let remarks = vec![
        "The last path of the last host, in the clear, and beside it a host that was there before them: wrk -t1 -c32."
            .to_owned(),
    ];
    report.table(&many.table(format!("Requests among {} hosts: the last one", plan.routes), remarks));
    let mut table = one.table(format!("Requests among {} hosts: the first one", plan.routes), Vec::new());
    table.remarks.clear();
    report.table(&table);
    let raw = started
        .iter()
        .map(|start| (start.proxy, json!({ "seconds": start.seconds.values(), "mebibytes": start.mebibytes })));
    report.raw("routes_start", by_proxy(raw));
    report.raw("routes_last_host", many.json());
    report.raw("routes_first_host", one.json());
    Ok(())
}

/// Starts it some times; the last one stays.
fn start(stage: &Stage, plan: &Plan, proxy: Proxy, last: &str) -> Result<(Running, Series)> {
    let mut seconds = Vec::new();
    loop {
        quiet(plan)?;
        let running = stage.start(proxy, plan.routes, last)?;
        seconds.push(running.start.as_secs_f64());
        if seconds.len() == STARTS {
            return Ok((running, seconds.into()));
        }
        running.stop();
    }
}

fn requests(stage: &Stage, plan: &Plan, running: &[Running], last: &str) -> Result<(Rounds, Rounds)> {
    let path = PATHS.last().copied().unwrap_or("/");
    let (mut many, mut one) = (Rounds::default(), Rounds::default());
    for round in 0..plan.rounds {
        progress(&format!("requests among {} hosts, round {} of {}", plan.routes, round + 1, plan.rounds));
        for running in turn(running, round) {
            let to = running.proxy.ports().http_address();
            for (rounds, host, path) in [(&mut many, last, path), (&mut one, PLAIN, "/")] {
                let url = format!("http://{to}{path}");
                let sample = measure(running, plan, || wrk(stage, &url, host, 32, plan));
                rounds.add(running.proxy, sample.with_context(|| format!("{}, {host}", running.proxy.name()))?);
            }
        }
    }
    Ok((many, one))
}

fn starts(plan: &Plan, started: &[Started]) -> Table {
    let row =
        |start: &Started| vec![start.proxy.name().to_owned(), spread(&start.seconds, time), number(start.mebibytes)];
    Table {
        title: format!("{} hosts of {} paths: start", plan.routes, PATHS.len()),
        head: ["proxy", "until the last host is served", "MiB"].map(str::to_owned).to_vec(),
        rows: started.iter().map(row).collect(),
        remarks: [
            "From the start of the process to its first right answer for the last host, reading the configuration included.",
            "roadstead: an Ingress a host, 100 in a file of YAML. nginx: a server block a host. haproxy: a map. envoy: virtual",
            "hosts by RDS from a file. Nobody has certificates for these hosts.",
        ]
        .map(str::to_owned)
        .to_vec(),
    }
}
