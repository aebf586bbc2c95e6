//! `service`: what a Service costs, beside kube-proxy's rules and beside no Service at all.
//!
//! All modes are loaded with the same Services, then gone through in turn, round by round, so that what the machine does
//! besides disturbs all of them alike. Times are medians over rounds; a ratio is the median of the rounds' own ratios.

mod changes;
mod connections;
mod packets;
mod streams;

use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use crate::agent::{self, Agent, Memory};
use crate::load;
use crate::machine::Machine;
use crate::plan::{Plan, ServiceFlags};
use crate::report::{Report, Table, number};
use crate::stage::{Mode, Stage, Way};

const TITLE: &str = "Service load balancing: Roadstead beside kube-proxy's rules for nftables and iptables";

/// The programs whose versions a reader wants to know.
const VERSIONS: [&str; 2] = ["nft", "iptables"];

/// Runs all of it and writes the result.
pub(crate) fn run(flags: &ServiceFlags) -> Result<()> {
    if let Some(lack) = roadstead_lab::lack() {
        bail!(lack);
    }
    let started = Instant::now();
    let (plan, machine) = (Plan::of(flags), Machine::look(&VERSIONS.map(|program| (program.to_owned(), "--version"))));
    let mut report = Report::new(TITLE, &flags.command, &machine);
    let mut field = Field::build(&machine)?;
    let mut connections = connections::Results::default();
    let mut changes = changes::Results::default();
    let (mut packets, mut streams, mut memory) = (packets::Results::default(), None, Vec::new());
    for size in plan.all_sizes() {
        let is_shared = plan.sizes.contains(&size);
        changes.fill(&mut field, &plan, size, is_shared)?;
        if is_shared {
            field.verify(size)?;
            connections.fill(&field, &plan, size)?;
        }
        if plan.sizes.last() == Some(&size) {
            streams = Some(streams::measure(&field, &plan)?);
        }
        memory.push((size, field.agent.as_ref().context("no agent")?.memory()?));
        packets.fill(&mut field, &plan, size)?;
    }
    connections.report(&mut report, &plan);
    if let Some(streams) = &streams {
        streams::report(&mut report, streams, plan.sizes.last().copied().unwrap_or(1));
    }
    changes.report(&mut report, &plan);
    packets.report(&mut report);
    report_memory(&mut report, &memory, &changes);
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

fn report_memory(report: &mut Report, memory: &[(u32, Memory)], changes: &changes::Results) {
    let mut head = vec!["MiB".to_owned()];
    head.extend(memory.iter().map(|(size, _)| format!("{size} Services")));
    let row = |name: String, figure: &dyn Fn(u32, &Memory) -> Option<f64>| {
        let cells = memory.iter().map(|(size, taken)| figure(*size, taken).map_or("-".to_owned(), number));
        [name].into_iter().chain(cells).collect()
    };
    let mut rows = vec![
        row("roadstead: the agent's process".to_owned(), &|_, taken| Some(taken.process)),
        row("roadstead: maps and programs in the kernel".to_owned(), &|_, taken| Some(taken.kernel)),
    ];
    rows.extend(
        changes.loaders().map(|mode| {
            row(format!("{}: peak of the loading process", mode.name()), &|size, _| changes.peak(size, mode))
        }),
    );
    let remarks = vec!["What the kernel keeps of the peers' rules is not charged to anybody and not shown.".to_owned()];
    report.table(&Table { title: "Memory".to_owned(), head, rows, remarks });
    let raw = memory.iter().map(|(size, taken)| {
        json!({ "services": size, "agent_mib": taken.process, "kernel_mib": taken.kernel, "objects_mib": taken.maps })
    });
    report.raw("memory", raw.collect());
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
