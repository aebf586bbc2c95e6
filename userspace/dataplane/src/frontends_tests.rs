//! Tables of endpoint categorisation and of which triples a Service gets.

use std::sync::Arc;

use roadstead_model::{
    EndpointPort, EndpointSlice, IngressIpMode, Labels, LoadBalancerIngress, LoadBalancerSpec, Metadata, Port,
    SliceOrigin, TargetPort,
};

use super::*;

const NODE: NodeView<'_> = NodeView { name: "here", addresses: &[IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1))] };

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn meta(name: &str) -> Metadata {
    Metadata {
        name: ObjectName::new("default", name),
        labels: Labels::new(),
        annotations: Labels::new(),
        created: None,
    }
}

fn service(name: &str) -> Service {
    Service {
        meta: meta(name),
        kind: ServiceKind::LoadBalancer,
        selector: Labels::new(),
        cluster_ips: vec![ip("10.96.0.10"), ip("fd00:10:96::a")],
        ip_families: vec![IpFamily::V4, IpFamily::V6],
        ports: vec![ServicePort {
            name: "http".into(),
            protocol: Protocol::Tcp,
            port: Port::new(80).unwrap(),
            target: TargetPort::Number(Port::new(8080).unwrap()),
            node_port: Port::new(30080),
            app_protocol: None,
        }],
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

/// `address state node`: state is R(eady), S(erving and terminating), T(erminating, not serving), N(ot ready).
fn endpoint(text: &str) -> Endpoint {
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

fn snapshot(services: &[Service], endpoints: &[&str]) -> Snapshot {
    let slice = EndpointSlice {
        meta: meta("slice"),
        service: ObjectName::new("default", "web"),
        family: IpFamily::V4,
        ports: vec![EndpointPort { name: "http".into(), protocol: Protocol::Tcp, port: Port::new(8080).unwrap() }],
        endpoints: endpoints.iter().map(|text| endpoint(text)).collect(),
        origin: SliceOrigin::EndpointSlice,
    };
    Snapshot {
        services: services.iter().map(|service| (service.meta.name.clone(), Arc::new(service.clone()))).collect(),
        slices: [(slice.service.clone(), vec![Arc::new(slice)])].into(),
        ..Snapshot::default()
    }
}

fn addresses(set: &[EndpointAddress]) -> Vec<String> {
    set.iter().map(|(addr, _)| crate::addresses::from_map(addr).to_string()).collect()
}

/// Endpoints, then the Cluster set, the Local set, and whether any is usable.
type Categorised = (&'static [&'static str], &'static [&'static str], &'static [&'static str], bool);

#[test]
fn endpoints_are_categorised_as_kube_proxy_does() {
    let cases: &[Categorised] = &[
        (&["10.1.0.1 R here", "10.1.0.2 R there"], &["10.1.0.1", "10.1.0.2"], &["10.1.0.1"], true),
        (&["10.1.0.1 R here", "10.1.0.2 S here", "10.1.0.3 R there"], &["10.1.0.1", "10.1.0.3"], &["10.1.0.1"], true),
        (&["10.1.0.2 S here", "10.1.0.3 R there"], &["10.1.0.3"], &["10.1.0.2"], true),
        (&["10.1.0.3 S there"], &["10.1.0.3"], &[], true),
        (&["10.1.0.3 T there", "10.1.0.1 N here"], &[], &[], false),
        (&[], &[], &[], false),
    ];
    for (endpoints, cluster, local, any) in cases {
        let compiled = compile(&snapshot(&[service("web")], endpoints), NODE);
        let key = compiled.by_key.keys().find(|key| key.addr == to_map(ip("10.96.0.10"))).unwrap();
        let frontend = &compiled.by_key[key];
        assert_eq!(addresses(&frontend.cluster), *cluster, "{endpoints:?}");
        assert_eq!(addresses(&frontend.local), *local, "{endpoints:?}");
        assert_eq!(frontend.flags & svc_flags::HAS_ENDPOINTS != 0, *any, "{endpoints:?}");
    }
}

#[test]
fn a_service_gets_its_cluster_node_port_balancer_and_external_frontends() {
    let mut web = service("web");
    web.external_ips = vec![ip("198.51.100.7"), ip("10.0.0.1")];
    web.status = vec![
        LoadBalancerIngress { ip: ip("192.0.2.200"), mode: IngressIpMode::Vip },
        LoadBalancerIngress { ip: ip("192.0.2.201"), mode: IngressIpMode::Proxy },
    ];
    let compiled = compile(&snapshot(&[web], &["10.1.0.1 R here"]), NODE);
    let mut found: Vec<String> = compiled
        .by_key
        .iter()
        .map(|(key, frontend)| {
            format!("{} {} {} {}", crate::addresses::from_map(&key.addr), key.port.get(), key.scope, frontend.kind)
        })
        .collect();
    found.sort();
    let mut expected = vec![
        "10.96.0.10 80 0 0",
        "fd00:10:96::a 80 0 0",
        ":: 30080 1 1",
        ":: 30080 2 1",
        "192.0.2.200 80 0 2",
        "198.51.100.7 80 0 3",
        "10.0.0.1 80 0 3",
    ];
    expected.sort_unstable();
    assert_eq!(found, expected);
    let vips: Vec<_> = compiled.vips.keys().map(|addr| crate::addresses::from_map(addr).to_string()).collect();
    assert_eq!(vips, ["10.96.0.10", "192.0.2.200", "fd00:10:96::a"], "external addresses are somebody's own");
}

#[test]
fn a_node_whose_address_stands_in_a_status_stays_reachable() {
    let mut web = service("web");
    let addresses = ["192.0.2.200", "10.0.0.1", "10.0.0.2"];
    web.status = addresses.iter().map(|text| LoadBalancerIngress { ip: ip(text), mode: IngressIpMode::Vip }).collect();
    let mut snapshot = snapshot(&[web], &[]);
    let other = roadstead_model::Node {
        meta: meta("other"),
        internal_ips: vec![ip("10.0.0.2")],
        external_ips: vec![],
        pod_cidrs: vec![],
        network_unavailable: false,
        is_going: false,
    };
    snapshot.nodes.insert("other".into(), Arc::new(other));
    let vips = compile(&snapshot, NODE).vips;
    let is_vip = addresses.map(|text| vips.contains_key(&to_map(ip(text))));
    assert_eq!(is_vip, [true, false, false]);
}

#[test]
fn endpoints_that_still_answer_are_told_apart_from_those_that_are_gone() {
    let endpoints = ["10.1.0.1 R here", "10.1.0.2 S there", "10.1.0.3 T there", "10.1.0.4 N here"];
    let compiled = compile(&snapshot(&[service("web")], &endpoints), NODE);
    let port = ServicePortName { service: ObjectName::new("default", "web"), port: "http".into() };
    let serving: Vec<_> = compiled.serving[&port].iter().copied().collect();
    assert_eq!(addresses(&serving), ["10.1.0.1", "10.1.0.2"]);
}

#[test]
fn services_without_anything_to_balance_get_no_frontend() {
    let mut headless = service("headless");
    headless.cluster_ips.clear();
    let mut alias = service("alias");
    alias.kind = ServiceKind::ExternalName("example.com".into());
    let mut foreign = service("foreign");
    foreign.meta.labels.insert("service.kubernetes.io/service-proxy-name".into(), "other".into());
    assert_eq!(compile(&snapshot(&[headless, alias, foreign], &[]), NODE), Frontends::default());
}

#[test]
fn of_two_claims_to_a_triple_the_older_wins_and_the_other_is_told() {
    let mut young = service("a-young");
    young.meta.created = Some(200);
    let mut old = service("b-old");
    old.meta.created = Some(100);
    let compiled = compile(&snapshot(&[young, old], &[]), NODE);
    assert!(compiled.by_key.values().all(|frontend| &*frontend.port.service.name == "b-old"));
    assert_eq!(compiled.conflicts.len(), 4);
    assert!(compiled.conflicts.iter().all(|problem| problem.to_string().contains("default/a-young")));
}
