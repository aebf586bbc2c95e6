//! Samples of all proxies in one case, round by round, and the table that they make.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::load::Sample;
use super::proxies::Proxy;
use crate::report::{Table, number, spread};
use crate::series::Series;

/// Every round of every proxy.
#[derive(Debug, Default)]
pub(crate) struct Rounds(BTreeMap<Proxy, Vec<Sample>>);

/// What others are compared with.
const MEASURE: Proxy = Proxy::Nginx;

impl Rounds {
    pub(crate) fn add(&mut self, proxy: Proxy, sample: Sample) {
        self.0.entry(proxy).or_default().push(sample);
    }

    pub(crate) fn proxies(&self) -> impl Iterator<Item = Proxy> {
        self.0.keys().copied()
    }

    /// One figure of all rounds.
    pub(crate) fn series(&self, proxy: Proxy, field: fn(&Sample) -> f64) -> Series {
        self.0.get(&proxy).into_iter().flatten().map(field).collect()
    }

    /// The same as a multiple of nginx's in the same round.
    pub(crate) fn ratio(&self, proxy: Proxy, field: fn(&Sample) -> f64) -> Series {
        let rounds = |proxy| self.0.get(&proxy).into_iter().flatten();
        rounds(proxy).zip(rounds(MEASURE)).map(|(own, other)| field(own) / field(other)).collect()
    }

    /// A row a proxy.
    pub(crate) fn table(&self, title: String, remarks: Vec<String>) -> Table {
        let head = ["proxy", "CPU us/request", "x nginx", "requests/s", "x nginx", "p50 ms", "p99 ms"];
        let row = |proxy: Proxy| {
            let multiple = |field| spread(&self.ratio(proxy, field), |value| format!("{value:.2}"));
            vec![
                proxy.name().to_owned(),
                spread(&self.series(proxy, |sample| sample.cpu), number),
                multiple(|sample| sample.cpu),
                number(self.series(proxy, |sample| sample.per_second).median()),
                multiple(|sample| sample.per_second),
                number(self.series(proxy, |sample| sample.p50_ms).median()),
                number(self.series(proxy, |sample| sample.p99_ms).median()),
            ]
        };
        Table { title, head: head.map(str::to_owned).to_vec(), rows: self.proxies().map(row).collect(), remarks }
    }

    pub(crate) fn json(&self) -> Value {
        self.0
            .iter()
            .map(|(proxy, samples)| (proxy.name().to_owned(), Sample::json(samples)))
            .collect::<serde_json::Map<_, _>>()
            .into()
    }
}

/// The first table: who needs how much of nginx's processor time, by case.
pub(crate) fn summary(cases: &[(&'static str, &Rounds)]) -> Table {
    let proxies: Vec<Proxy> = cases.first().map(|(_, rounds)| rounds.proxies().collect()).unwrap_or_default();
    let mut head = vec!["CPU time for one request, x nginx".to_owned()];
    head.extend(proxies.iter().map(|proxy| proxy.name().to_owned()));
    let row = |(name, rounds): &(&'static str, &Rounds)| {
        let cells = proxies
            .iter()
            .map(|proxy| spread(&rounds.ratio(*proxy, |sample| sample.cpu), |value| format!("{value:.2}")));
        [(*name).to_owned()].into_iter().chain(cells).collect()
    };
    Table {
        title: "Summary".to_owned(),
        head,
        rows: cases.iter().map(row).collect(),
        remarks: [
            "Median of the rounds' own ratios (quartiles). CPU time is what the kernel accounts to all threads of the proxy.",
            "roadstead writes its access log to a file, sets ingress-nginx's request fields and counts metrics: all defaults.",
            "nginx, logging does the same of it; nginx, haproxy and envoy log no request and set the usual four fields.",
        ]
        .map(str::to_owned)
        .to_vec(),
    }
}

/// Figures by proxy.
pub(crate) fn by_proxy(figures: impl IntoIterator<Item = (Proxy, Value)>) -> Value {
    json!(figures.into_iter().map(|(proxy, value)| (proxy.name().to_owned(), value)).collect::<BTreeMap<_, _>>())
}
