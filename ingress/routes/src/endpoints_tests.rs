//! Which endpoints a backend has.

use std::sync::Arc;

use roadstead_model::Node;

use super::*;
use crate::fixture;

fn backend(port: BackendPort) -> Backend {
    Backend { service: ObjectName::new("default", "web"), port, reach: Reach::Endpoints }
}

fn texts(addresses: &[SocketAddr]) -> Vec<String> {
    addresses.iter().map(ToString::to_string).collect()
}

fn check(port: BackendPort, endpoints: &[(&str, &str)], ready: &[&str], draining: &[&str]) {
    let mut snapshot = Snapshot::default();
    fixture::service(&mut snapshot, "default/web", "http", 80);
    fixture::slice(&mut snapshot, "default/web", "http", 8080, endpoints);
    let found = endpoints_of(&snapshot, &backend(port), None).unwrap();
    assert_eq!(
        (texts(&found.ready), texts(&found.draining)),
        (ready.iter().map(ToString::to_string).collect(), draining.iter().map(ToString::to_string).collect()),
        "{endpoints:?}"
    );
    assert_eq!(found.usable(), if ready.is_empty() { &found.draining } else { &found.ready });
}

#[test]
fn ready_and_draining_endpoints_are_told_apart() {
    let by_name = || BackendPort::Name("http".to_owned());
    let mixed = [("10.0.0.2", "ready"), ("10.0.0.1", "ready"), ("10.0.0.3", "draining"), ("10.0.0.4", "down")];
    check(by_name(), &mixed, &["10.0.0.1:8080", "10.0.0.2:8080"], &["10.0.0.3:8080"]);
    check(fixture::port(80), &mixed, &["10.0.0.1:8080", "10.0.0.2:8080"], &["10.0.0.3:8080"]);
    check(by_name(), &[("10.0.0.3", "draining"), ("10.0.0.4", "down")], &[], &["10.0.0.3:8080"]);
    check(by_name(), &[("10.0.0.4", "down")], &[], &[]);
    check(by_name(), &[("10.0.0.1", "ready"), ("fd00::1", "ready")], &["10.0.0.1:8080"], &[]);
    check(by_name(), &[("fd00::1", "ready")], &["[fd00::1]:8080"], &[]);
    check(by_name(), &[("10.0.0.1", "ready"), ("10.0.0.1", "draining")], &["10.0.0.1:8080"], &[]);
}

#[test]
fn slices_without_ports_take_the_service_s_own() {
    let mut snapshot = Snapshot::default();
    fixture::service(&mut snapshot, "default/web", "http", 80);
    fixture::slice(&mut snapshot, "default/web", "http", 8080, &[("10.0.0.1", "ready")]);
    let slice = snapshot.slices.values_mut().flatten().next().unwrap();
    Arc::make_mut(slice).ports.clear();
    let found = endpoints_of(&snapshot, &backend(fixture::port(80)), None).unwrap();
    assert_eq!(texts(&found.ready), ["10.0.0.1:80"]);
}

#[test]
fn what_does_not_exist_is_told_apart() {
    let mut snapshot = Snapshot::default();
    fixture::service(&mut snapshot, "default/web", "http", 80);
    let ask = |service: &str, port, reach| {
        let backend = Backend { service: ObjectName::new("default", service), port, reach };
        endpoints_of(&snapshot, &backend, None).unwrap_err().to_string()
    };
    let endpoints = Reach::Endpoints;
    assert_eq!(ask("gone", fixture::port(80), endpoints), "service default/gone does not exist");
    assert_eq!(ask("web", fixture::port(81), endpoints), "service default/web has no TCP port 81");
    let headless = "service default/web has no cluster address, which service-upstream asks for";
    assert_eq!(ask("web", fixture::port(80), Reach::ClusterIp), headless);
}

#[test]
fn the_service_s_own_address_may_stand_for_it() {
    let mut snapshot = Snapshot::default();
    fixture::service(&mut snapshot, "default/web", "http", 80);
    fixture::slice(&mut snapshot, "default/web", "http", 8080, &[("10.0.0.1", "ready")]);
    let service = Arc::make_mut(snapshot.services.values_mut().next().unwrap());
    service.cluster_ips = vec!["10.96.0.7".parse().unwrap()];
    let backend = Backend { reach: Reach::ClusterIp, ..backend(BackendPort::Name("http".to_owned())) };
    let found = endpoints_of(&snapshot, &backend, None).unwrap();
    assert_eq!(texts(&found.ready), ["10.96.0.7:80"]);
}

#[test]
fn external_names_are_names_of_other_hosts() {
    let mut snapshot = Snapshot::default();
    fixture::service(&mut snapshot, "default/web", "http", 80);
    let mut ask = |external: &str, port| {
        let service = Arc::make_mut(snapshot.services.values_mut().next().unwrap());
        service.kind = ServiceKind::ExternalName(external.to_owned());
        service.ports[0].target = TargetPort::Number(8443.try_into().unwrap());
        endpoints_of(&snapshot, &backend(port), None)
    };
    for (external, port, expected) in [
        ("example.com", 80, Some(("example.com", 8443))),
        ("Example.COM.", 443, Some(("Example.COM", 443))),
        ("localhost", 80, None),
        ("x.LOCALHOST.", 80, None),
        ("127.0.0.1", 80, None),
        ("::1", 80, None),
        ("0.0.0.0", 80, None),
        ("bad_name", 80, None),
        ("", 80, None),
    ] {
        let found = ask(external, fixture::port(port)).ok().and_then(|found| found.external);
        let expected = expected.map(|(name, port): (&str, u16)| (name.to_owned(), port.try_into().unwrap()));
        assert_eq!(found, expected, "{external}");
    }
    assert_eq!(texts(&ask("192.0.2.1", fixture::port(80)).unwrap().ready), ["192.0.2.1:8443"]);
    assert!(ask("example.com", BackendPort::Name("admin".to_owned())).is_err());
}

/// Endpoints as `address zone-hint node-hint`, with `-` for none.
fn near(here: Option<&str>, endpoints: &[&str]) -> Vec<String> {
    let mut snapshot = Snapshot::default();
    fixture::service(&mut snapshot, "default/web", "http", 80);
    let words: Vec<Vec<&str>> = endpoints.iter().map(|text| text.split(' ').collect()).collect();
    let states: Vec<_> = words.iter().map(|words| (words[0], "ready")).collect();
    fixture::slice(&mut snapshot, "default/web", "http", 80, &states);
    let slice = Arc::make_mut(snapshot.slices.values_mut().flatten().next().unwrap());
    let hints = |word: &str| if word == "-" { Vec::new() } else { vec![word.to_owned()] };
    for (endpoint, words) in slice.endpoints.iter_mut().zip(&words) {
        endpoint.zone_hints = hints(words[1]);
        endpoint.node_hints = hints(words[2]);
    }
    let mut meta = fixture::meta("none/n1");
    meta.labels.insert("topology.kubernetes.io/zone".to_owned(), "a".to_owned());
    let node = Node {
        meta,
        internal_ips: Vec::new(),
        external_ips: Vec::new(),
        pod_cidrs: Vec::new(),
        network_unavailable: false,
        is_going: false,
    };
    snapshot.nodes.insert("n1".to_owned(), Arc::new(node));
    let found = endpoints_of(&snapshot, &backend(fixture::port(80)), here).unwrap();
    found.ready.iter().map(|address| address.ip().to_string()).collect()
}

#[test]
fn hints_prefer_what_is_near_and_never_leave_nothing() {
    let zones = ["10.0.0.1 a -", "10.0.0.2 b -"];
    assert_eq!(near(Some("n1"), &zones), ["10.0.0.1"]);
    assert_eq!(near(None, &zones).len(), 2, "without a node's name there is no near");
    assert_eq!(near(Some("elsewhere"), &zones).len(), 2, "a node of no zone");
    assert_eq!(near(Some("n1"), &["10.0.0.1 b -", "10.0.0.2 b -"]).len(), 2, "nothing is near");
    assert_eq!(near(Some("n1"), &["10.0.0.1 a -", "10.0.0.2 - -"]).len(), 2, "one has no hint");
    assert_eq!(near(Some("n1"), &["10.0.0.1 a n2", "10.0.0.2 b n1"]), ["10.0.0.2"], "the node goes before the zone");
}
