//! Which endpoints of a Service port a node may use: kube-proxy's `CategorizeEndpoints` (pkg/proxy/topology.go).
//!
//! The Cluster set holds the ready endpoints, narrowed by topology hints, or where there is none the serving ones that are
//! terminating (KEP-1669). The Local set is the same over this node's endpoints, without hints. Each falls back by itself.

use roadstead_model::Endpoint;

use crate::frontends::EndpointAddress;

/// Where this node is.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The name of the node.
    pub node: &'a str,
    /// Its zone.
    pub zone: Option<&'a str>,
}

/// Which sets a Service port needs, by its traffic policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uses {
    /// The Cluster set: the internal policy is Cluster, or clients outside the cluster reach the port. Even under the
    /// external policy Local this node and its pods take a short cut.
    pub cluster: bool,
    /// The Local set: some policy that applies is Local.
    pub local: bool,
}

/// The endpoints of one Service port in one family, each list sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointSets {
    /// Endpoints under policy Cluster.
    pub cluster: Vec<EndpointAddress>,
    /// Endpoints under policy Local.
    pub local: Vec<EndpointAddress>,
    /// Endpoints that still answer, ready or not: flows to them go on.
    pub serving: Vec<EndpointAddress>,
    /// Some endpoint is usable somewhere: an empty set then means drop, otherwise reject.
    pub any: bool,
}

/// An endpoint and its address with the port that it serves.
pub type Candidate<'a> = (&'a Endpoint, EndpointAddress);

impl EndpointSets {
    /// Sorts endpoints into sets.
    #[must_use]
    pub fn of(endpoints: &[Candidate<'_>], uses: Uses, place: Place<'_>) -> Self {
        let mut sets = Self::default();
        if uses.cluster {
            let mode = Mode::of(endpoints, place);
            sets.cluster = or_terminating(endpoints, |endpoint| mode.takes(endpoint, place), |_| true);
            sets.any = !sets.cluster.is_empty();
        }
        if uses.local {
            let is_here = |endpoint: &Endpoint| endpoint.is_on(place.node);
            sets.local = or_terminating(endpoints, is_here, is_here);
            sets.any |= endpoints.iter().any(|(endpoint, _)| endpoint.ready || is_draining(endpoint));
        }
        sets.serving = addresses(endpoints, |endpoint| endpoint.ready || endpoint.serving);
        sets
    }
}

/// The ready ones that are taken, or where there is none the draining ones.
fn or_terminating(
    endpoints: &[Candidate<'_>],
    takes_ready: impl Fn(&Endpoint) -> bool,
    takes_draining: impl Fn(&Endpoint) -> bool,
) -> Vec<EndpointAddress> {
    let ready = addresses(endpoints, |endpoint| endpoint.ready && takes_ready(endpoint));
    if !ready.is_empty() {
        return ready;
    }
    addresses(endpoints, |endpoint| is_draining(endpoint) && takes_draining(endpoint))
}

fn is_draining(endpoint: &Endpoint) -> bool {
    endpoint.serving && endpoint.terminating
}

fn addresses(endpoints: &[Candidate<'_>], takes: impl Fn(&Endpoint) -> bool) -> Vec<EndpointAddress> {
    let taken = endpoints.iter().filter(|(endpoint, _)| takes(endpoint));
    let mut addresses: Vec<_> = taken.map(|(_, address)| *address).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// What narrows the ready endpoints. The choice falls back, its application does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Every ready endpoint has a node hint, and one names this node.
    SameNode,
    /// Every ready endpoint has a zone hint, and one names this node's zone.
    SameZone,
    /// Nothing does.
    Anywhere,
}

impl Mode {
    fn of(endpoints: &[Candidate<'_>], place: Place<'_>) -> Self {
        let ready = || endpoints.iter().map(|(endpoint, _)| *endpoint).filter(|endpoint| endpoint.ready);
        let all_hint = |hints: fn(&Endpoint) -> &[String]| ready().all(|endpoint| !hints(endpoint).is_empty());
        let fits = |mode: Self| ready().any(|endpoint| mode.takes(endpoint, place));
        if all_hint(|endpoint| &endpoint.node_hints) && fits(Self::SameNode) {
            Self::SameNode
        } else if all_hint(|endpoint| &endpoint.zone_hints) && fits(Self::SameZone) {
            Self::SameZone
        } else {
            Self::Anywhere
        }
    }

    fn takes(self, endpoint: &Endpoint, place: Place<'_>) -> bool {
        match self {
            Self::SameNode => endpoint.node_hints.iter().any(|hint| hint == place.node),
            Self::SameZone => place.zone.is_some_and(|zone| endpoint.zone_hints.iter().any(|hint| hint == zone)),
            Self::Anywhere => true,
        }
    }
}

#[cfg(test)]
#[path = "topology_tests.rs"]
mod tests;
