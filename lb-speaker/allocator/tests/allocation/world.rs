//! Random worlds of pools, Services and earlier assignments, each from one number, so that a failure is told by its seed.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use roadstead_model::{
    FamilyPolicy, IpAddressPool,
    IpFamily::{self, V4, V6},
    LabelSelector, Namespace, ObjectName, Protocol, Service, ServiceAllocation, Snapshot, TrafficPolicy,
};

use crate::build::{labels, pool, port, service, snapshot};

/// Worlds of one run of a property.
const WORLDS: u64 = 3000;

/// Splitmix64: a few lines that give the same numbers everywhere.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::try_from(self.below(all.len() as u64)).unwrap()]
    }
}

/// Runs the property over many worlds. `ROADSTEAD_SEED` runs it over one, that of a failure.
pub(crate) fn for_worlds(property: impl Fn(&mut Random)) {
    let one = std::env::var("ROADSTEAD_SEED").ok().map(|text| text.parse::<u64>().unwrap());
    let first = one.unwrap_or_else(|| {
        let since = std::time::UNIX_EPOCH.elapsed().unwrap();
        since.as_secs() * 1_000_000
    });
    let last = if one.is_some() { first } else { first + WORLDS - 1 };
    eprintln!("seeds {first} to {last}");
    for seed in first..=last {
        let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| property(&mut Random::new(seed))));
        if let Err(cause) = failed {
            eprintln!("failed with ROADSTEAD_SEED={seed}");
            std::panic::resume_unwind(cause);
        }
    }
}

/// Every address that the pools can have: few, so that they run out, and around a multiple of 256 for `avoidBuggyIPs`.
pub(crate) fn addresses(family: IpFamily) -> Vec<IpAddr> {
    match family {
        V4 => (0..14).map(v4).collect(),
        V6 => (0..8).map(v6).collect(),
    }
}

fn v4(number: u8) -> IpAddr {
    let [a, b, c, d] = (u32::from_be_bytes([192, 0, 2, 250]) + u32::from(number)).to_be_bytes();
    IpAddr::from([a, b, c, d])
}

fn v6(number: u8) -> IpAddr {
    IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(number)])
}

pub(crate) fn any_snapshot(random: &mut Random) -> Snapshot {
    let pools: Vec<_> = (0..random.below(5)).map(|number| any_pool(&format!("p{number}"), random)).collect();
    let services: Vec<_> = (0..random.below(10)).map(|number| any_service(&format!("s{number}"), random)).collect();
    let mut snapshot = snapshot(pools, services);
    for (name, team) in [("default", "red"), ("other", "blue")] {
        if random.one_in(2) {
            let namespace = Namespace { name: name.to_owned(), labels: labels(&[("team", team)]) };
            snapshot.namespaces.insert(name.to_owned(), Arc::new(namespace));
        }
    }
    snapshot
}

pub(crate) fn any_pool(name: &str, random: &mut Random) -> IpAddressPool {
    let mut ranges = Vec::new();
    for (family, all) in [(V4, addresses(V4)), (V6, addresses(V6))] {
        if random.one_in(if family == V4 { 5 } else { 2 }) {
            continue;
        }
        let first = random.below(all.len() as u64);
        let last = (first + random.below(5)).min(all.len() as u64 - 1);
        let at = |index: u64| all[usize::try_from(index).unwrap()];
        ranges.push(format!("{}-{}", at(first), at(last)));
    }
    let mut made = pool(name, &ranges.iter().map(String::as_str).collect::<Vec<_>>());
    made.auto_assign = !random.one_in(4);
    made.avoid_buggy_ips = random.one_in(3);
    made.allocation = random.one_in(2).then(|| any_allocation(random));
    made
}

fn any_allocation(random: &mut Random) -> ServiceAllocation {
    let selector = |pairs: &[(&str, &str)]| LabelSelector { match_labels: labels(pairs), ..LabelSelector::default() };
    ServiceAllocation {
        priority: u32::try_from(random.below(3)).unwrap(),
        namespaces: if random.one_in(3) { vec![random.of(&["default", "other"]).to_owned()] } else { Vec::new() },
        namespace_selectors: if random.one_in(3) { vec![selector(&[("team", "red")])] } else { Vec::new() },
        service_selectors: if random.one_in(3) { vec![selector(&[("tier", "front")])] } else { Vec::new() },
    }
}

pub(crate) fn any_service(name: &str, random: &mut Random) -> Service {
    let families: &[IpFamily] = random.of::<&[IpFamily]>(&[&[V4], &[V4], &[V6], &[V4, V6], &[V6, V4]]);
    let mut made = service(name, families);
    made.meta.name = ObjectName::new(random.of(&["default", "default", "other"]), name);
    made.meta.created = random.one_in(2).then(|| i64::try_from(random.below(3)).unwrap());
    made.family_policy = match families.len() {
        2 => random.of(&[FamilyPolicy::PreferDualStack, FamilyPolicy::RequireDualStack]),
        _ if random.one_in(12) => FamilyPolicy::RequireDualStack,
        _ => random.of(&[FamilyPolicy::SingleStack, FamilyPolicy::PreferDualStack]),
    };
    if random.one_in(2) {
        made.meta.labels = labels(&[("tier", "front")]);
    }
    if random.one_in(2) {
        made.external_policy = TrafficPolicy::Local;
    }
    made.selector = labels(&[("app", random.of(&["one", "one", "two"]))]);
    made.ports = (0..=random.below(2))
        .map(|_| port(random.of(&[Protocol::Tcp, Protocol::Udp]), 80 + u16::try_from(random.below(4)).unwrap()))
        .collect();
    let spec = &mut made.load_balancer;
    spec.sharing_key = random.one_in(2).then(|| random.of(&["k", "k", "k", "l", ""]).to_owned());
    spec.requested_pool = random.one_in(6).then(|| format!("p{}", random.below(5)));
    if random.one_in(5) {
        let wanted = families.iter().map(|family| random.of(&addresses(*family)));
        spec.requested_ips = wanted.collect();
    }
    spec.request_error = random.one_in(20).then(|| "cannot be read".to_owned());
    spec.class = random.one_in(10).then(|| random.of(&["roadstead.dev/speaker", "example.com/lb"]).to_owned());
    made
}

pub(crate) fn any_prior(snapshot: &Snapshot, random: &mut Random) -> BTreeMap<ObjectName, Vec<IpAddr>> {
    let mut prior = BTreeMap::new();
    for name in snapshot.services.keys() {
        if random.one_in(2) {
            continue;
        }
        let mut ips = vec![random.of(&addresses(V4))];
        if random.one_in(3) {
            ips.push(random.of(&addresses(V6)));
        }
        prior.insert(name.clone(), ips);
    }
    prior
}
