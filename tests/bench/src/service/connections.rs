//! Connections: the time of connect(2), which is that of the first packet and its answer, and connections a second.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde_json::json;

use super::{Field, progress};
use crate::plan::Plan;
use crate::report::{Report, Table, number, spread};
use crate::series::Series;
use crate::stage::{Connections, Mode, Way};

/// Every round of every mode, by size and way.
#[derive(Default)]
pub(crate) struct Results(BTreeMap<(u32, &'static str), BTreeMap<Mode, Vec<Connections>>>);

impl Results {
    /// Measures all ways with what is loaded now.
    pub(crate) fn fill(&mut self, field: &Field, plan: &Plan, size: u32) -> Result<()> {
        for round in 0..plan.rounds {
            progress(&format!("connections, {size} Services, round {} of {}", round + 1, plan.rounds));
            for way in Way::ALL {
                for stage in field.turn(round) {
                    let done = stage.connect(way, &stage.state(size), plan.connections);
                    let done = done.with_context(|| format!("{}, {}", stage.mode.name(), way.name()))?;
                    self.0.entry((size, way.name())).or_default().entry(stage.mode).or_default().push(done);
                }
            }
        }
        Ok(())
    }

    /// A table for every way.
    pub(crate) fn report(&self, report: &mut Report, plan: &Plan) {
        for way in Way::ALL {
            let mut rows = Vec::new();
            for &size in &plan.sizes {
                let Some(modes) = self.0.get(&(size, way.name())) else { continue };
                rows.extend(modes.iter().map(|(mode, rounds)| row(size, *mode, rounds, modes.get(&Mode::Direct))));
            }
            let head = ["Services, mode", "connect p50 us", "p99 us", "x direct", "conn/s", "x direct"];
            let title = format!(
                "Connections one after the other, {}: {} rounds of {}, the last Service",
                way.name(),
                plan.rounds,
                plan.connections
            );
            let remarks = vec![
                "Median over rounds (quartiles). connect: until connect(2) returned. conn/s: connect, request, answer, close;"
                    .to_owned(),
                "from the median of a round's connections. x direct: median of the rounds' own ratios.".to_owned(),
            ];
            report.table(&Table { title, head: head.map(str::to_owned).to_vec(), rows, remarks });
        }
        report.raw("connections", self.json());
    }

    fn json(&self) -> serde_json::Value {
        let entries = self.0.iter().flat_map(|((size, way), modes)| {
            modes.iter().map(move |(mode, rounds)| {
                let all = |field: fn(&Connections) -> f64| rounds.iter().map(field).collect::<Vec<_>>();
                json!({
                    "services": size,
                    "way": way,
                    "mode": mode.name(),
                    "connect_p50_us": all(|round| round.connect_p50),
                    "connect_p99_us": all(|round| round.connect_p99),
                    "whole_p50_us": all(|round| round.whole_p50),
                    "per_second": all(|round| round.per_second),
                })
            })
        });
        entries.collect()
    }
}

fn row(size: u32, mode: Mode, rounds: &[Connections], direct: Option<&Vec<Connections>>) -> Vec<String> {
    let all = |field: fn(&Connections) -> f64| rounds.iter().map(field).collect::<Series>();
    let ratio = |field: fn(&Connections) -> f64| -> Series {
        let direct = direct.into_iter().flatten();
        rounds.iter().zip(direct).map(|(round, direct)| field(round) / field(direct)).collect()
    };
    let rate = |round: &Connections| 1e6 / round.whole_p50;
    vec![
        format!("{size:>6}  {}", mode.name()),
        spread(&all(|round| round.connect_p50), number),
        number(all(|round| round.connect_p99).median()),
        spread(&ratio(|round| round.connect_p50), |value| format!("{value:.2}")),
        number(all(rate).median()),
        format!("{:.2}", ratio(rate).median()),
    ]
}
