//! Daemons that die: an address moves to the other node, and forwarding does not need the agent.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::checks;
use super::cluster::Cluster;
use super::rows::WEB;
use super::table::{self, Shown, Table};
use crate::daemon::Program;
use crate::lab::Lab;
use crate::probe::Probe;
use crate::wait::{wait_for, wait_until};

/// How long a failover may take.
const SOON: Duration = Duration::from_secs(1);
/// How long one look at who answers takes.
const LOOK: Duration = Duration::from_millis(10);
/// New connections a second while something is killed.
const RATE: u32 = 200;

/// Kills daemons and shows what follows.
pub(super) fn show(cluster: &Cluster<'_>, table: &mut Table) {
    let [address, _] = cluster.web;
    table.section(&format!("Daemons killed with -9, under {RATE} new connections a second to {address}"));
    let Ok(owner) = checks::owner(cluster.lab, address, 10 * LOOK) else {
        table.row("kill", "the speaker that announces", || checks::announced(cluster.lab, address));
        return;
    };
    let speaker = format!("the speaker of {owner}, which announces");
    table.row("kill", &speaker, || speaker_dies(cluster, &owner, address));
    table.row("start", &format!("the speaker of {owner} again"), || {
        let started = Instant::now();
        cluster.restart(cluster.lab.node(&owner), Program::Speaker)?;
        // Its election and the other's retreat are two messages apart; a moment in between both may answer.
        let answers = || {
            // A short look tells when, a long one that it is so.
            checks::owner(cluster.lab, address, LOOK).ok()?;
            let took = started.elapsed();
            checks::announced(cluster.lab, address).ok().map(|shown| (took, shown))
        };
        let (took, shown) = wait_for(10 * SOON, &format!("one node alone answers for {address}"), answers)?;
        ensure!(took < SOON, "{}, but only after {took:.1?}", shown.answered);
        Ok(Shown { took, ..shown })
    });
    table.row("kill", "both agents, and start them again", || agents_die(cluster, address));
}

fn speaker_dies(cluster: &Cluster<'_>, owner: &str, address: IpAddr) -> Result<Shown> {
    let lab = cluster.lab;
    let load = lab.client().load((address, 9000), RATE)?;
    cluster.kill(lab.node(owner), Program::Speaker)?;
    let killed = Instant::now();
    let mut other = None;
    wait_until(10 * SOON, "another node answers", || {
        other = checks::owner(lab, address, LOOK).ok().filter(|name| name != owner);
        other.is_some()
    })?;
    let took = killed.elapsed();
    let report = load.finish()?;
    let other = other.context("somebody answered")?;
    ensure!(took < SOON, "{other} answers only after {took:.1?}");
    let gap = Duration::from_micros(report.longest_gap_us);
    ensure!(gap < SOON, "no connection was answered for {gap:.1?}");
    let answered = format!("{other}; gap {}, {} failed", table::time(gap), report.failed);
    Ok(Shown { answered, took })
}

fn agents_die(cluster: &Cluster<'_>, address: IpAddr) -> Result<Shown> {
    let (lab, started) = (cluster.lab, Instant::now());
    let load = lab.client().load((address, 9000), RATE)?;
    for node in lab.nodes() {
        cluster.kill(node, Program::Agent)?;
    }
    served(lab, address).context("without agents")?;
    for node in lab.nodes() {
        cluster.restart(node, Program::Agent)?;
    }
    served(lab, address).context("with new agents")?;
    let report = load.finish()?;
    ensure!(report.failed == 0, "{} of {} connections failed: {:?}", report.failed, report.answered, report.errors);
    Ok(Shown { answered: format!("{} connections, 0 failed", report.answered), took: started.elapsed() })
}

fn served(lab: &Lab, address: IpAddr) -> Result<Shown> {
    checks::balanced(lab.client(), &Probe::tcp((address, 9000)), WEB)
}
