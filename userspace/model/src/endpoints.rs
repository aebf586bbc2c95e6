//! Endpoint slices: where a Service's traffic may go.
//!
//! `sources` turns `Endpoints` objects and Pods with `status.podIP` into slices too, so consumers see one form.

use std::net::IpAddr;

use crate::{IpFamily, Metadata, ObjectName, Port, Protocol};

/// One EndpointSlice (discovery.k8s.io/v1), or what stands in for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Name and labels of the slice itself.
    pub meta: Metadata,
    /// The Service that the label `kubernetes.io/service-name` names, in the slice's namespace.
    pub service: ObjectName,
    /// Family of every address in the slice.
    pub family: IpFamily,
    /// Ports that every endpoint of the slice serves.
    pub ports: Vec<EndpointPort>,
    /// The endpoints.
    pub endpoints: Vec<Endpoint>,
    /// What the slice was made from.
    pub origin: SliceOrigin,
}

/// The object behind a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SliceOrigin {
    /// An EndpointSlice.
    EndpointSlice,
    /// An Endpoints object, mirrored.
    Endpoints,
    /// Pods that the Service's selector matches.
    Pods,
}

/// A port of a slice, matched to a Service's port by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointPort {
    /// Equal to the Service port's name; empty for an unnamed one.
    pub name: String,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Port number on the endpoint.
    pub port: Port,
}

/// One endpoint: a pod, or a host outside the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The first address of the slice's entry; by its documentation the others mean the same endpoint.
    pub ip: IpAddr,
    /// Takes new connections; an unset condition counts as true.
    pub ready: bool,
    /// Still answers; an unset condition follows `ready`.
    pub serving: bool,
    /// Is shutting down; an unset condition counts as false.
    pub terminating: bool,
    /// `nodeName`; decides what is local.
    pub node: Option<String>,
    /// `zone`; of a Pod that stands in for an endpoint, the zone of its node.
    pub zone: Option<String>,
    /// `hints.forZones`: zones whose clients should prefer the endpoint; filled from the Service's `trafficDistribution`
    /// where no controller has done it.
    pub zone_hints: Vec<String>,
    /// `hints.forNodes`: the same for nodes.
    pub node_hints: Vec<String>,
}

impl Endpoint {
    /// Whether the endpoint is on the node of this name.
    #[must_use]
    pub fn is_on(&self, node: &str) -> bool {
        self.node.as_deref() == Some(node)
    }
}
