//! The thread on which everything about an API server happens, apart from the threads that serve: its watches, the conversion of
//! what they bring, and the snapshots.

use std::{
    sync::{Arc, atomic::AtomicBool, mpsc::sync_channel},
    time::Duration,
};

use roadstead_model::Snapshot;
use tokio::{
    runtime,
    sync::{mpsc, oneshot, watch},
    task::{JoinHandle, JoinSet},
    time::{Instant, timeout_at},
};

use super::{
    connect::Access,
    failure::{Failure, chain},
    feed::Feed,
    fetch::{Fetched, Fetcher},
    follow::{Follower, Progress, Update},
    interest::Interest,
    leader::{Office, campaign},
    objects::{Errand, Objects},
    outbox::Outbox,
    reach::Reach,
    standing::Standing,
    writer::{Author, Writer},
};
use crate::{source::SourceError, told::Told};

/// Updates between the watches and the objects; a full channel slows the watches down. Each holds the tree of an object, which
/// takes ten times its text.
const QUEUE: usize = 64;
/// A burst of updates ends when nothing came for this long,
const QUIET: Duration = Duration::from_millis(10);
/// or when it has lasted this long.
const BURST: Duration = Duration::from_millis(100);

/// A running source.
pub(crate) struct Running {
    pub(crate) snapshots: watch::Receiver<Arc<Snapshot>>,
    pub(crate) standing: Standing,
    /// What is to be written.
    pub(crate) outbox: Outbox,
    /// Whether this process leads, where one is to.
    pub(crate) leads: Option<watch::Receiver<bool>>,
    pub(crate) stop: Option<oneshot::Sender<()>>,
    pub(crate) thread: Option<std::thread::JoinHandle<()>>,
}

/// Starts to follow; the first snapshot is empty and not synced.
///
/// # Errors
/// The configuration cannot be used, or there is no thread. A server that cannot be reached is no error.
pub(crate) fn start(access: Access, interest: Interest, node: Option<&str>) -> Result<Running, SourceError> {
    let feeds = Feed::of_interest(&interest, node);
    let standing = Standing::new(feeds.iter().map(ToString::to_string)).map_err(SourceError::Metrics)?;
    let author = interest.author.clone();
    let objects = Objects::new(feeds.clone(), interest, standing.clone());
    let (sender, snapshots) = watch::channel(Arc::clone(objects.snapshot()));
    let (outbox, leads) = (Outbox::default(), Arc::new(watch::Sender::new(false)));
    let led = author.as_ref().map(|_| leads.subscribe());
    let desk = author.map(|author| Desk { author, outbox: outbox.clone(), leads });
    let (stop, stopped) = oneshot::channel();
    let (started, start) = sync_channel(1);
    let own = standing.clone();
    let body = move || {
        let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                let _ = started.send(Err(SourceError::Thread(error)));
                return;
            }
        };
        let reach = match runtime.block_on(Reach::new(access)) {
            Ok(reach) => Arc::new(reach),
            Err(error) => {
                let _ = started.send(Err(refused(error)));
                return;
            }
        };
        let _ = started.send(Ok(()));
        runtime.block_on(serve(reach, feeds, objects, own, &sender, desk, stopped));
    };
    let thread = std::thread::Builder::new().name("kubernetes".to_owned()).spawn(body).map_err(SourceError::Thread)?;
    start.recv().unwrap_or(Ok(()))?;
    Ok(Running { snapshots, standing, outbox, leads: led, stop: Some(stop), thread: Some(thread) })
}

/// What writing takes.
struct Desk {
    author: Author,
    outbox: Outbox,
    leads: Arc<watch::Sender<bool>>,
}

async fn serve(
    reach: Arc<Reach>,
    feeds: Vec<Feed>,
    objects: Objects,
    standing: Standing,
    sender: &watch::Sender<Arc<Snapshot>>,
    desk: Option<Desk>,
    stopped: oneshot::Receiver<()>,
) {
    let mut tasks = JoinSet::new();
    tasks.spawn(Arc::clone(&reach).probe());
    let updates = follow(feeds, &reach, &standing, &mut tasks);
    let writing = desk.map(|desk| write(desk, &reach, &objects, &standing, sender.subscribe()));
    read(reach, objects, updates, sender, stopped).await;
    if let Some(writing) = writing {
        writing.end().await;
    }
}

/// The tasks that write; each ends when its channel does.
struct Writing {
    writer: (oneshot::Sender<()>, JoinHandle<()>),
    campaign: (oneshot::Sender<()>, JoinHandle<()>),
}

impl Writing {
    /// Sends what is left, and gives the Lease back after that.
    async fn end(self) {
        for (stop, task) in [self.writer, self.campaign] {
            drop(stop);
            let _ = task.await;
        }
    }
}

fn write(
    desk: Desk,
    reach: &Arc<Reach>,
    objects: &Objects,
    standing: &Standing,
    snapshots: watch::Receiver<Arc<Snapshot>>,
) -> Writing {
    let Desk { author, outbox, leads } = desk;
    let office = Office {
        namespace: author.namespace.clone(),
        name: author.name.clone(),
        // Another for each process: one that was started again must not take its predecessor's word for its own.
        identity: format!("{}_{:016x}", author.node, fastrand::u64(..)),
    };
    let writer = Writer {
        author,
        reach: Arc::clone(reach),
        outbox,
        uids: objects.uids(),
        snapshots,
        leads: leads.subscribe(),
        standing: standing.clone(),
    };
    let (stop, stopped) = oneshot::channel();
    let writer = (stop, tokio::spawn(writer.run(stopped)));
    let (stop, stopped) = oneshot::channel();
    let campaign = (stop, tokio::spawn(campaign(office, Arc::clone(reach), leads, stopped)));
    Writing { writer, campaign }
}

/// Takes in what comes and hands out snapshots until the end.
async fn read(
    reach: Arc<Reach>,
    mut objects: Objects,
    mut updates: mpsc::Receiver<Update>,
    sender: &watch::Sender<Arc<Snapshot>>,
    mut stopped: oneshot::Receiver<()>,
) {
    let (fetched, mut arrivals) = mpsc::channel(64);
    let mut fetcher = Fetcher::new(reach, fetched);
    let mut told = Told::default();
    while let Some(news) = next(&mut updates, &mut arrivals, &mut stopped).await {
        take(&mut objects, news);
        let end = Instant::now() + BURST;
        loop {
            let quiet = (Instant::now() + QUIET).min(end);
            match timeout_at(quiet, next(&mut updates, &mut arrivals, &mut stopped)).await {
                Ok(Some(news)) => take(&mut objects, news),
                Ok(None) => return,
                Err(_) => break,
            }
            if Instant::now() >= end {
                break;
            }
        }
        let (changed, errands) = objects.merge();
        for errand in errands {
            match errand {
                Errand::Fetch(index, name, version) => {
                    if let Some(feed) = objects.feed(index) {
                        fetcher.fetch(index, feed, name, version);
                    }
                }
                Errand::Forget(index, name) => fetcher.forget(index, &name),
            }
        }
        if changed {
            // While lists come in, what there is of them changes many times a second.
            if objects.snapshot().synced {
                told.tell(objects.snapshot());
            } else {
                told.tell_problems(objects.snapshot());
            }
            sender.send_replace(Arc::clone(objects.snapshot()));
        }
    }
}

/// Starts a follower for each feed.
fn follow(
    feeds: Vec<Feed>,
    reach: &Arc<Reach>,
    standing: &Standing,
    tasks: &mut JoinSet<()>,
) -> mpsc::Receiver<Update> {
    let (updates, receiver) = mpsc::channel(QUEUE);
    let streams = Arc::new(AtomicBool::new(true));
    for (index, feed) in feeds.into_iter().enumerate() {
        let follower = Follower {
            index,
            feed,
            reach: Arc::clone(reach),
            updates: updates.clone(),
            standing: standing.clone(),
            streams: Arc::clone(&streams),
            progress: Progress::default(),
        };
        tasks.spawn(follower.run());
    }
    receiver
}

enum Incoming {
    Update(Update),
    Fetched(Fetched),
}

/// What comes next; nothing when the source is to end.
async fn next(
    updates: &mut mpsc::Receiver<Update>,
    arrivals: &mut mpsc::Receiver<Fetched>,
    stopped: &mut oneshot::Receiver<()>,
) -> Option<Incoming> {
    tokio::select! {
        biased;
        // Also where the source was dropped.
        _ = stopped => None,
        fetched = arrivals.recv() => fetched.map(Incoming::Fetched),
        update = updates.recv() => update.map(Incoming::Update),
    }
}

fn take(objects: &mut Objects, news: Incoming) {
    match news {
        Incoming::Update(update) => objects.take(update),
        Incoming::Fetched(fetched) => objects.take_fetched(fetched),
    }
}

fn refused(failure: Failure) -> SourceError {
    tracing::debug!(error = chain(&failure), "no client");
    SourceError::Server(Box::new(failure))
}
