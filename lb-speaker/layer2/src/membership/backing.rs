//! Standings on their way between the nodes, and who backs whose.
//!
//! A node that changes its standing sends heartbeats with the new digest at once and the standing's parts behind them; who
//! missed a part asks. In its heartbeats every node says which of the receiver's claims it backs, and up to which of the
//! receiver's heartbeats it has heard: from that the receiver knows until when a majority keeps others from its addresses.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    time::Duration,
};

use super::{
    Change, DEAD_AFTER, LEASE, Membership,
    document::{Assembly, Encoded, Kind, Part},
    grants::{Claimant, Grants},
    message::{Message, Phase, Question, Word},
    peer::{Peer, PeerState, Support},
    standing::Standing,
};

/// How long parts that were sent unasked may take before they are asked for, and the time between two questions.
const UNASKED: Duration = Duration::from_millis(5);
const ASK_AGAIN: Duration = Duration::from_millis(20);
/// Own standings and moments of sending that an answer may refer to.
const REMEMBERED: usize = 8;
const SENT: usize = 64;

/// This node's standing, and what became of it.
#[derive(Debug)]
pub(super) struct Backing {
    standing: Standing,
    version: u64,
    encoded: Encoded,
    /// To be sent behind the next heartbeats.
    fresh: bool,
    /// Own standings by digest, the latest last, with the number of each.
    told: VecDeque<(u64, u64)>,
    /// Since which number of a standing each address is claimed without a break.
    since: BTreeMap<IpAddr, u64>,
    sent: VecDeque<(u64, Duration)>,
    grants: Grants,
    /// Something changed by which claims are judged.
    pub(super) dirty: bool,
    /// Time alone will change it.
    fenced: bool,
}

impl Backing {
    pub(super) fn new() -> Self {
        Self {
            standing: Standing::default(),
            version: 0,
            encoded: Encoded::none(Kind::Standing),
            fresh: false,
            told: VecDeque::new(),
            since: BTreeMap::new(),
            sent: VecDeque::new(),
            grants: Grants::default(),
            dirty: false,
            fenced: false,
        }
    }

    pub(super) fn digest(&self) -> u64 {
        self.encoded.digest
    }

    /// The digest of the files that this node has read.
    pub(super) fn files(&self) -> u64 {
        self.standing.files
    }

    pub(super) fn sent(&mut self, sequence: u64, now: Duration) {
        if self.sent.len() >= SENT {
            self.sent.pop_front();
        }
        self.sent.push_back((sequence, now));
    }

    /// What a heartbeat says to the peer.
    pub(super) fn word(&self, name: &str, peer: &Peer) -> Word {
        let backed = peer.standing.as_ref().filter(|_| peer.is_known()).map_or(0, |(digest, _)| *digest);
        let refused = self.grants.refused(name).map(|ips| ips.iter().copied().collect()).unwrap_or_default();
        // What was not judged since is not backed yet.
        let backed = if self.dirty { 0 } else { backed };
        Word { boot: peer.boot, heard: peer.sequence, state: peer.state, backed, refused }
    }

    fn set(&mut self, standing: Standing) {
        if standing == self.standing && self.encoded.digest != 0 {
            return;
        }
        self.version += 1;
        self.since.retain(|ip, _| standing.claims.contains_key(ip));
        for ip in standing.claims.keys() {
            self.since.entry(*ip).or_insert(self.version);
        }
        self.encoded = Encoded::new(Kind::Standing, standing.write(self.version));
        self.standing = standing;
        if self.told.len() >= REMEMBERED {
            self.told.pop_front();
        }
        self.told.push_back((self.encoded.digest, self.version));
        (self.fresh, self.dirty) = (true, true);
    }

    /// Whether the peer has said to a standing that it knows it, in which the address was claimed without a break since.
    fn is_known_to(&self, ip: IpAddr, peer: &Peer) -> bool {
        self.since.get(&ip).is_some_and(|since| peer.support.iter().any(|support| self.includes(support, *since)))
    }

    /// Whether the support is for the standing of this number or a later one.
    fn includes(&self, support: &Support, since: u64) -> bool {
        let told = self.told.iter().find(|(digest, _)| *digest == support.digest);
        told.is_some_and(|(_, version)| *version >= since)
    }

    /// When the last heartbeat was sent of which a peer says by its support that it keeps others from the address.
    fn support(&self, ip: IpAddr, peer: &Peer) -> Option<Duration> {
        let since = *self.since.get(&ip)?;
        let counts = |support: &&Support| self.includes(support, since) && !support.refused.contains(&ip);
        peer.support.iter().filter(counts).map(|support| support.sent_at).max()
    }
}

impl Peer {
    /// Another standing may have been named; one that was not counted before sends nothing by itself.
    pub(super) fn notice(&mut self, now: Duration, counted: bool) {
        if self.is_known() {
            (self.unknown_since, self.asked_at) = (None, None);
        } else if self.unknown_since.is_none() {
            self.unknown_since = Some(if counted { now } else { now.saturating_sub(UNASKED) });
        }
    }

    /// When it is to be asked for its standing.
    pub(super) fn asks_at(&self) -> Option<Duration> {
        let since = self.unknown_since.filter(|_| self.state.is_watched())?;
        Some(self.asked_at.map_or(since + UNASKED, |asked| asked + ASK_AGAIN))
    }
}

impl Membership {
    /// What this node tells of itself from now on. Heartbeats go out with the next [`Self::beat`], which is due at once.
    pub fn set_standing(&mut self, now: Duration, standing: Standing) {
        self.backing.set(standing);
        if self.backing.fresh {
            self.next = now;
        }
    }

    /// The peers that may answer for what they claim, with their standings as far as they are known.
    pub fn standings(&self) -> impl Iterator<Item = (&str, PeerState, &Standing)> {
        let told = self.peers.iter().filter(|(_, peer)| peer.state.answers());
        told.filter_map(|(name, peer)| Some((name.as_str(), peer.state, &peer.standing.as_ref()?.1)))
    }

    /// What this node is to the peer.
    #[must_use]
    pub fn seen_by(&self, peer: &str) -> PeerState {
        self.peers.get(peer).map_or(PeerState::Unheard, |peer| peer.sees_us)
    }

    /// Whether the nodes that count are a majority of those that are configured.
    #[must_use]
    pub fn is_quorate(&self) -> bool {
        self.live().len() >= self.majority()
    }

    /// Whether every living peer has said that it knows of this node's claim to the address, and what each says of itself is
    /// known: whoever claims it now does so knowing of the claim.
    #[must_use]
    pub fn is_acknowledged(&self, ip: IpAddr) -> bool {
        let mut alive = self.peers.values().filter(|peer| peer.state == PeerState::Alive);
        alive.all(|peer| peer.is_known() && self.backing.is_known_to(ip, peer))
    }

    /// Whether every peer was heard after the moment, and what it says of itself is known.
    #[must_use]
    pub fn has_heard_all_since(&self, moment: Duration) -> bool {
        self.peers.values().all(|peer| peer.heard > moment && peer.is_known())
    }

    fn majority(&self) -> usize {
        let members = self.peers.len() + 1;
        members / 2 + 1
    }

    /// Until when a majority keeps all others from the address, if one does.
    #[must_use]
    pub fn backed_until(&self, ip: IpAddr) -> Option<Duration> {
        let own = self.backing.grants.backs(ip, &self.name).then_some(self.ticked);
        let others = self.peers.values().filter_map(|peer| self.backing.support(ip, peer));
        let mut heard: Vec<Duration> = others.chain(own).collect();
        heard.sort_unstable();
        let weakest = heard.len().checked_sub(self.majority())?;
        heard.get(weakest).map(|sent_at| *sent_at + LEASE)
    }

    /// Judges all claims anew if anything changed. A node that has just started backs nobody: it does not know whom an
    /// earlier run backed.
    pub(super) fn judge_claims(&mut self, now: Duration) {
        if !(self.backing.dirty || self.backing.fenced) || now < self.started + DEAD_AFTER {
            return;
        }
        let fenced = self.peers.values().any(|peer| now < peer.fenced_until);
        let none = BTreeMap::new();
        let claimant = |(name, peer): (&'_ String, &'_ Peer)| {
            (name.clone(), peer.state.answers() || now < peer.fenced_until, peer.state.answers() && peer.is_known())
        };
        let peers: Vec<(String, bool, bool)> = self.peers.iter().map(claimant).collect();
        let claims = |name: &str| {
            let standing = self.peers.get(name).and_then(|peer| peer.standing.as_ref());
            standing.map_or(&none, |(_, standing)| &standing.claims)
        };
        let own =
            Claimant { name: &self.name, claims: &self.backing.standing.claims, may_answer: true, is_known: true };
        let others = peers.iter().map(|(name, may_answer, is_known)| Claimant {
            name,
            claims: claims(name),
            may_answer: *may_answer,
            is_known: *is_known,
        });
        let claimants: Vec<Claimant<'_>> = others.chain([own]).collect();
        self.backing.grants.judge(&claimants);
        (self.backing.dirty, self.backing.fenced) = (false, fenced);
    }

    /// Takes what the peer says to this node; whether it sees it in another state than before.
    pub(super) fn take_word(&mut self, message: &Message<'_>) -> bool {
        let word = &message.word;
        let Some(peer) = self.peers.get_mut(message.name) else { return false };
        peer.spoke_to_us = word.boot == self.boot;
        if !peer.spoke_to_us {
            return false;
        }
        let changed = std::mem::replace(&mut peer.sees_us, word.state) != word.state;
        let sent = self.backing.sent.iter().find(|(sequence, _)| *sequence == word.heard);
        let Some((_, sent_at)) = sent.filter(|_| word.backed != 0 && word.state.answers()) else { return changed };
        let refused: BTreeSet<IpAddr> = word.refused.iter().copied().collect();
        peer.support.retain(|support| support.digest != word.backed);
        if peer.support.len() >= REMEMBERED {
            peer.support.remove(0);
        }
        peer.support.push(Support { digest: word.backed, sent_at: *sent_at, refused });
        changed
    }

    /// The peer's word counts for the lease once all that it says is known.
    pub(super) fn settle(&mut self, name: &str) {
        if self.peers.get(name).is_some_and(Peer::is_known) {
            self.lease.settle(name);
        }
    }

    pub(super) fn receive_standing(&mut self, now: Duration, part: &Part<'_>) -> Change {
        let Some(peer) = self.peers.get_mut(part.name) else { return Change::Nothing };
        if part.digest != peer.standing_digest {
            // It may have overtaken the heartbeat that names it.
            peer.early = peer.early.take().filter(|(digest, _)| *digest == part.digest);
            let (_, assembly) = peer.early.get_or_insert_with(|| (part.digest, Assembly::default()));
            let standing = assembly.take(part).and_then(|bytes| Standing::read(&bytes));
            peer.complete = standing.map(|standing| (part.digest, standing)).or(peer.complete.take());
            return Change::Nothing;
        }
        if peer.is_known() {
            return Change::Nothing;
        }
        let Some(standing) = peer.assembly.take(part).and_then(|bytes| Standing::read(&bytes)) else {
            return Change::Nothing;
        };
        peer.standing = Some((part.digest, standing));
        self.know(now, part.name);
        Change::Claims
    }

    /// The peer's standing is known anew: others wait to hear whom this node backs now.
    fn know(&mut self, now: Duration, name: &str) {
        if let Some(peer) = self.peers.get_mut(name) {
            peer.notice(now, true);
        }
        self.backing.dirty = true;
        self.next = now;
        self.settle(name);
    }

    /// A heartbeat named a standing whose parts may have come before it.
    pub(super) fn catch_up(&mut self, now: Duration, name: &str) {
        let Some(peer) = self.peers.get_mut(name).filter(|peer| !peer.is_known()) else { return };
        if let Some((digest, standing)) = peer.complete.take_if(|(digest, _)| *digest == peer.standing_digest) {
            peer.standing = Some((digest, standing));
            self.know(now, name);
        } else if let Some((_, assembly)) = peer.early.take_if(|(digest, _)| *digest == peer.standing_digest) {
            peer.assembly = assembly;
        }
    }

    pub(super) fn receive_question(
        &mut self,
        now: Duration,
        datagram: &[u8],
        is_at: impl Fn(&str) -> bool,
    ) -> Result<Change, super::Rejected> {
        let question = Question::decode(datagram, self.key.as_ref())?;
        self.check_sender(question.name, is_at)?;
        let first = usize::from(question.first).saturating_sub(1);
        if question.digest == self.backing.digest() {
            let Some(peer) = self.peers.get_mut(question.name) else { return Ok(Change::Nothing) };
            let parts = || self.backing.encoded.parts(first, &self.name, self.key.as_ref());
            let parts = peer.allowance.spend(now, parts);
            self.outgoing.extend(parts.into_iter().map(|part| (question.name.to_owned(), part)));
        } else {
            self.answer_question(now, &question);
        }
        Ok(Change::Nothing)
    }

    /// Asks the peers for standings that they named and did not tell.
    pub(super) fn ask(&mut self, now: Duration) {
        for (name, peer) in self.peers.iter_mut().filter(|(_, peer)| peer.asks_at().is_some_and(|at| now >= at)) {
            peer.asked_at = Some(now);
            let (digest, first) = (peer.standing_digest, peer.assembly.asks_of(peer.standing_digest));
            let question = Question { digest, first, name: &self.name };
            self.outgoing.push((name.clone(), question.encode(self.key.as_ref())));
        }
    }

    /// Sends a standing that changed to every peer, behind the heartbeats that name it.
    pub(super) fn tell_standing(&mut self) {
        if !std::mem::take(&mut self.backing.fresh) || self.phase == Phase::Left {
            return;
        }
        let parts = self.backing.encoded.parts(0, &self.name, self.key.as_ref());
        for name in self.peers.iter().filter(|(_, peer)| peer.state.is_watched()).map(|(name, _)| name) {
            self.outgoing.extend(parts.iter().map(|part| (name.clone(), part.clone())));
        }
    }
}
