//! Topology hints: which of the ready endpoints are meant for the node that the proxy runs on.
//!
//! As kube-proxy reads them (KEP-2433, KEP-3015): hints count only if every ready endpoint has one and one of them is for
//! here. Else every endpoint serves everybody, so that no hint can leave a Service without endpoints.

use roadstead_model::Endpoint;

/// Where the proxy runs.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place<'a> {
    /// Its node.
    pub(super) node: Option<&'a str>,
    /// The node's zone.
    pub(super) zone: Option<&'a str>,
}

/// What narrows the ready endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nearby {
    /// A hint must name the node.
    Node,
    /// A hint must name the zone.
    Zone,
    /// Nothing does.
    Anywhere,
}

impl Nearby {
    /// The narrowest that leaves endpoints.
    pub(super) fn of(ready: &[&Endpoint], place: Place<'_>) -> Self {
        let all_hint = |hints: fn(&Endpoint) -> &[String]| ready.iter().all(|endpoint| !hints(endpoint).is_empty());
        let fits = |mode: Self| ready.iter().any(|endpoint| mode.takes(endpoint, place));
        if all_hint(|endpoint| &endpoint.node_hints) && fits(Self::Node) {
            Self::Node
        } else if all_hint(|endpoint| &endpoint.zone_hints) && fits(Self::Zone) {
            Self::Zone
        } else {
            Self::Anywhere
        }
    }

    /// Whether an endpoint is among those that are left.
    pub(super) fn takes(self, endpoint: &Endpoint, place: Place<'_>) -> bool {
        let names =
            |hints: &[String], here: Option<&str>| here.is_some_and(|here| hints.iter().any(|hint| hint == here));
        match self {
            Self::Node => names(&endpoint.node_hints, place.node),
            Self::Zone => names(&endpoint.zone_hints, place.zone),
            Self::Anywhere => true,
        }
    }
}
