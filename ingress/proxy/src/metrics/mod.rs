//! What the proxy counts: totals under our own names here, routes under ingress-nginx's in `series`. Labels are bounded by
//! this code and by the configuration, never by traffic.

mod expiry;
mod histogram;
mod pools;
mod process;
mod series;

pub use expiry::{Expiry, ExpiryGauges};
pub use pools::PoolGauges;
pub use series::{Detail, RouteSeries};

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, core::Collector};

use crate::{record::Record, upstream::Failure};

/// How much is told, and who tells it.
#[derive(Clone, Debug, Default)]
pub struct MetricsOptions {
    /// How finely requests are told apart.
    pub detail: Detail,
    /// Labels of every series of a route, such as ingress-nginx's `controller_class`.
    pub constant: Vec<(&'static str, String)>,
}

/// All counters; cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    requests: [IntCounter; 5],
    in_flight: IntGauge,
    /// Open client connections.
    pub connections: IntGauge,
    /// TLS handshakes that did not come to an end.
    pub handshake_failures: IntCounter,
    refused_connections: IntCounterVec,
    upstream_errors: IntCounterVec,
    upstream_retries: IntCounter,
    /// The endpoints of the routes in use.
    pub pools: PoolGauges,
    /// The certificates in use.
    pub certificates: ExpiryGauges,
    /// The routes in use.
    pub generation: IntGauge,
    /// What is wrong with the configuration now.
    pub problems: IntGaugeVec,
    /// Requests by route.
    pub routes: RouteSeries,
    /// Lines of the access log that nobody took in time.
    pub log_lines_lost: IntCounter,
    updates: Updates,
}

/// Changes of the configuration, under the names that ingress-nginx's dashboards know.
#[derive(Clone)]
struct Updates {
    done: IntCounter,
    successful: IntGauge,
    at: IntGauge,
}

impl Metrics {
    /// Registers everything.
    ///
    /// # Errors
    /// A name is taken in that registry.
    pub fn new(registry: &Registry, options: &MetricsOptions) -> Result<Self, prometheus::Error> {
        let overflow = IntCounter::new(
            name("route_series_overflow_total"),
            "Requests that are in no series of a route, for there are too many.",
        )?;
        let updates = Updates {
            done: IntCounter::new(NGINX_SUCCESS.0, NGINX_SUCCESS.1)?,
            successful: IntGauge::new(NGINX_RELOADED.0, NGINX_RELOADED.1)?,
            at: IntGauge::new(NGINX_RELOADED_AT.0, NGINX_RELOADED_AT.1)?,
        };
        let requests = counters("requests_total", "Requests answered, by class of status.", "status")?;
        register(registry, &requests)?;
        let metrics = Self {
            requests: ["1xx", "2xx", "3xx", "4xx", "5xx"].map(|class| requests.with_label_values(&[class])),
            in_flight: IntGauge::new(name("requests_in_flight"), "Requests whose answer is not yet complete.")?,
            connections: IntGauge::new(name("client_connections"), "Open client connections.")?,
            handshake_failures: IntCounter::new(name("tls_handshake_failures_total"), "TLS handshakes that failed.")?,
            refused_connections: counters(
                "refused_connections_total",
                "Client connections that were closed before they brought anything.",
                "reason",
            )?,
            upstream_errors: counters("upstream_errors_total", "Requests without an endpoint's answer.", "cause")?,
            upstream_retries: IntCounter::new(
                name("upstream_retries_total"),
                "Times that a request went on to another endpoint.",
            )?,
            pools: PoolGauges::new(options.detail)?,
            certificates: ExpiryGauges::new(options.detail, options.constant.clone())?,
            generation: IntGauge::new(name("config_generation"), "Counts up with every change of the routes.")?,
            problems: IntGaugeVec::new(
                Opts::new(name("config_problems"), "What is wrong with the configuration now."),
                &["severity"],
            )?,
            routes: RouteSeries::new(options.detail, options.constant.clone(), overflow.clone())?,
            log_lines_lost: IntCounter::new(
                name("access_log_lines_lost_total"),
                "Lines of the access log that were dropped because they were not taken in time.",
            )?,
            updates,
        };
        register(registry, &metrics.in_flight)?;
        register(registry, &metrics.connections)?;
        register(registry, &metrics.handshake_failures)?;
        register(registry, &metrics.refused_connections)?;
        register(registry, &metrics.upstream_errors)?;
        register(registry, &metrics.upstream_retries)?;
        register(registry, &metrics.pools)?;
        register(registry, &metrics.certificates)?;
        registry.register(Box::new(process::ProcessMetrics::new(options.constant.clone())?))?;
        register(registry, &metrics.generation)?;
        register(registry, &metrics.problems)?;
        register(registry, &metrics.routes)?;
        register(registry, &metrics.log_lines_lost)?;
        register(registry, &overflow)?;
        register(registry, &metrics.updates.done)?;
        register(registry, &metrics.updates.successful)?;
        register(registry, &metrics.updates.at)?;
        Ok(metrics)
    }

    /// Counts a request until the value is dropped.
    #[must_use]
    pub fn begin(&self) -> InFlight {
        InFlight::new(&self.in_flight)
    }

    /// Counts a request that is over.
    pub fn ended(&self, record: &Record) {
        let status = record.told_status();
        if let Some(counter) = self.requests.get(usize::from(status / 100).saturating_sub(1)) {
            counter.inc();
        }
        self.routes.count(record);
    }

    /// Other routes are served from now on.
    pub fn updated(&self) {
        self.generation.inc();
        self.updates.done.inc();
        self.updates.successful.set(1);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        self.updates.at.set(i64::try_from(now).unwrap_or(i64::MAX));
    }

    /// Counts how often a request went on to another endpoint.
    pub fn retried(&self, times: usize) {
        if times > 0 {
            self.upstream_retries.inc_by(times as u64);
        }
    }

    /// Counts a connection that was closed before it brought anything; the reason is one of a few words of the edge's.
    pub fn refused_connection(&self, reason: &'static str) {
        self.refused_connections.with_label_values(&[reason]).inc();
    }

    /// Counts a request that no endpoint answered.
    pub fn failed(&self, failure: Failure) {
        let cause = match failure {
            Failure::NoEndpoint => "no_endpoint",
            Failure::Connect => "connect",
            Failure::ConnectTimeout => "connect_timeout",
            Failure::Broken => "broken",
            Failure::Silent => "timeout",
            Failure::NoTransport => "no_transport",
            Failure::NoLength => "no_length",
            Failure::BadAnswer => "bad_answer",
            Failure::Client => "client",
            Failure::TooLarge => "too_large",
            Failure::SlowClient => "client_timeout",
        };
        self.upstream_errors.with_label_values(&[cause]).inc();
    }
}

/// One of something that is going on; counted until it is dropped.
pub struct InFlight(IntGauge);

impl InFlight {
    /// Counts one more.
    #[must_use]
    pub fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

const NGINX_SUCCESS: (&str, &str) =
    ("nginx_ingress_controller_success", "Cumulative number of configuration changes that were taken over");
const NGINX_RELOADED: (&str, &str) = (
    "nginx_ingress_controller_config_last_reload_successful",
    "Whether the last configuration was taken over; a part that is wrong is left out and counted elsewhere",
);
const NGINX_RELOADED_AT: (&str, &str) = (
    "nginx_ingress_controller_config_last_reload_successful_timestamp_seconds",
    "Timestamp of the last configuration that was taken over",
);

fn name(what: &str) -> String {
    format!("roadstead_ingress_{what}")
}

fn counters(what: &str, help: &str, label: &str) -> Result<IntCounterVec, prometheus::Error> {
    IntCounterVec::new(Opts::new(name(what), help), &[label])
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, collector: &C) -> Result<(), prometheus::Error> {
    registry.register(Box::new(collector.clone()))
}
