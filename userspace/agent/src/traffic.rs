//! Metrics of what Services and backends have carried. Labels are bounded by the configuration: a series goes with its
//! Service.
//!
//! The kernel counts by id, and an id may come to mean something else. So what is told is the difference since the last
//! look: a new name begins with what its id has counted since then.

use std::{collections::HashMap, net::SocketAddr};

use prometheus::{IntCounter, IntCounterVec, Opts, Registry};
use roadstead_abi::Counters;
use roadstead_dataplane::{
    addresses::from_map,
    frontends::{EndpointAddress, ServicePortName},
};

/// Who carries traffic.
pub(crate) trait Carrier: Clone + Eq {
    /// First word of the metrics' names behind ours.
    const PART: &'static str;
    /// What it is called in the metrics' help.
    const WHAT: &'static str;
    /// Names of the labels.
    const LABELS: &'static [&'static str];
    /// Their values.
    fn labels(&self) -> Vec<String>;
}

impl Carrier for ServicePortName {
    const PART: &'static str = "service";
    const WHAT: &'static str = "Service port";
    const LABELS: &'static [&'static str] = &["namespace", "service", "port"];

    fn labels(&self) -> Vec<String> {
        vec![self.service.namespace.to_string(), self.service.name.to_string(), self.port.to_string()]
    }
}

impl Carrier for EndpointAddress {
    const PART: &'static str = "backend";
    const WHAT: &'static str = "backend";
    const LABELS: &'static [&'static str] = &["backend"];

    fn labels(&self) -> Vec<String> {
        vec![SocketAddr::new(from_map(&self.0), self.1.get()).to_string()]
    }
}

/// The metrics of all carriers of a kind.
pub(crate) struct Traffic<C> {
    connections: IntCounterVec,
    packets: IntCounterVec,
    bytes: IntCounterVec,
    /// The kernel's counters at the last look, by id.
    last: Vec<Counters>,
    series: HashMap<u32, Series<C>>,
}

struct Series<C> {
    carrier: C,
    connections: IntCounter,
    /// In, then out.
    packets: [IntCounter; 2],
    bytes: [IntCounter; 2],
}

const DIRECTIONS: [&str; 2] = ["in", "out"];

impl<C: Carrier> Traffic<C> {
    /// Makes and registers the metrics.
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let make = |what: &str, help: &str, direction: &[&str]| {
            let name = format!("roadstead_{}_{what}_total", C::PART);
            let labels: Vec<&str> = C::LABELS.iter().chain(direction).copied().collect();
            let counter = IntCounterVec::new(Opts::new(name, format!("{help} of a {}.", C::WHAT)), &labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        Ok(Self {
            connections: make("connections", "New flows and connections", &[])?,
            packets: make("packets", "Packets from (in) and to (out) clients", &["direction"])?,
            bytes: make("bytes", "Bytes from (in) and to (out) clients", &["direction"])?,
            last: Vec::new(),
            series: HashMap::new(),
        })
    }

    /// Takes the kernel's counters, by id from 0 on, and whose the ids are now.
    pub(crate) fn told<'a>(&mut self, counters: &[Counters], carrier: impl Fn(u32) -> Option<&'a C>)
    where
        C: 'a,
    {
        let gone: Vec<u32> = self
            .series
            .iter()
            .filter(|(id, series)| carrier(**id) != Some(&series.carrier))
            .map(|(id, _)| *id)
            .collect();
        for series in gone.into_iter().filter_map(|id| self.series.remove(&id)).collect::<Vec<_>>() {
            self.remove(&series.carrier);
        }
        if self.last.len() < counters.len() {
            self.last.resize(counters.len(), Counters::default());
        }
        for (id, now) in (0_u32..).zip(counters) {
            let Some(last) = self.last.get_mut(id as usize) else { break };
            let fresh = since(last, now);
            *last = *now;
            if fresh != Counters::default()
                && let Some(carrier) = carrier(id)
            {
                self.add(id, carrier, &fresh);
            }
        }
    }

    fn add(&mut self, id: u32, carrier: &C, fresh: &Counters) {
        if !self.series.contains_key(&id) {
            let series = self.begin(carrier);
            self.series.insert(id, series);
        }
        let Some(series) = self.series.get(&id) else { return };
        series.connections.inc_by(fresh.connections);
        let [packets, bytes] = [[fresh.in_packets, fresh.out_packets], [fresh.in_bytes, fresh.out_bytes]];
        series.packets.iter().zip(packets).for_each(|(counter, count)| counter.inc_by(count));
        series.bytes.iter().zip(bytes).for_each(|(counter, count)| counter.inc_by(count));
    }

    fn begin(&self, carrier: &C) -> Series<C> {
        let labels = carrier.labels();
        let both = |counter: &IntCounterVec| DIRECTIONS.map(|way| counter.with_label_values(&directed(&labels, way)));
        Series {
            connections: self.connections.with_label_values(&labels),
            packets: both(&self.packets),
            bytes: both(&self.bytes),
            carrier: carrier.clone(),
        }
    }

    /// What was never there cannot be removed, which is as good.
    fn remove(&self, carrier: &C) {
        let labels = carrier.labels();
        let _ = self.connections.remove_label_values(&labels);
        for way in DIRECTIONS {
            let _ = self.packets.remove_label_values(&directed(&labels, way));
            let _ = self.bytes.remove_label_values(&directed(&labels, way));
        }
    }
}

fn directed(labels: &[String], way: &str) -> Vec<String> {
    labels.iter().cloned().chain([way.to_owned()]).collect()
}

/// The difference; a counter that is behind its last value belongs to a new map.
fn since(last: &Counters, now: &Counters) -> Counters {
    let of = |last: u64, now: u64| if now < last { now } else { now - last };
    Counters {
        connections: of(last.connections, now.connections),
        in_packets: of(last.in_packets, now.in_packets),
        in_bytes: of(last.in_bytes, now.in_bytes),
        out_packets: of(last.out_packets, now.out_packets),
        out_bytes: of(last.out_bytes, now.out_bytes),
    }
}

#[cfg(test)]
mod tests {
    use prometheus::TextEncoder;
    use roadstead_abi::{Addr, Be16};

    use super::*;

    fn counters(connections: u64) -> Counters {
        Counters {
            connections,
            in_packets: connections * 10,
            in_bytes: connections * 100,
            out_packets: 1,
            out_bytes: 2,
        }
    }

    fn connections(registry: &Registry) -> Vec<String> {
        let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        text.lines().filter(|line| line.starts_with("roadstead_backend_connections_total")).map(str::to_owned).collect()
    }

    type Step<'a> = (&'a [Counters], [Option<&'a EndpointAddress>; 3], Vec<String>);

    #[test]
    fn an_id_that_means_something_else_begins_a_new_series() {
        let registry = Registry::new();
        let mut traffic = Traffic::<EndpointAddress>::register(&registry).unwrap();
        let backend = |last| (Addr::v4([10, 0, 0, last]), Be16::new(80));
        let line = |last, count| format!("roadstead_backend_connections_total{{backend=\"10.0.0.{last}:80\"}} {count}");
        let (first, second) = (backend(1), backend(2));
        let none = Counters::default();
        // The kernel's counters by id, whose they are, and what is told then.
        let steps: [Step<'_>; 6] = [
            (&[none, counters(5)], [None, Some(&first), None], vec![line(1, 5)]),
            (&[none, counters(7), counters(1)], [None, Some(&first), Some(&second)], vec![line(1, 7), line(2, 1)]),
            (&[none, counters(7), counters(1)], [None, None, Some(&second)], vec![line(2, 1)]),
            (&[none, counters(9), counters(1)], [None, None, None], vec![]),
            (&[none, counters(12), counters(1)], [None, Some(&second), None], vec![line(2, 3)]),
            // A new map.
            (&[none, counters(2)], [None, Some(&second), None], vec![line(2, 5)]),
        ];
        for (number, (kernel, names, expected)) in steps.into_iter().enumerate() {
            traffic.told(kernel, |id| names.get(id as usize).copied().flatten());
            assert_eq!(connections(&registry), expected, "step {number}");
        }
        let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        assert!(
            text.contains("roadstead_backend_packets_total{backend=\"10.0.0.2:80\",direction=\"in\"} 50"),
            "{text}"
        );
        assert!(text.contains("roadstead_backend_bytes_total{backend=\"10.0.0.2:80\",direction=\"out\"}"), "{text}");
    }
}
