//! `service`: what a Service costs, beside kube-proxy's rules and beside no Service at all.
//!
//! All modes are loaded with the same Services, then gone through in turn, round by round, so that what the machine does
//! besides disturbs all of them alike. Times are medians over rounds; a ratio is the median of the rounds' own ratios.

mod changes;
mod connections;
mod streams;

use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use crate::agent::{self, Agent};
use crate::load;
use crate::machine::Machine;
use crate::plan::{Plan, ServiceFlags};
use crate::report::{Report, Table, number};
use crate::stage::{Mode, Stage, Way};

const TITLE: &str = "Service load balancing: Roadstead beside kube-proxy's rules for nftables and iptables";

/// Runs all of it and writes the result.
pub(crate) fn run(flags: &ServiceFlags) -> Result<()> {
    if let Some(lack) = roadstead_lab::lack() {
        bail!(lack);
    }
    let started = Instant::now();
    let (plan, machine) = (Plan::of(flags), Machine::look());
    let mut report = Report::new(TITLE, &flags.command, &machine);
    let mut field = Field::build(&machine)?;
    let mut connections = connections::Results::default();
    let mut changes = changes::Results::default();
    for &size in &plan.sizes {
        changes.fill(&mut field, &plan, size)?;
        field.verify(size)?;
        connections.fill(&field, &plan, size)?;
    }
    let largest = plan.sizes.last().copied().unwrap_or(1);
    let streams = streams::measure(&field, &plan)?;
    changes.report(&mut report, &plan);
    connections.report(&mut report, &plan);
    streams::report(&mut report, &streams, largest);
    report_memory(&mut report, &field, &changes, largest)?;
    drop(field);
    report.write(&flags.out, "service")?;
    progress(&format!("done in {} s", started.elapsed().as_secs()));
    Ok(())
}

/// A line for who waits.
pub(crate) fn progress(what: &str) {
    eprintln!("bench: {what}");
}

/// The stages of all modes, side by side.
pub(crate) struct Field {
    pub(crate) stages: Vec<Stage>,
    pub(crate) agent: Option<Agent>,
}

impl Field {
    fn build(machine: &Machine) -> Result<Self> {
        let all = [Mode::Direct, Mode::Roadstead, Mode::Nftables, Mode::IptablesNft, Mode::IptablesLegacy];
        let mut stages = Vec::new();
        for mode in all {
            if !load::is_available(mode) {
                progress(&format!("{} is left out: this host does not have it", mode.name()));
                continue;
            }
            stages.push(Stage::build(mode, machine.measuring_cpu())?);
        }
        Ok(Self { stages, agent: None })
    }

    pub(crate) fn modes(&self) -> impl Iterator<Item = Mode> {
        self.stages.iter().map(|stage| stage.mode)
    }

    /// The stages from another one on in every round, so that none always follows the same neighbour.
    pub(crate) fn turn(&self, round: usize) -> impl Iterator<Item = &Stage> {
        let count = self.stages.len();
        self.stages.iter().cycle().skip(round % count.max(1)).take(count)
    }

    /// A connection on every way of every mode: a rule set that does not forward has no figures.
    fn verify(&self, size: u32) -> Result<()> {
        for stage in &self.stages {
            for way in Way::ALL {
                let tried = stage.connect(way, &stage.state(size), 3);
                tried.with_context(|| format!("{} with {size} Services, {}", stage.mode.name(), way.name()))?;
            }
        }
        Ok(())
    }
}

fn report_memory(report: &mut Report, field: &Field, changes: &changes::Results, size: u32) -> Result<()> {
    let agent = field.agent.as_ref().context("no agent")?;
    let taken = agent.memory()?;
    let row = |name: &str, mib: f64| vec![name.to_owned(), format!("{} MiB", number(mib))];
    let mut rows = vec![
        row("roadstead: the agent's process", taken.process),
        row("roadstead: maps and programs in the kernel", taken.kernel),
    ];
    rows.extend(
        changes.peaks(size).map(|(mode, peak)| row(&format!("{}: peak of the loading process", mode.name()), peak)),
    );
    let remarks = vec!["What the kernel keeps of the peers' rules is not charged to anybody and not shown.".to_owned()];
    report.table(&Table { title: format!("Memory with {size} Services"), head: Vec::new(), rows, remarks });
    report.raw("memory", json!({ "agent_mib": taken.process, "kernel_mib": taken.kernel, "maps_mib": taken.maps }));
    Ok(())
}

/// Starts the agent anew with a state, as often as the plan says; the last one stays.
pub(crate) fn start_agents(field: &mut Field, stage: usize, size: u32, starts: usize) -> Result<Vec<(f64, f64)>> {
    let stage = field.stages.get(stage).context("no such stage")?;
    if let Some(agent) = field.agent.take() {
        agent.stop()?;
    }
    agent::write_manifests(stage, &stage.state(size))?;
    let mut figures = Vec::new();
    for _ in 0..starts {
        if let Some(agent) = field.agent.take() {
            agent.stop()?;
        }
        let agent = Agent::start_cold(stage)?;
        figures.push((agent.first.micros / 1e6, agent.start.as_secs_f64()));
        field.agent = Some(agent);
    }
    Ok(figures)
}
