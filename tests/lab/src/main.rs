//! `roadstead-lab`: the demo, and the programs that the lab runs in its places.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use roadstead_lab::cluster::{self, ClusterFlags};
use roadstead_lab::container::{self, ContainerFlags};
use roadstead_lab::demo::{self, DemoFlags};
use roadstead_lab::echo::{self, EchoFlags};
use roadstead_lab::enter::{self, EnterFlags};
use roadstead_lab::probe::{self, ProbeCommand};

/// Nodes, pods and a client on this machine, for Roadstead's demo and tests
#[derive(Debug, Parser)]
#[command(name = "roadstead-lab", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the lab, show every path of a request through it and what changes do
    Demo(DemoFlags),
    /// Run a Kubernetes cluster of the lab's nodes, to step into
    Cluster(ClusterFlags),
    /// Run a command, or a shell, inside a place of a running lab
    Enter(EnterFlags),
    /// Become the program of a container, with the rights that its pod asks for
    #[command(hide = true)]
    Container(ContainerFlags),
    /// Answer over HTTP, TCP and UDP with the own name and the peer that was seen
    Echo(EchoFlags),
    /// See what answers at an address; prints a line of JSON for each attempt
    #[command(subcommand)]
    Probe(ProbeCommand),
}

fn main() -> ExitCode {
    let done: Result<ExitCode> = match &Cli::parse().command {
        Command::Demo(flags) => demo::run(*flags),
        Command::Cluster(flags) => cluster::run(flags),
        Command::Enter(flags) => enter::run(flags),
        Command::Container(flags) => container::run(flags),
        Command::Echo(flags) => echo::run(flags).map(|()| ExitCode::SUCCESS),
        Command::Probe(command) => probe::run(command).map(|()| ExitCode::SUCCESS),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("roadstead-lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}
