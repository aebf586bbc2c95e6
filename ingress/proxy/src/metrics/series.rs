//! The series of routes under ingress-nginx's names, so that dashboards made for it go on.
//!
//! Labels come from the configuration, from the set of methods and from statuses, never from what a client writes; how
//! many of them there are is the operator's choice ([`Detail`]). A series is made when its first request ends, found
//! through a map of the thread afterwards, and forgotten when its Ingress is gone.

use std::{
    cell::RefCell,
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use clap::ValueEnum;
use http::Method;
use prometheus::{
    IntCounter,
    core::{Collector, Desc},
    proto::{self, MetricType},
};
use roadstead_model::ObjectName;

use super::histogram::{BYTES, Bounds, Histogram, SECONDS};
use crate::record::Record;

/// Series beyond this many are not kept apart; a hundred bytes of text each, they would be the largest part of the process.
const MAX_SERIES: usize = 100_000;
/// A thread's map is emptied when it has grown beyond this, for it also holds what older generations led to.
const MAX_KNOWN: usize = 16_384;

/// `--metrics-detail`: how finely requests are told apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Detail {
    /// By Ingress, host, path, Service, method and status, as ingress-nginx does.
    #[default]
    Path,
    /// By Ingress, host, Service, method and status.
    Host,
    /// By Ingress and class of status alone.
    Ingress,
    /// Not by route at all.
    Off,
}

/// The values of the labels of a series.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Labels {
    namespace: String,
    ingress: String,
    service: String,
    canary: String,
    host: String,
    path: String,
    method: &'static str,
    status: String,
}

/// The numbers of one series.
#[derive(Debug, Default)]
struct Series {
    requests: AtomicU64,
    request_duration: Histogram,
    response_duration: Histogram,
    header_duration: Histogram,
    connect_duration: Histogram,
    request_size: Histogram,
    response_size: Histogram,
}

/// A duration or a size of each series.
struct Measure {
    name: &'static str,
    help: &'static str,
    bounds: &'static Bounds,
    unit: f64,
    of: fn(&Series) -> &Histogram,
}

const REQUESTS: (&str, &str) = ("nginx_ingress_controller_requests", "The total number of client requests");
const MEASURES: [Measure; 6] = [
    Measure {
        name: "nginx_ingress_controller_request_duration_seconds",
        help: "The request processing time in seconds, to the last byte of the answer",
        bounds: &SECONDS,
        unit: 1e-6,
        of: |series| &series.request_duration,
    },
    Measure {
        name: "nginx_ingress_controller_response_duration_seconds",
        help: "The time spent on receiving the response from the upstream server in seconds",
        bounds: &SECONDS,
        unit: 1e-6,
        of: |series| &series.response_duration,
    },
    Measure {
        name: "nginx_ingress_controller_header_duration_seconds",
        help: "The time spent on receiving first header from the upstream server in seconds",
        bounds: &SECONDS,
        unit: 1e-6,
        of: |series| &series.header_duration,
    },
    Measure {
        name: "nginx_ingress_controller_connect_duration_seconds",
        help: "The time spent on establishing a connection with the upstream server in seconds",
        bounds: &SECONDS,
        unit: 1e-6,
        of: |series| &series.connect_duration,
    },
    Measure {
        name: "nginx_ingress_controller_request_size",
        help: "The request length in bytes, with its head",
        bounds: &BYTES,
        unit: 1.0,
        of: |series| &series.request_size,
    },
    Measure {
        name: "nginx_ingress_controller_response_size",
        help: "The response length in bytes, with its head",
        bounds: &BYTES,
        unit: 1.0,
        of: |series| &series.response_size,
    },
];

/// What a thread finds a series by: generation, route, backend, method and status.
type Key = (u64, usize, usize, &'static str, u16);

thread_local! {
    /// Of one collection; a process has one, and tests that have several go by its number.
    static KNOWN: RefCell<(u64, HashMap<Key, Arc<Series>>)> = RefCell::default();
}

/// All series; cheap to clone.
#[derive(Clone)]
pub struct RouteSeries(Arc<Shared>);

struct Shared {
    number: u64,
    detail: Detail,
    /// Labels that all series have: which controller this is.
    constant: Vec<(&'static str, String)>,
    series: Mutex<HashMap<Labels, Arc<Series>>>,
    overflow: IntCounter,
    descriptions: Vec<Desc>,
}

impl RouteSeries {
    /// No series yet. `overflow` counts requests whose series would have been one too many.
    ///
    /// # Errors
    /// A name is not one that Prometheus takes.
    pub(super) fn new(
        detail: Detail,
        constant: Vec<(&'static str, String)>,
        overflow: IntCounter,
    ) -> Result<Self, prometheus::Error> {
        static NUMBERS: AtomicU64 = AtomicU64::new(1);
        let names = MEASURES.iter().map(|measure| (measure.name, measure.help)).chain([REQUESTS]);
        let descriptions = names
            .map(|(name, help)| Desc::new(name.to_owned(), help.to_owned(), Vec::new(), HashMap::new()))
            .collect::<Result<_, _>>()?;
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        let series = Mutex::default();
        Ok(Self(Arc::new(Shared { number, detail, constant, series, overflow, descriptions })))
    }

    /// Counts a request that is over.
    pub fn count(&self, record: &Record) {
        let Some(taken) = record.taken.as_ref().filter(|_| self.0.detail != Detail::Off) else { return };
        let (method, status) = (method(&record.method), record.told_status());
        let route = Arc::as_ptr(&taken.route) as usize;
        let key = (taken.generation.number, route, taken.backend.index(), method, status);
        let series = KNOWN.with_borrow_mut(|(number, known)| {
            if *number != self.0.number || known.len() > MAX_KNOWN {
                known.clear();
                *number = self.0.number;
            }
            if let Some(series) = known.get(&key) {
                return Some(Arc::clone(series));
            }
            let series = self.find(self.labels(record, method, status))?;
            known.insert(key, Arc::clone(&series));
            Some(series)
        });
        match series {
            Some(series) => series.count(record),
            None => self.0.overflow.inc(),
        }
    }

    /// Forgets the series of Ingresses that are not served any more.
    pub fn retain(&self, is_served: impl Fn(&ObjectName) -> bool) {
        let mut series = self.0.series.lock().unwrap_or_else(PoisonError::into_inner);
        series.retain(|labels, _| is_served(&ObjectName::new(&labels.namespace, &labels.ingress)));
    }

    fn find(&self, labels: Labels) -> Option<Arc<Series>> {
        let mut all = self.0.series.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(series) = all.get(&labels) {
            return Some(Arc::clone(series));
        }
        if all.len() >= MAX_SERIES {
            return None;
        }
        Some(Arc::clone(all.entry(labels).or_default()))
    }

    fn labels(&self, record: &Record, method: &'static str, status: u16) -> Labels {
        let Some(taken) = &record.taken else { return Labels::default() };
        let route = &taken.route;
        let mut labels = Labels {
            namespace: route.ingress.namespace.to_string(),
            ingress: route.ingress.name.to_string(),
            ..Labels::default()
        };
        if self.0.detail == Detail::Ingress {
            labels.status = format!("{}xx", status / 100);
            return labels;
        }
        let backend = taken.generation.table.backend(taken.backend);
        labels.service = backend.map(|backend| backend.service.name.to_string()).unwrap_or_default();
        if let Some(canary) = taken.canary() {
            labels.canary = format!("{}-{}-{}", canary.service.namespace, canary.service.name, canary.port);
        }
        labels.host = route.host.as_ref().map_or_else(|| "_".to_owned(), ToString::to_string);
        labels.method = method;
        labels.status = status.to_string();
        if self.0.detail == Detail::Path {
            labels.path = route.path.as_ref().map_or_else(|| "/".to_owned(), |(_, path)| path.clone());
        }
        labels
    }
}

impl Series {
    fn count(&self, record: &Record) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.request_duration.observe_time(record.elapsed());
        self.request_size.observe_bytes(record.request_bytes());
        self.response_size.observe_bytes(record.answer_head_bytes + record.sent);
        let Some(step) = record.trail.last() else { return };
        let parts = [
            (&self.connect_duration, step.connected),
            (&self.header_duration, step.head),
            (&self.response_duration, step.whole),
        ];
        for (histogram, time) in parts {
            if let Some(time) = time {
                histogram.observe_time(time);
            }
        }
    }
}

/// One of the methods that there are; clients could invent names without end.
fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::PATCH => "PATCH",
        Method::OPTIONS => "OPTIONS",
        _ => "OTHER",
    }
}

impl Labels {
    fn told(&self, constant: &[(&'static str, String)], detail: Detail) -> Vec<proto::LabelPair> {
        let all = [
            ("namespace", self.namespace.as_str()),
            ("ingress", &self.ingress),
            ("status", &self.status),
            ("service", &self.service),
            ("canary", &self.canary),
            ("method", self.method),
            ("host", &self.host),
            ("path", &self.path),
        ];
        let count = match detail {
            Detail::Path | Detail::Off => 8,
            Detail::Host => 7,
            Detail::Ingress => 3,
        };
        let own = all.into_iter().take(count);
        let mut pairs: Vec<_> = constant.iter().map(|(name, value)| (*name, value.as_str())).chain(own).collect();
        pairs.sort_unstable();
        pairs.into_iter().map(pair).collect()
    }
}

fn pair((name, value): (&str, &str)) -> proto::LabelPair {
    let mut pair = proto::LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
}

impl Collector for RouteSeries {
    fn desc(&self) -> Vec<&Desc> {
        self.0.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<proto::MetricFamily> {
        let shared = &*self.0;
        let mut all: Vec<_> = {
            let series = shared.series.lock().unwrap_or_else(PoisonError::into_inner);
            series.iter().map(|(labels, series)| (labels.clone(), Arc::clone(series))).collect()
        };
        if all.is_empty() {
            return Vec::new();
        }
        all.sort_by(|(labels, _), (other, _)| labels.cmp(other));
        let all: Vec<_> =
            all.iter().map(|(labels, series)| (labels.told(&shared.constant, shared.detail), series)).collect();
        let requests = all.iter().map(|(labels, series)| {
            let mut counter = proto::Counter::default();
            counter.set_value(series.requests.load(Ordering::Relaxed) as f64);
            let mut metric = proto::Metric::from_label(labels.clone());
            metric.set_counter(counter);
            metric
        });
        let mut families = vec![family(REQUESTS, MetricType::COUNTER, requests.collect())];
        for measure in &MEASURES {
            let metrics = all.iter().map(|(labels, series)| {
                let mut metric = proto::Metric::from_label(labels.clone());
                metric.set_histogram((measure.of)(series).told(measure.bounds, measure.unit));
                metric
            });
            families.push(family((measure.name, measure.help), MetricType::HISTOGRAM, metrics.collect()));
        }
        families
    }
}

fn family((name, help): (&str, &str), kind: MetricType, metrics: Vec<proto::Metric>) -> proto::MetricFamily {
    let mut family = proto::MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}
