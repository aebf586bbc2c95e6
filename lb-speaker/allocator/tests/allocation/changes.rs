//! What becomes of held addresses when pools, keys, requests and classes change, and why they are cleared.

use std::collections::{BTreeMap, BTreeSet};

use roadstead_allocator::{Classes, allocate, allocate_beside};
use roadstead_model::{IpAddressPool, IpFamily::V4, Protocol, Service, ServiceAllocation, Snapshot};

use crate::build::{Expected, check, ips, name, pool, pool_with, port, prior, service, snapshot, with};

fn v4(name: &str) -> Service {
    service(name, &[V4])
}

fn sharing(name: &str, key: &str, number: u16) -> Service {
    with(v4(name), |service| {
        service.load_balancer.sharing_key = Some(key.to_owned());
        service.ports = vec![port(Protocol::Tcp, number)];
    })
}

#[track_caller]
fn check_cleared(snapshot: &Snapshot, held: &[(&str, &[&str])], expected: &[(&str, &str)]) {
    let cleared = allocate(snapshot, &prior(held)).cleared;
    let names: Vec<_> = cleared.keys().map(|name| &*name.name).collect();
    assert_eq!(names, expected.iter().map(|(name, _)| *name).collect::<Vec<_>>(), "{cleared:?}");
    for (service, reason) in expected {
        let text = cleared[&name(service)].reason.to_string();
        assert!(text.contains(reason), "{service}: {text:?} lacks {reason:?}");
    }
}

/// A Service that holds 192.0.2.7, and what an edit does to it: what it has then, and why it lost what it had.
#[test]
fn an_edit_takes_effect_in_the_same_run() {
    let wide = || pool("a", &["192.0.2.0/24"]);
    let spare = || pool("b", &["198.51.100.1-198.51.100.9"]);
    let foreign = || {
        pool_with(wide(), |pool| {
            let namespaces = vec!["other".to_owned()];
            pool.allocation = Some(ServiceAllocation { namespaces, ..ServiceAllocation::default() });
        })
    };
    let asking = |ip: &str| with(v4("s"), |service| service.load_balancer.requested_ips = ips(&[ip]));
    let from = |pool: &str| with(v4("s"), |service| service.load_balancer.requested_pool = Some(pool.to_owned()));
    type Case<'a> = (&'a str, Vec<IpAddressPool>, Service, &'a [&'a str], &'a str);
    let cases: [Case<'_>; 14] = [
        ("nothing changed", vec![wide(), spare()], v4("s"), &["192.0.2.7"], ""),
        ("shrunk, still inside", vec![pool("a", &["192.0.2.7-192.0.2.7"]), spare()], v4("s"), &["192.0.2.7"], ""),
        (
            "shrunk, outside",
            vec![pool("a", &["192.0.2.8-192.0.2.9"])],
            v4("s"),
            &["192.0.2.8"],
            "192.0.2.7 is in no pool",
        ),
        ("removed, another has room", vec![spare()], v4("s"), &["198.51.100.1"], "192.0.2.7 is in no pool"),
        ("all removed", vec![], v4("s"), &[], "there is no IPAddressPool"),
        ("renamed", vec![pool("c", &["192.0.2.0/24"]), spare()], v4("s"), &["192.0.2.7"], ""),
        (
            "no longer automatic",
            vec![pool_with(wide(), |pool| pool.auto_assign = false), spare()],
            v4("s"),
            &["192.0.2.7"],
            "",
        ),
        ("no longer for it", vec![foreign(), spare()], v4("s"), &["198.51.100.1"], "pool a does not admit"),
        (
            "another pool is asked for",
            vec![wide(), spare()],
            from("b"),
            &["198.51.100.1"],
            "192.0.2.7 is not in pool b",
        ),
        ("its own pool is asked for", vec![wide(), spare()], from("a"), &["192.0.2.7"], ""),
        ("a pool that is not there", vec![wide()], from("nope"), &[], "there is no pool nope"),
        (
            "another address is asked for",
            vec![wide()],
            asking("192.0.2.9"),
            &["192.0.2.9"],
            "other addresses are requested",
        ),
        ("its own address is asked for", vec![wide()], asking("192.0.2.7"), &["192.0.2.7"], ""),
        ("one that cannot be had", vec![wide()], asking("203.0.113.1"), &[], "other addresses are requested"),
    ];
    for (what, pools, service, addresses, cleared) in cases {
        eprintln!("{what}");
        let snapshot = snapshot(pools, [service]);
        let allocation = allocate(&snapshot, &prior(&[("s", &["192.0.2.7"])]));
        assert_eq!(allocation.services[&name("s")].ips, ips(addresses));
        let found = allocation.cleared.get(&name("s")).map(|cleared| cleared.reason.to_string()).unwrap_or_default();
        assert_eq!(found.is_empty(), cleared.is_empty(), "{found}");
        assert!(found.contains(cleared), "{found:?} lacks {cleared:?}");
    }
}

#[test]
fn avoiding_buggy_addresses_clears_them() {
    let pool = pool_with(pool("a", &["192.0.2.254-192.0.3.9"]), |pool| pool.avoid_buggy_ips = true);
    let snapshot = snapshot([pool], [v4("s")]);
    check(&snapshot, &[("s", &["192.0.3.0"])], &[Expected("s", &["192.0.2.254"], "")]);
    check_cleared(&snapshot, &[("s", &["192.0.3.0"])], &[("s", "192.0.3.0 ends in .0 or .255")]);
}

#[test]
fn a_request_that_cannot_be_read_keeps_what_is_held_and_gets_nothing_new() {
    let bad = with(v4("s"), |service| service.load_balancer.request_error = Some("\"x\" is no IP address".to_owned()));
    let snapshot = snapshot([pool("a", &["192.0.2.0/24"])], [bad]);
    check(&snapshot, &[], &[Expected("s", &[], "is no IP address")]);
    check(&snapshot, &[("s", &["192.0.2.7"])], &[Expected("s", &["192.0.2.7"], "is no IP address")]);
    check_cleared(&snapshot, &[("s", &["192.0.2.7"])], &[]);
}

#[test]
fn a_sole_user_changes_its_key_in_place_and_of_several_the_one_that_changed_moves() {
    let world = |services: &[Service]| snapshot([pool("a", &["192.0.2.1-192.0.2.9"])], services.iter().cloned());
    let at = "192.0.2.1";
    check(&world(&[sharing("a", "new", 80)]), &[("a", &[at])], &[Expected("a", &[at], "")]);
    // `a` is first in every order, and yet it is the one that no longer fits.
    let three = world(&[sharing("a", "new", 80), sharing("b", "k", 81), sharing("c", "k", 82)]);
    let held: &[(&str, &[&str])] = &[("a", &[at]), ("b", &[at]), ("c", &[at])];
    let moved = [Expected("a", &["192.0.2.2"], ""), Expected("b", &[at], ""), Expected("c", &[at], "")];
    check(&three, held, &moved);
    check_cleared(&three, held, &[("a", "in use by default/b, which does not share it")]);
    // Of two nobody can say which changed: the first one stays.
    let two = world(&[sharing("a", "new", 80), sharing("b", "k", 81)]);
    let held: &[(&str, &[&str])] = &[("a", &[at]), ("b", &[at])];
    check(&two, held, &[Expected("a", &[at], ""), Expected("b", &["192.0.2.2"], "")]);
    // A port that another one has takes the newcomer away from it.
    let ports = world(&[sharing("a", "k", 81), sharing("b", "k", 81), sharing("c", "k", 82)]);
    let held: &[(&str, &[&str])] = &[("a", &[at]), ("b", &[at]), ("c", &[at])];
    check_cleared(&ports, held, &[("b", "port 81/TCP of address 192.0.2.1 is already in use by default/a")]);
}

#[test]
fn what_is_freed_serves_who_waited() {
    let pools = || [pool("a", &["192.0.2.1-192.0.2.2"])];
    let full = snapshot(pools(), ["a", "b", "c"].map(v4));
    let before = allocate(&full, &BTreeMap::new());
    assert!(before.services[&name("c")].ips.is_empty());
    let less = snapshot(pools(), ["b", "c"].map(v4));
    let after = allocate(&less, &before.assigned());
    assert_eq!(after.services[&name("b")].ips, ips(&["192.0.2.2"]));
    assert_eq!(after.services[&name("c")].ips, ips(&["192.0.2.1"]));
}

#[test]
fn overlapping_pools_give_an_address_once_and_move_nobody() {
    let pools = || [pool("b", &["192.0.2.1-192.0.2.4"])];
    let before = allocate(&snapshot(pools(), ["s", "t"].map(v4)), &BTreeMap::new());
    // The new one is in front of the old one and has one of its addresses, but not for these Services.
    let foreign = pool_with(pool("a", &["192.0.2.1-192.0.2.2"]), |pool| {
        let namespaces = vec!["other".to_owned()];
        pool.allocation = Some(ServiceAllocation { priority: 1, namespaces, ..ServiceAllocation::default() });
    });
    for added in [foreign, pool("a", &["192.0.2.2-192.0.2.3"])] {
        let world = snapshot(pools().into_iter().chain([added]), ["s", "t", "u", "v", "w"].map(v4));
        let after = allocate(&world, &before.assigned());
        assert!(after.cleared.is_empty());
        let all: Vec<_> = ["s", "t", "u", "v"].iter().flat_map(|one| after.services[&name(one)].ips.clone()).collect();
        assert_eq!(all, ips(&["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"]));
        assert!(after.services[&name("w")].ips.is_empty());
    }
}

#[test]
fn classes_by_flag() {
    let of = |text: &str, class: Option<&str>| {
        with(v4(text), |service| service.load_balancer.class = class.map(str::to_owned))
    };
    let services = [
        of("none", None),
        of("own", Some("roadstead.dev/speaker")),
        of("named", Some("example.com/lb")),
        of("other", Some("x/y")),
    ];
    let snapshot = snapshot([pool("a", &["192.0.2.0/24"])], services);
    let cases: [(Option<&str>, [&str; 4]); 3] = [
        (None, ["", "", "example.com/lb belongs to another", "x/y belongs to another"]),
        (Some(""), ["", "", "example.com/lb belongs to another", "x/y belongs to another"]),
        (Some("example.com/lb"), ["has no loadBalancerClass", "", "", "x/y belongs to another"]),
    ];
    for (flag, reasons) in cases {
        let classes = Classes::new(flag.map(str::to_owned));
        let held = prior(&[("other", &["192.0.2.9"])]);
        let allocation = allocate_beside(&snapshot, &held, &BTreeMap::new(), &BTreeSet::new(), &classes);
        assert!(allocation.cleared.is_empty(), "what is another controller's is not ours to clear");
        for (text, reason) in ["none", "own", "named", "other"].iter().zip(reasons) {
            let got = &allocation.services[&name(text)];
            let found = got.reason.as_ref().map(ToString::to_string).unwrap_or_default();
            assert_eq!(got.ips.is_empty(), !reason.is_empty(), "{flag:?} {text}: {found}");
            assert!(found.contains(reason) && found.is_empty() == reason.is_empty(), "{flag:?} {text}: {found:?}");
        }
    }
}
