//! Snapshots that follow each other: what changes, who wins a conflict, how UDP endpoints that are gone are remembered,
//! and that a compiler that has seen many snapshots knows what one knows that has seen only the last.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use proptest::prelude::*;
use roadstead_model::{Protocol, Service, TrafficPolicy};

use super::*;
use crate::{
    addresses::{from_map, to_map},
    fixture::{NODE, OPTIONS, balanced, ip, node, port, service, slice, snapshot},
    tombstones::TOMBSTONE_LIFETIME,
};

/// Frontends by key as a consumer of deltas knows them, and addresses.
type Known = (BTreeMap<SvcKey, Frontend>, BTreeMap<Addr, u8>);

fn follow(known: &mut Known, delta: Delta) {
    for (key, frontend) in delta.frontends {
        match frontend {
            Some(frontend) => drop(known.0.insert(key, frontend)),
            None => drop(known.0.remove(&key)),
        }
    }
    for (addr, kind) in delta.vips {
        match kind {
            Some(kind) => drop(known.1.insert(addr, kind)),
            None => drop(known.1.remove(&addr)),
        }
    }
}

fn holder(compiler: &Compiler, address: &str) -> Option<String> {
    let mut frontends = compiler.frontends();
    let found = frontends.find(|(key, _)| key.addr == to_map(ip(address)));
    found.map(|(_, frontend)| frontend.port.name.service.name.to_string())
}

fn old_and_young() -> [Service; 2] {
    let mut young = service("a-young");
    young.meta.created = Some(200);
    let mut old = service("b-old");
    old.meta.created = Some(100);
    [young, old]
}

#[test]
fn the_same_snapshot_again_changes_nothing() {
    let mut compiler = Compiler::new(OPTIONS);
    let snapshot = snapshot(&[service("web")], &[slice("web", &["10.1.0.1 R here"])]);
    let now = Instant::now();
    assert_eq!(compiler.update(&snapshot, NODE, now).frontends.len(), 4);
    assert_eq!(compiler.update(&snapshot, NODE, now), Delta::default());
    assert_eq!(compiler.update(&snapshot.clone(), NODE, now), Delta::default());
}

#[test]
fn one_slice_that_changes_is_the_change_of_its_service_alone() {
    let mut compiler = Compiler::new(OPTIONS);
    let mut other = service("other");
    other.cluster_ips = vec![ip("10.96.0.11")];
    other.ports[0].node_port = None;
    let slices = [slice("web", &["10.1.0.1 R here"]), slice("other", &["10.1.0.9 R here"])];
    let mut snapshot = snapshot(&[service("web"), other], &slices);
    compiler.update(&snapshot, NODE, Instant::now());
    let name = ObjectName::new("default", "other");
    snapshot.slices.insert(name, vec![Arc::new(slice("other", &["10.1.0.9 R here", "10.1.0.10 R here"]))]);
    let delta = compiler.update(&snapshot, NODE, Instant::now());
    let keys: Vec<_> = delta.frontends.iter().map(|(key, _)| from_map(&key.addr)).collect();
    assert_eq!(keys, [ip("10.96.0.11")]);
    // An equal object that was parsed anew is no change.
    let name = ObjectName::new("default", "web");
    snapshot.slices.insert(name.clone(), vec![Arc::new(slice("web", &["10.1.0.1 R here"]))]);
    snapshot.services.insert(name, Arc::new(service("web")));
    assert_eq!(compiler.update(&snapshot, NODE, Instant::now()), Delta::default());
}

#[test]
fn of_two_claims_to_a_triple_the_older_wins_and_the_other_is_told() {
    let mut compiler = Compiler::new(OPTIONS);
    let delta = compiler.update(&snapshot(&old_and_young(), &[]), NODE, Instant::now());
    assert!(compiler.frontends().all(|(_, frontend)| &*frontend.port.name.service.name == "b-old"));
    assert_eq!((delta.frontends.len(), delta.conflicts.len()), (4, 4));
    assert!(delta.conflicts.iter().all(|problem| problem.to_string().contains("default/a-young")));
}

#[test]
fn the_loser_takes_over_when_the_winner_goes() {
    let [young, old] = old_and_young();
    let mut compiler = Compiler::new(OPTIONS);
    let mut update = |services: &[Service]| {
        let delta = compiler.update(&snapshot(services, &[]), NODE, Instant::now());
        (holder(&compiler, "10.96.0.10"), delta.frontends.len(), delta.conflicts.len())
    };
    assert_eq!(update(std::slice::from_ref(&young)), (Some("a-young".into()), 4, 0));
    assert_eq!(update(&[young.clone(), old.clone()]), (Some("b-old".into()), 4, 4));
    assert_eq!(update(&[young.clone(), old.clone()]), (Some("b-old".into()), 0, 4));
    assert_eq!(update(&[young]), (Some("a-young".into()), 4, 0));
    assert_eq!(update(&[]), (None, 4, 0));
}

#[test]
fn one_service_that_names_a_node_port_twice_conflicts_with_itself() {
    let mut web = service("web");
    web.ports.push(port("more", Protocol::Tcp, 81, Some(30_080)));
    let mut compiler = Compiler::new(OPTIONS);
    let delta = compiler.update(&snapshot(&[web], &[]), NODE, Instant::now());
    assert_eq!((delta.frontends.len(), delta.conflicts.len()), (6, 2));
}

fn dns(policy: TrafficPolicy) -> Service {
    let mut dns = service("dns");
    dns.ports = vec![port("dns", Protocol::Udp, 53, None)];
    dns.internal_policy = policy;
    dns
}

fn tombstones(compiler: &Compiler) -> Vec<String> {
    let stones = compiler.frontends().filter(|(_, frontend)| frontend.kind == kind::TOMBSTONE);
    let addresses =
        |set: &[EndpointAddress]| set.iter().map(|(addr, _)| from_map(addr).to_string()).collect::<Vec<_>>().join(",");
    stones.map(|(key, stone)| format!("{} -> {}", from_map(&key.addr), addresses(stone.cluster()))).collect()
}

#[test]
fn a_udp_endpoint_that_is_gone_leads_to_its_services_other_endpoints() {
    let mut compiler = Compiler::new(OPTIONS);
    let start = Instant::now();
    let mut update = |endpoints: &[&str], seconds: u64| {
        let snapshot = snapshot(&[dns(TrafficPolicy::Cluster)], &[slice("dns", endpoints)]);
        compiler.update(&snapshot, NODE, start + Duration::from_secs(seconds));
        tombstones(&compiler)
    };
    #[rustfmt::skip]
    let rows: &[(&[&str], u64, &[&str])] = &[
        (&["10.1.0.1 R here", "10.1.0.2 R there"], 0,   &[]),
        // Draining endpoints still answer.
        (&["10.1.0.1 S here", "10.1.0.2 R there"], 1,   &[]),
        (&["10.1.0.1 T here", "10.1.0.2 R there"], 2,   &["10.1.0.1 -> 10.1.0.2"]),
        (&["10.1.0.2 R there"],                    3,   &["10.1.0.1 -> 10.1.0.2"]),
        (&["10.1.0.3 R there"],                    4,   &["10.1.0.1 -> 10.1.0.3", "10.1.0.2 -> 10.1.0.3"]),
        // Somebody has the address again.
        (&["10.1.0.3 R there", "10.1.0.1 R there"], 5,  &["10.1.0.2 -> 10.1.0.1,10.1.0.3"]),
        (&["10.1.0.3 R there", "10.1.0.1 R there"], 123, &["10.1.0.2 -> 10.1.0.1,10.1.0.3"]),
        (&["10.1.0.3 R there", "10.1.0.1 R there"], 124, &[]),
        // Without any endpoint it waits for the next one.
        (&[],                                      130, &["10.1.0.1 -> ", "10.1.0.3 -> "]),
        (&["10.1.0.4 R there"],                    131, &["10.1.0.1 -> 10.1.0.4", "10.1.0.3 -> 10.1.0.4"]),
    ];
    for (endpoints, seconds, expected) in rows {
        let mut found = update(endpoints, *seconds);
        found.sort();
        assert_eq!(found, *expected, "{seconds} s {endpoints:?}");
    }
}

#[test]
fn tombstones_are_udps_alone_and_go_with_their_service() {
    let now = Instant::now();
    let mut compiler = Compiler::new(OPTIONS);
    let services = [service("web"), dns(TrafficPolicy::Local)];
    let mut update = |services: &[Service], web: &[&str], dns: &[&str]| {
        let delta = compiler.update(&snapshot(services, &[slice("web", web), slice("dns", dns)]), NODE, now);
        (tombstones(&compiler), delta.conflicts.len(), compiler.due())
    };
    update(&services, &["10.1.0.1 R here"], &["10.1.0.2 R here", "10.1.0.3 R here", "10.1.0.4 R there"]);
    let (stones, _, due) = update(&services, &[], &["10.1.0.3 R here", "10.1.0.4 R there"]);
    assert_eq!(stones, ["10.1.0.2 -> 10.1.0.3"], "what a cluster address under policy Local gives");
    assert_eq!(due, Some(now + TOMBSTONE_LIFETIME));
    // Any Service's endpoint lives at the address, one of a headless Service too.
    let mut headless = service("headless");
    headless.cluster_ips.clear();
    let all = [service("web"), dns(TrafficPolicy::Local), headless];
    let mut with = snapshot(&all, &[slice("dns", &["10.1.0.3 R here"]), slice("headless", &["10.1.0.2 R there"])]);
    compiler.update(&with, NODE, now);
    assert_eq!(tombstones(&compiler), ["10.1.0.4 -> 10.1.0.3"]);
    with.services.remove(&ObjectName::new("default", "dns"));
    compiler.update(&with, NODE, now);
    assert!(tombstones(&compiler).is_empty() && compiler.due().is_none());
}

#[test]
fn what_counts_of_a_node_brings_every_service_up_to_date_and_nothing_else_does() {
    let mut web = service("web");
    web.status = vec![balanced("192.0.2.200")];
    let mut compiler = Compiler::new(OPTIONS);
    let mut snapshot = snapshot(&[web], &[slice("web", &["10.1.0.1 R there"])]);
    snapshot.nodes.insert("here".into(), node("here", "10.0.0.1"));
    compiler.update(&snapshot, NODE, Instant::now());
    snapshot.nodes.insert("here".into(), node("here", "10.0.0.1"));
    assert_eq!(compiler.update(&snapshot, NODE, Instant::now()), Delta::default());
    snapshot.nodes.insert("other".into(), node("other", "192.0.2.200"));
    let delta = compiler.update(&snapshot, NODE, Instant::now());
    assert_eq!((delta.vips, delta.frontends.len()), (vec![(to_map(ip("192.0.2.200")), None)], 0));
    let there = NodeView { name: "there", ..NODE };
    let mut local = snapshot.clone();
    let mut web = Service::clone(&snapshot.services[&ObjectName::new("default", "web")]);
    web.external_policy = TrafficPolicy::Local;
    local.services.insert(web.meta.name.clone(), Arc::new(web));
    compiler.update(&local, NODE, Instant::now());
    let delta = compiler.update(&local, there, Instant::now());
    let is_local = |(_, frontend): &(SvcKey, Option<Frontend>)| {
        frontend.as_ref().is_some_and(|frontend| !frontend.local().is_empty())
    };
    assert_eq!(delta.frontends.iter().filter(|change| is_local(change)).count(), 3, "of the family that has endpoints");
}

/// An edit of the objects; numbers are taken modulo what there is.
#[derive(Clone, Debug)]
enum Edit {
    Put { service: u8, address: u8, age: Option<u8>, flags: u8 },
    Remove { service: u8 },
    Slice { service: u8, endpoints: Vec<(u8, u8)> },
    Unslice { service: u8 },
    Move { node: u8 },
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        4 => (0..6_u8, 0..4_u8, proptest::option::of(0..3_u8), any::<u8>())
            .prop_map(|(service, address, age, flags)| Edit::Put { service, address, age, flags }),
        1 => (0..6_u8).prop_map(|service| Edit::Remove { service }),
        4 => (0..6_u8, proptest::collection::vec((0..9_u8, 0..4_u8), 0..5))
            .prop_map(|(service, endpoints)| Edit::Slice { service, endpoints }),
        1 => (0..6_u8).prop_map(|service| Edit::Unslice { service }),
        1 => (0..3_u8).prop_map(|node| Edit::Move { node }),
    ]
}

fn name(service: u8) -> String {
    format!("s{}", service % 6)
}

fn make_service(number: u8, address: u8, age: Option<u8>, flags: u8) -> Service {
    let bit = |bit: u8| flags >> bit & 1 == 1;
    let mut made = service(&name(number));
    made.meta.created = age.map(i64::from);
    made.cluster_ips = vec![IpAddr::V4(Ipv4Addr::new(10, 96, 0, address % 4))];
    made.ports = vec![port("http", Protocol::Tcp, 80, bit(0).then_some(30_000 + u16::from(address % 2)))];
    if bit(1) {
        made.ports.push(port("dns", Protocol::Udp, 53, None));
    }
    if bit(2) {
        made.status = vec![balanced("192.0.2.200")];
        made.load_balancer.source_ranges = vec!["203.0.113.0/24".parse().unwrap()];
    }
    if bit(3) {
        made.internal_policy = TrafficPolicy::Local;
    }
    if bit(4) {
        made.external_policy = TrafficPolicy::Local;
    }
    if bit(5) && bit(6) {
        made.cluster_ips.clear();
    }
    made
}

fn apply(snapshot: &mut Snapshot, view: &mut &'static str, edit: &Edit) {
    match edit {
        Edit::Put { service, address, age, flags } => {
            let made = make_service(*service, *address, *age, *flags);
            snapshot.services.insert(made.meta.name.clone(), Arc::new(made));
        }
        Edit::Remove { service } => drop(snapshot.services.remove(&ObjectName::new("default", &name(*service)))),
        Edit::Slice { service, endpoints } => {
            let text = |(host, state): &(u8, u8)| {
                let state = ["R", "S", "T", "N"][usize::from(*state % 4)];
                format!("10.1.0.{host} {state} {}", if host % 2 == 0 { "here" } else { "there" })
            };
            let texts: Vec<_> = endpoints.iter().map(text).collect();
            let texts: Vec<_> = texts.iter().map(String::as_str).collect();
            let made = slice(&name(*service), &texts);
            snapshot.slices.insert(made.service.clone(), vec![Arc::new(made)]);
        }
        Edit::Unslice { service } => drop(snapshot.slices.remove(&ObjectName::new("default", &name(*service)))),
        Edit::Move { node } => *view = ["here", "there", "nowhere"][usize::from(*node % 3)],
    }
}

proptest! {
    #[test]
    fn a_long_history_leaves_no_trace(rounds in proptest::collection::vec(proptest::collection::vec(edit(), 0..4), 1..12)) {
        let mut compiler = Compiler::new(OPTIONS);
        let (mut known, mut snapshot, mut view) = (Known::default(), Snapshot::default(), "here");
        let mut now = Instant::now();
        for edits in rounds {
            edits.iter().for_each(|edit| apply(&mut snapshot, &mut view, edit));
            now += Duration::from_secs(20);
            let node = NodeView { name: view, ..NODE };
            let delta = compiler.update(&snapshot, node, now);
            let conflicts = delta.conflicts.clone();
            follow(&mut known, delta);
            let (mut fresh, mut scratch) = (Known::default(), Compiler::new(OPTIONS));
            let everything = scratch.update(&snapshot, node, now);
            prop_assert_eq!(conflicts, everything.conflicts.clone());
            follow(&mut fresh, everything);
            let mut told = Known::default();
            follow(&mut told, compiler.everything());
            prop_assert_eq!(&told, &known);
            // Only a history has tombstones.
            let is_stone = |frontend: &Frontend| frontend.kind == kind::TOMBSTONE;
            prop_assert!(known.0.values().filter(|f| is_stone(f)).all(|f| f.port.protocol == Protocol::Udp));
            let live: BTreeMap<_, _> = known.0.iter().filter(|(_, f)| !is_stone(f)).map(|(k, f)| (*k, f.clone())).collect();
            prop_assert_eq!(live, fresh.0);
            prop_assert_eq!(&known.1, &fresh.1);
        }
    }
}
