//! The verdict on a new flow: which set of endpoints it may use, whether it is masqueraded, or how it is refused.
//!
//! The rules are kube-proxy's (nftables mode, `pkg/proxy/nftables/proxier.go`): internal traffic policy governs cluster
//! addresses, external traffic policy the others, and the latter only for clients outside the cluster.

use roadstead_abi::{DropReason, EndpointSet, SvcValue, kind, node_flags, svc_flags};

/// Where a new flow comes from, by its source address (or its socket's namespace).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// An address that pods have (`--pod-cidr`).
    Pod,
    /// An address of this node.
    Node,
    /// Any other.
    External,
}

/// What a new flow may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// Endpoints to choose from; never empty.
    pub set: EndpointSet,
    /// kube-proxy would put an address of the node in the place of the client's.
    pub masquerade: bool,
}

/// Decides about a new flow.
///
/// # Errors
/// [`DropReason::NoEndpoints`] when nothing could serve it on any node, [`DropReason::NoLocalEndpoints`] when only
/// other nodes could and the policy forbids it.
#[inline(always)]
pub fn decide(service: &SvcValue, origin: Origin, node: u32) -> Result<Verdict, DropReason> {
    let (local, masquerade) = match service.kind {
        kind::CLUSTER_IP => (service.flags & svc_flags::INTERNAL_LOCAL != 0, masquerades_cluster_ip(origin, node)),
        kind::TOMBSTONE => (false, false),
        // A pod or this node takes a short cut: the policy is about clients that are balanced to a node already.
        _ if service.flags & svc_flags::EXTERNAL_LOCAL != 0 => {
            (matches!(origin, Origin::External), matches!(origin, Origin::Node))
        }
        _ => (false, true),
    };
    let set = if local { service.local } else { service.cluster };
    if set.members.count > 0 {
        return Ok(Verdict { set, masquerade });
    }
    if service.flags & svc_flags::HAS_ENDPOINTS == 0 {
        return Err(DropReason::NoEndpoints);
    }
    Err(DropReason::NoLocalEndpoints)
}

#[inline(always)]
fn masquerades_cluster_ip(origin: Origin, node: u32) -> bool {
    node & node_flags::MASQUERADE_ALL != 0 || node & node_flags::PODS_KNOWN != 0 && !matches!(origin, Origin::Pod)
}

/// The origin of a socket of this node (`is_nodes`) or of one of its pods. kube-proxy can tell a pod only by its address,
/// so where no network of pods is known its mode takes pods for strangers.
#[inline(always)]
#[must_use]
pub fn origin_of_socket(is_nodes: bool, node: u32) -> Origin {
    if is_nodes {
        Origin::Node
    } else if node & node_flags::KUBE_PROXY != 0 && node & node_flags::PODS_KNOWN == 0 {
        Origin::External
    } else {
        Origin::Pod
    }
}

#[cfg(test)]
mod tests {
    use roadstead_abi::SlotRange;

    use super::*;

    const CLUSTER: EndpointSet = set(10, 2);
    const LOCAL: EndpointSet = set(20, 1);
    const NONE: EndpointSet = set(0, 0);
    const ANY: u16 = svc_flags::HAS_ENDPOINTS;

    const fn set(base: u32, count: u32) -> EndpointSet {
        EndpointSet { members: SlotRange { base, count }, table: SlotRange { base: 0, count: 0 } }
    }

    fn service(kind: u8, flags: u16, cluster: EndpointSet, local: EndpointSet) -> SvcValue {
        SvcValue { check: 0, service: 1, flags, kind, reserved: 0, affinity: 0, ranges: 0, cluster, local }
    }

    /// `TestInternalExternalMasquerade` of kube-proxy (pkg/proxy/nftables/proxier_test.go): 27 flows in 4 configurations.
    #[test]
    fn the_flow_matrix_is_kube_proxys() {
        use Origin::{External, Node, Pod};
        use kind::{CLUSTER_IP, LOAD_BALANCER, NODE_PORT};
        let (a, b, c) = (ANY, ANY | svc_flags::EXTERNAL_LOCAL, ANY | svc_flags::INTERNAL_LOCAL);
        let (both, near) = (CLUSTER, LOCAL);
        // Origin, kind, then for the Services A, B and C the set and whether the flow is masqueraded.
        let rows = [
            (Pod, CLUSTER_IP, [(both, false), (both, false), (near, false)]),
            (Pod, NODE_PORT, [(both, true), (both, false), (both, true)]),
            (Pod, LOAD_BALANCER, [(both, true), (both, false), (both, true)]),
            (Node, CLUSTER_IP, [(both, true), (both, true), (near, true)]),
            (Node, NODE_PORT, [(both, true), (both, true), (both, true)]),
            (Node, LOAD_BALANCER, [(both, true), (both, true), (both, true)]),
            (External, CLUSTER_IP, [(both, true), (both, true), (near, true)]),
            (External, NODE_PORT, [(both, true), (near, false), (both, true)]),
            (External, LOAD_BALANCER, [(both, true), (near, false), (both, true)]),
        ];
        let mut flows = 0;
        for detector in [true, false] {
            for all in [false, true] {
                let node = if detector { node_flags::PODS_KNOWN } else { 0 }
                    | if all { node_flags::MASQUERADE_ALL } else { 0 };
                for (origin, kind, expected) in rows {
                    for (flags, (mut set, mut masquerade)) in [a, b, c].into_iter().zip(expected) {
                        // Without a detector a pod's address is a stranger's.
                        let origin = if origin == Pod && !detector { External } else { origin };
                        if kind == CLUSTER_IP {
                            masquerade = all || detector && origin != Pod;
                        } else if origin == External && flags == b {
                            (set, masquerade) = (near, false);
                        }
                        if !detector && origin == External && kind != CLUSTER_IP && flags != b {
                            masquerade = true;
                        }
                        let verdict = decide(&service(kind, flags, CLUSTER, LOCAL), origin, node);
                        let expected = Ok(Verdict { set, masquerade });
                        assert_eq!(verdict, expected, "{origin:?} kind {kind} flags {flags:#x} node {node:#x}");
                        flows += 1;
                    }
                }
            }
        }
        assert_eq!(flows, 108);
    }

    #[test]
    fn an_empty_set_is_rejected_or_dropped() {
        use Origin::{External, Pod};
        let (etp, itp) = (svc_flags::EXTERNAL_LOCAL, svc_flags::INTERNAL_LOCAL);
        let cases = [
            (kind::EXTERNAL_IP, etp | ANY, CLUSTER, NONE, External, DropReason::NoLocalEndpoints),
            (kind::CLUSTER_IP, itp | ANY, CLUSTER, NONE, Pod, DropReason::NoLocalEndpoints),
            (kind::CLUSTER_IP, 0, NONE, NONE, Pod, DropReason::NoEndpoints),
            (kind::NODE_PORT, etp, NONE, NONE, External, DropReason::NoEndpoints),
            (kind::TOMBSTONE, 0, NONE, NONE, Pod, DropReason::NoEndpoints),
        ];
        for (kind, flags, cluster, local, origin, reason) in cases {
            let verdict = decide(&service(kind, flags, cluster, local), origin, node_flags::PODS_KNOWN);
            assert_eq!(verdict, Err(reason), "kind {kind} flags {flags:#x} {origin:?}");
        }
    }

    #[test]
    fn sockets_are_told_by_their_namespace() {
        let detector = node_flags::PODS_KNOWN;
        assert_eq!(origin_of_socket(true, 0), Origin::Node);
        assert_eq!(origin_of_socket(false, 0), Origin::Pod);
        assert_eq!(origin_of_socket(false, node_flags::KUBE_PROXY), Origin::External);
        assert_eq!(origin_of_socket(false, node_flags::KUBE_PROXY | detector), Origin::Pod);
    }
}
