//! Who is alive: heartbeats between the speakers that the configuration names, full mesh.
//!
//! A heartbeat goes out every 40 ms and a peer unheard for 160 ms is dead: the reference's budget for a failover under
//! 300 ms (speaker, section 3). A node that starts says so (`Joining`) until it has heard its peers or waited, and until
//! it knows the configuration; the others count on it only when it says `Alive`, so an address changes hands in one step.
//!
//! Heartbeats carry a digest of all that the node hands on at length: the addresses that were assigned, and what it has read
//! of its files (`exchange`, `replica`). A peer whose files are others for a while is told about.
//!
//! A peer that falls silent is probed, and one whose kernel answers the probes is stalled, not dead: it keeps what it
//! announces for [`STALLED_DEAD_AFTER`]. How long this node itself may answer is in `lease`.
//!
//! Heartbeats also carry a digest of the node's standing, what it announces and where it can (`standing`), and what the
//! sender knows of the receiver; `backing` spreads the standings and counts who backs them.
//!
//! Without a majority rule both sides of a partition go on (policy `availability`).

mod allowance;
mod backing;
pub(crate) mod document;
mod exchange;
mod grants;
mod lease;
mod message;
mod peer;
mod probe;
mod receiving;
mod standing;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

pub use exchange::Arrival;
pub use lease::{KERNEL_LEASE, LEASE};
pub use message::{Key, MAX_DATAGRAM, MAX_NAME, MessageError};
pub use peer::PeerState;
pub use probe::{PROBE_LENGTH, echo};
pub use standing::{Claim, Standing};

use backing::Backing;
use exchange::Exchange;
use lease::Lease;
use message::{Message, Phase};
use peer::{Differs, Peer};
use probe::Nonces;

use crate::wire::Mac;

/// Time between two heartbeats.
pub const INTERVAL: Duration = Duration::from_millis(40);
/// A peer unheard for this long is dead.
pub const DEAD_AFTER: Duration = Duration::from_millis(160);
/// A peer unheard for this long is probed, and every [`INTERVAL`] from then on.
pub const PROBE_AFTER: Duration = Duration::from_millis(80);
/// A peer whose kernel answers probes is dead only when its speaker has been silent for this long.
pub const STALLED_DEAD_AFTER: Duration = Duration::from_secs(3);
/// How long a starting node waits for peers that it has not heard.
pub const SETTLE: Duration = Duration::from_millis(320);

/// How long a peer's files may be others while neither its nor ours change: they are copied to one node after the other.
pub const DIFFERS_AFTER: Duration = Duration::from_secs(5);
/// How long they may be others in any case.
pub const DIFFERS_AT_MOST: Duration = Duration::from_secs(30);
/// How long a node that starts waits for peers that it has never heard before it assigns addresses.
pub const COLD_START: Duration = Duration::from_secs(3);

/// A change that others must act on; the greater one includes the smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// The set of live nodes is as before.
    Nothing,
    /// What a peer or this node may claim changed.
    Claims,
    /// The set of live nodes changed.
    Members,
    /// A peer that was dead is heard again without having restarted, or a peer says that it hears another again: two
    /// nodes may have announced the same addresses, so the winner must announce anew. The second case is that of a node
    /// that was stopped for a while or heard but not hearing: it never noticed anything.
    Healed,
}

/// Why a datagram was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// Not a message, or not one with the right key.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// It claims to come from this node: two speakers run under one name, or it was sent back.
    #[error("the message bears this node's own name")]
    OwnName,
    /// The sender is none of the configured peers.
    #[error("the sender is not a configured peer")]
    Stranger,
    /// A probe, which the kernel's responder would have answered if there were one.
    #[error("the datagram is a probe for a kernel that answers")]
    Probe,
    /// An echo that answers no probe of ours.
    #[error("the echo answers no probe of this node")]
    Unasked,
    /// It comes from another address than the peer has.
    #[error("the message of {0} does not come from its address")]
    Misplaced(String),
    /// Older than what was heard already: late, or replayed.
    #[error("the message is older than one already heard")]
    Replayed,
    /// From before the peer's latest start: replayed, or the peer lost its state directory and its clock was set back.
    #[error("the message of {0} is from before its latest start")]
    EarlierRun(String),
}

/// One node's view of its peers.
#[derive(Debug)]
pub struct Membership {
    name: String,
    boot: u64,
    sequence: u64,
    heals: u32,
    key: Option<Key>,
    peers: BTreeMap<String, Peer>,
    /// The hardware addresses with which this node announces.
    stations: Vec<[u8; 6]>,
    /// Those that the peers told last; they are kept when a peer dies, as it may go on announcing.
    peer_stations: BTreeMap<String, Vec<[u8; 6]>>,
    started: Duration,
    next: Duration,
    configured: bool,
    phase: Phase,
    /// From when on this node counts itself; set when it becomes `Alive`.
    claims_at: Option<Duration>,
    claims: bool,
    exchange: Exchange,
    outgoing: Vec<(String, Vec<u8>)>,
    lease: Lease,
    ticked: Duration,
    /// Without them no peer is probed.
    nonces: Option<Nonces>,
    backing: Backing,
}

impl Membership {
    /// A node that starts now. `boot` must be higher than at any earlier start of this node; its own name among the
    /// peers is ignored.
    #[must_use]
    pub fn new(
        name: &str,
        boot: u64,
        peers: impl IntoIterator<Item = String>,
        key: Option<Key>,
        now: Duration,
    ) -> Self {
        let peers: BTreeMap<String, Peer> =
            peers.into_iter().filter(|peer| peer != name).map(|peer| (peer, Peer::unheard(now))).collect();
        let (started, next) = (now, now);
        let (sequence, heals, configured, phase) = (0, 0, false, Phase::Joining);
        let (claims_at, claims) = (None, false);
        let name = name.to_owned();
        let (exchange, outgoing) = (Exchange::default(), Vec::new());
        Self {
            name,
            boot,
            sequence,
            heals,
            key,
            peers,
            stations: Vec::new(),
            peer_stations: BTreeMap::new(),
            started,
            next,
            configured,
            phase,
            claims_at,
            claims,
            exchange,
            outgoing,
            lease: Lease::new(LEASE),
            ticked: now,
            nonces: None,
            backing: Backing::new(),
        }
    }

    /// The peers from now on; this node's own name is passed over. One that is new counts when it is heard, and who is gone counts no
    /// more. A node that does not know its configuration yet listens to them first, as at its start.
    pub fn set_peers(&mut self, now: Duration, peers: impl IntoIterator<Item = String>) {
        let mut before = std::mem::take(&mut self.peers);
        let known = |peer: String| {
            let kept = before.remove(&peer).unwrap_or_else(|| Peer::unheard(now));
            (peer, kept)
        };
        self.peers = peers.into_iter().filter(|peer| *peer != self.name).map(known).collect();
        self.peer_stations.retain(|peer, _| self.peers.contains_key(peer));
        self.exchange.retain(|peer| self.peers.contains_key(peer));
        if !self.configured {
            self.started = now;
        }
        self.backing.dirty = true;
    }

    /// Probes silent peers from now on, with nonces drawn from the secret, which must be random.
    pub fn probe_by(&mut self, secret: &[u8; 32]) {
        self.nonces = Some(Nonces::new(secret));
    }

    /// The kernel answers for this node, and echoes probes: the lease may outlive the speaker. Peers are told so by a
    /// node that starts, as what its kernel held is still answered for.
    pub fn answer_by_kernel(&mut self) {
        self.lease.set_length(KERNEL_LEASE);
        if self.phase == Phase::Joining && self.sequence == 0 {
            self.phase = Phase::Resuming;
        }
    }

    /// This process answers, or a kernel that does not echo probes: the lease ends before the peers take over.
    pub fn answer_by_process(&mut self) {
        self.lease.set_length(LEASE);
    }

    /// Whether this node does not know yet what it owns.
    #[must_use]
    pub fn is_undecided(&self) -> bool {
        !matches!(self.phase, Phase::Leaving | Phase::Left) && !self.claims
    }

    /// This node's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether this node stood still and waits for its peers' word before it answers again.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.lease.is_waiting()
    }

    /// Until when this node may answer for what it announces without further evidence; nothing if it may not now.
    #[must_use]
    pub fn lease_until(&self) -> Option<Duration> {
        self.lease.until().filter(|_| self.claims || self.phase == Phase::Leaving)
    }

    /// The node knows its configuration from now on; before that it claims nothing.
    pub fn set_configured(&mut self) {
        self.configured = true;
    }

    /// The hardware addresses with which this node announces: peers then know its frames from a stranger's.
    pub fn set_stations(&mut self, stations: impl IntoIterator<Item = Mac>) {
        self.stations = stations.into_iter().map(|Mac(mac)| mac).collect();
    }

    /// Whether a configured peer has told that it announces with this hardware address.
    #[must_use]
    pub fn is_peers_station(&self, Mac(mac): Mac) -> bool {
        self.peer_stations.values().any(|stations| stations.contains(&mac))
    }

    /// Whether a node that has just started has heard its peers, or need not wait any longer: before that it takes over
    /// nothing, and knows of no addresses but those that it remembers.
    #[must_use]
    pub fn has_heard(&self, now: Duration) -> bool {
        self.phase != Phase::Joining && self.phase != Phase::Resuming
            || now >= self.started + SETTLE
            || self.peers.values().all(|peer| peer.state != PeerState::Unheard)
    }

    /// Whether there may be peers that this node has not heard since it started a moment ago: it should assign nothing.
    #[must_use]
    pub fn is_cold(&self, now: Duration) -> bool {
        now < self.started + COLD_START && self.peers.values().any(|peer| peer.state == PeerState::Unheard)
    }

    /// Heartbeats, answers and probes, each to be sent to the peer of that name, in this order.
    pub fn take_outgoing(&mut self) -> Vec<(String, Vec<u8>)> {
        std::mem::take(&mut self.outgoing)
    }

    /// Live peers whose files have been others than ours for [`DIFFERS_AFTER`].
    pub fn disagreeing(&self, now: Duration) -> impl Iterator<Item = &str> {
        let long = move |peer: &Peer| peer.differs.as_ref().is_some_and(|differs| differs.is_long(now));
        self.peers.iter().filter(move |(_, peer)| long(peer)).map(|(name, _)| name.as_str())
    }

    /// The nodes that count in an election: peers that are alive, and this one once it is ready.
    #[must_use]
    pub fn live(&self) -> BTreeSet<String> {
        let own = self.claims.then(|| self.name.clone());
        let peers = self.peers.iter().filter(|(_, peer)| peer.state.counts());
        peers.map(|(name, _)| name.clone()).chain(own).collect()
    }

    /// The peers, by name.
    pub fn states(&self) -> impl Iterator<Item = (&str, PeerState)> {
        self.peers.iter().map(|(name, peer)| (name.as_str(), peer.state))
    }

    /// When [`Self::tick`] must be called next.
    #[must_use]
    pub fn next(&self) -> Duration {
        let claims_at = self.claims_at.filter(|_| !self.claims);
        let judged = self.peers.values().filter_map(Peer::next);
        let probed = self.peers.values().filter(|peer| self.nonces.is_some() && peer.state.counts());
        judged
            .chain(probed.map(|peer| peer.probing.next(peer.heard)))
            .chain(claims_at)
            .chain(self.peers.values().filter_map(Peer::asks_at))
            .chain(self.exchange.next())
            .chain([self.next])
            .min()
            .unwrap_or(self.next)
    }

    /// Compares the files that the nodes have read.
    fn compare(&mut self, now: Duration) {
        let own = self.backing.files();
        for peer in self.peers.values_mut() {
            let theirs = peer.standing.as_ref().map_or(0, |(_, standing)| standing.files);
            let differs = peer.state == PeerState::Alive && own != 0 && theirs != 0 && theirs != own;
            let before = peer.differs.take().filter(|_| differs);
            peer.differs = differs.then(|| match before {
                Some(before) if before.files == (own, theirs) => before,
                Some(before) => Differs { files: (own, theirs), changed: now, ..before },
                None => Differs { files: (own, theirs), changed: now, since: now },
            });
        }
    }

    /// Lets time pass: declares the silent dead, ends the wait after the start, and gives the heartbeat when it is due.
    pub fn tick(&mut self, now: Duration) -> Change {
        let mut change = Change::Nothing;
        // A machine that stood still could not hear: silence counts only for as long as this node listened.
        let still = now.saturating_sub(self.ticked);
        let still = if still >= LEASE { still - INTERVAL } else { Duration::ZERO };
        self.ticked = now;
        self.started = now.min(self.started + still);
        for (name, peer) in &mut self.peers {
            peer.heard = now.min(peer.heard + still);
            peer.probing.wait(now, still);
            let before = peer.state;
            peer.judge(now);
            if before.answers() && !peer.state.answers() {
                change = Change::Members;
                self.lease.settle(name);
                self.next = now;
            }
            self.backing.dirty |= before != peer.state;
        }
        self.probe(now);
        if matches!(self.phase, Phase::Joining | Phase::Resuming) && self.configured && self.is_settled(now) {
            self.phase = Phase::Alive;
            self.next = now;
            // Whoever starts at the same time may be about to say `Alive` too: one interval more, and both know. The
            // peers that are alive already lay down at once what this node wins, so with them there is no wait.
            let starting = self.peers.values().any(|peer| peer.state == PeerState::Joining);
            self.claims_at = Some(if starting { now + INTERVAL } else { now });
        }
        let begins = !self.claims && self.phase == Phase::Alive && self.claims_at.is_some_and(|at| now >= at);
        if begins {
            self.claims = true;
            change = Change::Members;
        }
        self.compare(now);
        self.ask(now);
        self.exchange(now);
        // Whoever may claim from now on decides first: its first word as one that is alive is to tell what it claims.
        if !begins {
            self.beat(now);
        }
        change
    }

    fn probe(&mut self, now: Duration) {
        let Some(nonces) = &mut self.nonces else { return };
        for (name, peer) in self.peers.iter_mut().filter(|(_, peer)| peer.state.counts()) {
            let probe = peer.probing.due(now, peer.heard, nonces);
            self.outgoing.extend(probe.map(|probe| (name.clone(), probe)));
        }
    }

    /// Makes the heartbeats if they are due, and nothing else: for work between two ticks that takes long. Whether it did.
    pub fn beat(&mut self, now: Duration) -> bool {
        if now < self.next || self.phase == Phase::Left {
            return false;
        }
        self.next = now + INTERVAL;
        let counted = self.peers.iter().filter(|(_, peer)| peer.state.counts()).map(|(name, _)| name.clone());
        self.lease.beat(now, counted);
        self.speak(now);
        true
    }

    /// Is about to stop: counts itself no more, and still answers for what nobody has taken over.
    pub fn set_leaving(&mut self, now: Duration) {
        if self.phase == Phase::Alive && self.claims {
            self.phase = Phase::Leaving;
            self.next = now;
        }
        self.claims = false;
    }

    /// Stops: says so to every peer, after which this node claims nothing.
    pub fn leave(&mut self, now: Duration) {
        self.phase = Phase::Left;
        self.claims = false;
        self.speak(now);
    }

    fn is_settled(&self, now: Duration) -> bool {
        let is_heard = |peer: &Peer| peer.state != PeerState::Unheard && (peer.is_known() || !peer.state.answers());
        now >= self.started + SETTLE || self.peers.values().all(is_heard)
    }

    /// Makes a heartbeat for every peer, each with a word to that one.
    fn speak(&mut self, now: Duration) {
        self.sequence += 1;
        self.backing.sent(self.sequence, now);
        self.judge_claims(now);
        for (name, peer) in &self.peers {
            let message = Message {
                phase: self.phase,
                boot: self.boot,
                sequence: self.sequence,
                heals: self.heals,
                digest: self.exchange.digest(),
                name: &self.name,
                stations: &self.stations,
                standing: self.backing.digest(),
                word: self.backing.word(name, peer),
            };
            self.outgoing.push((name.clone(), message.encode(self.key.as_ref())));
        }
        self.tell_standing();
    }
}

#[cfg(test)]
mod tests;
