//! Who assigns, and about which Services it may decide: what all live nodes have read alike.
//!
//! A copy of files reaches one node after the other, and one may miss it. So nothing is assigned, moved or taken away on
//! the word of one copy: a Service gets an address once every live node has the same version of it and of the pools, and
//! its address is released once a majority of the configured nodes has read files without it.

use std::collections::BTreeMap;

use roadstead_model::ObjectName;
use sha2::{Digest as _, Sha256};

use super::{Index, UNJUDGED, View, Viewed, view::Glimpse};

/// The node that assigns, among the live ones: the same for all who see the same, and another only when that one is gone
/// or a better one comes (rendezvous hashing).
#[must_use]
pub fn assigner<'a>(live: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let hash = |name: &str| <[u8; 32]>::from(Sha256::digest(format!("assigner#{name}")));
    live.into_iter().min_by_key(|name| (hash(name), *name))
}

/// The views of the live nodes, this one's among them.
#[derive(Clone, Debug)]
pub struct Council<'a> {
    own: &'a View,
    ours: &'a Index,
    peers: BTreeMap<&'a str, Option<&'a Glimpse>>,
    /// All configured nodes, this one among them.
    members: usize,
}

/// What the live nodes know of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Agreement<'a> {
    /// All have the same.
    Agreed,
    /// These have not told yet.
    Waits(Vec<&'a str>),
    /// These have another version of the Service or of the pools, or have not the Service.
    Differs(Vec<&'a str>),
}

impl<'a> Council<'a> {
    /// Of this node, with its index, and its live peers, of which some may not have told anything yet; `members` are
    /// configured in all.
    #[must_use]
    pub fn new(own: &'a View, ours: &'a Index, peers: BTreeMap<&'a str, Option<&'a Glimpse>>, members: usize) -> Self {
        Self { own, ours, peers, members }
    }

    /// Whether all have the same Services and pools, which is the usual case and quickly seen.
    #[must_use]
    pub fn is_unanimous(&self) -> bool {
        let judged = || self.own.services.values().all(|version| *version != UNJUDGED);
        self.peers.values().all(|glimpse| glimpse.is_some_and(|glimpse| glimpse.is_same(self.ours))) && judged()
    }

    fn viewed(&self, glimpse: Option<&Glimpse>, name: &ObjectName) -> Viewed {
        glimpse.map_or(Viewed::Unknown, |glimpse| glimpse.of(name, self.own, self.ours))
    }

    /// Whether the live nodes agree about the Service.
    #[must_use]
    pub fn about(&self, name: &ObjectName) -> Agreement<'a> {
        let own = self.own.services.get(name).filter(|version| **version != UNJUDGED);
        let (mut waits, mut differs) = (Vec::new(), Vec::new());
        for (peer, glimpse) in &self.peers {
            let pools = glimpse.is_some_and(|glimpse| glimpse.has_pools(self.own));
            match self.viewed(*glimpse, name) {
                Viewed::Unknown => waits.push(*peer),
                Viewed::Has(version) if Some(&version) == own && pools => {}
                _ => differs.push(*peer),
            }
        }
        match (own.is_some() && differs.is_empty(), waits.is_empty()) {
            (false, _) => Agreement::Differs(differs),
            (_, false) => Agreement::Waits(waits),
            _ => Agreement::Agreed,
        }
    }

    /// Whether a majority of all configured nodes has read files without the Service.
    #[must_use]
    pub fn is_gone(&self, name: &ObjectName) -> bool {
        let own = usize::from(!self.own.services.contains_key(name));
        let lacks = |glimpse: &&Option<&Glimpse>| self.viewed(**glimpse, name) == Viewed::Lacks;
        own + self.peers.values().filter(lacks).count() > self.members / 2
    }
}
