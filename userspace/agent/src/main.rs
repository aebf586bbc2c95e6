//! `roadstead`: the node agent and the operator's command line.
//!
//! `run` stands where the configuration's way meets the packet's: it takes snapshots from `sources`, lets `dataplane`
//! bring the BPF maps to them, and keeps devices and flows in order. The other commands work without a daemon. No TLS
//! key and no client's HTTP request is ever seen here, only questions about metrics and health: this process holds
//! CAP_BPF.

#![forbid(unsafe_code)]

mod agent;
mod cgroup;
mod check;
mod desired;
mod devices;
mod doctor;
mod explain;
mod flags;
mod get;
mod health_check;
mod metrics;
mod netlink;
mod run;
mod status;
mod table;
mod trace;
mod traffic;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;

use crate::flags::{Cli, Command};

fn main() -> ExitCode {
    match try_main() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("roadstead: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn try_main() -> anyhow::Result<ExitCode> {
    let arguments = roadstead_sources::config::arguments().context("cannot read the configuration")?;
    match Cli::parse_from(arguments).command {
        Command::Run(flags) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(run::run(*flags)).map(|()| ExitCode::SUCCESS)
        }
        Command::Check { paths, options } => check::run(&paths, &options),
        Command::Get(flags) => get::run(&flags),
        Command::Explain(flags) => explain::run(&flags),
        Command::Status(flags) => status::run(&flags),
        Command::Trace(flags) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(trace::run(&flags)).map(|()| ExitCode::SUCCESS)
        }
        Command::Doctor(flags) => doctor::run(&flags),
        Command::Cleanup { bpffs } => {
            roadstead_dataplane::cleanup::run(&bpffs)?;
            println!("removed every program, map and link pinned in {}", bpffs.display());
            Ok(ExitCode::SUCCESS)
        }
    }
}
