//! The thread on which everything about an API server happens, apart from the threads that serve: its watches, the conversion of
//! what they bring, and the snapshots.

use std::{
    sync::{
        Arc,
        atomic::AtomicBool,
        mpsc::{SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use roadstead_model::Snapshot;
use tokio::{
    runtime,
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::{Instant, timeout_at},
};

use super::{
    connect::Access,
    failure::{Failure, chain},
    feed::Feed,
    fetch::{Fetched, Fetcher},
    follow::{Follower, Progress, Update},
    interest::Interest,
    objects::{Errand, Objects},
    reach::Reach,
    standing::Standing,
};
use crate::{source::SourceError, told::Told};

/// Updates between the watches and the objects; a full channel slows the watches down.
const QUEUE: usize = 1024;
/// A burst of updates ends when nothing came for this long,
const QUIET: Duration = Duration::from_millis(10);
/// or when it has lasted this long.
const BURST: Duration = Duration::from_millis(100);

/// A running source.
pub(crate) struct Running {
    pub(crate) snapshots: watch::Receiver<Arc<Snapshot>>,
    pub(crate) standing: Standing,
    pub(crate) stop: Option<oneshot::Sender<()>>,
    pub(crate) thread: Option<JoinHandle<()>>,
}

/// Starts to follow; the first snapshot is empty and not synced.
///
/// # Errors
/// The configuration cannot be used, or there is no thread. A server that cannot be reached is no error.
pub(crate) fn start(access: Access, interest: Interest, node: Option<&str>) -> Result<Running, SourceError> {
    let feeds = Feed::of_interest(&interest, node);
    let standing = Standing::new(feeds.iter().map(ToString::to_string)).map_err(SourceError::Metrics)?;
    let objects = Objects::new(feeds.clone(), interest, standing.clone());
    let (sender, snapshots) = watch::channel(Arc::clone(objects.snapshot()));
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
        runtime.block_on(serve(access, feeds, objects, own, &sender, stopped, &started));
    };
    let thread = std::thread::Builder::new().name("kubernetes".to_owned()).spawn(body).map_err(SourceError::Thread)?;
    start.recv().unwrap_or(Ok(()))?;
    Ok(Running { snapshots, standing, stop: Some(stop), thread: Some(thread) })
}

async fn serve(
    access: Access,
    feeds: Vec<Feed>,
    mut objects: Objects,
    standing: Standing,
    sender: &watch::Sender<Arc<Snapshot>>,
    mut stopped: oneshot::Receiver<()>,
    started: &SyncSender<Result<(), SourceError>>,
) {
    let reach = match Reach::new(access).await {
        Ok(reach) => Arc::new(reach),
        Err(error) => {
            let _ = started.send(Err(refused(error)));
            return;
        }
    };
    let _ = started.send(Ok(()));
    let mut tasks = JoinSet::new();
    tasks.spawn(Arc::clone(&reach).probe());
    let mut updates = follow(feeds, &reach, &standing, &mut tasks);
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
pub(crate) fn follow(
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
