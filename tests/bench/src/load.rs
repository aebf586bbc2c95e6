//! Loading the peers' rules with the peers' own programs, and timing it: from the start of the process to its end.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context as _, Result, bail};

use crate::peers::{Change, iptables, nftables};
use crate::stage::{Mode, Stage, peak_memory};
use crate::state::{Service, State};

/// Services in one transaction where nft does not get all at once.
const PER_TRANSACTION: usize = 250;
/// How often a running program's memory is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// A full load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Loaded {
    pub(crate) seconds: f64,
    /// The largest peak of all its processes.
    pub(crate) peak_mib: f64,
    pub(crate) transactions: usize,
}

/// Whether this host has the mode's program and the kernel its tables.
pub(crate) fn is_available(mode: Mode) -> bool {
    let works = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
        output.is_ok_and(|output| output.status.success())
    };
    match mode {
        Mode::Direct | Mode::Roadstead => true,
        Mode::Nftables => works("nft", &["list", "tables"]),
        // Listing a table asks the kernel for it.
        Mode::IptablesNft => works("iptables-nft", &["-t", "nat", "-S"]),
        Mode::IptablesLegacy => works("iptables-legacy", &["-t", "nat", "-S"]),
    }
}

/// Takes the rules away and loads those of a state: everything in one transaction where `whole` says so.
pub(crate) fn full(stage: &Stage, state: &State, whole: bool) -> Result<Loaded> {
    let services = state.all();
    let files = match stage.mode {
        Mode::Nftables => nft_files(stage, &services, whole),
        _ => vec![iptables::full(&services)],
    };
    clear(stage)?;
    let mut loaded = Loaded { seconds: 0.0, peak_mib: 0.0, transactions: files.len() };
    for text in files {
        let (seconds, peak) = run(stage, &text, &[])?;
        loaded.seconds += seconds;
        loaded.peak_mib = loaded.peak_mib.max(peak);
    }
    Ok(loaded)
}

/// Exchanges endpoints; tells how many seconds the program took.
pub(crate) fn change(stage: &Stage, before: &Service, after: &Service) -> Result<f64> {
    let change = Change { before, after };
    let (text, arguments): (_, &[&str]) = match stage.mode {
        Mode::Nftables => (nftables::change(change), &[]),
        _ => (iptables::change(change), &["--noflush"]),
    };
    Ok(run(stage, &text, arguments)?.0)
}

fn nft_files(stage: &Stage, services: &[Service], whole: bool) -> Vec<String> {
    let base = nftables::base(stage.node().host().v4());
    if whole {
        return vec![base + &nftables::services(services)];
    }
    [base].into_iter().chain(services.chunks(PER_TRANSACTION).map(nftables::services)).collect()
}

fn clear(stage: &Stage) -> Result<()> {
    match stage.mode {
        Mode::Nftables => {
            let output = stage.on_node("nft", &["flush", "ruleset"])?;
            if !output.status.success() {
                bail!("nft flush ruleset: {}", String::from_utf8_lossy(&output.stderr).trim());
            }
            Ok(())
        }
        _ => run(stage, "*filter\nCOMMIT\n*nat\nCOMMIT\n", &[]).map(drop),
    }
}

/// Runs the mode's program on a file: seconds, and the peak of its memory.
fn run(stage: &Stage, text: &str, arguments: &[&str]) -> Result<(f64, f64)> {
    let file = stage.lab().folder().join("rules");
    fs::write(&file, text).context("the rules could not be written")?;
    let (program, flags): (_, &[&str]) = match stage.mode {
        Mode::Nftables => ("nft", &["-f"]),
        Mode::IptablesNft => ("iptables-nft-restore", &[]),
        _ => ("iptables-legacy-restore", &[]),
    };
    let mut command = Command::new(program);
    command.args(arguments).args(flags).arg(&file);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    stage.node().host().enter(&mut command)?;
    let started = Instant::now();
    let child = command.spawn().with_context(|| format!("could not start {program}"))?;
    let (process, ended) = (child.id(), AtomicBool::new(false));
    let (output, took, peak) = thread::scope(|scope| {
        let looking = scope.spawn(|| {
            let mut peak: f64 = 0.0;
            while !ended.load(Ordering::Acquire) {
                peak = peak.max(peak_memory(process).unwrap_or_default());
                thread::sleep(LOOK);
            }
            peak
        });
        let output = child.wait_with_output();
        let took = started.elapsed();
        ended.store(true, Ordering::Release);
        (output, took, looking.join().unwrap_or_default())
    });
    let output = output.with_context(|| format!("{program} could not be waited for"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let first: Vec<&str> = said.lines().take(5).collect();
        bail!("{program} in {} refuses the rules: {}", stage.mode.name(), first.join("; "));
    }
    Ok((took.as_secs_f64(), peak))
}
