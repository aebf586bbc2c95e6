//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;
use roadstead_sources::SourceFlags;
use roadstead_telemetry::TelemetryFlags;

use crate::{check::CheckFlags, get::GetFlags};

/// Balances Service traffic on this node.
#[derive(Debug, Parser)]
#[command(name = "roadstead", version, about, propagate_version = true, after_help = CONFIG_HELP)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const CONFIG_HELP: &str = "\
`run` also takes --config FILE (or ROADSTEAD_CONFIG): YAML that maps names of flags to values or lists of values. What the
command line says goes before it.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the node agent.
    Run(Box<RunFlags>),
    /// Validate manifests: file:line, object, field, what is wrong; exit 1 on errors.
    Check {
        /// Files or directories.
        #[arg(required = true)]
        paths: Vec<PathBuf>,
        #[command(flatten)]
        options: CheckFlags,
    },
    /// Show objects as the daemons understand them.
    Get(GetFlags),
    /// Show what is attached and what the maps hold; needs no daemon.
    Status {
        /// Where the agent's pins are.
        #[arg(long, env = "ROADSTEAD_BPFFS", default_value = DEFAULT_BPFFS)]
        bpffs: PathBuf,
        /// Every frontend with its endpoints, and every flow.
        #[arg(long)]
        maps: bool,
    },
    /// Detach and unpin everything that `run` has left in the kernel.
    Cleanup {
        /// Where the agent's pins are.
        #[arg(long, env = "ROADSTEAD_BPFFS", default_value = DEFAULT_BPFFS)]
        bpffs: PathBuf,
    },
}

const DEFAULT_BPFFS: &str = "/sys/fs/bpf/roadstead";

/// Flags of `run`. Each is also an environment variable, and a key of the file that `--config` names.
#[derive(Debug, Args)]
pub(crate) struct RunFlags {
    #[command(flatten)]
    pub(crate) source: SourceFlags,

    #[command(flatten)]
    pub(crate) telemetry: TelemetryFlags,

    /// Device towards the network (repeatable). Found by itself: those with the node's addresses or a default route.
    #[arg(long = "device", env = "ROADSTEAD_DEVICE", value_name = "IF", value_delimiter = ',')]
    pub(crate) devices: Vec<String>,

    /// cgroup whose processes get the socket programs, the node's and its pods'. Found by itself: the cgroup2 mount.
    #[arg(long, env = "ROADSTEAD_CGROUP_ROOT", value_name = "PATH")]
    pub(crate) cgroup_root: Option<PathBuf>,

    /// Folder on a BPF file system where maps and links are pinned.
    #[arg(long, env = "ROADSTEAD_BPFFS", value_name = "DIR", default_value = DEFAULT_BPFFS)]
    pub(crate) bpffs: PathBuf,

    /// Translate at connect and sendmsg, so that in-cluster traffic costs nothing per packet.
    #[arg(long, env = "ROADSTEAD_SOCKET_LB", value_enum, default_value_t = Switch::On)]
    pub(crate) socket_lb: Switch,

    /// Node addresses that serve node ports: `primary`, or networks.
    #[arg(
        long,
        env = "ROADSTEAD_NODEPORT_ADDRESSES",
        value_name = "primary|CIDR",
        value_delimiter = ',',
        default_value = "primary"
    )]
    pub(crate) nodeport_addresses: Vec<NodePortAddresses>,

    /// Size of the conntrack table; a flow takes two entries.
    #[arg(long, env = "ROADSTEAD_CONNTRACK_ENTRIES", value_name = "N", default_value_t = roadstead_abi::limits::CONNTRACK)]
    pub(crate) conntrack_entries: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Switch {
    On,
    Off,
}

/// One value of `--nodeport-addresses`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum NodePortAddresses {
    Primary,
    Network(IpNet),
}

impl std::str::FromStr for NodePortAddresses {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "primary" {
            return Ok(Self::Primary);
        }
        text.parse().map(Self::Network).map_err(|_| format!("{text:?} is neither \"primary\" nor a CIDR"))
    }
}

impl RunFlags {
    /// The networks of `--nodeport-addresses`; none means the primary addresses.
    pub(crate) fn node_port_networks(&self) -> Vec<IpNet> {
        let network = |value: &NodePortAddresses| match value {
            NodePortAddresses::Primary => None,
            NodePortAddresses::Network(network) => Some(*network),
        };
        self.nodeport_addresses.iter().filter_map(network).collect()
    }
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
