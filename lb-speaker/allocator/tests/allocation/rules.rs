//! MetalLB's allocation rules, one case each. A case is a snapshot, what was held before, and what must come out.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use roadstead_allocator::{Classes, allocate, allocate_beside};
use roadstead_model::{
    IpFamily::{V4, V6},
    LabelSelector, Namespace, Protocol, Service, ServiceAllocation, ServiceKind, TrafficPolicy,
};

use crate::build::{Expected, check, ips, labels, name, pool, pool_with, port, prior, service, snapshot, with};

fn v4(name: &str) -> Service {
    service(name, &[V4])
}

fn asking(name: &str, addresses: &[&str]) -> Service {
    with(v4(name), |service| service.load_balancer.requested_ips = ips(addresses))
}

fn sharing(name: &str, key: &str, number: u16) -> Service {
    with(v4(name), |service| {
        service.load_balancer.sharing_key = Some(key.to_owned());
        service.ports = vec![port(Protocol::Tcp, number)];
    })
}

#[test]
fn services_take_addresses_in_order_of_age_then_name() {
    let pools = [pool("a", &["192.0.2.1-192.0.2.3"])];
    // What has no date is not older than what has one.
    let dated = |name: &str, created: i64| with(v4(name), |service| service.meta.created = Some(created));
    check(
        &snapshot(pools, [dated("x", 9), dated("y", 8), v4("b"), v4("c")]),
        &[],
        &[
            Expected("y", &["192.0.2.1"], ""),
            Expected("x", &["192.0.2.2"], ""),
            Expected("b", &["192.0.2.3"], ""),
            Expected("c", &[], "no free IPv4 address in pool a"),
        ],
    );
}

#[test]
fn what_is_held_and_valid_stays() {
    let pools = || [pool("a", &["192.0.2.1-192.0.2.3"])];
    let services = || [v4("a"), v4("b")];
    check(
        &snapshot(pools(), services()),
        &[("b", &["192.0.2.1"])],
        &[Expected("b", &["192.0.2.1"], ""), Expected("a", &["192.0.2.2"], "")],
    );
    // Outside the pool: given anew. Held by two: the first in order keeps it.
    check(&snapshot(pools(), services()), &[("b", &["192.0.2.9"])], &[Expected("b", &["192.0.2.2"], "")]);
    check(
        &snapshot(pools(), services()),
        &[("a", &["192.0.2.3"]), ("b", &["192.0.2.3"])],
        &[Expected("a", &["192.0.2.3"], ""), Expected("b", &["192.0.2.1"], "")],
    );
    // A pool that stops assigning by itself drains: what it gave is kept.
    let drained = pool_with(pool("a", &["192.0.2.1-192.0.2.3"]), |pool| pool.auto_assign = false);
    check(
        &snapshot([drained], services()),
        &[("b", &["192.0.2.2"])],
        &[Expected("b", &["192.0.2.2"], ""), Expected("a", &[], "no pool with autoAssign")],
    );
}

#[test]
fn other_kinds_and_classes_are_left_alone() {
    let cluster = with(v4("cluster"), |service| service.kind = ServiceKind::ClusterIp);
    let other = with(v4("other"), |service| service.load_balancer.class = Some("example.com/lb".to_owned()));
    let ours = with(v4("ours"), |service| service.load_balancer.class = Some("roadstead.dev/speaker".to_owned()));
    let headless = with(v4("headless"), |service| service.cluster_ips.clear());
    let snapshot = snapshot([pool("a", &["192.0.2.0/30"])], [cluster, other, ours, headless]);
    check(
        &snapshot,
        &[("other", &["192.0.2.1"])],
        &[
            Expected("other", &[], "example.com/lb"),
            Expected("ours", &["192.0.2.0"], ""),
            Expected("headless", &[], "no cluster address"),
        ],
    );
    assert!(!allocate(&snapshot, &prior(&[])).services.contains_key(&name("cluster")));
}

#[test]
fn pools_are_tried_by_priority_then_name_and_pinned_ones_first() {
    let allocation = |priority, namespaces: &[&str]| {
        let namespaces = namespaces.iter().map(|name| (*name).to_owned()).collect();
        Some(ServiceAllocation { priority, namespaces, ..ServiceAllocation::default() })
    };
    let pinned = |name, range, priority| {
        pool_with(pool(name, &[range]), |pool| pool.allocation = allocation(priority, &["default"]))
    };
    let pools = [
        pool("a-everybody", &["192.0.2.1-192.0.2.1"]),
        pinned("b-last", "192.0.2.2-192.0.2.2", 0),
        pinned("c-second", "192.0.2.3-192.0.2.3", 20),
        pinned("d-first", "192.0.2.4-192.0.2.4", 10),
        pool_with(pool("e-foreign", &["192.0.2.5-192.0.2.9"]), |pool| pool.allocation = allocation(1, &["other"])),
    ];
    let services = ["a", "b", "c", "d", "e"].map(v4);
    check(
        &snapshot(pools, services),
        &[],
        &[
            Expected("a", &["192.0.2.4"], ""),
            Expected("b", &["192.0.2.3"], ""),
            Expected("c", &["192.0.2.2"], ""),
            Expected("d", &["192.0.2.1"], ""),
            Expected("e", &[], "no free IPv4 address"),
        ],
    );
}

#[test]
fn a_pool_admits_by_namespace_and_by_service_labels_together() {
    let mut selector = LabelSelector { match_labels: labels(&[("team", "shop")]), ..LabelSelector::default() };
    let allocation = ServiceAllocation {
        namespace_selectors: vec![selector.clone()],
        service_selectors: vec![LabelSelector {
            match_labels: labels(&[("tier", "front")]),
            ..LabelSelector::default()
        }],
        ..ServiceAllocation::default()
    };
    selector.match_labels.clear();
    let pool = pool_with(pool("a", &["192.0.2.1-192.0.2.9"]), |pool| pool.allocation = Some(allocation));
    let front = with(v4("front"), |service| service.meta.labels = labels(&[("tier", "front")]));
    let mut snapshot = snapshot([pool], [front, v4("back")]);
    let refused = [Expected("front", &[], "no pool"), Expected("back", &[], "no pool")];
    check(&snapshot, &[], &refused);
    let namespace = Namespace { name: "default".to_owned(), labels: labels(&[("team", "shop")]) };
    snapshot.namespaces.insert("default".to_owned(), Arc::new(namespace));
    check(&snapshot, &[], &[Expected("front", &["192.0.2.1"], ""), Expected("back", &[], "no pool")]);
}

#[test]
fn buggy_addresses_are_left_out() {
    let pool = pool_with(pool("a", &["192.0.2.254-192.0.3.1"]), |pool| pool.avoid_buggy_ips = true);
    let snapshot = snapshot([pool], [v4("a"), v4("b"), v4("c"), asking("d", &["192.0.2.255"])]);
    check(
        &snapshot,
        &[("a", &["192.0.3.0"])],
        &[
            Expected("a", &["192.0.2.254"], ""),
            Expected("b", &["192.0.3.1"], ""),
            Expected("c", &[], "no free"),
            Expected("d", &[], "avoidBuggyIPs"),
        ],
    );
    assert_eq!(
        allocate(&snapshot, &prior(&[])).pools.values().next().map(roadstead_allocator::PoolUsage::capacity),
        Some(2)
    );
}

#[test]
fn requested_addresses_and_pools() {
    let pools = || {
        [
            pool_with(pool("manual", &["192.0.2.10-192.0.2.11"]), |pool| pool.auto_assign = false),
            pool("auto", &["192.0.2.1-192.0.2.2"]),
        ]
    };
    let from =
        |name, pool: &str| with(v4(name), |service| service.load_balancer.requested_pool = Some(pool.to_owned()));
    let both = with(asking("both", &["192.0.2.2"]), |service| {
        service.load_balancer.requested_pool = Some("manual".to_owned());
    });
    let services = [
        v4("a"),
        asking("explicit", &["192.0.2.1"]),
        asking("outside", &["198.51.100.1"]),
        asking("twice", &["192.0.2.1", "192.0.2.2"]),
        asking("family", &["2001:db8::1"]),
        from("pool", "manual"),
        from("unknown", "nope"),
        both,
        asking("taken", &["192.0.2.1"]),
    ];
    check(
        &snapshot(pools(), services),
        &[],
        &[
            Expected("a", &["192.0.2.2"], ""),
            Expected("explicit", &["192.0.2.1"], ""),
            Expected("outside", &[], "198.51.100.1 is in no pool"),
            Expected("twice", &[], "more than one IPv4"),
            Expected("family", &[], "of IPv6 but the Service is of IPv4"),
            Expected("pool", &["192.0.2.10"], ""),
            Expected("unknown", &[], "no pool nope"),
            Expected("both", &[], "192.0.2.2 is not in pool manual"),
            Expected("taken", &[], "in use by default/explicit"),
        ],
    );
    // A request that comes later moves the Service that asks, and nobody else.
    check(
        &snapshot(pools(), [asking("a", &["192.0.2.10"]), v4("b")]),
        &[("a", &["192.0.2.1"]), ("b", &["192.0.2.2"])],
        &[Expected("a", &["192.0.2.10"], ""), Expected("b", &["192.0.2.2"], "")],
    );
}

#[test]
fn addresses_are_shared_under_one_key_with_disjoint_ports_and_equal_endpoints() {
    let local = |service| with(service, |service: &mut Service| service.external_policy = TrafficPolicy::Local);
    let udp = with(sharing("udp", "k", 80), |service| service.ports = vec![port(Protocol::Udp, 80)]);
    let services = [
        sharing("a", "k", 80),
        sharing("b", "k", 443),
        sharing("c", "k", 80),
        local(sharing("d", "k", 8080)),
        local(with(sharing("e", "k", 8081), |service| service.selector = labels(&[("app", "d")]))),
        sharing("f", "", 90),
        sharing("g", "other", 91),
        udp,
    ];
    check(
        &snapshot([pool("a", &["192.0.2.1-192.0.2.9"])], services),
        &[],
        &[
            Expected("a", &["192.0.2.1"], ""),
            Expected("b", &["192.0.2.1"], ""),
            Expected("c", &["192.0.2.2"], ""),
            Expected("d", &["192.0.2.3"], ""),
            Expected("e", &["192.0.2.3"], ""),
            Expected("f", &["192.0.2.4"], ""),
            Expected("g", &["192.0.2.5"], ""),
            Expected("udp", &["192.0.2.1"], ""),
        ],
    );
    let asking =
        |service| with(service, |service: &mut Service| service.load_balancer.requested_ips = ips(&["192.0.2.1"]));
    check(
        &snapshot(
            [pool("a", &["192.0.2.1-192.0.2.9"])],
            [asking(sharing("a", "k", 80)), asking(sharing("b", "k", 80)), asking(local(sharing("c", "k", 81)))],
        ),
        &[],
        &[
            Expected("a", &["192.0.2.1"], ""),
            Expected("b", &[], "port 80/TCP of address 192.0.2.1 is already in use by default/a"),
            Expected("c", &[], "cannot be shared with default/a"),
        ],
    );
}

#[test]
fn dual_stack_takes_both_families_from_one_pool() {
    let pools = || {
        [
            pool("a-v4", &["192.0.2.1-192.0.2.9"]),
            pool("b-both", &["198.51.100.1-198.51.100.9", "2001:db8::1-2001:db8::1"]),
        ]
    };
    check(
        &snapshot(pools(), [service("a", &[V6, V4]), service("b", &[V4, V6]), service("c", &[V6])]),
        &[],
        &[
            // As MetalLB, the IPv4 address is listed first whichever family the Service has first.
            Expected("a", &["198.51.100.1", "2001:db8::1"], ""),
            Expected("b", &["192.0.2.1"], "no IPv6 range in pool a-v4"),
            Expected("c", &[], "no free IPv6 address in pool b-both"),
        ],
    );
    // Half of a pair is kept and completed from the pool that gave it; a family no longer asked for is let go.
    check(
        &snapshot(pools(), [service("a", &[V4, V6])]),
        &[("a", &["198.51.100.7"])],
        &[Expected("a", &["198.51.100.7", "2001:db8::1"], "")],
    );
    check(
        &snapshot(pools(), [service("a", &[V6])]),
        &[("a", &["198.51.100.7", "2001:db8::1"])],
        &[Expected("a", &["2001:db8::1"], "")],
    );
    check(&snapshot([], [v4("a")]), &[], &[Expected("a", &[], "no IPAddressPool")]);
    check(
        &snapshot([pool("a", &["192.0.2.0/24"])], [service("a", &[V6])]),
        &[],
        &[Expected("a", &[], "no IPv6 range in pool a")],
    );
}

#[test]
fn a_huge_range_is_no_burden() {
    let services = (0..2000).map(|number| service(&format!("s{number:04}"), &[V6]));
    let snapshot = snapshot([pool("a", &["2001:db8::/32"])], services);
    check(&snapshot, &[], &[Expected("s0000", &["2001:db8::"], ""), Expected("s1999", &["2001:db8::7cf"], "")]);
}

#[test]
fn what_an_unknown_service_holds_goes_to_nobody_else() {
    let services = [v4("a"), sharing("b", "key", 1), sharing("c", "key", 2), asking("d", &["192.0.2.1"]), v4("held")];
    let snapshot = snapshot([pool("a", &["192.0.2.1-192.0.2.9"])], services);
    let held = prior(&[("gone", &["192.0.2.1"]), ("held", &["192.0.2.2"]), ("partner", &["192.0.2.3"])]);
    // b shared its address with a Service that cannot be read now, and keeps it.
    let (before, nobodys) = (prior(&[("b", &["192.0.2.3"])]), BTreeSet::new());
    let allocation = allocate_beside(&snapshot, &before, &held, &nobodys, &Classes::default());
    let got = |service: &str| allocation.services[&name(service)].clone();
    assert_eq!(got("a").ips, ips(&["192.0.2.4"]));
    assert_eq!(got("b").ips, ips(&["192.0.2.3"]));
    assert_eq!(got("c").ips, ips(&["192.0.2.5"]), "nobody new comes to a reserved address");
    assert!(got("d").reason.unwrap().to_string().contains("in use by default/gone"));
    assert!(got("held").ips.is_empty() && got("held").reason.is_some());
}

#[test]
fn what_another_host_has_goes_to_nobody_and_is_taken_from_its_holder() {
    let services = [v4("a"), v4("held"), v4("kept"), asking("b", &["192.0.2.1"]), asking("c", &["192.0.2.2"])];
    let snapshot = snapshot([pool("a", &["192.0.2.1-192.0.2.9"])], services);
    let before = prior(&[("held", &["192.0.2.3"]), ("kept", &["192.0.2.4"]), ("c", &["192.0.2.2"])]);
    let occupied = ips(&["192.0.2.1", "192.0.2.2", "192.0.2.3"]).into_iter().collect();
    let allocation = allocate_beside(&snapshot, &before, &BTreeMap::new(), &occupied, &Classes::default());
    let got = |service: &str| allocation.services[&name(service)].clone();
    for (service, expected) in [("kept", "192.0.2.4"), ("a", "192.0.2.5"), ("held", "192.0.2.6")] {
        assert_eq!(got(service).ips, ips(&[expected]), "{service}");
    }
    for (service, ip) in [("b", "192.0.2.1"), ("c", "192.0.2.2")] {
        assert_eq!(got(service).ips, ips(&[]), "{service}");
        assert!(got(service).reason.unwrap().to_string().contains(&format!("{ip} is in use by another host")));
    }
    assert_eq!(allocation.cleared.len(), 2);
}
