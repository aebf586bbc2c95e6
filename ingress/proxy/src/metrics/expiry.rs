//! When certificates end, under ingress-nginx's name, so that alarms made for it go on.
//!
//! Labels are hosts and Secrets of the configuration; where hosts are not told apart (`--metrics-detail`), nothing is told.

use std::sync::Arc;

use arc_swap::ArcSwap;
use prometheus::{
    IntGaugeVec, Opts,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use roadstead_model::ObjectName;

use super::Detail;

const EXPIRE: (&str, &str) =
    ("nginx_ingress_controller_ssl_expire_time_seconds", "Number of seconds since 1970 to the SSL Certificate expire");

/// A host's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// As a rule writes it.
    pub host: String,
    /// Where it comes from.
    pub secret: ObjectName,
    /// Its serial number in decimal.
    pub serial: String,
    /// Its last second, since the epoch.
    pub at: i64,
}

/// The certificates in use; cheap to clone.
#[derive(Clone)]
pub struct ExpiryGauges(Arc<Shared>);

struct Shared {
    detail: Detail,
    constant: Vec<(&'static str, String)>,
    all: ArcSwap<Vec<Expiry>>,
    descriptions: Vec<Desc>,
}

impl ExpiryGauges {
    /// # Errors
    /// A name is not one that Prometheus takes.
    pub(super) fn new(detail: Detail, constant: Vec<(&'static str, String)>) -> Result<Self, prometheus::Error> {
        let descriptions = gauges(&constant)?.desc().into_iter().cloned().collect();
        Ok(Self(Arc::new(Shared { detail, constant, all: ArcSwap::default(), descriptions })))
    }

    /// Tells of these from now on.
    pub fn show(&self, all: Vec<Expiry>) {
        if **self.0.all.load() != all {
            self.0.all.store(Arc::new(all));
        }
    }
}

fn gauges(constant: &[(&'static str, String)]) -> Result<IntGaugeVec, prometheus::Error> {
    let opts =
        constant.iter().fold(Opts::new(EXPIRE.0, EXPIRE.1), |opts, (label, value)| opts.const_label(*label, value));
    IntGaugeVec::new(opts, &["class", "host", "identifier", "namespace", "secret_name"])
}

impl Collector for ExpiryGauges {
    fn desc(&self) -> Vec<&Desc> {
        self.0.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let all = self.0.all.load();
        if all.is_empty() || matches!(self.0.detail, Detail::Ingress | Detail::Off) {
            return Vec::new();
        }
        let Ok(gauges) = gauges(&self.0.constant) else { return Vec::new() };
        let class = self.0.constant.iter().find(|(name, _)| *name == "controller_class").map_or("", |(_, class)| class);
        for Expiry { host, secret, serial, at } in &**all {
            let identifier = format!("{}-{serial}", secret.namespace);
            gauges.with_label_values(&[class, host, &identifier, &secret.namespace, &secret.name]).set(*at);
        }
        gauges.collect()
    }
}
