//! What a node has read of its files, as far as addresses depend on it: by this, nodes see that their copies differ.
//!
//! A view names every Service of type LoadBalancer that is this speaker's with a digest of what decides about its
//! addresses, and has one digest for the pools and one for what else decides who announces.

use std::collections::{BTreeMap, BTreeSet};

use roadstead_model::ObjectName;

use crate::membership::document::{digest, read_chunk, text};

use super::{
    read_name,
    slot::{BUCKETS, Index, bucket},
};

/// The digest of a Service that the node cannot judge: a part of its files cannot be read.
pub const UNJUDGED: u64 = 0;

/// One node's view.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// By Service, a digest of what decides about its addresses; [`UNJUDGED`] where the node may have the Service and
    /// cannot read it.
    pub services: BTreeMap<ObjectName, u64>,
    /// Of all pools and of what selects among them.
    pub pools: u64,
    /// Of advertisements, nodes and endpoints.
    pub rest: u64,
}

impl View {
    /// A digest of all of it, never 0.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let all = self.write().concat();
        digest(&[&self.pools.to_be_bytes(), &self.rest.to_be_bytes(), &all[..]].concat())
    }

    /// The Services of each bucket as bytes: in order of names namespace and name, each after its length in one byte, and
    /// the digest (8 bytes).
    pub(crate) fn write(&self) -> [Vec<u8>; BUCKETS] {
        let mut buckets = [const { Vec::new() }; BUCKETS];
        for (name, version) in &self.services {
            let Some(bytes) = buckets.get_mut(usize::from(bucket(name))) else { continue };
            text(bytes, &name.namespace);
            text(bytes, &name.name);
            bytes.extend(version.to_be_bytes());
        }
        buckets
    }
}

/// What a node's view says of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Viewed {
    /// Not known yet.
    Unknown,
    /// The node has not the Service.
    Lacks,
    /// It may have it, and cannot read it.
    Unjudged,
    /// It has this version of it.
    Has(u64),
}

/// A peer's view, as far as it has come.
#[derive(Clone, Debug, Default)]
pub struct Glimpse {
    index: Option<Index>,
    buckets: BTreeMap<u8, (u64, BTreeMap<ObjectName, u64>)>,
}

impl Glimpse {
    /// The peer's newest index; nothing where it is not known.
    pub fn set_index(&mut self, index: Option<&Index>) {
        self.index = index.cloned();
    }

    /// Takes the Services of one bucket in, whose digest is given; whether they could be read.
    pub fn put(&mut self, of: u8, named: u64, mut bytes: &[u8]) -> bool {
        let mut services = BTreeMap::new();
        while !bytes.is_empty() {
            let Some(name) = read_name(&mut bytes, of) else { return false };
            let Some(version) = read_chunk(&mut bytes) else { return false };
            if services.last_key_value().is_some_and(|(last, _)| *last >= name) {
                return false;
            }
            services.insert(name, u64::from_be_bytes(version));
        }
        self.buckets.insert(of, (named, services));
        true
    }

    /// Whether it has the same Services and pools as the node with this index.
    #[must_use]
    pub fn is_same(&self, ours: &Index) -> bool {
        self.index.as_ref().is_some_and(|index| index.pools != 0 && index.is_same_view(ours))
    }

    /// What it says of the Service; `own` and `ours` are this node's view and index.
    #[must_use]
    pub fn of(&self, name: &ObjectName, own: &View, ours: &Index) -> Viewed {
        let of = bucket(name);
        let Some(index) = self.index.as_ref().filter(|index| index.pools != 0) else { return Viewed::Unknown };
        let found = if index.viewed(of) == ours.viewed(of) {
            own.services.get(name)
        } else {
            match self.buckets.get(&of).filter(|(named, _)| *named == index.viewed(of)) {
                None => return Viewed::Unknown,
                Some((_, services)) => services.get(name),
            }
        };
        match found {
            None => Viewed::Lacks,
            Some(&UNJUDGED) => Viewed::Unjudged,
            Some(version) => Viewed::Has(*version),
        }
    }

    /// Whether its pools are these.
    #[must_use]
    pub fn has_pools(&self, own: &View) -> bool {
        self.index.as_ref().is_some_and(|index| index.pools == own.pools)
    }

    /// In words, in what the peer's copy of the files differs from this node's, with at most `most` names of each kind.
    #[must_use]
    pub fn difference(&self, own: &View, ours: &Index, most: usize) -> Vec<String> {
        let Some(index) = self.index.as_ref().filter(|index| index.pools != 0) else { return Vec::new() };
        let theirs = self.buckets.iter().filter(|(of, (named, _))| *named == index.viewed(**of));
        let theirs = theirs.flat_map(|(_, (_, services))| services.keys());
        let names: BTreeSet<&ObjectName> = own.services.keys().chain(theirs).collect();
        let (mut lacks, mut more, mut other) = (Vec::new(), Vec::new(), Vec::new());
        for name in names {
            match (self.of(name, own, ours), own.services.get(name)) {
                (Viewed::Lacks, Some(_)) => lacks.push(name),
                (Viewed::Has(_) | Viewed::Unjudged, None) => more.push(name),
                (Viewed::Has(theirs), Some(ours)) if theirs != *ours => other.push(name),
                (Viewed::Unjudged, Some(_)) => other.push(name),
                _ => {}
            }
        }
        let mut told = Vec::new();
        for (names, what) in [(lacks, "it lacks"), (more, "only it has"), (other, "it has another version of")] {
            told.extend((!names.is_empty()).then(|| format!("{what} {}", list(&names, most))));
        }
        told.extend((index.pools != own.pools).then(|| "its pools or namespaces differ".to_owned()));
        let rest = "its advertisements, nodes or endpoints differ";
        told.extend((index.rest != own.rest).then(|| rest.to_owned()));
        told
    }
}

fn list(names: &[&ObjectName], most: usize) -> String {
    let shown: Vec<String> = names.iter().take(most).map(ToString::to_string).collect();
    let more = names.len().saturating_sub(most);
    shown.join(", ") + &if more > 0 { format!(" and {more} more") } else { String::new() }
}
