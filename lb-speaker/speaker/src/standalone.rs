//! Who assigns addresses where there is no API server: the nodes keep one map together (`layer2::replica`), and one of them
//! writes into it.
//!
//! It stands between the snapshot and the allocator. Before an allocation it says what each Service has by the map, and about
//! which Services this node may decide nothing; after it, what the allocation adds to the map. Without sockets, files and
//! clock; where an API server keeps the Services' status, that is the map and none of this is needed.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use roadstead_allocator::{Allocation, Classes, Reason, may_share, prior_of};
use roadstead_layer2::{
    membership::Arrival,
    replica::{
        Assignments, Documents, Entry, Glimpse, Index, Kept, Lost, Settled, Table, View,
        council::{Agreement, Council, assigner},
    },
};
use roadstead_model::{ObjectName, Severity, Snapshot};

use crate::copy;

/// Names of Services that are told of a difference, of each kind.
const NAMED: usize = 3;

/// What is known of the other nodes, as the engine has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Meeting {
    /// This node knows what the others know, or need not wait for it any longer.
    pub(crate) over: bool,
    /// There may be peers that were not heard yet.
    pub(crate) cold: bool,
    /// Enough nodes are there for one of them to assign.
    pub(crate) quorate: bool,
    /// The nodes that may assign.
    pub(crate) live: BTreeSet<String>,
    /// What each of the peers among them has, as far as it told.
    pub(crate) indices: BTreeMap<String, Arc<Index>>,
    /// Peers whose files have been others than ours for a while.
    pub(crate) disagreeing: BTreeSet<String>,
}

impl Meeting {
    /// Whether the other one says the same but for what the peers have, which has a number of its own.
    pub(crate) fn is_but_for_indices(&self, other: &Self) -> bool {
        self.over == other.over
            && self.cold == other.cold
            && self.quorate == other.quorate
            && self.live == other.live
            && self.disagreeing == other.disagreeing
    }
}

/// This node's part in the map.
#[derive(Debug)]
pub(crate) struct Standalone {
    node: String,
    /// All configured speakers, this one among them.
    members: usize,
    map: Assignments,
    /// What this node assigned and has not handed on: others hear of it when it is written down.
    draft: BTreeMap<ObjectName, Entry>,
    view: Option<View>,
    documents: Documents,
    /// The map has entries that are not in the documents, or not written down.
    fresh: bool,
    glimpses: BTreeMap<String, Glimpse>,
    meeting: Meeting,
    role: Role,
    /// The time for which this node assigns.
    epoch: Option<u64>,
    /// What was lost to another Service, so that it is told once.
    lost: BTreeMap<ObjectName, Lost>,
}

/// Whether this node assigns.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Role {
    Assigns,
    Follows(Reason),
}

/// What an allocation begins from.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// What Services have.
    pub(crate) prior: Table,
    /// What is kept for Services that cannot be judged.
    pub(crate) held: Table,
    /// Services about which nothing is decided.
    pub(crate) closed: BTreeMap<ObjectName, Reason>,
    /// What Services lost to others since the last time.
    pub(crate) lost: BTreeMap<ObjectName, Lost>,
    released: BTreeSet<ObjectName>,
}

impl Standalone {
    /// A node that remembers this map; `members` speakers are configured, this one among them.
    pub(crate) fn new(node: &str, members: usize, map: Assignments) -> Self {
        let mut new = Self {
            node: node.to_owned(),
            members,
            map,
            draft: BTreeMap::new(),
            view: None,
            documents: Documents::default(),
            fresh: false,
            glimpses: BTreeMap::new(),
            meeting: Meeting::default(),
            role: Role::Follows(Reason::NobodyAssigns("the start of this speaker")),
            epoch: None,
            lost: BTreeMap::new(),
        };
        new.role = new.judge();
        new.documents = new.encoded().unwrap_or_default();
        new
    }

    /// Takes a document of a peer; whether the next plan may be another. What cannot be read is dropped, as the peer's.
    pub(crate) fn receive(&mut self, arrival: &Arrival) -> bool {
        let bucket = arrival.slot.bucket;
        match arrival.slot.kept {
            Kept::Viewed => {
                let glimpse = self.glimpses.entry(arrival.peer.clone()).or_default();
                glimpse.put(bucket, arrival.digest, &arrival.bytes)
            }
            Kept::Assigned => {
                let Some(entries) = Assignments::read(bucket, &arrival.bytes) else { return false };
                let changed = self.map.merge(entries);
                self.map.trim();
                let map = &self.map;
                let holds = |name: &ObjectName, entry: &Entry| map.get(name).is_none_or(|it| entry.supersedes(it));
                self.draft.retain(|name, entry| holds(name, entry));
                self.fresh |= changed;
                changed
            }
        }
    }

    /// Takes what is known of the others; whether the next plan may be another.
    pub(crate) fn hear(&mut self, meeting: &Meeting) -> bool {
        let before = std::mem::replace(&mut self.meeting, meeting.clone());
        for (peer, index) in &meeting.indices {
            self.glimpses.entry(peer.clone()).or_default().set_index(Some(index));
        }
        let role = self.judge();
        let others = before.live != meeting.live
            || meeting
                .indices
                .iter()
                .any(|(peer, index)| before.indices.get(peer).is_none_or(|before| !before.is_same_view(index)));
        let changed = role != self.role || (role == Role::Assigns && others);
        self.role = role;
        changed
    }

    fn judge(&self) -> Role {
        let first = assigner(self.meeting.live.iter().map(String::as_str));
        let waits = |what| Role::Follows(Reason::NobodyAssigns(what));
        match first {
            _ if self.members < 2 => Role::Assigns,
            Some(other) if other != self.node => Role::Follows(Reason::AssignedBy(other.to_owned())),
            None => waits("the start of the speakers"),
            Some(_) if self.meeting.cold => waits("speakers that have not been heard yet"),
            Some(_) if !self.meeting.quorate => waits("a majority of the speakers"),
            Some(_) if !self.meeting.over => waits("what other speakers have assigned"),
            Some(_) => Role::Assigns,
        }
    }

    /// What the next allocation begins from. Of Services that are not `known` nothing was seen since the start of this
    /// process.
    pub(crate) fn plan(&mut self, snapshot: &Snapshot, classes: &Classes, known: &BTreeSet<ObjectName>) -> Plan {
        if self.role != Role::Assigns {
            self.draft.clear();
            self.epoch = None;
        }
        let all = with(&self.map, &self.draft);
        let pinned = |name: &ObjectName, ip: IpAddr| {
            let service = snapshot.services.get(name);
            service.is_some_and(|service| service.load_balancer.requested_ips.contains(&ip))
        };
        let Settled { table, lost } = all.settle(pinned, |one, other, ip| may_share(snapshot, one, other, ip));
        let unjudged = unjudged(snapshot, classes, known, &table);
        let view = copy::view(snapshot, classes, &unjudged);
        if self.view.as_ref() != Some(&view) {
            self.view = Some(view);
            self.documents = self.encoded().unwrap_or_default();
        }
        let (council, status) = (self.council(), prior_of(snapshot));
        let unanimous = council.as_ref().is_none_or(Council::is_unanimous);
        let about = |name: &ObjectName| match (&self.role, &council) {
            (Role::Follows(reason), _) => Some(reason.clone()),
            (Role::Assigns, Some(council)) if !unanimous => closed_by(council.about(name)),
            (Role::Assigns, _) => None,
        };
        let gone = |name: &ObjectName| {
            self.role == Role::Assigns && council.as_ref().is_some_and(|council| council.is_gone(name))
        };
        let mut plan = Plan::default();
        for name in snapshot.services.iter().filter(|(_, service)| classes.serve(service)).map(|(name, _)| name) {
            let closed = about(name);
            let told = status.get(name).filter(|_| self.role == Role::Assigns && all.get(name).is_none());
            match (table.get(name), told) {
                (Some(_), _) if closed.is_some() && gone(name) => _ = plan.released.insert(name.clone()),
                (Some(ips), _) if unjudged.contains(name) => _ = plan.held.insert(name.clone(), ips.clone()),
                (has, told) => plan.prior.extend(has.or(told).map(|ips| (name.clone(), ips.clone()))),
            }
            plan.closed.extend(closed.map(|reason| (name.clone(), reason)));
        }
        let served = |name: &ObjectName| snapshot.services.get(name).is_some_and(|service| classes.serve(service));
        for (name, ips) in table.into_iter().filter(|(name, _)| !served(name)) {
            if gone(&name) {
                plan.released.insert(name);
            } else {
                plan.held.insert(name, ips);
            }
        }
        let news = lost.iter().filter(|(name, lost)| self.lost.get(*name) != Some(lost));
        plan.lost = news.map(|(name, lost)| (name.clone(), lost.clone())).collect();
        self.lost = lost;
        plan
    }

    /// Notes what an allocation from this plan adds to the map. Others hear of it after [`Self::hand_on`].
    pub(crate) fn draw(&mut self, plan: &Plan, allocation: &Allocation) {
        if self.role != Role::Assigns {
            return;
        }
        let decided = allocation.services.iter().filter(|(name, got)| {
            let ours = !matches!(got.reason, Some(Reason::OtherClass(_) | Reason::NoClass));
            ours && !plan.closed.contains_key(*name) && !plan.held.contains_key(*name)
        });
        let decided = decided.map(|(name, got)| (name, got.ips.clone()));
        let released = plan.released.iter().map(|name| (name, Vec::new()));
        let mut draft = BTreeMap::new();
        for (name, ips) in decided.chain(released) {
            let known = self.map.get(name);
            if known.map_or(ips.is_empty(), |known| known.ips == ips) {
                continue;
            }
            let epoch = *self.epoch.get_or_insert_with(|| self.map.epoch() + 1);
            let number = known.map_or_else(|| self.map.floor(), |known| known.number + 1);
            draft.insert(name.clone(), Entry { number, epoch, writer: self.node.clone(), ips });
        }
        self.draft = draft;
    }

    /// Has the map written down, if it is not, and hands it on after that: from then on it is for all to know.
    ///
    /// # Errors
    /// Whatever the writing ended in; then nothing is handed on.
    pub(crate) fn hand_on<E>(&mut self, write: impl FnOnce(&Assignments) -> Result<(), E>) -> Result<(), E> {
        if !self.fresh && self.draft.is_empty() {
            return Ok(());
        }
        let drawn = match with(&self.map, &self.draft) {
            Cow::Borrowed(map) => {
                write(map)?;
                None
            }
            Cow::Owned(mut map) => {
                map.trim();
                write(&map)?;
                Some(map)
            }
        };
        if let Some(map) = drawn {
            self.map = map;
        }
        self.draft.clear();
        self.fresh = false;
        self.documents = self.encoded().unwrap_or_default();
        Ok(())
    }

    /// What the others are to be told, where there are any.
    fn encoded(&self) -> Option<Documents> {
        (self.members > 1).then(|| Documents::new(&self.map, self.view.as_ref()))
    }

    /// The node that assigned what the Service has, if it is another one.
    pub(crate) fn other_writer(&self, name: &ObjectName) -> Option<&str> {
        let entry = self.map.get(name).filter(|entry| entry.writer != self.node && !self.draft.contains_key(name));
        entry.map(|entry| entry.writer.as_str())
    }

    /// What the others are told.
    pub(crate) fn documents(&self) -> &Documents {
        &self.documents
    }

    /// In what the files of the peers differ that have done so for a while.
    pub(crate) fn differences(&self) -> BTreeMap<String, String> {
        let Some(view) = &self.view else { return BTreeMap::new() };
        let told = self.meeting.disagreeing.iter().map(|peer| {
            let glimpse = self.glimpses.get(peer);
            let told = glimpse.map(|glimpse| glimpse.difference(view, &self.documents.index, NAMED));
            (peer.clone(), told.unwrap_or_default().join("; "))
        });
        told.collect()
    }

    /// The views of the nodes that may assign; nothing before this one has read its files.
    fn council(&self) -> Option<Council<'_>> {
        let peers = self.meeting.live.iter().filter(|name| **name != self.node);
        let peers = peers.map(|name| (name.as_str(), self.glimpses.get(name))).collect();
        Some(Council::new(self.view.as_ref()?, &self.documents.index, peers, self.members))
    }
}

/// The map with a draft in it.
fn with<'m>(map: &'m Assignments, draft: &BTreeMap<ObjectName, Entry>) -> Cow<'m, Assignments> {
    let mut all = Cow::Borrowed(map);
    for (name, entry) in draft {
        all.to_mut().put(name.clone(), entry.clone());
    }
    all
}

/// Why nothing is decided; nothing where all agree.
fn closed_by(agreement: Agreement<'_>) -> Option<Reason> {
    let owned = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect();
    match agreement {
        Agreement::Agreed => None,
        Agreement::Differs(peers) => Some(Reason::CopiesDiffer(owned(peers))),
        Agreement::Waits(peers) => Some(Reason::CopiesUnknown(owned(peers))),
    }
}

/// Services with addresses that cannot be judged: while something has errors, an object that this process has not seen may
/// be in what cannot be read, the Service as well as the pool of its address.
fn unjudged(
    snapshot: &Snapshot,
    classes: &Classes,
    known: &BTreeSet<ObjectName>,
    table: &Table,
) -> BTreeSet<ObjectName> {
    if snapshot.problems.iter().all(|problem| problem.severity != Severity::Error) {
        return BTreeSet::new();
    }
    let has_pool =
        |ip: &IpAddr| snapshot.pools.values().any(|pool| pool.addresses.iter().any(|range| range.contains(*ip)));
    let unknown = |name: &ObjectName, ips: &[IpAddr]| match snapshot.services.get(name) {
        None => true,
        Some(service) => {
            let wanted = &service.load_balancer.requested_ips;
            classes.serve(service) && !ips.iter().all(has_pool) && wanted.iter().all(|ip| ips.contains(ip))
        }
    };
    let found = table.iter().filter(|(name, ips)| !known.contains(*name) && unknown(name, ips));
    found.map(|(name, _)| name.clone()).collect()
}
