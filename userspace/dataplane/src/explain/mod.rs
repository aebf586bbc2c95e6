//! The verdict as the programs would give it, told with its reason: for `roadstead explain`, and as the oracle of the
//! differential test.
//!
//! This is a model of `ebpf/programs`, function for function: what a program looks up is looked up through a [`View`] of
//! the maps, and what `datapath` decides is decided by the same functions. It changes nothing. Where a program throws
//! dice the model tells every outcome. It does not model what depends on the moment: a full conntrack table, the budget
//! of rejections, two CPUs that open one flow. Nor does it model what the speaker's maps say (`programs/src/layer2.rs`):
//! questions and probes are no flows, and what goes to an address's former owner is no first packet, which is what
//! `explain` is asked about.

mod incoming;
mod live;
mod lookups;
mod memory;
mod open;
mod outgoing;
mod route;
mod rule;
mod socket;
mod view;

use roadstead_abi::{Backend, CtEntry, CtKey, DropReason, SvcValue, proto};
use roadstead_datapath::way::Arrival;

pub use live::KernelView;
pub use memory::{MemoryView, Row};
pub use roadstead_datapath::way::Place;
pub use route::KernelRoutes;
pub use rule::{Policy, Rule};
pub use socket::{Call, Socket, connect};
pub use view::{Routes, View, ViewError};

/// Where a packet is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// It comes in on an uplink.
    UplinkIn,
    /// It leaves through an uplink.
    UplinkOut,
    /// It comes from a pod, or on the loopback device from the node itself.
    IntIn,
    /// It leaves towards a pod.
    IntOut,
}

/// How much of a packet of its flow a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A whole one, or the first fragment.
    Whole,
    /// A later fragment, whose ports the first one has told.
    Later,
    /// An ICMP error; the tuple is that of a packet which would answer the quoted one.
    Error,
    /// Neither TCP nor UDP, or a fragment that nobody knows: only the addresses count.
    Other(DropReason),
}

/// A packet as the programs have parsed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Its tuple.
    pub key: CtKey,
    /// How much of a packet it is.
    pub form: Form,
    /// TCP flags; 0 for whatever is no TCP segment.
    pub tcp_flags: u8,
    /// TTL or hop limit.
    pub hops: u8,
    /// The device it is met on.
    pub ifindex: u32,
    /// The source port is not known: where the choice follows from it, any is possible.
    pub any_port: bool,
}

/// The TCP flags that count here.
pub mod tcp {
    /// The sender opens.
    pub const SYN: u8 = 0x02;
    /// The sender acknowledges.
    pub const ACK: u8 = 0x10;
}

/// `TTL` of a packet that has just been sent.
const FRESH: u8 = 64;

impl Packet {
    /// The first packet of a flow.
    #[must_use]
    pub fn first(key: CtKey, ifindex: u32) -> Self {
        let tcp_flags = if key.proto == proto::TCP { tcp::SYN } else { 0 };
        Self { key, form: Form::Whole, tcp_flags, hops: FRESH, ifindex, any_port: false }
    }

    pub(crate) fn is_opening(&self) -> bool {
        self.key.proto == proto::TCP && self.tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN
    }

    pub(crate) fn has_header(&self) -> bool {
        self.form == Form::Whole
    }
}

/// What becomes of a packet or a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes to an endpoint, or an answer of one to its client.
    Forward,
    /// The client is told that nobody serves it.
    Reject,
    /// It ends in silence.
    Drop,
    /// The programs leave it alone.
    Pass,
}

impl Verdict {
    /// Its name in the command line's answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Reject => "reject",
            Self::Drop => "drop",
            Self::Pass => "pass",
        }
    }
}

/// An endpoint that a new flow may get, and what follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Id of the backend.
    pub id: u32,
    /// The backend.
    pub backend: Backend,
    /// Where it is; unknown for a socket, whose packets find their way by themselves.
    pub place: Option<Place>,
    /// The entry of the flow's packets to the backend, or why they would be refused; for a socket the tuple is unknown.
    pub entry: Result<Option<CtEntry>, DropReason>,
    /// The backend sees an address of the node.
    pub masquerade: bool,
}

/// The verdict and what it follows from.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// What becomes of the packet.
    pub verdict: Verdict,
    /// The rule that says so.
    pub rule: Rule,
    /// Why it is refused; also the label of the counter that moves.
    pub reason: Option<DropReason>,
    /// Id of the Service's port, 0 where none is known.
    pub service: u32,
    /// The frontend that the packet is for, where it opens a flow.
    pub frontend: Option<SvcValue>,
    /// Endpoints that it may get: all that the choice is among, or the one that is chosen already.
    pub candidates: Vec<Candidate>,
    /// The entry of the flow that it belongs to.
    pub flow: Option<CtEntry>,
}

impl Explanation {
    /// No program meets it.
    #[must_use]
    pub fn untouched() -> Self {
        Self::pass(Rule::NoService)
    }

    /// The programs leave the packet alone.
    pub(crate) fn pass(rule: Rule) -> Self {
        Self {
            verdict: Verdict::Pass,
            rule,
            reason: None,
            service: 0,
            frontend: None,
            candidates: Vec::new(),
            flow: None,
        }
    }

    /// A refusal; `told` says whether the client could be told.
    pub(crate) fn refused(reason: DropReason, service: u32, told: bool) -> Self {
        let verdict = if told && reason.is_rejected() { Verdict::Reject } else { Verdict::Drop };
        Self { verdict, reason: Some(reason), service, ..Self::pass(Rule::Refused(reason)) }
    }

    /// Whether an endpoint that the flow may get sees an address of the node.
    #[must_use]
    pub fn masquerade(&self) -> bool {
        self.candidates.iter().any(|candidate| candidate.masquerade)
    }

    /// Whether the Service has session affinity.
    #[must_use]
    pub fn affinity(&self) -> bool {
        self.frontend.is_some_and(|frontend| frontend.affinity != 0)
    }
}

/// Explains what the program at a hook does with a packet.
///
/// # Errors
/// When a map or the routing table cannot be read.
pub fn packet(view: &impl View, routes: &impl Routes, hook: Hook, packet: &Packet) -> Result<Explanation, ViewError> {
    match hook {
        Hook::UplinkIn => incoming::explain(view, routes, packet, Arrival::Uplink),
        Hook::IntIn => {
            let arrival = if packet.ifindex == open::LOOPBACK { Arrival::Host } else { Arrival::Pod };
            incoming::explain(view, routes, packet, arrival)
        }
        Hook::UplinkOut => outgoing::explain(view, routes, packet, outgoing::Device::Uplink),
        Hook::IntOut => outgoing::explain(view, routes, packet, outgoing::Device::Internal),
    }
}
