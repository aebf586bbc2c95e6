//! The machine that a run was made on: what figures mean nothing without.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

/// What the header of every result says.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) kernel: String,
    pub(crate) processor: String,
    pub(crate) processors: usize,
    pub(crate) load: String,
    pub(crate) versions: Vec<String>,
}

impl Machine {
    /// Looks at this one.
    pub(crate) fn look() -> Self {
        let cpuinfo = read("/proc/cpuinfo");
        let field = |name: &str| {
            let line = cpuinfo.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(": ")).map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        let model = format!("{} (family {} model {})", field("model name"), field("cpu family"), field("model\t"));
        Self {
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            processor: model,
            processors: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            load: read("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" "),
            versions: ["nft", "iptables"].iter().filter_map(|program| version(program)).collect(),
        }
    }

    /// The CPU that client and server share: the last one, which gets the fewest interrupts.
    pub(crate) fn measuring_cpu(&self) -> usize {
        self.processors.saturating_sub(1)
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "kernel": self.kernel,
            "processor": self.processor,
            "processors": self.processors,
            "load_at_start": self.load,
            "versions": self.versions,
        })
    }
}

fn version(program: &str) -> Option<String> {
    let output = Command::new(program).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().next().map(|line| line.split(" (").next().unwrap_or(line).to_owned())
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}
