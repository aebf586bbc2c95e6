//! Who answers for an address: the claims of this node, made and laid down by what the election and the other nodes say.
//!
//! An address that nobody claims is claimed at once by the node that the election names. One that another node claims
//! changes hands in order: the new owner claims it, the old one goes silent when it hears that (`judge`). So there is
//! no moment without an answer, and two answer only for as long as a datagram takes. Under the policy `strict` a
//! claim is answered for only while a majority backs it, so there the old one is silent first.
//!
//! The election `metallb` names the live node with the lowest hash; `sticky` the one that claims the address, and for
//! an address that nobody claims the best of those with the fewest addresses. Of two that claim one address the greater
//! claim holds (see [`Claim`]): whoever was in the majority, then the higher term, then the higher name.

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
/// How long a node that stops waits for others to take over what it answers for.
const LEAVE_WITHIN: Duration = Duration::from_secs(1);
/// How long a claim may go without a majority before it makes room for another's, and for how long at least.
const UNBACKED: Duration = Duration::from_millis(400);
const RETREAT: Duration = Duration::from_millis(200);

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
        self.membership.next()
    }

    /// Lets time pass, as [`Membership::tick`].
    pub fn tick(&mut self, now: Duration) -> Change {
        // Whoever stood still was not refused a majority meanwhile.
        if now >= self.ticked + LEASE {
            self.own.values_mut().for_each(|own| own.unbacked = None);
        }
        self.ticked = now;
        let change = self.membership.tick(now);
        let before: Vec<Claim> = self.own.values().map(|own| own.claim).collect();
        self.hold(now);
        let same = before.iter().eq(self.own.values().map(|own| &own.claim));
        let ready = self.retreats.extract_if(.., |_, until| *until <= now).count() > 0;
        let late = self.own.values().any(|own| own.unwanted.is_some_and(|since| now >= since + HAND_OVER));
        if !same {
            self.tell(now);
        }
        if same && !ready && !late { change } else { change.max(Change::Claims) }
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

    /// Until when this node may answer for the address without new evidence; nothing if it may not now.
    #[must_use]
    pub fn lease_until(&self, ip: IpAddr) -> Option<Duration> {
        if !self.own.contains_key(&ip) {
            return None;
        }
        match self.rules.partition {
            Partition::Availability => self.membership.lease_until(),
            Partition::Strict => self.membership.backed_until(ip),
        }
    }

    /// Whether it may answer for the address at this very moment.
    #[must_use]
    pub fn may_answer(&self, now: Duration, ip: IpAddr) -> bool {
        self.lease_until(ip).is_some_and(|until| now < until)
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

    /// Notes which of its claims this node may answer for now.
    fn hold(&mut self, now: Duration) {
        let waiting = self.membership.is_waiting();
        let held: Vec<(IpAddr, bool)> = self.own.keys().map(|ip| (*ip, self.may_answer(now, *ip))).collect();
        for (ip, held) in held {
            let Some(own) = self.own.get_mut(&ip) else { continue };
            own.claim.held = held;
            // Who stood still cannot know what became of the majority.
            own.claim.quorate &= !waiting;
            own.unbacked = (!held).then(|| own.unbacked.unwrap_or(now));
        }
        if self.rules.partition == Partition::Strict {
            let retreat = now + RETREAT + self.turn();
            let unbacked = self.own.extract_if(.., |_, own| own.unbacked.is_some_and(|since| now >= since + UNBACKED));
            self.retreats.extend(unbacked.map(|(ip, _)| (ip, retreat)));
        }
    }

    /// Another length of retreat for each node, so that two that stand in each other's way do not do so again.
    fn turn(&self) -> Duration {
        let name = self.membership.name();
        let before = self.membership.states().filter(|(peer, _)| *peer < name).count();
        RETREAT / 2 * u32::try_from(before).unwrap_or(0)
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
