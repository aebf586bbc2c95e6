//! Which of its claims this node may answer for at a moment.
//!
//! Under `strict` those that a majority backs. Under `availability` a claim is first known to whoever might make one too, and
//! then waits until every living claimant has laid the address down: a node that says that it answers is believed for as
//! long as it is heard. A death takes no longer for it, as the dead claim nothing.

use std::{net::IpAddr, time::Duration};

use crate::membership::{Claim, Membership, PeerState};

use super::{HAND_OVER, Ownership, Partition, judge::Own};

/// How long a claim waits for a living peer's word that it has heard of it; the word takes one way and back.
const ACKNOWLEDGED: Duration = Duration::from_millis(20);
/// How long a claim may go without a majority before it makes room for another's, and for how long at least.
const UNBACKED: Duration = Duration::from_millis(400);
const RETREAT: Duration = Duration::from_millis(200);

impl Ownership {
    /// Until when this node may answer for the address without new evidence; nothing if it may not now. What it hears gives
    /// it nothing more before it acts on that.
    #[must_use]
    pub fn lease_until(&self, ip: IpAddr) -> Option<Duration> {
        let own = self.own.get(&ip)?;
        evidence(self.rules.partition, &self.membership, ip, own).filter(|_| own.claim.held)
    }

    /// Whether it may answer for the address at this very moment.
    #[must_use]
    pub fn may_answer(&self, now: Duration, ip: IpAddr) -> bool {
        self.lease_until(ip).is_some_and(|until| now < until)
    }

    /// What it claims and does not answer for yet. Questions that came before it may are others' to answer.
    pub fn waiting(&self) -> impl Iterator<Item = IpAddr> {
        self.own.iter().filter(|(_, own)| !own.claim.held).map(|(ip, _)| *ip)
    }

    /// Notes which of its claims this node may answer for now; whether a claim is another than before.
    pub(super) fn hold(&mut self, now: Duration) -> bool {
        if self.rules.partition == Partition::Availability {
            self.take_over(now);
        }
        let Self { membership, rules, own: all, .. } = self;
        let (waiting, mut changed) = (membership.is_waiting(), false);
        for (ip, own) in all.iter_mut() {
            let held = evidence(rules.partition, membership, *ip, own).is_some_and(|until| now < until);
            // Who stood still cannot know what became of the majority.
            let claim = Claim { held, quorate: own.claim.quorate && !waiting, ..own.claim };
            changed |= claim != own.claim;
            own.claim = claim;
            own.unbacked = (!held).then(|| own.unbacked.unwrap_or(now));
        }
        if self.rules.partition == Partition::Strict {
            let (retreat, before) = (now + RETREAT + self.turn(), self.own.len());
            let unbacked = self.own.extract_if(.., |_, own| own.unbacked.is_some_and(|since| now >= since + UNBACKED));
            self.retreats.extend(unbacked.map(|(ip, _)| (ip, retreat)));
            changed |= self.own.len() != before;
        }
        changed
    }

    /// Ends the wait of claims that nobody stands in the way of.
    fn take_over(&mut self, now: Duration) {
        let waiting = self.own.iter().filter_map(|(ip, own)| Some((*ip, own.waits?)));
        let free: Vec<IpAddr> =
            waiting.filter(|(ip, since)| self.is_free(*ip, now.saturating_sub(*since))).map(|(ip, _)| ip).collect();
        for ip in free {
            if let Some(own) = self.own.get_mut(&ip) {
                own.waits = None;
            }
        }
    }

    /// Whether an address that has been claimed for so long may be answered for.
    fn is_free(&self, ip: IpAddr, waited: Duration) -> bool {
        let mut contested = false;
        for (_, state, standing) in self.membership.standings() {
            match standing.claims.get(&ip) {
                Some(claim) if claim.held => return false,
                // Its kernel answers for what it held, and for nothing more.
                Some(_) => contested |= state != PeerState::Stalled,
                None => {}
            }
        }
        // Of two that wait one gives way; should they not agree, nobody would answer.
        if contested { waited >= HAND_OVER } else { waited >= ACKNOWLEDGED || self.membership.is_acknowledged(ip) }
    }

    /// When a claim waits no longer, whatever it waits for.
    pub(super) fn patience(&self) -> Option<Duration> {
        let waits = self.own.values().filter_map(|own| own.waits);
        waits.flat_map(|since| [since + ACKNOWLEDGED, since + HAND_OVER]).filter(|end| *end > self.ticked).min()
    }

    /// Another length of retreat for each node, so that two that stand in each other's way do not do so again.
    fn turn(&self) -> Duration {
        let name = self.membership.name();
        let before = self.membership.states().filter(|(peer, _)| *peer < name).count();
        RETREAT / 2 * u32::try_from(before).unwrap_or(0)
    }
}

/// Until when what is known of the others lets this node answer for its claim.
fn evidence(partition: Partition, membership: &Membership, ip: IpAddr, own: &Own) -> Option<Duration> {
    match partition {
        Partition::Availability => membership.lease_until().filter(|_| own.waits.is_none()),
        Partition::Strict => membership.backed_until(ip),
    }
}
