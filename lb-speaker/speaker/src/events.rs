//! What happens to Services, by the reasons of MetalLB's events, which people have learnt to look for.

use roadstead_model::{ObjectName, ObjectRef};
use roadstead_sources::{Events, Gravity};

/// What an event tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Happening {
    /// An address was assigned.
    IpAllocated,
    /// No address could be assigned.
    AllocationFailed,
    /// The address of one family could not be assigned beside that of the other.
    AdditionalAssignFailed,
    /// The request for addresses cannot be read.
    LoadBalancerFailed,
    /// An address was taken back.
    ClearAssignment,
    /// This node has begun to announce.
    NodeAssigned,
    /// This node is to announce, but has no interface for it.
    AnnounceFailed,
    /// An annotation's prefix is MetalLB's former one.
    DeprecatedAnnotation,
}

impl Happening {
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::IpAllocated => "IPAllocated",
            Self::AllocationFailed => "AllocationFailed",
            Self::AdditionalAssignFailed => "AdditionalAssignFailed",
            Self::LoadBalancerFailed => "LoadBalancerFailed",
            Self::ClearAssignment => "ClearAssignment",
            Self::NodeAssigned => "nodeAssigned",
            Self::AnnounceFailed => "announceFailed",
            Self::DeprecatedAnnotation => "deprecatedAnnotation",
        }
    }

    fn gravity(self) -> Gravity {
        match self {
            Self::IpAllocated | Self::ClearAssignment | Self::NodeAssigned | Self::AdditionalAssignFailed => {
                Gravity::Normal
            }
            _ => Gravity::Warning,
        }
    }

    /// Notes that this happened to a Service, again or for the first time.
    pub(crate) fn note(self, events: &mut Events, service: &ObjectName, message: String, now: i64) {
        let about = ObjectRef { kind: "Service".to_owned(), name: service.clone() };
        events.note(about, self.gravity(), self.reason(), message, now);
    }
}
