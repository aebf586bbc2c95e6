//! Who has which address, as speakers without an API server agree on it: a map that each of them keeps and merges.
//!
//! One node at a time assigns (`council`), the others follow; but a network that is cut may have two, so entries are made
//! to be merged. Of two entries for one Service the one that replaced more entries before it holds; of two that replaced as
//! many, which only two assigning nodes can make, that of the lower epoch. An epoch is the time for which one node assigns;
//! each has a higher one than all that its node knew of. This is a join of a semilattice: nodes may merge in any
//! order and as often as they like. An address that two Services have then, and may not share, stays with the lower
//! `(epoch, namespace/name)` ([`Assignments::settle`]); the other Service is assigned anew.
//!
//! An entry without addresses says that the Service has none any more: without it, a node that was away would bring back
//! what was released. `view` tells what a node has read; how it all gets from node to node is in `membership::exchange`.

pub mod council;
mod settle;
mod slot;
mod view;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use roadstead_model::ObjectName;

use crate::membership::document::{ip, read_chunk, read_ip, read_text, text};

pub use settle::{Lost, Settled};
pub use slot::{BUCKETS, Documents, Index, Kept, Slot, bucket, digest_of};
pub use view::{Glimpse, UNJUDGED, View, Viewed};

/// The addresses of each Service.
pub type Table = BTreeMap<ObjectName, Vec<IpAddr>>;

/// Entries without addresses that are kept, those of the highest epochs.
pub const RELEASES: usize = 1024;
/// The highest number or epoch that is believed: there must be room for the next.
pub const MAX_COUNT: u64 = u64::MAX / 2;
/// The highest number that a first entry begins with; the rest is for those that follow.
const MAX_FLOOR: u64 = MAX_COUNT / 2;
/// A Service has at most one address of each family.
const MAX_IPS: u8 = 2;

/// What one Service was assigned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// How many entries of the Service came before it.
    pub number: u64,
    /// When it was made: the epoch of the node that assigned.
    pub epoch: u64,
    /// The node that assigned.
    pub writer: String,
    /// In the order of the Service's status; none where it was released.
    pub ips: Vec<IpAddr>,
}

impl Entry {
    /// Whether this one holds where both are known.
    #[must_use]
    pub fn supersedes(&self, other: &Self) -> bool {
        let rank = |entry: &Self| (entry.number, Reverse(entry.epoch));
        let ties = (&other.writer, &other.ips).cmp(&(&self.writer, &self.ips));
        rank(self).cmp(&rank(other)).then(ties).is_gt()
    }
}

/// Where the map keeps the floor: a release of a name that no Service has. So it merges, is written down and travels like one,
/// also by way of nodes of versions that do not know what it says.
fn forgotten() -> ObjectName {
    ObjectName::new("", "released")
}

/// The replicated map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assignments {
    entries: BTreeMap<ObjectName, Entry>,
}

impl Assignments {
    /// Takes one entry in; whether that changed anything.
    pub fn put(&mut self, name: ObjectName, entry: Entry) -> bool {
        let holds = self.entries.get(&name).is_none_or(|known| entry.supersedes(known));
        if holds {
            self.entries.insert(name, entry);
        }
        holds
    }

    /// Takes what another node has; whether that changed anything.
    pub fn merge(&mut self, other: Self) -> bool {
        // Not `any`, which would stop at the first change.
        other.entries.into_iter().fold(false, |changed, (name, entry)| self.put(name, entry) | changed)
    }

    /// Forgets releases beyond [`RELEASES`], but for the highest of their numbers ([`Self::floor`]). A node that was away for
    /// longer may bring such a Service back, until the majority says again that it is gone.
    pub fn trim(&mut self) {
        let floor = forgotten();
        let released = self.entries.iter().filter(|(name, entry)| entry.ips.is_empty() && **name != floor);
        let mut released: Vec<(u64, ObjectName)> = released.map(|(name, entry)| (entry.epoch, name.clone())).collect();
        if released.len() <= RELEASES {
            return;
        }
        released.sort_unstable_by(|one, other| other.cmp(one));
        let gone = released.into_iter().skip(RELEASES).filter_map(|(_, name)| self.entries.remove(&name));
        if let Some(number) = gone.map(|entry| entry.number).max() {
            let number = number.saturating_add(1).min(MAX_FLOOR);
            self.put(floor, Entry { number, epoch: 0, writer: String::new(), ips: Vec::new() });
        }
    }

    /// The number of the first entry of a Service of which nothing is known: higher than that of every release that was
    /// forgotten. A node that was away may still have such a release, and it must not hold against a Service that was made anew.
    #[must_use]
    pub fn floor(&self) -> u64 {
        self.entries.get(&forgotten()).map_or(0, |entry| entry.number.min(MAX_FLOOR))
    }

    /// Of one Service.
    #[must_use]
    pub fn get(&self, name: &ObjectName) -> Option<&Entry> {
        self.entries.get(name)
    }

    /// All entries in order of names, released ones too.
    pub fn iter(&self) -> impl Iterator<Item = (&ObjectName, &Entry)> {
        self.entries.iter()
    }

    /// The highest epoch of all.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.entries.values().map(|entry| entry.epoch).max().unwrap_or(0)
    }

    /// The entries of each bucket as bytes: in order of names namespace, name, number and epoch (8 bytes each), writer, the
    /// number of addresses and these. Texts come after their length in one byte, addresses after their family.
    pub(crate) fn write(&self) -> [Vec<u8>; BUCKETS] {
        let mut buckets = [const { Vec::new() }; BUCKETS];
        for (name, entry) in &self.entries {
            let Some(bytes) = buckets.get_mut(usize::from(bucket(name))) else { continue };
            text(bytes, &name.namespace);
            text(bytes, &name.name);
            bytes.extend(entry.number.to_be_bytes());
            bytes.extend(entry.epoch.to_be_bytes());
            text(bytes, &entry.writer);
            bytes.push(u8::try_from(entry.ips.len()).unwrap_or(u8::MAX));
            entry.ips.iter().for_each(|address| ip(bytes, *address));
        }
        buckets
    }

    /// Reads what a peer has in one bucket; nothing where any of it is not right.
    #[must_use]
    pub fn read(of: u8, mut bytes: &[u8]) -> Option<Self> {
        let mut entries = BTreeMap::new();
        while !bytes.is_empty() {
            let name = read_name(&mut bytes, of)?;
            let number = u64::from_be_bytes(read_chunk(&mut bytes)?);
            let epoch = u64::from_be_bytes(read_chunk(&mut bytes)?);
            if number > MAX_COUNT || epoch > MAX_COUNT {
                return None;
            }
            let writer = read_text(&mut bytes)?.to_owned();
            let [count] = read_chunk(&mut bytes)?;
            let ips = (0..count).map(|_| read_ip(&mut bytes)).collect::<Option<Vec<IpAddr>>>()?;
            let families: BTreeSet<bool> = ips.iter().map(IpAddr::is_ipv4).collect();
            let sorted = entries.last_key_value().is_none_or(|(last, _)| *last < name);
            if count > MAX_IPS || families.len() < ips.len() || !sorted {
                return None;
            }
            entries.insert(name, Entry { number, epoch, writer, ips });
        }
        Some(Self { entries })
    }
}

/// A Service's name in the bytes of the bucket that it belongs to.
fn read_name(bytes: &mut &[u8], of: u8) -> Option<ObjectName> {
    let namespace = read_text(bytes)?;
    let name = ObjectName::new(namespace, read_text(bytes)?);
    let is_name = !name.name.is_empty() && bucket(&name) == of;
    is_name.then_some(name)
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
