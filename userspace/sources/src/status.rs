//! Status: written by the speaker and the ingress under the state directory and read back by every source, or handed to the writer
//! for an API server.
//!
//! This is how an allocation reaches the agent; there is no other bus.

use std::{
    collections::{BTreeMap, HashMap},
    fs, io,
    io::Write,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use roadstead_model::{
    CONFLICTS_ANNOTATION, Ingress, IngressIpMode, IngressStatus, Labels, LoadBalancerIngress, ObjectName, Place,
    Problem, Severity,
};
use serde::{Deserialize, Serialize};

use crate::{
    document::{Format, split},
    files::names_manifest,
    kube::Outbox,
    limits,
    object::Kind,
};

/// The folder of the status files under the state directory.
pub(crate) const FOLDER: &str = "status";

/// What an Ingress's ports are told to suffer from where another Ingress has a part of it; the API wants such a form.
pub(crate) const CONFLICT: &str = "roadstead.dev/Conflict";

/// The annotation that names the pool of a Service's addresses, as MetalLB's controller writes it.
pub(crate) const POOL: &str = "metallb.io/ip-allocated-from-pool";
/// The condition of a Service that lacks an address: false, with the reason; where it has another one, true.
pub(crate) const ASSIGNED: &str = "roadstead.dev/AddressAssigned";

/// What the speaker says of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceStatus {
    /// Its addresses, in the order of `status.loadBalancer.ingress`.
    pub ips: Vec<IpAddr>,
    /// The pool that they come from.
    pub pool: Option<String>,
    /// Why it lacks an address: a word as of an event's reason, and a sentence.
    pub pending: Option<(String, String)>,
}

impl From<Vec<IpAddr>> for ServiceStatus {
    fn from(ips: Vec<IpAddr>) -> Self {
        Self { ips, ..Self::default() }
    }
}

/// Every object of the status files, for whoever shows them; what cannot be read is left out.
#[must_use]
pub fn status_objects(state_dir: impl AsRef<Path>) -> Vec<serde_json::Value> {
    let Ok(listing) = fs::read_dir(state_dir.as_ref().join(FOLDER)) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = listing.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| names_manifest(path));
    paths.sort();
    let mut objects = Vec::new();
    for path in paths {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let documents = split(&Arc::from(path.as_path()), Format::Yaml, &text, limits::DOCUMENTS);
        objects.extend(documents.iter().filter_map(|document| serde_json::to_value(document.tree().ok()?).ok()));
    }
    objects
}

/// Writes statuses: into files, whole, by rename, and only when they change; or to an API server, in the background.
#[derive(Clone, Debug)]
pub struct StatusWriter(Goal);

#[derive(Clone, Debug)]
enum Goal {
    /// This folder.
    Files(PathBuf),
    Server(Outbox),
}

impl StatusWriter {
    /// Writes under `state_dir/status`, which is made when it is needed.
    #[must_use]
    pub fn new(state_dir: impl AsRef<Path>) -> Self {
        Self(Goal::Files(state_dir.as_ref().join(FOLDER)))
    }

    /// Writes to an API server; what is written here counts until the next word.
    pub(crate) fn to_server(outbox: Outbox) -> Self {
        Self(Goal::Server(outbox))
    }

    /// Writes the status of the Services that this speaker serves, those without an address included. In files the others have no
    /// address either; on a server they are another controller's.
    ///
    /// # Errors
    /// When the file cannot be written; the one before it is left as it was.
    pub fn write_services(&self, services: &BTreeMap<ObjectName, ServiceStatus>) -> io::Result<()> {
        let folder = match &self.0 {
            Goal::Files(folder) => folder,
            Goal::Server(outbox) => {
                outbox.services(services);
                return Ok(());
            }
        };
        let told = services.iter().filter(|(_, status)| !status.ips.is_empty() || status.pending.is_some());
        write(folder, "services.yaml", told.map(|(name, status)| StatusObject::of_service(name, status)))
    }

    /// Writes objects as they are into a file of their own, whose name ends in `.yaml`. Where there are none, and none were
    /// before, there is no file.
    ///
    /// # Errors
    /// When the file cannot be written; the one before it is left as it was.
    pub fn write_objects(&self, file: &str, objects: &[serde_json::Value]) -> io::Result<()> {
        match &self.0 {
            Goal::Files(folder) if objects.is_empty() && !folder.join(file).exists() => Ok(()),
            Goal::Files(folder) => write(folder, file, objects.iter()),
            Goal::Server(outbox) => {
                outbox.objects(file, objects);
                Ok(())
            }
        }
    }

    /// Writes what is to be said of Ingresses; those that are not named have no addresses and no conflicts. Where there is nothing
    /// to say, and nothing was said before, there is no file.
    ///
    /// # Errors
    /// When the file cannot be written; the one before it is left as it was.
    pub fn write_ingresses(&self, statuses: &BTreeMap<ObjectName, IngressStatus>) -> io::Result<()> {
        const FILE: &str = "ingresses.yaml";
        match &self.0 {
            Goal::Files(folder) => {
                // In a file, what is not named has nothing.
                let told = || statuses.iter().filter(|(_, status)| **status != IngressStatus::default());
                if told().next().is_none() && !folder.join(FILE).exists() {
                    return Ok(());
                }
                write(folder, FILE, told().map(|(name, status)| StatusObject::of_ingress(name, status)))
            }
            Goal::Server(outbox) => {
                outbox.ingresses(statuses);
                Ok(())
            }
        }
    }
}

fn write(folder: &Path, file: &str, objects: impl Iterator<Item = impl Serialize>) -> io::Result<()> {
    let mut text = String::from("# Written by Roadstead and read back by it; edits are lost.\n");
    for object in objects {
        text.push_str("---\n");
        text.push_str(&serde_yaml::to_string(&object).map_err(io::Error::other)?);
    }
    let path = folder.join(file);
    if fs::read(&path).is_ok_and(|old| old == text.as_bytes()) {
        return Ok(());
    }
    fs::create_dir_all(folder)?;
    // Hidden, so that no source takes it for a status file; named by process, so that two writers do not mix.
    let scratch = folder.join(format!(".{file}.{}", std::process::id()));
    let written = write_through(&scratch, text.as_bytes()).and_then(|()| fs::rename(&scratch, &path));
    if written.is_err() {
        // The error that matters is the first one.
        let _ = fs::remove_file(&scratch);
    }
    written?;
    fs::File::open(folder)?.sync_all()
}

fn write_through(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = fs::File::create(path)?;
    file.write_all(content)?;
    file.sync_all()
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct StatusObject {
    api_version: String,
    kind: String,
    metadata: StatusName,
    #[serde(default)]
    status: StatusBody,
}

#[derive(Deserialize, Serialize)]
struct StatusName {
    namespace: String,
    name: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct StatusBody {
    #[serde(default)]
    load_balancer: StatusBalancer,
    #[serde(skip_deserializing, skip_serializing_if = "Vec::is_empty")]
    conditions: Vec<StatusCondition>,
}

/// Written for whoever shows it; other objects in status files have conditions of other forms, so none is read.
#[derive(Serialize)]
struct StatusCondition {
    #[serde(rename = "type")]
    kind: &'static str,
    status: &'static str,
    reason: String,
    message: String,
}

#[derive(Default, Deserialize, Serialize)]
struct StatusBalancer {
    #[serde(default)]
    ingress: Vec<StatusEntry>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct StatusEntry {
    ip: IpAddr,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ip_mode: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ports: Vec<StatusPort>,
}

#[derive(Clone, Deserialize, Serialize)]
struct StatusPort {
    port: u16,
    protocol: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl StatusObject {
    fn new(kind: Kind, version: &str, name: &ObjectName, ips: &[IpAddr]) -> Self {
        let ingress = ips.iter().map(|ip| StatusEntry { ip: *ip, ip_mode: None, ports: Vec::new() }).collect();
        Self {
            api_version: version.to_owned(),
            kind: kind.as_str().to_owned(),
            metadata: StatusName {
                namespace: name.namespace.to_string(),
                name: name.name.to_string(),
                annotations: BTreeMap::new(),
            },
            status: StatusBody { load_balancer: StatusBalancer { ingress }, conditions: Vec::new() },
        }
    }

    fn of_service(name: &ObjectName, status: &ServiceStatus) -> Self {
        let mut object = Self::new(Kind::Service, "v1", name, &status.ips);
        object.metadata.annotations.extend(status.pool.clone().map(|pool| (POOL.to_owned(), pool)));
        let pending = status.pending.clone();
        object.status.conditions.extend(pending.map(|(reason, message)| StatusCondition {
            kind: ASSIGNED,
            status: if status.ips.is_empty() { "False" } else { "True" },
            reason,
            message,
        }));
        object
    }

    /// A conflict shows at each address and port, in the form that the API has for errors, and in words in an annotation.
    fn of_ingress(name: &ObjectName, status: &IngressStatus) -> Self {
        let mut object = Self::new(Kind::Ingress, "networking.k8s.io/v1", name, &status.addresses);
        if !status.conflicts.is_empty() {
            object.metadata.annotations.insert(CONFLICTS_ANNOTATION.to_owned(), status.conflicts.join("\n"));
            let port = |port| StatusPort { port, protocol: "TCP".to_owned(), error: Some(CONFLICT.to_owned()) };
            for entry in &mut object.status.load_balancer.ingress {
                entry.ports = [80, 443].map(port).into();
            }
        }
        object
    }
}

/// What the status files say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Statuses(HashMap<(Kind, ObjectName), Said>);

/// What they say of one object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Said {
    entries: Vec<LoadBalancerIngress>,
    conflicts: Vec<String>,
    pool: Option<String>,
}

impl Statuses {
    /// The addresses of an object, where a status file has any for it.
    pub(crate) fn of(&self, kind: Kind, name: &ObjectName) -> Option<&[LoadBalancerIngress]> {
        self.0.get(&(kind, name.clone())).map(|said| said.entries.as_slice()).filter(|entries| !entries.is_empty())
    }

    /// The annotations of a Service, its own and that about the pool of its addresses where a status file has it.
    pub(crate) fn annotations(&self, service: &ObjectName, own: &Labels) -> Labels {
        let mut annotations = own.clone();
        let said = self.0.get(&(Kind::Service, service.clone()));
        annotations.extend(said.and_then(|said| said.pool.clone()).map(|pool| (POOL.to_owned(), pool)));
        annotations
    }

    /// The Ingress with what a status file says of it.
    pub(crate) fn ingress(&self, name: &ObjectName, ingress: &Arc<Ingress>) -> Arc<Ingress> {
        let mut ingress = Arc::clone(ingress);
        if let Some(said) = self.0.get(&(Kind::Ingress, name.clone())) {
            let status = &mut Arc::make_mut(&mut ingress).status;
            if !said.entries.is_empty() {
                status.addresses = said.entries.iter().map(|entry| entry.ip).collect();
            }
            status.conflicts.clone_from(&said.conflicts);
        }
        ingress
    }

    pub(crate) fn extend(&mut self, other: &Self) {
        self.0.extend(other.0.iter().map(|(key, said)| (key.clone(), said.clone())));
    }

    /// Reads one status file, whole or not at all: what is left of half a file would withdraw the other half.
    pub(crate) fn read(path: &Path, content: &[u8]) -> Result<Self, Box<Problem>> {
        // Events say nothing that is read back, and there may be a thousand of them, written every second.
        if path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.ends_with("events.yaml")) {
            return Ok(Self::default());
        }
        let file: Arc<Path> = Arc::from(path);
        let wrong = |line: usize, reason: String| {
            Box::new(Problem {
                severity: Severity::Error,
                place: Some(Place { file: path.to_owned(), line }),
                object: None,
                field: None,
                reason,
            })
        };
        let text = std::str::from_utf8(content).map_err(|_| wrong(1, "is not UTF-8".to_owned()))?;
        let mut statuses = Self::default();
        for document in split(&file, Format::Yaml, text, limits::DOCUMENTS) {
            let tree = document.tree().map_err(|complaint| wrong(complaint.line, complaint.reason))?;
            let object: StatusObject = serde_yaml::from_value(tree).map_err(|error| wrong(1, error.to_string()))?;
            let Some((kind, _)) = Kind::named(&object.kind) else { continue };
            let name = ObjectName::new(&object.metadata.namespace, &object.metadata.name);
            let entries = object.status.load_balancer.ingress.into_iter().map(|entry| {
                let proxy = entry.ip_mode.as_deref() == Some("Proxy");
                let mode = if proxy { IngressIpMode::Proxy } else { IngressIpMode::Vip };
                LoadBalancerIngress { ip: entry.ip, mode }
            });
            let conflicts = object.metadata.annotations.get(CONFLICTS_ANNOTATION);
            let conflicts = conflicts.into_iter().flat_map(|text| text.lines()).map(str::to_owned);
            let (entries, conflicts) = (entries.collect(), conflicts.collect());
            let pool = object.metadata.annotations.get(POOL).cloned();
            statuses.0.insert((kind, name), Said { entries, conflicts, pool });
        }
        Ok(statuses)
    }
}

#[cfg(test)]
mod tests {
    use roadstead_model::Metadata;

    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let writer = StatusWriter::new(folder.path());
        let name = ObjectName::new("shop", "web");
        let ips: Vec<IpAddr> = vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        let services = ServiceStatus { pool: Some("lan".to_owned()), ..ips.clone().into() };
        let services = BTreeMap::from([(name.clone(), services)]);
        writer.write_services(&services).unwrap();
        let status =
            IngressStatus { addresses: ips.clone(), conflicts: vec!["a: lost".to_owned(), "b: lost".to_owned()] };
        let ingresses = BTreeMap::from([(name.clone(), status.clone())]);
        writer.write_ingresses(&ingresses).unwrap();
        for (file, kind) in [("services.yaml", Kind::Service), ("ingresses.yaml", Kind::Ingress)] {
            let path = folder.path().join(FOLDER).join(file);
            let statuses = Statuses::read(&path, &fs::read(&path).unwrap()).unwrap();
            let found: Vec<_> = statuses.of(kind, &name).unwrap().iter().map(|entry| entry.ip).collect();
            assert_eq!(found, ips, "{file}");
        }
        let path = folder.path().join(FOLDER).join("ingresses.yaml");
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(
            text.matches("error: roadstead.dev/Conflict").count(),
            4,
            "two ports at each of two addresses: {text}"
        );
        let ingress = Arc::new(ingress(&name));
        let told = Statuses::read(&path, text.as_bytes()).unwrap().ingress(&name, &ingress);
        assert_eq!(told.status, status);
        assert!(told.is_served_as(&ingress), "no reason to make routes anew");
        let path = folder.path().join(FOLDER).join("services.yaml");
        let annotations = Statuses::read(&path, &fs::read(&path).unwrap()).unwrap().annotations(&name, &Labels::new());
        assert_eq!(annotations, Labels::from([(POOL.to_owned(), "lan".to_owned())]));
        let before = fs::metadata(&path).unwrap();
        writer.write_services(&services).unwrap();
        let after = fs::metadata(&path).unwrap();
        assert_eq!(before.modified().unwrap(), after.modified().unwrap());
        writer.write_services(&BTreeMap::new()).unwrap();
        assert_eq!(Statuses::read(&path, &fs::read(&path).unwrap()).unwrap(), Statuses::default());
        assert_eq!(fs::read_dir(folder.path().join(FOLDER)).unwrap().count(), 2, "no scratch file is left");
    }

    fn ingress(name: &ObjectName) -> Ingress {
        let meta = Metadata { name: name.clone(), labels: Labels::new(), annotations: Labels::new(), created: None };
        let status = IngressStatus::default();
        Ingress { meta, class: None, default_backend: None, tls: Vec::new(), rules: Vec::new(), status }
    }

    #[test]
    fn nothing_to_say_of_ingresses_is_no_file_but_empties_one() {
        let folder = tempfile::tempdir().unwrap();
        let (writer, path) = (StatusWriter::new(folder.path()), folder.path().join("status/ingresses.yaml"));
        writer.write_ingresses(&BTreeMap::new()).unwrap();
        assert!(!path.exists());
        let status = IngressStatus { addresses: Vec::new(), conflicts: vec!["a: lost".to_owned()] };
        let name = ObjectName::new("shop", "web");
        writer.write_ingresses(&BTreeMap::from([(name.clone(), status.clone())])).unwrap();
        let told = Statuses::read(&path, &fs::read(&path).unwrap()).unwrap().ingress(&name, &Arc::new(ingress(&name)));
        assert_eq!(told.status, status);
        writer.write_ingresses(&BTreeMap::new()).unwrap();
        assert_eq!(Statuses::read(&path, &fs::read(&path).unwrap()).unwrap(), Statuses::default());
    }

    #[test]
    fn a_pending_service_is_shown_with_its_reason_and_has_no_address() {
        let folder = tempfile::tempdir().unwrap();
        let writer = StatusWriter::new(folder.path());
        let name = ObjectName::new("shop", "web");
        let pending = Some(("AllocationFailed".to_owned(), "no free IPv4 address".to_owned()));
        let pending = ServiceStatus { pending, ..ServiceStatus::default() };
        writer.write_services(&BTreeMap::from([(name.clone(), pending)])).unwrap();
        let event = serde_json::json!({
            "apiVersion": "v1", "kind": "Event", "metadata": {"namespace": "a", "name": "b"}, "reason": "IPAllocated",
        });
        writer.write_objects("events.yaml", &[event]).unwrap();
        let objects = status_objects(folder.path());
        let at = |index: usize, path: &str| objects.get(index).unwrap().pointer(path).unwrap().clone();
        assert_eq!((at(0, "/kind"), at(0, "/reason")), ("Event".into(), "IPAllocated".into()));
        assert_eq!(at(1, "/status/conditions/0/reason"), "AllocationFailed");
        for (file, count) in [("services.yaml", 1), ("events.yaml", 0)] {
            let path = folder.path().join(FOLDER).join(file);
            let statuses = Statuses::read(&path, &fs::read(&path).unwrap()).unwrap();
            assert_eq!((statuses.0.len(), statuses.of(Kind::Service, &name)), (count, None), "{file}");
        }
        assert_eq!(status_objects(folder.path().join("nowhere")), Vec::<serde_json::Value>::new());
    }

    #[test]
    fn half_a_file_is_no_file() {
        let text = "---\nkind: Service\napiVersion: v1\nmetadata: {namespace: a, name: b}\n---\nkind: [";
        assert_eq!(Statuses::read(Path::new("s"), text.as_bytes()).unwrap_err().place.unwrap().line, 6);
    }
}
