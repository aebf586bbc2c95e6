//! Who has which frontend: where two Services claim one triple the older one has it, and the other one when it goes.

use std::{cmp::Ordering, collections::BTreeSet};

use roadstead_abi::{Addr, SvcKey, kind};
use roadstead_model::{ObjectRef, Problem, Severity};

use crate::{
    addresses::from_map,
    frontends::{Frontend, ServicePortName},
    hash::Map,
};

/// All claims, and which keys have been touched since the last [`Claims::changes`].
#[derive(Debug, Default)]
pub(crate) struct Claims {
    by_key: Map<SvcKey, Claimants>,
    contested: BTreeSet<SvcKey>,
    /// With what the winner served before.
    touched: Vec<(SvcKey, Option<Frontend>)>,
}

/// A claim to a key.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    /// The age of the Service, as [`roadstead_model::Metadata::age_order`] has it.
    pub(crate) age: i64,
    /// What the Service would serve there.
    pub(crate) frontend: Frontend,
}

#[derive(Debug, Default)]
struct Claimants {
    winner: Option<Claim>,
    losers: Vec<Claim>,
    /// The key stands in the list of touched ones.
    touched: bool,
}

impl Claims {
    /// Makes room for a first snapshot.
    pub(crate) fn reserve(&mut self, keys: usize) {
        self.by_key.reserve(keys);
        self.touched.reserve(keys);
    }

    /// Claims a key, or renews the claim of this Service port.
    pub(crate) fn put(&mut self, key: SvcKey, claim: Claim) {
        let claimants = self.by_key.entry(key).or_default();
        if !claimants.holds(&claim) {
            claimants.touch(key, &mut self.touched);
            claimants.put(claim);
        }
    }

    /// Gives up a Service port's claim, a live one or a tombstone's.
    pub(crate) fn remove(&mut self, key: SvcKey, kind: u8, port: &ServicePortName) {
        if let Some(claimants) = self.by_key.get_mut(&key) {
            claimants.touch(key, &mut self.touched);
            let rest = claimants.all_but(kind, port);
            claimants.decide(rest);
        }
    }

    /// The winner of every key that has another one, or one that serves otherwise, than at the last call.
    pub(crate) fn changes(&mut self) -> Vec<(SvcKey, Option<Frontend>)> {
        let mut changes = Vec::with_capacity(self.touched.len());
        for (key, was) in self.touched.drain(..) {
            let Some(claimants) = self.by_key.get_mut(&key) else { continue };
            claimants.touched = false;
            let winner = claimants.winner.as_ref().map(|claim| claim.frontend.clone());
            if claimants.is_contested() {
                self.contested.insert(key);
            } else if !self.contested.is_empty() {
                self.contested.remove(&key);
            }
            if winner.is_none() {
                self.by_key.remove(&key);
            }
            if was != winner {
                changes.push((key, winner));
            }
        }
        changes
    }

    /// All winners.
    pub(crate) fn winners(&self) -> impl Iterator<Item = (&SvcKey, &Frontend)> {
        self.by_key.iter().filter_map(|(key, claimants)| Some((key, &claimants.winner.as_ref()?.frontend)))
    }

    /// A problem for each claim that has lost.
    pub(crate) fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for key in &self.contested {
            let Some(claimants) = self.by_key.get(key) else { continue };
            let Some(winner) = &claimants.winner else { continue };
            let losers = claimants.losers.iter().filter(|loser| loser.frontend.kind != kind::TOMBSTONE);
            problems.extend(losers.map(|loser| conflict(key, winner.name(), loser.name())));
        }
        problems
    }
}

fn conflict(key: &SvcKey, winner: &ServicePortName, loser: &ServicePortName) -> Problem {
    let place = if key.addr == Addr::UNSPECIFIED {
        format!("node port {}", key.port.get())
    } else {
        format!("{} port {}", from_map(&key.addr), key.port.get())
    };
    Problem {
        severity: Severity::Error,
        place: None,
        object: Some(ObjectRef { kind: "Service".to_owned(), name: loser.service.clone() }),
        field: None,
        reason: format!("{place} is already served for {}, which is older", winner.service),
    }
}

impl Claim {
    fn name(&self) -> &ServicePortName {
        &self.frontend.port.name
    }

    /// The same Service port's, live or a tombstone.
    fn is_of(&self, kind: u8, port: &ServicePortName) -> bool {
        (self.frontend.kind == kind::TOMBSTONE) == (kind == kind::TOMBSTONE) && self.name() == port
    }

    /// Oldest first, tombstones last: an endpoint that is gone claims nothing from the living.
    fn order(&self, other: &Self) -> Ordering {
        let rank = |claim: &Self| (claim.frontend.kind == kind::TOMBSTONE, claim.age);
        rank(self).cmp(&rank(other)).then_with(|| self.name().cmp(other.name()))
    }
}

impl Claimants {
    /// Whether this very claim has won already.
    fn holds(&self, claim: &Claim) -> bool {
        self.winner.as_ref().is_some_and(|winner| winner.age == claim.age && winner.frontend == claim.frontend)
    }

    fn put(&mut self, claim: Claim) {
        if self.winner.is_none() {
            self.winner = Some(claim);
            return;
        }
        let rest = self.all_but(claim.frontend.kind, claim.name());
        self.decide(rest.into_iter().chain([claim]).collect());
    }

    fn all_but(&mut self, kind: u8, port: &ServicePortName) -> Vec<Claim> {
        let all = self.winner.take().into_iter().chain(self.losers.drain(..));
        all.filter(|claim| !claim.is_of(kind, port)).collect()
    }

    fn decide(&mut self, mut claims: Vec<Claim>) {
        claims.sort_by(Claim::order);
        let mut claims = claims.into_iter();
        self.winner = claims.next();
        self.losers = claims.collect();
    }

    fn is_contested(&self) -> bool {
        self.losers.iter().any(|loser| loser.frontend.kind != kind::TOMBSTONE)
    }

    fn touch(&mut self, key: SvcKey, touched: &mut Vec<(SvcKey, Option<Frontend>)>) {
        if !self.touched {
            self.touched = true;
            touched.push((key, self.winner.as_ref().map(|winner| winner.frontend.clone())));
        }
    }
}
