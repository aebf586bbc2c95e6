//! Kubernetes' events about Ingresses and what they name: what is wrong with them, and `Sync`, as ingress-nginx has it, when
//! one was taken.
//!
//! It stands behind `control`, which finds things, and in front of the status writer. Of several proxies the one that leads
//! tells. Files and API server get the same objects; how fast these go to a server is the writer's matter.

mod complaints;

use std::collections::{BTreeMap, BTreeSet};

use roadstead_model::{ObjectName, ObjectRef, Snapshot};
use roadstead_sources::{Events, Gravity};
use serde_json::Value;

pub(crate) use complaints::{Complaint, Findings, Step};

/// Whoever is wrong for so short a time, in seconds, was only first: objects of one file do not come at once.
const GRACE: i64 = 2;
/// What goes on to be wrong is told again after this long: a server forgets events after an hour.
const AGAIN: i64 = 30 * 60;
/// What was taken while nobody led is told by who leads within this time, which is longer than a Lease.
const MISSED: i64 = 30;

/// What of a snapshot is to be told.
#[derive(Debug, Default)]
pub struct News {
    /// What is wrong now.
    pub(crate) complaints: BTreeSet<Complaint>,
    /// Ingresses that were taken, or changed, since the last time.
    pub(crate) taken: BTreeSet<ObjectName>,
}

/// What was and is to be told.
#[derive(Debug)]
pub(crate) struct Told {
    events: Events,
    wrong: BTreeMap<Complaint, Standing>,
    /// When Ingresses were taken, until that is told.
    taken: BTreeMap<ObjectName, i64>,
}

/// Since when something is wrong, and when that was told last by this process, in seconds since the epoch.
#[derive(Debug)]
struct Standing {
    since: i64,
    told: Option<i64>,
}

impl Told {
    /// Goes on from what an earlier run wrote into a file, of which no more than `most` are kept; a server keeps them itself.
    pub(crate) fn new(node: &str, earlier: &[Value], most: Option<usize>) -> Self {
        let events = Events::new("roadstead-ingress", node);
        let mut events = match most {
            Some(most) => events.at_most(most),
            None => events,
        };
        events.restore(earlier);
        Self { events, wrong: BTreeMap::new(), taken: BTreeMap::new() }
    }

    /// Takes what a complete snapshot has brought; `now` is in seconds since the epoch.
    pub(crate) fn take(&mut self, news: News, snapshot: &Snapshot, now: i64) {
        self.wrong.retain(|complaint, _| news.complaints.contains(complaint));
        for complaint in news.complaints {
            self.wrong.entry(complaint).or_insert(Standing { since: now, told: None });
        }
        self.taken.extend(news.taken.into_iter().map(|name| (name, now)));
        self.taken.retain(|name, _| snapshot.ingresses.contains_key(name));
        self.events.retain(|about| match about.kind.as_str() {
            "Ingress" => snapshot.ingresses.contains_key(&about.name),
            "Secret" => snapshot.secrets.contains_key(&about.name),
            _ => true,
        });
    }

    /// Notes what is due. True where something was.
    pub(crate) fn tell(&mut self, now: i64) -> bool {
        let mut is_new = !self.taken.is_empty();
        for (name, _) in std::mem::take(&mut self.taken) {
            let about = ObjectRef { kind: "Ingress".to_owned(), name };
            self.events.note(about, Gravity::Normal, "Sync", "The configuration was taken".to_owned(), now);
        }
        for (complaint, standing) in &mut self.wrong {
            let is_due = standing.told.is_none_or(|told| now >= told + AGAIN);
            if is_due && now >= standing.since + GRACE {
                standing.told = Some(now);
                let Complaint { about, reason, message } = complaint.clone();
                self.events.note(about, Gravity::Warning, reason, message, now);
                is_new = true;
            }
        }
        is_new
    }

    /// Another tells; if that ends, what is wrong then is told anew.
    pub(crate) fn wait(&mut self, now: i64) {
        self.taken.retain(|_, at| now < *at + MISSED);
        self.wrong.values_mut().for_each(|standing| standing.told = None);
    }

    /// The events as objects.
    pub(crate) fn objects(&self) -> Vec<Value> {
        self.events.objects()
    }
}

#[cfg(test)]
mod tests;
