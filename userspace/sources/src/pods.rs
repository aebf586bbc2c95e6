//! Pods as endpoints: what the endpoint slice controller of a cluster would make of them.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use roadstead_model::{
    Endpoint, EndpointPort, EndpointSlice, IpFamily, Metadata, ObjectName, Service, SliceOrigin, TargetPort,
};

use crate::object::Pod;

/// The slices of a Service with a selector: one a family, more where a named port has several numbers.
pub(crate) fn slices(service: &Service, pods: &[Arc<Pod>], zones: &BTreeMap<String, String>) -> Vec<EndpointSlice> {
    let selected =
        pods.iter().filter(|pod| service.selector.iter().all(|(key, value)| pod.labels.get(key) == Some(value)));
    let mut groups: BTreeMap<(IpFamily, Vec<Key>), Vec<Endpoint>> = BTreeMap::new();
    for pod in selected {
        for family in &service.ip_families {
            let Some(ip) = pod.ip(*family) else { continue };
            let endpoint = endpoint(service, pod, ip, zones);
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

fn endpoint(service: &Service, pod: &Pod, ip: IpAddr, zones: &BTreeMap<String, String>) -> Endpoint {
    Endpoint {
        ip,
        ready: service.publish_not_ready || pod.ready && !pod.terminating,
        serving: service.publish_not_ready || pod.ready,
        terminating: pod.terminating,
        node: pod.node.clone(),
        zone: pod.node.as_ref().and_then(|node| zones.get(node)).cloned(),
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
