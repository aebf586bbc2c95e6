//! `roadstead-bench`: measures what the README states, beside the peers, in one run.
//!
//! It stands outside both ways through the house, as the lab does, which it builds on: it starts the daemons as anybody
//! would, loads the peers' rules as kube-proxy would, and lets the same client use each of them in turn. Its other
//! commands are that client and its server, which run inside the lab's places.
//!
//! It holds no limit that a figure must keep: machines differ. The ratios of one run are what to read.

#![forbid(unsafe_code)]

mod agent;
mod clock;
mod cluster;
mod failover;
mod ingress;
mod load;
mod machine;
mod manifests;
mod packets;
mod peers;
mod plan;
mod report;
mod series;
mod service;
mod stage;
mod state;
mod worker;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::cluster::ClusterFlags;
use crate::failover::FailoverFlags;
use crate::ingress::IngressFlags;
use crate::packets::PacketsFlags;
use crate::plan::ServiceFlags;
use crate::worker::http::edits::EditFlags;
use crate::worker::http::endpoint::EndpointFlags;
use crate::worker::http::handshakes::HandshakeFlags;
use crate::worker::http::hold::HoldFlags;
use crate::worker::http::pace::PaceFlags;
use crate::worker::{connect::ConnectFlags, send::SendFlags, serve::ServeFlags, watch::WatchFlags};

/// Measures Roadstead beside its peers
#[derive(Debug, Parser)]
#[command(name = "roadstead-bench", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Service load balancing beside nftables and iptables rules in kube-proxy's shape
    Service(ServiceFlags),
    /// Requests through the proxy beside nginx, HAProxy and Envoy
    Ingress(IngressFlags),
    /// Addresses that move from node to node, beside keepalived
    Failover(FailoverFlags),
    /// A large cluster: first sync, memory, changes, idling, beside kube-proxy
    Cluster(ClusterFlags),
    /// One connection after the other to an address; prints their times
    #[command(hide = true)]
    Connect(ConnectFlags),
    /// Answers each connection with the address that it came to
    #[command(hide = true)]
    Serve(ServeFlags),
    /// Sends for some seconds to a server's sink; prints the bytes that arrived
    #[command(hide = true)]
    Send(SendFlags),
    /// Measures the programs over the maps of an agent that has ended; prints nanoseconds
    #[command(hide = true)]
    Packets(PacketsFlags),
    /// Connects until a certain server answers; prints when
    #[command(hide = true)]
    Watch(WatchFlags),
    /// Answers HTTP/1.1 behind the proxies
    #[command(hide = true)]
    Endpoint(EndpointFlags),
    /// New TLS connections for some time; prints their times
    #[command(hide = true)]
    Handshakes(HandshakeFlags),
    /// Requests at a fixed rate; prints their times
    #[command(hide = true)]
    Pace(PaceFlags),
    /// Opens connections and holds them
    #[command(hide = true)]
    Hold(HoldFlags),
    /// Asks while the configuration changes; prints when, and what was lost
    #[command(hide = true)]
    Edits(EditFlags),
}

fn main() -> ExitCode {
    let done: Result<()> = match &Cli::parse().command {
        Command::Service(flags) => service::run(flags),
        Command::Connect(flags) => worker::connect::run(flags),
        Command::Serve(flags) => worker::serve::run(flags),
        Command::Send(flags) => worker::send::run(flags),
        Command::Packets(flags) => packets::run(flags),
        Command::Watch(flags) => worker::watch::run(flags),
        Command::Ingress(flags) => ingress::run(flags),
        Command::Failover(flags) => failover::run(flags),
        Command::Cluster(flags) => cluster::run(flags),
        Command::Endpoint(flags) => worker::http::endpoint::run(flags),
        Command::Handshakes(flags) => worker::http::handshakes::run(flags),
        Command::Pace(flags) => worker::http::pace::run(flags),
        Command::Hold(flags) => worker::http::hold::run(flags),
        Command::Edits(flags) => worker::http::edits::run(flags),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("roadstead-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
