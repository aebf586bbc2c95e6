//! One feed: list, watch, list anew. What comes goes to the objects through a bounded channel.
//!
//! The list is streamed where the server does that (KEP-3157), and paged where it does not. A watch that ends in order goes on
//! from its last version; one that the server no longer knows (410) begins with a list. So does every watch after an outage:
//! whoever restored a backup of etcd meanwhile has counted versions anew, and a watch from a version of the old count would miss
//! changes without a word.
//!
//! kube's own watcher is not used: it knows no fallback from streams to pages, bounds no line, and waits for a watch that has
//! fallen silent until its timeout.

use std::{
    mem,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use http::{Request, header};
use kube::client::Body;
use tokio::sync::mpsc;

use super::{
    backoff::{Backoff, Bounds},
    failure::{Consequence, Failure, chain},
    feed::{Feed, Form},
    reach::{PATIENCE, Reach},
    standing::Standing,
    wire::{Item, Line, Lines, Page, whole},
};

/// Objects on a page.
const PAGE: &str = "250";
/// A list in pages without an end is none.
const PAGES: usize = 100_000;
/// How long the next object of a streaming list may take. A server that does not know them sends its objects and then nothing.
const STREAM: Duration = Duration::from_secs(10);
/// A server that sends bookmarks does so once a minute; without a word for this long a watch is dead.
const BOOKMARK: Duration = Duration::from_secs(150);
/// How long a watch is asked to last, in seconds, at least, and up to twice as long: by chance, so that not all end at once.
const LONG: u64 = 300;
/// The same where no bookmark has come: then only its end shows that a silent watch was in order.
const SHORT: u64 = 75;
/// A kind that was there is gone if the server says so this often: one that has just started may not know it yet.
const ABSENCES: u32 = 3;
/// A server that has just come back may not have read its roles yet: for this long its refusals are no trouble.
const GRACE: Duration = Duration::from_secs(10);
/// A watch that ended sooner than this was none.
const TOO_SOON: Duration = Duration::from_secs(1);

/// What a feed has to say.
#[derive(Debug)]
pub(crate) struct Update {
    /// The feed's index.
    pub(crate) feed: usize,
    pub(crate) news: News,
}

#[derive(Debug)]
pub(crate) enum News {
    /// A list begins; what follows up to its end is all there is.
    Begins,
    Put(Item),
    Gone(Item),
    /// The list is complete.
    Listed,
    /// What keeps it from being read, for somebody to act on; nothing where that is over.
    Trouble(Option<String>),
}

/// Follows one feed.
pub(crate) struct Follower {
    pub(crate) index: usize,
    pub(crate) feed: Feed,
    pub(crate) reach: Arc<Reach>,
    pub(crate) updates: mpsc::Sender<Update>,
    pub(crate) standing: Standing,
    /// Whether the server streams lists, as far as any feed knows.
    pub(crate) streams: Arc<AtomicBool>,
    pub(crate) progress: Progress,
}

/// Where a feed is.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// What is known up to this version; a list comes first where it is missing.
    version: Option<String>,
    outages: u64,
    /// When the last outage ended.
    back_since: Option<Instant>,
    backoff: Backoff,
    bookmarked: bool,
    was_listed: bool,
    absences: u32,
    told: Option<String>,
}

/// Nobody wants to know any more.
struct Over;

/// Why a session ended.
enum Ended {
    /// As the server or we had planned it.
    InOrder,
    Failed(Failure),
    Over,
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<Over> for Ended {
    fn from(_: Over) -> Self {
        Self::Over
    }
}

impl Follower {
    /// Follows until nobody listens.
    pub(crate) async fn run(mut self) {
        loop {
            let outages = self.reach.open().await;
            if mem::replace(&mut self.progress.outages, outages) != outages {
                self.progress.version = None;
                self.progress.back_since = Some(Instant::now());
                self.progress.backoff.reset();
            }
            let begun = Instant::now();
            let wait = match self.session().await {
                Ended::Over => return,
                Ended::InOrder if begun.elapsed() < TOO_SOON => self.wait(Bounds::BUSY),
                Ended::InOrder => Duration::ZERO,
                Ended::Failed(failure) => match self.failed(&failure).await {
                    Ok(wait) => wait,
                    Err(Over) => return,
                },
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.reach.reopened(outages) => {}
            }
        }
    }

    fn is_just_back(&self) -> bool {
        self.progress.back_since.is_some_and(|since| since.elapsed() < GRACE)
    }

    fn wait(&mut self, bounds: Bounds) -> Duration {
        self.progress.backoff.next(bounds, fastrand::f64())
    }

    /// Draws the consequences; how long to wait.
    async fn failed(&mut self, failure: &Failure) -> Result<Duration, Over> {
        let consequence = failure.consequence();
        if consequence != Consequence::Absent {
            self.standing.failed(self.index, failure.word());
            tracing::debug!(feed = %self.feed, error = chain(failure), "a list or watch failed");
        }
        let asked = match failure {
            Failure::Refused(refusal) => refusal.retry_after(),
            _ => None,
        };
        let wait = match consequence {
            Consequence::Lost => {
                self.reach.lost();
                self.wait(Bounds::BUSY)
            }
            Consequence::Relist => {
                self.progress.version = None;
                self.wait(Bounds::BUSY)
            }
            Consequence::Again => self.wait(Bounds::BUSY),
            Consequence::Forbidden | Consequence::Unknown if self.is_just_back() => self.wait(Bounds::BUSY),
            Consequence::Unsupported if self.streams.swap(false, Ordering::Relaxed) => {
                tracing::info!(feed = %self.feed, reason = %failure, "the API server does not stream lists; asks for pages");
                self.progress.version = None;
                Duration::ZERO
            }
            Consequence::Absent if self.feed.is_custom() => return self.absent().await,
            Consequence::Absent | Consequence::Unknown | Consequence::Forbidden | Consequence::Unsupported => {
                self.progress.version = None;
                self.trouble(Some(self.refused(failure))).await?;
                self.standing.troubled(self.index);
                self.wait(Bounds::REFUSED)
            }
        };
        Ok(asked.map_or(wait, |asked| asked.max(wait)))
    }

    fn refused(&self, failure: &Failure) -> String {
        let (feed, resource) = (&self.feed, self.feed.resource());
        match failure.consequence() {
            Consequence::Forbidden => format!("cannot list and watch {feed}: a role must allow it ({failure})"),
            Consequence::Unknown => format!("cannot list and watch {feed}: the credentials are refused ({failure})"),
            _ => format!("cannot list and watch {feed}: {resource} are not served as expected ({failure})"),
        }
    }

    /// The cluster does not have the kind: that is all there is of it.
    async fn absent(&mut self) -> Result<Duration, Over> {
        self.progress.version = None;
        self.progress.absences += 1;
        if !self.progress.was_listed || self.progress.absences >= ABSENCES {
            self.trouble(None).await?;
            self.send(News::Begins).await?;
            self.send(News::Listed).await?;
            self.standing.listed(self.index, "absent");
        }
        // Nobody hurries where a kind is missing; a server that has just started soon knows it.
        let wait = if self.progress.was_listed { Bounds::BUSY } else { Bounds::REFUSED };
        Ok(self.wait(wait))
    }

    async fn send(&self, news: News) -> Result<(), Over> {
        self.updates.send(Update { feed: self.index, news }).await.map_err(|_| Over)
    }

    async fn trouble(&mut self, trouble: Option<String>) -> Result<(), Over> {
        if self.progress.told != trouble {
            self.progress.told.clone_from(&trouble);
            self.send(News::Trouble(trouble)).await?;
        }
        Ok(())
    }

    /// Lists if that is due, and watches to the end.
    async fn session(&mut self) -> Ended {
        let outcome = async {
            let mut lines = match &self.progress.version {
                Some(version) => {
                    let version = version.clone();
                    self.watch(&[("resourceVersion", &version)]).await?
                }
                None if self.streams.load(Ordering::Relaxed) => self.stream().await?,
                None => {
                    let version = self.pages().await?;
                    self.watch(&[("resourceVersion", &version)]).await?
                }
            };
            self.standing.heard(self.index);
            self.follow(&mut lines).await
        };
        outcome.await.unwrap_or_else(|ended| ended)
    }

    /// Reads a watch to its end.
    async fn follow(&mut self, lines: &mut Lines) -> Result<Ended, Ended> {
        loop {
            let patience = if self.progress.bookmarked { BOOKMARK } else { Duration::from_secs(2 * SHORT + 15) };
            let Some(line) = lines.next(patience).await? else { return Ok(Ended::InOrder) };
            let line = Line::read(&line)?;
            self.standing.heard(self.index);
            self.progress.backoff.reset();
            match line {
                Line::Put(item) => {
                    self.progress.version = Some(item.version.clone());
                    self.send(News::Put(item)).await?;
                }
                Line::Gone(item) => {
                    self.progress.version = Some(item.version.clone());
                    self.send(News::Gone(item)).await?;
                }
                Line::Bookmark { version, .. } => {
                    self.progress.version = Some(version);
                    self.progress.bookmarked = true;
                }
            }
        }
    }

    async fn watch(&self, query: &[(&str, &str)]) -> Result<Lines, Failure> {
        let least = if self.progress.bookmarked { LONG } else { SHORT };
        let seconds = fastrand::u64(least..=2 * least).to_string();
        let mut all = vec![("watch", "true"), ("allowWatchBookmarks", "true"), ("timeoutSeconds", &*seconds)];
        all.extend_from_slice(query);
        Ok(Lines::new(self.ask(&all).await?))
    }

    async fn ask(&self, query: &[(&str, &str)]) -> Result<Body, Failure> {
        let is_watch = query.first().is_some_and(|(key, _)| *key == "watch");
        let accept = match (self.feed.form, is_watch) {
            (Form::Whole, _) => "application/json",
            (Form::Metadata, true) => "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
            (Form::Metadata, false) => "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
        };
        let request = Request::get(self.feed.address(query)).header(header::ACCEPT, accept).body(Body::empty());
        self.reach.exchange(request.map_err(Failure::unreachable)?).await
    }

    /// A list that is the beginning of its watch. It is of the newest version: one of any version might be older than what is
    /// known already.
    async fn stream(&mut self) -> Result<Lines, Ended> {
        let query = [("sendInitialEvents", "true"), ("resourceVersionMatch", "NotOlderThan"), ("resourceVersion", "")];
        let mut lines = self.watch(&query).await?;
        self.send(News::Begins).await?;
        loop {
            let line = match lines.next(STREAM).await {
                Err(Failure::Silent(_)) => return Err(self.no_stream("silence")),
                Ok(None) => return Err(Failure::unreachable("the watch ended before all objects had come").into()),
                other => other?,
            };
            let Some(line) = line else { continue };
            let line = match Line::read(&line) {
                // So does one whose etcd knows no requests for progress (3.4.23 was seen), however sound it is otherwise.
                Err(Failure::Refused(refusal)) if refusal.is_internal() => {
                    return Err(self.no_stream(&refusal.message));
                }
                other => other?,
            };
            match line {
                Line::Put(item) => self.send(News::Put(item)).await?,
                Line::Gone(item) => self.send(News::Gone(item)).await?,
                Line::Bookmark { version, is_listed: true } => {
                    self.listed(version, "stream").await?;
                    return Ok(lines);
                }
                Line::Bookmark { .. } => {}
            }
        }
    }

    /// The server took the request and does not do it.
    fn no_stream(&self, reason: &str) -> Ended {
        self.streams.store(false, Ordering::Relaxed);
        tracing::info!(feed = %self.feed, reason, "the API server does not end its streaming lists; asks for pages");
        Ended::InOrder
    }

    /// A list in pages; its version.
    async fn pages(&mut self) -> Result<String, Ended> {
        self.send(News::Begins).await?;
        let mut token = String::new();
        for _ in 0..PAGES {
            let mut query = vec![("limit", PAGE)];
            if !token.is_empty() {
                query.push(("continue", &token));
            }
            let body = self.ask(&query).await?;
            let page = Page::read(&whole(body, PATIENCE).await?)?;
            for item in page.items {
                self.send(News::Put(item)).await?;
            }
            if page.token.is_empty() {
                self.listed(page.version.clone(), "pages").await?;
                return Ok(page.version);
            }
            token = page.token;
        }
        Err(Failure::unreachable("the list has no end").into())
    }

    async fn listed(&mut self, version: String, way: &str) -> Result<(), Over> {
        self.trouble(None).await?;
        self.send(News::Listed).await?;
        self.standing.listed(self.index, way);
        let progress = &mut self.progress;
        (progress.version, progress.was_listed, progress.absences) = (Some(version), true, 0);
        progress.backoff.reset();
        Ok(())
    }
}
