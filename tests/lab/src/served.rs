//! An API server as the source of a lab's objects, in the place of its directory of manifests: what a test applies as files
//! is put there as objects, by the same names and with the same outcome.
//!
//! An API server takes seconds to start, a lab tenths of one: servers are lent to one lab after the other. Each is a control
//! plane on a host of its own, whose cable is plugged into the segment of the lab that has it, at the same address every
//! time. It comes back empty, or not at all.

mod kinds;
mod objects;
mod put;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::cluster::{ControlPlane, Shape};
use crate::identity::LabId;
use crate::ip;
use crate::lab::Lab;
use crate::namespace::Namespace;
use crate::node::Node;
use crate::topology::{self, Capturing, Topology};
use crate::wait::wait_until;
use objects::Object;

/// The definitions of the installer, which are MetalLB's kinds.
const DEFINITIONS: [&str; 3] = [
    include_str!("../../../deploy/crds/ipaddresspools.yaml"),
    include_str!("../../../deploy/crds/l2advertisements.yaml"),
    include_str!("../../../deploy/crds/servicel2statuses.yaml"),
];
/// Where the daemons have their Leases, which whoever installs them makes.
const NAMESPACES: [&str; 4] = ["default", "kube-system", "roadstead-system", "metallb-system"];
/// How long new kinds may take until they are served.
const DEFINED: Duration = Duration::from_secs(20);

/// How long the controllers may take until they work.
const CONTROLLED: Duration = Duration::from_secs(60);

/// Servers that nobody has.
static IDLE: Mutex<Vec<Server>> = Mutex::new(Vec::new());

/// A running server and the host that it is on.
struct Server {
    // In this order they go.
    control: ControlPlane,
    home: Lab,
}

impl Server {
    fn start() -> Result<Self> {
        let home = Lab::with("api-server", Topology { nodes: 0, capture: Capturing::Never })?;
        let control = ControlPlane::start_as(&home, Shape::Source)?;
        let server = Self { control, home };
        DEFINITIONS.iter().try_for_each(|definition| server.control.apply(definition))?;
        wait_until(DEFINED, "MetalLB's kinds are served", || {
            kinds::CUSTOM.iter().all(|kind| server.control.get(&kind.everywhere()).is_ok())
        })?;
        NAMESPACES.iter().try_for_each(|namespace| put::namespace(&server.control, namespace))?;
        server.wait_for_controller()?;
        Ok(server)
    }

    /// Waits until a Service gets the slice of those that have no endpoint.
    fn wait_for_controller(&self) -> Result<()> {
        let service = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "first", "namespace": "default"},
            "spec": {"selector": {"app": "nobody"}, "ports": [{"port": 80}]},
        });
        put::object(&self.control, &Object::new(service)?, None)?;
        let slices = kinds::Kind::find("EndpointSlice")?.everywhere();
        let slices = format!("{slices}?labelSelector=kubernetes.io%2Fservice-name%3Dfirst");
        let has_one = || {
            let list = self.control.get(&slices);
            list.is_ok_and(|list| list.pointer("/items/0").is_some())
        };
        wait_until(CONTROLLED, "the controller makes slices", has_one)?;
        put::empty(&self.control).map(drop)
    }

    /// One that nobody has and of which all runs, else a new one.
    fn take() -> Result<Self> {
        end_them_with_the_process();
        let whole = std::iter::from_fn(|| idle().pop()).find(|server| server.control.is_whole());
        whole.map_or_else(Self::start, Ok)
    }

    /// Plugs the host's cable into a lab's segment.
    fn plug_into(&self, lab: LabId) -> Result<()> {
        let place = self.control.place();
        // The end of the last lab has taken its end of the cable, and with it this one, at the latest now.
        let _gone = place.ip(&["link del eth0"]);
        let (name, segment) = (topology::CONTROL.0, lab.namespace(topology::SEGMENT));
        let namespace = |of: &str| if of == name { place.namespace().to_owned() } else { lab.namespace(of) };
        ip::batch(None, &[topology::segment_link(topology::CONTROL, namespace)])?;
        ip::batch(Some(&segment), &[topology::segment_port(name)])?;
        place.ip(&topology::station(topology::CONTROL.1))?;
        Namespace::open(&segment)?.wait_running(&[name])?;
        place.network().wait_running(&["eth0"])
    }
}

fn idle() -> MutexGuard<'static, Vec<Server>> {
    IDLE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Nothing drops what is static: the servers are ended when the process ends by itself. Signals end them as all labs.
fn end_them_with_the_process() {
    static ONCE: Once = Once::new();
    extern "C" fn end() {
        let servers = std::mem::take(&mut *idle());
        drop(servers);
    }
    ONCE.call_once(|| {
        // SAFETY: `end` is a function of this program that takes nothing, returns nothing and does not unwind into C: what
        // it drops tells its errors.
        if unsafe { libc::atexit(end) } != 0 {
            eprintln!("lab: the API servers stay when this process ends; the next one that makes a lab removes them");
        }
    });
}

/// A server that one lab has.
pub(crate) struct Served {
    /// There until it is given back.
    server: Option<Box<Server>>,
    /// The lab's.
    folder: PathBuf,
    files: Mutex<BTreeMap<String, File>>,
}

/// What a file of the lab's holds at present.
struct File {
    text: String,
    objects: Vec<Object>,
}

impl Served {
    /// Plugs a server into the segment.
    pub(crate) fn lend(lab: LabId, folder: &Path) -> Result<Self> {
        let server = Server::take()?;
        server.plug_into(lab)?;
        Ok(Self { server: Some(Box::new(server)), folder: folder.to_owned(), files: Mutex::default() })
    }

    /// The Nodes that a cluster has before anybody applies anything.
    pub(crate) fn register(&self, nodes: &[Node]) -> Result<()> {
        nodes.iter().try_for_each(|node| {
            let (name, host) = (node.name(), node.host());
            let addresses = [host.v4().to_string(), host.v6().to_string()];
            let addresses = addresses.map(|address| json!({"type": "InternalIP", "address": address}));
            let value = json!({
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {"name": name},
                "status": {"addresses": addresses},
            });
            put::object(self.control()?, &Object::new(value)?, None)
        })
    }

    /// The kubeconfig of the daemons.
    pub(crate) fn kubeconfig(&self) -> Result<&Path> {
        Ok(self.control()?.admin_kubeconfig())
    }

    /// Whatever a file of this name had is replaced by what this text has.
    pub(crate) fn apply(&self, file: &str, text: &str) -> Result<()> {
        let control = self.control()?;
        let objects = objects::read(control, text).with_context(|| format!("{file} cannot be read"))?;
        let mut files = self.files();
        let former = files.remove(file).map(|file| file.objects).unwrap_or_default();
        let gone = former.iter().filter(|former| !objects.iter().any(|object| object.is(former)));
        gone.into_iter().try_for_each(|object| put::remove(control, object))?;
        for object in &objects {
            let former = former.iter().find(|former| former.is(object));
            if former.is_none_or(|former| former.value != object.value) {
                put::object(control, object, former).with_context(|| format!("{file}: {object}"))?;
            }
        }
        files.insert(file.to_owned(), File { text: text.to_owned(), objects });
        Ok(())
    }

    /// Removes what the file had.
    pub(crate) fn delete(&self, file: &str) -> Result<()> {
        let removed = self.files().remove(file);
        let objects = removed.with_context(|| format!("{file} was never applied"))?.objects;
        objects.iter().try_for_each(|object| put::remove(self.control()?, object))
    }

    /// The text of a file that was applied.
    pub(crate) fn text(&self, file: &str) -> Option<String> {
        self.files().get(file).map(|file| file.text.clone())
    }

    /// An object as the server has it.
    pub(crate) fn get(&self, kind: &str, namespace: &str, name: &str) -> Result<Value> {
        let kind = kinds::Kind::find(kind)?;
        self.control()?.get(&kind.one(namespace, name))
    }

    fn control(&self) -> Result<&ControlPlane> {
        self.server.as_ref().map(|server| &server.control).context("the server was given back")
    }

    fn files(&self) -> MutexGuard<'_, BTreeMap<String, File>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts all objects and the control plane's logs into a failed lab's folder.
    fn leave_evidence(&self) -> Result<()> {
        let control = self.control()?;
        let all: Result<Vec<Value>> = kinds::Kind::all().map(|kind| control.get(&kind.everywhere())).collect();
        std::fs::write(self.folder.join("objects.json"), serde_json::to_string_pretty(&all?)?)?;
        let home = self.server.as_ref().map(|server| server.home.folder()).context("no server")?;
        for entry in std::fs::read_dir(home)?.flatten() {
            let name = entry.file_name();
            if name.as_encoded_bytes().ends_with(b".log") {
                std::fs::copy(entry.path(), self.folder.join(name))?;
            }
        }
        Ok(())
    }

    /// Empties the server for whoever comes next.
    fn give_back(&mut self) -> Result<()> {
        let Some(server) = self.server.take() else { return Ok(()) };
        let labelled = std::mem::take(&mut *self.files());
        let objects = labelled.values().flat_map(|file| &file.objects);
        objects.filter(|object| object.kind.is_kept()).try_for_each(|object| put::remove(&server.control, object))?;
        let mut left = 0;
        // What is seen to be removed may still be answered by a controller once.
        let emptied = (0..ROUNDS)
            .any(|_| put::empty(&server.control).inspect(|objects| left = *objects).is_ok_and(|objects| objects == 0));
        ensure!(emptied, "{left} objects are left");
        idle().push(*server);
        Ok(())
    }
}

/// How often a server is emptied until it is held for broken.
const ROUNDS: usize = 10;

impl Drop for Served {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Err(error) = self.leave_evidence()
        {
            eprintln!("lab: the objects could not be written down: {error:#}");
        }
        // The next lab starts another one.
        if let Err(error) = self.give_back() {
            eprintln!("lab: an API server is not used again: {error:#}");
        }
    }
}

impl std::fmt::Debug for Served {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Served").finish_non_exhaustive()
    }
}
