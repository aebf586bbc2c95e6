//! What this node tells of its work, as objects beside the Services' status: events, how full pools are, what it announces.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use roadstead_allocator::{Allocation, Assignment, PoolUsage, Reason};
use roadstead_layer2::replica::Table;
use roadstead_model::{ObjectName, Service, Snapshot};
use roadstead_sources::{Events, ServiceStatus, StatusWriter, status_objects};
use serde_json::{Value, json};

use crate::events::Happening;

/// Where MetalLB's speakers put their status objects.
const NAMESPACE: &str = "metallb-system";
/// Why a Service has no address yet that will have one when other nodes have spoken; no event is made of it.
const WAITS: &str = "WaitsForOthers";
const DEPRECATED: &str = "metallb.universe.tf/";

/// What this node announces, as the engine has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Announcing {
    /// By Service, the interfaces that one of its addresses is announced on.
    pub(crate) services: BTreeMap<ObjectName, BTreeSet<String>>,
    /// Services with an address that this node won and can announce on no interface.
    pub(crate) silent: BTreeSet<ObjectName>,
}

/// All that is told.
pub(crate) struct Report {
    node: String,
    events: Events,
    services: BTreeMap<ObjectName, ServiceStatus>,
    /// The pool that each Service's addresses came from, for those that cannot be judged now too.
    origins: BTreeMap<ObjectName, String>,
    /// What was said of Services last, so that it is said once.
    reasons: BTreeMap<ObjectName, Reason>,
    deprecated: BTreeSet<(ObjectName, String)>,
    pools: Vec<Value>,
    announcing: Announcing,
}

impl Report {
    /// Goes on from the events in the state directory.
    pub(crate) fn new(state_dir: &Path, node: &str) -> Self {
        let mut events = Events::new("roadstead-speaker", node);
        let objects = status_objects(state_dir);
        events.restore(&objects);
        Self {
            node: node.to_owned(),
            events,
            services: BTreeMap::new(),
            origins: objects.iter().filter_map(origin).collect(),
            reasons: BTreeMap::new(),
            deprecated: BTreeSet::new(),
            pools: Vec::new(),
            announcing: Announcing::default(),
        }
    }

    /// Forgets what was told of Services that are gone: another one of the same name begins anew.
    pub(crate) fn keep(&mut self, snapshot: &Snapshot) {
        self.events.retain(|about| snapshot.services.contains_key(&about.name));
        self.deprecated.retain(|(name, _)| snapshot.services.contains_key(name));
    }

    /// Takes an allocation, and what Services had before it.
    pub(crate) fn allocation(&mut self, snapshot: &Snapshot, prior: &Table, allocation: &Allocation) {
        let now = now();
        for (name, cleared) in &allocation.cleared {
            let message = format!("current IP {} not allowed any more: {}", list(&cleared.ips), cleared.reason);
            Happening::ClearAssignment.note(&mut self.events, name, message, now);
        }
        self.services.clear();
        let mut reasons = BTreeMap::new();
        for (name, got) in &allocation.services {
            self.assigned(name, got, prior.get(name), now);
            // Another controller's: not ours to tell of.
            if matches!(got.reason, Some(Reason::OtherClass(_) | Reason::NoClass)) {
                continue;
            }
            let pending = got.reason.as_ref().and_then(|reason| Some((happening(got, reason)?, reason)));
            if let Some((happening, reason)) = pending {
                if self.reasons.get(name) != Some(reason) {
                    let message = format!("Failed to allocate IP for {name}: {reason}");
                    happening.note(&mut self.events, name, message, now);
                }
                reasons.insert(name.clone(), reason.clone());
            }
            let pending = pending.map(|(happening, reason)| (happening.reason().to_owned(), reason.to_string()));
            let waits = got.reason.as_ref().filter(|reason| reason.is_waiting());
            let waits = waits.map(|reason| (WAITS.to_owned(), reason.to_string()));
            let status = ServiceStatus {
                ips: got.ips.clone(),
                pool: got.pool.as_ref().map(|pool| pool.name.to_string()),
                pending: pending.or(waits),
            };
            self.origins.extend(status.pool.clone().map(|pool| (name.clone(), pool)));
            self.services.insert(name.clone(), status);
            if let Some(service) = snapshot.services.get(name) {
                self.deprecated(service, now);
            }
        }
        self.reasons = reasons;
        self.pools = allocation.pools.iter().map(|(name, usage)| pool(name, usage)).collect();
    }

    fn assigned(&mut self, name: &ObjectName, got: &Assignment, had: Option<&Vec<IpAddr>>, now: i64) {
        let added: Vec<IpAddr> =
            got.ips.iter().filter(|ip| had.is_none_or(|had| !had.contains(*ip))).copied().collect();
        if added.is_empty() {
            return;
        }
        let additional = if added.len() < got.ips.len() { "additional " } else { "" };
        Happening::IpAllocated.note(&mut self.events, name, format!("Assigned {additional}IP {}", list(&added)), now);
    }

    fn deprecated(&mut self, service: &Service, now: i64) {
        for key in service.meta.annotations.keys().filter(|key| key.starts_with(DEPRECATED)) {
            if self.deprecated.insert((service.meta.name.clone(), key.clone())) {
                let message = format!("Service uses deprecated annotation {key}");
                Happening::DeprecatedAnnotation.note(&mut self.events, &service.meta.name, message, now);
            }
        }
    }

    /// Forgets what was told of allocations: another speaker assigns from now on.
    pub(crate) fn forget(&mut self) {
        self.services.clear();
        self.reasons.clear();
        self.pools.clear();
    }

    /// Takes what this node announces now.
    pub(crate) fn announcing(&mut self, announcing: &Announcing) {
        let now = now();
        for service in announcing.services.keys().filter(|name| !self.announcing.services.contains_key(*name)) {
            let message = format!("announcing from node {:?} with protocol \"layer2\"", self.node);
            Happening::NodeAssigned.note(&mut self.events, service, message, now);
        }
        for service in announcing.silent.difference(&self.announcing.silent) {
            let message = format!("node {:?} has no interface to announce an address on", self.node);
            Happening::AnnounceFailed.note(&mut self.events, service, message, now);
        }
        self.announcing = announcing.clone();
    }

    /// Writes all of it. What is assigned or held goes into the Services' status; of Services that are held nothing more is
    /// known than their addresses.
    pub(crate) fn write(&self, status: &StatusWriter, assigned: &Table) -> io::Result<()> {
        let mut services = self.services.clone();
        for (name, ips) in assigned {
            let status = services.entry(name.clone()).or_default();
            status.ips.clone_from(ips);
            status.pool = status.pool.take().or_else(|| self.origins.get(name).cloned());
        }
        status.write_services(&services)?;
        status.write_objects("ipaddresspools.yaml", &self.pools)?;
        status.write_objects("servicel2statuses.yaml", &self.statuses())?;
        status.write_objects("events.yaml", &self.events.objects())
    }

    fn statuses(&self) -> Vec<Value> {
        let object = |(service, interfaces): (&ObjectName, &BTreeSet<String>)| {
            let (namespace, name, node) = (&*service.namespace, &*service.name, &*self.node);
            let interfaces: Vec<Value> = interfaces.iter().map(|name| json!({"name": name})).collect();
            json!({
                "apiVersion": "metallb.io/v1beta1",
                "kind": "ServiceL2Status",
                "metadata": {
                    "namespace": NAMESPACE,
                    "name": format!("l2-{namespace}-{name}-{node}"),
                    "labels": {
                        "metallb.io/node": node,
                        "metallb.io/service-name": name,
                        "metallb.io/service-namespace": namespace,
                    },
                },
                "status": {
                    "node": node,
                    "serviceName": name,
                    "serviceNamespace": namespace,
                    "interfaces": interfaces,
                },
            })
        };
        self.announcing.services.iter().map(object).collect()
    }
}

/// The event that a lack of addresses is; none where the Service is another controller's or is not to be judged now.
fn happening(got: &Assignment, reason: &Reason) -> Option<Happening> {
    match reason {
        Reason::OtherClass(_) | Reason::NoClass | Reason::Withheld => None,
        reason if reason.is_waiting() => None,
        Reason::BadRequest(_) => Some(Happening::LoadBalancerFailed),
        _ if got.ips.is_empty() => Some(Happening::AllocationFailed),
        _ => Some(Happening::AdditionalAssignFailed),
    }
}

fn pool(name: &ObjectName, usage: &PoolUsage) -> Value {
    // The API's numbers are 64 bits wide; a huge range counts as endless.
    let count = |count: u128| i64::try_from(count).unwrap_or(i64::MAX);
    json!({
        "apiVersion": "metallb.io/v1beta1",
        "kind": "IPAddressPool",
        "metadata": {"namespace": &*name.namespace, "name": &*name.name},
        "status": {
            "assignedIPv4": count(usage.v4.in_use),
            "assignedIPv6": count(usage.v6.in_use),
            "availableIPv4": count(usage.v4.available()),
            "availableIPv6": count(usage.v6.available()),
        },
    })
}

/// The pool that a Service's status names.
fn origin(object: &Value) -> Option<(ObjectName, String)> {
    let metadata = object.get("metadata").filter(|_| object.get("kind").is_some_and(|kind| kind == "Service"))?;
    let text = |key: &str| metadata.get(key)?.as_str();
    let pool = metadata.get("annotations")?.get("metallb.io/ip-allocated-from-pool")?.as_str()?;
    Some((ObjectName::new(text("namespace")?, text("name")?), pool.to_owned()))
}

fn list(ips: &[IpAddr]) -> String {
    format!("[{}]", ips.iter().map(|ip| format!("\"{ip}\"")).collect::<Vec<_>>().join(" "))
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use roadstead_allocator::{allocate, prior_of};
    use roadstead_sources::{LoadOptions, load};

    use super::*;

    const POOL: &str = "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\n\
        metadata: {name: lan, namespace: metallb-system}\nspec: {addresses: [192.0.2.0/30]}\n";

    struct State {
        folder: tempfile::TempDir,
        report: Report,
    }

    impl State {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            fs::create_dir(folder.path().join("m")).unwrap();
            let report = Report::new(folder.path(), "node-a");
            Self { folder, report }
        }

        fn service(&self, name: &str, more: &str) {
            let text = format!(
                "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}{more}}}\n\
                 spec: {{type: LoadBalancer, ports: [{{port: 80}}]}}\n"
            );
            fs::write(self.folder.path().join(format!("m/{name}.yaml")), text).unwrap();
        }

        /// Allocates from what status says, and writes what follows.
        fn run(&mut self, pool: &str) {
            fs::write(self.folder.path().join("m/pool.yaml"), pool).unwrap();
            let options = LoadOptions { state_dir: Some(self.folder.path().to_owned()), ..LoadOptions::default() };
            let snapshot = load(&[self.folder.path().join("m")], &options);
            let prior = prior_of(&snapshot);
            let allocation = allocate(&snapshot, &prior);
            self.report.allocation(&snapshot, &prior, &allocation);
            let status = StatusWriter::new(self.folder.path());
            self.report.write(&status, &allocation.assigned()).unwrap();
        }

        /// Of each object of the kind, what stands at the paths, with spaces between.
        fn written(&self, kind: &str, paths: &[&str]) -> Vec<String> {
            let objects = status_objects(self.folder.path());
            let objects = objects.iter().filter(|object| object.get("kind").unwrap() == kind);
            let text = |object: &Value| {
                let at = paths.iter().filter_map(|path| object.pointer(path));
                at.map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned)).collect::<Vec<_>>()
            };
            objects.map(|object| text(object).join(" ")).collect()
        }

        fn events(&self) -> Vec<String> {
            let mut events = self.written("Event", &["/involvedObject/name", "/reason", "/count"]);
            events.sort();
            events
        }
    }

    #[test]
    fn an_allocation_is_told_in_events_counters_and_conditions() {
        let mut state = State::new();
        for name in ["a", "b", "c", "d", "e"] {
            state.service(name, "");
        }
        state.service("old", ", annotations: {metallb.universe.tf/address-pool: lan}");
        state.service("wrong", ", annotations: {metallb.io/loadBalancerIPs: x}");
        state.run(POOL);
        let first = [
            "a IPAllocated 1",
            "b IPAllocated 1",
            "c IPAllocated 1",
            "d IPAllocated 1",
            "e AllocationFailed 1",
            "old AllocationFailed 1",
            "old deprecatedAnnotation 1",
            "wrong LoadBalancerFailed 1",
        ];
        assert_eq!(state.events(), first);
        let counters =
            ["/status/assignedIPv4", "/status/availableIPv4", "/status/assignedIPv6", "/status/availableIPv6"];
        assert_eq!(state.written("IPAddressPool", &counters), ["4 0 0 0"]);
        let conditions = ["/metadata/name", "/status/loadBalancer/ingress/0/ip", "/status/conditions/0/reason"];
        let services = state.written("Service", &conditions);
        assert_eq!(
            services,
            [
                "a 192.0.2.0",
                "b 192.0.2.1",
                "c 192.0.2.2",
                "d 192.0.2.3",
                "e AllocationFailed",
                "old AllocationFailed",
                "wrong LoadBalancerFailed"
            ]
        );
        // The same again says nothing new; a smaller pool does.
        state.run(POOL);
        assert_eq!(state.events(), first);
        fs::remove_file(state.folder.path().join("m/e.yaml")).unwrap();
        fs::remove_file(state.folder.path().join("m/d.yaml")).unwrap();
        state.run(&POOL.replace("192.0.2.0/30", "192.0.2.0/31, 192.0.2.8/32"));
        let changed: Vec<_> = state.events().into_iter().filter(|event| event.starts_with('c')).collect();
        assert_eq!(changed, ["c ClearAssignment 1", "c IPAllocated 1", "c IPAllocated 1"]);
        assert_eq!(state.written("IPAddressPool", &counters), ["3 0 0 0"]);
        // Another process goes on from there.
        let restarted = Report::new(state.folder.path(), "node-a");
        assert_eq!(restarted.events.objects(), state.report.events.objects());
        // What is gone is spoken of no more.
        state.report.keep(&Snapshot::default());
        assert_eq!(state.report.events.objects(), Vec::<Value>::new());
    }

    #[test]
    fn what_is_announced_is_told_and_withdrawn() {
        let mut state = State::new();
        let web = ObjectName::new("shop", "web");
        let interfaces = BTreeSet::from(["eth0".to_owned(), "eth1".to_owned()]);
        let services = BTreeMap::from([(web.clone(), interfaces)]);
        let announcing = Announcing { services, silent: BTreeSet::from([ObjectName::new("shop", "mute")]) };
        state.report.announcing(&announcing);
        state.report.announcing(&announcing);
        state.run(POOL);
        let paths = ["/status/node", "/status/serviceNamespace", "/status/serviceName", "/status/interfaces/1/name"];
        assert_eq!(state.written("ServiceL2Status", &paths), ["node-a shop web eth1"]);
        assert_eq!(state.events(), ["mute announceFailed 1", "web nodeAssigned 1"]);
        state.report.announcing(&Announcing::default());
        state.run(POOL);
        assert_eq!(state.written("ServiceL2Status", &paths), Vec::<String>::new());
    }
}
