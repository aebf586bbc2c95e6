//! Which node is to have each address, as every node computes it from the same view.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use crate::{
    election::{Candidate, Field},
    membership::{Claim, PeerState},
};

use super::{Election, Ownership, judge::Rivals};

/// Nodes that get nothing now.
struct HeldBack<'a> {
    stalled: BTreeSet<&'a str>,
    deviating: BTreeSet<&'a str>,
}

impl Ownership {
    /// The winner of each field.
    pub(super) fn winners(&self, fields: &[Field], rivals: &Rivals) -> Vec<Option<String>> {
        let stalled = self.membership.states().filter(|(_, state)| *state == PeerState::Stalled);
        let held_back = HeldBack { stalled: stalled.map(|(name, _)| name).collect(), deviating: self.deviating() };
        match self.rules.election {
            Election::Metallb => {
                let first = |field| self.able(field, rivals, &held_back).first().map(|best| best.node.clone());
                fields.iter().map(first).collect()
            }
            Election::Sticky => self.spread(fields, rivals, &held_back),
        }
    }

    /// Candidates without those that cannot claim now: a speaker that is stalled, or whose files are others than those of
    /// most, keeps what it has and gets nothing; the latter does where there is nobody else.
    fn able<'a>(&self, field: &'a Field, rivals: &Rivals, held_back: &HeldBack<'_>) -> Vec<&'a Candidate> {
        let claims = |name: &str| {
            let own = name == self.membership.name() && self.own.contains_key(&field.ip);
            own || rivals.of(field.ip).iter().any(|rival| rival.name == name)
        };
        let of = |names: &BTreeSet<&str>, name: &str| names.contains(name) && !claims(name);
        let open = field.candidates.iter().filter(|_| field.nobody.is_none());
        let may: Vec<&Candidate> = open.filter(|one| !of(&held_back.stalled, &one.node)).collect();
        let alike = may.iter().filter(|one| !of(&held_back.deviating, &one.node)).copied();
        let alike: Vec<&Candidate> = alike.collect();
        if alike.is_empty() { may } else { alike }
    }

    /// The nodes that have read other files than most; of two halves, than the one with the lowest name. What such a node
    /// would announce the others may not know, and the other way round.
    fn deviating(&self) -> BTreeSet<&str> {
        let own = (self.membership.name(), self.files);
        let peers = self.membership.standings().filter(|(_, state, _)| state.counts());
        let peers = peers.map(|(name, _, standing)| (name, standing.files));
        let mut copies: BTreeMap<u64, BTreeSet<&str>> = BTreeMap::new();
        for (name, files) in peers.chain([own]).filter(|(_, files)| *files != 0) {
            copies.entry(files).or_default().insert(name);
        }
        let most = copies.iter().max_by_key(|(_, names)| (names.len(), Reverse(names.first().copied())));
        let most = most.map(|(files, _)| *files);
        copies.into_iter().filter(|(files, _)| Some(*files) != most).flat_map(|(_, names)| names).collect()
    }

    /// Who has an address keeps it. The others are dealt out in the order of addresses: each to the first candidate that
    /// has no more than its share, so that no address depends on more than the claims that all nodes know.
    fn spread(&self, fields: &[Field], rivals: &Rivals, held_back: &HeldBack<'_>) -> Vec<Option<String>> {
        let mut winners: Vec<Option<String>> =
            fields.iter().map(|field| self.holder(field, rivals, held_back)).collect();
        let mut loads: BTreeMap<String, usize> = BTreeMap::new();
        for field in fields {
            for candidate in self.able(field, rivals, held_back) {
                loads.entry(candidate.node.clone()).or_insert(0);
            }
        }
        for winner in winners.iter().flatten() {
            *loads.entry(winner.clone()).or_insert(0) += 1;
        }
        let share = fields.len().div_ceil(loads.len().max(1));
        let mut together: BTreeMap<_, String> = BTreeMap::new();
        for (field, winner) in fields.iter().zip(&winners) {
            together.extend(winner.clone().map(|winner| (field.hashed, winner)));
        }
        for (field, winner) in fields.iter().zip(&mut winners).filter(|(_, winner)| winner.is_none()) {
            let sibling = together.get(&field.hashed);
            let load = |node: &str| loads.get(node).copied().unwrap_or(0);
            let order = |candidate: &&Candidate| {
                let (node, hash) = (&candidate.node, candidate.hash);
                (candidate.distance, sibling != Some(node), load(node) >= share, load(node) / share.max(1), hash)
            };
            let able = self.able(field, rivals, held_back);
            let best = able.iter().min_by_key(|one| order(one)).map(|candidate| candidate.node.clone());
            if let Some(best) = &best {
                *loads.entry(best.clone()).or_insert(0) += 1;
                together.entry(field.hashed).or_insert_with(|| best.clone());
            }
            *winner = best;
        }
        winners
    }

    /// The candidate with the greatest claim.
    fn holder(&self, field: &Field, rivals: &Rivals, held_back: &HeldBack<'_>) -> Option<String> {
        let own = self.own.get(&field.ip).map(|own| own.claim);
        let remembered = self.remembered.get(&field.ip).filter(|_| rivals.of(field.ip).is_empty());
        let remembered = remembered.map(|term| Claim { held: false, quorate: false, term: *term });
        let own = own.or(remembered).map(|claim| (claim, self.membership.name()));
        let others = rivals.of(field.ip).iter().filter(|rival| rival.state.counts());
        let claims = others.map(|rival| (rival.claim, rival.name.as_str())).chain(own);
        let able = self.able(field, rivals, held_back);
        let may = |name: &str| able.iter().any(|candidate| candidate.node == name);
        claims.filter(|(_, name)| may(name)).max().map(|(_, name)| name.to_owned())
    }
}
