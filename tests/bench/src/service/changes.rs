//! Configuration: loading all Services, exchanging one endpoint, and when a client notices.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{Field, progress, start_agents};
use crate::load::{self, Loaded};
use crate::plan::Plan;
use crate::report::{Report, Table, spread, time};
use crate::series::Series;
use crate::stage::{Mode, Stage};
use crate::state::{FLIP, Side};
use crate::{agent, clock};

/// Changes that a client watches; each starts a client anew.
const WATCHED: usize = 3;

/// Seconds of every sample, by size and mode.
type Samples = BTreeMap<(u32, Mode), Vec<f64>>;

/// All that was measured.
#[derive(Default)]
pub(crate) struct Results {
    loads: Samples,
    starts: Samples,
    changes: Samples,
    visible: Samples,
    peaks: BTreeMap<(u32, Mode), f64>,
    transactions: BTreeMap<(u32, Mode), usize>,
}

impl Results {
    /// Loads every mode, or the agent alone, with this many Services, then changes what changes.
    pub(crate) fn fill(&mut self, field: &mut Field, plan: &Plan, size: u32, is_shared: bool) -> Result<()> {
        for index in 0..field.stages.len() {
            let Some(mode) = field.stages.get(index).map(|stage| stage.mode) else { continue };
            if mode == Mode::Direct || mode != Mode::Roadstead && !is_shared {
                continue;
            }
            progress(&format!("loading {size} Services: {}", mode.name()));
            if mode == Mode::Roadstead {
                for (programmed, start) in start_agents(field, index, size, plan.starts)? {
                    self.loads.entry((size, mode)).or_default().push(programmed);
                    self.starts.entry((size, mode)).or_default().push(start);
                }
            }
            let stage = field.stages.get(index).context("no such stage")?;
            if mode != Mode::Roadstead {
                self.load_peer(stage, plan, size)?;
            }
            let field: &Field = field;
            self.change(field, stage, plan, size)
                .with_context(|| format!("a change in {} with {size} Services", mode.name()))?;
        }
        Ok(())
    }

    /// The peers that were loaded.
    pub(crate) fn loaders(&self) -> impl Iterator<Item = Mode> {
        self.peaks.keys().map(|(_, mode)| *mode).collect::<BTreeSet<_>>().into_iter()
    }

    /// The largest memory of a peer's program.
    pub(crate) fn peak(&self, size: u32, mode: Mode) -> Option<f64> {
        self.peaks.get(&(size, mode)).copied()
    }

    fn load_peer(&mut self, stage: &Stage, plan: &Plan, size: u32) -> Result<()> {
        let whole = stage.mode != Mode::Nftables || plan.is_one_transaction(size);
        if whole && stage.mode == Mode::Nftables && size > 1_000 {
            progress("  one nft transaction of this size takes minutes; this is the only one");
        }
        let key = (size, stage.mode);
        for _ in 0..plan.loads(size) {
            let Loaded { seconds, peak_mib, transactions } = load::full(stage, &stage.state(size), whole)?;
            self.loads.entry(key).or_default().push(seconds);
            self.transactions.insert(key, transactions);
            let peak = self.peaks.entry(key).or_default();
            *peak = peak.max(peak_mib);
        }
        Ok(())
    }

    fn change(&mut self, field: &Field, stage: &Stage, plan: &Plan, size: u32) -> Result<()> {
        let (key, state) = ((size, stage.mode), stage.state(size));
        let agent = field.agent.as_ref().filter(|_| stage.mode == Mode::Roadstead);
        let mut side = Side::First;
        for _ in 0..plan.changes {
            let (before, after) = (state.change(side), state.change(side.other()));
            let seconds = match agent {
                Some(agent) => agent.change(stage, &after)?.micros / 1e6,
                None => load::change(stage, &before, &after)?,
            };
            self.changes.entry(key).or_default().push(seconds);
            side = side.other();
        }
        let mut side = Side::First;
        for _ in 0..plan.changes.min(WATCHED) {
            let (before, after) = (state.flip(side), state.flip(side.other()));
            let watcher = stage.watch(FLIP, state.flip_endpoint(side.other()))?;
            let began = clock::monotonic()?;
            match agent {
                Some(_) => agent::write(stage, &after)?,
                None => load::change(stage, &before, &after).map(drop)?,
            }
            let took = watcher.seen()?.saturating_sub(began);
            self.visible.entry(key).or_default().push(took.as_secs_f64());
            side = side.other();
        }
        Ok(())
    }

    /// Three tables.
    pub(crate) fn report(&self, report: &mut Report, plan: &Plan) {
        let mut load = by_size("Loading all Services with 5 endpoints each", &self.loads, plan);
        let starts = by_size("", &self.starts, plan).rows;
        load.rows.extend(starts.into_iter().map(|mut row| {
            // The only row is Roadstead's, and of Roadstead itself there is no ratio.
            row.splice(..1, ["roadstead, from YAML to ready".to_owned()]);
            row
        }));
        load.remarks = vec![
            "roadstead: from the snapshot to the last map write, as the agent logs it. Peers: from the start of nft -f or"
                .to_owned(),
            "iptables-restore to its end. From YAML to ready: from the start of the process to /readyz.".to_owned(),
        ];
        let several = self.transactions.iter().filter(|(_, count)| **count > 1);
        load.remarks.extend(several.map(|((size, mode), count)| {
            format!("{} got {size} Services in {count} transactions: one takes minutes (--full).", mode.name())
        }));
        report.table(&load);
        let mut change = by_size("One endpoint of five exchanged: programming", &self.changes, plan);
        change.remarks = vec![
            "roadstead: from the snapshot to the last map write. Peers: one nft -f, or one iptables-restore --noflush with"
                .to_owned(),
            "nothing but the changed chains.".to_owned(),
        ];
        report.table(&change);
        let mut visible =
            by_size("The only endpoint exchanged: until a client got its first answer", &self.visible, plan);
        visible.remarks = vec![
            "roadstead: from the rename of the YAML file, waiting for more files of a burst included. Peers: from the start"
                .to_owned(),
            "of the program that loads the rules; kube-proxy's own waiting (1 s by default) not included.".to_owned(),
        ];
        report.table(&visible);
        report.raw("loads_s", raw(&self.loads));
        report.raw("starts_s", raw(&self.starts));
        report.raw("changes_s", raw(&self.changes));
        report.raw("visible_s", raw(&self.visible));
    }
}

/// A row a mode, two columns a size: the time, and as a multiple of Roadstead's.
fn by_size(title: &str, samples: &Samples, plan: &Plan) -> Table {
    let (sizes, mut head) = (plan.all_sizes(), vec!["mode".to_owned()]);
    head.extend(sizes.iter().flat_map(|size| [format!("{size} Services"), "ratio".to_owned()]));
    let modes: BTreeSet<Mode> = samples.keys().map(|(_, mode)| *mode).collect();
    let series =
        |size: u32, mode: Mode| -> Series { samples.get(&(size, mode)).into_iter().flatten().copied().collect() };
    let row = |mode: Mode| {
        let cells = sizes.iter().flat_map(|&size| {
            let (own, first) = (series(size, mode), series(size, Mode::Roadstead));
            let ratio = own.median() / first.median();
            [
                spread(&own, time),
                if own.is_empty() || !ratio.is_finite() { "-".to_owned() } else { format!("{ratio:.1}x") },
            ]
        });
        [mode.name().to_owned()].into_iter().chain(cells).collect()
    };
    Table { title: title.to_owned(), head, rows: modes.into_iter().map(row).collect(), remarks: Vec::new() }
}

fn raw(samples: &Samples) -> Value {
    let entry = |((size, mode), values): (&(u32, Mode), &Vec<f64>)| json!({ "services": size, "mode": mode.name(), "seconds": values });
    samples.iter().map(entry).collect()
}
