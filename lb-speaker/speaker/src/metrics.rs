//! What the speaker counts, after MetalLB's metrics. Labels are addresses, Services, pools and peers of the
//! configuration, never anything that traffic can choose.

use std::{collections::BTreeMap, net::IpAddr};

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};
use roadstead_allocator::Allocation;
use roadstead_layer2::membership::PeerState;
use roadstead_model::{Severity, Snapshot};

use crate::plan::Owned;

/// All metrics of the speaker; a clone counts into the same ones.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    announced: IntGaugeVec,
    peers: IntGaugeVec,
    disagreeing: IntGaugeVec,
    gratuitous: IntCounterVec,
    requests: IntCounterVec,
    responses: IntCounterVec,
    rivals: IntCounterVec,
    frames: IntCounter,
    dropped: IntCounter,
    occupied: IntGauge,
    pools: Pools,
    loaded: IntGauge,
    stale: IntGauge,
    pending: IntGaugeVec,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let gauge = |name: &str, help: &str, labels: &[&str]| -> prometheus::Result<IntGaugeVec> {
            let gauge = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let counter = |name: &str, help: &str| -> prometheus::Result<IntCounterVec> {
            let counter = IntCounterVec::new(Opts::new(name, help), &["ip"])?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let frames = IntCounter::new(
            "roadstead_speaker_frames_received_total",
            "Frames that passed the filter: ARP, and NDP about neighbours",
        )?;
        registry.register(Box::new(frames.clone()))?;
        let dropped = IntCounter::new(
            "roadstead_speaker_frames_dropped_total",
            "Such frames that the kernel dropped, as they came faster than they were read",
        )?;
        registry.register(Box::new(dropped.clone()))?;
        let occupied = IntGauge::new(
            "roadstead_speaker_addresses_occupied",
            "Addresses of pools that another host was found to have",
        )?;
        registry.register(Box::new(occupied.clone()))?;
        let loaded = IntGauge::new("metallb_k8s_client_config_loaded_bool", "1 once a configuration was read")?;
        registry.register(Box::new(loaded.clone()))?;
        let stale = IntGauge::new(
            "metallb_k8s_client_config_stale_bool",
            "1 while a part of the configuration has errors, and its last good version serves",
        )?;
        registry.register(Box::new(stale.clone()))?;
        let announced = ["service", "protocol", "node", "ip"];
        Ok(Self {
            announced: gauge("metallb_speaker_announced", "Addresses that this node announces", &announced)?,
            peers: gauge("roadstead_speaker_peer_alive", "Whether a configured peer is alive", &["peer"])?,
            disagreeing: gauge(
                "roadstead_speaker_peer_files_differ",
                "1 for a live peer whose copy of the files has differed from this node's for a while",
                &["peer"],
            )?,
            gratuitous: counter("metallb_layer2_gratuitous_sent", "Unasked announcements sent, in frames")?,
            requests: counter("metallb_layer2_requests_received", "ARP requests and NDP solicitations")?,
            responses: counter("metallb_layer2_responses_sent", "Answers sent to them")?,
            rivals: counter(
                "roadstead_speaker_rivals_total",
                "Frames in which another host claims an announced address",
            )?,
            frames,
            dropped,
            occupied,
            pools: Pools::new(&gauge)?,
            loaded,
            stale,
            pending: gauge("roadstead_allocator_services", "Services of type LoadBalancer", &["state"])?,
        })
    }

    pub(crate) fn announced(&self, node: &str, owned: &BTreeMap<IpAddr, Owned>) {
        self.announced.reset();
        for (ip, owned) in owned {
            for service in &owned.services {
                let labels = [&service.to_string(), "layer2", node, &ip.to_string()];
                self.announced.with_label_values(&labels).set(1);
            }
        }
    }

    pub(crate) fn config(&self, snapshot: &Snapshot) {
        self.loaded.set(1);
        let wrong = snapshot.problems.iter().any(|problem| problem.severity == Severity::Error);
        self.stale.set(i64::from(wrong));
    }

    pub(crate) fn peer(&self, name: &str, state: PeerState) {
        self.peers.with_label_values(&[name]).set(i64::from(state.counts()));
    }

    pub(crate) fn disagreeing<'a>(&self, peers: impl Iterator<Item = &'a String>) {
        self.disagreeing.reset();
        peers.for_each(|peer| self.disagreeing.with_label_values(&[peer]).set(1));
    }

    pub(crate) fn gratuitous(&self, ip: IpAddr) {
        self.gratuitous.with_label_values(&[&ip.to_string()]).inc();
    }

    pub(crate) fn request(&self, ip: IpAddr) {
        self.requests.with_label_values(&[&ip.to_string()]).inc();
    }

    /// Answers that the kernel gave.
    pub(crate) fn responses(&self, ip: IpAddr, count: u64) {
        self.responses.with_label_values(&[&ip.to_string()]).inc_by(count);
    }

    pub(crate) fn response(&self, ip: IpAddr) {
        self.responses.with_label_values(&[&ip.to_string()]).inc();
    }

    pub(crate) fn rival(&self, ip: IpAddr) {
        self.rivals.with_label_values(&[&ip.to_string()]).inc();
    }

    pub(crate) fn frame(&self) {
        self.frames.inc();
    }

    pub(crate) fn dropped(&self, frames: u32) {
        self.dropped.inc_by(frames.into());
    }

    pub(crate) fn occupied(&self, addresses: usize) {
        self.occupied.set(i64::try_from(addresses).unwrap_or(i64::MAX));
    }

    pub(crate) fn allocation(&self, allocation: &Allocation) {
        self.pools.set(allocation);
        let assigned = allocation.services.values().filter(|assignment| !assignment.ips.is_empty()).count();
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.pending.with_label_values(&["assigned"]).set(count(assigned));
        self.pending.with_label_values(&["pending"]).set(count(allocation.services.len() - assigned));
    }
}

/// How full pools are, under MetalLB's names: both families, then each.
#[derive(Clone, Debug)]
struct Pools {
    capacity: [IntGaugeVec; 3],
    in_use: [IntGaugeVec; 3],
    services: IntGaugeVec,
}

impl Pools {
    fn new(gauge: &impl Fn(&str, &str, &[&str]) -> prometheus::Result<IntGaugeVec>) -> prometheus::Result<Self> {
        let of = |name: &str, help: &str| gauge(&format!("metallb_allocator_{name}"), help, &["pool"]);
        Ok(Self {
            capacity: [
                of("addresses_total", "Addresses of the pool that may be assigned")?,
                of("ipv4_addresses_total", "IPv4 addresses of the pool that may be assigned")?,
                of("ipv6_addresses_total", "IPv6 addresses of the pool that may be assigned")?,
            ],
            in_use: [
                of("addresses_in_use_total", "Addresses of the pool that are assigned")?,
                of("ipv4_addresses_in_use_total", "IPv4 addresses of the pool that are assigned")?,
                of("ipv6_addresses_in_use_total", "IPv6 addresses of the pool that are assigned")?,
            ],
            services: of("services_allocated_total", "Services with an address of the pool")?,
        })
    }

    fn set(&self, allocation: &Allocation) {
        self.capacity.iter().chain(&self.in_use).chain([&self.services]).for_each(IntGaugeVec::reset);
        let saturated = |count: u128| i64::try_from(count).unwrap_or(i64::MAX);
        for (pool, usage) in &allocation.pools {
            let counts = [
                (&self.capacity, [usage.capacity(), usage.v4.capacity, usage.v6.capacity]),
                (&self.in_use, [usage.in_use(), usage.v4.in_use, usage.v6.in_use]),
            ];
            for (gauges, counts) in counts {
                for (gauge, count) in gauges.iter().zip(counts) {
                    gauge.with_label_values(&[&pool.name]).set(saturated(count));
                }
            }
            let held = allocation.services.values().filter(|got| got.pool.as_ref() == Some(pool)).count();
            self.services.with_label_values(&[&pool.name]).set(saturated(held as u128));
        }
    }
}
