//! What was read from the manifest paths and the status folder, kept from one reading to the next, and the snapshot of it.

use std::{collections::BTreeSet, io, path::PathBuf, sync::Arc};

use roadstead_model::{Problem, Snapshot};

use crate::{
    claims::FileId,
    entries::{Entries, Look, Reading, unreadable},
    files::{self, Scope},
    flags::LoadOptions,
    merge::{Change, Merge},
    parallel,
    parse::{ParsedFile, Plan, parse_document, plan},
    status::{self, Statuses},
};

/// How many documents, or files to split, a thread takes at once.
const CHUNK: usize = 32;

/// Reads the paths once; each is a directory or a file. Problems are in the snapshot.
#[must_use]
pub fn load(paths: &[PathBuf], options: &LoadOptions) -> Snapshot {
    Arc::unwrap_or_clone(Loaded::read(paths, options).0.snapshot)
}

/// What was read once, with the files behind it, for whoever finds more to say about its objects.
pub struct Loaded(Store);

impl Loaded {
    /// As [`load`].
    #[must_use]
    pub fn read(paths: &[PathBuf], options: &LoadOptions) -> Self {
        let mut store = Store::new(paths.to_vec(), options.clone());
        store.scan(&BTreeSet::new(), Scope::All);
        Self(store)
    }

    /// The objects, and what is wrong with them by themselves.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        &self.0.snapshot
    }

    /// The same problem with its place, where its object stands in a file.
    #[must_use]
    pub fn placed(&self, problem: Problem) -> Problem {
        let field = problem.field.as_deref().unwrap_or_default();
        let found = problem.object.as_ref().and_then(|object| self.0.merge.place(object, field));
        Problem { place: problem.place.or(found), ..problem }
    }
}

/// Everything read so far.
pub(crate) struct Store {
    paths: Vec<PathBuf>,
    status_folder: Option<PathBuf>,
    options: LoadOptions,
    /// Content of each path's files, in the order in which the first of two doubles is found.
    manifests: Vec<Entries<ParsedFile>>,
    statuses: Entries<Statuses>,
    /// Which of the paths were listed at least once: until all were, the snapshot is not synced.
    listed: Vec<bool>,
    /// What was wrong with the listing itself, `None` before the first one.
    troubles: Option<Vec<Problem>>,
    merge: Merge,
    snapshot: Arc<Snapshot>,
}

/// What a reading found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// The snapshot is a new one.
    pub(crate) changed: bool,
    /// Files that may have changed since, or wait for their writer: read them again soon.
    pub(crate) unsettled: BTreeSet<PathBuf>,
}

impl Store {
    pub(crate) fn new(paths: Vec<PathBuf>, options: LoadOptions) -> Self {
        Self {
            manifests: paths.iter().map(|_| Entries::default()).collect(),
            status_folder: options.state_dir.as_ref().map(|folder| folder.join(status::FOLDER)),
            listed: vec![false; paths.len()],
            troubles: None,
            merge: Merge::default(),
            paths,
            options,
            statuses: Entries::default(),
            snapshot: Arc::default(),
        }
    }

    /// The latest snapshot.
    pub(crate) fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// Reads what changed of the files in scope, leaving out the files that somebody is writing.
    pub(crate) fn scan(&mut self, busy: &BTreeSet<PathBuf>, scope: Scope<'_>) -> Outcome {
        let mut scan =
            Scan { busy, scope, changes: Vec::new(), problems: Vec::new(), unsettled: BTreeSet::new(), changed: false };
        for index in 0..self.paths.len() {
            self.manifests(index, &mut scan);
        }
        let statuses = self.statuses(&mut scan);
        let Scan { changes, problems, unsettled, .. } = scan;
        let changed = scan.changed || statuses.is_some() || self.troubles.as_ref() != Some(&problems);
        self.troubles = Some(problems);
        Outcome { changed: changed && self.rebuild(&changes, statuses), unsettled }
    }

    fn manifests(&mut self, index: usize, scan: &mut Scan<'_>) {
        let (earlier, rest) = self.manifests.split_at_mut(index);
        let (Some(path), Some(entries), Some(listed)) =
            (self.paths.get(index), rest.first_mut(), self.listed.get_mut(index))
        else {
            return;
        };
        match files::list(path, scan.scope) {
            Ok(mut listing) => {
                // A path given twice, or a file beside its directory, is one place and no double.
                listing.retain(|path, _| !earlier.iter().any(|entries| entries.holds(path)));
                let first = !std::mem::replace(listed, true);
                let look = Look { scope: scan.scope, busy: scan.busy, first };
                let seen = entries.refresh(listing, &look, read_manifests, &mut scan.unsettled);
                scan.changed |= seen.changed || first;
                scan.changes.extend(seen.replaced.into_iter().map(|replaced| Change {
                    file: FileId { path: index, file: replaced.file },
                    old: replaced.old,
                    new: replaced.new,
                }));
            }
            // The directory is gone or forbidden: nothing of what it held is withdrawn.
            Err(error) => scan.problems.push(unreadable(path, &error)),
        }
    }

    /// What all status files say, where that may be something else now.
    fn statuses(&mut self, scan: &mut Scan<'_>) -> Option<Statuses> {
        let folder = self.status_folder.as_ref()?;
        match files::list(folder, scan.scope) {
            Ok(listing) => {
                let look = Look { scope: scan.scope, busy: scan.busy, first: self.troubles.is_none() };
                let seen = self.statuses.refresh(listing, &look, read_statuses, &mut scan.unsettled);
                scan.changed |= seen.changed;
                if seen.replaced.is_empty() {
                    return None;
                }
                let mut statuses = Statuses::default();
                self.statuses.values().for_each(|entry| statuses.extend(&entry.parsed));
                return Some(statuses);
            }
            // Before the first allocation there is no status.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => scan.problems.push(unreadable(folder, &error)),
        }
        None
    }

    fn rebuild(&mut self, changes: &[Change], statuses: Option<Statuses>) -> bool {
        let last = &self.snapshot;
        let (mut next, changed) = self.merge.update(changes, statuses, &self.options, last);
        next.synced = self.listed.iter().all(|listed| *listed);
        next.problems.extend(self.troubles.iter().flatten().cloned());
        next.problems.extend(self.statuses.values().filter_map(|entry| entry.trouble.clone()));
        for entry in self.manifests.iter().flat_map(Entries::values) {
            next.problems.extend(entry.trouble.clone());
            next.problems.extend(entry.parsed.problems.iter().cloned());
        }
        next.problems.sort_by(|one, other| one.place.cmp(&other.place));
        let changed = changed || next.synced != last.synced || next.problems != last.problems;
        if changed {
            next.generation += 1;
            self.snapshot = Arc::new(next);
        }
        changed
    }
}

/// One look at the files on its way.
struct Scan<'a> {
    busy: &'a BTreeSet<PathBuf>,
    scope: Scope<'a>,
    changes: Vec<Change>,
    /// What is wrong with the listing itself.
    problems: Vec<Problem>,
    unsettled: BTreeSet<PathBuf>,
    changed: bool,
}

/// Parses manifests, all that is new in them at once; what a file no longer gives in a good version stays in its last good one.
fn read_manifests(readings: &[Reading<ParsedFile>]) -> Vec<Result<ParsedFile, Box<Problem>>> {
    let plans =
        parallel::map(readings, CHUNK, |reading| plan(&reading.file, &reading.content, reading.last.as_deref()));
    let fresh: Vec<_> = plans.iter().flat_map(Plan::fresh).cloned().collect();
    let mut parsed = parallel::map(&fresh, CHUNK, parse_document).into_iter();
    let finish = |(plan, reading): (Plan, &Reading<ParsedFile>)| {
        let mut file = plan.finish(&mut parsed);
        reading.last.iter().for_each(|last| file.keep(last));
        Ok(file)
    };
    plans.into_iter().zip(readings).map(finish).collect()
}

fn read_statuses(readings: &[Reading<Statuses>]) -> Vec<Result<Statuses, Box<Problem>>> {
    readings.iter().map(|reading| Statuses::read(&reading.file, &reading.content)).collect()
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
