//! Throughput: one TCP stream from the client outside through a node port to a pod, with the kernel's segmentation.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{Field, progress};
use crate::plan::Plan;
use crate::report::{Report, Table, number, spread};
use crate::series::Series;
use crate::stage::Mode;

/// Gigabits a second of every round.
pub(crate) type Streams = BTreeMap<Mode, Vec<f64>>;

/// Measures with what is loaded now.
pub(crate) fn measure(field: &Field, plan: &Plan) -> Result<Streams> {
    let mut streams = Streams::new();
    for round in 0..plan.streams {
        progress(&format!("stream through the node port, round {} of {}", round + 1, plan.streams));
        for stage in field.turn(round) {
            let gigabits = stage.stream(plan.stream_millis);
            let gigabits = gigabits.with_context(|| format!("a stream through {}", stage.mode.name()))?;
            streams.entry(stage.mode).or_default().push(gigabits);
        }
    }
    Ok(streams)
}

pub(crate) fn report(report: &mut Report, streams: &Streams, size: u32) {
    let direct = streams.get(&Mode::Direct);
    let row = |mode: &Mode, rounds: &[f64]| {
        let ratios: Series = rounds.iter().zip(direct.into_iter().flatten()).map(|(one, other)| one / other).collect();
        let own: Series = rounds.iter().copied().collect();
        vec![mode.name().to_owned(), spread(&own, number), spread(&ratios, |value| format!("{value:.2}"))]
    };
    let table = Table {
        title: format!("One stream, client to node port (direct: to the pod), {size} Services"),
        head: ["mode", "Gbit/s", "x direct"].map(str::to_owned).to_vec(),
        rows: streams.iter().map(|(mode, rounds)| row(mode, rounds)).collect(),
        remarks: vec!["Sender and receiver share one CPU; segmentation offload as a veth has it.".to_owned()],
    };
    report.table(&table);
    let raw: Vec<Value> =
        streams.iter().map(|(mode, rounds)| json!({ "mode": mode.name(), "gigabits": rounds })).collect();
    report.raw("streams", raw.into());
}
