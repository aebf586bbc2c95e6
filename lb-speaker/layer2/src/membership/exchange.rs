//! The replicated map and the views of the files on their way between the nodes (`replica` says what they mean).
//!
//! A heartbeat names the sender's index by its digest, the index names every bucket by its own. Who finds another digest
//! than its own asks for that document by it, and gets it in parts. So only what differs is sent; nothing old is ever
//! taken, whoever sends it again, as it has not the digest that the peer's latest heartbeat leads to; and nothing here is
//! timely: a node asks a peer for one document at a time, and answers a bounded number of datagrams a heartbeat, so that
//! neither a large table nor a repeated question delays what is.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use super::{
    Membership,
    allowance::Allowance,
    document::{Assembly, Kind, PARTS_A_QUESTION, Part},
    message::Question,
    peer::{Peer, PeerState},
};
use crate::replica::{Documents, Index, Kept, Slot};

/// Between two questions to a peer, and before the first repetition of a question.
const PACE: Duration = Duration::from_millis(2);
const ASK_AGAIN: Duration = Duration::from_millis(20);
/// The longest pause between repetitions.
const SELDOM: Duration = Duration::from_millis(640);
/// How long a node that is behind waits before it goes on without what its peers do not hand out.
const PATIENCE: Duration = Duration::from_secs(2);
/// Documents that wait to be taken in; with more, nobody is asked for further ones.
const MAX_WAITING: usize = 64;
/// Buckets of the map of which it is remembered that they came, whoever sent them.
const REMEMBERED: usize = 256;

/// A document of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The peer.
    pub peer: String,
    /// Which one.
    pub slot: Slot,
    /// Its digest.
    pub digest: u64,
    /// What it says; to be read by `replica`.
    pub bytes: Vec<u8>,
}

/// This node's documents, and what is known of those of its peers.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    own: Documents,
    partners: BTreeMap<String, Partner>,
    /// Buckets of the map that came from anybody, or were this node's own.
    arrived: VecDeque<u64>,
    arrivals: VecDeque<Arrival>,
    outgoing: Vec<(String, Vec<u8>)>,
    /// Since when peers have entries that did not come yet.
    behind: Option<Duration>,
    /// Counts the changes of what is known of the peers' indices.
    version: u64,
}

#[derive(Debug, Default)]
struct Partner {
    /// The last one known, with its digest.
    index: Option<(u64, Arc<Index>)>,
    /// An index that cannot be read.
    refused: u64,
    taken: BTreeMap<Slot, u64>,
    /// What it is asked for.
    wish: Option<Wish>,
    assembly: Assembly,
    /// The first part that it was asked for last.
    first: u16,
    due: Duration,
    pause: Duration,
    allowance: Allowance,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wish {
    digest: u64,
    /// Nothing for the index.
    slot: Option<Slot>,
}

impl Wish {
    fn kind(self) -> Kind {
        match self.slot.map(|slot| slot.kept) {
            None => Kind::Index,
            Some(Kept::Assigned) => Kind::Assigned,
            Some(Kept::Viewed) => Kind::Viewed,
        }
    }

    /// Whether the map may hold more than this node knows.
    fn is_of_map(self) -> bool {
        self.slot.is_none_or(|slot| slot.kept == Kept::Assigned)
    }
}

/// A peer that talks and may be asked.
fn talks(peer: &Peer) -> bool {
    peer.digest != 0 && matches!(peer.state, PeerState::Joining | PeerState::Alive | PeerState::Leaving)
}

impl Partner {
    /// The next document to ask for, where the peer's heartbeat named this index.
    fn next_wish(&self, own: &Documents, arrived: &VecDeque<u64>, named: u64) -> Option<Wish> {
        if named == own.encoded.digest || named == self.refused {
            return None;
        }
        let Some((_, index)) = self.index.as_ref().filter(|(digest, _)| *digest == named) else {
            return Some(Wish { digest: named, slot: None });
        };
        let news = |slot: &Slot| {
            let digest = index.digest(*slot);
            let came = || slot.kept == Kept::Assigned && arrived.contains(&digest);
            digest != own.index.digest(*slot) && self.taken.get(slot) != Some(&digest) && !came()
        };
        let slot = Index::slots().find(news)?;
        Some(Wish { digest: index.digest(slot), slot: Some(slot) })
    }

    fn set_wish(&mut self, now: Duration, wish: Option<Wish>) {
        if wish != self.wish {
            self.wish = wish;
            self.due = self.due.min(now + PACE);
            self.pause = ASK_AGAIN;
        }
    }
}

impl Exchange {
    /// Forgets the nodes that are peers no more.
    pub(super) fn retain(&mut self, is_peer: impl Fn(&String) -> bool) {
        self.partners.retain(|peer, _| is_peer(peer));
    }

    /// The digest of this node's index.
    pub(super) fn digest(&self) -> u64 {
        self.own.encoded.digest
    }

    #[cfg(test)]
    pub(super) fn documents(&self) -> &Documents {
        &self.own
    }

    /// Whom to ask for what now, among the peers that talk, given with the index that each named: the peer, the document's
    /// digest, and the first part.
    fn ask(&mut self, now: Duration, talking: &BTreeMap<&str, u64>) -> Vec<(String, u64, u16)> {
        let may_ask = self.arrivals.len() < MAX_WAITING;
        let (mut questions, mut behind) = (Vec::new(), false);
        for name in talking.keys().filter(|name| !self.partners.contains_key(**name)).collect::<Vec<_>>() {
            self.partners.insert((*name).to_owned(), Partner::default());
        }
        for (name, partner) in &mut self.partners {
            let Some(named) = talking.get(name.as_str()) else {
                partner.wish = None;
                continue;
            };
            if *named == self.own.encoded.digest && partner.index.as_ref().is_none_or(|(digest, _)| digest != named) {
                partner.index = Some((*named, Arc::new(self.own.index.clone())));
                self.version += 1;
            }
            partner.set_wish(now, partner.next_wish(&self.own, &self.arrived, *named));
            behind |= partner.wish.is_some_and(Wish::is_of_map);
            if let Some(wish) = partner.wish.filter(|_| may_ask && now >= partner.due) {
                partner.first = partner.assembly.asks_of(wish.digest);
                partner.due = now + partner.pause;
                partner.pause = SELDOM.min(partner.pause * 2);
                questions.push((name.clone(), wish.digest, partner.first));
            }
        }
        self.behind = behind.then(|| self.behind.unwrap_or(now));
        questions
    }

    /// Takes a part in.
    fn take(&mut self, now: Duration, part: &Part<'_>) {
        let Some(partner) = self.partners.get_mut(part.name) else { return };
        let Some(wish) = partner.wish.filter(|wish| wish.digest == part.digest && wish.kind() == part.kind) else {
            return;
        };
        let before = partner.assembly.asks_of(wish.digest);
        let whole = partner.assembly.take(part);
        let after = partner.assembly.asks_of(wish.digest);
        if after > before {
            partner.pause = ASK_AGAIN;
        }
        let Some(bytes) = whole else {
            // All that was asked for is here.
            if usize::from(after) >= usize::from(partner.first) + PARTS_A_QUESTION {
                partner.due = now + PACE;
            }
            return;
        };
        (partner.wish, partner.due) = (None, now);
        match wish.slot {
            Some(slot) => {
                partner.taken.insert(slot, wish.digest);
                let arrival = Arrival { peer: part.name.to_owned(), slot, digest: wish.digest, bytes };
                self.arrivals.push_back(arrival);
                if slot.kept == Kept::Assigned {
                    self.note(wish.digest);
                }
            }
            None => match Index::read(&bytes) {
                Some(index) => {
                    partner.index = Some((wish.digest, Arc::new(index)));
                    self.version += 1;
                }
                None => partner.refused = wish.digest,
            },
        }
    }

    /// What such a bucket says, the map knows.
    fn note(&mut self, digest: u64) {
        self.arrived.push_back(digest);
        self.arrived.drain(..self.arrived.len().saturating_sub(REMEMBERED));
    }

    /// When it must be asked next.
    pub(super) fn next(&self) -> Option<Duration> {
        let due = self.partners.values().filter(|partner| partner.wish.is_some()).map(|partner| partner.due);
        due.min().filter(|_| self.arrivals.len() < MAX_WAITING)
    }
}

impl Membership {
    /// What this node tells of the map and of its files from now on.
    pub fn set_documents(&mut self, now: Duration, documents: Documents) {
        if documents.index == self.exchange.own.index {
            return;
        }
        let before = std::mem::replace(&mut self.exchange.own, documents);
        // Peers that are not as far yet have nothing new in these.
        let former = Index::slots().filter(|slot| slot.kept == Kept::Assigned).map(|slot| before.index.digest(slot));
        let own = &self.exchange.own.index;
        let former = former.filter(|digest| !own.has_assigned(*digest)).collect::<Vec<u64>>();
        former.into_iter().for_each(|digest| self.exchange.note(digest));
        self.exchange.version += 1;
        self.next = now;
    }

    /// Documents of peers, once; the oldest first, as many as are wanted.
    pub fn take_arrival(&mut self) -> Option<Arrival> {
        self.exchange.arrivals.pop_front()
    }

    /// Parts of documents, each to be sent to the peer of that name and nobody else.
    pub fn take_parts(&mut self) -> Vec<(String, Vec<u8>)> {
        std::mem::take(&mut self.exchange.outgoing)
    }

    /// The index of each peer that is known, and a number that changes when they do.
    #[must_use]
    pub fn indices(&self) -> (u64, BTreeMap<&str, &Arc<Index>>) {
        let known = self.exchange.partners.iter();
        let known = known.filter_map(|(name, partner)| Some((name.as_str(), &partner.index.as_ref()?.1)));
        (self.exchange.version, known.collect())
    }

    /// Whether a peer has entries of the map that this node does not know yet; not for longer than two seconds on end.
    #[must_use]
    pub fn is_behind(&self, now: Duration) -> bool {
        let unread = !self.exchange.arrivals.is_empty();
        unread || self.exchange.behind.is_some_and(|since| now < since + PATIENCE)
    }

    /// Asks the peers for documents that are due.
    pub(super) fn exchange(&mut self, now: Duration) {
        let talking = self.peers.iter().filter(|(_, peer)| talks(peer));
        let talking = talking.map(|(name, peer)| (name.as_str(), peer.digest)).collect();
        for (to, digest, first) in self.exchange.ask(now, &talking) {
            let question = Question { digest, first, name: &self.name };
            self.exchange.outgoing.push((to, question.encode(self.key.as_ref())));
        }
    }

    pub(super) fn receive_document(&mut self, now: Duration, part: &Part<'_>) {
        self.exchange.take(now, part);
        self.exchange(now);
    }

    /// Hands out what a peer asks for, as long as it has not had too much of late.
    pub(super) fn answer_question(&mut self, now: Duration, question: &Question<'_>) {
        let first = usize::from(question.first).saturating_sub(1);
        let Exchange { own, partners, outgoing, .. } = &mut self.exchange;
        let Some(document) = own.named(question.digest) else { return };
        let partner = partners.entry(question.name.to_owned()).or_default();
        let parts = partner.allowance.spend(now, || document.parts(first, &self.name, self.key.as_ref()));
        outgoing.extend(parts.into_iter().map(|part| (question.name.to_owned(), part)));
    }
}
