//! Who answers for an address: the claims of this node, made and laid down by what the election and the other nodes say.
//!
//! An address that nobody claims is claimed at once by the node that the election names. One that another node claims
//! changes hands in order: the new owner claims it, the old one goes silent when it hears that (`judge`) and says so, and
//! only then the new one answers (`hold`). So nobody answers for as long as a datagram takes; who already knows the old
//! owner is served by it meanwhile. Two answer that hear each other only where both claimed before, each for itself: when a
//! cut network heals, when one stood still, or when heartbeats are lost for longer than a claim waits; and then for as long
//! as the word of the greater claim takes.
//!
//! The election `metallb` names the live node with the lowest hash; `sticky` the one that claims the address, and for
//! an address that nobody claims the best of those with the fewest addresses. Of two that claim one address the greater
//! claim holds (see [`Claim`]): whoever was in the majority, then the higher term, then the higher name.

mod hold;
mod judge;
mod winners;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use crate::{
    election::{Abilities, Field},
    membership::{Change, Claim, LEASE, Membership, PeerState, Rejected, Standing},
};

use judge::{Own, Rivals};

/// How long a node that may no longer announce an address waits for the one who takes it over.
const HAND_OVER: Duration = Duration::from_secs(1);
/// How long a node whose cable was plugged in waits for the heartbeats of all its peers: two come in that time.
const PLUGGED: Duration = Duration::from_millis(100);
/// How long a node that stops waits for others to take over what it answers for.
const LEAVE_WITHIN: Duration = Duration::from_secs(1);

/// Who wins an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Election {
    /// MetalLB's hash of node and address, whoever has it now.
    Metallb,
    /// Who has it keeps it; new ones are spread by load.
    Sticky,
}

/// What a node does that no longer hears its peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Partition {
    /// It announces: both sides serve those who reach them.
    Availability,
    /// It announces only while a majority of the configured nodes backs it.
    Strict,
}

/// The rules that hold for all addresses; they must be the same on every node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Who wins.
    pub election: Election,
    /// What a partition means.
    pub partition: Partition,
}

/// One node's part in who answers for what.
#[derive(Debug)]
pub struct Ownership {
    /// Who is alive, and what the others say.
    pub membership: Membership,
    rules: Rules,
    own: BTreeMap<IpAddr, Own>,
    /// The highest term known of each address.
    terms: BTreeMap<IpAddr, u64>,
    /// What an earlier run of this node claimed, until it is known who claims it now.
    remembered: BTreeMap<IpAddr, u64>,
    /// The view of the cluster, by number: what it was made of, to tell the next one from it.
    view: (u64, BTreeSet<String>, u64),
    /// In which view an address was last left to which rival, or taken from one although its claim was greater.
    yielded: BTreeMap<IpAddr, (u64, String)>,
    contested: BTreeMap<IpAddr, u64>,
    /// Until when an address is not claimed, to make room.
    retreats: BTreeMap<IpAddr, Duration>,
    files: u64,
    interfaces: BTreeSet<String>,
    /// When an interface came, until it is clear who has what there: nothing is claimed meanwhile.
    plugged: Option<Duration>,
    leaving: Option<Duration>,
    ticked: Duration,
    upheld: bool,
}

impl Ownership {
    /// A node that claims nothing yet; `remembered` are the claims of its earlier run with their terms.
    #[must_use]
    pub fn new(membership: Membership, rules: Rules, remembered: BTreeMap<IpAddr, u64>) -> Self {
        Self {
            membership,
            rules,
            own: BTreeMap::new(),
            terms: BTreeMap::new(),
            remembered,
            view: (0, BTreeSet::new(), 0),
            yielded: BTreeMap::new(),
            contested: BTreeMap::new(),
            retreats: BTreeMap::new(),
            files: 0,
            interfaces: BTreeSet::new(),
            plugged: None,
            leaving: None,
            ticked: Duration::ZERO,
            upheld: false,
        }
    }

    /// The rules.
    #[must_use]
    pub fn rules(&self) -> Rules {
        self.rules
    }

    /// The interfaces on which this node can announce.
    pub fn set_interfaces(&mut self, now: Duration, interfaces: BTreeSet<String>) {
        if !interfaces.is_subset(&self.interfaces) {
            self.plugged = self.plugged.or(Some(now)).filter(|at| !self.has_listened(now, *at));
        }
        self.interfaces = interfaces;
        self.tell(now);
    }

    /// The digest of the files that this node read.
    pub fn set_files(&mut self, now: Duration, files: u64) {
        self.files = files;
        self.tell(now);
    }

    /// On which interfaces the nodes can announce, as far as they told.
    #[must_use]
    pub fn abilities(&self) -> Abilities {
        let own = (self.membership.name().to_owned(), self.interfaces.clone());
        let peers = self.membership.standings();
        peers.map(|(name, _, standing)| (name.to_owned(), standing.interfaces.clone())).chain([own]).collect()
    }

    /// Takes a datagram in, as [`Membership::receive`].
    ///
    /// # Errors
    /// Why the datagram was dropped.
    pub fn receive(
        &mut self,
        now: Duration,
        datagram: &[u8],
        is_at: impl Fn(&str) -> bool,
    ) -> Result<Change, Rejected> {
        self.membership.receive(now, datagram, is_at)
    }

    /// When [`Self::tick`] must be called next.
    #[must_use]
    pub fn next(&self) -> Duration {
        let plugged = self.plugged.map(|at| at + PLUGGED);
        [self.membership.next()].into_iter().chain(self.patience()).chain(plugged).min().unwrap_or_default()
    }

    /// Lets time pass, as [`Membership::tick`].
    pub fn tick(&mut self, now: Duration) -> Change {
        // Whoever stood still was not refused a majority meanwhile.
        if now >= self.ticked + LEASE {
            self.own.values_mut().for_each(|own| own.unbacked = None);
        }
        self.ticked = now;
        let change = self.membership.tick(now);
        let same = !self.hold(now);
        let ready = self.retreats.extract_if(.., |_, until| *until <= now).count() > 0;
        let plugged = self.plugged;
        self.plugged = plugged.filter(|at| !self.has_listened(now, *at));
        let late = self.own.values().any(|own| own.unwanted.is_some_and(|since| now >= since + HAND_OVER));
        if !same {
            self.tell(now);
        }
        if same && !ready && !late && self.plugged == plugged { change } else { change.max(Change::Claims) }
    }

    /// Claims and lays down by what is known now. `generation` numbers the configuration that the fields come from;
    /// these hold every address that may be announced, with its candidates among [`Membership::live`].
    /// Returns whether a claim was upheld against a greater one: then all that is held must be announced anew.
    pub fn decide(&mut self, now: Duration, generation: u64, fields: &[Field]) -> bool {
        self.upheld = false;
        self.see(generation);
        let rivals = Rivals::new(&self.membership);
        let winners = self.winners(fields, &rivals);
        let mut before = std::mem::take(&mut self.own);
        let mut own = BTreeMap::new();
        for (field, winner) in fields.iter().zip(&winners) {
            let old = before.remove(&field.ip);
            let mine = self.judge(now, field, winner.as_deref(), rivals.of(field.ip), old);
            own.extend(mine.map(|mine| (field.ip, mine)));
        }
        self.own = own;
        if self.membership.live().contains(self.membership.name()) {
            self.remembered.clear();
        }
        self.hold(now);
        self.tell(now);
        self.upheld
    }

    /// The addresses that this node answers for, each with the node that had it before, if it came in a planned way.
    pub fn answered(&self) -> impl Iterator<Item = (IpAddr, Option<&str>)> {
        let held = self.own.iter().filter(|(_, own)| own.claim.held);
        held.map(|(ip, own)| (*ip, own.former.as_deref()))
    }

    /// All claims of this node.
    pub fn claims(&self) -> impl Iterator<Item = (IpAddr, Claim)> {
        self.own.iter().map(|(ip, own)| (*ip, own.claim))
    }

    /// Is about to stop: the others are to take over first.
    pub fn set_leaving(&mut self, now: Duration) {
        self.leaving = Some(now);
        self.membership.set_leaving(now);
    }

    /// Whether a node that is about to stop has nothing left that anybody would take over.
    #[must_use]
    pub fn may_leave(&self, now: Duration) -> bool {
        let alone = self.membership.live().is_empty();
        alone || self.own.is_empty() || self.leaving.is_some_and(|since| now >= since + LEAVE_WITHIN)
    }

    /// Stops at once.
    pub fn leave(&mut self, now: Duration) {
        self.own.clear();
        self.membership.leave(now);
    }

    /// Whether it is known what the peers claim, or that they are not there, since an interface came at that moment.
    fn has_listened(&self, now: Duration, plugged: Duration) -> bool {
        now >= plugged + PLUGGED || self.membership.has_heard_all_since(plugged)
    }

    fn tell(&mut self, now: Duration) {
        let claims = self.claims().collect();
        let standing = Standing { files: self.files, interfaces: self.interfaces.clone(), claims };
        self.membership.set_standing(now, standing);
    }

    /// Counts the views of the cluster.
    fn see(&mut self, generation: u64) {
        let live = self.membership.live();
        let (seen, known, number) = &self.view;
        if *seen != generation || *known != live {
            self.view = (generation, live, number + 1);
        }
    }
}

/// Whether a peer in this state still takes part, and hears this node as one that does.
fn hears(state: PeerState) -> bool {
    state.answers() || state == PeerState::Joining
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
