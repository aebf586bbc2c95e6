//! The verdict on a new flow: which set of endpoints it may use, or how it is refused.
//!
//! The rules are kube-proxy's (nftables mode, `pkg/proxy/nftables/proxier.go`): internal traffic policy governs cluster
//! addresses, external traffic policy the others, and the latter only for clients outside the cluster.

use roadstead_abi::{DropReason, SlotRange, SvcValue, kind, svc_flags};

/// Where a new flow comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// A socket on a node or in a pod.
    InCluster,
    /// A packet that came in from the network.
    External,
}

/// Chooses the set of backends for a new flow; never an empty one.
///
/// # Errors
/// [`DropReason::NoEndpoints`] when nothing could serve it on any node, [`DropReason::NoLocalEndpoints`] when only
/// other nodes could and the policy forbids it.
#[inline(always)]
pub fn endpoint_set(service: &SvcValue, origin: Origin) -> Result<SlotRange, DropReason> {
    let local = if service.kind == kind::CLUSTER_IP {
        service.flags & svc_flags::INTERNAL_LOCAL != 0
    } else {
        service.flags & svc_flags::EXTERNAL_LOCAL != 0 && matches!(origin, Origin::External)
    };
    let set = if local { service.local } else { service.cluster };
    if set.count > 0 {
        return Ok(set);
    }
    if service.flags & svc_flags::HAS_ENDPOINTS == 0 {
        return Err(DropReason::NoEndpoints);
    }
    Err(DropReason::NoLocalEndpoints)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: SlotRange = SlotRange { base: 10, count: 3 };
    const LOCAL: SlotRange = SlotRange { base: 20, count: 1 };
    const NONE: SlotRange = SlotRange { base: 0, count: 0 };
    const ANY: u16 = svc_flags::HAS_ENDPOINTS;

    #[test]
    fn policies_choose_the_set_as_kube_proxy_does() {
        use Origin::{External, InCluster};
        let itp = svc_flags::INTERNAL_LOCAL | ANY;
        let etp = svc_flags::EXTERNAL_LOCAL | ANY;
        // (kind, flags, cluster, local, origin) and the set or the reason.
        let cases = [
            (kind::CLUSTER_IP, ANY, CLUSTER, LOCAL, InCluster, Ok(CLUSTER)),
            (kind::CLUSTER_IP, itp, CLUSTER, LOCAL, InCluster, Ok(LOCAL)),
            (kind::CLUSTER_IP, itp, CLUSTER, LOCAL, External, Ok(LOCAL)),
            (kind::CLUSTER_IP, etp, CLUSTER, LOCAL, External, Ok(CLUSTER)),
            (kind::NODE_PORT, etp, CLUSTER, LOCAL, External, Ok(LOCAL)),
            (kind::NODE_PORT, etp, CLUSTER, LOCAL, InCluster, Ok(CLUSTER)),
            (kind::LOAD_BALANCER, etp, CLUSTER, LOCAL, External, Ok(LOCAL)),
            (kind::LOAD_BALANCER, itp, CLUSTER, LOCAL, External, Ok(CLUSTER)),
            (kind::EXTERNAL_IP, etp, CLUSTER, NONE, External, Err(DropReason::NoLocalEndpoints)),
            (kind::CLUSTER_IP, itp, CLUSTER, NONE, InCluster, Err(DropReason::NoLocalEndpoints)),
            (kind::CLUSTER_IP, 0, NONE, NONE, InCluster, Err(DropReason::NoEndpoints)),
            (kind::NODE_PORT, svc_flags::EXTERNAL_LOCAL, NONE, NONE, External, Err(DropReason::NoEndpoints)),
        ];
        for (kind, flags, cluster, local, origin, expected) in cases {
            let service = SvcValue { service: 1, flags, kind, reserved: 0, cluster, local };
            assert_eq!(endpoint_set(&service, origin), expected, "kind {kind} flags {flags:#x} {origin:?}");
        }
    }
}
