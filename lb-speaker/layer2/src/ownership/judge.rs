//! One address at a time: whether this node claims it, keeps it or lays it down.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use crate::{
    election::Field,
    membership::{Claim, Membership, PeerState},
};

use super::{HAND_OVER, Ownership, Partition, hears};

/// By when a node that hears of a new claim has answered to it by its own.
const AGREED: Duration = Duration::from_millis(100);

/// A claim of this node.
#[derive(Clone, Debug)]
pub(super) struct Own {
    pub(super) claim: Claim,
    /// The node that had the address before and was alive.
    pub(super) former: Option<String>,
    /// When it was made.
    since: Duration,
    /// Since when this node may no longer announce it and waits for a successor.
    pub(super) unwanted: Option<Duration>,
    /// Since when it may not answer for it.
    pub(super) unbacked: Option<Duration>,
    /// Since when it waits for others to lay the address down, where a majority does not decide.
    pub(super) waits: Option<Duration>,
}

/// Another node's claim.
#[derive(Clone, Debug)]
pub(super) struct Rival {
    pub(super) name: String,
    pub(super) state: PeerState,
    pub(super) claim: Claim,
    hears_us: bool,
}

impl Rival {
    fn rank(&self) -> (Claim, &str) {
        (self.claim, &self.name)
    }
}

/// All claims of the other nodes, by address.
#[derive(Debug)]
pub(super) struct Rivals(BTreeMap<IpAddr, Vec<Rival>>);

impl Rivals {
    pub(super) fn new(membership: &Membership) -> Self {
        let mut rivals: BTreeMap<IpAddr, Vec<Rival>> = BTreeMap::new();
        for (name, state, standing) in membership.standings() {
            let hears_us = state == PeerState::Stalled || hears(membership.seen_by(name));
            for (ip, claim) in &standing.claims {
                let rival = Rival { name: name.to_owned(), state, claim: *claim, hears_us };
                rivals.entry(*ip).or_default().push(rival);
            }
        }
        Self(rivals)
    }

    pub(super) fn of(&self, ip: IpAddr) -> &[Rival] {
        self.0.get(&ip).map_or(&[], Vec::as_slice)
    }
}

impl Ownership {
    pub(super) fn judge(
        &mut self,
        now: Duration,
        field: &Field,
        winner: Option<&str>,
        rivals: &[Rival],
        old: Option<Own>,
    ) -> Option<Own> {
        let known = rivals.iter().map(|rival| rival.claim.term).max().unwrap_or(0);
        let term = self.terms.entry(field.ip).or_insert(0);
        *term = known.max(*term);
        let alone = self.rules.partition == Partition::Strict && !self.counts_majority();
        if field.nobody.is_some() || alone {
            return None;
        }
        // Whoever does not hear this node cannot give way to it.
        if rivals.iter().any(|rival| rival.state == PeerState::Alive && !rival.hears_us) {
            return None;
        }
        let wins = winner == Some(self.membership.name());
        match old {
            None => wins.then(|| self.claim(now, field.ip, rivals)).flatten(),
            Some(mine) if wins => self.contest(now, field, rivals, mine),
            Some(mine) => self.hand_over(now, field, winner, rivals, mine),
        }
    }

    /// A node that leaves counts itself no more, but its claims stand.
    fn counts_majority(&self) -> bool {
        self.leaving.is_some() || self.membership.is_quorate()
    }

    fn claim(&mut self, now: Duration, ip: IpAddr, rivals: &[Rival]) -> Option<Own> {
        let still_claims = |name: &String| rivals.iter().any(|rival| rival.state.counts() && rival.name == *name);
        let left = self.yielded.get(&ip).is_some_and(|(view, to)| *view == self.view.2 && still_claims(to));
        if left || self.plugged.is_some() || self.retreats.get(&ip).is_some_and(|until| now < *until) {
            return None;
        }
        let term = self.terms.get(&ip).map_or(1, |term| term + 1);
        self.terms.insert(ip, term);
        let claim = Claim { held: false, quorate: self.membership.is_quorate(), term };
        let waits = (self.rules.partition == Partition::Availability).then_some(now);
        Some(Own { claim, former: former(rivals), since: now, unwanted: None, unbacked: None, waits })
    }

    /// The address is this node's; a greater claim to it is answered once in each view of the cluster, then left.
    fn contest(&mut self, now: Duration, field: &Field, rivals: &[Rival], mut mine: Own) -> Option<Own> {
        let ip = field.ip;
        mine.unwanted = None;
        // Who waits for the others to lay it down is not behind them for that.
        let rank = |claim: Claim| Claim { held: claim.held && mine.waits.is_none(), ..claim };
        let best = rivals.iter().filter(|rival| rival.state.counts());
        let Some(rival) = best.max_by_key(|rival| (rank(rival.claim), &rival.name)) else {
            mine.claim.quorate |= self.membership.is_quorate() && !self.membership.is_waiting();
            return Some(mine);
        };
        // A node that may not announce it will lay it down, if it sees that too; where a majority decides, that does.
        let may = field.candidates.iter().any(|candidate| candidate.node == rival.name);
        let decided = (!may && now < mine.since + AGREED) || self.rules.partition == Partition::Strict;
        if decided || (rank(rival.claim), &*rival.name) < (rank(mine.claim), self.membership.name()) {
            return Some(mine);
        }
        if self.contested.insert(ip, self.view.2) == Some(self.view.2) {
            self.yielded.insert(ip, (self.view.2, rival.name.clone()));
            return None;
        }
        self.upheld = true;
        mine.former = Some(rival.name.clone());
        mine.claim.term = rival.claim.term + 1;
        mine.claim.quorate = self.membership.is_quorate();
        self.terms.insert(ip, mine.claim.term);
        Some(mine)
    }

    /// The address is another's: it is laid down when that node claims it, or when nobody will.
    fn hand_over(
        &mut self,
        now: Duration,
        field: &Field,
        winner: Option<&str>,
        rivals: &[Rival],
        mut mine: Own,
    ) -> Option<Own> {
        let name = self.membership.name();
        let taken = rivals
            .iter()
            .any(|rival| winner == Some(&rival.name) || (rival.state.counts() && rival.rank() > (mine.claim, name)));
        let last = winner.is_none() && self.leaving.is_none();
        // Without an interface it answers nobody, and must not when one comes back.
        if taken || last || self.interfaces.is_empty() {
            return None;
        }
        let eligible = field.candidates.iter().any(|candidate| candidate.node == name);
        mine.unwanted = (!eligible && self.leaving.is_none()).then(|| mine.unwanted.unwrap_or(now));
        mine.unwanted.is_none_or(|since| now < since + HAND_OVER).then_some(mine)
    }
}

/// The node from which a claim takes the address over, if it answers for it.
fn former(rivals: &[Rival]) -> Option<String> {
    let held = rivals.iter().filter(|rival| rival.claim.held);
    held.max_by_key(|rival| rival.rank()).map(|rival| rival.name.clone())
}
