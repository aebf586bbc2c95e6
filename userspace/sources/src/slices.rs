//! The slices of one Service as consumers see them: whose slices count, Pods where there are none, and the hints that a
//! controller would set.

use std::{collections::BTreeMap, sync::Arc};

use roadstead_model::{Endpoint, EndpointSlice, Node, Service, SliceOrigin};

use crate::pods::{self, Pods};

/// Nodes by name, for the zones of what runs on them.
pub(crate) type Nodes = BTreeMap<String, Arc<Node>>;

/// The slices of a Service, in order of their names, out of those that name it and the Pods that it selects. One that is
/// equal to one of the last snapshot is the same `Arc`.
pub(crate) fn slices<'a>(
    service: Option<&Service>,
    named: impl Iterator<Item = &'a Arc<EndpointSlice>>,
    pods: &Pods,
    nodes: &Nodes,
    last: &[Arc<EndpointSlice>],
) -> Vec<Arc<EndpointSlice>> {
    let mut slices: Vec<_> = named.cloned().collect();
    // Slices of its own go before the mirrored Endpoints of the same Service, which a dump of a cluster holds as well.
    if slices.iter().any(|slice| slice.origin == SliceOrigin::EndpointSlice) {
        slices.retain(|slice| slice.origin == SliceOrigin::EndpointSlice);
    }
    slices.sort_by(|one, other| one.meta.name.cmp(&other.meta.name));
    if let Some(service) = service {
        if slices.is_empty() {
            slices = pods::slices(service, pods, nodes).into_iter().map(Arc::new).collect();
        }
        if let Some(distribution) = Distribution::of(service) {
            for slice in slices.iter_mut().filter(|slice| lacks_hints(slice)) {
                distribution.hint(Arc::make_mut(slice), nodes);
            }
        }
    }
    for slice in &mut slices {
        if let Some(same) = last.iter().find(|old| *old == slice) {
            *slice = Arc::clone(same);
        }
    }
    slices
}

/// The zone of an endpoint without one: that of its node.
pub(crate) fn zone_of(node: Option<&str>, nodes: &Nodes) -> Option<String> {
    nodes.get(node?)?.zone().map(str::to_owned)
}

fn lacks_hints(slice: &EndpointSlice) -> bool {
    slice.endpoints.iter().all(|endpoint| endpoint.zone_hints.is_empty() && endpoint.node_hints.is_empty())
}

/// What `spec.trafficDistribution` comes to (KEP-4444, KEP-3015); `PreferClose` is the old name of `PreferSameZone`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Distribution {
    SameZone,
    SameNode,
}

impl Distribution {
    fn of(service: &Service) -> Option<Self> {
        match service.traffic_distribution.as_deref() {
            Some("PreferClose" | "PreferSameZone") => Some(Self::SameZone),
            Some("PreferSameNode") => Some(Self::SameNode),
            _ => None,
        }
    }

    /// Hints as the endpoint slice controller sets them (k8s.io/endpointslice/trafficdist): every ready endpoint gets those
    /// that it has a zone or a node for, whatever the others have. What a half-hinted set means is the data plane's part.
    fn hint(self, slice: &mut EndpointSlice, nodes: &Nodes) {
        let ready = slice.endpoints.iter_mut().filter(|endpoint| endpoint.ready);
        for endpoint in ready {
            let Endpoint { zone, node, zone_hints, node_hints, .. } = endpoint;
            zone_hints.extend(zone.clone().or_else(|| zone_of(node.as_deref(), nodes)));
            if self == Self::SameNode {
                node_hints.extend(node.clone());
            }
        }
    }
}

#[cfg(test)]
#[path = "slices_tests.rs"]
mod tests;
