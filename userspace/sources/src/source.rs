//! The watched source: a thread that reads when files change and hands out snapshots.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use notify::{
    Event, EventKind,
    event::{AccessKind, AccessMode, ModifyKind},
};
use roadstead_model::{Problem, Severity, Snapshot};
use tokio::sync::watch;

use crate::{
    files::{Scope, names_manifest},
    flags::SourceFlags,
    status,
    store::Store,
    watches::{Watches, wakes},
};

/// A burst of events ends when nothing came for this long,
const QUIET: Duration = Duration::from_millis(10);
/// or when it has lasted this long.
const BURST: Duration = Duration::from_millis(100);
/// How long a file that somebody writes is left alone, counted from the last write.
const WRITER: Duration = Duration::from_secs(2);
/// How soon an unsettled directory is read again.
const SETTLE: Duration = Duration::from_millis(20);
/// Watches miss what lies behind links and on network file systems; looking costs a `stat` a file.
const PATROL: Duration = Duration::from_secs(5);
/// How soon a folder that could not be watched is tried again.
const RETRY: Duration = Duration::from_millis(250);

/// Why a source could not start.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// No directory was given.
    #[error("no source of desired state, give --manifests DIR")]
    NoSource,
    /// `--service-cidr` names a family twice.
    #[error("--service-cidr takes one range of each family, {0} is the second of its own")]
    ServiceCidr(ipnet::IpNet),
    /// The watcher could not be set up.
    #[error("cannot watch files")]
    Watch(#[source] notify::Error),
    /// The thread could not be started.
    #[error("cannot start the reader's thread")]
    Thread(#[source] io::Error),
}

/// A running source; dropping it ends the watching too.
#[derive(Debug)]
pub struct Source {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    signals: SyncSender<Signal>,
    thread: Option<JoinHandle<()>>,
    /// How often the reader has looked.
    #[cfg(test)]
    readings: Arc<std::sync::atomic::AtomicUsize>,
}

enum Signal {
    Changed(notify::Result<Event>),
    Stop,
}

/// Reads the manifests and watches them from then on; when this returns, the first snapshot is there.
///
/// # Errors
/// When the flags name no source or files cannot be watched. A directory that cannot be read is no error: it may come,
/// and until then it is a problem of the snapshot.
pub fn start(flags: &SourceFlags) -> Result<Source, SourceError> {
    if flags.manifests.is_empty() {
        return Err(SourceError::NoSource);
    }
    let mut families = HashSet::new();
    if let Some(second) = flags.service_cidrs.iter().find(|cidr| !families.insert(cidr.addr().is_ipv4())) {
        return Err(SourceError::ServiceCidr(*second));
    }
    // Events only wake the reader: when the queue is full, one is on its way already.
    let (signals, incoming) = sync_channel(4096);
    let events = signals.clone();
    let watcher = notify::recommended_watcher(move |event| {
        if wakes(&event) {
            let _ = events.try_send(Signal::Changed(event));
        }
    })
    .map_err(SourceError::Watch)?;
    let mut folders: Vec<PathBuf> = flags.manifests.clone();
    folders.push(flags.state_dir.join(status::FOLDER));
    let mut watches = Watches::new(watcher, folders);
    // Before the first reading, so that no change falls between the two.
    watches.renew();
    let mut store = Store::new(flags.manifests.clone(), flags.options());
    let unsettled = store.scan(&BTreeSet::new(), Scope::All).unsettled;
    let mut told = Told::default();
    told.tell(store.snapshot());
    let (sender, snapshots) = watch::channel(Arc::clone(store.snapshot()));
    #[cfg(test)]
    let readings = Arc::<std::sync::atomic::AtomicUsize>::default();
    let reader = Reader {
        store,
        watches,
        writers: BTreeMap::new(),
        touched: unsettled,
        whole: false,
        patrolled: Instant::now(),
        told,
        sender,
        #[cfg(test)]
        readings: Arc::clone(&readings),
    };
    let thread = std::thread::Builder::new().name("manifests".to_owned()).spawn(move || reader.run(&incoming));
    let thread = Some(thread.map_err(SourceError::Thread)?);
    Ok(Source {
        snapshots,
        signals,
        thread,
        #[cfg(test)]
        readings,
    })
}

impl Source {
    /// Snapshots as they come; the current one is there at once.
    #[must_use]
    pub fn snapshots(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshots.clone()
    }

    /// Ends the watching; receivers keep the last snapshot.
    pub async fn stop(mut self) {
        let Some(thread) = self.thread.take() else { return };
        let signals = self.signals.clone();
        // Both may wait for the reader, which may be reading.
        let joined = tokio::task::spawn_blocking(move || {
            let _ = signals.send(Signal::Stop);
            thread.join()
        });
        if !matches!(joined.await, Ok(Ok(()))) {
            tracing::error!("the reader of manifests ended in a panic");
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        // After `stop` nobody listens; otherwise the thread ends by itself, now or with the events it still has.
        let _ = self.signals.try_send(Signal::Stop);
    }
}

/// Reads and hands out, on a thread of its own: reading blocks.
struct Reader {
    store: Store,
    watches: Watches,
    /// Files that were written to and not closed since, with the time of the last write.
    writers: BTreeMap<PathBuf, Instant>,
    /// Files to look at next, because of an event or because they had not settled.
    touched: BTreeSet<PathBuf>,
    /// Everything is to be looked at next.
    whole: bool,
    /// When everything was looked at last.
    patrolled: Instant,
    told: Told,
    sender: watch::Sender<Arc<Snapshot>>,
    #[cfg(test)]
    readings: Arc<std::sync::atomic::AtomicUsize>,
}

impl Reader {
    fn run(mut self, incoming: &Receiver<Signal>) {
        let mut wait = SETTLE;
        loop {
            match incoming.recv_timeout(wait) {
                Ok(Signal::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(Signal::Changed(event)) => {
                    self.note(event);
                    if !self.gather(incoming) {
                        return;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            wait = self.read();
        }
    }

    /// Takes in what follows the first event of a burst; false when the source is to end.
    fn gather(&mut self, incoming: &Receiver<Signal>) -> bool {
        let end = Instant::now() + BURST;
        loop {
            let left = end.saturating_duration_since(Instant::now()).min(QUIET);
            if left.is_zero() {
                return true;
            }
            match incoming.recv_timeout(left) {
                Ok(Signal::Changed(event)) => self.note(event),
                Ok(Signal::Stop) | Err(RecvTimeoutError::Disconnected) => return false,
                Err(RecvTimeoutError::Timeout) => return true,
            }
        }
    }

    /// Keeps book of who writes: a file is left alone from a write until it is closed or replaced.
    fn note(&mut self, event: notify::Result<Event>) {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                tracing::debug!(%error, "watching failed");
                self.whole = true;
                return;
            }
        };
        self.whole |= event.need_rescan() || event.paths.is_empty();
        for path in event.paths {
            let path = self.watches.as_given(path);
            if !names_manifest(&path) || self.watches.is_folder(&path) {
                self.whole |= self.watches.is_folder(&path) || may_lead_to_files(&path);
            } else {
                self.touched.insert(path.clone());
            }
            match event.kind {
                EventKind::Modify(ModifyKind::Data(_)) => {
                    self.writers.insert(path, Instant::now());
                }
                EventKind::Access(AccessKind::Close(AccessMode::Write))
                | EventKind::Modify(ModifyKind::Name(_))
                | EventKind::Remove(_) => {
                    if !matches!(event.kind, EventKind::Access(_)) {
                        self.watches.forget(&path);
                    }
                    // An empty file was truncated and will be filled: it counts as being written to.
                    let empty = std::fs::metadata(&path).is_ok_and(|metadata| metadata.len() == 0);
                    if empty {
                        self.writers.entry(path).or_insert_with(Instant::now);
                    } else {
                        self.writers.remove(&path);
                    }
                }
                _ => {}
            }
        }
    }

    /// Reads and hands out; returns when to look again.
    fn read(&mut self) -> Duration {
        #[cfg(test)]
        self.readings.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let renewed = self.watches.renew();
        let now = Instant::now();
        self.writers.retain(|_, last| now.duration_since(*last) < WRITER);
        let busy = self.writers.keys().cloned().collect();
        let touched = std::mem::take(&mut self.touched);
        let patrol = now.duration_since(self.patrolled) >= PATROL;
        let whole = std::mem::take(&mut self.whole) || renewed.missed || patrol;
        if whole {
            self.patrolled = now;
        }
        let outcome = self.store.scan(&busy, if whole { Scope::All } else { Scope::Files(&touched) });
        if outcome.changed {
            self.told.tell(self.store.snapshot());
            self.sender.send_replace(Arc::clone(self.store.snapshot()));
        }
        let settled = outcome.unsettled.is_empty();
        self.touched = outcome.unsettled;
        match () {
            () if !settled => SETTLE,
            () if !renewed.complete => RETRY,
            () => PATROL,
        }
    }
}

/// Whether a path that names no manifest may be a folder or a link that manifests are reached through: anything but a file,
/// and what is gone unless it has the name of a scratch file. Those of mounted ConfigMaps begin with two dots.
fn may_lead_to_files(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    let scratch = name.starts_with(b".") && !name.starts_with(b"..");
    match std::fs::symlink_metadata(path) {
        Ok(metadata) => !metadata.is_file(),
        Err(_) => !scratch,
    }
}

/// The problems that were logged, so that each is logged once, and its end.
#[derive(Default)]
struct Told(Vec<Problem>);

impl Told {
    fn tell(&mut self, snapshot: &Snapshot) {
        tracing::info!(
            generation = snapshot.generation,
            services = snapshot.services.len(),
            slices = snapshot.slices.values().map(Vec::len).sum::<usize>(),
            ingresses = snapshot.ingresses.len(),
            nodes = snapshot.nodes.len(),
            pools = snapshot.pools.len(),
            problems = snapshot.problems.len(),
            "desired state changed"
        );
        for problem in snapshot.problems.iter().filter(|problem| !self.0.contains(problem)) {
            match problem.severity {
                Severity::Error => tracing::error!(%problem, "a part of the configuration is not used"),
                Severity::Warning => tracing::warn!(%problem, "a part of the configuration is not honoured"),
            }
        }
        for problem in self.0.iter().filter(|problem| !snapshot.problems.contains(problem)) {
            tracing::info!(%problem, "a problem of the configuration is over");
        }
        self.0.clone_from(&snapshot.problems);
    }
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;
