//! What one object of a manifest becomes before objects meet: parsed and checked by itself, nothing assigned yet.

use std::{net::IpAddr, sync::Arc};

use roadstead_model::{
    ConfigMap, EndpointSlice, Ingress, IngressClass, IpAddressPool, IpFamily, L2Advertisement, L2Exclusion, Labels,
    Namespace, Node, ObjectName, Port, Protocol, Secret, Service,
};

use crate::document::Origin;

/// A kind that is understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    Service,
    EndpointSlice,
    Endpoints,
    Pod,
    Node,
    Namespace,
    Ingress,
    IngressClass,
    Secret,
    ConfigMap,
    IpAddressPool,
    L2Advertisement,
    /// MetalLB's pools before IPAddressPool: read as one, with an L2Advertisement where they have protocol layer2.
    AddressPool,
    /// What the ConfigMap `metallb-excludel2` holds; no manifest names this kind.
    L2Exclusion,
}

impl Kind {
    const ALL: [(Self, &'static str, &'static str); 13] = [
        (Self::Service, "Service", "v1"),
        (Self::EndpointSlice, "EndpointSlice", "discovery.k8s.io/v1"),
        (Self::Endpoints, "Endpoints", "v1"),
        (Self::Pod, "Pod", "v1"),
        (Self::Node, "Node", "v1"),
        (Self::Namespace, "Namespace", "v1"),
        (Self::Ingress, "Ingress", "networking.k8s.io/v1"),
        (Self::IngressClass, "IngressClass", "networking.k8s.io/v1"),
        (Self::Secret, "Secret", "v1"),
        (Self::ConfigMap, "ConfigMap", "v1"),
        (Self::IpAddressPool, "IPAddressPool", "metallb.io/v1beta1"),
        (Self::L2Advertisement, "L2Advertisement", "metallb.io/v1beta1"),
        (Self::AddressPool, "AddressPool", "metallb.io/v1beta1"),
    ];

    /// The kind of this name, with the version that is understood.
    pub(crate) fn named(name: &str) -> Option<(Self, &'static str)> {
        Self::ALL.iter().find(|(_, text, _)| *text == name).map(|(kind, _, version)| (*kind, *version))
    }

    pub(crate) fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(kind, ..)| *kind == self).map_or("ConfigMap", |(_, text, _)| text)
    }

    /// Objects of the kind belong to no namespace.
    pub(crate) fn is_cluster_wide(self) -> bool {
        matches!(self, Self::Node | Self::Namespace | Self::IngressClass)
    }
}

/// What makes two objects the same one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) kind: Kind,
    pub(crate) name: ObjectName,
}

/// An object with its place.
#[derive(Clone, Debug)]
pub(crate) struct Parsed {
    pub(crate) key: Key,
    pub(crate) origin: Origin,
    pub(crate) object: Object,
}

/// An object, checked by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Object {
    Service(Arc<Draft>),
    /// One slice for an EndpointSlice, one a subset and family for Endpoints; none where it belongs to no Service.
    Slices(Vec<Arc<EndpointSlice>>),
    Pod(Arc<Pod>),
    Node(Arc<Node>),
    Namespace(Arc<Namespace>),
    Ingress(Arc<Ingress>),
    IngressClass(Arc<IngressClass>),
    Secret(Arc<Secret>),
    ConfigMap(Arc<ConfigMap>),
    Pool(Arc<IpAddressPool>),
    L2Advertisement(Arc<L2Advertisement>),
    L2Exclusion(Arc<L2Exclusion>),
}

/// A Service before addresses and ports are assigned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Draft {
    /// With `cluster_ips` and node ports as far as the manifest names them, and `ip_families` as written. Where that is all
    /// that it is to have, it is the one in the snapshot.
    pub(crate) service: Arc<Service>,
    /// `clusterIP: None`.
    pub(crate) headless: bool,
    /// `allocateLoadBalancerNodePorts`.
    pub(crate) allocate_node_ports: bool,
}

/// A Pod, as far as it can stand in for an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pod {
    pub(crate) name: ObjectName,
    pub(crate) labels: Labels,
    /// At most one a family.
    pub(crate) ips: Vec<IpAddr>,
    pub(crate) node: Option<String>,
    pub(crate) ready: bool,
    pub(crate) terminating: bool,
    /// Named container ports.
    pub(crate) ports: Vec<(String, Protocol, Port)>,
}

impl Pod {
    pub(crate) fn ip(&self, family: IpFamily) -> Option<IpAddr> {
        self.ips.iter().copied().find(|ip| IpFamily::of(*ip) == family)
    }
}
