//! What is to be sent for what the daemons say: statuses that differ from what is observed, events that were not told. Pure but for
//! the time of day, which objects carry.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use k8s_openapi::jiff::Timestamp;
use roadstead_model::{CONFLICTS_ANNOTATION, Ingress, IngressIpMode, IngressStatus, ObjectName, Service, Snapshot};
use serde_json::{Map, Value, json};

use super::outbox::{Letters, Uids};
use crate::{
    object::Kind,
    status::{ASSIGNED, CONFLICT, POOL, ServiceStatus},
};

/// How long the server's own word about a write may take to come back; then it counts as undone by somebody.
const ECHO: Duration = Duration::from_secs(5);

/// What a write is about; a later one takes an earlier one's place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Key {
    Service(ObjectName),
    Ingress(ObjectName),
    Pool(ObjectName),
    /// A ServiceL2Status.
    Announcement(String),
    /// With the `metadata.uid` of what it is about: another object of the same name has events of its own.
    Event(ObjectName, Option<String>),
}

impl Key {
    /// For logs, metrics and the role that must allow it.
    pub(crate) fn resource(&self) -> &'static str {
        match self {
            Self::Service(_) => "services/status",
            Self::Ingress(_) => "ingresses/status",
            Self::Pool(_) => "ipaddresspools/status",
            Self::Announcement(_) => "servicel2statuses",
            Self::Event(..) => "events",
        }
    }
}

/// One request.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Post {
    pub(crate) key: Key,
    pub(crate) verb: Verb,
    pub(crate) address: String,
    pub(crate) body: Value,
    /// Comes after the first has succeeded.
    pub(crate) then: Option<Box<Post>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Create,
    /// A JSON merge patch (RFC 7396): lists are replaced.
    Merge,
    /// A strategic merge patch: conditions of other types stay.
    Strategic,
    Delete,
}

/// What was written, as far as it cannot be observed or has not come back yet.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    services: HashMap<ObjectName, (ServiceStatus, Instant)>,
    ingresses: HashMap<ObjectName, (IngressStatus, Instant)>,
    pools: HashMap<ObjectName, Value>,
    events: HashMap<ObjectName, (u64, Option<String>)>,
    /// When the first of the writes that do not show counts as undone.
    undone_at: Option<Instant>,
}

/// File names under which the daemons hand over objects.
pub(crate) const POOLS: &str = "ipaddresspools.yaml";
/// Those of speaker and proxy, which may share a folder.
pub(crate) const EVENTS: [&str; 2] = ["events.yaml", "ingress-events.yaml"];
pub(crate) const ANNOUNCEMENTS: &str = "servicel2statuses.yaml";

impl Memory {
    /// Forgets what cannot be observed: somebody else may have written since.
    pub(crate) fn forget(&mut self) {
        self.services.clear();
        self.ingresses.clear();
        self.pools.clear();
    }

    /// A post has been taken.
    pub(crate) fn note(&mut self, key: &Key, letters: &Letters, now: Instant) {
        match key {
            Key::Service(name) => {
                let status = letters.services.get(name).cloned().unwrap_or_default();
                self.services.insert(name.clone(), (status, now));
            }
            Key::Ingress(name) => {
                let status = letters.ingresses.get(name).cloned().unwrap_or_default();
                self.ingresses.insert(name.clone(), (status, now));
            }
            Key::Pool(name) => {
                let objects = letters.objects.get(POOLS).into_iter().flat_map(|objects| objects.iter());
                let status = objects.filter(|object| named(object).as_ref() == Some(name));
                self.pools.extend(status.map(|object| (name.clone(), status_of(object))));
            }
            Key::Event(name, uid) => {
                let told = letters.events().filter(|object| named(object).as_ref() == Some(name));
                self.events.extend(told.map(|object| (name.clone(), (count(object), uid.clone()))));
            }
            Key::Announcement(_) => {}
        }
    }

    /// What one leader writes for all.
    pub(crate) fn of_leader(&mut self, letters: &Letters, snapshot: &Snapshot, uids: &Uids, now: Instant) -> Vec<Post> {
        let (mut posts, mut undone_at) = (Vec::new(), None::<Instant>);
        let mut is_due = |due: Due| match due {
            Due::No => false,
            Due::Now => true,
            Due::At(at) => {
                undone_at = Some(undone_at.map_or(at, |before| before.min(at)));
                false
            }
        };
        for (name, wanted) in letters.services.iter() {
            let Some(service) = snapshot.services.get(name) else { continue };
            let told = self.services.get(name);
            // A reason is not observed: it is told once.
            let reason = told.is_none_or(|(told, _)| told != wanted)
                && (wanted.pending.is_some() || told.is_some_and(|(told, _)| told.pending.is_some()));
            if is_due(due(told, wanted, shows(service, wanted), now)) || reason {
                posts.push(service_post(service, wanted, told.map(|(told, _)| told)));
            }
        }
        for (name, ingress) in &snapshot.ingresses {
            let told = self.ingresses.get(name);
            let wanted = match (letters.ingresses.get(name), told) {
                (Some(wanted), _) => wanted.clone(),
                // What this process wrote and nobody changed since is taken back.
                (None, Some((told, _))) if *told == ingress.status => IngressStatus::default(),
                (None, _) => continue,
            };
            if is_due(due(told, &wanted, ingress.status == wanted, now)) {
                posts.push(ingress_post(ingress, &wanted));
            }
        }
        self.undone_at = undone_at;
        self.services.retain(|name, _| snapshot.services.contains_key(name));
        self.ingresses.retain(|name, _| snapshot.ingresses.contains_key(name));
        for object in letters.objects.get(POOLS).into_iter().flat_map(|objects| objects.iter()) {
            let Some(name) = named(object) else { continue };
            // Pools of MetalLB's old ConfigMap are no objects.
            let exists = uids.of(Kind::IpAddressPool, &name).is_some();
            if exists && self.pools.get(&name) != Some(&status_of(object)) {
                let address = format!(
                    "/apis/metallb.io/v1beta1/namespaces/{}/ipaddresspools/{}/status",
                    name.namespace, name.name
                );
                let body = json!({"status": status_of(object)});
                posts.push(Post { key: Key::Pool(name), verb: Verb::Merge, address, body, then: None });
            }
        }
        posts
    }

    /// The events that were not told in this form, warnings first, as there is a limit to how many are told; `run` tells this
    /// process's events from an earlier one's.
    pub(crate) fn events(&mut self, letters: &Letters, uids: &Uids, run: &str) -> Vec<Post> {
        let mut posts = Vec::new();
        let is_warning = |object: &&Value| object.get("type").is_some_and(|kind| kind == "Warning");
        let (warnings, others): (Vec<&Value>, Vec<&Value>) = letters.events().partition(is_warning);
        for object in warnings.into_iter().chain(others) {
            let Some(name) = named(object) else { continue };
            let Some((kind, about)) = involved(object) else { continue };
            let known = self.events.get(&name);
            // What is said of an object that is gone meanwhile was said of that object.
            let uid = uids.of(kind, &about).or_else(|| known.and_then(|(_, uid)| uid.clone()));
            let told = known.filter(|(_, known)| *known == uid).map(|(count, _)| *count);
            if told.is_none_or(|told| told < count(object)) {
                posts.push(event_post(name, object, told.is_some(), uid, run));
            }
        }
        if self.events.len() > 2 * letters.events().count() + 100 {
            let known: HashSet<ObjectName> = letters.events().filter_map(named).collect();
            self.events.retain(|name, _| known.contains(name));
        }
        posts
    }

    /// How long until a write that does not show counts as undone by somebody; nothing where all show.
    pub(crate) fn patience(&self, now: Instant) -> Option<Duration> {
        self.undone_at.map(|at| at.saturating_duration_since(now))
    }

    /// The server has forgotten the event, or never knew it.
    pub(crate) fn event_is_gone(&mut self, name: &ObjectName) {
        self.events.remove(name);
    }
}

/// When something is to be written.
enum Due {
    No,
    Now,
    /// Unless it shows until then.
    At(Instant),
}

fn due<T: PartialEq>(told: Option<&(T, Instant)>, wanted: &T, shows: bool, now: Instant) -> Due {
    match told {
        _ if shows => Due::No,
        Some((told, at)) if told == wanted && now.duration_since(*at) < ECHO => Due::At(*at + ECHO),
        _ => Due::Now,
    }
}

/// Whether the Service shows what it has.
fn shows(service: &Service, wanted: &ServiceStatus) -> bool {
    let is_vip = service.status.iter().all(|entry| entry.mode == IngressIpMode::Vip);
    let pool = service.meta.annotations.get(POOL);
    let same_pool = pool == wanted.pool.as_ref().filter(|_| !wanted.ips.is_empty());
    is_vip && same_pool && service.status.iter().map(|entry| entry.ip).eq(wanted.ips.iter().copied())
}

fn service_post(service: &Service, wanted: &ServiceStatus, told: Option<&ServiceStatus>) -> Post {
    let name = &service.meta.name;
    let (status, reason, message) = match &wanted.pending {
        // It lacks a second address at most.
        Some((reason, message)) if !wanted.ips.is_empty() => ("True", reason.as_str(), message.as_str()),
        Some((reason, message)) => ("False", reason.as_str(), message.as_str()),
        None if wanted.ips.is_empty() => ("False", "NotAssigned", "no address is assigned"),
        None => ("True", "IPAllocated", "every address is assigned"),
    };
    let mut condition = Map::new();
    for (key, value) in [("type", ASSIGNED), ("status", status), ("reason", reason), ("message", message)] {
        condition.insert(key.to_owned(), json!(value));
    }
    // The time is that of a change of the status, as far as this process knows.
    if told.is_none_or(|told| told.ips.is_empty() != wanted.ips.is_empty()) {
        condition.insert("lastTransitionTime".to_owned(), json!(time_of_day()));
    }
    let ingress: Vec<Value> = wanted.ips.iter().map(|ip| json!({"ip": ip, "ipMode": "VIP"})).collect();
    let pool = wanted.pool.as_ref().filter(|_| !wanted.ips.is_empty());
    let body = json!({
        "metadata": {"annotations": {POOL: pool}},
        "status": {"loadBalancer": {"ingress": ingress}, "conditions": [condition]},
    });
    let address = format!("/api/v1/namespaces/{}/services/{}/status", name.namespace, name.name);
    Post { key: Key::Service(name.clone()), verb: Verb::Strategic, address, body, then: None }
}

fn ingress_post(ingress: &Ingress, wanted: &IngressStatus) -> Post {
    let name = &ingress.meta.name;
    let conflicts = (!wanted.conflicts.is_empty()).then(|| wanted.conflicts.join("\n"));
    let ports =
        conflicts.as_ref().map(|_| [80, 443].map(|port| json!({"port": port, "protocol": "TCP", "error": CONFLICT})));
    let entry = |ip: &IpAddr| match &ports {
        Some(ports) => json!({"ip": ip, "ports": ports}),
        None => json!({"ip": ip}),
    };
    let entries: Vec<Value> = wanted.addresses.iter().map(entry).collect();
    let body = json!({
        "metadata": {"annotations": {CONFLICTS_ANNOTATION: conflicts}},
        "status": {"loadBalancer": {"ingress": entries}},
    });
    let address = format!("/apis/networking.k8s.io/v1/namespaces/{}/ingresses/{}/status", name.namespace, name.name);
    Post { key: Key::Ingress(name.clone()), verb: Verb::Merge, address, body, then: None }
}

/// What an event is about.
fn involved(event: &Value) -> Option<(Kind, ObjectName)> {
    let text = |field: &str| event.pointer(field).and_then(Value::as_str);
    let (kind, _) = Kind::named(text("/involvedObject/kind")?)?;
    Some((kind, ObjectName::new(text("/involvedObject/namespace")?, text("/involvedObject/name")?)))
}

fn event_post(name: ObjectName, object: &Value, is_known: bool, uid: Option<String>, run: &str) -> Post {
    let text = |field: &str| object.pointer(field).and_then(Value::as_str);
    // As long as one of the parts of a UUID.
    let of_object = uid.as_ref().map(|uid| format!("-{}", uid.split('-').next().unwrap_or_default()));
    let own = format!("{}-{run}{}", name.name, of_object.unwrap_or_default());
    let collection = format!("/api/v1/namespaces/{}/events", name.namespace);
    if is_known {
        let body = json!({"count": count(object), "lastTimestamp": text("/lastTimestamp")});
        let address = format!("{collection}/{own}");
        return Post { key: Key::Event(name, uid), verb: Verb::Merge, address, body, then: None };
    }
    let mut body = object.clone();
    let mut set = |at: &str, key: &str, value: Value| {
        if let Some(Value::Object(fields)) = body.pointer_mut(at) {
            fields.insert(key.to_owned(), value);
        }
    };
    set("/metadata", "name", json!(own));
    if let Some(uid) = &uid {
        set("/involvedObject", "uid", json!(uid));
    }
    set("", "reportingComponent", json!(text("/source/component")));
    set("", "reportingInstance", json!(text("/source/host")));
    Post { key: Key::Event(name, uid), verb: Verb::Create, address: collection, body, then: None }
}

pub(crate) fn named(object: &Value) -> Option<ObjectName> {
    let text = |field: &str| object.pointer(field).and_then(Value::as_str);
    Some(ObjectName::new(text("/metadata/namespace")?, text("/metadata/name")?))
}

pub(crate) fn status_of(object: &Value) -> Value {
    object.get("status").cloned().unwrap_or_default()
}

fn count(event: &Value) -> u64 {
    event.get("count").and_then(Value::as_u64).unwrap_or(1)
}

/// RFC 3339, to the second.
pub(crate) fn time_of_day() -> String {
    let now = Timestamp::now();
    Timestamp::from_second(now.as_second()).unwrap_or(now).to_string()
}

#[cfg(test)]
#[path = "posts_tests.rs"]
mod tests;
