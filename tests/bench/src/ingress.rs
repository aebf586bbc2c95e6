//! `ingress`: what a request costs through Roadstead's proxy, beside nginx, HAProxy and Envoy.
//!
//! All proxies run side by side, each on the same one processor, and are gone through in turn, round by round, so that
//! what the machine does besides disturbs all of them alike. A ratio is the median of the rounds' own ratios to nginx.

mod cpu;
mod idle;
mod load;
mod plan;
mod proxies;
mod results;
mod routes;
mod site;
mod stage;
mod updates;

use std::time::Instant;

use anyhow::{Result, bail};
use serde_json::json;

use crate::machine::Machine;
use crate::report::Report;
use crate::service::progress;
use load::{Case, measure, sample, told};
use plan::{Part, Plan};
use proxies::Proxy;
use results::{Rounds, summary};
use site::PLAIN;
use stage::{Running, Stage, turn};

pub(crate) use plan::IngressFlags;

const TITLE: &str = "Ingress: Roadstead beside nginx, HAProxy and Envoy, each with one thread on the same processor";

/// Runs all of it and writes the result.
pub(crate) fn run(flags: &IngressFlags) -> Result<()> {
    if let Some(lack) = roadstead_lab::lack() {
        bail!(lack);
    }
    let started = Instant::now();
    let plan = Plan::of(flags);
    let machine = Machine::look(&versions(flags));
    let mut report = Report::new(TITLE, &flags.command, &machine);
    let stage = Stage::build(&machine, flags)?;
    for proxy in Proxy::ALL.into_iter().filter(|proxy| !stage.proxies().any(|other| other == *proxy)) {
        report.line(&format!("missing:   {} could not be had on this host", proxy.name()));
    }
    let measured = measure_parts(&stage, &plan, &mut report);
    drop(stage);
    // What was measured before a part failed is worth having.
    if let Err(error) = &measured {
        report.line(&format!("\nIncomplete: {error:#}"));
    }
    report.write(&flags.out, "ingress")?;
    progress(&format!("done in {} s", started.elapsed().as_secs()));
    measured
}

fn measure_parts(stage: &Stage, plan: &Plan, report: &mut Report) -> Result<()> {
    if plan.has(Part::Load) || plan.has(Part::Rate) {
        let running = stage.start_all()?;
        if plan.has(Part::Load) {
            saturate(stage, plan, &running, report)?;
        }
        if plan.has(Part::Rate) {
            pace(stage, plan, &running, report)?;
        }
        running.into_iter().for_each(Running::stop);
    }
    if plan.has(Part::Routes) {
        routes::run(stage, plan, report)?;
    }
    if plan.has(Part::Idle) {
        idle::run(stage, plan, report)?;
    }
    if plan.has(Part::Updates) {
        updates::run(stage, plan, report)?;
    }
    Ok(())
}

/// The programs whose versions a reader wants to know, each with the flag that tells it.
fn versions(flags: &IngressFlags) -> Vec<(String, &'static str)> {
    let envoy = flags.envoy.as_ref().map(|program| (program.display().to_string(), "--version"));
    let named = [("nginx", "-v"), ("haproxy", "-v"), ("wrk", "-v"), ("h2load", "--version")];
    named.map(|(program, flag)| (program.to_owned(), flag)).into_iter().chain(envoy).collect()
}

/// As many requests as one processor can do, in every case.
fn saturate(stage: &Stage, plan: &Plan, running: &[Running], report: &mut Report) -> Result<()> {
    let mut all: Vec<(Case, Rounds)> = Case::ALL.map(|case| (case, Rounds::default())).into();
    for round in 0..plan.rounds {
        for (case, rounds) in &mut all {
            progress(&format!("{}, round {} of {}", case.name(), round + 1, plan.rounds));
            for running in turn(running, round) {
                rounds.add(running.proxy, sample(stage, running, *case, plan)?);
            }
        }
    }
    let cases: Vec<_> = all.iter().map(|(case, rounds)| (case.name(), rounds)).collect();
    report.table(&summary(&cases));
    for (case, rounds) in &all {
        let remarks = vec![format!("{} rounds of {} s; {}.", plan.rounds, plan.seconds, case.client())];
        report.table(&rounds.table(format!("As fast as it goes: {}", case.name()), remarks));
    }
    let raw = all.iter().map(|(case, rounds)| (case.name().to_owned(), rounds.json()));
    report.raw("load", raw.collect::<serde_json::Map<_, _>>().into());
    Ok(())
}

/// Requests at a rate that all of them can take.
fn pace(stage: &Stage, plan: &Plan, running: &[Running], report: &mut Report) -> Result<()> {
    let (rate, millis) = (plan.rate.to_string(), (plan.seconds * 1000).to_string());
    let mut rounds = Rounds::default();
    for round in 0..plan.rounds {
        progress(&format!("{rate} requests a second, round {} of {}", round + 1, plan.rounds));
        for running in turn(running, round) {
            let to = running.proxy.ports().http_address().to_string();
            let arguments = ["pace", "--to", &to, "--host", PLAIN, "--rate", &rate, "--millis", &millis];
            rounds.add(running.proxy, measure(running, plan, || told(&stage.ask(&arguments)?))?);
        }
    }
    let remarks = vec![
        "Open loop over 32 connections: times count from when a request was due. On a virtual machine most of them is the".to_owned(),
        "waking of halted processors, which all proxies pay alike.".to_owned(),
    ];
    report.table(&rounds.table(format!("HTTP/1.1 keep-alive at {rate} requests a second"), remarks));
    report.raw("rate", json!({ "per_second": plan.rate, "proxies": rounds.json() }));
    Ok(())
}
