//! Which node announces an address: MetalLB's stateless election, with the reason for every node that lost.
//!
//! Every speaker computes it for itself from the same objects and its own view of who is alive. The node and the
//! address alone decide, so that addresses stay where they are when another node leaves, and a speaker of MetalLB on the
//! same segment would come to the same answer.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use roadstead_model::{Endpoint, IpAddressPool, L2Advertisement, Labels, Service, Snapshot, TrafficPolicy};
use sha2::{Digest, Sha256};

/// An address and those that it serves.
#[derive(Clone, Debug)]
pub struct Contest<'a> {
    /// The address.
    pub ip: IpAddr,
    /// The address that is hashed: the first one of the first Service, so that the two of a dual stack stay together.
    pub hashed: IpAddr,
    /// The Services that have the address, in order of name; more than one where it is shared.
    pub services: Vec<&'a Service>,
    /// The pool that it comes from.
    pub pool: &'a IpAddressPool,
}

/// What the live nodes are known to be able to: the interfaces of each on which it can announce. Of a node that is not
/// named nothing is known, and nothing is held against it.
pub type Abilities = BTreeMap<String, BTreeSet<String>>;

/// One address and the nodes that may announce it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// The address.
    pub ip: IpAddr,
    /// The address that is hashed; addresses with the same one belong together.
    pub hashed: IpAddr,
    /// Why no node may announce, whichever it is.
    pub nobody: Option<Nobody>,
    /// Who may, the first by MetalLB's rules first.
    pub candidates: Vec<Candidate>,
}

/// A node that may announce an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Candidate {
    /// What the advertisements' preferences leave to be wished for: 0 for the nodes that they prefer most.
    pub distance: u32,
    /// `sha256(node + "#" + ip)`, the address in its canonical text.
    pub hash: [u8; 32],
    /// The node.
    pub node: String,
}

/// How an election ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The node that announces.
    pub winner: Option<String>,
    /// Why no node may announce, whichever it is.
    pub nobody: Option<Nobody>,
    /// Every node known from objects or alive, and how it fared.
    pub nodes: BTreeMap<String, Verdict>,
}

/// Why an address is announced nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Nobody {
    /// No endpoint would take the traffic.
    #[error("no Service with this address has a serving endpoint")]
    NoEndpoint,
    /// No L2Advertisement covers the pool.
    #[error("no L2Advertisement covers the pool and the Service")]
    NoAdvertisement,
    /// Every node is ruled out; their verdicts say why.
    #[error("no node is eligible")]
    NoCandidate,
}

/// How one node fared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Verdict {
    /// It announces the address.
    #[error("announces the address")]
    Won,
    /// Eligible, but another node is preferred or has a lower hash.
    #[error("is eligible, but another node is preferred or has a lower hash")]
    HigherHash,
    /// Eligible, but nobody announces this address at all.
    #[error("is eligible, but the address is not announced")]
    NotAnnounced,
    /// No speaker was heard there.
    #[error("has no live speaker")]
    NotAlive,
    /// The Node's condition NetworkUnavailable is true.
    #[error("has the condition NetworkUnavailable")]
    NetworkUnavailable,
    /// The Node carries the label `node.kubernetes.io/exclude-from-external-load-balancers`.
    #[error("is labelled exclude-from-external-load-balancers")]
    Excluded,
    /// No L2Advertisement of the pool selects the node.
    #[error("is selected by no L2Advertisement of the pool")]
    NotSelected,
    /// It has none of the interfaces that its L2Advertisements name, or that is down.
    #[error("has no usable interface for the address")]
    NoInterface,
    /// External traffic policy Local, and no serving endpoint on the node.
    #[error("has no serving endpoint and externalTrafficPolicy is Local")]
    NoLocalEndpoint,
}

/// The interfaces that an address may be announced on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interfaces {
    /// Every one that the speaker uses.
    All,
    /// Those of these names.
    Named(BTreeSet<String>),
}

impl Interfaces {
    /// Whether the interface of this name is among them.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Named(names) => names.contains(name),
        }
    }
}

/// Holds the election for one address among the live nodes.
#[must_use]
pub fn elect(snapshot: &Snapshot, contest: &Contest<'_>, live: &BTreeSet<String>, can: &Abilities) -> Outcome {
    let (field, mut nodes) = judge(snapshot, contest, live, can);
    let winner = field.candidates.first().map(|best| best.node.clone()).filter(|_| field.nobody.is_none());
    for (node, verdict) in nodes.iter_mut().filter(|(_, verdict)| **verdict == Verdict::HigherHash) {
        *verdict = match &winner {
            Some(winner) if winner == node => Verdict::Won,
            Some(_) => Verdict::HigherHash,
            None => Verdict::NotAnnounced,
        };
    }
    Outcome { winner, nobody: field.nobody, nodes }
}

/// The nodes that may announce an address, among the live ones.
#[must_use]
pub fn field(snapshot: &Snapshot, contest: &Contest<'_>, live: &BTreeSet<String>, can: &Abilities) -> Field {
    judge(snapshot, contest, live, can).0
}

/// Every candidate has the verdict `HigherHash` here.
fn judge(
    snapshot: &Snapshot,
    contest: &Contest<'_>,
    live: &BTreeSet<String>,
    can: &Abilities,
) -> (Field, BTreeMap<String, Verdict>) {
    let advertisements = covering(snapshot, contest);
    let served: Vec<&Service> =
        contest.services.iter().copied().filter(|service| serving(snapshot, service).next().is_some()).collect();
    let names: BTreeSet<&String> = snapshot.nodes.keys().chain(live).collect();
    let nodes: BTreeMap<String, Verdict> = names
        .into_iter()
        .map(|node| {
            let ruled_out = ruled_out(snapshot, &advertisements, &served, node, live)
                .or_else(|| (!can_announce(snapshot, contest, node, can)).then_some(Verdict::NoInterface));
            (node.clone(), ruled_out.unwrap_or(Verdict::HigherHash))
        })
        .collect();
    let may = nodes.iter().filter(|(_, verdict)| **verdict == Verdict::HigherHash);
    let scores = may.map(|(node, _)| (node, score(snapshot, &advertisements, node)));
    let scores: Vec<(&String, u32)> = scores.collect();
    let most = scores.iter().map(|(_, score)| *score).max().unwrap_or(0);
    let candidate = |(node, score): (&String, u32)| Candidate {
        distance: most - score,
        hash: hash(node, contest.hashed),
        node: node.clone(),
    };
    let mut candidates: Vec<Candidate> = scores.into_iter().map(candidate).collect();
    candidates.sort_unstable();
    let nobody = match candidates.first() {
        _ if served.is_empty() => Some(Nobody::NoEndpoint),
        _ if advertisements.is_empty() => Some(Nobody::NoAdvertisement),
        None => Some(Nobody::NoCandidate),
        Some(_) => None,
    };
    (Field { ip: contest.ip, hashed: contest.hashed, nobody, candidates }, nodes)
}

/// Whether the node has an interface up on which it may announce addresses of the pool.
fn can_announce(snapshot: &Snapshot, contest: &Contest<'_>, node: &str, can: &Abilities) -> bool {
    let Some(usable) = can.get(node) else { return true };
    let wanted = interfaces(snapshot, contest, node);
    usable.iter().any(|interface| wanted.contains(interface))
}

/// The sum of what the advertisements that select the node prefer it by.
fn score(snapshot: &Snapshot, advertisements: &[&L2Advertisement], node: &str) -> u32 {
    let none = Labels::new();
    let labels = labels(snapshot, node).unwrap_or(&none);
    let selecting = advertisements.iter().filter(|advertisement| advertisement.nodes.matches(labels));
    let preferences = selecting.flat_map(|advertisement| &advertisement.preferences);
    preferences
        .filter(|preference| preference.selector.matches(labels))
        .map(|preference| u32::from(preference.weight))
        .sum()
}

/// The interfaces on which the node may announce the address: what any of its advertisements allows. Unlike with
/// MetalLB, a node that is known to have none of them up is no candidate.
#[must_use]
pub fn interfaces(snapshot: &Snapshot, contest: &Contest<'_>, node: &str) -> Interfaces {
    let none = Labels::new();
    let labels = labels(snapshot, node).unwrap_or(&none);
    let selected: Vec<_> =
        covering(snapshot, contest).into_iter().filter(|advertisement| advertisement.nodes.matches(labels)).collect();
    if selected.iter().any(|advertisement| advertisement.interfaces.is_empty()) {
        return Interfaces::All;
    }
    Interfaces::Named(selected.iter().flat_map(|advertisement| advertisement.interfaces.iter().cloned()).collect())
}

/// The advertisements of the address: of its pool, and for one of its Services.
fn covering<'a>(snapshot: &'a Snapshot, contest: &Contest<'_>) -> Vec<&'a L2Advertisement> {
    let all = snapshot.l2_advertisements.values().map(AsRef::as_ref);
    let serves = |advertisement: &&L2Advertisement| {
        advertisement.covers(contest.pool) && contest.services.iter().any(|service| advertisement.serves(service))
    };
    all.filter(serves).collect()
}

fn labels<'a>(snapshot: &'a Snapshot, node: &str) -> Option<&'a Labels> {
    snapshot.nodes.get(node).map(|node| &node.meta.labels)
}

/// Endpoints that would take traffic, those that are about to end included as long as they serve.
fn serving<'a>(snapshot: &'a Snapshot, service: &'a Service) -> impl Iterator<Item = &'a Endpoint> {
    let endpoints = snapshot.slices_of(&service.meta.name).iter().flat_map(|slice| &slice.endpoints);
    endpoints.filter(|endpoint| endpoint.ready || endpoint.serving || service.publish_not_ready)
}

/// Whether any endpoint of the Service would take traffic.
#[must_use]
pub fn is_served(snapshot: &Snapshot, service: &Service) -> bool {
    serving(snapshot, service).next().is_some()
}

fn ruled_out(
    snapshot: &Snapshot,
    advertisements: &[&L2Advertisement],
    served: &[&Service],
    node: &str,
    live: &BTreeSet<String>,
) -> Option<Verdict> {
    if !live.contains(node) {
        return Some(Verdict::NotAlive);
    }
    let object = snapshot.nodes.get(node);
    if object.is_some_and(|object| object.network_unavailable) {
        return Some(Verdict::NetworkUnavailable);
    }
    if object.is_some_and(|object| object.is_excluded_from_load_balancers()) {
        return Some(Verdict::Excluded);
    }
    let none = Labels::new();
    let labels = labels(snapshot, node).unwrap_or(&none);
    if !advertisements.is_empty() && !advertisements.iter().any(|advertisement| advertisement.nodes.matches(labels)) {
        return Some(Verdict::NotSelected);
    }
    let has_endpoint = |service: &&Service| {
        service.external_policy == TrafficPolicy::Cluster
            || serving(snapshot, service).any(|endpoint| endpoint.is_on(node))
    };
    (!served.is_empty() && !served.iter().any(has_endpoint)).then_some(Verdict::NoLocalEndpoint)
}

/// MetalLB's order: `sha256(node + "#" + ip)`, the address in its canonical text.
fn hash(node: &str, ip: IpAddr) -> [u8; 32] {
    Sha256::digest(format!("{node}#{ip}")).into()
}

#[cfg(test)]
mod tests;
