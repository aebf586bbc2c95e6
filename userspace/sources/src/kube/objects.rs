//! All objects of an API server, from one update to the next, and the snapshot of them.
//!
//! An object goes the way of a file that holds one: it is parsed and converted by itself, keeps its last good version where a new
//! one is bad, and is merged by name. A list is taken in as a whole when it is complete: what it lacks is gone then, not sooner.

use std::{
    collections::{BTreeSet, HashMap},
    mem,
    path::Path,
    sync::Arc,
};

use roadstead_model::{Labels, ObjectName, Problem, References, Severity, Snapshot};
use serde_yaml::Value;

use super::{
    feed::{Feed, Purpose},
    fetch::Fetched,
    follow::{News, Update},
    interest::{Detail, Interest, Referrer},
    outbox::Uids,
    standing::Standing,
    wire::Item,
};
use crate::{
    claims::FileId,
    document::Document,
    flags::{Filling, LoadOptions},
    merge::{Change, Merge},
    object::{Kind, Object},
    parse::{ParsedFile, parse_object},
};

/// The label of Services that another proxy serves.
const OTHER_PROXY: &str = "service.kubernetes.io/service-proxy-name";

/// What is known of the server's objects.
pub(crate) struct Objects {
    feeds: Vec<Known>,
    referrer: Option<Referrer>,
    options: LoadOptions,
    merge: Merge,
    changes: Vec<Change>,
    snapshot: Arc<Snapshot>,
    standing: Standing,
    /// A feed was listed, or has trouble that it had not.
    is_news: bool,
    /// What names others, or what there is to be named, may be another.
    is_reference_news: bool,
    detail: Detail,
    /// Kept where something is written.
    uids: Option<Uids>,
    /// What objects without a file stand in.
    nowhere: Arc<Document>,
}

/// What is known by one feed.
struct Known {
    feed: Feed,
    is_listed: bool,
    trouble: Option<String>,
    objects: HashMap<ObjectName, Entry>,
    /// Those of them that something is wrong with.
    ailing: BTreeSet<ObjectName>,
    /// The objects of a list that has begun.
    coming: Option<HashMap<ObjectName, Arrival>>,
    /// Of references: the version of each object that there is.
    versions: HashMap<ObjectName, String>,
    /// Of references: those that are named somewhere.
    wanted: BTreeSet<ObjectName>,
    /// Of references: the version that was asked for last, and what became of that.
    asked: HashMap<ObjectName, (String, Asked)>,
}

/// What became of an object that was asked for.
enum Asked {
    Coming,
    Come,
    /// Why it cannot be had.
    Failed(String),
}

struct Entry {
    file: FileId,
    parsed: Arc<ParsedFile>,
}

enum Arrival {
    Parsed(Arc<ParsedFile>),
    Version(String),
}

/// Something to be done about the objects that are named.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Errand {
    /// Ask for this version of the object.
    Fetch(usize, ObjectName, String),
    /// Nobody needs it any more.
    Forget(usize, ObjectName),
}

impl Objects {
    pub(crate) fn new(feeds: Vec<Feed>, interest: Interest, standing: Standing) -> Self {
        Self {
            feeds: feeds.into_iter().map(Known::new).collect(),
            referrer: interest.references,
            detail: interest.detail,
            uids: interest.author.map(|_| Uids::default()),
            options: LoadOptions { filling: Filling::Server, ..LoadOptions::default() },
            merge: Merge::default(),
            changes: Vec::new(),
            snapshot: Arc::default(),
            standing,
            is_news: true,
            is_reference_news: true,
            nowhere: Arc::new(Document::nowhere()),
        }
    }

    /// The latest snapshot.
    pub(crate) fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// What events name objects by.
    pub(crate) fn uids(&self) -> Uids {
        self.uids.clone().unwrap_or_default()
    }

    /// The feed of an index.
    pub(crate) fn feed(&self, index: usize) -> Option<&Feed> {
        self.feeds.get(index).map(|known| &known.feed)
    }

    /// Takes in one update; [`Objects::merge`] makes a snapshot of all that came.
    pub(crate) fn take(&mut self, update: Update) {
        let Some(known) = self.feeds.get_mut(update.feed) else { return };
        self.is_reference_news |= known.concerns_references(&update.news);
        if let Some(uids) = self.uids.as_ref().filter(|_| Uids::concern(known.feed.kind)) {
            note_uid(uids, known.feed.kind, &update.news);
        }
        match update.news {
            News::Begins => known.coming = Some(HashMap::new()),
            News::Put(item) => {
                let (name, arrival) = known.arrival(item, self.detail, &self.nowhere);
                match &mut known.coming {
                    Some(coming) => drop(coming.insert(name, arrival)),
                    None => known.put(update.feed, name, arrival, &mut self.changes),
                }
            }
            News::Gone(item) => {
                let name = ObjectName::new(&item.namespace, &item.name);
                match &mut known.coming {
                    Some(coming) => drop(coming.remove(&name)),
                    None => known.remove(&name, &mut self.changes),
                }
            }
            News::Listed => {
                known.complete(update.feed, &mut self.changes);
                if let Some(uids) = self.uids.as_ref().filter(|_| Uids::concern(known.feed.kind)) {
                    uids.retain(known.feed.kind, |name| known.objects.contains_key(name));
                }
                self.is_news |= !mem::replace(&mut known.is_listed, true);
            }
            News::Trouble(trouble) => {
                known.trouble = trouble;
                self.is_news = true;
            }
        }
        self.standing.holds(update.feed, known.count());
    }

    /// Takes in an object that was asked for.
    pub(crate) fn take_fetched(&mut self, fetched: Fetched) {
        let Fetched { feed, name, version, outcome } = fetched;
        let Some(known) = self.feeds.get_mut(feed) else { return };
        // Nobody wants it any more, or another version is on its way.
        if known.asked.get(&name).is_none_or(|(asked, _)| *asked != version) {
            return;
        }
        match outcome {
            Ok(item) => {
                known.asked.insert(name.clone(), (version, Asked::Come));
                match item {
                    Some(item) => {
                        let parsed = known.parse(&name, &item.tree, self.detail, &self.nowhere);
                        known.put(feed, name, Arrival::Parsed(parsed), &mut self.changes);
                    }
                    None => known.drop_object(&name, &mut self.changes),
                }
            }
            // What cannot be had does not hold up the rest; the fetcher goes on to ask.
            Err(trouble) => {
                known.asked.insert(name, (version, Asked::Failed(trouble)));
            }
        }
        (self.is_news, self.is_reference_news) = (true, true);
    }

    /// Makes the next snapshot; whether it is another one, and what is to be done about objects that it names.
    pub(crate) fn merge(&mut self) -> (bool, Vec<Errand>) {
        let mut errands = Vec::new();
        let is_news = mem::take(&mut self.is_news) || self.is_reference_news;
        if !is_news && self.changes.is_empty() {
            return (false, errands);
        }
        let last = Arc::clone(&self.snapshot);
        let (mut next, mut changed) = self.merge.update(&mem::take(&mut self.changes), None, &self.options, &last);
        if let (true, Some(referrer)) = (mem::take(&mut self.is_reference_news), &self.referrer) {
            let references = referrer(&next);
            for (index, known) in self.feeds.iter_mut().enumerate() {
                if known.feed.purpose == Purpose::References {
                    known.refer(index, &references, &mut errands, &mut self.changes);
                }
            }
            if !self.changes.is_empty() {
                let (again, more) = self.merge.update(&mem::take(&mut self.changes), None, &self.options, &next);
                (next, changed) = (again, changed || more);
            }
        }
        next.synced = last.synced || self.feeds.iter().all(Known::is_complete);
        next.problems.extend(self.feeds.iter().flat_map(Known::troubles));
        next.problems.extend(self.feeds.iter().flat_map(Known::object_problems).cloned());
        next.problems.sort_by(|one, other| {
            (&one.object, &one.field, &one.reason).cmp(&(&other.object, &other.field, &other.reason))
        });
        changed |= next.synced != last.synced || next.problems != last.problems;
        if changed {
            next.generation = last.generation + 1;
            self.snapshot = Arc::new(next);
        }
        (changed, errands)
    }
}

impl Known {
    fn new(feed: Feed) -> Self {
        Self {
            feed,
            is_listed: false,
            trouble: None,
            objects: HashMap::new(),
            ailing: BTreeSet::new(),
            coming: None,
            versions: HashMap::new(),
            wanted: BTreeSet::new(),
            asked: HashMap::new(),
        }
    }

    fn count(&self) -> usize {
        match self.feed.purpose {
            Purpose::Objects => self.objects.len(),
            Purpose::References => self.versions.len(),
        }
    }

    /// Listed, with all that is named.
    fn is_complete(&self) -> bool {
        let has_come =
            |name: &ObjectName| self.asked.get(name).is_none_or(|(_, asked)| !matches!(asked, Asked::Coming));
        self.is_listed && self.wanted.iter().all(has_come)
    }

    /// What is wrong with the list, and with what was asked for.
    fn troubles(&self) -> impl Iterator<Item = Problem> {
        let failed = self.asked.values().filter_map(|(_, asked)| match asked {
            Asked::Failed(trouble) => Some(trouble),
            Asked::Coming | Asked::Come => None,
        });
        let problem = |reason: &String| Problem {
            severity: Severity::Error,
            place: None,
            object: None,
            field: None,
            reason: reason.clone(),
        };
        self.trouble.iter().chain(failed).map(problem)
    }

    fn object_problems(&self) -> impl Iterator<Item = &Problem> {
        self.ailing.iter().filter_map(|name| self.objects.get(name)).flat_map(|entry| &entry.parsed.problems)
    }

    /// Whether an object came that names others or is named. Most that may be named are not, and some of them change every second.
    fn concerns_references(&self, news: &News) -> bool {
        match (self.feed.purpose, news) {
            (Purpose::References, News::Put(item) | News::Gone(item)) => {
                self.wanted.contains(&ObjectName::new(&item.namespace, &item.name))
            }
            _ => matches!(self.feed.kind, Kind::Ingress | Kind::IngressClass | Kind::ConfigMap | Kind::Secret),
        }
    }

    fn arrival(&self, item: Item, detail: Detail, nowhere: &Arc<Document>) -> (ObjectName, Arrival) {
        let name = ObjectName::new(&item.namespace, &item.name);
        let arrival = match self.feed.purpose {
            Purpose::Objects => Arrival::Parsed(self.parse(&name, &item.tree, detail, nowhere)),
            Purpose::References => Arrival::Version(item.version),
        };
        (name, arrival)
    }

    fn parse(&self, name: &ObjectName, tree: &Value, detail: Detail, nowhere: &Arc<Document>) -> Arc<ParsedFile> {
        let mut parsed = parse_object(self.feed.kind, tree, nowhere);
        if detail != Detail::Shown {
            parsed.objects.iter_mut().for_each(|parsed| trim(&mut parsed.object, detail));
        }
        parsed.objects.shrink_to_fit();
        if let Some(entry) = self.objects.get(name) {
            parsed.keep(&entry.parsed);
            // In a list that comes anew, and where only what is not read here is another.
            if entry.parsed.says_the_same_as(&parsed) {
                return Arc::clone(&entry.parsed);
            }
        }
        Arc::new(parsed)
    }

    fn put(&mut self, index: usize, name: ObjectName, arrival: Arrival, changes: &mut Vec<Change>) {
        let parsed = match arrival {
            Arrival::Parsed(parsed) => parsed,
            Arrival::Version(version) => {
                self.versions.insert(name, version);
                return;
            }
        };
        let file = match self.objects.get(&name) {
            Some(entry) if Arc::ptr_eq(&entry.parsed, &parsed) => return,
            Some(entry) => entry.file.clone(),
            None => FileId { path: index, file: Path::new(&name.to_string()).into() },
        };
        if parsed.problems.is_empty() {
            self.ailing.remove(&name);
        } else {
            self.ailing.insert(name.clone());
        }
        let entry = Entry { file: file.clone(), parsed: Arc::clone(&parsed) };
        let old = self.objects.insert(name, entry).map(|entry| entry.parsed);
        changes.push(Change { file, old, new: Some(parsed) });
    }

    fn remove(&mut self, name: &ObjectName, changes: &mut Vec<Change>) {
        match self.feed.purpose {
            Purpose::Objects => self.drop_object(name, changes),
            // What was fetched goes when what is named is looked at next.
            Purpose::References => drop(self.versions.remove(name)),
        }
    }

    fn drop_object(&mut self, name: &ObjectName, changes: &mut Vec<Change>) {
        let gone = self.objects.remove(name);
        self.ailing.remove(name);
        changes.extend(gone.map(|Entry { file, parsed }| Change { file, old: Some(parsed), new: None }));
    }

    /// Takes in a complete list.
    fn complete(&mut self, index: usize, changes: &mut Vec<Change>) {
        let Some(coming) = self.coming.take() else { return };
        match self.feed.purpose {
            Purpose::Objects => {
                let gone = self.objects.keys().filter(|name| !coming.contains_key(*name));
                for name in gone.cloned().collect::<Vec<_>>() {
                    self.drop_object(&name, changes);
                }
            }
            Purpose::References => self.versions.clear(),
        }
        for (name, arrival) in coming {
            self.put(index, name, arrival, changes);
        }
    }

    /// Looks at what is named now.
    fn refer(&mut self, index: usize, references: &References, errands: &mut Vec<Errand>, changes: &mut Vec<Change>) {
        let named = if self.feed.kind == Kind::Secret { &references.secrets } else { &references.config_maps };
        self.wanted.clone_from(named);
        let unwanted: Vec<ObjectName> = self.asked.keys().filter(|name| !named.contains(*name)).cloned().collect();
        let gone = |name: &&ObjectName| self.is_listed && !self.versions.contains_key(*name);
        let gone: Vec<ObjectName> = self.asked.keys().filter(gone).cloned().collect();
        for name in unwanted.into_iter().chain(gone) {
            if self.asked.remove(&name).is_some() {
                self.drop_object(&name, changes);
                errands.push(Errand::Forget(index, name));
            }
        }
        for name in named {
            let Some(version) = self.versions.get(name) else { continue };
            if self.asked.get(name).is_none_or(|(asked, _)| asked != version) {
                // The object as it was goes on to count until the other has come.
                self.asked.insert(name.clone(), (version.clone(), Asked::Coming));
                errands.push(Errand::Fetch(index, name.clone(), version.clone()));
            }
        }
    }
}

fn note_uid(uids: &Uids, kind: Kind, news: &News) {
    let name = |item: &Item| ObjectName::new(&item.namespace, &item.name);
    match news {
        News::Put(item) => uids.put(kind, name(item), &item.uid),
        News::Gone(item) => uids.remove(kind, name(item)),
        News::Begins | News::Listed | News::Trouble(_) => {}
    }
}

/// Drops what of an object is large and read by nobody where an API server has the rest: a map with one label takes more than
/// the addresses of a slice.
fn trim(object: &mut Object, detail: Detail) {
    match object {
        Object::Slices(slices) => slices.iter_mut().filter_map(Arc::get_mut).for_each(|slice| {
            (slice.meta.labels, slice.meta.annotations) = (Labels::new(), Labels::new());
        }),
        Object::Service(draft) if detail == Detail::Traffic => {
            let Some(service) = Arc::get_mut(draft).and_then(|draft| Arc::get_mut(&mut draft.service)) else { return };
            let labels = mem::take(&mut service.meta.labels);
            service.meta.labels = labels.into_iter().filter(|(key, _)| key == OTHER_PROXY).collect();
            (service.meta.annotations, service.selector) = (Labels::new(), Labels::new());
        }
        _ => {}
    }
}

#[cfg(test)]
#[path = "objects_tests.rs"]
mod tests;
