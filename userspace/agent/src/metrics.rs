//! The agent's metrics. Labels are bounded by the configuration: Services and reasons, never clients.

use std::{collections::HashMap, time::Duration};

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, core::Collector,
};
use roadstead_abi::DropReason;
use roadstead_dataplane::{
    conntrack::Collected,
    counters::DropCount,
    frontends::{EndpointAddress, ServicePortName},
    maps::{MapError, Maps},
    reconcile::Reconciler,
    traffic::TrafficMaps,
};
use roadstead_model::{Severity, Snapshot};

use crate::traffic::Traffic;

/// Handles of all metrics.
pub(crate) struct Metrics {
    sync_seconds: Histogram,
    sync_failures: IntCounter,
    generation: IntGauge,
    fill: IntGaugeVec,
    problems: IntGaugeVec,
    conntrack_entries: IntGauge,
    conntrack_freed: IntCounter,
    drops: IntCounterVec,
    services: Traffic<ServicePortName>,
    backends: Traffic<EndpointAddress>,
    /// Counts already told: the kernel's counters only grow, and survive this process.
    told: HashMap<(DropReason, u32), u64>,
}

impl Metrics {
    /// Makes and registers them.
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let buckets = prometheus::exponential_buckets(0.000_1, 4.0, 9)?;
        let sync = HistogramOpts::new("roadstead_agent_sync_duration_seconds", "Time to bring the maps to a snapshot.");
        let fill = Opts::new("roadstead_agent_map_entries", "Entries in use, by table.");
        let problems = Opts::new("roadstead_config_problems", "Problems of the configuration, by severity.");
        let drops = Opts::new("roadstead_agent_not_forwarded_total", "Packets and connections that were refused.");
        Ok(Self {
            sync_seconds: with(registry, Histogram::with_opts(sync.buckets(buckets))?)?,
            sync_failures: with(
                registry,
                IntCounter::new("roadstead_agent_sync_failures_total", "Rounds that failed and were tried again.")?,
            )?,
            generation: with(
                registry,
                IntGauge::new("roadstead_agent_generation", "Generation of the snapshot that the maps hold.")?,
            )?,
            fill: with(registry, IntGaugeVec::new(fill, &["table"])?)?,
            problems: with(registry, IntGaugeVec::new(problems, &["severity"])?)?,
            conntrack_entries: with(
                registry,
                IntGauge::new("roadstead_agent_conntrack_entries", "Conntrack entries; a flow has two.")?,
            )?,
            conntrack_freed: with(
                registry,
                IntCounter::new("roadstead_agent_conntrack_freed_total", "Expired conntrack entries freed.")?,
            )?,
            drops: with(registry, IntCounterVec::new(drops, &["reason", "namespace", "service", "port"])?)?,
            services: Traffic::register(registry)?,
            backends: Traffic::register(registry)?,
            told: HashMap::new(),
        })
    }

    /// The maps hold this snapshot.
    pub(crate) fn synced(&self, snapshot: &Snapshot, took: Duration, fill: &[(&str, usize)]) {
        if !took.is_zero() {
            self.sync_seconds.observe(took.as_secs_f64());
        }
        self.generation.set(i64::try_from(snapshot.generation).unwrap_or(i64::MAX));
        for (table, entries) in fill {
            self.fill.with_label_values(&[table]).set(count(*entries));
        }
        for severity in [Severity::Warning, Severity::Error] {
            let found = snapshot.problems.iter().filter(|problem| problem.severity == severity).count();
            self.problems.with_label_values(&[&severity.to_string()]).set(count(found));
        }
    }

    /// A round failed.
    pub(crate) fn failed(&self) {
        self.sync_failures.inc();
    }

    /// A collection of expired flows has ended.
    pub(crate) fn conntrack(&self, collected: &Collected) {
        self.conntrack_entries.set(count(collected.live));
        self.conntrack_freed.inc_by(collected.freed as u64);
    }

    /// What Services and backends have carried, by the ids that the reconciler has given them.
    pub(crate) fn traffic<M: Maps>(&mut self, maps: &TrafficMaps, ids: &Reconciler<M>) -> Result<(), MapError> {
        let (ports, backends) = ids.ids_end();
        self.services.told(&maps.services(ports)?, |id| ids.port_name(id));
        self.backends.told(&maps.backends(backends)?, |id| ids.backend_name(id));
        Ok(())
    }

    /// The programs' counters.
    pub(crate) fn drops<'a>(&mut self, drops: &[DropCount], name: impl Fn(u32) -> Option<&'a ServicePortName>) {
        for drop in drops {
            let told = self.told.entry((drop.reason, drop.service)).or_default();
            let fresh = drop.count.saturating_sub(*told);
            *told = drop.count;
            if fresh == 0 {
                continue;
            }
            let port = name(drop.service);
            let labels = [
                drop.reason.as_str(),
                port.map_or("", |port| &port.service.namespace),
                port.map_or("", |port| &port.service.name),
                port.map_or("", |port| &*port.port),
            ];
            self.drops.with_label_values(&labels).inc_by(fresh);
        }
    }
}

fn with<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> Result<C, prometheus::Error> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
