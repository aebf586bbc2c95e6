//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;
use nix::unistd::Group;
use roadstead_model::Selection;
use roadstead_sources::SourceFlags;
use roadstead_telemetry::TelemetryFlags;

use crate::{
    check::CheckFlags, doctor::DoctorFlags, explain::ExplainFlags, get::GetFlags, status::StatusFlags,
    trace::TraceFlags,
};

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
    /// Show how this node would treat a new flow, and which rule says so.
    Explain(Box<ExplainFlags>),
    /// Show what is attached and what the maps hold; needs no daemon.
    Status(Box<StatusFlags>),
    /// Show new flows and refusals as they happen.
    Trace(Box<TraceFlags>),
    /// Tell what this host lacks, or who else does the same work on it, and what to do; exit 1 where a daemon cannot work.
    Doctor(DoctorFlags),
    /// Detach and unpin everything that `run` has left in the kernel.
    Cleanup {
        /// Where the agent's pins are.
        #[arg(long, env = "ROADSTEAD_BPFFS", default_value = DEFAULT_BPFFS)]
        bpffs: PathBuf,
    },
}

pub(crate) const DEFAULT_BPFFS: &str = "/sys/fs/bpf/roadstead";

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

    /// Let this group, a name or a number, write the maps that the speaker tells who announces what by, so that it can do so
    /// as a user other than root and without CAP_BPF. The agent must be in the group, or have CAP_CHOWN.
    #[arg(long, env = "ROADSTEAD_SPEAKER_GROUP", value_name = "GROUP", value_parser = group)]
    pub(crate) speaker_group: Option<u32>,

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

    /// Whether pods see their clients: `preserve` keeps a client's address wherever answers come back through this node,
    /// `kube-proxy` puts the node's in its place wherever kube-proxy does.
    #[arg(long, env = "ROADSTEAD_MASQUERADE", value_name = "MODE", value_enum, default_value_t = Masquerade::Preserve)]
    pub(crate) masquerade: Masquerade,

    /// Put the node's address in the client's place for all traffic to cluster IPs, as kube-proxy's masqueradeAll does.
    #[arg(long, env = "ROADSTEAD_MASQUERADE_ALL")]
    pub(crate) masquerade_all: bool,

    /// Network that this cluster's pods have their addresses from (repeatable): what comes from elsewhere is no pod.
    /// Found by itself: the `podCIDRs` of all Nodes.
    #[arg(long = "pod-cidr", env = "ROADSTEAD_POD_CIDR", value_name = "CIDR", value_delimiter = ',', value_parser = network)]
    pub(crate) pod_cidrs: Vec<IpNet>,

    /// How a new flow gets its backend: `random`, or `maglev`, by which all nodes choose the same one. A Service has its
    /// own way by the annotation `roadstead.dev/load-balancing`.
    #[arg(long, env = "ROADSTEAD_LOAD_BALANCING", value_name = "WAY", value_enum, default_value_t = LoadBalancing::Random)]
    pub(crate) load_balancing: LoadBalancing,
}

/// `--masquerade`: where the node's address takes the client's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Masquerade {
    /// Only where the answer would not come back through this node otherwise.
    Preserve,
    /// Wherever kube-proxy does it.
    #[value(name = "kube-proxy")]
    KubeProxy,
}

/// `--load-balancing`: how a new flow gets its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LoadBalancing {
    /// By a random number.
    Random,
    /// By the flow's addresses and ports, the same on every node.
    Maglev,
}

impl LoadBalancing {
    /// The same in the model's words.
    pub(crate) fn selection(self) -> Selection {
        match self {
            Self::Random => Selection::Random,
            Self::Maglev => Selection::Maglev,
        }
    }
}

/// A CIDR without the bits behind its length.
pub(crate) fn network(text: &str) -> Result<IpNet, String> {
    text.parse().map(|network: IpNet| network.trunc()).map_err(|_| format!("{text:?} is no CIDR"))
}

/// The number of a group. A number is none of this host's names: an image has no list of groups.
fn group(text: &str) -> Result<u32, String> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let found = Group::from_name(text).map_err(|error| format!("the groups cannot be read: {error}"))?;
    found.map(|group| group.gid.as_raw()).ok_or_else(|| format!("there is no group {text:?}"))
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

impl NodePortAddresses {
    /// The network, if it is one.
    pub(crate) fn network(&self) -> Option<IpNet> {
        match self {
            Self::Primary => None,
            Self::Network(network) => Some(*network),
        }
    }
}

impl RunFlags {
    /// The networks of `--nodeport-addresses`; none means the primary addresses.
    pub(crate) fn node_port_networks(&self) -> Vec<IpNet> {
        self.nodeport_addresses.iter().filter_map(NodePortAddresses::network).collect()
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

    fn run(arguments: &[&str]) -> Result<RunFlags, String> {
        let all = ["roadstead", "run", "--manifests", "/manifests"].iter().chain(arguments);
        match Cli::try_parse_from(all).map_err(|error| error.to_string())?.command {
            Command::Run(flags) => Ok(*flags),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_speakers_group_is_a_name_or_a_number() {
        let cases =
            [(vec![], None), (vec!["--speaker-group=65532"], Some(65532)), (vec!["--speaker-group=root"], Some(0))];
        for (flags, expected) in cases {
            assert_eq!(run(&flags).unwrap().speaker_group, expected, "{flags:?}");
        }
        let error = run(&["--speaker-group=nobody-has-this"]).unwrap_err();
        assert!(error.contains("there is no group \"nobody-has-this\""), "{error}");
    }

    #[test]
    fn the_ways_of_balancing_are_chosen_by_flags() {
        let chosen = |arguments: &[&str]| {
            let flags = run(arguments).unwrap();
            let cidrs: Vec<_> = flags.pod_cidrs.iter().map(ToString::to_string).collect();
            (flags.masquerade, flags.masquerade_all, flags.load_balancing, cidrs.join(" "))
        };
        assert_eq!(chosen(&[]), (Masquerade::Preserve, false, LoadBalancing::Random, String::new()));
        let all = ["--masquerade=kube-proxy", "--masquerade-all", "--load-balancing", "maglev"];
        assert_eq!(chosen(&all), (Masquerade::KubeProxy, true, LoadBalancing::Maglev, String::new()));
        let cidrs = "10.244.0.0/16 fd00:10::/64 10.9.0.0/24";
        let flags = ["--pod-cidr", "10.244.1.0/16,fd00:10::1/64", "--pod-cidr", "10.9.0.0/24"];
        assert_eq!(chosen(&flags).3, cidrs);
        for wrong in ["--masquerade=all", "--pod-cidr=10.244.0.0", "--pod-cidr=10.244.0.0/33", "--load-balancing=rr"] {
            assert!(run(&[wrong]).is_err(), "{wrong}");
        }
    }
}
