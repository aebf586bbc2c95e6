//! Invariants of the allocator over random pools, Services and earlier assignments (reference: speaker, section 7).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use proptest::prelude::*;
use roadstead_allocator::{Allocation, allocate};
use roadstead_model::{
    IpAddressPool,
    IpFamily::{V4, V6},
    ObjectName, Protocol, Service, ServiceAllocation, Snapshot, TrafficPolicy,
};

use crate::build::{labels, pool, port, service, snapshot};

type Prior = BTreeMap<ObjectName, Vec<IpAddr>>;

fn v4(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

fn any_service(name: String) -> impl Strategy<Value = Service> {
    let families = prop_oneof![Just(vec![V4]), Just(vec![V6]), Just(vec![V4, V6])];
    let key = prop_oneof![2 => Just(None), 1 => Just(Some("k")), 1 => Just(Some("l"))];
    let requested = prop_oneof![4 => Just(None), 1 => (0..12u8).prop_map(Some)];
    let from = prop_oneof![4 => Just(None), 1 => (0..4u8).prop_map(Some)];
    (families, key, requested, from, 80..83u16, any::<bool>(), prop::option::of(0..3i64)).prop_map(
        move |(families, key, requested, from, number, local, created)| {
            let mut made = service(&name, &families);
            made.load_balancer.sharing_key = key.map(str::to_owned);
            made.load_balancer.requested_ips = requested.map(v4).into_iter().collect();
            made.load_balancer.requested_pool = from.map(|pool| format!("p{pool}"));
            made.ports = vec![port(Protocol::Tcp, number)];
            made.meta.created = created;
            if local {
                made.external_policy = TrafficPolicy::Local;
                made.selector = labels(&[("app", "same")]);
            }
            made
        },
    )
}

fn any_pool(name: String) -> impl Strategy<Value = IpAddressPool> {
    (0..10u8, 0..4u8, prop::option::of(0..3u8), any::<bool>(), any::<bool>(), prop::option::of(0..3u32)).prop_map(
        move |(first, length, v6, auto, avoid, priority)| {
            let mut ranges = vec![format!("192.0.2.{first}-192.0.2.{}", first + length)];
            ranges.extend(v6.map(|last| format!("2001:db8::-2001:db8::{last}")));
            let mut made = pool(&name, &ranges.iter().map(String::as_str).collect::<Vec<_>>());
            made.auto_assign = auto;
            made.avoid_buggy_ips = avoid;
            made.allocation = priority.map(|priority| ServiceAllocation {
                priority,
                namespaces: if priority == 2 { vec!["other".to_owned()] } else { Vec::new() },
                ..ServiceAllocation::default()
            });
            made
        },
    )
}

fn world() -> impl Strategy<Value = (Vec<IpAddressPool>, Vec<Service>, Prior)> {
    let pools = (0..4usize).prop_flat_map(|n| (0..n).map(|i| any_pool(format!("p{i}"))).collect::<Vec<_>>());
    let services = (0..9usize).prop_flat_map(|n| (0..n).map(|i| any_service(format!("s{i}"))).collect::<Vec<_>>());
    let prior = prop::collection::btree_map(
        (0..9usize).prop_map(|i| ObjectName::new("default", &format!("s{i}"))),
        prop::collection::vec((0..14u8).prop_map(v4), 1..2),
        0..6,
    );
    (pools, services, prior)
}

/// Services that hold an address together must be allowed to.
fn legal(snapshot: &Snapshot, allocation: &Allocation) -> Result<(), TestCaseError> {
    let mut used: BTreeMap<IpAddr, Vec<&Service>> = BTreeMap::new();
    for (name, assignment) in &allocation.services {
        let service = &snapshot.services[name];
        prop_assert_eq!(assignment.pool.is_some(), !assignment.ips.is_empty());
        for ip in &assignment.ips {
            let pool = &snapshot.pools[assignment.pool.as_ref().unwrap()];
            prop_assert!(pool.addresses.iter().any(|range| range.contains(*ip)), "{} outside its pool", ip);
            prop_assert!(!pool.avoid_buggy_ips || !matches!(ip, IpAddr::V4(ip) if [0, 255].contains(&ip.octets()[3])));
            for other in used.get(ip).into_iter().flatten() {
                prop_assert!(may_share(service, other), "{} has {} and {}", ip, name, other.meta.name);
            }
            used.entry(*ip).or_default().push(service);
        }
    }
    Ok(())
}

fn may_share(one: &Service, other: &Service) -> bool {
    let same_key =
        one.load_balancer.sharing_key.is_some() && one.load_balancer.sharing_key == other.load_balancer.sharing_key;
    let same_policy = one.external_policy == other.external_policy
        && (one.external_policy == TrafficPolicy::Cluster || one.selector == other.selector);
    same_key && same_policy && one.ports.iter().all(|port| other.ports.iter().all(|taken| taken.port != port.port))
}

/// A pending Service without a request of its own: no address of a pool that serves it may be legal for it.
fn nothing_left(snapshot: &Snapshot, allocation: &Allocation) -> Result<(), TestCaseError> {
    let mut holders: BTreeMap<IpAddr, Vec<&Service>> = BTreeMap::new();
    for (name, assignment) in &allocation.services {
        for ip in &assignment.ips {
            holders.entry(*ip).or_default().push(&snapshot.services[name]);
        }
    }
    for (name, _) in allocation.services.iter().filter(|(_, assignment)| assignment.ips.is_empty()) {
        let service = &snapshot.services[name];
        if !service.load_balancer.requested_ips.is_empty() || service.load_balancer.requested_pool.is_some() {
            continue;
        }
        let foreign = |pool: &IpAddressPool| pool.allocation.as_ref().is_some_and(|a| !a.namespaces.is_empty());
        for pool in snapshot.pools.values().filter(|pool| pool.auto_assign && !foreign(pool)) {
            let all = (0..16).map(v4).chain((0..4u16).map(|last| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, last])));
            for ip in all.filter(|ip| pool.addresses.iter().any(|range| range.contains(*ip))) {
                let buggy = pool.avoid_buggy_ips && matches!(ip, IpAddr::V4(ip) if ip.octets()[3] == 0);
                let of_family = service.cluster_ips.iter().any(|cluster| cluster.is_ipv4() == ip.is_ipv4());
                let free = holders.get(&ip).is_none_or(|held| held.iter().all(|holder| may_share(service, holder)));
                prop_assert!(buggy || !of_family || !free, "{} is pending though {} is free", name, ip);
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn addresses_are_legal_stable_and_not_withheld((pools, services, prior) in world()) {
        let given = snapshot(pools, services);
        let first = allocate(&given, &prior);
        prop_assert_eq!(&first, &allocate(&given, &prior), "the same input gave another answer");
        legal(&given, &first)?;
        nothing_left(&given, &first)?;
        let second = allocate(&given, &first.assigned());
        prop_assert_eq!(&first, &second, "allocating again changed something");
    }

    #[test]
    fn the_order_of_objects_does_not_matter((pools, services, prior) in world(), rotation in 0..9usize) {
        let forward = allocate(&snapshot(pools.clone(), services.clone()), &prior);
        let mut turned = services;
        let middle = rotation.min(turned.len());
        turned.rotate_left(middle);
        let backward = allocate(&snapshot(pools.into_iter().rev(), turned), &prior);
        prop_assert_eq!(forward, backward);
    }

    #[test]
    fn a_new_service_or_pool_moves_nobody(
        (pools, services, prior) in world(),
        extra in any_service("a-new".to_owned()),
        spare in any_pool("a-new".to_owned()),
    ) {
        let before = allocate(&snapshot(pools.clone(), services.clone()), &prior);
        let more = services.into_iter().chain([extra]);
        let after = allocate(&snapshot(pools.into_iter().chain([spare]), more), &before.assigned());
        for (name, assignment) in &before.services {
            let kept: BTreeSet<_> = after.services[name].ips.iter().collect();
            prop_assert!(assignment.ips.iter().all(|ip| kept.contains(ip)), "{} moved", name);
        }
    }
}
