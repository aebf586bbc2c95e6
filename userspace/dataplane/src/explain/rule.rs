//! The rules that a verdict follows from, in words that stay.

use std::fmt;

use roadstead_abi::{DropReason, SvcValue, kind, svc_flags};
use roadstead_datapath::verdict::Origin;

/// Why a packet or a connection gets its verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// A new flow to a frontend.
    Frontend {
        /// One of [`kind`].
        kind: u8,
        /// Which endpoints may serve it.
        policy: Policy,
    },
    /// A packet of a flow.
    Established,
    /// An answer that is translated where it leaves towards its client.
    AnswerAtEgress,
    /// A packet that another hook translates.
    TranslatedElsewhere,
    /// Refused.
    Refused(DropReason),
    /// No address and port of a Service.
    NoService,
    /// A segment in the middle of nothing: its connection began elsewhere.
    NoFlow,
    /// An endpoint that is gone, asked by somebody else than a pod.
    GoneEndpoint,
    /// The programs of an earlier version run still, and what is unknown is theirs.
    TakingOver,
    /// The socket programs leave the address in place, and the packet programs judge.
    LeftToPackets,
    /// No agent has written the node's values yet.
    Unconfigured,
}

/// Which endpoints may serve a new flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Those of all nodes.
    Cluster,
    /// Those of this node.
    Local,
    /// Those of all nodes, although the policy is Local: the client is in the cluster.
    ShortCut,
}

impl Policy {
    /// The policy by which `verdict::decide` takes its set.
    #[must_use]
    pub fn of(found: &SvcValue, origin: Origin) -> Self {
        match found.kind {
            kind::CLUSTER_IP if found.flags & svc_flags::INTERNAL_LOCAL != 0 => Self::Local,
            kind::CLUSTER_IP | kind::TOMBSTONE => Self::Cluster,
            _ if found.flags & svc_flags::EXTERNAL_LOCAL == 0 => Self::Cluster,
            _ if origin == Origin::External => Self::Local,
            _ => Self::ShortCut,
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cluster => "policy Cluster",
            Self::Local => "policy Local",
            Self::ShortCut => "policy Local, short cut from inside the cluster",
        })
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Frontend { kind: kind::TOMBSTONE, .. } => "endpoint that is gone: another one of its Service",
            Self::Frontend { kind, policy } => return write!(f, "{}, {policy}", frontend(*kind)),
            Self::Refused(reason) => refusal(*reason),
            Self::Established => "established flow",
            Self::AnswerAtEgress => "established flow: the answer is translated where it leaves",
            Self::TranslatedElsewhere => "established flow: translated at another device",
            Self::NoService => "no address of a Service",
            Self::NoFlow => "packet of no flow, and none that opens one",
            Self::GoneEndpoint => "endpoint that is gone, not asked by a pod",
            Self::TakingOver => "no flow of this version: left to the programs before it",
            Self::LeftToPackets => "left to the packet programs",
            Self::Unconfigured => "no agent has configured this node",
        };
        f.write_str(text)
    }
}

fn frontend(kind: u8) -> &'static str {
    match kind {
        kind::NODE_PORT => "node-port",
        kind::LOAD_BALANCER => "load-balancer",
        kind::EXTERNAL_IP => "external-ip",
        _ => "cluster-ip",
    }
}

fn refusal(reason: DropReason) -> &'static str {
    match reason {
        DropReason::NoEndpoints => "no endpoints anywhere: reject",
        DropReason::NoLocalEndpoints => "no endpoint on this node, policy Local: drop",
        DropReason::UnknownPort => "no such port at an address of Services: reject",
        DropReason::ConntrackFull => "conntrack table full: drop",
        DropReason::NoSourcePort => "no free source port towards the endpoint: drop",
        DropReason::Malformed => "malformed packet: drop",
        DropReason::NoRoute => "no route to the endpoint: drop",
        DropReason::HopLimit => "hop limit: drop",
        DropReason::Inconsistent => "slot without an endpoint: the maps disagree",
        DropReason::Rewrite => "packet cannot be rewritten: drop",
        DropReason::NoNodeAddress => "the node has no address of the family to masquerade with: drop",
        DropReason::UnknownProtocol => "protocol that Services do not carry: drop",
        DropReason::Fragment => "fragment of an unknown datagram: drop",
        DropReason::SourceRange => "source range: drop",
        DropReason::UnallocatedAddress => "unallocated address of the service network: drop",
    }
}
