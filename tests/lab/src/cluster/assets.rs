//! Where the programs of the test cluster are: built by `cargo xtask setup --cluster`, or somebody else's.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

/// Names the folder of the programs; xtask sets it.
const FOLDER_VARIABLE: &str = "ROADSTEAD_CLUSTER_DIR";
/// The variable of other projects that names a folder of etcd, kube-apiserver and kubectl.
const ASSETS_VARIABLE: &str = "KUBEBUILDER_ASSETS";
/// All parts in one program, chosen by its first argument.
const ALL_IN_ONE: &str = "kubernetes";

/// A part of Kubernetes that the lab starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// The store.
    Etcd,
    /// The API.
    ApiServer,
    /// ReplicaSets, EndpointSlices, ServiceAccounts and the rest.
    Controllers,
    /// Pods to nodes.
    Scheduler,
    /// Services on a node: no part of the control plane itself.
    KubeProxy,
}

impl Part {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::ApiServer => "kube-apiserver",
            Self::Controllers => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
            Self::KubeProxy => "kube-proxy",
        }
    }
}

/// The folder of the programs.
#[derive(Clone, Debug)]
pub(super) struct Assets(PathBuf);

impl Assets {
    pub(super) fn find() -> Result<Self> {
        let named = |variable: &str| env::var_os(variable).filter(|folder| !folder.is_empty()).map(PathBuf::from);
        let folder = named(FOLDER_VARIABLE).or_else(|| named(ASSETS_VARIABLE)).or_else(current);
        let folder = folder.map(Self).filter(|folder| folder.has(Part::Etcd) && folder.has(Part::ApiServer));
        folder.context(
            "there is no Kubernetes for the test cluster: \"cargo xtask setup --cluster\" builds it (it needs Go)",
        )
    }

    /// Whether a part is there; a folder of somebody else's may lack the controllers.
    pub(super) fn has(&self, part: Part) -> bool {
        self.all_in_one().is_some() || self.0.join(part.name()).is_file()
    }

    pub(super) fn command(&self, part: Part) -> Command {
        match self.all_in_one() {
            Some(program) => {
                let mut command = Command::new(program);
                command.arg(part.name());
                command
            }
            None => Command::new(self.0.join(part.name())),
        }
    }

    /// The file that is a part where it is started under the part's name.
    pub(super) fn program(&self, part: Part) -> Option<PathBuf> {
        self.all_in_one().or_else(|| Some(self.0.join(part.name())).filter(|program| program.is_file()))
    }

    /// Whether a part's help names this flag; older ones of somebody else's have not all of them.
    pub(super) fn knows(&self, part: Part, flag: &str) -> bool {
        let output = self.command(part).arg("--help").output();
        let said = output.map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
        String::from_utf8_lossy(&said).contains(flag.trim_start_matches('-'))
    }

    pub(super) fn folder(&self) -> &Path {
        &self.0
    }

    pub(super) fn kubectl(&self) -> PathBuf {
        self.0.join("kubectl")
    }

    fn all_in_one(&self) -> Option<PathBuf> {
        Some(self.0.join(ALL_IN_ONE)).filter(|program| program.is_file())
    }
}

/// What the last set-up of any checkout has left.
fn current() -> Option<PathBuf> {
    let cache = env::var_os("XDG_CACHE_HOME").filter(|folder| !folder.is_empty()).map(PathBuf::from);
    let cache = cache.or_else(|| env::home_dir().map(|home| home.join(".cache")))?;
    Some(cache.join("roadstead/cluster/current")).filter(|folder| Path::new(folder).is_dir())
}
