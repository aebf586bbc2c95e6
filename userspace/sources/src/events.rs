//! Kubernetes' events, as daemons note them: one for each thing that is said of an object, with how often and when.
//!
//! The number is bounded: of those that tell nothing bad, else of all, the one that was said longest ago makes way. Where they
//! are written to, and how fast, is the matter of [`crate::StatusWriter`] and of what stands behind it.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use roadstead_model::{ObjectName, ObjectRef};
use serde_json::{Value, json};

use crate::{hash::fnv1a, object::Kind};

/// Most events kept.
const MOST: usize = 1000;
/// Longest part of an object's name in the name of an event about it, in bytes: the API takes 253, and more follows.
const NAME: usize = 200;

/// `type` of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Gravity {
    /// What is to be expected.
    Normal,
    /// Something for somebody to look at.
    Warning,
}

impl Gravity {
    fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// Said of whom, for which reason, in which words.
type Key = (ObjectRef, String, String);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Occurrence {
    gravity: Gravity,
    count: u64,
    /// Seconds since the epoch.
    first: i64,
    last: i64,
}

/// All events of one daemon of this node.
#[derive(Debug)]
pub struct Events {
    component: String,
    node: String,
    most: usize,
    all: BTreeMap<Key, Occurrence>,
}

impl Events {
    /// None yet. `component` is the daemon's name.
    #[must_use]
    pub fn new(component: &str, node: &str) -> Self {
        Self { component: component.to_owned(), node: node.to_owned(), most: MOST, all: BTreeMap::new() }
    }

    /// Keeps fewer.
    #[must_use]
    pub fn at_most(self, most: usize) -> Self {
        Self { most, ..self }
    }

    /// Goes on from the events that an earlier run of this daemon wrote; other objects are passed over.
    pub fn restore(&mut self, objects: &[Value]) {
        for object in objects {
            let text = |path: &str| object.pointer(path).and_then(Value::as_str).map(str::to_owned);
            let read = || {
                (text("/kind")? == "Event" && text("/source/component")? == self.component).then_some(())?;
                let name = ObjectName::new(&text("/involvedObject/namespace")?, &text("/involvedObject/name")?);
                let gravity = if text("/type")? == "Normal" { Gravity::Normal } else { Gravity::Warning };
                let occurrence = Occurrence {
                    gravity,
                    count: object.get("count")?.as_u64()?,
                    first: seconds(&text("/firstTimestamp")?)?,
                    last: seconds(&text("/lastTimestamp")?)?,
                };
                let about = ObjectRef { kind: text("/involvedObject/kind")?, name };
                Some(((about, text("/reason")?, text("/message")?), occurrence))
            };
            self.all.extend(read());
        }
        self.bound();
    }

    /// Notes that something happened to an object, again or for the first time; `now` is in seconds since the epoch.
    pub fn note(&mut self, about: ObjectRef, gravity: Gravity, reason: &str, message: String, now: i64) {
        let key = (about, reason.to_owned(), message);
        let occurrence = self.all.entry(key).or_insert(Occurrence { gravity, count: 0, first: now, last: now });
        occurrence.count += 1;
        occurrence.last = now;
        self.bound();
    }

    /// Forgets the events about objects that are not there any more.
    pub fn retain(&mut self, mut is_there: impl FnMut(&ObjectRef) -> bool) {
        self.all.retain(|(about, ..), _| is_there(about));
    }

    fn bound(&mut self) {
        while self.all.len() > self.most {
            let oldest = self.all.iter().min_by_key(|(_, occurrence)| (occurrence.gravity, occurrence.last));
            let oldest = oldest.map(|(key, _)| key.clone());
            oldest.and_then(|key| self.all.remove(&key));
        }
    }

    /// The events as objects, the latest one last.
    #[must_use]
    pub fn objects(&self) -> Vec<Value> {
        let mut all: Vec<_> = self.all.iter().collect();
        all.sort_by_key(|(_, occurrence)| occurrence.last);
        all.into_iter().map(|(key, occurrence)| self.object(key, occurrence)).collect()
    }

    fn object(&self, (about, reason, message): &Key, occurrence: &Occurrence) -> Value {
        let (namespace, name) = (&*about.name.namespace, &*about.name.name);
        let version = Kind::named(&about.kind).map_or("v1", |(_, version)| version);
        json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {
                "namespace": namespace,
                "name": format!("{}.{}", shortened(name), fingerprint([&about.kind, reason, message])),
            },
            "involvedObject": {"apiVersion": version, "kind": about.kind, "namespace": namespace, "name": name},
            "type": occurrence.gravity.as_str(),
            "reason": reason,
            "message": message,
            "count": occurrence.count,
            "firstTimestamp": timestamp(occurrence.first),
            "lastTimestamp": timestamp(occurrence.last),
            "source": {"component": self.component, "host": self.node},
        })
    }
}

/// A name's beginning that may stand in front of a dot.
fn shortened(name: &str) -> &str {
    name.split_at(name.floor_char_boundary(NAME)).0.trim_end_matches(['.', '-'])
}

/// Tells apart the events of objects of one name.
fn fingerprint(parts: [&str; 3]) -> String {
    let hash = fnv1a(parts.iter().flat_map(|part| part.bytes().chain([b'\n'])));
    format!("{hash:016x}")
}

/// RFC 3339, as Kubernetes writes times.
fn timestamp(seconds: i64) -> String {
    Timestamp::from_second(seconds).unwrap_or_default().to_string()
}

/// What [`timestamp`] wrote.
fn seconds(text: &str) -> Option<i64> {
    text.parse::<Timestamp>().ok().map(Timestamp::as_second)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn web(kind: &str) -> ObjectRef {
        ObjectRef { kind: kind.to_owned(), name: ObjectName::new("shop", "web") }
    }

    fn noted(events: &mut Events, gravity: Gravity, reason: &str, now: i64) {
        events.note(web("Service"), gravity, reason, "said".to_owned(), now);
    }

    #[test]
    fn what_is_said_again_is_counted() {
        let mut events = Events::new("speaker", "node-a");
        noted(&mut events, Gravity::Warning, "Failed", 100);
        noted(&mut events, Gravity::Normal, "Assigned", 150);
        noted(&mut events, Gravity::Warning, "Failed", 1_700_000_000);
        let objects = events.objects();
        assert_eq!(objects.len(), 2);
        let last = objects.last().unwrap();
        let at = |path: &str| last.pointer(path).unwrap().clone();
        assert_eq!((at("/count"), at("/type"), at("/reason")), (2.into(), "Warning".into(), "Failed".into()));
        assert_eq!(
            (at("/firstTimestamp"), at("/lastTimestamp")),
            ("1970-01-01T00:01:40Z".into(), "2023-11-14T22:13:20Z".into())
        );
        assert_eq!((at("/involvedObject/name"), at("/source/host")), ("web".into(), "node-a".into()));
        // A later run goes on counting; another daemon's events are none of its own.
        let mut later = Events::new("speaker", "node-a");
        later.restore(&objects);
        assert_eq!(later.objects(), objects);
        noted(&mut later, Gravity::Warning, "Failed", 1_700_000_001);
        assert_eq!(later.objects().last().unwrap().pointer("/count").unwrap(), 3);
        let mut other = Events::new("ingress", "node-a");
        other.restore(&objects);
        assert_eq!(other.objects(), Vec::<Value>::new());
    }

    #[test]
    fn objects_of_one_name_have_events_of_their_own() {
        let mut events = Events::new("ingress", "n");
        let long = ObjectRef { kind: "Secret".to_owned(), name: ObjectName::new("shop", &"a.-".repeat(84)) };
        for about in [web("Ingress"), web("Secret"), long] {
            events.note(about, Gravity::Warning, "Bad", "said".to_owned(), 1);
        }
        let objects = events.objects();
        let names: Vec<&str> =
            objects.iter().map(|one| one.pointer("/metadata/name").unwrap().as_str().unwrap()).collect();
        let [ingress, long, secret] = names[..] else { panic!("{names:?}") };
        assert!(ingress.starts_with("web.") && secret.starts_with("web.") && ingress != secret, "{names:?}");
        // The writer adds the run; a part of a DNS name ends in a letter or a digit.
        let (front, _) = long.rsplit_once('.').unwrap();
        assert!(long.len() < 230 && front.ends_with('a'), "{long}");
        let version = objects[0].pointer("/involvedObject/apiVersion").unwrap();
        assert_eq!(version, "networking.k8s.io/v1");
        events.retain(|about| about.kind == "Ingress");
        assert_eq!(events.objects().len(), 1);
    }

    #[test]
    fn the_oldest_makes_way_and_warnings_last() {
        let mut events = Events::new("speaker", "n");
        noted(&mut events, Gravity::Warning, "Failed", 0);
        for number in 0..1100 {
            noted(&mut events, Gravity::Normal, &number.to_string(), number);
        }
        let objects = events.objects();
        let reasons: Vec<_> = objects.iter().map(|object| object.get("reason").unwrap().as_str().unwrap()).collect();
        assert_eq!(
            (reasons.len(), reasons.get(..2), reasons.last()),
            (1000, Some(&["Failed", "101"][..]), Some(&"1099"))
        );
    }
}
