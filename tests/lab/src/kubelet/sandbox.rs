//! What a pod is on its node: a network of its own or the node's, and in it an echo server or a program.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::spec::Pod;
use super::{Shared, process, volumes};
use crate::place::Place;
use crate::process::Process;
use crate::{cgroup, programs};

/// A running pod. Dropped without [`remove`](Self::remove), its process ends and its network stays to the lab's end.
#[derive(Debug)]
pub(super) struct Sandbox {
    shared: Arc<Shared>,
    place: Place,
    server: Process,
    kind: Kind,
    network: Network,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Network {
    Own,
    Nodes,
}

#[derive(Clone, Debug)]
enum Kind {
    /// The flags of an echo server.
    Echo(Vec<String>),
    /// The folder of a program.
    Program(PathBuf),
}

/// The description of the container in its folder.
const DESCRIPTION: &str = "container.json";

impl Sandbox {
    /// Makes the pod's network, or its folder, and starts its server.
    pub(super) async fn start(shared: &Arc<Shared>, pod: &Pod) -> Result<Self> {
        let shared = Arc::clone(shared);
        let kind = if process::is_program(&shared, pod) {
            let folder = shared.node.folder().join("pods").join(pod.uid());
            let container = process::describe(&shared, pod, &folder).await?;
            fs::write(folder.join(DESCRIPTION), serde_json::to_string(&container)?).context("no folder for the pod")?;
            Kind::Program(folder)
        } else {
            Kind::Echo(pod.echo_flags())
        };
        if !pod.is_on_the_nodes_network() {
            return tokio::task::spawn_blocking(move || Self::start_pod(shared, kind)).await?;
        }
        // A leaf of its own, so that what it starts ends with it.
        let group = shared.node.cgroup_root().join(format!("pod-{}", pod.uid()));
        fs::create_dir_all(&group)?;
        let place = shared.node.host().with_group(&pod.name_on(shared.node.name()), group);
        let server = run(&place, &kind)?;
        Ok(Self { shared, place, server, kind, network: Network::Nodes })
    }

    fn start_pod(shared: Arc<Shared>, kind: Kind) -> Result<Self> {
        let place = shared.node.add_unnamed_pod()?;
        match run(&place, &kind) {
            Ok(server) => Ok(Self { shared, place, server, kind, network: Network::Own }),
            Err(error) => {
                shared.node.remove_pod(&place)?;
                Err(error)
            }
        }
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    pub(super) fn ips(&self) -> Vec<IpAddr> {
        vec![self.place.v4().into(), self.place.v6().into()]
    }

    pub(super) fn is_running(&self) -> bool {
        self.server.is_running()
    }

    /// Starts the server again where it ended.
    pub(super) async fn restart(&mut self) -> Result<()> {
        let (place, kind) = (self.place.clone(), self.kind.clone());
        self.server = tokio::task::spawn_blocking(move || run(&place, &kind)).await??;
        Ok(())
    }

    /// Replaces the tokens in the pod's volumes.
    pub(super) async fn renew_tokens(&self, pod: &Pod) -> Result<()> {
        match &self.kind {
            Kind::Echo(_) => Ok(()),
            Kind::Program(folder) => volumes::renew_tokens(&self.shared, pod, &folder.join("volumes")).await,
        }
    }

    /// Tells the server to end.
    pub(super) fn terminate(&self) {
        // It may have ended by itself.
        let _ended = self.server.signal(Signal::SIGTERM);
    }

    /// Ends what runs and takes it away. It blocks.
    pub(super) fn remove(self) -> Result<()> {
        match self.network {
            Network::Own => self.shared.node.remove_pod(&self.place)?,
            Network::Nodes => cgroup::remove(self.place.cgroup())?,
        }
        match &self.kind {
            Kind::Echo(_) => Ok(()),
            Kind::Program(folder) => fs::remove_dir_all(folder).with_context(|| format!("{} stays", folder.display())),
        }
    }
}

/// Starts the server. It blocks until an echo server listens.
fn run(place: &Place, kind: &Kind) -> Result<Process> {
    match kind {
        Kind::Echo(flags) => place.start_echo_by(flags),
        Kind::Program(folder) => {
            let mut command = Command::new(programs::lab()?);
            command.arg("container").arg(folder.join(DESCRIPTION));
            place.spawn("container", command)
        }
    }
}

impl Pod {
    pub(super) fn is_on_the_nodes_network(&self) -> bool {
        self.0.pointer("/spec/hostNetwork") == Some(&Value::Bool(true))
    }

    /// What its logs are called: by the component where the pod tells one, so that they are found again.
    fn name_on(&self, node: &str) -> String {
        match self.text("/metadata/labels/app.kubernetes.io~1component") {
            "" => format!("{node}-{}-{}", self.namespace(), self.text("/spec/containers/0/name")),
            component => format!("{node}-{component}"),
        }
    }
}
