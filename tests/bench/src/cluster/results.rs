//! The tables and raw figures of all rounds.

use serde_json::{Value, json};

use super::plan::{Contestant, Plan};
use super::rounds::{Idle, Sample};
use super::usage::Memory;
use crate::report::{Table, number, spread, time};
use crate::series::Series;

/// Whose figures others are compared with.
const MEASURE: Contestant = Contestant::Agent;

/// All samples, contestant by contestant.
pub(crate) struct Results<'a>(pub(crate) &'a [Sample]);

impl Results<'_> {
    fn contestants(&self) -> impl Iterator<Item = Contestant> {
        Contestant::ALL.into_iter().filter(|one| self.0.iter().any(|sample| sample.contestant == *one))
    }

    /// A figure of each round in which there was one.
    fn series(&self, contestant: Contestant, figure: impl Fn(&Sample) -> Option<f64>) -> Series {
        self.0.iter().filter(|sample| sample.contestant == contestant).filter_map(figure).collect()
    }

    /// The same as multiples of the agent's in the same round.
    fn ratio(&self, contestant: Contestant, figure: impl Fn(&Sample) -> Option<f64>) -> Option<f64> {
        let rounds = |contestant| self.0.iter().filter(move |sample| sample.contestant == contestant);
        let ratio = |(own, other): (&Sample, &Sample)| Some(figure(own)? / figure(other)?);
        let ratios: Series = rounds(contestant).zip(rounds(MEASURE)).filter_map(ratio).collect();
        (!ratios.is_empty()).then(|| ratios.median())
    }

    /// A row a contestant, a column a figure; the first figure is followed by its ratio.
    fn table(&self, title: &str, columns: &[Column], remarks: &[&str]) -> Table {
        let mut head = vec![String::new()];
        for (place, column) in columns.iter().enumerate() {
            head.push(column.name.to_owned());
            head.extend((place == 0).then(|| format!("x {}", MEASURE.name())));
        }
        let row = |contestant: Contestant| {
            let mut cells = vec![contestant.name().to_owned()];
            for (place, column) in columns.iter().enumerate() {
                cells.push(spread(&self.series(contestant, column.figure), column.show));
                let multiple = || self.ratio(contestant, column.figure).map_or("-".to_owned(), number);
                cells.extend((place == 0).then(multiple));
            }
            cells
        };
        // Whoever has none of the figures is left out.
        let has = |one: &Contestant| columns.iter().any(|column| !self.series(*one, column.figure).is_empty());
        Table {
            title: title.to_owned(),
            head,
            rows: self.contestants().filter(has).map(row).collect(),
            remarks: remarks.iter().map(|remark| (*remark).to_owned()).collect(),
        }
    }

    /// All tables but that of the idle cluster.
    pub(crate) fn tables(&self) -> [Table; 4] {
        [
            self.table(
                "First start: from the start of the process until it has synced",
                &[
                    Column::time("until synced", |sample| sample.answered.or(sample.ready)),
                    Column::time("says it is ready", |sample| sample.ready),
                    Column::time("its CPU time", |sample| Some(sample.cpu)),
                    Column::time("the control plane's", |sample| Some(sample.control_cpu)),
                    Column::number("MiB received", |sample| Some(sample.received)),
                ],
                &[
                    "Synced: a connection from a pod to the last Service of the list was answered; of proxy and speaker, which lead no",
                    "connection of a pod: ready. kube-proxy does not tell when it is. Its CPU time holds that of the nft that it runs.",
                ],
            ),
            self.table(
                "Start over what is programmed, after a change that nobody has seen",
                &[
                    Column::time("until a client sees it", |sample| sample.caught_up),
                    Column::time("says it is ready", |sample| sample.ready_again),
                ],
                &["Connections are answered all the time."],
            ),
            self.table(
                "One EndpointSlice exchanged: from the API server's answer until a client sees it",
                &[Column::time("until seen", |sample| {
                    let changes: Series = sample.changes.iter().copied().collect();
                    (!changes.is_empty()).then(|| changes.median())
                })],
                &["A client connects every two milliseconds. Medians of each round's changes."],
            ),
            self.table(
                "Memory of the process, MiB",
                &[
                    Column::number("proportional", |sample| Some(sample.memory.proportional)),
                    Column::number("resident", |sample| Some(sample.memory.resident)),
                    Column::number("anonymous", |sample| Some(sample.memory.anonymous)),
                    Column::number("most resident while starting", |sample| Some(sample.peak)),
                ],
                &["Some seconds after the start. Maps and rules in the kernel are not in it: see the benchmark \"service\"."],
            ),
        ]
    }

    /// Every round.
    pub(crate) fn raw(&self) -> Value {
        let round = |sample: &Sample| {
            json!({
                "contestant": sample.contestant.name(),
                "ready_s": sample.ready,
                "answered_s": sample.answered,
                "cpu_s": sample.cpu,
                "control_plane_cpu_s": sample.control_cpu,
                "received_mib": sample.received,
                "peak_mib": sample.peak,
                "memory": memory(sample.memory),
                "changes_s": sample.changes,
                "ready_again_s": sample.ready_again,
                "caught_up_s": sample.caught_up,
            })
        };
        self.0.iter().map(round).collect()
    }
}

/// One figure of a table.
struct Column {
    name: &'static str,
    figure: fn(&Sample) -> Option<f64>,
    show: fn(f64) -> String,
}

impl Column {
    fn time(name: &'static str, figure: fn(&Sample) -> Option<f64>) -> Self {
        Self { name, figure, show: time }
    }

    fn number(name: &'static str, figure: fn(&Sample) -> Option<f64>) -> Self {
        Self { name, figure, show: number }
    }
}

/// What everybody used while nothing happened.
pub(crate) fn idle_table(idle: &[Idle], plan: &Plan) -> Table {
    let head = ["", "CPU time", "of one processor", "KiB received", "MiB, proportional"];
    let row = |one: &Idle| {
        vec![
            one.contestant.name().to_owned(),
            time(one.cpu),
            format!("{:.3} %", 100.0 * one.cpu / one.seconds),
            number(one.received / 1024.0),
            number(one.memory.proportional),
        ]
    };
    Table {
        title: format!("A cluster in which nothing happens, for {} s", plan.idle.as_secs()),
        head: head.map(str::to_owned).to_vec(),
        rows: idle.iter().map(row).collect(),
        remarks: vec![
            "All side by side. Received: what came to the node, its kubelet's share included, which renews its Lease."
                .to_owned(),
        ],
    }
}

/// The same as figures.
pub(crate) fn idle_raw(idle: &[Idle]) -> Value {
    let one = |one: &Idle| {
        json!({
            "contestant": one.contestant.name(),
            "cpu_s": one.cpu,
            "seconds": one.seconds,
            "received_bytes": one.received,
            "memory": memory(one.memory),
        })
    };
    idle.iter().map(one).collect()
}

fn memory(memory: Memory) -> Value {
    json!({
        "resident_mib": memory.resident,
        "proportional_mib": memory.proportional,
        "anonymous_mib": memory.anonymous,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(contestant: Contestant, answered: f64) -> Sample {
        Sample {
            contestant,
            ready: None,
            answered: Some(answered),
            cpu: 1.0,
            control_cpu: 2.0,
            received: 3.0,
            peak: 4.0,
            memory: Memory::default(),
            changes: vec![0.3, 0.1, 0.2],
            ready_again: None,
            caught_up: None,
        }
    }

    #[test]
    fn ratios_are_those_of_the_same_round() {
        let (ours, theirs) = (Contestant::Agent, Contestant::KubeProxy);
        // Each round is slower than the last: medians of all would give another ratio.
        let pairs = [(1.0, 10.0), (2.0, 20.0), (4.0, 40.0)];
        let samples: Vec<Sample> =
            pairs.iter().flat_map(|(one, other)| [sample(ours, *one), sample(theirs, *other)]).collect();
        let results = Results(&samples);
        assert_eq!(results.ratio(theirs, |sample| sample.answered), Some(10.0));
        assert_eq!(results.ratio(theirs, |sample| sample.ready), None);
        let [start, again, change, _] = results.tables();
        assert_eq!(start.rows.len(), 2);
        assert!(again.rows.is_empty(), "nobody started twice");
        assert!(change.rows.iter().all(|row| row.iter().any(|cell| cell.starts_with("200 ms"))), "{:?}", change.rows);
    }

    #[test]
    fn idling_is_told_as_a_share_of_a_processor() {
        let memory = Memory { resident: 3.0, proportional: 2.0, anonymous: 1.0 };
        let idle = Idle { contestant: Contestant::Agent, cpu: 0.03, seconds: 60.0, received: 2048.0, memory };
        let plan = Plan {
            contestants: vec![Contestant::Agent],
            services: 1,
            rounds: 1,
            changes: 1,
            settling: std::time::Duration::ZERO,
            idle: std::time::Duration::from_secs(60),
        };
        let table = idle_table(&[idle], &plan);
        assert_eq!(table.rows, [["roadstead", "30.0 ms", "0.050 %", "2.00", "2.00"].map(str::to_owned).to_vec()]);
    }
}
