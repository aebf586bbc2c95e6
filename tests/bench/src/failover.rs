//! `failover`: how long nobody serves an address when its owner goes, beside keepalived.
//!
//! Every contestant has a lab of its own, a segment of the same shape: nodes, a client that sends a datagram a millisecond
//! to an address of each family, and a bystander that asks every 10 ms who has it. The figures are what those two see.

mod keepalived;
mod plan;
mod results;
mod rounds;
mod site;
mod team;
mod watch;

use std::time::Instant;

use anyhow::{Result, bail};

use crate::machine::Machine;
use crate::report::Report;
use crate::service::progress;
use plan::Plan;
use rounds::{Player, Sample};

pub(crate) use plan::FailoverFlags;

const TITLE: &str = "Failover: Roadstead's speakers beside keepalived";

/// What the tables' columns mean.
const REMARKS: [&str; 7] = [
    "Outage: from the client's last answer before to its first answer behind, at one datagram a millisecond; lost: datagrams",
    "that nobody answered, median and most of a round. ARP/NDP silence: the same for who asks every 10 ms who has the address.",
    "Two answered: questions of either kind that two nodes answered, and in how many rounds.",
    "The client's neighbour entry is whatever its kernel made of it; it has used the address for over a second before.",
    "keepalived has the address on the owner's device and takes it off; where it is killed with -9 the kernel goes on answering.",
    "Roadstead's nodes serve the address whoever announces it: by the agent, or (roadstead) by a route of type local.",
    "Everything that is measured runs before ordinary work (SCHED_RR), client and echo servers before that (SCHED_FIFO).",
];

/// Runs all of it and writes the result.
pub(crate) fn run(flags: &FailoverFlags) -> Result<()> {
    if let Some(lack) = roadstead_lab::lack() {
        bail!(lack);
    }
    if !roadstead_lab::hurry_all() {
        progress("no right to real-time priority: what else the machine does will show in the figures");
    }
    let (started, plan) = (Instant::now(), Plan::of(flags));
    let machine = Machine::look(&[("keepalived".to_owned(), "--version")]);
    let mut report = Report::new(TITLE, &flags.command, &machine);
    report.line(&format!("nodes:     {}", plan.nodes));
    let mut samples = Vec::new();
    let measured = measure(&plan, &mut samples);
    for fault in &plan.faults {
        results::tables(&samples, *fault).iter().for_each(|table| report.table(table));
    }
    report.line("");
    REMARKS.iter().for_each(|remark| report.line(remark));
    report.raw("nodes", plan.nodes.into());
    report.raw("rounds", results::raw(&samples));
    // What was measured before something failed is worth having.
    if let Err(error) = &measured {
        report.line(&format!("\nIncomplete: {error:#}"));
    }
    report.write(&flags.out, "failover")?;
    progress(&format!("done in {} s", started.elapsed().as_secs()));
    measured
}

fn measure(plan: &Plan, samples: &mut Vec<Sample>) -> Result<()> {
    let players = plan.contestants.iter().map(|contestant| Player::start(*contestant, plan.nodes));
    let mut players = players.collect::<Result<Vec<_>>>()?;
    plan.faults.iter().try_for_each(|fault| rounds::run(&mut players, *fault, plan, samples))
}
