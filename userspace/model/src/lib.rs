//! What is desired: the objects of Kubernetes and MetalLB that Roadstead acts on, parsed and valid by construction.
//!
//! This crate stands in the middle of the configuration's way: `sources` makes a [`Snapshot`] of it from YAML or an API
//! server, and `dataplane`, `routes`, `allocator` and `layer2` read it. It deliberately knows no serde, no files, no
//! sockets and no clock: a value of these types has been checked at the border, so nobody checks it again.

#![forbid(unsafe_code)]

mod endpoints;
mod ingress;
mod metadata;
mod node;
mod pool;
mod problem;
mod references;
mod selector;
mod service;
mod snapshot;

pub use endpoints::{Endpoint, EndpointPort, EndpointSlice, SliceOrigin};
pub use ingress::{
    BackendPort, CONFLICTS_ANNOTATION, ConfigMap, Host, Ingress, IngressBackend, IngressClass, IngressPath,
    IngressRule, IngressStatus, IngressTls, PathType, Secret,
};
pub use metadata::{IpFamily, Metadata, ObjectName, Port, Protocol, UnknownProtocol};
pub use node::{Namespace, Node};
pub use pool::{
    AddressRange, AddressRangeError, IpAddressPool, L2Advertisement, L2Exclusion, NodeChoice, NodePreference,
    ServiceAllocation,
};
pub use problem::{ObjectRef, Place, Problem, Severity};
pub use references::References;
pub use selector::{LabelSelector, Requirement};
pub use service::{
    FamilyPolicy, IngressIpMode, LoadBalancerIngress, LoadBalancerSpec, Selection, Service, ServiceKind, ServicePort,
    TargetPort, TrafficPolicy, UnknownSelection,
};
pub use snapshot::Snapshot;

/// The labels or annotations of an object, or the pairs that a selector asks for.
pub type Labels = std::collections::BTreeMap<String, String>;
