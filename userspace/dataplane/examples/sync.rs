//! How long it takes to bring the maps to 10,000 Services with 5 endpoints each, and to one endpoint that changes:
//! `cargo run --release -p roadstead-dataplane --example sync [SERVICES]`. It stands beside the configuration's way, and
//! measures compiler and reconciler, on maps that do nothing and (as root) on maps of the kernel. Times are those that this
//! thread spent on a CPU, so that a busy machine can be measured on too.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a benchmark ends at the first thing that is not as it should be")]

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::{Duration, Instant},
};

use nix::time::{ClockId, clock_gettime};
use roadstead_abi::{Addr, Backend, NodeConfig, SlotRange, SvcKey, SvcValue};
use roadstead_datapath::conntrack::Clock;
use roadstead_dataplane::{
    addresses::Prefix,
    compiler::Compiler,
    frontends::{NodeView, Options},
    maps::{KernelMaps, MapError, Maps, Stopped},
    reconcile::{Reconciler, Removal},
};
use roadstead_model::{
    Endpoint, EndpointPort, EndpointSlice, FamilyPolicy, IngressIpMode, IpFamily, Labels, LoadBalancerIngress,
    LoadBalancerSpec, Metadata, ObjectName, Port, Protocol, Selection, Service, ServiceKind, ServicePort, SliceOrigin,
    Snapshot, TargetPort, TrafficPolicy,
};

const ENDPOINTS: u32 = 5;

fn main() {
    let services = std::env::args().nth(1).map_or(10_000, |text| text.parse().unwrap());
    // Ten thousand tables would not fit into the slots.
    for (services, selection) in [(services, Selection::Random), (services / 10, Selection::Maglev)] {
        report("maps that do nothing", services, selection, || NoMaps);
        match KernelMaps::standalone() {
            Ok(_) => report("maps of the kernel", services, selection, || KernelMaps::standalone().unwrap()),
            Err(error) => println!("maps of the kernel: skipped: {error}"),
        }
    }
}

/// Prints the median of several runs.
fn report<M: Maps>(what: &str, services: u32, selection: Selection, maps: impl Fn() -> M) {
    let (mut compile, mut program, mut change, mut restart) = (vec![], vec![], vec![], vec![]);
    let snapshot = snapshot(services, selection);
    for _ in 0..5 {
        let options = Options { clock: Clock { hz: 250 }, selection: Selection::Random };
        let mut compiler = Compiler::new(options);
        let now = Instant::now();
        let delta = timed(&mut compile, || compiler.update(&snapshot, NODE, now));
        let mut reconciler = Reconciler::recover(maps()).unwrap();
        let written = timed(&mut program, || reconciler.apply(delta, Removal::Allowed, now)).unwrap().frontends;
        assert!(written as u32 >= services * 3, "{written}");
        for round in 0..100 {
            let next = with_a_change(&snapshot, (round * 97) % services, round % 2 == 0);
            let now = Instant::now();
            let update = || reconciler.apply(compiler.update(&next, NODE, now), Removal::Allowed, now);
            timed(&mut change, update).unwrap();
        }
        let everything = compiler.everything();
        timed(&mut restart, || reconciler.apply(everything, Removal::Allowed, now)).unwrap();
    }
    let median = |times: &mut Vec<Duration>| {
        times.sort();
        times.get(times.len() / 2).copied().unwrap_or_default()
    };
    println!(
        "{what}, {services} Services x {ENDPOINTS} ({selection:?}): compile {:?}, program {:?}, one endpoint {:?}, again {:?}",
        median(&mut compile),
        median(&mut program),
        median(&mut change),
        median(&mut restart)
    );
}

fn timed<T>(times: &mut Vec<Duration>, work: impl FnOnce() -> T) -> T {
    let now = || Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap());
    let started = now();
    let result = work();
    times.push(now() - started);
    result
}

const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const NODE: NodeView<'_> = NodeView { name: "n0", addresses: &[ADDRESS], primary: &[ADDRESS] };

fn address(network: u32, host: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(network + host))
}

fn snapshot(services: u32, selection: Selection) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for number in 0..services {
        let service = service(number, selection);
        let slice = slice(number, ENDPOINTS);
        snapshot.slices.insert(service.meta.name.clone(), vec![Arc::new(slice)]);
        snapshot.services.insert(service.meta.name.clone(), Arc::new(service));
    }
    snapshot
}

/// The snapshot with one endpoint more or less in one slice.
fn with_a_change(snapshot: &Snapshot, number: u32, more: bool) -> Snapshot {
    let mut next = snapshot.clone();
    let slice = slice(number, if more { ENDPOINTS + 1 } else { ENDPOINTS - 1 });
    next.slices.insert(slice.service.clone(), vec![Arc::new(slice)]);
    next
}

fn meta(number: u32) -> Metadata {
    let name = ObjectName::new("default", &format!("service-{number:05}"));
    Metadata { name, labels: Labels::new(), annotations: Labels::new(), created: Some(i64::from(number)) }
}

fn service(number: u32, selection: Selection) -> Service {
    let port = ServicePort {
        name: "http".into(),
        protocol: Protocol::Tcp,
        port: Port::new(80).unwrap(),
        target: TargetPort::Number(Port::new(8_080).unwrap()),
        node_port: Port::new((10_000 + number % 50_000) as u16),
        app_protocol: None,
    };
    Service {
        meta: meta(number),
        kind: ServiceKind::LoadBalancer,
        selector: Labels::new(),
        cluster_ips: vec![address(0x0a60_0000, number)],
        ip_families: vec![IpFamily::V4],
        family_policy: FamilyPolicy::SingleStack,
        ports: vec![port],
        external_ips: vec![address(0xc633_0000, number)],
        external_policy: TrafficPolicy::Local,
        internal_policy: TrafficPolicy::Cluster,
        affinity_seconds: None,
        publish_not_ready: false,
        traffic_distribution: None,
        selection: Some(selection),
        load_balancer: LoadBalancerSpec::default(),
        status: vec![LoadBalancerIngress { ip: address(0xc612_0000, number), mode: IngressIpMode::Vip }],
    }
}

fn slice(number: u32, endpoints: u32) -> EndpointSlice {
    let endpoint = |index: u32| Endpoint {
        ip: address(0x0af4_0000, number * 8 + index),
        ready: true,
        serving: true,
        terminating: false,
        node: Some(format!("n{}", index % 3)),
        zone: None,
        zone_hints: vec![],
        node_hints: vec![],
    };
    EndpointSlice {
        meta: meta(number),
        service: meta(number).name,
        family: IpFamily::V4,
        ports: vec![EndpointPort { name: "http".into(), protocol: Protocol::Tcp, port: Port::new(8_080).unwrap() }],
        endpoints: (0..endpoints).map(endpoint).collect(),
        origin: SliceOrigin::EndpointSlice,
    }
}

/// Maps that take everything and hold nothing.
struct NoMaps;

impl Maps for NoMaps {
    fn services(&self) -> Result<Vec<(SvcKey, SvcValue)>, MapError> {
        Ok(Vec::new())
    }
    fn put_service(&mut self, _: &SvcKey, _: &SvcValue) -> Result<(), MapError> {
        Ok(())
    }
    fn remove_service(&mut self, _: &SvcKey) -> Result<(), MapError> {
        Ok(())
    }
    fn slots(&self, _: SlotRange) -> Result<Vec<u32>, MapError> {
        Ok(Vec::new())
    }
    fn put_slots(&mut self, _: u32, _: &[u32]) -> Result<(), MapError> {
        Ok(())
    }
    fn put_sets(&mut self, _: &[(u32, Arc<[u32]>)]) -> Result<(), Stopped> {
        Ok(())
    }
    fn backend(&self, _: u32) -> Result<Backend, MapError> {
        Ok(Backend::default())
    }
    fn put_backend(&mut self, _: u32, _: &Backend) -> Result<(), MapError> {
        Ok(())
    }
    fn vips(&self) -> Result<Vec<(Addr, u32)>, MapError> {
        Ok(Vec::new())
    }
    fn put_vip(&mut self, _: &Addr, _: u32) -> Result<(), MapError> {
        Ok(())
    }
    fn remove_vip(&mut self, _: &Addr) -> Result<(), MapError> {
        Ok(())
    }
    fn ranges(&self) -> Result<Vec<(u32, Prefix)>, MapError> {
        Ok(Vec::new())
    }
    fn put_range(&mut self, _: u32, _: &Prefix) -> Result<(), MapError> {
        Ok(())
    }
    fn remove_range(&mut self, _: u32, _: &Prefix) -> Result<(), MapError> {
        Ok(())
    }
    fn networks(&self) -> Result<Vec<(Prefix, u32)>, MapError> {
        Ok(Vec::new())
    }
    fn put_network(&mut self, _: &Prefix, _: u32) -> Result<(), MapError> {
        Ok(())
    }
    fn remove_network(&mut self, _: &Prefix) -> Result<(), MapError> {
        Ok(())
    }
    fn node_addresses(&self) -> Result<Vec<(Addr, u32)>, MapError> {
        Ok(Vec::new())
    }
    fn put_node_address(&mut self, _: &Addr, _: u32) -> Result<(), MapError> {
        Ok(())
    }
    fn remove_node_address(&mut self, _: &Addr) -> Result<(), MapError> {
        Ok(())
    }
    fn filter(&self) -> Result<Vec<u64>, MapError> {
        Ok(Vec::new())
    }
    fn put_filter(&mut self, _: &[(u32, u64)]) -> Result<(), MapError> {
        Ok(())
    }
    fn put_node(&mut self, _: &NodeConfig) -> Result<(), MapError> {
        Ok(())
    }
}
