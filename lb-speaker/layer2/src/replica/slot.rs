//! The map and the view in buckets by name, each under a digest: so nodes compare thousands of Services by one datagram and
//! fetch what differs.

use std::sync::Arc;

use roadstead_model::ObjectName;

use crate::membership::document::{Encoded, Kind, digest, read_chunk};

use super::{Assignments, View};

/// Buckets of the map and of a view. With 20,000 Services a bucket has some 40 KiB.
pub const BUCKETS: usize = 32;

/// The bucket that a Service belongs to.
#[must_use]
pub fn bucket(name: &ObjectName) -> u8 {
    // FNV-1a: any function will do that is the same everywhere, and here no adversary names the Services.
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    let bytes = name.namespace.as_bytes().iter().chain(b"/").chain(name.name.as_bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325, step);
    u8::try_from((hash ^ (hash >> 32)) % BUCKETS as u64).unwrap_or(0)
}

/// What a bucket is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kept {
    /// The replicated map.
    Assigned,
    /// The node's view.
    Viewed,
}

/// One document of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot {
    /// What it tells.
    pub kept: Kept,
    /// The bucket.
    pub bucket: u8,
}

/// The digests of all of a node's buckets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// Digest of the node's pools; 0 as long as it has read nothing.
    pub pools: u64,
    /// Digest of what else decides who announces.
    pub rest: u64,
    assigned: [u64; BUCKETS],
    viewed: [u64; BUCKETS],
}

impl Index {
    /// The digest of one bucket.
    #[must_use]
    pub fn digest(&self, slot: Slot) -> u64 {
        let all = match slot.kept {
            Kept::Assigned => &self.assigned,
            Kept::Viewed => &self.viewed,
        };
        all.get(usize::from(slot.bucket)).copied().unwrap_or(0)
    }

    pub(crate) fn has_assigned(&self, digest: u64) -> bool {
        self.assigned.contains(&digest)
    }

    /// Whether the node has the same Services and pools.
    #[must_use]
    pub fn is_same_view(&self, other: &Self) -> bool {
        (self.pools, &self.viewed) == (other.pools, &other.viewed)
    }

    pub(super) fn viewed(&self, bucket: u8) -> u64 {
        self.digest(Slot { kept: Kept::Viewed, bucket })
    }

    /// Two digests and two lists of digests, of the map's and of the view's buckets; 8 bytes each.
    pub(crate) fn write(&self) -> Vec<u8> {
        let all = [self.pools, self.rest].into_iter().chain(self.assigned).chain(self.viewed);
        all.flat_map(u64::to_be_bytes).collect()
    }

    pub(crate) fn read(mut bytes: &[u8]) -> Option<Self> {
        let mut next = || Some(u64::from_be_bytes(read_chunk(&mut bytes)?));
        let mut index = Self { pools: next()?, rest: next()?, assigned: [0; BUCKETS], viewed: [0; BUCKETS] };
        for digest in index.assigned.iter_mut().chain(&mut index.viewed) {
            *digest = next()?;
        }
        bytes.is_empty().then_some(index)
    }

    /// All slots, those of the map first.
    pub fn slots() -> impl Iterator<Item = Slot> {
        let of = |kept| (0..BUCKETS).filter_map(move |at| Some(Slot { kept, bucket: u8::try_from(at).ok()? }));
        of(Kept::Assigned).chain(of(Kept::Viewed))
    }
}

/// All that a node tells at length, ready to be sent.
#[derive(Clone, Debug)]
pub struct Documents {
    /// The digests.
    pub index: Index,
    /// Of the whole view; 0 for none.
    pub files: u64,
    pub(crate) encoded: Encoded,
    assigned: Arc<[Encoded; BUCKETS]>,
    viewed: Arc<[Encoded; BUCKETS]>,
}

impl Documents {
    /// Of the map and, once the node has read its files, of its view.
    #[must_use]
    pub fn new(assigned: &Assignments, view: Option<&View>) -> Self {
        let encode = |kind, buckets: [Vec<u8>; BUCKETS]| Arc::new(buckets.map(|bytes| Encoded::new(kind, bytes)));
        let files = view.map_or(0, View::digest);
        let none = View::default();
        let view = view.unwrap_or(&none);
        let (pools, rest) = (view.pools, view.rest);
        let (assigned, viewed) = (encode(Kind::Assigned, assigned.write()), encode(Kind::Viewed, view.write()));
        let digests = |of: &[Encoded; BUCKETS]| of.each_ref().map(|encoded| encoded.digest);
        let index = Index { pools, rest, assigned: digests(&assigned), viewed: digests(&viewed) };
        let encoded = Encoded::new(Kind::Index, index.write());
        Self { index, files, encoded, assigned, viewed }
    }

    /// What is handed out of one bucket.
    #[must_use]
    pub fn bytes(&self, slot: Slot) -> &[u8] {
        let all = match slot.kept {
            Kept::Assigned => &self.assigned,
            Kept::Viewed => &self.viewed,
        };
        all.get(usize::from(slot.bucket)).map_or(&[], Encoded::bytes)
    }

    /// The document with this digest.
    pub(crate) fn named(&self, digest: u64) -> Option<&Encoded> {
        let all = self.assigned.iter().chain(self.viewed.iter());
        std::iter::once(&self.encoded).chain(all).find(|encoded| encoded.digest == digest)
    }
}

impl Default for Documents {
    fn default() -> Self {
        Self::new(&Assignments::default(), None)
    }
}

/// A digest of bytes, never 0; for whoever makes a [`View`].
#[must_use]
pub fn digest_of(bytes: &[u8]) -> u64 {
    digest(bytes)
}
