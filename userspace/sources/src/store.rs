//! What was read from the manifest paths and the status folder, kept from one reading to the next: only what changed is
//! parsed again, and what cannot be read now stays as it was.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use roadstead_model::{Place, Problem, Severity, Snapshot};

use crate::{
    files::{self, Stamp},
    flags::LoadOptions,
    merge,
    parse::{ParsedFile, parse},
    status::{self, Statuses},
};

/// A file younger than this is read again even where its stamp is the same.
const RACY_MILLISECONDS: i128 = 100;
/// A known file that changed more recently than this waits: the event that says who writes it may not be here yet.
const FRESH_MILLISECONDS: i128 = 10;

/// Reads the paths once; each is a directory or a file. Problems are in the snapshot.
#[must_use]
pub fn load(paths: &[PathBuf], options: &LoadOptions) -> Snapshot {
    let mut store = Store::new(paths.to_vec(), options.clone());
    store.scan(&BTreeSet::new());
    Arc::unwrap_or_clone(store.snapshot)
}

/// Everything read so far.
pub(crate) struct Store {
    paths: Vec<PathBuf>,
    status_folder: Option<PathBuf>,
    options: LoadOptions,
    /// Content of each path's files, in the order in which the first of two doubles is found.
    manifests: Vec<BTreeMap<PathBuf, Entry<ParsedFile>>>,
    statuses: BTreeMap<PathBuf, Entry<Statuses>>,
    /// Which of the paths were listed at least once: until all were, the snapshot is not synced.
    listed: Vec<bool>,
    /// What was wrong with the listing itself, `None` before the first one.
    troubles: Option<Vec<Problem>>,
    holders: merge::Holders,
    snapshot: Arc<Snapshot>,
}

/// One file as last read.
struct Entry<T> {
    stamp: Option<Stamp>,
    content: Vec<u8>,
    parsed: Arc<T>,
    /// Why the file cannot be read now, while `parsed` is what it last held.
    trouble: Option<Problem>,
}

/// Makes something of a file's path and content, and of what it made of the file before.
type ReadFile<T> = fn(&Path, &[u8], Option<&T>) -> Result<T, Box<Problem>>;

/// What a reading found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// The snapshot is a new one.
    pub(crate) changed: bool,
    /// Files may have changed since, or wait for their writer: read again soon.
    pub(crate) unsettled: bool,
}

impl Store {
    pub(crate) fn new(paths: Vec<PathBuf>, options: LoadOptions) -> Self {
        Self {
            manifests: paths.iter().map(|_| BTreeMap::new()).collect(),
            status_folder: options.state_dir.as_ref().map(|folder| folder.join(status::FOLDER)),
            listed: vec![false; paths.len()],
            troubles: None,
            holders: merge::Holders::new(),
            paths,
            options,
            statuses: BTreeMap::new(),
            snapshot: Arc::default(),
        }
    }

    /// The latest snapshot.
    pub(crate) fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// Reads what changed, leaving out the files that somebody is writing.
    pub(crate) fn scan(&mut self, busy: &BTreeSet<PathBuf>) -> Outcome {
        let mut problems = Vec::new();
        let mut seen = Refreshed::default();
        for ((path, entries), listed) in self.paths.iter().zip(&mut self.manifests).zip(&mut self.listed) {
            match files::list(path) {
                Ok(listing) => {
                    let first = !std::mem::replace(listed, true);
                    seen.changed |= first;
                    seen.add(refresh(entries, listing, busy, first, read_manifest));
                }
                // The directory is gone or forbidden: nothing of what it held is withdrawn.
                Err(error) => problems.push(unreadable(path, &error)),
            }
        }
        if let Some(folder) = &self.status_folder {
            match files::list(folder) {
                Ok(listing) => {
                    let first = self.troubles.is_none();
                    seen.add(refresh(&mut self.statuses, listing, busy, first, read_status));
                }
                // Before the first allocation there is no status.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => problems.push(unreadable(folder, &error)),
            }
        }
        let changed = seen.changed || self.troubles.as_ref() != Some(&problems);
        self.troubles = Some(problems.clone());
        Outcome { changed: changed && self.rebuild(problems), unsettled: seen.unsettled }
    }

    fn rebuild(&mut self, mut problems: Vec<Problem>) -> bool {
        let mut statuses = Statuses::default();
        for entry in self.statuses.values() {
            statuses.extend(&entry.parsed);
            problems.extend(entry.trouble.clone());
        }
        // A path given twice, or a file beside its directory, is one place and no double.
        let mut seen = BTreeSet::new();
        let mut read = Vec::new();
        for (path, entry) in self.manifests.iter().flatten() {
            if seen.insert(path) {
                problems.extend(entry.trouble.clone());
                problems.extend(entry.parsed.problems.iter().cloned());
                read.push(Arc::clone(&entry.parsed));
            }
        }
        let objects = read.iter().flat_map(|file| &file.objects);
        let mut next = merge::merge(objects, &statuses, &self.options, &self.snapshot, &mut self.holders);
        next.synced = self.listed.iter().all(|listed| *listed);
        next.problems.extend(problems);
        next.problems.sort_by(|one, other| one.place.cmp(&other.place));
        let changed = !merge::is_same(&next, &self.snapshot);
        if changed {
            next.generation += 1;
            self.snapshot = Arc::new(next);
        }
        changed
    }
}

/// What bringing entries up to a listing found.
#[derive(Clone, Copy, Default)]
struct Refreshed {
    changed: bool,
    /// A file is to be looked at again soon.
    unsettled: bool,
}

impl Refreshed {
    fn add(&mut self, other: Self) {
        self.changed |= other.changed;
        self.unsettled |= other.unsettled;
    }
}

/// Brings the entries up to the listing. A file that somebody writes is left as it was, and out while it is new; only the
/// first reading takes all, for then there is nothing to keep.
fn refresh<T: Default>(
    entries: &mut BTreeMap<PathBuf, Entry<T>>,
    listing: files::Listing,
    busy: &BTreeSet<PathBuf>,
    first: bool,
    read: ReadFile<T>,
) -> Refreshed {
    let before = entries.len();
    entries.retain(|path, _| listing.contains_key(path));
    let mut seen = Refreshed { changed: entries.len() != before, unsettled: false };
    for (path, stamp) in listing {
        let known = entries.get(&path);
        if !first && busy.contains(&path) {
            seen.unsettled = true;
            continue;
        }
        let content = stamp.and_then(|stamp| {
            let racy = stamp.is_younger_than(RACY_MILLISECONDS);
            seen.unsettled |= racy;
            if !first && stamp.is_younger_than(FRESH_MILLISECONDS) {
                return Ok((stamp, None));
            }
            let same = known.is_some_and(|entry| entry.stamp == Some(stamp) && entry.trouble.is_none());
            Ok((stamp, if same && !racy { None } else { Some(files::read(&path)?) }))
        });
        match content {
            Ok((_, None)) => {}
            Ok((stamp, Some(content))) => seen.changed |= update(entries, path, stamp, content, read),
            Err(error) => {
                let trouble = Some(unreadable(&path, &error));
                let fresh = || Entry { stamp: None, content: Vec::new(), parsed: Arc::default(), trouble: None };
                let entry = entries.entry(path).or_insert_with(fresh);
                seen.changed |= entry.trouble != trouble;
                entry.trouble = trouble;
            }
        }
    }
    seen
}

/// Takes in a file's content; true where that says something new.
fn update<T: Default>(
    entries: &mut BTreeMap<PathBuf, Entry<T>>,
    path: PathBuf,
    stamp: Stamp,
    content: Vec<u8>,
    read: ReadFile<T>,
) -> bool {
    let known = entries.get_mut(&path);
    if let Some(entry) = known
        && entry.stamp.is_some()
        && entry.content == content
    {
        // A problem that the content itself has stays; one of access is over.
        if entry.trouble.is_some() && read(&path, &content, Some(&entry.parsed)).is_ok() {
            entry.trouble = None;
            entry.stamp = Some(stamp);
            return true;
        }
        entry.stamp = Some(stamp);
        return false;
    }
    let last = entries.get(&path).map(|entry| Arc::clone(&entry.parsed));
    let (parsed, trouble) = match read(&path, &content, last.as_deref()) {
        Ok(parsed) => (Arc::new(parsed), None),
        Err(problem) => (last.unwrap_or_default(), Some(*problem)),
    };
    entries.insert(path, Entry { stamp: Some(stamp), content, parsed, trouble });
    true
}

/// Parses a manifest; what it no longer gives in a good version stays in its last good one.
fn read_manifest(path: &Path, content: &[u8], last: Option<&ParsedFile>) -> Result<ParsedFile, Box<Problem>> {
    let mut parsed = parse(&Arc::from(path), content);
    let known: BTreeSet<_> = parsed.objects.iter().map(|object| object.key.clone()).collect();
    for old in last.iter().flat_map(|last| &last.objects) {
        if !known.contains(&old.key) && (parsed.unreadable || parsed.broken.contains(&old.key)) {
            parsed.objects.push(old.clone());
        }
    }
    Ok(parsed)
}

fn read_status(path: &Path, content: &[u8], _: Option<&Statuses>) -> Result<Statuses, Box<Problem>> {
    Statuses::read(path, content)
}

fn unreadable(path: &Path, error: &io::Error) -> Problem {
    Problem {
        severity: Severity::Error,
        place: Some(Place { file: path.to_owned(), line: 1 }),
        object: None,
        field: None,
        reason: format!("cannot be read: {error}"),
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
