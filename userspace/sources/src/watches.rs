//! Which folders are watched for the source, and which events are worth a reading.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::SystemTime,
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode},
};

/// Opening and reading are events too, our own among them: only what may have changed something wakes the reader.
pub(crate) fn wakes(event: &notify::Result<Event>) -> bool {
    let read = |kind| matches!(kind, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write));
    !event.as_ref().is_ok_and(|event| read(event.kind))
}

/// Device, inode and time of creation, where the file system tells that: a number may be given to the next folder at once.
type Identity = (u64, u64, Option<SystemTime>);

/// What became of the watches.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Renewed {
    /// Every folder is watched.
    pub(crate) complete: bool,
    /// A folder that is there was not watched until now, or still is not: events from it are missing.
    pub(crate) missed: bool,
}

/// Which folders are watched; those that are not there yet are tried again.
pub(crate) struct Watches {
    watcher: RecommendedWatcher,
    folders: Vec<PathBuf>,
    /// Folder and what is watched: a folder made anew under the old name needs a new watch.
    watched: BTreeMap<PathBuf, Identity>,
}

impl Watches {
    pub(crate) fn new(watcher: RecommendedWatcher, folders: Vec<PathBuf>) -> Self {
        Self { watcher, folders, watched: BTreeMap::new() }
    }

    /// Takes note that a path went: with a watched folder goes its watch, even if the next one looks the same.
    pub(crate) fn forget(&mut self, path: &Path) {
        self.watched.remove(path);
    }

    /// Watches what is not watched yet, and tells what that was.
    pub(crate) fn renew(&mut self) -> Renewed {
        use std::os::unix::fs::MetadataExt;
        let mut renewed = Renewed { complete: true, missed: false };
        for folder in &self.folders {
            let found = std::fs::metadata(folder).ok();
            let found = found.map(|metadata| (metadata.dev(), metadata.ino(), metadata.created().ok()));
            if found.is_some() && found == self.watched.get(folder).copied() {
                continue;
            }
            self.watched.remove(folder);
            // Where there was a watch, it went with the folder; that this fails says no more.
            let _ = self.watcher.unwatch(folder);
            renewed.missed |= found.is_some();
            let added = found.map(|_| self.watcher.watch(folder, RecursiveMode::NonRecursive));
            match (added, found) {
                (Some(Ok(())), Some(found)) => {
                    self.watched.insert(folder.clone(), found);
                }
                (Some(Err(error)), _) => {
                    tracing::debug!(folder = %folder.display(), %error, "cannot watch");
                    renewed.complete = false;
                }
                _ => renewed.complete = false,
            }
        }
        renewed
    }

    /// Whether the path is one that is watched, and not a file in it.
    pub(crate) fn is_folder(&self, path: &Path) -> bool {
        self.folders.iter().any(|folder| folder == path)
    }

    /// The path as the listing has it: events come with absolute ones.
    pub(crate) fn as_given(&self, path: PathBuf) -> PathBuf {
        for folder in &self.folders {
            let Ok(absolute) = std::path::absolute(folder) else { continue };
            if absolute == path {
                return folder.clone();
            }
            if let Some(name) = path.file_name().filter(|_| Some(absolute.as_path()) == path.parent()) {
                return folder.join(name);
            }
        }
        path
    }
}
