//! The election by cases: a small cluster of three nodes, changed in one point each.

use std::sync::Arc;

use roadstead_model::{
    Endpoint, EndpointSlice, FamilyPolicy, IpFamily, LabelSelector, LoadBalancerSpec, Metadata, Node, NodeChoice,
    NodePreference, ObjectName, ServiceKind, SliceOrigin,
};

use super::*;

fn meta(namespace: &str, name: &str, pairs: &[(&str, &str)]) -> Metadata {
    let labels = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Metadata { name: ObjectName::new(namespace, name), labels, annotations: Labels::new(), created: None }
}

fn node(name: &str, labels: &[(&str, &str)]) -> Node {
    Node {
        meta: meta("", name, labels),
        internal_ips: Vec::new(),
        external_ips: Vec::new(),
        pod_cidrs: Vec::new(),
        network_unavailable: false,
        is_going: false,
    }
}

fn endpoint(node: &str, ready: bool, serving: bool) -> Endpoint {
    Endpoint {
        ip: "10.244.0.1".parse().unwrap(),
        ready,
        serving,
        terminating: false,
        node: Some(node.to_owned()),
        zone: None,
        zone_hints: Vec::new(),
        node_hints: Vec::new(),
    }
}

struct Cluster {
    nodes: Vec<Node>,
    endpoints: Vec<Endpoint>,
    policy: TrafficPolicy,
    advertisement: Option<L2Advertisement>,
    live: Vec<&'static str>,
    can: Abilities,
    sharing_key: Option<&'static str>,
}

fn cluster() -> Cluster {
    let advertisement = L2Advertisement {
        meta: meta("metallb-system", "l2", &[]),
        pools: Vec::new(),
        pool_selectors: Vec::new(),
        nodes: NodeChoice::default(),
        preferences: Vec::new(),
        service_selectors: Vec::new(),
        interfaces: Vec::new(),
    };
    Cluster {
        nodes: ["a", "b", "c"].iter().map(|name| node(name, &[("name", name)])).collect(),
        endpoints: vec![endpoint("a", true, true)],
        policy: TrafficPolicy::Cluster,
        advertisement: Some(advertisement),
        live: vec!["a", "b", "c"],
        can: Abilities::new(),
        sharing_key: None,
    }
}

fn selecting(mut cluster: Cluster, node: &str) -> Cluster {
    let selector = LabelSelector { match_labels: meta("", "", &[("name", node)]).labels, ..LabelSelector::default() };
    cluster.advertisement.as_mut().unwrap().nodes = NodeChoice(vec![selector]);
    cluster
}

fn hold(cluster: &Cluster, ip: &str) -> Outcome {
    let pool = IpAddressPool {
        meta: meta("metallb-system", "pool", &[]),
        addresses: vec!["192.0.2.0/24".parse().unwrap()],
        auto_assign: true,
        avoid_buggy_ips: false,
        allocation: None,
    };
    let service = Service {
        meta: meta("default", "web", &[("app", "web")]),
        kind: ServiceKind::LoadBalancer,
        selector: Labels::new(),
        cluster_ips: Vec::new(),
        ip_families: vec![IpFamily::V4],
        family_policy: FamilyPolicy::SingleStack,
        ports: Vec::new(),
        external_ips: Vec::new(),
        external_policy: cluster.policy,
        internal_policy: TrafficPolicy::Cluster,
        affinity_seconds: None,
        publish_not_ready: false,
        traffic_distribution: None,
        selection: None,
        load_balancer: LoadBalancerSpec {
            sharing_key: cluster.sharing_key.map(str::to_owned),
            ..LoadBalancerSpec::default()
        },
        status: Vec::new(),
    };
    let slice = EndpointSlice {
        meta: meta("default", "web-1", &[]),
        service: service.meta.name.clone(),
        family: IpFamily::V4,
        ports: Vec::new(),
        endpoints: cluster.endpoints.clone(),
        origin: SliceOrigin::EndpointSlice,
    };
    let advertisements = cluster.advertisement.clone().into_iter();
    let snapshot = Snapshot {
        nodes: cluster.nodes.iter().map(|node| (node.meta.name.name.to_string(), Arc::new(node.clone()))).collect(),
        slices: [(service.meta.name.clone(), vec![Arc::new(slice)])].into(),
        l2_advertisements: advertisements.map(|entry| (entry.meta.name.clone(), Arc::new(entry))).collect(),
        ..Snapshot::default()
    };
    let ip = ip.parse().unwrap();
    let contest = Contest { ip, hashed: ip, services: vec![&service], pool: &pool };
    elect(&snapshot, &contest, &cluster.live.iter().map(|name| (*name).to_owned()).collect(), &cluster.can)
}

fn changed(change: impl FnOnce(&mut Cluster)) -> Cluster {
    let mut cluster = cluster();
    change(&mut cluster);
    cluster
}

#[test]
fn the_lowest_hash_wins() {
    // By `printf 'a#192.0.2.1' | sha256sum` and so on: the node whose line sorts first.
    let cases = [
        ("192.0.2.1", "c"),
        ("192.0.2.2", "a"),
        ("192.0.2.3", "c"),
        ("192.0.2.4", "c"),
        ("2001:db8::1", "c"),
        ("2001:db8::2", "a"),
    ];
    for (ip, winner) in cases {
        let outcome = hold(&cluster(), ip);
        assert_eq!(outcome.winner.as_deref(), Some(winner), "{ip}");
        assert_eq!(outcome.nobody, None);
        assert_eq!(outcome.nodes.values().filter(|verdict| **verdict == Verdict::Won).count(), 1);
    }
}

#[test]
fn nodes_are_ruled_out_each_for_its_reason() {
    let cases = [
        (changed(|cluster| cluster.live = vec!["b"]), "a", Verdict::NotAlive),
        (changed(|cluster| cluster.nodes[0].network_unavailable = true), "a", Verdict::NetworkUnavailable),
        (
            changed(|cluster| {
                cluster.nodes[1] = node("b", &[("node.kubernetes.io/exclude-from-external-load-balancers", "")]);
            }),
            "b",
            Verdict::Excluded,
        ),
        (selecting(cluster(), "c"), "a", Verdict::NotSelected),
        (changed(|cluster| cluster.policy = TrafficPolicy::Local), "b", Verdict::NoLocalEndpoint),
        (
            changed(|cluster| {
                cluster.advertisement.as_mut().unwrap().interfaces = vec!["eth1".to_owned()];
                let only = |name: &str| BTreeSet::from([name.to_owned()]);
                cluster.can = [("c".to_owned(), only("eth0")), ("a".to_owned(), only("eth1"))].into();
            }),
            "c",
            Verdict::NoInterface,
        ),
    ];
    for (cluster, node, verdict) in cases {
        let outcome = hold(&cluster, "192.0.2.1");
        assert_eq!(outcome.nodes[node], verdict);
        assert_ne!(outcome.winner.as_deref(), Some(node));
        assert!(outcome.winner.is_some(), "{verdict}");
    }
}

#[test]
fn an_address_that_nobody_may_announce_says_why() {
    let cases = [
        (changed(|cluster| cluster.endpoints.clear()), Some(Nobody::NoEndpoint)),
        (changed(|cluster| cluster.endpoints = vec![endpoint("a", false, false)]), Some(Nobody::NoEndpoint)),
        (changed(|cluster| cluster.endpoints = vec![endpoint("a", false, true)]), None),
        (changed(|cluster| cluster.advertisement = None), Some(Nobody::NoAdvertisement)),
        (selecting(cluster(), "nowhere"), Some(Nobody::NoCandidate)),
        (changed(|cluster| cluster.live.clear()), Some(Nobody::NoCandidate)),
    ];
    for (cluster, nobody) in cases {
        let outcome = hold(&cluster, "192.0.2.1");
        assert_eq!(outcome.nobody, nobody);
        assert_eq!(outcome.winner.is_none(), nobody.is_some());
    }
}

#[test]
fn removing_a_loser_moves_nothing() {
    for last in 1..=50 {
        let ip = format!("192.0.2.{last}");
        let before = hold(&cluster(), &ip).winner.unwrap();
        for loser in ["a", "b", "c"].into_iter().filter(|node| *node != before) {
            let without = changed(|cluster| cluster.live.retain(|node| *node != loser));
            assert_eq!(hold(&without, &ip).winner.as_ref(), Some(&before), "{ip} moved when {loser} left");
        }
    }
}

#[test]
fn a_live_node_without_an_object_may_announce_where_no_label_is_asked_for() {
    let lone = changed(|cluster| {
        cluster.nodes.clear();
        cluster.live = vec!["a"];
    });
    assert_eq!(hold(&lone, "192.0.2.1").winner.as_deref(), Some("a"));
    assert_eq!(hold(&selecting(lone, "a"), "192.0.2.1").nodes["a"], Verdict::NotSelected);
}

fn labelled(key: &str, value: &str) -> LabelSelector {
    LabelSelector { match_labels: meta("", "", &[(key, value)]).labels, ..LabelSelector::default() }
}

/// By hash alone `c` announces 192.0.2.1.
#[test]
fn preferred_nodes_go_before_the_hash() {
    let prefers = |weights: &[(u8, &str)], change: fn(&mut Cluster)| {
        let preference =
            |(weight, node): &(u8, &str)| NodePreference { weight: *weight, selector: labelled("name", node) };
        let mut cluster = changed(change);
        cluster.advertisement.as_mut().unwrap().preferences = weights.iter().map(preference).collect();
        hold(&cluster, "192.0.2.1").winner
    };
    assert_eq!(prefers(&[], |_| {}).as_deref(), Some("c"));
    assert_eq!(prefers(&[(1, "b")], |_| {}).as_deref(), Some("b"));
    assert_eq!(prefers(&[(30, "a"), (20, "b"), (20, "b")], |_| {}).as_deref(), Some("b"), "weights add up");
    assert_eq!(prefers(&[(1, "b")], |cluster| cluster.live = vec!["a", "c"]).as_deref(), Some("c"), "a wish, no must");
    let elsewhere: fn(&mut Cluster) = |cluster| {
        cluster.advertisement.as_mut().unwrap().nodes = NodeChoice(vec![labelled("name", "c")]);
    };
    assert_eq!(prefers(&[(100, "b")], elsewhere).as_deref(), Some("c"), "only among the nodes selected");
}

#[test]
fn an_advertisement_for_some_services_announces_no_other_and_none_that_may_share() {
    let case = |app: &str, sharing_key: Option<&'static str>| {
        let mut cluster = changed(|_| {});
        cluster.sharing_key = sharing_key;
        cluster.advertisement.as_mut().unwrap().service_selectors = vec![labelled("app", "x"), labelled("app", app)];
        hold(&cluster, "192.0.2.1")
    };
    assert_eq!(case("web", None).winner.as_deref(), Some("c"));
    assert_eq!(case("other", None).nobody, Some(Nobody::NoAdvertisement));
    assert_eq!(case("web", Some("k")).nobody, Some(Nobody::NoAdvertisement));
}
