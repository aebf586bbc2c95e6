//! This node's copy of the files as it tells it to the others: a digest of each Service, of the pools, and of what else
//! decides who announces.
//!
//! In it is what the allocator and the election read, and nothing else: two nodes whose files differ in a comment, in an
//! Ingress or in a node port agree. Addresses that this node assigned itself (of clusters and nodes, by a hash over all
//! manifests) are left out, but for their families.

use std::{collections::BTreeSet, net::IpAddr};

use roadstead_allocator::Classes;
use roadstead_layer2::replica::{View, digest_of};
use roadstead_model::{
    FamilyPolicy, IpAddressPool, IpFamily, L2Advertisement, LabelSelector, Labels, ObjectName, Requirement, Service,
    Snapshot, TrafficPolicy,
};

/// What this node has read; a Service of `unjudged` it may have, and cannot read.
pub(crate) fn view(snapshot: &Snapshot, classes: &Classes, unjudged: &BTreeSet<ObjectName>) -> View {
    let ours: Vec<&Service> =
        snapshot.services.values().map(AsRef::as_ref).filter(|service| classes.serve(service)).collect();
    let (mut pools, mut rest) = (Bytes::default(), Bytes::default());
    pools.each(snapshot.pools.values(), |bytes, pool| bytes.pool(pool));
    pools.each(&snapshot.namespaces, |bytes, (name, namespace)| {
        bytes.text(name);
        bytes.labels(&namespace.labels);
    });
    rest.each(snapshot.l2_advertisements.values(), |bytes, advertisement| bytes.advertisement(advertisement));
    rest.each(&snapshot.nodes, |bytes, (name, node)| {
        bytes.text(name);
        bytes.labels(&node.meta.labels);
        bytes.number(node.network_unavailable.into());
    });
    rest.each(snapshot.l2_exclusions.values(), |bytes, exclusion| bytes.texts(&exclusion.patterns));
    rest.each(ours.iter().copied(), |bytes, service| bytes.endpoints(snapshot, service));
    let mut services: std::collections::BTreeMap<ObjectName, u64> = ours
        .iter()
        .map(|service| {
            let mut bytes = Bytes::default();
            bytes.service(service);
            (service.meta.name.clone(), digest_of(&bytes.0))
        })
        .collect();
    services.extend(unjudged.iter().map(|name| (name.clone(), roadstead_layer2::replica::UNJUDGED)));
    View { services, pools: digest_of(&pools.0), rest: digest_of(&rest.0) }
}

/// Values one after the other, so that no two lists of values are the same bytes: numbers have eight bytes, texts and lists
/// begin with their length.
#[derive(Debug, Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn number(&mut self, number: u64) {
        self.0.extend(number.to_be_bytes());
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.0.extend(text.as_bytes());
    }

    fn maybe(&mut self, text: Option<&str>) {
        self.each(text, Self::text);
    }

    fn each<T>(&mut self, all: impl IntoIterator<Item = T>, mut write: impl FnMut(&mut Self, T)) {
        let mut inner = Self::default();
        let mut count = 0;
        for one in all {
            write(&mut inner, one);
            count += 1;
        }
        self.number(count);
        self.0.extend(inner.0);
    }

    fn texts(&mut self, texts: &[String]) {
        self.each(texts, |bytes, text| bytes.text(text));
    }

    fn labels(&mut self, labels: &Labels) {
        self.each(labels, |bytes, (key, value)| {
            bytes.text(key);
            bytes.text(value);
        });
    }

    fn address(&mut self, ip: IpAddr) {
        match ip {
            IpAddr::V4(ip) => self.number(u32::from(ip).into()),
            IpAddr::V6(ip) => self.0.extend(ip.octets()),
        }
    }

    fn selectors(&mut self, selectors: &[LabelSelector]) {
        self.each(selectors, |bytes, selector| {
            bytes.labels(&selector.match_labels);
            bytes.each(&selector.match_expressions, |bytes, requirement| {
                let (kind, key, values) = match requirement {
                    Requirement::In(key, values) => (0, key, values.as_slice()),
                    Requirement::NotIn(key, values) => (1, key, values.as_slice()),
                    Requirement::Exists(key) => (2, key, &[][..]),
                    Requirement::DoesNotExist(key) => (3, key, &[][..]),
                };
                bytes.number(kind);
                bytes.text(key);
                bytes.texts(values);
            });
        });
    }

    fn pool(&mut self, pool: &IpAddressPool) {
        self.text(&pool.meta.name.namespace);
        self.text(&pool.meta.name.name);
        self.labels(&pool.meta.labels);
        self.each(&pool.addresses, |bytes, range| {
            bytes.number(if range.family() == IpFamily::V4 { 4 } else { 6 });
            bytes.address(range.first());
            bytes.address(range.last());
        });
        self.number(pool.auto_assign.into());
        self.number(pool.avoid_buggy_ips.into());
        self.each(&pool.allocation, |bytes, allocation| {
            bytes.number(allocation.priority.into());
            bytes.texts(&allocation.namespaces);
            bytes.selectors(&allocation.namespace_selectors);
            bytes.selectors(&allocation.service_selectors);
        });
    }

    fn advertisement(&mut self, advertisement: &L2Advertisement) {
        self.text(&advertisement.meta.name.namespace);
        self.text(&advertisement.meta.name.name);
        self.texts(&advertisement.pools);
        self.selectors(&advertisement.pool_selectors);
        self.selectors(&advertisement.nodes.0);
        self.each(&advertisement.preferences, |bytes, preference| {
            bytes.number(preference.weight.into());
            bytes.selectors(std::slice::from_ref(&preference.selector));
        });
        self.selectors(&advertisement.service_selectors);
        self.texts(&advertisement.interfaces);
    }

    fn service(&mut self, service: &Service) {
        let families = service.cluster_ips.iter().map(|ip| IpFamily::of(*ip));
        self.each(families, |bytes, family| bytes.number(if family == IpFamily::V4 { 4 } else { 6 }));
        self.number(match service.family_policy {
            FamilyPolicy::SingleStack => 0,
            FamilyPolicy::PreferDualStack => 1,
            FamilyPolicy::RequireDualStack => 2,
        });
        self.each(service.meta.created, |bytes, created| bytes.number(created.cast_unsigned()));
        self.labels(&service.meta.labels);
        self.labels(&service.selector);
        self.each(&service.ports, |bytes, port| {
            bytes.number(port.protocol.number().into());
            bytes.number(port.port.get().into());
        });
        self.number((service.external_policy == TrafficPolicy::Local).into());
        let spec = &service.load_balancer;
        self.maybe(spec.class.as_deref());
        self.each(&spec.requested_ips, |bytes, ip| bytes.address(*ip));
        self.maybe(spec.request_error.as_deref());
        self.maybe(spec.requested_pool.as_deref());
        self.maybe(spec.sharing_key.as_deref());
    }

    /// Whether the Service has an endpoint, and with policy Local on which nodes.
    fn endpoints(&mut self, snapshot: &Snapshot, service: &Service) {
        let slices = snapshot.slices_of(&service.meta.name).iter().flat_map(|slice| &slice.endpoints);
        let serving = slices.filter(|endpoint| endpoint.ready || endpoint.serving || service.publish_not_ready);
        let local = service.external_policy == TrafficPolicy::Local;
        let nodes: BTreeSet<Option<&str>> =
            serving.map(|endpoint| endpoint.node.as_deref().filter(|_| local)).collect();
        self.each(nodes, Self::maybe);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use roadstead_sources::{LoadOptions, load};

    use super::*;

    const POOL: &str = "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\n\
        metadata: {name: p, namespace: metallb-system}\nspec: {addresses: [192.0.2.10-192.0.2.20]}\n";
    const ADVERTISEMENT: &str = "apiVersion: metallb.io/v1beta1\nkind: L2Advertisement\n\
        metadata: {name: p, namespace: metallb-system}\n";
    const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\n\
        spec: {type: LoadBalancer, ports: [{port: 80}]}\n";
    const SLICE: &str = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
        metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}\naddressType: IPv4\n\
        ports: [{port: 80}]\nendpoints: [{addresses: [10.0.0.1], nodeName: n1}]\n";

    fn read(texts: &[&str]) -> View {
        let folder = tempfile::tempdir().unwrap();
        for (number, text) in texts.iter().enumerate() {
            fs::write(folder.path().join(format!("{number}.yaml")), text).unwrap();
        }
        let snapshot = load(&[folder.path().to_owned()], &LoadOptions::default());
        assert!(snapshot.problems.is_empty(), "{:?}", snapshot.problems);
        view(&snapshot, &Classes::default(), &BTreeSet::new())
    }

    #[test]
    fn what_matters_changes_the_view_and_nothing_else_does() {
        let all = [POOL, ADVERTISEMENT, SERVICE, SLICE];
        let before = read(&all);
        assert_eq!((before.services.len(), before == read(&all)), (1, true));
        // Which file, with what is told: whether the Service, the pools, the rest are others.
        let cases = [
            (2, "port: 80", "port: 81", [true, false, false]),
            (2, "ports", "loadBalancerIP: 192.0.2.12, ports", [true, false, false]),
            (2, "{name: web}", "{name: web, labels: {a: b}}", [true, false, false]),
            (2, "{port: 80}", "{port: 80, nodePort: 30001}", [false, false, false]),
            (2, "{name: web}", "{name: web, annotations: {a: b}}", [false, false, false]),
            (0, "2.20", "2.21", [false, true, false]),
            (0, "spec: {", "spec: {autoAssign: false, ", [false, true, false]),
            (
                1,
                "namespace: metallb-system}",
                "namespace: metallb-system}\nspec: {interfaces: [eth0]}",
                [false, false, true],
            ),
            (3, "10.0.0.1", "10.0.0.2", [false, false, false]),
            (3, "nodeName: n1", "nodeName: n2", [false, false, false]),
            (3, "nodeName: n1", "conditions: {ready: false}", [false, false, true]),
        ];
        for (file, old, new, changed) in cases {
            let mut texts = all.map(str::to_owned);
            texts[file] = texts[file].replace(old, new);
            assert_ne!(texts[file], all[file], "{old}");
            let after = read(&texts.each_ref().map(String::as_str));
            let found = [after.services != before.services, after.pools != before.pools, after.rest != before.rest];
            assert_eq!(found, changed, "{old} to {new}");
            assert_eq!(after.digest() != before.digest(), changed.contains(&true), "{old} to {new}");
        }
        // Of another kind, it is none of ours.
        let other = SERVICE.replace("LoadBalancer", "ClusterIP");
        assert!(read(&[POOL, ADVERTISEMENT, &other, SLICE]).services.is_empty());
        // With policy Local it matters where the endpoints are.
        let local = SERVICE.replace("ports", "externalTrafficPolicy: Local, ports");
        let moved = SLICE.replace("n1", "n2");
        assert_ne!(read(&[POOL, &local, SLICE]).rest, read(&[POOL, &local, &moved]).rest);
    }
}
