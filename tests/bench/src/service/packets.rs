//! The cost of a packet in each program, at every number of Services.

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::{Field, progress};
use crate::plan::Plan;
use crate::report::{Report, Table, number, spread};
use crate::series::Series;
use crate::stage::{Mode, Stage};
use crate::state::{FLIP, FLIP_NODE_PORT, PORT, Side, TARGET_PORT};

/// What the process in the node's place has told, by size.
#[derive(Default)]
pub(crate) struct Results(Vec<(u32, Vec<Figure>)>);

/// The rounds of one case.
#[derive(Clone, Debug)]
struct Figure {
    program: String,
    kind: String,
    flows: u64,
    net: Vec<f64>,
    /// One lookup of the conntrack key a packet.
    once: Vec<f64>,
    /// The same, of many in a row.
    in_a_row: Vec<f64>,
}

impl Results {
    /// Ends the agent and measures over what it has left.
    pub(crate) fn fill(&mut self, field: &mut Field, plan: &Plan, size: u32) -> Result<()> {
        progress(&format!("nanoseconds a packet, {size} Services"));
        let stage = field.stages.iter().find(|stage| stage.mode == Mode::Roadstead).context("no agent's stage")?;
        if let Some(agent) = field.agent.take() {
            agent.restore(stage)?;
            agent.stop()?;
        }
        self.0.push((size, measure(stage, plan, size)?));
        Ok(())
    }

    /// One table of all cases with the most Services, one of what grows with their number.
    pub(crate) fn report(&self, report: &mut Report) {
        let Some((size, figures)) = self.0.last() else { return };
        let table = Table {
            title: format!("Cost of a packet by BPF_PROG_TEST_RUN, {size} Services"),
            head: ["program, packet", "flows", "ns", "lookup ns", "x lookup", "in a row ns", "x"].map(str::to_owned).to_vec(),
            rows: figures.iter().map(Figure::row).collect(),
            remarks: vec![
                "Packets are restored before each run, all cases are gone through in turn, the harness's own cost is".to_owned(),
                "subtracted. lookup: one a packet, of a conntrack key (40 bytes) in a preallocated hash of the table's size".to_owned(),
                "with as many keys in turn, the key's making included (new flows, packets of no Service: 1,024 keys).".to_owned(),
                "in a row: the same lookup in a loop of 64, where the processor overlaps them.".to_owned(),
            ],
        };
        report.table(&table);
        report.table(&self.growth());
        report.raw("packets", self.json());
    }

    /// The same cases by number of Services.
    fn growth(&self) -> Table {
        let mut head = vec!["program, packet, flows".to_owned()];
        head.extend(self.0.iter().map(|(size, _)| format!("{size} Services, ns")));
        let cases = self
            .0
            .last()
            .into_iter()
            .flat_map(|(_, figures)| figures)
            .filter(|figure| figure.flows <= 1_024 || figure.is_new());
        let row = |case: &Figure| {
            let same = |figures: &Vec<Figure>| figures.iter().find(|other| other.is_same(case)).map(Figure::net);
            let cells =
                self.0.iter().map(|(_, figures)| same(figures).map_or("-".to_owned(), |net| spread(&net, number)));
            [format!("{}, {}, {}", case.program, case.kind, case.flows_shown())].into_iter().chain(cells).collect()
        };
        let rows = cases.map(row).collect();
        let remarks = vec![
            "The same Service and the same flows; only the number of other Services differs. Nothing should grow."
                .to_owned(),
        ];
        Table { title: "Cost of a packet by number of Services".to_owned(), head, rows, remarks }
    }

    fn json(&self) -> Value {
        let figures = self.0.iter().flat_map(|(size, figures)| figures.iter().map(move |figure| (size, figure)));
        let entry = |(size, figure): (&u32, &Figure)| {
            json!({
                "services": size,
                "program": figure.program,
                "kind": figure.kind,
                "flows": figure.flows,
                "net_ns": figure.net,
                "lookup_ns": figure.once,
                "lookup_in_a_row_ns": figure.in_a_row,
            })
        };
        figures.map(entry).collect()
    }
}

impl Figure {
    fn parse(value: &Value) -> Option<Self> {
        let text = |name: &str| Some(value.get(name)?.as_str()?.to_owned());
        let numbers = |name: &str| Some(value.get(name)?.as_array()?.iter().filter_map(Value::as_f64).collect());
        Some(Self {
            program: text("program")?,
            kind: text("kind")?,
            flows: value.get("flows")?.as_u64()?,
            net: numbers("net_ns")?,
            once: numbers("lookup_ns")?,
            in_a_row: numbers("lookup_in_a_row_ns")?,
        })
    }

    fn is_new(&self) -> bool {
        self.kind.starts_with("new")
    }

    fn flows_shown(&self) -> String {
        if self.is_new() { "each".to_owned() } else { self.flows.to_string() }
    }

    fn is_same(&self, other: &Self) -> bool {
        (&self.program, &self.kind, self.flows) == (&other.program, &other.kind, other.flows)
    }

    fn net(&self) -> Series {
        self.net.iter().copied().collect()
    }

    fn row(&self) -> Vec<String> {
        let of = |samples: &[f64]| samples.iter().copied().collect::<Series>();
        let ratio = |other: &[f64]| -> Series { self.net.iter().zip(other).map(|(net, other)| net / other).collect() };
        let two = |value: f64| format!("{value:.2}");
        vec![
            format!("{}, {}", self.program, self.kind),
            self.flows_shown(),
            spread(&self.net(), number),
            number(of(&self.once).median()),
            spread(&ratio(&self.once), two),
            number(of(&self.in_a_row).median()),
            two(ratio(&self.in_a_row).median()),
        ]
    }
}

fn measure(stage: &Stage, plan: &Plan, size: u32) -> Result<Vec<Figure>> {
    let pins = stage.node().bpffs().to_string_lossy().into_owned();
    let node_port = format!("{}:{FLIP_NODE_PORT}", stage.node().host().v4());
    let cluster = format!("{FLIP}:{PORT}");
    let backend = format!("{}:{TARGET_PORT}", stage.state(size).flip_endpoint(Side::First));
    let (packets, rounds) = (plan.packets.to_string(), plan.packet_rounds.to_string());
    let mut arguments = vec!["packets", "--bpffs", &pins, "--node-port", &node_port, "--cluster", &cluster];
    arguments.extend(["--backend", &backend, "--packets", &packets, "--rounds", &rounds]);
    let answer = stage.ask_on_node(&arguments)?;
    let figures: Vec<Figure> = answer.as_array().into_iter().flatten().filter_map(Figure::parse).collect();
    if figures.is_empty() {
        bail!("no figure in {answer}");
    }
    Ok(figures)
}
