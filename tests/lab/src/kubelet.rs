//! The kubelet of a node of the lab: it registers the node, keeps its lease, and runs the pods that the scheduler binds to
//! it as pods of the lab, each a namespace on the node's bridge with an echo server in place of its containers.
//!
//! What it reports and what it honours (readiness, `preStop`, the grace period) is the kubelet's part of what
//! Deployments, EndpointSlices, rolling updates and drains do; theirs is the real controllers' work.

mod environment;
mod life;
mod moment;
mod node;
mod pods;
mod process;
mod readiness;
mod sandbox;
mod spec;
mod status;
mod volumes;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use tokio::task::JoinHandle;

use crate::cluster::{Api, ControlPlane};
use crate::node::Node;
use crate::place::Place;

pub(crate) use moment::now;

/// A running kubelet. Dropped, before its control plane, it ends its pods' processes, as a node does whose power goes.
#[derive(Debug)]
pub struct Kubelet {
    shared: Arc<Shared>,
    work: JoinHandle<()>,
}

/// What all of a kubelet's tasks know.
pub(crate) struct Shared {
    node: Node,
    api: Api,
    /// The running pods by `namespace/name`.
    places: Mutex<BTreeMap<String, Place>>,
    /// Where the programs of images are.
    images: Option<PathBuf>,
    /// How often tokens shall have been replaced.
    rotations: AtomicU64,
}

impl Kubelet {
    /// Starts the kubelet of a node. Its registration is not waited for.
    ///
    /// # Errors
    ///
    /// Where it gets no certificate.
    pub fn start(control: &ControlPlane, node: &Node) -> Result<Self> {
        Self::start_with(control, node, None)
    }

    /// As [`start`](Self::start), with images: pods on the node's network run the programs of this folder.
    ///
    /// # Errors
    ///
    /// Where it gets no certificate.
    pub fn start_with(control: &ControlPlane, node: &Node, images: Option<&Path>) -> Result<Self> {
        let api = control.node_api(node.host(), node.name())?;
        let (images, rotations) = (images.map(Path::to_owned), AtomicU64::new(0));
        let shared = Arc::new(Shared { node: node.clone(), api, places: Mutex::default(), images, rotations });
        let own = Arc::clone(&shared);
        let work = control.runtime().spawn(async move {
            tokio::join!(node::register_and_renew(&own), pods::follow(&own));
        });
        Ok(Self { shared, work })
    }

    /// The node that it serves.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.shared.node
    }

    /// A running pod, by namespace and name.
    #[must_use]
    pub fn pod(&self, namespace: &str, name: &str) -> Option<Place> {
        self.shared.places().get(&format!("{namespace}/{name}")).cloned()
    }

    /// Replaces the token of every pod that has one, soon.
    pub fn rotate_tokens(&self) {
        self.shared.rotations.fetch_add(1, Ordering::Relaxed);
    }

    /// How many pods run.
    #[must_use]
    pub fn running(&self) -> usize {
        self.shared.places().len()
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.work.abort();
    }
}

impl Shared {
    fn places(&self) -> MutexGuard<'_, BTreeMap<String, Place>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kubelet").field("node", &self.node.name()).finish_non_exhaustive()
    }
}
