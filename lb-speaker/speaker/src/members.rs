//! What a running speaker knows of all speakers, as a file in the state directory: for `explain`, and for its own next start.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

use roadstead_layer2::{
    election::Abilities,
    membership::PeerState,
    ownership::{Election, Ownership, Partition},
};
use serde::{Deserialize, Serialize};

use crate::record::replace;

/// The speakers as one of them knows them; the fields only ever grow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Members {
    /// The node whose view this is.
    pub(crate) node: String,
    pub(crate) election: String,
    pub(crate) partition: String,
    pub(crate) nodes: BTreeMap<String, Member>,
}

/// One speaker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    /// `alive`, `stalled` and so on.
    pub(crate) state: String,
    /// It takes part in elections.
    pub(crate) counts: bool,
    /// Where it can announce; `null` where that is not known.
    pub(crate) interfaces: Option<BTreeSet<String>>,
    /// What it claims, with the terms.
    pub(crate) claims: BTreeMap<IpAddr, u64>,
    /// What of that it claims in vain: it waits for a majority or for the word of peers.
    pub(crate) waiting: BTreeSet<IpAddr>,
    /// Its copy of the files has differed from this node's for a while.
    pub(crate) disagrees: bool,
    /// In what.
    #[serde(default)]
    pub(crate) difference: String,
}

impl Members {
    pub(crate) fn of(ownership: &Ownership) -> Self {
        let membership = &ownership.membership;
        let (name, can, live) = (membership.name().to_owned(), ownership.abilities(), membership.live());
        let mut nodes: BTreeMap<String, Member> = membership
            .states()
            .map(|(peer, state)| {
                let state = state_text(state).to_owned();
                let counts = live.contains(peer);
                let interfaces = can.get(peer).cloned();
                (peer.to_owned(), Member { state, counts, interfaces, ..Member::default() })
            })
            .collect();
        let own = Member {
            state: if live.contains(&name) { "alive" } else { "not ready" }.to_owned(),
            counts: live.contains(&name),
            interfaces: can.get(&name).cloned(),
            ..Member::default()
        };
        nodes.insert(name.clone(), own);
        let peers = membership
            .standings()
            .flat_map(|(peer, _, told)| told.claims.iter().map(move |(ip, claim)| (peer.to_owned(), *ip, *claim)));
        let own = ownership.claims().map(|(ip, claim)| (name.clone(), ip, claim));
        for (node, ip, claim) in peers.chain(own) {
            let Some(member) = nodes.get_mut(&node) else { continue };
            member.claims.insert(ip, claim.term);
            if !claim.held {
                member.waiting.insert(ip);
            }
        }
        let rules = ownership.rules();
        let election = match rules.election {
            Election::Metallb => "metallb",
            Election::Sticky => "sticky",
        };
        let partition = match rules.partition {
            Partition::Availability => "availability",
            Partition::Strict => "strict",
        };
        Self { node: name, election: election.to_owned(), partition: partition.to_owned(), nodes }
    }

    /// The same with what is known of peers whose copies of the files differ.
    pub(crate) fn with(mut self, differences: &BTreeMap<String, String>) -> Self {
        for (peer, difference) in differences {
            if let Some(member) = self.nodes.get_mut(peer) {
                (member.disagrees, member.difference) = (true, difference.clone());
            }
        }
        self
    }

    pub(crate) fn write(&self, state_dir: &Path) -> std::io::Result<()> {
        replace(&file(state_dir), &serde_json::to_vec_pretty(self).map_err(std::io::Error::other)?)
    }

    /// What was written last, if anything readable was.
    pub(crate) fn read(state_dir: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(file(state_dir)).ok()?).ok()
    }

    /// What this node itself claimed.
    pub(crate) fn own_claims(&self) -> BTreeMap<IpAddr, u64> {
        self.nodes.get(&self.node).map(|own| own.claims.clone()).unwrap_or_default()
    }

    /// The nodes that take part in elections.
    pub(crate) fn live(&self) -> BTreeSet<String> {
        self.nodes.iter().filter(|(_, member)| member.counts).map(|(name, _)| name.clone()).collect()
    }

    /// Where the nodes can announce.
    pub(crate) fn abilities(&self) -> Abilities {
        let known = self.nodes.iter().filter_map(|(name, member)| Some((name.clone(), member.interfaces.clone()?)));
        known.collect()
    }

    /// Who claims the address; of several the one with the highest term.
    pub(crate) fn claimant(&self, ip: IpAddr) -> Option<&str> {
        let claims = self.nodes.iter().filter_map(|(name, member)| Some((member.claims.get(&ip)?, name.as_str())));
        claims.max().map(|(_, name)| name)
    }

    /// What else is to be known of a node that was judged.
    pub(crate) fn remark(&self, node: &str, ip: IpAddr) -> Option<String> {
        let member = self.nodes.get(node)?;
        let mut remarks = Vec::new();
        if !matches!(&*member.state, "alive" | "unheard") {
            remarks.push(format!("its speaker is {}", member.state));
        }
        if member.claims.contains_key(&ip) {
            let waiting = member.waiting.contains(&ip);
            remarks.push(
                if waiting { "it claims the address and may not answer yet" } else { "it answers now" }.to_owned(),
            );
        }
        if member.disagrees {
            let colon = if member.difference.is_empty() { "" } else { ": " };
            remarks.push(format!("its copy of the files differs{colon}{}", member.difference));
        }
        (!remarks.is_empty()).then(|| remarks.join("; "))
    }
}

fn file(state_dir: &Path) -> PathBuf {
    // Not in the status folder: what is there, every daemon reads as Kubernetes objects.
    state_dir.join("speaker-members.json")
}

fn state_text(state: PeerState) -> &'static str {
    match state {
        PeerState::Unheard => "unheard",
        PeerState::Joining => "joining",
        PeerState::Alive => "alive",
        PeerState::Stalled => "stalled: its kernel answers",
        PeerState::Leaving => "leaving",
        PeerState::Left => "gone: it left",
        PeerState::Dead => "dead",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use roadstead_layer2::{membership::Membership, ownership::Rules};

    use super::*;

    #[test]
    fn what_a_speaker_knows_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Members::read(folder.path()), None);
        let membership = Membership::new("n1", 1, ["n2".to_owned()], None, Duration::ZERO);
        let rules = Rules { election: Election::Sticky, partition: Partition::Strict };
        let ownership = Ownership::new(membership, rules, BTreeMap::new());
        let mut members = Members::of(&ownership).with(&BTreeMap::from([("n2".to_owned(), "it lacks a/b".to_owned())]));
        assert_eq!((&*members.election, &*members.partition), ("sticky", "strict"));
        assert_eq!(members.nodes["n2"].state, "unheard");
        let ip: IpAddr = "192.0.2.1".parse().unwrap();
        members.nodes.get_mut("n2").unwrap().claims.insert(ip, 2);
        members.nodes.get_mut("n1").unwrap().claims.insert(ip, 1);
        members.write(folder.path()).unwrap();
        let read = Members::read(folder.path()).unwrap();
        assert_eq!(read, members);
        assert_eq!((read.claimant(ip), read.own_claims()), (Some("n2"), BTreeMap::from([(ip, 1)])));
        assert_eq!(read.remark("n2", ip).unwrap(), "it answers now; its copy of the files differs: it lacks a/b");
    }
}
