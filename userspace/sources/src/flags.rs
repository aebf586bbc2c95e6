//! The source flags of the daemons, and what of them reading needs.

use std::{fmt, io, num::NonZeroU16, path::PathBuf, str::FromStr};

use clap::Args;
use ipnet::IpNet;
use roadstead_model::Port;

use crate::kube::own_namespace;

/// Where desired state comes from and where status goes.
#[derive(Args, Clone, Debug)]
pub struct SourceFlags {
    /// A directory of Kubernetes YAML or JSON, watched (repeatable)
    #[arg(long, value_name = "DIR", env = "ROADSTEAD_MANIFESTS", value_delimiter = ',')]
    pub manifests: Vec<PathBuf>,
    /// The API server of this kubeconfig instead, with its current context
    #[arg(long, value_name = "FILE", env = "ROADSTEAD_KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
    /// The API server of the cluster that this pod runs in instead
    #[arg(long, env = "ROADSTEAD_IN_CLUSTER")]
    pub in_cluster: bool,
    /// Which Node object is this node (default: the hostname)
    #[arg(long, value_name = "NAME", env = "ROADSTEAD_NODE_NAME")]
    pub node_name: Option<String>,
    /// Where status is written and state is kept
    #[arg(long, value_name = "DIR", env = "ROADSTEAD_STATE_DIR", default_value = "/var/lib/roadstead")]
    pub state_dir: PathBuf,
    /// Range of cluster addresses, one a family; the first one's family is the primary (repeatable)
    #[arg(
        long = "service-cidr",
        value_name = "CIDR",
        env = "ROADSTEAD_SERVICE_CIDR",
        value_delimiter = ',',
        default_values = ["10.96.0.0/12", "fd00:10:96::/112"]
    )]
    pub service_cidrs: Vec<IpNet>,
    /// Range that node ports are taken from
    #[arg(long, value_name = "FIRST-LAST", env = "ROADSTEAD_NODE_PORT_RANGE", default_value_t)]
    pub node_port_range: NodePortRange,
}

/// Where the daemon's own objects are in a cluster: its Lease, and what it tells of itself.
#[derive(Args, Clone, Debug, Default)]
pub struct NamespaceFlag {
    /// Namespace of this daemon's own objects in a cluster (default: the pod's, else roadstead-system)
    #[arg(long, value_name = "NAMESPACE", env = "POD_NAMESPACE")]
    namespace: Option<String>,
}

impl NamespaceFlag {
    /// The namespace: the flag's, else that of the pod, as the file beside its token says, else the installer's.
    #[must_use]
    pub fn resolve(&self) -> String {
        let given = self.namespace.clone().filter(|name| !name.is_empty());
        given.or_else(own_namespace).unwrap_or_else(|| "roadstead-system".to_owned())
    }
}

impl SourceFlags {
    /// The name of this node: the flag's, else the hostname in lower case, as kubelet registers it.
    ///
    /// # Errors
    /// When the hostname cannot be read.
    pub fn node_name(&self) -> io::Result<String> {
        match &self.node_name {
            Some(name) => Ok(name.clone()),
            None => Ok(std::fs::read_to_string("/proc/sys/kernel/hostname")?.trim().to_lowercase()),
        }
    }

    /// A source with the defaults of the other flags.
    #[must_use]
    pub fn of(manifests: Vec<PathBuf>, kubeconfig: Option<PathBuf>, in_cluster: bool) -> Self {
        let LoadOptions { service_cidrs, node_port_range, .. } = LoadOptions::default();
        let state_dir = PathBuf::from("/var/lib/roadstead");
        Self { manifests, kubeconfig, in_cluster, node_name: None, state_dir, service_cidrs, node_port_range }
    }

    /// Whether they name a source at all.
    #[must_use]
    pub fn name_a_source(&self) -> bool {
        !self.manifests.is_empty() || self.name_a_server()
    }

    /// Whether they name an API server.
    #[must_use]
    pub fn name_a_server(&self) -> bool {
        self.in_cluster || self.kubeconfig.is_some()
    }

    /// The part of the flags that reading depends on.
    #[must_use]
    pub fn options(&self) -> LoadOptions {
        LoadOptions {
            service_cidrs: self.service_cidrs.clone(),
            node_port_range: self.node_port_range,
            state_dir: Some(self.state_dir.clone()),
            filling: Filling::Here,
        }
    }
}

/// What reading manifests depends on besides the manifests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadOptions {
    /// Where cluster addresses come from: the first of each family; the first of all names the primary family.
    pub service_cidrs: Vec<IpNet>,
    /// Where node ports come from.
    pub node_port_range: NodePortRange,
    /// The state directory whose `status/` is merged into the objects; `None` takes the manifests alone.
    pub state_dir: Option<PathBuf>,
    /// Who fills in what objects leave out.
    pub filling: Filling,
}

/// Who fills in what objects leave out: addresses and ports of Services, hints of slices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Filling {
    /// This crate, in the place of an API server and its controllers.
    #[default]
    Here,
    /// The API server that the objects come from: what they lack they do not have.
    Server,
}

impl Default for LoadOptions {
    /// The defaults of the flags, without status.
    fn default() -> Self {
        let cidrs = ["10.96.0.0/12", "fd00:10:96::/112"];
        Self {
            service_cidrs: cidrs.iter().filter_map(|cidr| cidr.parse().ok()).collect(),
            node_port_range: NodePortRange::default(),
            state_dir: None,
            filling: Filling::Here,
        }
    }
}

/// `first-last`, both included, host byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodePortRange {
    first: Port,
    last: Port,
}

impl NodePortRange {
    /// The lowest port.
    #[must_use]
    pub fn first(self) -> Port {
        self.first
    }

    /// The highest port.
    #[must_use]
    pub fn last(self) -> Port {
        self.last
    }

    /// Whether the port lies in the range.
    #[must_use]
    pub fn contains(self, port: Port) -> bool {
        self.first <= port && port <= self.last
    }
}

impl Default for NodePortRange {
    /// As the API server: 30000-32767.
    fn default() -> Self {
        const FIRST: Port = NonZeroU16::new(30000).expect("30000 is not zero");
        const LAST: Port = NonZeroU16::new(32767).expect("32767 is not zero");
        Self { first: FIRST, last: LAST }
    }
}

impl fmt::Display for NodePortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// The text was no range of ports.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no range of ports such as 30000-32767")]
pub struct NodePortRangeError(String);

impl FromStr for NodePortRange {
    type Err = NodePortRangeError;

    fn from_str(text: &str) -> Result<Self, NodePortRangeError> {
        let wrong = || NodePortRangeError(text.to_owned());
        let (first, last) = text.split_once('-').ok_or_else(wrong)?;
        let first: Port = first.trim().parse().map_err(|_| wrong())?;
        let last: Port = last.trim().parse().map_err(|_| wrong())?;
        if first > last {
            return Err(wrong());
        }
        Ok(Self { first, last })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        source: SourceFlags,
    }

    #[test]
    fn defaults_are_those_of_load_options() {
        let mut options = Cli::try_parse_from(["x"]).unwrap().source.options();
        assert_eq!(options.state_dir.take(), Some(PathBuf::from("/var/lib/roadstead")));
        assert_eq!(options, LoadOptions::default());
        assert_eq!(options.service_cidrs.len(), 2);
    }

    #[test]
    fn manifests_repeat_and_split() {
        let flags = Cli::try_parse_from(["x", "--manifests", "a,b", "--manifests", "c"]).unwrap().source;
        assert_eq!(flags.manifests, ["a", "b", "c"].map(PathBuf::from));
    }

    #[test]
    fn port_ranges_are_read() {
        let cases = [
            ("30000-32767", true),
            ("1 - 65535", true),
            ("5-5", true),
            ("6-5", false),
            ("0-5", false),
            ("1-65536", false),
            ("7", false),
            ("", false),
        ];
        for (text, good) in cases {
            assert_eq!(text.parse::<NodePortRange>().is_ok(), good, "{text}");
        }
    }
}
