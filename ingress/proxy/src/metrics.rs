//! What the proxy counts. Labels are bounded by this code, never by traffic or configuration.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, core::Collector};

use crate::upstream::Failure;

/// All counters; cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    requests: [IntCounter; 5],
    in_flight: IntGauge,
    /// Open client connections.
    pub connections: IntGauge,
    /// TLS handshakes that did not come to an end.
    pub handshake_failures: IntCounter,
    upstream_errors: IntCounterVec,
    /// The routes in use.
    pub generation: IntGauge,
    /// What is wrong with the configuration now.
    pub problems: IntGaugeVec,
}

impl Metrics {
    /// Registers everything.
    ///
    /// # Errors
    /// A name is taken in that registry.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let requests = counters("requests_total", "Requests answered, by class of status.", "status")?;
        register(registry, &requests)?;
        let metrics = Self {
            requests: ["1xx", "2xx", "3xx", "4xx", "5xx"].map(|class| requests.with_label_values(&[class])),
            in_flight: IntGauge::new(name("requests_in_flight"), "Requests whose answer is not yet complete.")?,
            connections: IntGauge::new(name("client_connections"), "Open client connections.")?,
            handshake_failures: IntCounter::new(name("tls_handshake_failures_total"), "TLS handshakes that failed.")?,
            upstream_errors: counters("upstream_errors_total", "Requests without an endpoint's answer.", "cause")?,
            generation: IntGauge::new(name("config_generation"), "Counts up with every change of the routes.")?,
            problems: IntGaugeVec::new(
                Opts::new(name("config_problems"), "What is wrong with the configuration now."),
                &["severity"],
            )?,
        };
        register(registry, &metrics.in_flight)?;
        register(registry, &metrics.connections)?;
        register(registry, &metrics.handshake_failures)?;
        register(registry, &metrics.upstream_errors)?;
        register(registry, &metrics.generation)?;
        register(registry, &metrics.problems)?;
        Ok(metrics)
    }

    /// Counts a request until the value is dropped.
    #[must_use]
    pub fn begin(&self) -> InFlight {
        InFlight::new(&self.in_flight)
    }

    /// Counts an answer.
    pub fn answered(&self, status: u16) {
        if let Some(counter) = self.requests.get(usize::from(status / 100).saturating_sub(1)) {
            counter.inc();
        }
    }

    /// Counts a request that no endpoint answered.
    pub fn failed(&self, failure: Failure) {
        let cause = match failure {
            Failure::NoEndpoint => "no_endpoint",
            Failure::Connect => "connect",
            Failure::ConnectTimeout => "connect_timeout",
            Failure::Broken => "broken",
            Failure::Silent => "timeout",
            Failure::Client => "client",
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

fn name(what: &str) -> String {
    format!("roadstead_ingress_{what}")
}

fn counters(what: &str, help: &str, label: &str) -> Result<IntCounterVec, prometheus::Error> {
    IntCounterVec::new(Opts::new(name(what), help), &[label])
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, collector: &C) -> Result<(), prometheus::Error> {
    registry.register(Box::new(collector.clone()))
}
