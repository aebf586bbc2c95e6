//! A Kubernetes control plane in the lab: etcd, API server, controllers and scheduler as processes of one more host on the
//! segment, with certificates of their own, RBAC and an audit log. The real thing, ready within seconds.
//!
//! The nodes' part is [`Kubelet`](crate::Kubelet).

mod api;
mod assets;
mod background;
mod by_hand;
mod credentials;
mod flags;
mod kube_proxy;
mod metrics;
mod outage;
mod shape;
mod tokens;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use hyper::Method;
use serde_json::Value;

use crate::lab::{Lab, SegmentPort};
use crate::place::Place;
use crate::process::Process;
use crate::topology;
use crate::wait::wait_until;

pub use api::Refusal;
pub(crate) use api::{APPLY, Api, JSON, MERGE, STRATEGIC_MERGE, refused};
use assets::{Assets, Part};
use background::Background;
pub use by_hand::{ClusterFlags, run};
use credentials::Authority;
pub(crate) use flags::API_SERVICE;
use flags::{Files, Lists};
pub use kube_proxy::{ProxyMode, host_program, kube_proxy, lack_of_kube_proxy};
pub use metrics::Metric;
pub use outage::{Backup, Hidden};
pub(crate) use shape::Shape;
pub use tokens::Account;

/// The API server's.
const PORT: u16 = 6443;
/// How long a part may take until it serves.
const READY: Duration = Duration::from_secs(60);

/// Why there can be no control plane here, where there cannot: for tests that then say "skipped: …".
#[must_use]
pub fn lack() -> Option<String> {
    crate::ground::lack().or_else(|| Assets::find().err().map(|error| error.to_string()))
}

/// Why there are no controllers, where there are none: `KUBEBUILDER_ASSETS` often has the API server alone.
#[must_use]
pub fn lack_of_controllers() -> Option<String> {
    let assets = match Assets::find() {
        Ok(assets) => assets,
        Err(error) => return Some(error.to_string()),
    };
    let missing = [Part::Controllers, Part::Scheduler].into_iter().find(|part| !assets.has(*part))?;
    Some(format!("there is no {} in the folder that KUBEBUILDER_ASSETS names", missing.name()))
}

/// The folder of MetalLB's controller, speaker and manifest, where the set-up has built them.
#[must_use]
pub fn metallb() -> Option<PathBuf> {
    let folder = Assets::find().ok()?.folder().join("metallb");
    folder.join("manifest.yaml").is_file().then_some(folder)
}

/// A running control plane; dropping it ends it.
#[derive(Debug)]
pub struct ControlPlane {
    place: Place,
    folder: PathBuf,
    assets: Assets,
    authority: Authority,
    files: Files,
    kubeconfigs: BTreeMap<Part, PathBuf>,
    admin: PathBuf,
    api: Api,
    background: Background,
    shape: Shape,
    lists: Mutex<Lists>,
    parts: Mutex<BTreeMap<Part, Process>>,
}

impl ControlPlane {
    /// Starts all parts that are there, and waits until objects can be made.
    ///
    /// # Errors
    ///
    /// Where a part does not come up, with the end of its log.
    pub fn start(lab: &Lab) -> Result<Self> {
        Self::start_as(lab, Shape::Cluster)
    }

    /// As [`start`](Self::start), with what another use needs.
    pub(crate) fn start_as(lab: &Lab, shape: Shape) -> Result<Self> {
        let place = host(lab)?;
        let folder = lab.folder().join("control");
        fs::create_dir_all(&folder).with_context(|| format!("could not make {}", folder.display()))?;
        let (assets, authority) = (Assets::find()?, Authority::new(&folder)?);
        let address = SocketAddr::from((place.v4(), PORT));
        let names = flags::server_names(&[address.ip(), place.v6().into()]);
        let files = Files {
            authority: authority.certificate(),
            token_key: authority.token_key(),
            token_public_key: authority.token_public_key(),
            server: authority.issue("kube-apiserver", "", &names)?,
            front_proxy: authority.issue("front-proxy", "", &[])?,
            audit_policy: folder.join("audit-policy.yaml"),
            audit_log: folder.join("audit.log"),
        };
        credentials::write(&files.audit_policy, flags::AUDIT_POLICY)?;
        let mut kubeconfigs = BTreeMap::new();
        for part in [Part::Controllers, Part::Scheduler] {
            let user = format!("system:{}", part.name());
            kubeconfigs.insert(part, authority.kubeconfig(shape.near(address), &user, "")?);
        }
        let admin = authority.kubeconfig(address, "admin", "system:masters")?;
        let pair = authority.issue("lab", "system:masters", &[])?;
        let api = Api::new(&place, shape.near(address), &files.authority, &pair)?;
        let background = Background::start()?;
        let (lists, parts) = (Mutex::new(Lists::Streamed), Mutex::default());
        let plane =
            Self { place, folder, assets, authority, files, kubeconfigs, admin, api, background, shape, lists, parts };
        plane.start_part(Part::Etcd)?;
        plane.start_api()?;
        Ok(plane)
    }

    /// The host that it runs on.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The kubeconfig of somebody who may do anything.
    #[must_use]
    pub fn admin_kubeconfig(&self) -> &Path {
        &self.admin
    }

    /// Runs kubectl as administrator; its standard output.
    ///
    /// # Errors
    ///
    /// Where it fails, with what it says.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.kubectl_with(arguments, "")
    }

    /// As [`Self::kubectl`], with this on standard input: `kubectl_with(&["apply", "-f", "-"], manifest)`.
    ///
    /// # Errors
    ///
    /// Where it fails, with what it says.
    pub fn kubectl_with(&self, arguments: &[&str], input: &str) -> Result<String> {
        let mut command = Command::new(self.assets.kubectl());
        // Its cache of what the API serves goes with the lab.
        command.arg("--kubeconfig").arg(&self.admin).arg("--cache-dir").arg(self.folder.join("kubectl"));
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        self.place.enter(&mut command)?;
        let mut child = command.spawn().context("could not start kubectl")?;
        let mut stdin = child.stdin.take().context("kubectl has no standard input")?;
        // One that fails early closes its end; the error that counts is then the one that it tells itself.
        let _written = stdin.write_all(input.as_bytes());
        drop(stdin);
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!("kubectl {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// `kubectl apply` of manifests.
    ///
    /// # Errors
    ///
    /// Where one is refused.
    pub fn apply(&self, manifests: &str) -> Result<()> {
        self.kubectl_with(&["apply", "--filename", "-"], manifests).map(drop)
    }

    /// Reads an object or a list by its path, such as `/api/v1/namespaces/default/services/web`.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] where the API server says no.
    pub fn get(&self, path: &str) -> Result<Value> {
        self.background.wait(self.api.get(path))
    }

    /// Makes an object below the path of its kind, such as `/api/v1/namespaces`.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] where the API server says no.
    pub fn create(&self, path: &str, object: &Value) -> Result<Value> {
        self.background.wait(self.api.call(Method::POST, path, JSON, Some(object)))
    }

    /// Changes an object by a merge patch.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] where the API server says no.
    pub fn patch(&self, path: &str, patch: &Value) -> Result<Value> {
        self.background.wait(self.api.call(Method::PATCH, path, MERGE, Some(patch)))
    }

    /// Replaces an object, or its status.
    pub(crate) fn replace(&self, path: &str, object: &Value) -> Result<Value> {
        self.background.wait(self.api.call(Method::PUT, path, JSON, Some(object)))
    }

    /// Makes an object what its manager wants; the path names the manager.
    pub(crate) fn apply_patch(&self, path: &str, object: &Value) -> Result<Value> {
        self.background.wait(self.api.call(Method::PATCH, path, APPLY, Some(object)))
    }

    /// Deletes an object.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] where the API server says no.
    pub fn delete(&self, path: &str) -> Result<()> {
        self.background.wait(self.api.call(Method::DELETE, path, JSON, None)).map(drop)
    }

    /// A client for a node's kubelet, from the node's network.
    pub(crate) fn node_api(&self, host: &Place, node: &str) -> Result<Api> {
        let pair = self.authority.issue(&format!("system:node:{node}"), "system:nodes", &[])?;
        Api::new(host, self.address(), &self.files.authority, &pair)
    }

    pub(crate) fn runtime(&self) -> &tokio::runtime::Handle {
        self.background.handle()
    }

    /// Where the API server is, without a Service.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        (self.place.v4(), PORT).into()
    }

    /// Starts a part; it is not waited for.
    fn start_part(&self, part: Part) -> Result<()> {
        let mut command = self.assets.command(part);
        command.args(match part {
            Part::Etcd => flags::etcd(&self.data()),
            Part::ApiServer => flags::api_server(self.place.v4(), PORT, &self.files, *self.lists()),
            Part::Controllers => flags::controllers(self.kubeconfig(part)?, &self.files),
            Part::Scheduler => flags::scheduler(self.kubeconfig(part)?),
            Part::KubeProxy => bail!("it is a node's"),
        });
        command.args(self.shape.more_flags(part));
        if part == Part::Etcd && self.assets.knows(part, flags::NO_SYNC) {
            command.arg(flags::NO_SYNC);
        }
        let process = self.place.spawn(part.name(), command)?;
        self.parts().insert(part, process);
        Ok(())
    }

    /// Whether every part that was started runs.
    pub(crate) fn is_whole(&self) -> bool {
        self.parts().values().all(Process::is_running)
    }

    fn kubeconfig(&self, part: Part) -> Result<&Path> {
        self.kubeconfigs.get(&part).map(PathBuf::as_path).context("a part without a kubeconfig")
    }

    /// The folder of etcd's data.
    fn data(&self) -> PathBuf {
        self.folder.join("etcd")
    }

    fn lists(&self) -> MutexGuard<'_, Lists> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn parts(&self) -> MutexGuard<'_, BTreeMap<Part, Process>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the API server says that it is ready.
    fn wait_for_api(&self) -> Result<()> {
        self.wait_for_part(Part::ApiServer, "the API server is ready", || {
            self.get("/readyz").is_ok_and(|said| said.as_str() == Some("ok"))
        })
    }

    /// Waits until the controllers, where there are any, have done their first work.
    fn wait_for_controllers(&self) -> Result<()> {
        if !self.assets.has(Part::Controllers) || self.shape == Shape::Source {
            return Ok(());
        }
        self.wait_for_part(Part::Controllers, "controllers work", || {
            self.get("/api/v1/namespaces/default/serviceaccounts/default").is_ok()
        })
    }

    fn wait_for_part(&self, part: Part, what: &str, mut condition: impl FnMut() -> bool) -> Result<()> {
        let runs = || self.parts().get(&part).is_some_and(Process::is_running);
        let waited = wait_until(READY, what, || condition() || !runs());
        if waited.is_err() || !runs() {
            let tail = self.parts().get(&part).map(|process| process.log_tail(15)).unwrap_or_default();
            bail!("{what}: no; the end of the log of {}:\n{tail}", part.name());
        }
        Ok(())
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        // All at once, and whoever would complain of the others' end first.
        let mut parts = std::mem::take(&mut *self.parts());
        while parts.pop_last().is_some() {}
    }
}

/// One more host of the segment.
fn host(lab: &Lab) -> Result<Place> {
    let (name, number) = topology::CONTROL;
    let host = lab.add_station(SegmentPort { place: name, number })?;
    // Pods are clients of the API server under their own addresses.
    let routes = lab.nodes().iter().flat_map(|node| {
        let [v4, v6] = node.pod_cidrs();
        [format!("route add {v4} via {}", node.host().v4()), format!("route add {v6} via {}", node.host().v6())]
    });
    host.ip(&routes.collect::<Vec<_>>())?;
    Ok(host)
}
