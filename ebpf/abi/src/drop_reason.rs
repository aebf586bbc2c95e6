//! Why a packet or connection was not forwarded: the one error type of the programs, and the label of a counter.

/// Reason for a packet that was not forwarded, or a connection that was refused.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum DropReason {
    /// The Service has no endpoint anywhere: the client is told (ICMP port unreachable, ECONNREFUSED).
    NoEndpoints = 1,
    /// The policy is Local and no endpoint is on this node, while others have some: silence, as kube-proxy.
    NoLocalEndpoints = 2,
    /// The address belongs to a Service, the port to none: the client is told.
    UnknownPort = 3,
    /// The conntrack table is full; live flows are never evicted for new ones.
    ConntrackFull = 4,
    /// No free source port towards the backend.
    NoSourcePort = 5,
    /// The packet is too short for what its headers announce.
    Malformed = 6,
    /// No route to the backend.
    NoRoute = 7,
    /// The TTL or hop limit ran out here.
    HopLimit = 8,
    /// A slot or backend that a Service names is missing: the maps disagree, which the agent repairs.
    Inconsistent = 9,
    /// The packet could not be rewritten.
    Rewrite = 10,
    /// The node has no address of the packet's family to forward with.
    NoNodeAddress = 11,
    /// A protocol that Services do not carry, sent to a Service's address.
    UnknownProtocol = 12,
    /// A fragment to a Service whose first fragment, which has the ports, was not seen.
    Fragment = 13,
    /// The client is in none of `loadBalancerSourceRanges`.
    SourceRange = 14,
    /// An address that cluster addresses are taken from, and that no Service has: silence, as kube-proxy.
    UnallocatedAddress = 15,
}

impl DropReason {
    /// All reasons, for metrics and tests.
    pub const ALL: [Self; 15] = [
        Self::NoEndpoints,
        Self::NoLocalEndpoints,
        Self::UnknownPort,
        Self::ConntrackFull,
        Self::NoSourcePort,
        Self::Malformed,
        Self::NoRoute,
        Self::HopLimit,
        Self::Inconsistent,
        Self::Rewrite,
        Self::NoNodeAddress,
        Self::UnknownProtocol,
        Self::Fragment,
        Self::SourceRange,
        Self::UnallocatedAddress,
    ];

    /// The value of the metric's label `reason`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoEndpoints => "no_endpoints",
            Self::NoLocalEndpoints => "no_local_endpoints",
            Self::UnknownPort => "unknown_port",
            Self::ConntrackFull => "conntrack_full",
            Self::NoSourcePort => "no_source_port",
            Self::Malformed => "malformed",
            Self::NoRoute => "no_route",
            Self::HopLimit => "hop_limit",
            Self::Inconsistent => "inconsistent",
            Self::Rewrite => "rewrite",
            Self::NoNodeAddress => "no_node_address",
            Self::UnknownProtocol => "unknown_protocol",
            Self::Fragment => "fragment",
            Self::SourceRange => "source_range",
            Self::UnallocatedAddress => "unallocated_address",
        }
    }

    /// Whether the client is told (ICMP port unreachable, or ECONNREFUSED from a socket program) or hears nothing.
    #[inline(always)]
    #[must_use]
    pub const fn is_rejected(self) -> bool {
        matches!(self, Self::NoEndpoints | Self::UnknownPort)
    }
}

/// Key of the map of drop counters; the value is a count.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct DropKey {
    /// A [`DropReason`] as a number.
    pub reason: u32,
    /// Id of the Service's port, 0 where none is known.
    pub service: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_numbered_without_gaps() {
        for (index, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index + 1, "{}", reason.as_str());
        }
    }
}
