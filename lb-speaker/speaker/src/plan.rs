//! What is to be announced: the allocation joined with the objects, one contest per address.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use roadstead_allocator::Allocation;
use roadstead_layer2::election::{Abilities, Contest, Field, Interfaces, field, interfaces};
use roadstead_model::{ObjectName, Snapshot};

/// A snapshot and the addresses that its Services have.
#[derive(Clone, Debug)]
pub(crate) struct Desired {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) allocation: Allocation,
    /// Addresses that nobody had before: the segment is to be asked for them first.
    pub(crate) fresh: BTreeSet<IpAddr>,
}

/// An address that this node announces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owned {
    pub(crate) services: Vec<ObjectName>,
    pub(crate) interfaces: Interfaces,
    /// Where the address was before it came here in a planned way.
    pub(crate) former: Option<IpAddr>,
}

impl Desired {
    /// One contest per assigned address, in the order of addresses.
    pub(crate) fn contests(&self) -> Vec<Contest<'_>> {
        let mut contests: BTreeMap<IpAddr, Contest<'_>> = BTreeMap::new();
        for (name, assignment) in &self.allocation.services {
            let (Some(service), Some(first)) = (self.snapshot.services.get(name), assignment.ips.first()) else {
                continue;
            };
            let Some(pool) = assignment.pool.as_ref().and_then(|pool| self.snapshot.pools.get(pool)) else { continue };
            for ip in &assignment.ips {
                let fresh = || Contest { ip: *ip, hashed: *first, services: Vec::new(), pool };
                contests.entry(*ip).or_insert_with(fresh).services.push(service);
            }
        }
        contests.into_values().collect()
    }

    /// Who may announce each address, among the live nodes; `pause` is called before each election.
    pub(crate) fn fields(&self, live: &BTreeSet<String>, can: &Abilities, mut pause: impl FnMut()) -> Vec<Field> {
        let contests = self.contests();
        let judged = contests.iter().map(|contest| {
            pause();
            field(&self.snapshot, contest, live, can)
        });
        judged.collect()
    }

    /// The addresses that the node answers for, given with where they were before.
    pub(crate) fn owned(&self, node: &str, answered: &BTreeMap<IpAddr, Option<IpAddr>>) -> BTreeMap<IpAddr, Owned> {
        let contests = self.contests();
        let owned = contests.iter().filter_map(|contest| Some((contest, *answered.get(&contest.ip)?)));
        owned
            .map(|(contest, former)| {
                let services = contest.services.iter().map(|service| service.meta.name.clone()).collect();
                (contest.ip, Owned { services, interfaces: interfaces(&self.snapshot, contest, node), former })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use roadstead_allocator::Assignment;
    use roadstead_model::{
        FamilyPolicy, IpAddressPool, IpFamily, Labels, LoadBalancerSpec, Metadata, Service, ServiceKind, TrafficPolicy,
    };

    use super::*;

    fn meta(namespace: &str, name: &str) -> Metadata {
        let name = ObjectName::new(namespace, name);
        Metadata { name, labels: Labels::new(), annotations: Labels::new(), created: None }
    }

    fn service(name: &str) -> Arc<Service> {
        Arc::new(Service {
            meta: meta("default", name),
            kind: ServiceKind::LoadBalancer,
            selector: Labels::new(),
            cluster_ips: Vec::new(),
            ip_families: vec![IpFamily::V4],
            family_policy: FamilyPolicy::SingleStack,
            ports: Vec::new(),
            external_ips: Vec::new(),
            external_policy: TrafficPolicy::Cluster,
            internal_policy: TrafficPolicy::Cluster,
            affinity_seconds: None,
            publish_not_ready: false,
            traffic_distribution: None,
            selection: None,
            load_balancer: LoadBalancerSpec::default(),
            status: Vec::new(),
        })
    }

    #[test]
    fn a_shared_address_and_a_dual_stack_pair_each_have_one_election() {
        let pool = meta("metallb-system", "pool");
        let held = [
            ("a", vec!["192.0.2.1", "2001:db8::1"]),
            ("b", vec!["2001:db8::1"]),
            ("c", vec!["192.0.2.2"]),
            ("pending", Vec::new()),
        ];
        let mut snapshot = Snapshot { synced: true, ..Snapshot::default() };
        let mut allocation = Allocation::default();
        for (name, ips) in &held {
            let ips: Vec<IpAddr> = ips.iter().map(|ip| ip.parse().unwrap()).collect();
            let service = service(name);
            let from = (!ips.is_empty()).then(|| pool.name.clone());
            allocation.services.insert(service.meta.name.clone(), Assignment { ips, pool: from, reason: None });
            snapshot.services.insert(service.meta.name.clone(), service);
        }
        let addresses = vec!["192.0.2.0/24".parse().unwrap()];
        let object = IpAddressPool {
            meta: pool.clone(),
            addresses,
            auto_assign: true,
            avoid_buggy_ips: false,
            allocation: None,
        };
        snapshot.pools.insert(pool.name, Arc::new(object));
        let desired = Desired { snapshot: Arc::new(snapshot), allocation, fresh: BTreeSet::new() };
        let contests = desired.contests();
        let seen: Vec<(String, String, usize)> = contests
            .iter()
            .map(|contest| (contest.ip.to_string(), contest.hashed.to_string(), contest.services.len()))
            .collect();
        let expected = [("192.0.2.1", "192.0.2.1", 1), ("192.0.2.2", "192.0.2.2", 1), ("2001:db8::1", "192.0.2.1", 2)];
        assert_eq!(seen, expected.map(|(ip, hashed, services)| (ip.to_owned(), hashed.to_owned(), services)));
    }
}
