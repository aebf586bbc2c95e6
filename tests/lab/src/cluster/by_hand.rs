//! `roadstead-lab cluster`: a cluster to step into, until Ctrl-C.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Args;

use super::{ControlPlane, ProxyMode};
use crate::kubelet::Kubelet;
use crate::lab::Lab;
use crate::topology::{Capturing, Topology};

/// The flags of `roadstead-lab cluster`.
#[derive(Args, Debug)]
pub struct ClusterFlags {
    /// How many nodes, up to 5
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=5))]
    nodes: u8,
    /// The folder of the programs that pods on the node's network run, whatever their image is called
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,
    /// Start kube-proxy on every node
    #[arg(long, value_name = "MODE")]
    kube_proxy: Option<ProxyMode>,
}

/// Runs a cluster until Ctrl-C.
///
/// # Errors
///
/// Where it does not come up.
pub fn run(flags: &ClusterFlags) -> Result<ExitCode> {
    let topology = Topology { nodes: flags.nodes.into(), capture: Capturing::Never };
    let lab = Lab::with("cluster", topology)?;
    let control = ControlPlane::start(&lab)?;
    let images = flags.images.as_deref().map(fs::canonicalize).transpose().context("no folder of programs")?;
    let start = |node| Kubelet::start_with(&control, node, images.as_deref());
    let kubelets = lab.nodes().iter().map(start).collect::<Result<Vec<_>>>()?;
    let proxies = flags.kube_proxy.into_iter().flat_map(|mode| lab.nodes().iter().map(move |node| (node, mode)));
    let _proxies = proxies.map(|(node, mode)| control.start_kube_proxy(node, mode)).collect::<Result<Vec<_>>>()?;
    let id = lab.id();
    println!("The cluster {id} runs, with {} nodes; Ctrl-C ends it. From another terminal, as root:\n", kubelets.len());
    let kubectl = control.assets.kubectl();
    println!("  roadstead-lab enter --lab {id} control {} \\", kubectl.display());
    println!("      --kubeconfig {} get nodes", control.admin_kubeconfig().display());
    println!("  roadstead-lab enter --lab {id} node-a      # a shell on a node, or on the client\n");
    println!("Logs are in {}.", lab.folder().display());
    lab.run_until_interrupted(0)
}
