//! What happened to Services, as Kubernetes' events: one for each thing that is said of a Service, with how often and when.
//!
//! The reasons are MetalLB's, which people have learnt to look for. The number of events is bounded: the one that was said
//! longest ago makes way.

use std::collections::BTreeMap;

use roadstead_model::ObjectName;
use serde_json::{Value, json};
use time::OffsetDateTime;

/// Most events kept.
const MOST: usize = 1000;

/// What an event tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Happening {
    /// An address was assigned.
    IpAllocated,
    /// No address could be assigned.
    AllocationFailed,
    /// The address of one family could not be assigned beside that of the other.
    AdditionalAssignFailed,
    /// The request for addresses cannot be read.
    LoadBalancerFailed,
    /// An address was taken back.
    ClearAssignment,
    /// This node has begun to announce.
    NodeAssigned,
    /// This node is to announce, but has no interface for it.
    AnnounceFailed,
    /// An annotation's prefix is MetalLB's former one.
    DeprecatedAnnotation,
}

impl Happening {
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::IpAllocated => "IPAllocated",
            Self::AllocationFailed => "AllocationFailed",
            Self::AdditionalAssignFailed => "AdditionalAssignFailed",
            Self::LoadBalancerFailed => "LoadBalancerFailed",
            Self::ClearAssignment => "ClearAssignment",
            Self::NodeAssigned => "nodeAssigned",
            Self::AnnounceFailed => "announceFailed",
            Self::DeprecatedAnnotation => "deprecatedAnnotation",
        }
    }

    fn severity(self) -> &'static str {
        match self {
            Self::IpAllocated | Self::ClearAssignment | Self::NodeAssigned | Self::AdditionalAssignFailed => "Normal",
            _ => "Warning",
        }
    }
}

/// Said of whom, what, in which words.
type Key = (ObjectName, String, String);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Occurrence {
    severity: String,
    count: u64,
    /// Seconds since the epoch.
    first: i64,
    last: i64,
}

/// All events of this node.
#[derive(Debug)]
pub(crate) struct Events {
    node: String,
    all: BTreeMap<Key, Occurrence>,
}

impl Events {
    pub(crate) fn new(node: &str) -> Self {
        Self { node: node.to_owned(), all: BTreeMap::new() }
    }

    /// Goes on from the events that an earlier run wrote.
    pub(crate) fn restore(&mut self, objects: &[Value]) {
        for object in objects.iter().filter(|object| object.get("kind").is_some_and(|kind| kind == "Event")) {
            let text = |path: &str| object.pointer(path).and_then(Value::as_str).map(str::to_owned);
            let read = || {
                let service = ObjectName::new(&text("/involvedObject/namespace")?, &text("/involvedObject/name")?);
                let occurrence = Occurrence {
                    severity: text("/type")?,
                    count: object.get("count")?.as_u64()?,
                    first: seconds(&text("/firstTimestamp")?)?,
                    last: seconds(&text("/lastTimestamp")?)?,
                };
                Some(((service, text("/reason")?, text("/message")?), occurrence))
            };
            self.all.extend(read());
        }
        self.bound();
    }

    /// Notes that something happened, again or for the first time.
    pub(crate) fn note(&mut self, service: &ObjectName, happening: Happening, message: String, now: i64) {
        let key = (service.clone(), happening.reason().to_owned(), message);
        let severity = happening.severity().to_owned();
        let occurrence = self.all.entry(key).or_insert(Occurrence { severity, count: 0, first: now, last: now });
        occurrence.count += 1;
        occurrence.last = now;
        self.bound();
    }

    fn bound(&mut self) {
        while self.all.len() > MOST {
            let oldest = self.all.iter().min_by_key(|(_, occurrence)| occurrence.last).map(|(key, _)| key.clone());
            oldest.and_then(|key| self.all.remove(&key));
        }
    }

    /// The events as objects, the latest one last.
    pub(crate) fn objects(&self) -> Vec<Value> {
        let mut all: Vec<_> = self.all.iter().collect();
        all.sort_by_key(|(_, occurrence)| occurrence.last);
        all.into_iter().map(|(key, occurrence)| self.object(key, occurrence)).collect()
    }

    fn object(&self, (service, reason, message): &Key, occurrence: &Occurrence) -> Value {
        let (namespace, name) = (&*service.namespace, &*service.name);
        json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"namespace": namespace, "name": format!("{name}.{}", fingerprint(reason, message))},
            "involvedObject": {"apiVersion": "v1", "kind": "Service", "namespace": namespace, "name": name},
            "type": occurrence.severity,
            "reason": reason,
            "message": message,
            "count": occurrence.count,
            "firstTimestamp": timestamp(occurrence.first),
            "lastTimestamp": timestamp(occurrence.last),
            "source": {"component": "roadstead-speaker", "host": self.node},
        })
    }
}

/// Tells apart the events of one Service: FNV-1a, the same in every run.
fn fingerprint(reason: &str, message: &str) -> String {
    let bytes = reason.bytes().chain([b'\n']).chain(message.bytes());
    let hash =
        bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{hash:016x}")
}

/// RFC 3339, as Kubernetes writes times.
fn timestamp(seconds: i64) -> String {
    let at = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (date, time) = (at.date(), at.time());
    let (month, day) = (u8::from(date.month()), date.day());
    format!("{:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", date.year(), time.hour(), time.minute(), time.second())
}

/// What [`timestamp`] wrote.
fn seconds(text: &str) -> Option<i64> {
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<u8>().ok();
    let year = text.get(0..4)?.parse().ok()?;
    let month = time::Month::try_from(number(5..7)?).ok()?;
    let date = time::Date::from_calendar_date(year, month, number(8..10)?).ok()?;
    let time = time::Time::from_hms(number(11..13)?, number(14..16)?, number(17..19)?).ok()?;
    Some(date.with_time(time).assume_utc().unix_timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn web() -> ObjectName {
        ObjectName::new("shop", "web")
    }

    #[test]
    fn what_is_said_again_is_counted() {
        let mut events = Events::new("node-a");
        events.note(&web(), Happening::AllocationFailed, "full".to_owned(), 100);
        events.note(&web(), Happening::IpAllocated, "assigned".to_owned(), 150);
        events.note(&web(), Happening::AllocationFailed, "full".to_owned(), 1_700_000_000);
        let objects = events.objects();
        assert_eq!(objects.len(), 2);
        let last = objects.last().unwrap();
        let at = |path: &str| last.pointer(path).unwrap().clone();
        assert_eq!((at("/count"), at("/type"), at("/reason")), (2.into(), "Warning".into(), "AllocationFailed".into()));
        assert_eq!(
            (at("/firstTimestamp"), at("/lastTimestamp")),
            ("1970-01-01T00:01:40Z".into(), "2023-11-14T22:13:20Z".into())
        );
        assert_eq!((at("/involvedObject/name"), at("/source/host")), ("web".into(), "node-a".into()));
        // A later run goes on counting.
        let mut later = Events::new("node-a");
        later.restore(&objects);
        assert_eq!(later.objects(), objects);
        later.note(&web(), Happening::AllocationFailed, "full".to_owned(), 1_700_000_001);
        assert_eq!(later.objects().last().unwrap().pointer("/count").unwrap(), 3);
    }

    #[test]
    fn the_oldest_makes_way() {
        let mut events = Events::new("n");
        for number in 0..1100 {
            events.note(&web(), Happening::IpAllocated, number.to_string(), number);
        }
        let objects = events.objects();
        let messages: Vec<_> = objects.iter().map(|object| object.get("message").unwrap().as_str().unwrap()).collect();
        assert_eq!((messages.len(), messages.first(), messages.last()), (1000, Some(&"100"), Some(&"1099")));
    }
}
