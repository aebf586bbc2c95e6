//! The cost of a packet in each program, by BPF_PROG_TEST_RUN through the harness: restored packets, all measurements in
//! turn, the harness's own cost subtracted, beside a lookup of a conntrack key in the same run.
//!
//! It runs as a process in the node's place, over the maps that the agent has filled and pinned, with the programs that
//! this build carries. The agent has ended by then: its collector would free flows under the measurement.

mod cases;
mod frame;
mod object;

use std::net::SocketAddrV4;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use nix::net::if_::if_nametoindex;
use roadstead_abi::harness::SOURCE;
use roadstead_abi::limits;
use roadstead_dataplane::harness::{FIRST, Harness, LOOKUP_ONCE, LOOKUP_ROW, Measured, NULL, per_lookup_of_row};
use roadstead_dataplane::load::Programs;
use roadstead_dataplane::maps::FlowMaps;
use roadstead_dataplane::pins::Pins;
use serde_json::json;

use cases::{Case, FLOWS, Kind};

/// The programs under test, in the order of their slots.
const PROGRAMS: [&str; 4] = ["uplink_in", "uplink_out", "int_in", "int_out"];

/// The flags of `roadstead-bench packets`.
#[derive(Args, Debug)]
pub(crate) struct PacketsFlags {
    /// The agent's pins
    #[arg(long)]
    bpffs: PathBuf,
    /// A node port of a Service with one endpoint
    #[arg(long)]
    node_port: SocketAddrV4,
    /// The cluster address of the same Service
    #[arg(long)]
    cluster: SocketAddrV4,
    /// Its endpoint
    #[arg(long)]
    backend: SocketAddrV4,
    /// Packets of one measurement
    #[arg(long)]
    packets: u32,
    /// Times that all measurements are gone through
    #[arg(long)]
    rounds: usize,
}

/// Prints one line of JSON: for every case the net nanoseconds of all rounds, and those of one lookup in the same rounds.
pub(crate) fn run(flags: &PacketsFlags) -> Result<()> {
    let pins = Pins::open(&flags.bpffs)?;
    let (programs, _maps, flows) = Programs::load(pins, limits::CONNTRACK)?;
    let harness = Harness::load(object::bytes(), &programs, &PROGRAMS)?;
    let mut bench = Bench { harness, flows };
    bench.prepare(flags)?;
    let mut lines: Vec<Line> = cases::all(flags).into_iter().map(Line::new).collect();
    for line in &mut lines {
        bench.check(&mut line.case, flags)?;
    }
    let mut yardsticks: Vec<Case> = FLOWS.iter().filter_map(|flows| yardstick(&lines, *flows)).collect();
    for _ in 0..flags.rounds {
        bench.round(&mut lines, &mut yardsticks, flags.packets)?;
    }
    let lines: Vec<_> = lines.iter().map(Line::json).collect();
    println!("{}", json!(lines));
    Ok(())
}

struct Bench {
    harness: Harness,
    flows: FlowMaps,
}

/// A case with what was measured.
struct Line {
    case: Case,
    net: Vec<f64>,
    once: Vec<f64>,
    row: Vec<f64>,
}

impl Line {
    fn new(case: Case) -> Self {
        Self { case, net: Vec::new(), once: Vec::new(), row: Vec::new() }
    }

    fn json(&self) -> serde_json::Value {
        let Case { program, kind, flows, .. } = &self.case;
        json!({
            "program": program,
            "kind": kind.name(),
            "flows": flows,
            "net_ns": self.net,
            "lookup_ns": self.once,
            "lookup_in_a_row_ns": self.row,
        })
    }
}

/// The lookups that a number of flows is compared with.
fn yardstick(lines: &[Line], flows: u32) -> Option<Case> {
    let of = |line: &&Line| line.case.kind == Kind::Established && line.case.flows == flows;
    lines.iter().find(of).map(|line| line.case.clone())
}

impl Bench {
    /// Opens all flows and fills the yardstick's table with as many.
    fn prepare(&mut self, flags: &PacketsFlags) -> Result<()> {
        for mut opening in cases::openings(flags) {
            let flows = opening.flows;
            self.run(&mut opening, None, flows)?;
            self.harness.fill_table(&opening.round)?;
        }
        Ok(())
    }

    /// A program that forwards nothing, or opens a flow for every packet, has no cost worth knowing. Every flow is seen
    /// twice here, so that the first round finds what later ones find.
    fn check(&mut self, case: &mut Case, flags: &PacketsFlags) -> Result<()> {
        let what = format!("{}, {}, {} flows", case.program, case.kind.name(), case.flows);
        let before = self.entries();
        let packets = if case.kind == Kind::New { 64 } else { case.flows * 2 };
        let ran = self.run(case, None, packets)?;
        let opened = self.entries() - before;
        let expected = if case.kind == Kind::New { packets as usize * 2 } else { 0 };
        ensure!(opened == expected, "{what}: {opened} entries in conntrack more, not {expected}");
        let (from, to) = frame::addresses(&ran.packet).with_context(|| format!("{what}: no packet came out"))?;
        let good = match case.kind {
            // The client's port differs from flow to flow; nothing behind the ports may.
            Kind::Stranger => ran.verdict == -1 && ran.packet.get(38..) == case.frame.get(38..),
            _ if case.round.side == SOURCE => to == flags.backend,
            _ => from == if case.program == "uplink_out" { flags.node_port } else { flags.cluster },
        };
        ensure!(good, "{what}: verdict {}, {from} to {to}", ran.verdict);
        Ok(())
    }

    /// Everything once, in turn.
    fn round(&mut self, lines: &mut [Line], yardsticks: &mut [Case], packets: u32) -> Result<()> {
        let first = yardsticks.first_mut().context("no yardstick")?;
        let null = self.run(first, Some(NULL), packets)?.nanoseconds;
        let mut lookups = Vec::new();
        for yardstick in yardsticks {
            let once = self.run(yardstick, Some(LOOKUP_ONCE), packets)?.nanoseconds - null;
            let row = self.run(yardstick, Some(LOOKUP_ROW), packets / 16)?.nanoseconds - null;
            lookups.push((yardstick.flows, once, per_lookup_of_row(row)));
        }
        for line in lines {
            // New flows fill the table; it holds those of all rounds.
            let packets = if line.case.kind == Kind::New { packets / 40 } else { packets };
            line.net.push(self.run(&mut line.case, None, packets)?.nanoseconds - null);
            let fitting = lookups.iter().find(|(flows, ..)| *flows == line.case.flows);
            // What has another number of flows is compared with the middle one.
            let (_, once, row) = fitting.or(lookups.get(1)).context("no lookup was measured")?;
            line.once.push(*once);
            line.row.push(*row);
        }
        Ok(())
    }

    fn run(&mut self, case: &mut Case, slot: Option<u32>, packets: u32) -> Result<Measured> {
        let device = if_nametoindex(case.device).with_context(|| format!("no device {}", case.device))?;
        let own = PROGRAMS.iter().position(|name| *name == case.program).context("no such program")?;
        case.round.slot = slot.unwrap_or(FIRST + u32::try_from(own)?);
        Ok(self.harness.run(&mut case.round, &case.frame, device, packets)?)
    }

    fn entries(&self) -> usize {
        self.flows.conntrack.keys().count()
    }
}
