//! A node of the lab: its host, its pods, and what keeps it apart from the other nodes on the same kernel.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, ensure};

use crate::capture::Evidence;
use crate::daemon::{Daemon, Program};
use crate::ground::Ground;
use crate::identity::LabId;
use crate::lab;
use crate::namespace::Namespace;
use crate::numbers::Numbers;
use crate::place::{Parts, Place};
use crate::topology;
use crate::{cgroup, ip};

/// The longest name of a device.
const DEVICE_NAME: usize = 15;

/// Where a daemon has its objects from.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// This directory of manifests.
    Manifests(&'a Path),
    /// The API server that this kubeconfig names.
    Kubeconfig(&'a Path),
}

impl<'a> Source<'a> {
    /// The flag that tells a daemon, or the operator's command line, and its value.
    #[must_use]
    pub fn flag(self) -> (&'static str, &'a Path) {
        match self {
            Self::Manifests(folder) => ("--manifests", folder),
            Self::Kubeconfig(file) => ("--kubeconfig", file),
        }
    }
}

/// A source that a node keeps.
#[derive(Clone, Debug)]
enum Kept {
    Manifests(PathBuf),
    Kubeconfig(PathBuf),
}

impl Kept {
    fn source(&self) -> Source<'_> {
        match self {
            Self::Manifests(folder) => Source::Manifests(folder),
            Self::Kubeconfig(file) => Source::Kubeconfig(file),
        }
    }
}

impl From<Source<'_>> for Kept {
    fn from(source: Source<'_>) -> Self {
        match source {
            Source::Manifests(folder) => Self::Manifests(folder.to_owned()),
            Source::Kubeconfig(file) => Self::Kubeconfig(file.to_owned()),
        }
    }
}

/// A node. Clones are the same node.
#[derive(Clone, Debug)]
pub struct Node {
    id: LabId,
    host: Place,
    number: u16,
    folder: PathBuf,
    cgroup_root: PathBuf,
    bpffs: PathBuf,
    state_dir: PathBuf,
    usual: Kept,
    /// `NAME=ADDRESS` of every node of the lab.
    peers: Vec<String>,
    evidence: Arc<Evidence>,
    pods: Arc<Mutex<Numbers>>,
}

impl Node {
    pub(crate) fn new(ground: &Ground, name: &str, number: u16, source: Source<'_>, peers: &[String]) -> Result<Self> {
        let cgroup_root = ground.cgroup.join(name);
        let (bpffs, state_dir) = (ground.pins.join(name), ground.folder.join(format!("{name}-state")));
        for folder in [&cgroup_root, &bpffs, &state_dir] {
            fs::create_dir_all(folder).with_context(|| format!("could not make {}", folder.display()))?;
        }
        Ok(Self {
            id: ground.id,
            host: lab::station(ground, name, 10 + number, &cgroup_root.join("host"))?,
            number,
            folder: ground.folder.clone(),
            cgroup_root,
            bpffs,
            state_dir,
            usual: source.into(),
            peers: peers.to_owned(),
            evidence: ground.evidence.clone(),
            pods: Arc::new(Mutex::new(Numbers::new(topology::FIRST_POD))),
        })
    }

    /// `node-a`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.host.name()
    }

    /// Its host network.
    #[must_use]
    pub fn host(&self) -> &Place {
        &self.host
    }

    /// The networks of its pods, IPv4 first.
    #[must_use]
    pub fn pod_cidrs(&self) -> [String; 2] {
        topology::pod_cidrs(self.number)
    }

    /// The control group over its host's and its pods' processes.
    #[must_use]
    pub fn cgroup_root(&self) -> &Path {
        &self.cgroup_root
    }

    /// Where its agent pins.
    #[must_use]
    pub fn bpffs(&self) -> &Path {
        &self.bpffs
    }

    /// The lab's folder of logs and state.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where its daemons keep their state.
    #[must_use]
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// Makes a pod. Each node numbers its pods from 11: the first has the addresses `10.244.NODE.11` and
    /// `fd00:10:244:NODE::11`.
    ///
    /// # Errors
    ///
    /// Where the name is in use, or the node has 200 pods.
    pub fn add_pod(&self, name: &str) -> Result<Place> {
        let pod = self.take_number()?;
        self.add_pod_numbered(name, pod).inspect_err(|_| self.give_back(pod))
    }

    /// Makes a pod that is called after its number: names of the API are too long for devices, and come back.
    pub(crate) fn add_unnamed_pod(&self) -> Result<Place> {
        let pod = self.take_number()?;
        self.add_pod_numbered(&format!("{}-p{pod}", self.name()), pod).inspect_err(|_| self.give_back(pod))
    }

    fn take_number(&self) -> Result<u16> {
        let taken = self.pods.lock().unwrap_or_else(PoisonError::into_inner).take();
        taken.with_context(|| format!("{} has no address left", self.name()))
    }

    fn give_back(&self, pod: u16) {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner).give_back(pod);
    }

    fn add_pod_numbered(&self, name: &str, pod: u16) -> Result<Place> {
        let (inside, host) = (self.id.namespace(name), self.host.namespace());
        let port: String = format!("v-{name}").chars().take(DEVICE_NAME).collect();
        ip::batch(None, &[format!("netns add {inside}")])?;
        let namespace = Namespace::open(&inside)?;
        namespace.set_parameters(topology::PARAMETERS)?;
        ip::batch(None, &[topology::pod_link(self.number, pod, &inside, &port, host)])?;
        ip::batch(Some(&inside), &topology::pod(self.number, pod))?;
        ip::batch(Some(host), &[format!("link set {port} master cni0 up")])?;
        namespace.wait_running(&["eth0"])?;
        self.host.network().wait_running(&[&port, "cni0"])?;
        let cgroup = self.cgroup_root.join(name);
        fs::create_dir(&cgroup).with_context(|| format!("could not make {}", cgroup.display()))?;
        Ok(Place::new(Parts {
            name: name.to_owned(),
            namespace,
            cgroup,
            v4: topology::pod_v4(self.number, pod),
            v6: topology::pod_v6(self.number, pod),
            folder: self.folder.clone(),
            evidence: self.evidence.clone(),
        }))
    }

    /// Ends all of a pod's processes and takes it away. Its addresses are used again when all others were.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses.
    pub fn remove_pod(&self, pod: &Place) -> Result<()> {
        cgroup::remove(pod.cgroup())?;
        let removed = ip::batch(None, &[format!("netns del {}", pod.namespace())]);
        let [.., number] = pod.v4().octets();
        self.give_back(number.into());
        removed
    }

    /// The command of a daemon on this node, with the flags that every lab needs; more may be added.
    ///
    /// # Errors
    ///
    /// Where the program has not been built.
    pub fn command(&self, program: Program) -> Result<Command> {
        self.command_from(program, self.usual.source())
    }

    /// As [`command`](Self::command), with another source of objects.
    ///
    /// # Errors
    ///
    /// Where the program has not been built.
    pub fn command_from(&self, program: Program, source: Source<'_>) -> Result<Command> {
        let mut command = program.command()?;
        let (flag, value) = source.flag();
        command.arg(flag).arg(value);
        command.args(["--node-name", self.name()]);
        command.arg("--state-dir").arg(&self.state_dir).args(["--metrics-addr", &program.address().to_string()]);
        match program {
            Program::Agent => {
                command.arg("--cgroup-root").arg(&self.cgroup_root).arg("--bpffs").arg(&self.bpffs);
                command.args(["--device", "eth0"]);
            }
            Program::Ingress => {
                command.args(["--http", "[::]:80", "--https", "[::]:443"]);
            }
            Program::Speaker => {
                command.args(["--interface", "eth0"]).arg("--bpffs").arg(&self.bpffs);
                // In a cluster the Nodes tell.
                for peer in self.peers.iter().filter(|_| matches!(source, Source::Manifests(_))) {
                    command.args(["--peer", peer]);
                }
            }
        }
        Ok(command)
    }

    /// Kills everything that runs on the node and in its pods at once (SIGKILL), as where its power goes.
    ///
    /// # Errors
    ///
    /// Where the kernel cannot kill a control group: `cgroup.kill` is there from 5.14 on.
    pub fn kill_all(&self) -> Result<()> {
        let file = self.cgroup_root.join("cgroup.kill");
        fs::write(&file, "1").with_context(|| format!("could not write {}", file.display()))
    }

    /// Starts a daemon with the flags that every lab needs. It is not waited for.
    ///
    /// # Errors
    ///
    /// Where it cannot be started.
    pub fn start(&self, program: Program) -> Result<Daemon> {
        self.start_with(program, self.command(program)?)
    }

    /// Starts a daemon by a command from [`command`](Self::command) that was added to.
    ///
    /// # Errors
    ///
    /// Where it cannot be started, and where it would read files although the lab's objects are in an API server.
    pub fn start_with(&self, program: Program, command: Command) -> Result<Daemon> {
        if let Kept::Kubeconfig(_) = self.usual {
            let has = |flag: &str| command.get_args().any(|argument| argument == flag);
            ensure!(has("--kubeconfig") && !has("--manifests"), "{} has another source: {command:?}", program.file());
        }
        Daemon::start(&self.host, program, command)
    }
}
