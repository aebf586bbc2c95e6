//! Services, slices and snapshots for this crate's tests.

use std::{net::IpAddr, sync::Arc};

use roadstead_datapath::conntrack::Clock;
use roadstead_model::{
    Endpoint, EndpointPort, EndpointSlice, FamilyPolicy, IngressIpMode, IpFamily, Labels, LoadBalancerIngress,
    LoadBalancerSpec, Metadata, Node, ObjectName, Port, Protocol, Selection, Service, ServiceKind, ServicePort,
    SliceOrigin, Snapshot, TargetPort, TrafficPolicy,
};

use crate::frontends::{NodeView, Options};

pub(crate) const OPTIONS: Options = Options { clock: Clock { hz: 250 }, selection: Selection::Random };

const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
pub(crate) const NODE: NodeView<'_> = NodeView { name: "here", addresses: &[ADDRESS], primary: &[ADDRESS] };

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn meta(name: &str) -> Metadata {
    Metadata {
        name: ObjectName::new("default", name),
        labels: Labels::new(),
        annotations: Labels::new(),
        created: None,
    }
}

/// A dual-stack Service with one TCP port 80, node port 30080.
pub(crate) fn service(name: &str) -> Service {
    Service {
        meta: meta(name),
        kind: ServiceKind::LoadBalancer,
        selector: Labels::new(),
        cluster_ips: vec![ip("10.96.0.10"), ip("fd00:10:96::a")],
        ip_families: vec![IpFamily::V4, IpFamily::V6],
        family_policy: FamilyPolicy::SingleStack,
        ports: vec![port("http", Protocol::Tcp, 80, Some(30_080))],
        external_ips: vec![],
        external_policy: TrafficPolicy::Cluster,
        internal_policy: TrafficPolicy::Cluster,
        affinity_seconds: None,
        publish_not_ready: false,
        traffic_distribution: None,
        selection: None,
        load_balancer: LoadBalancerSpec::default(),
        status: vec![],
    }
}

pub(crate) fn port(name: &str, protocol: Protocol, number: u16, node_port: Option<u16>) -> ServicePort {
    ServicePort {
        name: name.into(),
        protocol,
        port: Port::new(number).unwrap(),
        target: TargetPort::Number(Port::new(8_080).unwrap()),
        node_port: node_port.and_then(Port::new),
        app_protocol: None,
    }
}

pub(crate) fn balanced(address: &str) -> LoadBalancerIngress {
    LoadBalancerIngress { ip: ip(address), mode: IngressIpMode::Vip }
}

/// `address state node`: the state is R(eady), S(erving and terminating), T(erminating, not serving), N(ot ready).
pub(crate) fn endpoint(text: &str) -> Endpoint {
    let words: Vec<&str> = text.split(' ').collect();
    let (ready, serving, terminating) = match words[1] {
        "R" => (true, true, false),
        "S" => (false, true, true),
        "T" => (false, false, true),
        "N" => (false, false, false),
        other => panic!("{other}"),
    };
    Endpoint {
        ip: ip(words[0]),
        ready,
        serving,
        terminating,
        node: Some(words[2].to_owned()),
        zone: None,
        zone_hints: vec![],
        node_hints: vec![],
    }
}

/// The slice of a Service with ports `http`/TCP and `dns`/UDP, both 8080.
pub(crate) fn slice(service: &str, endpoints: &[&str]) -> EndpointSlice {
    let port = |name: &str, protocol| EndpointPort { name: name.into(), protocol, port: Port::new(8_080).unwrap() };
    let endpoints: Vec<_> = endpoints.iter().map(|text| endpoint(text)).collect();
    EndpointSlice {
        meta: meta("slice"),
        service: ObjectName::new("default", service),
        family: endpoints.first().map_or(IpFamily::V4, |endpoint| IpFamily::of(endpoint.ip)),
        ports: vec![port("http", Protocol::Tcp), port("dns", Protocol::Udp)],
        endpoints,
        origin: SliceOrigin::EndpointSlice,
    }
}

pub(crate) fn snapshot(services: &[Service], slices: &[EndpointSlice]) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for service in services {
        snapshot.services.insert(service.meta.name.clone(), Arc::new(service.clone()));
    }
    for slice in slices {
        snapshot.slices.entry(slice.service.clone()).or_default().push(Arc::new(slice.clone()));
    }
    snapshot
}

pub(crate) fn node(name: &str, address: &str) -> Arc<Node> {
    Arc::new(Node {
        meta: meta(name),
        internal_ips: vec![ip(address)],
        external_ips: vec![],
        pod_cidrs: vec![],
        network_unavailable: false,
        is_going: false,
    })
}
