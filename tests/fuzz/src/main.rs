//! `roadstead-fuzz`: runs a target for long, or one input of it again.

#![forbid(unsafe_code)]

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use roadstead_fuzz::{TARGETS, Target, drive, run_one};

/// Fuzzes the parsers of foreign bytes.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Cli {
    /// Which parser; without it all are named
    target: Option<String>,
    /// How many inputs
    #[arg(long, default_value_t = 1_000_000)]
    runs: u64,
    /// The same seed gives the same inputs
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Try the bytes of this file instead
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
}

fn main() -> Result<ExitCode> {
    let cli = Cli::parse();
    let Some(name) = &cli.target else {
        for target in TARGETS {
            println!("{:<12} {}", target.name, target.what);
        }
        return Ok(ExitCode::SUCCESS);
    };
    let Some(target) = TARGETS.iter().find(|target| target.name == name) else {
        bail!("no target {name}; without an argument all are named");
    };
    // A promise that breaks is told once, at the end, not for every step of shortening it.
    std::panic::set_hook(Box::new(|_| {}));
    run(target, &cli)
}

fn run(target: &Target, cli: &Cli) -> Result<ExitCode> {
    let outcome = match &cli.input {
        Some(file) => {
            let input = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
            run_one(target, &input).map(|way| println!("{}: holds (way {way:x})", target.name))
        }
        None => drive(target, cli.runs, cli.seed)
            .map(|report| println!("{}: {report} (--runs {} --seed {})", target.name, cli.runs, cli.seed)),
    };
    let Err(finding) = outcome else { return Ok(ExitCode::SUCCESS) };
    let file = PathBuf::from(format!("{}-finding", target.name));
    fs::write(&file, &finding.input).with_context(|| format!("cannot write {}", file.display()))?;
    println!("{finding}\nwritten to {}; again with --input", file.display());
    Ok(ExitCode::FAILURE)
}
