//! The running source: a thread that reads when files change, or follows an API server, and hands out snapshots.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fmt, io,
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
use roadstead_model::Snapshot;
use tokio::sync::{oneshot, watch};

use crate::{
    files::{Scope, names_manifest},
    flags::SourceFlags,
    kube::{self, Access, Interest, Outbox, Running, Standing},
    status::{self, StatusWriter},
    store::{Store, load},
    told::Told,
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

/// How long a command waits for an API server.
const ANSWER: Duration = Duration::from_secs(15);

/// Why a source could not start.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// No source was given.
    #[error("no source of desired state, give --manifests DIR, --kubeconfig FILE or --in-cluster")]
    NoSource,
    /// More than one was given.
    #[error("give one of --manifests, --kubeconfig and --in-cluster, not several")]
    TwoSources,
    /// The configuration for the API server is of no use.
    #[error("cannot become a client of the API server")]
    Server(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The API server does not answer a command that waits for it.
    #[error("the API server did not tell all that was asked for within {} s", .0.as_secs())]
    NoAnswer(Duration),
    /// The metrics contradict each other.
    #[error("cannot make the metrics of the source")]
    Metrics(#[source] prometheus::Error),
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
pub struct Source {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    ending: Ending,
    thread: Option<JoinHandle<()>>,
    /// Of an API server, how current its state is.
    standing: Option<Standing>,
    /// Of an API server, what is to be written to it.
    outbox: Option<Outbox>,
    /// Whether this process leads, where one of several is to.
    leads: Option<watch::Receiver<bool>>,
    /// How often the reader has looked.
    #[cfg(test)]
    readings: Arc<std::sync::atomic::AtomicUsize>,
}

/// How the thread is told to end.
enum Ending {
    Files(SyncSender<Signal>),
    Server(Option<oneshot::Sender<()>>),
}

enum Signal {
    Changed(notify::Result<Event>),
    Stop,
}

/// Reads the manifests and watches them from then on; when this returns, the first snapshot is there. Or follows an API server, of
/// which it asks for no more than `interest` says; its first snapshots are not synced.
///
/// # Errors
/// When the flags name no source, files cannot be watched, or the configuration for an API server is of no use. A directory
/// that cannot be read is no error: it may come, and until then it is a problem of the snapshot. Nor is a server that is away.
pub fn start(flags: &SourceFlags, interest: Interest) -> Result<Source, SourceError> {
    match access(flags)? {
        Some(access) => {
            let node = flags.node_name().ok();
            let Running { snapshots, standing, outbox, leads, stop, thread } =
                kube::start(access, interest, node.as_deref())?;
            let (ending, standing) = (Ending::Server(stop), Some(standing));
            #[cfg(test)]
            let readings = Arc::default();
            Ok(Source {
                snapshots,
                ending,
                thread,
                standing,
                outbox: Some(outbox),
                leads,
                #[cfg(test)]
                readings,
            })
        }
        None => start_files(flags),
    }
}

/// The API server that the flags name, if they do.
fn access(flags: &SourceFlags) -> Result<Option<Access>, SourceError> {
    match (flags.manifests.is_empty(), &flags.kubeconfig, flags.in_cluster) {
        (true, Some(file), false) => Ok(Some(Access::Kubeconfig(file.clone()))),
        (true, None, true) => Ok(Some(Access::InCluster)),
        (false, None, false) => Ok(None),
        (true, None, false) => Err(SourceError::NoSource),
        _ => Err(SourceError::TwoSources),
    }
}

/// Reads what there is now, once.
///
/// # Errors
/// When the flags name no source, or the API server does not answer.
pub fn read(flags: &SourceFlags, interest: Interest) -> Result<Snapshot, SourceError> {
    if access(flags)?.is_none() {
        return Ok(load(&flags.manifests, &flags.options()));
    }
    let source = start(flags, interest)?;
    let deadline = Instant::now() + ANSWER;
    loop {
        let snapshot = source.snapshots.borrow().clone();
        let is_over = Instant::now() >= deadline;
        // What must not be listed is told as a problem; the rest is worth to be shown.
        let is_settled = source.standing.as_ref().is_some_and(Standing::is_settled);
        if snapshot.synced || is_settled && snapshot.problems.iter().any(|problem| problem.object.is_none()) {
            return Ok(Arc::unwrap_or_clone(snapshot));
        }
        if is_over {
            return Err(SourceError::NoAnswer(ANSWER));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What all speakers say that they announce: ServiceL2Status objects of an API server, where one is named and they may be read.
/// Those of this node alone stand in its status files.
///
/// # Errors
/// The API server does not answer.
pub fn read_announcements(flags: &SourceFlags) -> Result<Vec<serde_json::Value>, SourceError> {
    match access(flags)? {
        Some(access) => kube::announcements(access).map_err(|failure| SourceError::Server(Box::new(failure))),
        None => Ok(Vec::new()),
    }
}

fn start_files(flags: &SourceFlags) -> Result<Source, SourceError> {
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
        ending: Ending::Files(signals),
        thread,
        standing: None,
        outbox: None,
        leads: None,
        #[cfg(test)]
        readings,
    })
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("thread", &self.thread).finish_non_exhaustive()
    }
}

impl Source {
    /// Whether what is known was confirmed lately, by the server that it comes from. Files always are as they are.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.standing.as_ref().is_none_or(Standing::is_current)
    }

    /// Whether the objects come from an API server.
    #[must_use]
    pub fn is_of_server(&self) -> bool {
        self.standing.is_some()
    }

    /// Where statuses go: back to where the objects come from.
    #[must_use]
    pub fn status_writer(&self, state_dir: &Path) -> StatusWriter {
        match &self.outbox {
            Some(outbox) => StatusWriter::to_server(outbox.clone()),
            None => StatusWriter::new(state_dir),
        }
    }

    /// Whether this process is the one that writes what is for one to write, and changes of that; nothing where nobody leads:
    /// who reads files assigns by the rules that all share.
    #[must_use]
    pub fn leads(&self) -> Option<watch::Receiver<bool>> {
        self.leads.clone()
    }

    /// Adds the source's metrics to those of the daemon.
    ///
    /// # Errors
    /// The registry has some of these names already.
    pub fn register(&self, registry: &prometheus::Registry) -> Result<(), prometheus::Error> {
        match &self.standing {
            Some(standing) => registry.register(Box::new(standing.clone())),
            None => Ok(()),
        }
    }

    /// Snapshots as they come; the current one is there at once.
    #[must_use]
    pub fn snapshots(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshots.clone()
    }

    /// Ends the watching; receivers keep the last snapshot.
    pub async fn stop(mut self) {
        let Some(thread) = self.thread.take() else { return };
        let signals = match &mut self.ending {
            Ending::Files(signals) => Some(signals.clone()),
            Ending::Server(stop) => {
                drop(stop.take());
                None
            }
        };
        // Both may wait for the reader, which may be reading.
        let joined = tokio::task::spawn_blocking(move || {
            if let Some(signals) = signals {
                let _ = signals.send(Signal::Stop);
            }
            thread.join()
        });
        if !matches!(joined.await, Ok(Ok(()))) {
            tracing::error!("the thread of the source ended in a panic");
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        // After `stop` nobody listens; otherwise the thread ends by itself, now or with the events it still has. That of an API
        // server ends when the other end of its channel is dropped.
        if let Ending::Files(signals) = &self.ending {
            let _ = signals.try_send(Signal::Stop);
        }
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

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;
