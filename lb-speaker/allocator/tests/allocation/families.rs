//! Rules of families: dual stack by policy, which pool completes a pair, which addresses may be asked for.

use roadstead_allocator::allocate;
use roadstead_model::{
    FamilyPolicy::{self, PreferDualStack, RequireDualStack},
    IpFamily::{self, V4, V6},
    Service, ServiceAllocation,
};

use crate::build::{Expected, check, ips, name, pool, pool_with, prior, service, snapshot, with};

fn stack(name: &str, families: &[IpFamily], policy: FamilyPolicy) -> Service {
    with(service(name, families), |service| service.family_policy = policy)
}

#[test]
fn dual_stack_by_policy() {
    let v4 = || pool("v4", &["192.0.2.1-192.0.2.9"]);
    let v6 = || pool("v6", &["2001:db8:1::1-2001:db8:1::9"]);
    let both = || pool("z-both", &["198.51.100.1-198.51.100.9", "2001:db8::1-2001:db8::9"]);
    let pair: &[&str] = &["198.51.100.1", "2001:db8::1"];
    type Case<'a> = (&'a str, Vec<roadstead_model::IpAddressPool>, Service, &'a [&'a str], &'a str);
    let cases: [Case<'_>; 9] = [
        (
            "one cluster address",
            vec![both()],
            stack("s", &[V4], RequireDualStack),
            &[],
            "cluster addresses of one family",
        ),
        ("required, a pool of both", vec![v4(), v6(), both()], stack("s", &[V4, V6], RequireDualStack), pair, ""),
        (
            "required, no pool of both",
            vec![v4(), v6()],
            stack("s", &[V4, V6], RequireDualStack),
            &[],
            "IPv4 and IPv6 range",
        ),
        ("preferred, a pool of both", vec![v4(), v6(), both()], stack("s", &[V4, V6], PreferDualStack), pair, ""),
        ("preferred, none", vec![v4(), v6()], stack("s", &[V4, V6], PreferDualStack), &["192.0.2.1"], "no IPv6 range"),
        (
            "the first family goes first",
            vec![v4(), v6()],
            stack("s", &[V6, V4], PreferDualStack),
            &["2001:db8:1::1"],
            "no IPv4 range",
        ),
        (
            "the second, where it is all there is",
            vec![v4()],
            stack("s", &[V6, V4], PreferDualStack),
            &["192.0.2.1"],
            "no IPv6 range",
        ),
        (
            "preferred, with one cluster address",
            vec![both()],
            stack("s", &[V4], PreferDualStack),
            &["198.51.100.1"],
            "",
        ),
        ("single, of IPv6", vec![both()], stack("s", &[V6], FamilyPolicy::SingleStack), &["2001:db8::1"], ""),
    ];
    for (what, pools, service, addresses, reason) in cases {
        eprintln!("{what}");
        check(&snapshot(pools, [service]), &[], &[Expected("s", addresses, reason)]);
    }
}

#[test]
fn a_full_pool_of_both_is_named() {
    let pools = [pool("both", &["192.0.2.1-192.0.2.9", "2001:db8::1-2001:db8::1"])];
    let services =
        [service("a", &[V6]), stack("b", &[V4, V6], RequireDualStack), stack("c", &[V4, V6], PreferDualStack)];
    check(
        &snapshot(pools, services),
        &[],
        &[
            Expected("a", &["2001:db8::1"], ""),
            Expected("b", &[], "together with an IPv6 address in pool both"),
            Expected("c", &["192.0.2.1"], "no free IPv6 address in pool both"),
        ],
    );
}

#[test]
fn a_pinned_pool_of_one_family_goes_before_a_pair_for_everybody() {
    let pinned = pool_with(pool("pinned", &["192.0.2.1-192.0.2.9"]), |pool| {
        let namespaces = vec!["default".to_owned()];
        pool.allocation = Some(ServiceAllocation { namespaces, ..ServiceAllocation::default() });
    });
    let pools = || [pinned.clone(), pool("all", &["198.51.100.1-198.51.100.9", "2001:db8::1-2001:db8::9"])];
    let expected = |policy, addresses, reason| {
        check(&snapshot(pools(), [stack("s", &[V4, V6], policy)]), &[], &[Expected("s", addresses, reason)]);
    };
    expected(PreferDualStack, &["192.0.2.1"], "no IPv6 range in pool pinned");
    expected(RequireDualStack, &["198.51.100.1", "2001:db8::1"], "");
}

#[test]
fn what_is_held_when_families_or_pools_change() {
    let v4 = || pool("a", &["192.0.2.1-192.0.2.9"]);
    let both = || pool("a", &["192.0.2.1-192.0.2.9", "2001:db8::1-2001:db8::9"]);
    let other = || pool("b", &["198.51.100.1-198.51.100.9", "2001:db8:b::1-2001:db8:b::9"]);
    let prefers = || stack("s", &[V4, V6], PreferDualStack);
    let requires = || stack("s", &[V4, V6], RequireDualStack);
    // What, pools, the Service, what it held, what it gets, why not all, and why it was cleared.
    type Case<'a> =
        (&'a str, Vec<roadstead_model::IpAddressPool>, Service, &'a [&'a str], &'a [&'a str], &'a str, &'a str);
    let cases: [Case<'_>; 10] = [
        (
            "the pool was extended",
            vec![both(), other()],
            prefers(),
            &["192.0.2.7"],
            &["192.0.2.7", "2001:db8::1"],
            "",
            "",
        ),
        (
            "only another pool has it",
            vec![v4(), other()],
            prefers(),
            &["192.0.2.7"],
            &["192.0.2.7"],
            "no IPv6 range in pool a",
            "",
        ),
        (
            "the pool lost a family",
            vec![v4(), other()],
            prefers(),
            &["192.0.2.7", "2001:db8::7"],
            &["198.51.100.1", "2001:db8:b::1"],
            "",
            "2001:db8::7 is in no pool",
        ),
        (
            "both are required now",
            vec![v4(), other()],
            requires(),
            &["192.0.2.7"],
            &["198.51.100.1", "2001:db8:b::1"],
            "",
            "only one address is held",
        ),
        (
            "one family is let go",
            vec![both()],
            service("s", &[V6]),
            &["192.0.2.7", "2001:db8::7"],
            &["2001:db8::7"],
            "",
            "",
        ),
        (
            "the other family",
            vec![both()],
            service("s", &[V6]),
            &["192.0.2.7"],
            &["2001:db8::1"],
            "",
            "the Service is of IPv6",
        ),
        ("two of one family", vec![both()], service("s", &[V4]), &["192.0.2.7", "192.0.2.8"], &["192.0.2.7"], "", ""),
        (
            "the order held",
            vec![both()],
            prefers(),
            &["2001:db8::7", "192.0.2.7"],
            &["2001:db8::7", "192.0.2.7"],
            "",
            "",
        ),
        (
            "from two pools",
            vec![both(), other()],
            prefers(),
            &["192.0.2.7", "2001:db8:b::7"],
            &["192.0.2.1", "2001:db8::1"],
            "",
            "not in one pool",
        ),
        (
            "the pool is gone",
            vec![other()],
            prefers(),
            &["192.0.2.7"],
            &["198.51.100.1", "2001:db8:b::1"],
            "",
            "192.0.2.7 is in no pool",
        ),
    ];
    for (what, pools, service, held, addresses, reason, cleared) in cases {
        eprintln!("{what}");
        let snapshot = snapshot(pools, [service]);
        check(&snapshot, &[("s", held)], &[Expected("s", addresses, reason)]);
        let found = allocate(&snapshot, &prior(&[("s", held)])).cleared.remove(&name("s"));
        assert_eq!(found.is_none(), cleared.is_empty(), "{found:?}");
        if let Some(found) = found {
            assert_eq!(found.ips, ips(held));
            assert!(found.reason.to_string().contains(cleared), "{}", found.reason);
        }
    }
}

#[test]
fn requested_addresses_by_family() {
    let pools = || {
        [
            pool("a", &["192.0.2.0/24", "2001:db8::/64"]),
            pool("b", &["198.51.100.0/24"]),
            pool_with(pool("c-manual", &["203.0.113.0/24"]), |pool| {
                pool.auto_assign = false;
                pool.avoid_buggy_ips = true;
            }),
            pool_with(pool("d-foreign", &["203.0.114.0/24"]), |pool| {
                let namespaces = vec!["other".to_owned()];
                pool.allocation = Some(ServiceAllocation { namespaces, ..ServiceAllocation::default() });
            }),
        ]
    };
    type Case<'a> = (&'a [IpFamily], &'a [&'a str], Option<&'a str>, &'a str);
    let cases: [Case<'_>; 17] = [
        (&[V4], &["192.0.2.7"], None, ""),
        (&[V6], &["2001:db8::7"], None, ""),
        (&[V4, V6], &["192.0.2.7", "2001:db8::7"], None, ""),
        (&[V4, V6], &["2001:db8::7", "192.0.2.7"], None, ""),
        (&[V6, V4], &["192.0.2.7", "2001:db8::7"], None, ""),
        (&[V4], &["203.0.113.7"], None, ""),
        (&[V4], &["192.0.2.7"], Some("a"), ""),
        (&[V4], &["192.0.2.7"], Some("b"), "192.0.2.7 is not in pool b"),
        (&[V4], &["192.0.2.7"], Some("nope"), "there is no pool nope"),
        (&[V4], &["203.0.113.0"], None, "avoidBuggyIPs"),
        (&[V4], &["203.0.114.7"], None, "pool d-foreign does not admit"),
        (&[V4], &["203.0.114.7"], Some("d-foreign"), "pool d-foreign does not admit"),
        (&[V4], &["192.0.2.7", "192.0.2.8"], None, "more than one IPv4 address"),
        (&[V4, V6], &["192.0.2.7"], None, "requested addresses are of IPv4 but the Service is of IPv4 and IPv6"),
        (&[V4], &["192.0.2.7", "2001:db8::7"], None, "of IPv4 and IPv6 but the Service is of IPv4"),
        (&[V4, V6], &["198.51.100.7", "2001:db8::7"], None, "not in one pool"),
        (&[V4, V6], &["192.0.2.7", "2001:db8::7", "192.0.2.8"], None, "3 addresses are requested"),
    ];
    for (families, wanted, from, reason) in cases {
        eprintln!("{families:?} {wanted:?} {from:?}");
        let asking = with(service("s", families), |service| {
            service.load_balancer.requested_ips = ips(wanted);
            service.load_balancer.requested_pool = from.map(str::to_owned);
        });
        let addresses = if reason.is_empty() { wanted } else { &[] };
        check(&snapshot(pools(), [asking]), &[], &[Expected("s", addresses, reason)]);
    }
}
