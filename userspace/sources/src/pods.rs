//! Pods as endpoints: what the endpoint slice controller of a cluster would make of them.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use roadstead_model::{
    Endpoint, EndpointPort, EndpointSlice, IpFamily, Labels, Metadata, ObjectName, Service, SliceOrigin, TargetPort,
};

use crate::{
    object::Pod,
    slices::{Nodes, zone_of},
};

/// Pods by namespace and label: a selector looks at those that share the rarest of its labels.
#[derive(Debug, Default)]
pub(crate) struct Pods(HashMap<Label, BTreeMap<ObjectName, Arc<Pod>>>);

/// Namespace, key and value.
pub(crate) type Label = (Arc<str>, String, String);

impl Pods {
    pub(crate) fn insert(&mut self, pod: &Arc<Pod>) {
        for label in labels(&pod.name.namespace, &pod.labels) {
            self.0.entry(label).or_default().insert(pod.name.clone(), Arc::clone(pod));
        }
    }

    pub(crate) fn remove(&mut self, pod: &Pod) {
        for label in labels(&pod.name.namespace, &pod.labels) {
            if let Some(pods) = self.0.get_mut(&label) {
                pods.remove(&pod.name);
                if pods.is_empty() {
                    self.0.remove(&label);
                }
            }
        }
    }

    /// The Pods that the Service's selector matches; an empty one matches none.
    fn selected(&self, service: &Service) -> impl Iterator<Item = &Arc<Pod>> {
        let with = labels(&service.meta.name.namespace, &service.selector).map(|label| self.0.get(&label));
        let rarest = with.min_by_key(|pods| pods.map_or(0, BTreeMap::len)).flatten();
        let selects = |pod: &&Arc<Pod>| service.selector.iter().all(|(key, value)| pod.labels.get(key) == Some(value));
        rarest.into_iter().flat_map(BTreeMap::values).filter(selects)
    }
}

/// The pairs as the index has them.
pub(crate) fn labels<'a>(namespace: &'a Arc<str>, labels: &'a Labels) -> impl Iterator<Item = Label> + 'a {
    labels.iter().map(|(key, value)| (Arc::clone(namespace), key.clone(), value.clone()))
}

/// The slices of a Service with a selector: one a family, more where a named port has several numbers.
pub(crate) fn slices(service: &Service, pods: &Pods, nodes: &Nodes) -> Vec<EndpointSlice> {
    let mut groups: BTreeMap<(IpFamily, Vec<Key>), Vec<Endpoint>> = BTreeMap::new();
    for pod in pods.selected(service) {
        for family in &service.ip_families {
            let Some(ip) = pod.ip(*family) else { continue };
            let endpoint = endpoint(service, pod, ip, nodes);
            groups.entry((*family, ports(service, pod))).or_default().push(endpoint);
        }
    }
    let mut counts: BTreeMap<IpFamily, usize> = BTreeMap::new();
    let slices = groups.into_iter().map(|((family, ports), endpoints)| {
        let count = counts.entry(family).or_default();
        *count += 1;
        slice(service, family, *count, ports, endpoints)
    });
    slices.collect()
}

/// Name, protocol and number of a slice's port, in an order.
type Key = (String, roadstead_model::Protocol, roadstead_model::Port);

fn ports(service: &Service, pod: &Pod) -> Vec<Key> {
    let resolve = |port: &roadstead_model::ServicePort| match &port.target {
        TargetPort::Number(number) => Some(*number),
        TargetPort::Name(name) => {
            let named = pod.ports.iter().find(|(own, protocol, _)| own == name && *protocol == port.protocol);
            named.map(|(_, _, number)| *number)
        }
    };
    service.ports.iter().filter_map(|port| Some((port.name.clone(), port.protocol, resolve(port)?))).collect()
}

fn endpoint(service: &Service, pod: &Pod, ip: IpAddr, nodes: &Nodes) -> Endpoint {
    Endpoint {
        ip,
        ready: service.publish_not_ready || pod.ready && !pod.terminating,
        serving: service.publish_not_ready || pod.ready,
        terminating: pod.terminating,
        node: pod.node.clone(),
        zone: zone_of(pod.node.as_deref(), nodes),
        zone_hints: Vec::new(),
        node_hints: Vec::new(),
    }
}

fn slice(
    service: &Service,
    family: IpFamily,
    count: usize,
    ports: Vec<Key>,
    mut endpoints: Vec<Endpoint>,
) -> EndpointSlice {
    endpoints.sort_by_key(|endpoint| endpoint.ip);
    let owner = &service.meta.name;
    let name = format!("{}-pods-{}-{count}", owner.name, family.to_string().to_lowercase());
    EndpointSlice {
        meta: Metadata {
            name: ObjectName::new(&owner.namespace, &name),
            labels: service.meta.labels.clone(),
            annotations: BTreeMap::new(),
            created: None,
        },
        service: owner.clone(),
        family,
        ports: ports.into_iter().map(|(name, protocol, port)| EndpointPort { name, protocol, port }).collect(),
        endpoints,
        origin: SliceOrigin::Pods,
    }
}
