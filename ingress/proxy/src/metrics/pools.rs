//! The pools of endpoints, counted when somebody looks: how many are ready, draining, left alone, and what they have to do.
//!
//! Labels are Services of the configuration; where routes are not told apart (`--metrics-detail`), neither are Services.

use std::sync::Arc;

use arc_swap::ArcSwap;
use prometheus::{
    IntGaugeVec, Opts,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use roadstead_routes::Backend;

use super::{Detail, name};
use crate::upstream::{Census, Pool};

const ENDPOINTS: (&str, &str) = (
    "upstream_endpoints",
    "Endpoints by state: ready, draining, or ejected: those of the ready ones that are left alone.",
);
const IN_FLIGHT: (&str, &str) = ("upstream_requests_in_flight", "Requests that endpoints have and have not finished.");

/// The pools that are served from; cheap to clone.
#[derive(Clone)]
pub struct PoolGauges(Arc<Shared>);

struct Shared {
    detail: Detail,
    pools: ArcSwap<Vec<(Backend, Arc<Pool>)>>,
    descriptions: Vec<Desc>,
}

impl PoolGauges {
    /// No pools yet.
    ///
    /// # Errors
    /// A name is not one that Prometheus takes.
    pub(super) fn new(detail: Detail) -> Result<Self, prometheus::Error> {
        let gauges = [endpoints(detail)?, in_flight(detail)?];
        let descriptions = gauges.iter().flat_map(|gauge| gauge.desc().into_iter().cloned()).collect();
        Ok(Self(Arc::new(Shared { detail, pools: ArcSwap::default(), descriptions })))
    }

    /// Tells of these from now on.
    pub fn show(&self, pools: Vec<(Backend, Arc<Pool>)>) {
        self.0.pools.store(Arc::new(pools));
    }

    fn count(&self) -> Result<Vec<MetricFamily>, prometheus::Error> {
        let (endpoints, in_flight) = (endpoints(self.0.detail)?, in_flight(self.0.detail)?);
        for (backend, pool) in &**self.0.pools.load() {
            let Census { ready, draining, ejected, in_flight: requests } = pool.census();
            let port = backend.port.to_string();
            let mut labels = match self.0.detail {
                Detail::Path | Detail::Host => vec![&*backend.service.namespace, &*backend.service.name, &port],
                Detail::Ingress | Detail::Off => Vec::new(),
            };
            let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
            // Two ways to reach one Service are one Service here.
            in_flight.get_metric_with_label_values(&labels)?.add(number(requests));
            for (state, count) in [("ready", ready), ("draining", draining), ("ejected", ejected)] {
                labels.push(state);
                endpoints.get_metric_with_label_values(&labels)?.add(number(count));
                labels.pop();
            }
        }
        Ok(endpoints.collect().into_iter().chain(in_flight.collect()).collect())
    }
}

impl Collector for PoolGauges {
    fn desc(&self) -> Vec<&Desc> {
        self.0.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.count().unwrap_or_else(|error| {
            tracing::error!(%error, "pools cannot be counted");
            Vec::new()
        })
    }
}

fn endpoints(detail: Detail) -> Result<IntGaugeVec, prometheus::Error> {
    gauge(ENDPOINTS, detail, &["state"])
}

fn in_flight(detail: Detail) -> Result<IntGaugeVec, prometheus::Error> {
    gauge(IN_FLIGHT, detail, &[])
}

fn gauge((what, help): (&str, &str), detail: Detail, own: &[&str]) -> Result<IntGaugeVec, prometheus::Error> {
    let service: &[&str] = match detail {
        Detail::Path | Detail::Host => &["namespace", "service", "port"],
        Detail::Ingress | Detail::Off => &[],
    };
    IntGaugeVec::new(Opts::new(name(what), help), &[service, own].concat())
}
