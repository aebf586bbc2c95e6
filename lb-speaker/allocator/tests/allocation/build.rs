//! Short ways to write pools and Services for the tests.

use std::{collections::BTreeMap, net::IpAddr, num::NonZeroU16, sync::Arc};

use roadstead_allocator::allocate;
use roadstead_model::{
    FamilyPolicy, IpAddressPool, IpFamily, Labels, LoadBalancerSpec, Metadata, ObjectName, Protocol, Service,
    ServiceKind, ServicePort, Snapshot, TargetPort, TrafficPolicy,
};

pub(crate) fn name(name: &str) -> ObjectName {
    ObjectName::new("default", name)
}

pub(crate) fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

pub(crate) fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn meta(name: ObjectName) -> Metadata {
    Metadata { name, labels: Labels::new(), annotations: Labels::new(), created: None }
}

pub(crate) fn pool(text: &str, ranges: &[&str]) -> IpAddressPool {
    IpAddressPool {
        meta: meta(ObjectName::new("metallb-system", text)),
        addresses: ranges.iter().map(|range| range.parse().unwrap()).collect(),
        auto_assign: true,
        avoid_buggy_ips: false,
        allocation: None,
    }
}

pub(crate) fn port(protocol: Protocol, number: u16) -> ServicePort {
    let port = NonZeroU16::new(number).unwrap();
    let name = format!("{protocol}-{number}").to_lowercase();
    ServicePort { name, protocol, port, target: TargetPort::Number(port), node_port: None, app_protocol: None }
}

/// A Service of type LoadBalancer on TCP port 80; of two families it prefers both.
pub(crate) fn service(text: &str, families: &[IpFamily]) -> Service {
    let cluster_ip = |family: &IpFamily| match family {
        IpFamily::V4 => "10.96.0.10".parse().unwrap(),
        IpFamily::V6 => "fd00:10:96::10".parse().unwrap(),
    };
    Service {
        meta: meta(name(text)),
        kind: ServiceKind::LoadBalancer,
        selector: labels(&[("app", text)]),
        cluster_ips: families.iter().map(cluster_ip).collect(),
        ip_families: families.to_vec(),
        family_policy: match families.len() {
            0 | 1 => FamilyPolicy::SingleStack,
            _ => FamilyPolicy::PreferDualStack,
        },
        ports: vec![port(Protocol::Tcp, 80)],
        external_ips: Vec::new(),
        external_policy: TrafficPolicy::Cluster,
        internal_policy: TrafficPolicy::Cluster,
        affinity_seconds: None,
        publish_not_ready: false,
        traffic_distribution: None,
        selection: None,
        load_balancer: LoadBalancerSpec::default(),
        status: Vec::new(),
    }
}

pub(crate) fn snapshot(
    pools: impl IntoIterator<Item = IpAddressPool>,
    services: impl IntoIterator<Item = Service>,
) -> Snapshot {
    Snapshot {
        synced: true,
        pools: pools.into_iter().map(|pool| (pool.meta.name.clone(), Arc::new(pool))).collect(),
        services: services.into_iter().map(|service| (service.meta.name.clone(), Arc::new(service))).collect(),
        ..Snapshot::default()
    }
}

pub(crate) fn prior(entries: &[(&str, &[&str])]) -> BTreeMap<ObjectName, Vec<IpAddr>> {
    entries.iter().map(|(service, addresses)| (name(service), ips(addresses))).collect()
}

/// What a Service must have: its addresses in order, or words that its reason must hold; or, for half a dual stack, both.
pub(crate) struct Expected<'a>(pub(crate) &'a str, pub(crate) &'a [&'a str], pub(crate) &'a str);

#[track_caller]
pub(crate) fn check(snapshot: &Snapshot, held: &[(&str, &[&str])], expected: &[Expected<'_>]) {
    let allocation = allocate(snapshot, &prior(held));
    assert!(!expected.is_empty());
    for Expected(service, addresses, reason) in expected {
        let got = &allocation.services[&name(service)];
        assert_eq!(got.ips, ips(addresses), "{service}: {:?}", got.reason);
        let text = got.reason.as_ref().map(ToString::to_string).unwrap_or_default();
        assert_eq!(text.is_empty(), reason.is_empty(), "{service}: {text:?}");
        assert!(text.contains(reason), "{service}: {text:?} lacks {reason:?}");
        assert_eq!(got.pool.is_some(), !addresses.is_empty(), "{service}");
    }
}

pub(crate) fn with(mut service: Service, change: impl FnOnce(&mut Service)) -> Service {
    change(&mut service);
    service
}

pub(crate) fn pool_with(mut pool: IpAddressPool, change: impl FnOnce(&mut IpAddressPool)) -> IpAddressPool {
    change(&mut pool);
    pool
}
