//! How current each feed is, and what went wrong with it: for metrics and readiness.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use prometheus::{
    GaugeVec, IntCounterVec, IntGaugeVec, Opts,
    core::{Collector, Desc},
    proto::MetricFamily,
};

/// Older than this a state counts as stale: a server that works says something at least once a minute, or ends the watch after two
/// and a half.
const STALE: Duration = Duration::from_secs(180);

/// All feeds; clones share it.
#[derive(Clone)]
pub(crate) struct Standing(Arc<Inner>);

struct Inner {
    feeds: Mutex<Vec<FeedStanding>>,
    /// When there was nothing known yet.
    begun: Instant,
    age: GaugeVec,
    objects: IntGaugeVec,
    failures: IntCounterVec,
    lists: IntCounterVec,
    writes: IntCounterVec,
}

struct FeedStanding {
    name: String,
    /// When the server last said something: then the state was current.
    heard: Option<Instant>,
    is_listed: bool,
    /// It cannot be listed unless somebody acts.
    is_troubled: bool,
}

impl Standing {
    /// For feeds of these names, which are labels of metrics.
    ///
    /// # Panics
    /// Never: the metrics' names are constants that fit.
    pub(crate) fn new(names: impl IntoIterator<Item = String>) -> Result<Self, prometheus::Error> {
        let feed = |name| FeedStanding { name, heard: None, is_listed: false, is_troubled: false };
        let opts = |name: &str, help: &str| Opts::new(name, help);
        Ok(Self(Arc::new(Inner {
            feeds: Mutex::new(names.into_iter().map(feed).collect()),
            begun: Instant::now(),
            age: GaugeVec::new(
                opts(
                    "roadstead_source_age_seconds",
                    "Time since the API server last confirmed what is known of a kind",
                ),
                &["resource"],
            )?,
            objects: IntGaugeVec::new(opts("roadstead_source_objects", "Objects that are known"), &["resource"])?,
            failures: IntCounterVec::new(
                opts("roadstead_source_failures_total", "Exchanges with the API server that failed"),
                &["resource", "reason"],
            )?,
            lists: IntCounterVec::new(
                opts("roadstead_source_lists_total", "Lists that were completed"),
                &["resource", "way"],
            )?,
            writes: IntCounterVec::new(
                opts(
                    "roadstead_source_writes_total",
                    "Statuses and events that were sent to the API server, by outcome",
                ),
                &["resource", "outcome"],
            )?,
        })))
    }

    fn feed(&self, index: usize, change: impl FnOnce(&mut FeedStanding, &Inner)) {
        let mut feeds = self.0.feeds.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(feed) = feeds.get_mut(index) {
            change(feed, &self.0);
        }
    }

    /// The server said something of this feed.
    pub(crate) fn heard(&self, index: usize) {
        self.feed(index, |feed, _| feed.heard = Some(Instant::now()));
    }

    /// A list is complete; `way` is `stream` or `pages`, or `absent` where the server does not know the kind.
    pub(crate) fn listed(&self, index: usize, way: &str) {
        self.feed(index, |feed, inner| {
            (feed.heard, feed.is_listed, feed.is_troubled) = (Some(Instant::now()), true, false);
            inner.lists.with_label_values(&[&*feed.name, way]).inc();
        });
    }

    pub(crate) fn troubled(&self, index: usize) {
        self.feed(index, |feed, _| feed.is_troubled = true);
    }

    /// Whether nothing more will come unless somebody acts.
    pub(crate) fn is_settled(&self) -> bool {
        let feeds = self.0.feeds.lock().unwrap_or_else(PoisonError::into_inner);
        feeds.iter().all(|feed| feed.is_listed || feed.is_troubled)
    }

    pub(crate) fn failed(&self, index: usize, reason: &str) {
        self.feed(index, |feed, inner| inner.failures.with_label_values(&[&*feed.name, reason]).inc());
    }

    pub(crate) fn holds(&self, index: usize, objects: usize) {
        self.feed(index, |feed, inner| {
            let objects = i64::try_from(objects).unwrap_or(i64::MAX);
            inner.objects.with_label_values(&[&*feed.name]).set(objects);
        });
    }

    /// Something was written.
    pub(crate) fn written(&self, resource: &str) {
        self.0.writes.with_label_values(&[resource, "written"]).inc();
    }

    pub(crate) fn write_failed(&self, resource: &str, reason: &str) {
        self.0.writes.with_label_values(&[resource, reason]).inc();
    }

    /// The age of the oldest part of the state; `None` as long as a part was never known.
    pub(crate) fn age(&self) -> Option<Duration> {
        let feeds = self.0.feeds.lock().unwrap_or_else(PoisonError::into_inner);
        let ages = feeds.iter().map(|feed| feed.heard.filter(|_| feed.is_listed).map(|heard| heard.elapsed()));
        ages.collect::<Option<Vec<_>>>()?.into_iter().max()
    }

    /// Whether all is known and confirmed lately.
    pub(crate) fn is_current(&self) -> bool {
        self.age().is_some_and(|age| age < STALE)
    }
}

impl Collector for Standing {
    fn desc(&self) -> Vec<&Desc> {
        let Inner { age, objects, failures, lists, writes, .. } = &*self.0;
        [age.desc(), objects.desc(), failures.desc(), lists.desc(), writes.desc()].concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Inner { feeds, begun, age, objects, failures, lists, writes } = &*self.0;
        for feed in feeds.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let since = feed.heard.filter(|_| feed.is_listed).unwrap_or(*begun);
            age.with_label_values(&[&*feed.name]).set(since.elapsed().as_secs_f64());
        }
        [age.collect(), objects.collect(), failures.collect(), lists.collect(), writes.collect()].concat()
    }
}
