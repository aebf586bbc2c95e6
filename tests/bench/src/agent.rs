//! The agent of the measurements: started, changed under and looked at from outside, as an operator would.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use roadstead_lab::{Daemon, Program, wait_for};
use serde_json::Value;

use crate::manifests;
use crate::stage::{Stage, memory};
use crate::state::{Service, Side, State};

const START: Duration = Duration::from_secs(120);
const CHANGE: Duration = Duration::from_secs(30);

/// What the agent's log tells of one round of programming.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Programmed {
    /// Frontends written.
    pub(crate) written: u64,
    /// From the snapshot to the last map write, in microseconds.
    pub(crate) micros: f64,
}

/// A running agent.
pub(crate) struct Agent {
    daemon: Daemon,
    /// From the start of the process to its readiness.
    pub(crate) start: Duration,
    /// Its first round.
    pub(crate) first: Programmed,
}

/// What an agent takes.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    /// Of its process, in MiB.
    pub(crate) process: f64,
    /// Of its maps and programs as the kernel charges them, in MiB.
    pub(crate) kernel: f64,
    /// The largest maps by name, in MiB.
    pub(crate) maps: Vec<(String, f64)>,
}

/// Writes the manifests of a state, in place of those of an earlier one.
pub(crate) fn write_manifests(stage: &Stage, state: &State) -> Result<()> {
    let lab = stage.lab();
    for entry in fs::read_dir(lab.manifests()).context("no folder of manifests")?.flatten() {
        fs::remove_file(entry.path()).context("an old manifest stays")?;
    }
    let node = stage.node();
    lab.apply("node.yaml", &manifests::node(node.name(), node.host().v4()))?;
    for (file, text) in manifests::lasting(state) {
        lab.apply(&file, &text)?;
    }
    [state.change(Side::First), state.flip(Side::First)].iter().try_for_each(|service| write(stage, service))
}

/// Writes the file of a Service that changes.
pub(crate) fn write(stage: &Stage, service: &Service) -> Result<()> {
    stage.lab().apply(&format!("{}.yaml", service.name), &manifests::file(std::slice::from_ref(service)))
}

impl Agent {
    /// Starts it where nothing is pinned, and waits until it is ready.
    pub(crate) fn start_cold(stage: &Stage) -> Result<Self> {
        clean_up(stage)?;
        let mut command = stage.node().command(Program::Agent)?;
        command.args(["--log-format", "json"]);
        let started = Instant::now();
        let daemon = stage.node().start_with(Program::Agent, command)?;
        let ready = wait_for(START, "the agent is ready", || {
            let ended = !daemon.is_running();
            (ended || daemon.is_ready()).then_some(!ended)
        });
        let start = started.elapsed();
        if !ready.unwrap_or(false) {
            bail!("the agent did not become ready: {}", daemon.log_tail(5));
        }
        let first = programmed(&daemon.log()).first().copied().context("the agent does not say what it programmed")?;
        Ok(Self { daemon, start, first })
    }

    /// Writes the file of a Service and waits until the agent has programmed it.
    pub(crate) fn change(&self, stage: &Stage, service: &Service) -> Result<Programmed> {
        let before = programmed(&self.daemon.log()).len();
        write(stage, service)?;
        wait_for(CHANGE, "the agent programs the change", || {
            programmed(&self.daemon.log()).get(before).copied().filter(|round| round.written > 0)
        })
    }

    /// Brings the Service whose only endpoint was exchanged back to its first one.
    pub(crate) fn restore(&self, stage: &Stage) -> Result<()> {
        let wanted = stage.state(1).flip(Side::First);
        let file = stage.lab().manifests().join(format!("{}.yaml", wanted.name));
        let text = fs::read_to_string(file).context("the manifest is gone")?;
        if text == manifests::file(std::slice::from_ref(&wanted)) {
            Ok(())
        } else {
            self.change(stage, &wanted).map(drop)
        }
    }

    /// What it takes now.
    pub(crate) fn memory(&self) -> Result<Memory> {
        let process = u32::try_from(self.daemon.pid())?;
        let mut maps = kernel_memory(&Path::new("/proc").join(process.to_string()))?;
        maps.sort_by(|(_, one), (_, other)| other.total_cmp(one));
        let kernel = maps.iter().map(|(_, size)| size).sum();
        Ok(Memory { process: memory(process).context("the agent is gone")?, kernel, maps })
    }

    /// Ends it; what it has pinned stays until [`clean_up`].
    pub(crate) fn stop(&self) -> Result<()> {
        self.daemon.terminate(Duration::from_secs(20)).map(drop)
    }
}

/// Takes programs and maps out of the kernel.
pub(crate) fn clean_up(stage: &Stage) -> Result<()> {
    let program = roadstead_lab::program(Program::Agent.file())?;
    let pins = stage.node().bpffs().to_string_lossy().into_owned();
    let output = stage.on_node(&program.to_string_lossy(), &["cleanup", "--bpffs", &pins])?;
    if !output.status.success() {
        bail!("roadstead cleanup: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// The rounds in a log of JSON lines.
fn programmed(log: &str) -> Vec<Programmed> {
    let lines = log.lines().filter(|line| line.contains("\"programmed\""));
    let fields = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
    fields
        .filter_map(|line| {
            let field = |name: &str| line.pointer(&format!("/fields/{name}"))?.as_u64();
            Some(Programmed { written: field("written")?, micros: field("micros")? as f64 })
        })
        .collect()
}

/// Maps and programs that a process holds, each once, with what the kernel charges for it in MiB.
fn kernel_memory(process: &Path) -> Result<Vec<(String, f64)>> {
    let mut sizes = BTreeMap::new();
    for entry in fs::read_dir(process.join("fdinfo")).context("the agent's files cannot be read")?.flatten() {
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let Some(bytes) = field("memlock:").and_then(|bytes| bytes.parse::<f64>().ok()) else { continue };
        let id = field("map_id:").map(|id| format!("map {id}"));
        let id = id.or_else(|| field("prog_id:").map(|id| format!("program {id}")));
        if let Some(id) = id {
            sizes.insert(id, bytes / f64::from(1 << 20));
        }
    }
    Ok(sizes.into_iter().collect())
}
