//! Nodes and namespaces, as far as balancing and announcing depend on them.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::{Labels, Metadata};

/// A Node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Name (its namespace is empty), labels, annotations.
    pub meta: Metadata,
    /// `status.addresses` of type InternalIP, in order, at most one a family kept as primary by consumers.
    pub internal_ips: Vec<IpAddr>,
    /// `status.addresses` of type ExternalIP.
    pub external_ips: Vec<IpAddr>,
    /// `spec.podCIDRs`.
    pub pod_cidrs: Vec<IpNet>,
    /// Condition `NetworkUnavailable` is true: the node must announce nothing.
    pub network_unavailable: bool,
    /// `metadata.deletionTimestamp` is set, or the cluster autoscaler has put its taint `ToBeDeletedByClusterAutoscaler` on the
    /// node: new connections should go elsewhere, so the health that load balancers ask for is bad (KEP-3836).
    pub is_going: bool,
}

impl Node {
    /// The label `topology.kubernetes.io/zone`.
    #[must_use]
    pub fn zone(&self) -> Option<&str> {
        self.meta.labels.get("topology.kubernetes.io/zone").map(String::as_str)
    }

    /// The label that keeps a node from announcing addresses, whatever its value (KEP-1143).
    #[must_use]
    pub fn is_excluded_from_load_balancers(&self) -> bool {
        self.meta.labels.contains_key("node.kubernetes.io/exclude-from-external-load-balancers")
    }
}

/// A Namespace: only its labels matter, for selectors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.labels`.
    pub labels: Labels,
}
