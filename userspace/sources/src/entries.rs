//! The files of one path as last read: only what changed is read again, and what cannot be read now stays as it was.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use roadstead_model::{Place, Problem, Severity};

use crate::{
    files::{self, Listing, Scope, Stamp},
    parallel,
};

/// A file younger than this is read again even where its stamp is the same.
const RACY_MILLISECONDS: i128 = 100;
/// A known file that changed more recently than this waits: the event that says who writes it may not be here yet.
const FRESH_MILLISECONDS: i128 = 10;
/// How many files a thread takes at once.
const CHUNK: usize = 32;

/// Files by path.
pub(crate) struct Entries<T>(BTreeMap<OsString, Entry<T>>);

/// One file as last read.
pub(crate) struct Entry<T> {
    /// The same `Arc` as long as the file is there.
    file: Arc<Path>,
    stamp: Option<Stamp>,
    content: Vec<u8>,
    pub(crate) parsed: Arc<T>,
    /// Why the file cannot be read now, while `parsed` is what it last held.
    pub(crate) trouble: Option<Problem>,
}

/// A file's content to make something of, and what was made of the one before.
pub(crate) struct Reading<T> {
    pub(crate) file: Arc<Path>,
    pub(crate) content: Vec<u8>,
    pub(crate) last: Option<Arc<T>>,
    stamp: Stamp,
    /// The content is the known one; whether something is wrong with it is to be found out again.
    again: bool,
}

/// Makes something of contents, in their order.
pub(crate) type ReadFiles<T> = fn(&[Reading<T>]) -> Vec<Result<T, Box<Problem>>>;

/// A file that is another one now.
pub(crate) struct Replaced<T> {
    pub(crate) file: Arc<Path>,
    pub(crate) old: Option<Arc<T>>,
    pub(crate) new: Option<Arc<T>>,
}

/// What bringing entries up to a listing found.
pub(crate) struct Refreshed<T> {
    pub(crate) replaced: Vec<Replaced<T>>,
    /// Something that can be told changed, be it only a trouble.
    pub(crate) changed: bool,
}

/// Which files to look at.
pub(crate) struct Look<'a> {
    pub(crate) scope: Scope<'a>,
    /// Files that somebody is writing: they are left as they were, and out while they are new.
    pub(crate) busy: &'a BTreeSet<PathBuf>,
    /// The first look takes all, for there is nothing to keep.
    pub(crate) first: bool,
}

impl<T> Default for Entries<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T: Default + Send + Sync> Entries<T> {
    pub(crate) fn values(&self) -> impl Iterator<Item = &Entry<T>> {
        self.0.values()
    }

    pub(crate) fn holds(&self, path: &OsString) -> bool {
        self.0.contains_key(path)
    }

    /// Brings the entries up to the listing of the files in scope; notes those that are to be looked at again soon.
    pub(crate) fn refresh(
        &mut self,
        listing: Listing,
        look: &Look<'_>,
        read: ReadFiles<T>,
        unsettled: &mut BTreeSet<PathBuf>,
    ) -> Refreshed<T> {
        let mut seen = Refreshed { replaced: Vec::new(), changed: false };
        self.0.retain(|path, entry| {
            let stays = listing.contains_key(path) || !look.scope.contains(Path::new(path));
            if !stays {
                let (file, old) = (Arc::clone(&entry.file), Some(Arc::clone(&entry.parsed)));
                seen.replaced.push(Replaced { file, old, new: None });
            }
            stays
        });
        let mut wanted = Vec::new();
        for (path, stamp) in listing {
            match stamp {
                Ok(stamp) if self.wants(&path, stamp, look, unsettled) => wanted.push((path, stamp)),
                _ if look.is_busy(&path) => {
                    unsettled.insert(path.into());
                }
                Ok(_) => {}
                Err(error) => self.fail(path, &error, &mut seen),
            }
        }
        let contents = parallel::map(&wanted, CHUNK, |(path, _)| files::read(Path::new(path)));
        let mut readings = Vec::new();
        for ((path, stamp), content) in wanted.into_iter().zip(contents) {
            match content {
                Ok(content) => readings.extend(self.reading(path, stamp, content)),
                Err(error) => self.fail(path, &error, &mut seen),
            }
        }
        let parsed = read(&readings);
        for (reading, parsed) in readings.into_iter().zip(parsed) {
            self.take(reading, parsed, &mut seen);
        }
        seen.changed |= !seen.replaced.is_empty();
        seen
    }

    /// Whether the file is to be read.
    fn wants(&self, path: &OsString, stamp: Stamp, look: &Look<'_>, unsettled: &mut BTreeSet<PathBuf>) -> bool {
        if look.is_busy(path) {
            return false;
        }
        let racy = stamp.is_younger_than(RACY_MILLISECONDS);
        if racy {
            unsettled.insert(path.into());
        }
        if !look.first && stamp.is_younger_than(FRESH_MILLISECONDS) {
            return false;
        }
        let same = |entry: &Entry<T>| entry.stamp == Some(stamp) && entry.trouble.is_none();
        racy || !self.0.get(path).is_some_and(same)
    }

    fn fail(&mut self, path: OsString, error: &io::Error, seen: &mut Refreshed<T>) {
        let trouble = Some(unreadable(Path::new(&path), error));
        let entry = self.0.entry(path).or_insert_with_key(|path| Entry {
            file: Arc::from(Path::new(path)),
            stamp: None,
            content: Vec::new(),
            parsed: Arc::default(),
            trouble: None,
        });
        seen.changed |= entry.trouble != trouble;
        entry.trouble = trouble;
    }

    /// What is to be made of the content, where that is not known already.
    fn reading(&mut self, path: OsString, stamp: Stamp, content: Vec<u8>) -> Option<Reading<T>> {
        let Some(entry) = self.0.get_mut(&path) else {
            return Some(Reading { file: Arc::from(PathBuf::from(path)), content, last: None, stamp, again: false });
        };
        let same = entry.stamp.is_some() && entry.content == content;
        if same {
            entry.stamp = Some(stamp);
            entry.trouble.as_ref()?;
        }
        let last = Some(Arc::clone(&entry.parsed));
        Some(Reading { file: Arc::clone(&entry.file), content, last, stamp, again: same })
    }

    fn take(&mut self, reading: Reading<T>, parsed: Result<T, Box<Problem>>, seen: &mut Refreshed<T>) {
        let Reading { file, content, last, stamp, again } = reading;
        let path = file.as_os_str().to_owned();
        if again {
            // A problem that the content itself has stays; one of access is over.
            if let Some(entry) = self.0.get_mut(&path).filter(|_| parsed.is_ok()) {
                entry.trouble = None;
                seen.changed = true;
            }
            return;
        }
        let (parsed, trouble) = match parsed {
            Ok(parsed) => (Arc::new(parsed), None),
            Err(problem) => (last.clone().unwrap_or_default(), Some(*problem)),
        };
        seen.replaced.push(Replaced { file: Arc::clone(&file), old: last, new: Some(Arc::clone(&parsed)) });
        self.0.insert(path, Entry { file, stamp: Some(stamp), content, parsed, trouble });
    }
}

impl Look<'_> {
    fn is_busy(&self, path: &OsString) -> bool {
        !self.first && !self.busy.is_empty() && self.busy.contains(Path::new(path))
    }
}

/// The problem of a file or folder that cannot be read.
pub(crate) fn unreadable(path: &Path, error: &io::Error) -> Problem {
    Problem {
        severity: Severity::Error,
        place: Some(Place { file: path.to_owned(), line: 1 }),
        object: None,
        field: None,
        reason: format!("cannot be read: {error}"),
    }
}
