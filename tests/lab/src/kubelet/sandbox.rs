//! What a pod is on its node: a pod of the lab with an echo server, or a program on the node's own network.

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
}

#[derive(Clone, Debug)]
enum Kind {
    /// The flags of its echo server.
    Pod(Vec<String>),
    /// The folder of a program on the node's network.
    Node(PathBuf),
}

/// The description of the container in its folder.
const DESCRIPTION: &str = "container.json";

impl Sandbox {
    /// Makes the pod's network, or its folder, and starts its server.
    pub(super) async fn start(shared: &Arc<Shared>, pod: &Pod) -> Result<Self> {
        let shared = Arc::clone(shared);
        if !pod.is_on_the_nodes_network() {
            let flags = pod.echo_flags();
            return tokio::task::spawn_blocking(move || Self::start_pod(shared, flags)).await?;
        }
        let name = format!("{}-{}", shared.node.name(), pod.text("/metadata/labels/app.kubernetes.io~1component"));
        let folder = shared.node.folder().join("pods").join(pod.uid());
        let container = process::describe(&shared, pod, &folder).await?;
        fs::write(folder.join(DESCRIPTION), serde_json::to_string(&container)?).context("no folder for the pod")?;
        // A leaf of its own, so that what it starts ends with it.
        let group = shared.node.cgroup_root().join(format!("pod-{}", pod.uid()));
        fs::create_dir_all(&group)?;
        let place = shared.node.host().with_group(&name, group);
        let kind = Kind::Node(folder);
        let server = run(&place, &kind)?;
        Ok(Self { shared, place, server, kind })
    }

    fn start_pod(shared: Arc<Shared>, flags: Vec<String>) -> Result<Self> {
        let (place, kind) = (shared.node.add_unnamed_pod()?, Kind::Pod(flags));
        match run(&place, &kind) {
            Ok(server) => Ok(Self { shared, place, server, kind }),
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
            Kind::Pod(_) => Ok(()),
            Kind::Node(folder) => volumes::renew_tokens(&self.shared, pod, &folder.join("volumes")).await,
        }
    }

    /// Tells the server to end.
    pub(super) fn terminate(&self) {
        // It may have ended by itself.
        let _ended = self.server.signal(Signal::SIGTERM);
    }

    /// Ends what runs and takes it away. It blocks.
    pub(super) fn remove(self) -> Result<()> {
        match &self.kind {
            Kind::Pod(_) => self.shared.node.remove_pod(&self.place),
            Kind::Node(folder) => {
                cgroup::remove(self.place.cgroup())?;
                fs::remove_dir_all(folder).with_context(|| format!("{} stays", folder.display()))
            }
        }
    }
}

/// Starts the server. It blocks until an echo server listens.
fn run(place: &Place, kind: &Kind) -> Result<Process> {
    match kind {
        Kind::Pod(flags) => place.start_echo_by(flags),
        Kind::Node(folder) => {
            let mut command = Command::new(programs::lab()?);
            command.arg("container").arg(folder.join(DESCRIPTION));
            place.spawn("container", command)
        }
    }
}

impl Pod {
    fn is_on_the_nodes_network(&self) -> bool {
        self.0.pointer("/spec/hostNetwork") == Some(&Value::Bool(true))
    }
}
