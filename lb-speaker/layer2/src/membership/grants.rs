//! Whose claim this node backs: for each address that of one node, until that node is gone or lays the address down.
//!
//! Under the policy `strict` a node answers only for what a majority backs. Two majorities share a node, and no node backs
//! two, so no two nodes answer, however the network is cut. Every node backs, whatever its own policy.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::standing::Claim;

/// What is to be known of a claimant.
#[derive(Clone, Debug)]
pub(super) struct Claimant<'a> {
    pub(super) name: &'a str,
    /// What it claims, as far as is known.
    pub(super) claims: &'a BTreeMap<IpAddr, Claim>,
    /// It may still answer for what it was backed for.
    pub(super) may_answer: bool,
    /// What it claims is known to its latest word, and it may be backed for more.
    pub(super) is_known: bool,
}

/// The addresses that are backed, each for one node.
#[derive(Clone, Debug, Default)]
pub(super) struct Grants {
    backed: BTreeMap<IpAddr, String>,
    refused: BTreeMap<String, BTreeSet<IpAddr>>,
}

impl Grants {
    /// Judges all claims anew; this node is one of the claimants.
    pub(super) fn judge(&mut self, claimants: &[Claimant<'_>]) {
        let keeps = |ip: &IpAddr, name: &String| {
            let holder = claimants.iter().find(|claimant| claimant.name == name);
            holder.is_some_and(|holder| holder.may_answer && (!holder.is_known || holder.claims.contains_key(ip)))
        };
        self.backed.retain(|ip, name| keeps(ip, name));
        let known = claimants.iter().filter(|claimant| claimant.is_known);
        let mut claims: Vec<(&IpAddr, &Claim, &str)> =
            known.flat_map(|claimant| claimant.claims.iter().map(|(ip, claim)| (ip, claim, claimant.name))).collect();
        claims.sort_unstable_by(|one, other| other.cmp(one));
        self.refused.clear();
        for (ip, _, name) in claims {
            let holder = self.backed.entry(*ip).or_insert_with(|| name.to_owned());
            if holder != name {
                self.refused.entry(name.to_owned()).or_default().insert(*ip);
            }
        }
    }

    /// What the node claims and is not backed for.
    pub(super) fn refused(&self, name: &str) -> Option<&BTreeSet<IpAddr>> {
        self.refused.get(name)
    }

    /// Whether the node is backed for the address.
    pub(super) fn backs(&self, ip: IpAddr, name: &str) -> bool {
        self.backed.get(&ip).is_some_and(|holder| holder == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(ips: &[(u8, u64)]) -> BTreeMap<IpAddr, Claim> {
        ips.iter()
            .map(|(last, term)| (IpAddr::from([192, 0, 2, *last]), Claim { held: false, quorate: true, term: *term }))
            .collect()
    }

    #[test]
    fn one_node_is_backed_until_it_is_gone_or_lays_down() {
        let mut grants = Grants::default();
        let ip = IpAddr::from([192, 0, 2, 1]);
        let (first, more, none) = (claims(&[(1, 1)]), claims(&[(1, 2), (2, 1)]), claims(&[]));
        let claimant = |name, claims, may_answer, is_known| Claimant { name, claims, may_answer, is_known };
        grants.judge(&[claimant("a", &first, true, true)]);
        assert!(grants.backs(ip, "a"));
        // A higher term does not take it, another address is free.
        grants.judge(&[claimant("a", &first, true, true), claimant("b", &more, true, true)]);
        assert!(grants.backs(ip, "a") && grants.backs([192, 0, 2, 2].into(), "b"));
        assert_eq!(grants.refused("b"), Some(&BTreeSet::from([ip])));
        // What it says now is not known yet: it may still answer.
        grants.judge(&[claimant("a", &none, true, false), claimant("b", &more, true, true)]);
        assert!(grants.backs(ip, "a"));
        for (claims, may_answer) in [(&none, true), (&first, false)] {
            let mut grants = grants.clone();
            grants.judge(&[claimant("a", claims, may_answer, may_answer), claimant("b", &more, true, true)]);
            assert!(grants.backs(ip, "b") && grants.refused("b").is_none());
        }
    }

    #[test]
    fn of_two_new_claims_the_greater_is_backed() {
        let mut grants = Grants::default();
        let (low, high) = (claims(&[(1, 1)]), claims(&[(1, 2)]));
        let claimant = |name, claims| Claimant { name, claims, may_answer: true, is_known: true };
        grants.judge(&[claimant("b", &low), claimant("a", &high)]);
        assert!(grants.backs([192, 0, 2, 1].into(), "a"));
    }
}
