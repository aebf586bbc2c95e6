//! `roadstead doctor`: what this host lacks, or has too much of, for the three daemons, and what to do about it.
//!
//! It works in two steps that share nothing but [`facts::Facts`]: one reads them from /proc, /sys and the kernel and judges
//! nothing, the other judges and reads nothing. It changes nothing and needs no daemon. Without root some facts stay unknown,
//! and it says which.

mod facts;
mod finding;
mod host;
mod listeners;
mod processes;
mod rivals;
mod rulesets;
mod settings;
#[cfg(test)]
mod tests;

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{Args, ValueEnum};

use self::{
    facts::Facts,
    finding::{Finding, Level},
};
use crate::flags::DEFAULT_BPFFS;

/// What `doctor` takes.
#[derive(Args, Debug)]
pub(crate) struct DoctorFlags {
    /// Judge the host for this daemon alone (repeatable; default: all three)
    #[arg(long = "daemon", value_name = "NAME", value_enum)]
    daemons: Vec<DaemonName>,
    /// Device towards the network, as for `run` (repeatable)
    #[arg(long = "device", env = "ROADSTEAD_DEVICE", value_name = "IF", value_delimiter = ',')]
    devices: Vec<String>,
    /// Where the agent pins, or is to pin
    #[arg(long, env = "ROADSTEAD_BPFFS", value_name = "DIR", default_value = DEFAULT_BPFFS)]
    bpffs: PathBuf,
    /// cgroup whose processes get the socket programs (default: the cgroup2 mount)
    #[arg(long, env = "ROADSTEAD_CGROUP_ROOT", value_name = "PATH")]
    cgroup_root: Option<PathBuf>,
    /// Form of the output
    #[arg(short, long, value_enum)]
    output: Option<Output>,
}

/// One of the daemons that a host may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum DaemonName {
    /// `roadstead`
    Agent,
    /// `roadstead-ingress`
    Ingress,
    /// `roadstead-speaker`
    Speaker,
}

/// `-o`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// A list of objects
    Json,
}

/// What the host is to be good for.
#[derive(Clone, Debug)]
struct Purpose {
    daemons: Vec<DaemonName>,
    devices: Vec<String>,
    bpffs: PathBuf,
    cgroup_root: Option<PathBuf>,
}

impl Purpose {
    fn runs(&self, daemon: DaemonName) -> bool {
        self.daemons.is_empty() || self.daemons.contains(&daemon)
    }
}

/// Prints the findings; exit status 1 where a daemon could not do its work here.
pub(crate) fn run(flags: &DoctorFlags) -> anyhow::Result<ExitCode> {
    let purpose = Purpose {
        daemons: flags.daemons.clone(),
        devices: flags.devices.clone(),
        bpffs: flags.bpffs.clone(),
        cgroup_root: flags.cgroup_root.clone(),
    };
    let facts = Facts::gather(&purpose);
    let findings = judge(&facts, &purpose);
    let mut out = io::stdout().lock();
    match flags.output {
        Some(Output::Json) => finding::print_json(&findings, &mut out),
        None => finding::print(&findings, &mut out),
    }
    .and_then(|()| out.flush())
    .context("cannot print")?;
    let failed = findings.iter().any(|finding| finding.level == Level::Fail);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// All findings, in the order in which one would look.
fn judge(facts: &Facts, purpose: &Purpose) -> Vec<Finding> {
    [host::check(facts, purpose), settings::check(facts, purpose), rivals::check(facts, purpose)].concat()
}
