//! Single objects that others name: each is asked for when its metadata says that there is another version of it.

use std::{collections::HashMap, sync::Arc, time::Duration};

use http::Request;
use kube::client::Body;
use roadstead_model::ObjectName;
use tokio::{
    sync::{Semaphore, mpsc},
    task::{AbortHandle, JoinSet},
};

use super::{
    backoff::{Backoff, Bounds},
    failure::{Consequence, Failure, chain},
    feed::Feed,
    reach::{PATIENCE, Reach},
    wire::{Item, whole},
};

/// So many are asked for at once.
const AT_ONCE: usize = 8;

/// What became of a request.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) feed: usize,
    pub(crate) name: ObjectName,
    /// The version that was asked for.
    pub(crate) version: String,
    /// Nothing where the object is gone; why not, where it cannot be had.
    pub(crate) outcome: Result<Option<Item>, String>,
}

/// Asks for objects.
pub(crate) struct Fetcher {
    reach: Arc<Reach>,
    fetched: mpsc::Sender<Fetched>,
    slots: Arc<Semaphore>,
    tasks: JoinSet<()>,
    /// By feed and name: the newest version is the one that counts.
    running: HashMap<(usize, ObjectName), AbortHandle>,
}

impl Fetcher {
    pub(crate) fn new(reach: Arc<Reach>, fetched: mpsc::Sender<Fetched>) -> Self {
        Self {
            reach,
            fetched,
            slots: Arc::new(Semaphore::new(AT_ONCE)),
            tasks: JoinSet::new(),
            running: HashMap::new(),
        }
    }

    /// Asks for one; the answer comes by the channel, sooner or later.
    pub(crate) fn fetch(&mut self, index: usize, feed: &Feed, name: ObjectName, version: String) {
        self.forget(index, &name);
        let address = feed.object(&name.namespace, &name.name);
        let what = format!("{} {name}", feed.resource());
        let (reach, sender, slots) = (Arc::clone(&self.reach), self.fetched.clone(), Arc::clone(&self.slots));
        let key = (index, name.clone());
        let running = self.tasks.spawn(async move {
            let mut backoff = Backoff::default();
            loop {
                let Ok(slot) = slots.acquire().await else { return };
                reach.open().await;
                let outcome = match get(&reach, &address).await {
                    Ok(item) => Ok(Some(item)),
                    Err(failure) if failure.consequence() == Consequence::Absent => Ok(None),
                    Err(failure) => Err(failure),
                };
                drop(slot);
                let fetched = |outcome| Fetched { feed: index, name: name.clone(), version: version.clone(), outcome };
                let wait = match outcome {
                    Ok(found) => {
                        let _ = sender.send(fetched(Ok(found))).await;
                        return;
                    }
                    Err(failure) => {
                        tracing::debug!(address, error = chain(&failure), "cannot fetch an object");
                        match failure.consequence() {
                            Consequence::Lost => {
                                if failure.is_of_connection() {
                                    reach.lost();
                                }
                                backoff.next(Bounds::BUSY, fastrand::f64())
                            }
                            Consequence::Again => backoff.next(Bounds::BUSY, fastrand::f64()),
                            _ => {
                                let trouble = format!("cannot get {what}: {failure}");
                                if sender.send(fetched(Err(trouble))).await.is_err() {
                                    return;
                                }
                                backoff.next(Bounds::REFUSED, fastrand::f64())
                            }
                        }
                    }
                };
                tokio::time::sleep(wait.max(Duration::from_millis(50))).await;
            }
        });
        self.running.insert(key, running);
    }

    /// Asks no more for one.
    pub(crate) fn forget(&mut self, index: usize, name: &ObjectName) {
        while self.tasks.try_join_next().is_some() {}
        if let Some(running) = self.running.remove(&(index, name.clone())) {
            running.abort();
        }
    }
}

async fn get(reach: &Reach, address: &str) -> Result<Item, Failure> {
    let request = Request::get(address).body(Body::empty()).map_err(Failure::unreachable)?;
    let body = whole(reach.exchange(request).await?, PATIENCE).await?;
    Item::read(serde_json::from_slice(&body).map_err(Failure::Garbage)?)
}
