//! The allocator's invariants over random worlds. What is legal is said here once more, by trying every address there is;
//! none of it is shared with the allocator.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use roadstead_allocator::{Allocation, Assignment, Classes, Reason, allocate, allocate_within, prior_of};
use roadstead_model::{
    FamilyPolicy, IngressIpMode, IpAddressPool,
    IpFamily::{self, V4, V6},
    Labels, LoadBalancerIngress, ObjectName, Service, Snapshot, TrafficPolicy,
};

use crate::world::{addresses, any_pool, any_prior, any_service, any_snapshot, for_worlds};

type Table = BTreeMap<ObjectName, Vec<IpAddr>>;

/// May the two have one address?
fn may_share(one: &Service, other: &Service) -> bool {
    let key = |service: &Service| service.load_balancer.sharing_key.clone().filter(|key| !key.is_empty());
    let local = |service: &Service| service.external_policy == TrafficPolicy::Local;
    let same_ends = local(one) == local(other) && (!local(one) || one.selector == other.selector);
    let ports =
        |service: &Service| service.ports.iter().map(|port| (port.protocol, port.port)).collect::<BTreeSet<_>>();
    key(one).is_some() && key(one) == key(other) && same_ends && ports(one).is_disjoint(&ports(other))
}

fn is_in(pool: &IpAddressPool, ip: IpAddr) -> bool {
    let buggy = matches!(ip, IpAddr::V4(ip) if matches!(ip.octets()[3], 0 | 255));
    !(buggy && pool.avoid_buggy_ips)
        && pool
            .addresses
            .iter()
            .any(|range| range.first() <= ip && ip <= range.last() && range.first().is_ipv4() == ip.is_ipv4())
}

fn admits(snapshot: &Snapshot, pool: &IpAddressPool, service: &Service) -> bool {
    let Some(allocation) = &pool.allocation else { return true };
    let namespace = &*service.meta.name.namespace;
    let team = snapshot.namespaces.get(namespace).map_or_else(Labels::new, |namespace| namespace.labels.clone());
    let everywhere = allocation.namespaces.is_empty() && allocation.namespace_selectors.is_empty();
    let here = allocation.namespaces.iter().any(|name| name == namespace)
        || allocation.namespace_selectors.iter().any(|selector| selector.matches(&team));
    let selectors = &allocation.service_selectors;
    (everywhere || here)
        && (selectors.is_empty() || selectors.iter().any(|selector| selector.matches(&service.meta.labels)))
}

/// The pools that a new address of the Service may come from.
fn sources<'a>(snapshot: &'a Snapshot, service: &'a Service) -> impl Iterator<Item = &'a IpAddressPool> {
    let spec = &service.load_balancer;
    let fits = move |pool: &&IpAddressPool| {
        let asked = match &spec.requested_pool {
            Some(name) => **name == *pool.meta.name.name,
            None => pool.auto_assign || !spec.requested_ips.is_empty(),
        };
        asked && admits(snapshot, pool, service)
    };
    snapshot.pools.values().map(AsRef::as_ref).filter(fits)
}

fn families(service: &Service) -> Vec<IpFamily> {
    service.cluster_ips.iter().map(|ip| IpFamily::of(*ip)).collect()
}

fn holders<'a>(snapshot: &'a Snapshot, allocation: &Allocation) -> BTreeMap<IpAddr, Vec<&'a Service>> {
    let mut holders: BTreeMap<IpAddr, Vec<&Service>> = BTreeMap::new();
    for (name, assignment) in &allocation.services {
        for ip in &assignment.ips {
            holders.entry(*ip).or_default().push(&snapshot.services[name]);
        }
    }
    holders
}

fn may_have(service: &Service, ip: IpAddr, holders: &BTreeMap<IpAddr, Vec<&Service>>) -> bool {
    let others = holders.get(&ip).into_iter().flatten().filter(|other| other.meta.name != service.meta.name);
    others.into_iter().all(|other| may_share(service, other))
}

/// Invariant 1: nobody has what another has but by sharing, and every address is in a pool that is there and fits.
fn assert_legal(snapshot: &Snapshot, allocation: &Allocation, prior: &Table) {
    let holders = holders(snapshot, allocation);
    let mut ports = BTreeSet::new();
    for (name, Assignment { ips, pool, reason }) in &allocation.services {
        let service = &snapshot.services[name];
        assert_eq!(pool.is_some(), !ips.is_empty(), "{name}");
        let Some(pool) = pool else {
            assert!(reason.is_some(), "{name} has no address and nobody says why");
            continue;
        };
        let pool = &snapshot.pools[pool];
        assert!(service.load_balancer.class.as_deref().is_none_or(|class| class == "roadstead.dev/speaker"), "{name}");
        assert!(admits(snapshot, pool, service), "{name} has an address of {}", pool.meta.name);
        assert!(
            pool.auto_assign || prior.contains_key(name) || sources(snapshot, service).any(|one| one.meta == pool.meta),
            "{name} was given an address of {}, which gives none by itself",
            pool.meta.name,
        );
        for ip in ips {
            assert!(is_in(pool, *ip), "{name} has {ip} outside its pool");
            assert!(may_have(service, *ip, &holders), "{name} has {ip}, which others have");
            for port in &service.ports.iter().map(|port| (port.protocol, port.port)).collect::<BTreeSet<_>>() {
                assert!(ports.insert((*ip, *port)), "two have {ip} {port:?}");
            }
        }
        let has: BTreeSet<IpFamily> = ips.iter().map(|ip| IpFamily::of(*ip)).collect();
        assert_eq!(has.len(), ips.len(), "{name} has two of a family");
        let wanted: BTreeSet<IpFamily> = families(service).into_iter().collect();
        let half = service.family_policy == FamilyPolicy::PreferDualStack && has.is_subset(&wanted);
        assert!(has == wanted || half, "{name} has {has:?} of {wanted:?}");
        let asked = &service.load_balancer.requested_ips;
        let same = || asked.iter().collect::<BTreeSet<_>>() == ips.iter().collect();
        assert!(asked.is_empty() || service.load_balancer.request_error.is_some() || same(), "{name} asked for others");
    }
}

/// Invariant 3: who has nothing could be given nothing.
fn assert_nothing_left(snapshot: &Snapshot, allocation: &Allocation) {
    let holders = holders(snapshot, allocation);
    for (name, Assignment { ips, pool, .. }) in &allocation.services {
        let service = &snapshot.services[name];
        let spec = &service.load_balancer;
        let other = spec.class.as_deref().is_some_and(|class| class != "roadstead.dev/speaker");
        let wanted = families(service);
        let impossible = service.family_policy == FamilyPolicy::RequireDualStack && wanted.len() < 2;
        if other || impossible || spec.request_error.is_some() || ips.len() == wanted.len() {
            continue;
        }
        let free = |pool: &IpAddressPool, family: IpFamily| {
            addresses(family).into_iter().find(|ip| is_in(pool, *ip) && may_have(service, *ip, &holders))
        };
        if let Some(pool) = pool {
            let missing = wanted.iter().find(|family| ips.iter().all(|ip| IpFamily::of(*ip) != **family)).unwrap();
            let found = free(&snapshot.pools[pool], *missing);
            assert_eq!(found, None, "{name} lacks an address of {missing} that its pool has");
            continue;
        }
        for pool in sources(snapshot, service) {
            let legal = if !spec.requested_ips.is_empty() {
                spec.requested_ips.iter().all(|ip| is_in(pool, *ip) && may_have(service, *ip, &holders))
            } else if service.family_policy == FamilyPolicy::RequireDualStack {
                wanted.iter().all(|family| free(pool, *family).is_some())
            } else {
                wanted.iter().any(|family| free(pool, *family).is_some())
            };
            assert!(!legal, "{name} is pending though {} has what it needs", pool.meta.name);
        }
    }
}

/// All but the reasons: which of two addresses is said to be taken may be another once both are.
fn holdings(allocation: &Allocation) -> Vec<(&ObjectName, &[IpAddr], Option<&ObjectName>, bool)> {
    let all = allocation.services.iter();
    all.map(|(name, got)| (name, &*got.ips, got.pool.as_ref(), got.reason.is_some())).collect()
}

/// Who held what still may be held by nobody else's fault holds it still: only the rules may take an address.
fn assert_kept(snapshot: &Snapshot, allocation: &Allocation, before: &Allocation) {
    for (name, assignment) in &before.services {
        let Some(after) = allocation.services.get(name) else {
            assert!(!snapshot.services.contains_key(name));
            continue;
        };
        let kept = assignment.ips.iter().all(|ip| after.ips.contains(ip));
        assert!(kept, "{name} had {:?} and has {:?}", assignment.ips, after.ips);
        assert!(!allocation.cleared.contains_key(name), "{name} was cleared");
    }
}

#[test]
fn addresses_are_legal_and_never_withheld() {
    for_worlds(|random| {
        let snapshot = any_snapshot(random);
        let prior = any_prior(&snapshot, random);
        let allocation = allocate(&snapshot, &prior);
        assert_legal(&snapshot, &allocation, &prior);
        assert_nothing_left(&snapshot, &allocation);
        for (name, ips) in &prior {
            let has = &allocation.services[name].ips;
            let lost = has.is_empty() || has.iter().all(|ip| !ips.contains(ip));
            let ours = snapshot.services[name].load_balancer.class.as_deref() != Some("example.com/lb");
            let told = !(lost && ours) || allocation.cleared.contains_key(name);
            assert!(told, "{name} had {ips:?} and has {has:?}, and nobody says why");
        }
    });
}

#[test]
fn the_same_objects_give_the_same_answer_in_any_order() {
    for_worlds(|random| {
        let snapshot = any_snapshot(random);
        let prior = any_prior(&snapshot, random);
        let first = allocate(&snapshot, &prior);
        assert_eq!(first, allocate(&snapshot, &prior));
        let turned = Snapshot {
            pools: snapshot.pools.clone().into_iter().rev().collect(),
            services: snapshot.services.clone().into_iter().rev().collect(),
            ..snapshot.clone()
        };
        assert_eq!(first, allocate(&turned, &prior));
    });
}

#[test]
fn what_was_allocated_is_kept_by_the_next_run_and_across_a_restart() {
    for_worlds(|random| {
        let mut snapshot = any_snapshot(random);
        let prior = any_prior(&snapshot, random);
        let first = allocate(&snapshot, &prior);
        let second = allocate(&snapshot, &first.assigned());
        assert_eq!((holdings(&first), &first.pools), (holdings(&second), &second.pools));
        assert!(second.cleared.is_empty(), "{:?}", second.cleared);
        // A restart knows what status says, and nothing else.
        for (name, assignment) in &first.services {
            let entry = |ip: &IpAddr| LoadBalancerIngress { ip: *ip, mode: IngressIpMode::Vip };
            let service = Arc::make_mut(snapshot.services.get_mut(name).unwrap());
            service.status = assignment.ips.iter().map(entry).collect();
        }
        let third = allocate(&snapshot, &prior_of(&snapshot));
        assert_eq!(holdings(&second), holdings(&third));
    });
}

#[test]
fn who_comes_or_goes_moves_nobody_else() {
    for_worlds(|random| {
        let mut snapshot = any_snapshot(random);
        let prior = any_prior(&snapshot, random);
        let before = allocate(&snapshot, &prior);
        // First by name, so that it is in front wherever names decide.
        let newcomer = any_service("a-new", random);
        let pool = any_pool("a-new", random);
        match random.below(3) {
            0 => drop(snapshot.services.insert(newcomer.meta.name.clone(), Arc::new(newcomer))),
            1 => drop(snapshot.pools.insert(pool.meta.name.clone(), Arc::new(pool))),
            _ => drop(snapshot.services.pop_first()),
        }
        let after = allocate(&snapshot, &before.assigned());
        assert_kept(&snapshot, &after, &before);
        assert_nothing_left(&snapshot, &after);
    });
}

#[test]
fn about_closed_services_nothing_is_decided() {
    for_worlds(|random| {
        let snapshot = any_snapshot(random);
        let prior = allocate(&snapshot, &any_prior(&snapshot, random)).assigned();
        let mut changed = snapshot.clone();
        // Another copy of the files: a pool is gone, or all Services are others.
        match random.below(3) {
            0 => drop(changed.pools.pop_first()),
            1 => changed.pools.clear(),
            _ => {
                for service in changed.services.values_mut() {
                    *service = Arc::new(Service { meta: service.meta.clone(), ..any_service("x", random) });
                }
            }
        }
        let closed: BTreeMap<ObjectName, Reason> = changed
            .services
            .keys()
            .filter(|_| random.below(3) > 0)
            .map(|name| (name.clone(), Reason::AssignedBy("n".to_owned())))
            .collect();
        let (none, nobodys, classes) = (Table::new(), BTreeSet::new(), Classes::default());
        let allocation = allocate_within(&changed, &prior, &none, &nobodys, &classes, &closed);
        let ours = |name: &&ObjectName| classes.serve(&changed.services[*name]);
        let kept = closed.keys().filter(ours).filter_map(|name| prior.get(name));
        let kept: BTreeSet<IpAddr> = kept.flatten().copied().collect();
        for (name, got) in &allocation.services {
            let had = prior.get(name).map_or(&[][..], Vec::as_slice);
            let new: Vec<&IpAddr> = got.ips.iter().filter(|ip| !had.contains(ip)).collect();
            if closed.contains_key(name) {
                assert!(new.is_empty() && !allocation.cleared.contains_key(name), "{name} got {new:?}");
                assert!(!got.ips.is_empty() || got.reason.is_some(), "{name}");
            } else if changed.services[name].load_balancer.sharing_key.is_none() {
                assert!(new.iter().all(|ip| !kept.contains(ip)), "{name} got what is kept: {new:?} of {kept:?}");
            }
        }
        assert!(closed.len() < changed.services.len() || allocation.cleared.is_empty());
    });
}

/// The worlds must hold what the properties are about, or they would prove nothing.
#[test]
fn the_worlds_are_rich_enough() {
    let seen = std::cell::RefCell::new(BTreeMap::<&str, u32>::new());
    for_worlds(|random| {
        let snapshot = any_snapshot(random);
        let prior = any_prior(&snapshot, random);
        let allocation = allocate(&snapshot, &prior);
        let mut seen = seen.borrow_mut();
        let mut note = |what: &'static str, holds: bool| *seen.entry(what).or_insert(0) += u32::from(holds);
        let holders = holders(&snapshot, &allocation);
        note("shared", holders.values().any(|all| all.len() > 1));
        note(
            "shared by policy Local",
            holders
                .values()
                .any(|all| all.len() > 1 && all.iter().all(|one| one.external_policy == TrafficPolicy::Local)),
        );
        note("a pair", allocation.services.values().any(|got| got.ips.len() == 2));
        note("half a pair", allocation.services.values().any(|got| got.ips.len() == 1 && got.reason.is_some()));
        note("pending", allocation.services.values().any(|got| got.ips.is_empty()));
        note("kept", prior.iter().any(|(name, ips)| allocation.services[name].ips == *ips));
        note("cleared", !allocation.cleared.is_empty());
        let asked = |name: &ObjectName| !snapshot.services[name].load_balancer.requested_ips.is_empty();
        note("asked for and got", allocation.services.iter().any(|(name, got)| asked(name) && !got.ips.is_empty()));
        let overlap = |ip: IpAddr| snapshot.pools.values().filter(|pool| is_in(pool, ip)).count() > 1;
        note("overlapping pools", addresses(V4).into_iter().chain(addresses(V6)).any(overlap));
    });
    if std::env::var("ROADSTEAD_SEED").is_err() {
        for (what, count) in seen.into_inner() {
            assert!(count > 9, "only {count} worlds with {what}");
        }
    }
}
