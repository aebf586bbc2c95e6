//! `roadstead-speaker`: hands out LoadBalancer addresses and announces them by ARP and NDP.
//!
//! It joins the pure crates to the world: `sources` gives the objects, `allocator` the addresses, `layer2` the decisions
//! and frames; here are the command line, the sockets and the threads. It deliberately forwards no traffic: that is the
//! agent's, on whichever node an address leads to.

#![deny(unsafe_code)]

mod controller;
mod convert;
mod copy;
mod engine;
mod events;
mod groups;
mod kernel;
mod links;
mod local;
mod loud;
mod members;
mod metrics;
mod offline;
mod peers;
mod plan;
mod ports;
mod priority;
mod record;
mod report;
mod responder;
mod run;
mod segment;
mod selection;
mod socket;
mod standalone;
mod survey;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Allocates and announces LoadBalancer addresses.
#[derive(Debug, Parser)]
#[command(name = "roadstead-speaker", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve: assign addresses, write them to status, answer for those that this node wins
    Run(Box<run::RunFlags>),
    /// Tell which addresses each Service of type LoadBalancer would get, or why none
    Allocate(offline::AllocateFlags),
    /// Tell which node would announce a Service's addresses if all were alive, and why the others would not
    Explain(offline::ExplainFlags),
    /// Write MetalLB's configuration of before its objects (the ConfigMap `config`, AddressPool) as those objects
    Convert(convert::ConvertFlags),
}

fn main() -> anyhow::Result<ExitCode> {
    match Cli::parse_from(roadstead_sources::config::arguments()?).command {
        Command::Run(flags) => run::run(*flags)?,
        Command::Allocate(flags) => offline::allocate(&flags)?,
        Command::Explain(flags) => offline::explain(&flags)?,
        Command::Convert(flags) => return convert::convert(&flags),
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
