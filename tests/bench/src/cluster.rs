//! `cluster`: what a large cluster costs those who follow its API server, beside kube-proxy.
//!
//! A real control plane holds the Services and EndpointSlices; every contestant has a node of its own, and is gone through in
//! turn, round by round, so that what the machine does besides disturbs all of them alike. All of it stands on one machine: the
//! API server, which sends every list, takes its processor time from the same ones.

mod fill;
mod objects;
mod plan;
mod results;
mod rounds;
mod site;
mod team;
mod usage;

use std::time::Instant;

use anyhow::{Result, bail};
use roadstead_lab::cluster::{self, ProxyMode};

use crate::machine::Machine;
use crate::report::Report;
use crate::service::progress;
use crate::state::Side;
use plan::{Contestant, Plan};
use results::{Results, idle_raw, idle_table};
use rounds::Match;
use site::Site;

pub(crate) use plan::ClusterFlags;

const TITLE: &str = "A large cluster: Roadstead beside kube-proxy, from one API server";

/// What kube-proxy writes its rules with.
const VERSIONS: [&str; 1] = ["nft"];

/// Runs all of it and writes the result.
pub(crate) fn run(flags: &ClusterFlags) -> Result<()> {
    if let Some(lack) = cluster::lack().or_else(cluster::lack_of_controllers) {
        bail!(lack);
    }
    let started = Instant::now();
    let mut plan = Plan::of(flags);
    let machine = Machine::look(&VERSIONS.map(|program| (program.to_owned(), "--version")));
    let mut report = Report::new(TITLE, &flags.command, &machine);
    report.line(&format!("cluster:   {} Services of 5 endpoints, {} rounds", plan.services, plan.rounds));
    if let Some(lack) = cluster::lack_of_kube_proxy(ProxyMode::Nftables)
        && plan.contestants.contains(&Contestant::KubeProxy)
    {
        plan.contestants.retain(|contestant| *contestant != Contestant::KubeProxy);
        report.line(&format!("missing:   {lack}"));
    }
    progress(&format!("a control plane with {} Services", plan.services));
    let site = Site::build(plan.services)?;
    let mut samples = Vec::new();
    let mut game = Match { site: &site, plan: &plan, side: Side::First };
    let played = rounds::run(&mut game, &mut samples);
    let results = Results(&samples);
    results.tables().iter().filter(|table| !table.rows.is_empty()).for_each(|table| report.table(table));
    report.raw("rounds", results.raw());
    let done = played.and_then(|()| {
        let idle = game.idle()?;
        report.table(&idle_table(&idle, &plan));
        report.raw("idle", idle_raw(&idle));
        Ok(())
    });
    // What was measured before something failed is worth having, and so are the logs.
    if let Err(error) = &done {
        site.lab.keep_evidence();
        report.line(&format!("\nIncomplete: {error:#}"));
    }
    drop(site);
    report.write(&flags.out, "cluster")?;
    progress(&format!("done in {} s", started.elapsed().as_secs()));
    done
}
