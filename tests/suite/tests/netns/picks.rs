//! Which endpoint of a set a new flow gets: affinity, topology, and the endpoint that asks for itself.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use roadstead_lab::{Place, Probe};

use super::{
    services::{Service, Via},
    stage::{From, Path, Stage, stranger},
};

const MODE: [&str; 2] = ["--masquerade", "kube-proxy"];
/// Attempts of one look: consecutive hits that must all be inside the expected set.
const ATTEMPTS: u32 = 40;
const WAYS: [Via; 3] = [Via::ClusterIp, Via::NodePort, Via::Balancer];

#[test]
fn a_client_stays_with_its_endpoint() {
    let Some(mut stage) = Stage::new("affinity", &["l1", "l2"], &["r1", "r2"]) else { return };
    let service = sticky(21, 600).endpoints(stage.ready(&["l1", "l2", "r1", "r2"]));
    for path in Path::BOTH {
        stage.serve(&service);
        stage.start_afresh(&[MODE, path.flags()].concat());
        for (from, family) in [From::Pod, From::External].into_iter().flat_map(|from| [(from, 0), (from, 1)]) {
            let place = stage.place(from);
            // All addresses of the port share it.
            let looks = WAYS.map(|via| answered(place, &Probe::tcp(service.tcp(via, stage.node(), family)), 20));
            let first = looks[0].first().unwrap().clone();
            let alone = BTreeSet::from([first.clone()]);
            assert!(looks.iter().all(|names| *names == alone), "{path:?}, {from:?}, {family}: {looks:?}");

            // An endpoint that is gone is left, and its successor is stayed with.
            let left: Vec<_> = ["l1", "l2", "r1", "r2"].into_iter().filter(|name| *name != first).collect();
            stage.serve(&service.clone().endpoints(stage.ready(&left)));
            let names = answered(place, &Probe::tcp(service.tcp(Via::Balancer, stage.node(), family)), 20);
            assert!(
                names.len() == 1 && !names.contains(&first),
                "{path:?}, {from:?}, {family}: {first}, then {names:?}"
            );
            stage.serve(&service);
        }
    }
}

#[test]
fn clients_choose_for_themselves_and_again_after_the_timeout() {
    let Some(mut stage) = Stage::new("affinity-ends", &["l1", "l2"], &["r1", "r2"]) else { return };
    let timeout = Duration::from_secs(3);
    let service = sticky(22, timeout.as_secs()).endpoints(stage.ready(&["l1", "l2", "r1", "r2"]));
    let other = Service::new("other", 23).endpoints(stage.ready(&["l1"]));
    stage.serve(&service);
    stage.serve(&other);
    stage.start(&[MODE, Path::Socket.flags()].concat());
    let client = stage.lab.client();
    let choices = || -> Vec<String> {
        let probes = (1..=8).flat_map(|number| [0, 1].map(|family| (stranger(number)[family], family)));
        let ask = |(own, family): (IpAddr, usize)| {
            let names = answered(client, &Probe::tcp(service.tcp(Via::Balancer, stage.node(), family)).from(own), 5);
            assert_eq!(names.len(), 1, "{own} is sent to {names:?}");
            names.into_iter().next().unwrap()
        };
        probes.map(ask).collect()
    };
    // What took longer than the timeout on a slow machine tells nothing.
    let in_time = (0..10).find_map(|_| {
        let began = Instant::now();
        let (before, after) = (choices(), choices());
        (began.elapsed() < timeout).then_some((before, after))
    });
    let (before, after) = in_time.expect("the machine stood still");
    assert!(before.iter().collect::<BTreeSet<_>>().len() > 1, "16 clients and 4 endpoints: {before:?}");
    assert_eq!(after, before, "nobody moves before the timeout");
    // Other traffic until the last choice has expired; the clock of the programs may be a second off.
    let since = Instant::now();
    while since.elapsed() < timeout + Duration::from_millis(1_500) {
        answered(client, &Probe::tcp(other.tcp(Via::Balancer, stage.node(), 0)), 20);
    }
    assert_ne!(choices(), before, "16 clients choose the same of 4 endpoints once in 10^9 runs");
}

fn sticky(number: u16, seconds: u64) -> Service {
    Service::new("sticky", number)
        .spec("sessionAffinity: ClientIP")
        .spec(&format!("sessionAffinityConfig: {{clientIP: {{timeoutSeconds: {seconds}}}}}"))
}

#[test]
fn hints_keep_traffic_near() {
    let Some(mut stage) = Stage::new("hints", &["l1", "l2"], &["r1", "r2"]) else { return };
    let zone = |name: &str, zones: &str| stage.endpoint(name).hints(&format!("forZones: [{zones}]"));
    let node = |name: &str, nodes: &str| stage.endpoint(name).hints(&format!("forNodes: [{nodes}]"));
    let both = |name: &str, zones: &str, nodes: &str| {
        stage.endpoint(name).hints(&format!("forZones: [{zones}], forNodes: [{nodes}]"))
    };
    let (one, two, a, b) = ("{name: one}", "{name: two}", "{name: node-a}", "{name: node-b}");
    // node-a is in zone one.
    let cases = [
        ("zones", vec![zone("l1", one), zone("r1", one), zone("r2", two)], vec!["l1", "r1"]),
        ("several zones", vec![zone("l1", two), zone("r1", "{name: two}, {name: one}")], vec!["r1"]),
        ("nodes", vec![node("l1", a), node("l2", a), node("r1", b)], vec!["l1", "l2"]),
        ("nodes go before zones", vec![both("l1", one, a), both("r1", one, b)], vec!["l1"]),
        ("no node is ours, a zone is", vec![both("l1", two, b), both("r1", one, b)], vec!["r1"]),
        ("a hint is missing", vec![zone("l1", one), stage.endpoint("r1")], vec!["l1", "r1"]),
        ("no zone is ours", vec![zone("l1", two), zone("r1", two)], vec!["l1", "r1"]),
        (
            "who is not ready needs no hint",
            vec![zone("l1", one), zone("r1", two), stage.endpoint("r2").terminating()],
            vec!["l1"],
        ),
    ];
    let service = Service::new("near", 24).spec("trafficDistribution: PreferClose");
    for path in Path::BOTH {
        stage.start_afresh(&[MODE, path.flags()].concat());
        for (name, endpoints, expected) in &cases {
            stage.serve(&service.clone().endpoints(endpoints.clone()));
            for (from, via) in
                [(From::Pod, Via::ClusterIp), (From::External, Via::Balancer), (From::External, Via::NodePort)]
            {
                for family in [0, 1] {
                    let to = service.tcp(via, stage.node(), family);
                    let names = answered(stage.place(from), &Probe::tcp(to), ATTEMPTS);
                    let expected: BTreeSet<_> = expected.iter().map(|name| (*name).to_owned()).collect();
                    assert_eq!(names, expected, "{name}: {path:?}, {from:?} to {to}");
                }
            }
        }
    }
}

/// A pod that asks for its own Service and gets itself: its answer must find back through the translation.
#[test]
fn an_endpoint_reaches_itself() {
    let Some(mut stage) = Stage::new("hairpin", &["l"], &["r"]) else { return };
    let alone = Service::new("alone", 25).endpoints(stage.ready(&["l"]));
    let both = Service::new("both", 26).endpoints(stage.ready(&["l", "r"]));
    stage.serve(&alone);
    stage.serve(&both);
    for (mode, path) in ["preserve", "kube-proxy"].into_iter().flat_map(|mode| Path::BOTH.map(|path| (mode, path))) {
        stage.start_afresh(&[["--masquerade", mode], path.flags()].concat());
        let pod = stage.server("l");
        for (via, family) in WAYS.into_iter().flat_map(|via| [(via, 0), (via, 1)]) {
            let what = format!("mode {mode}, {path:?} path, {via:?}, family {family}");
            for (service, expected) in [(&alone, ["l"].as_slice()), (&both, &["l", "r"])] {
                let (tcp, udp) = (service.tcp(via, stage.node(), family), service.udp(via, stage.node(), family));
                let expected: BTreeSet<_> = expected.iter().map(|name| (*name).to_owned()).collect();
                assert_eq!(answered(pod, &Probe::tcp(tcp), ATTEMPTS), expected, "{what}: {tcp}");
                assert_eq!(answered(pod, &Probe::udp(udp), ATTEMPTS), expected, "{what}: {udp}");
            }
        }
    }
}

/// A node port is there on the node's loopback, and not on a pod's (reference 1, NodePort on localhost).
#[test]
fn node_ports_are_on_the_nodes_loopback() {
    let Some(mut stage) = Stage::new("localhost", &["l"], &["r"]) else { return };
    let service = Service::new("loop", 27).endpoints(stage.ready(&["l", "r"]));
    stage.serve(&service);
    stage.start(&[MODE, Path::Socket.flags()].concat());
    let [tcp, udp] = service.node_ports();
    let expected = BTreeSet::from(["l".to_owned(), "r".to_owned()]);
    for ip in ["127.0.0.1", "::1"].map(|ip| ip.parse::<IpAddr>().unwrap()) {
        let (tcp, udp) = (SocketAddr::new(ip, tcp), SocketAddr::new(ip, udp));
        assert_eq!(answered(stage.node(), &Probe::tcp(tcp), ATTEMPTS), expected, "{tcp}");
        assert_eq!(answered(stage.node(), &Probe::udp(udp), ATTEMPTS), expected, "{udp}");
        let own = stage.place(From::Pod).probe_once(&Probe::tcp(tcp)).unwrap();
        assert_eq!(own.error.as_deref(), Some("ECONNREFUSED"), "a pod's loopback is its own");
    }
}

/// Who answers; every attempt must be answered, by the address that was asked.
#[track_caller]
fn answered(place: &Place, probe: &Probe, attempts: u32) -> BTreeSet<String> {
    let to = probe.address().unwrap();
    let first = place.probe_once(probe).unwrap();
    assert!(first.ok, "{}: {probe:?}: {}", place.name(), first.outcome());
    let answers = place.probe(&probe.clone().count(attempts)).unwrap();
    for answer in &answers {
        assert!(answer.ok, "{}: {probe:?}: {}", place.name(), answer.outcome());
        let told = [answer.peer, answer.source].into_iter().flatten().all(|told| told == to);
        assert!(told, "{}: {probe:?}: another address answers: {answer:?}", place.name());
    }
    answers.iter().map(|answer| answer.name().unwrap().to_owned()).collect()
}
