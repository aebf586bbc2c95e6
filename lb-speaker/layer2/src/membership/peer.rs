//! One peer as this node knows it.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use super::{
    DEAD_AFTER, DIFFERS_AFTER, DIFFERS_AT_MOST, STALLED_DEAD_AFTER, allowance::Allowance, document::Assembly,
    message::Phase, probe::Probing, standing::Standing,
};

/// What is known of a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PeerState {
    /// Not heard since this node started.
    #[default]
    Unheard,
    /// Heard, but not ready to announce.
    Joining,
    /// Heard and ready.
    Alive,
    /// Its speaker is silent, but its kernel vouches that it still answers for what the speaker announced.
    Stalled,
    /// It is about to stop, and answers until others have taken over.
    Leaving,
    /// It said that it stops.
    Left,
    /// Heard once, silent since.
    Dead,
}

impl PeerState {
    /// Whether the peer counts in an election.
    #[must_use]
    pub fn counts(self) -> bool {
        matches!(self, Self::Alive | Self::Stalled)
    }

    /// Whether the peer may answer for what it claims.
    #[must_use]
    pub fn answers(self) -> bool {
        matches!(self, Self::Alive | Self::Stalled | Self::Leaving)
    }

    const ALL: [Self; 7] =
        [Self::Unheard, Self::Joining, Self::Alive, Self::Stalled, Self::Left, Self::Dead, Self::Leaving];

    pub(super) fn code(self) -> u8 {
        Self::ALL.iter().position(|state| *state == self).and_then(|code| u8::try_from(code).ok()).unwrap_or(0)
    }

    pub(super) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }

    /// Whether its silence is still to be judged.
    pub(super) fn is_watched(self) -> bool {
        matches!(self, Self::Joining | Self::Alive | Self::Stalled | Self::Leaving)
    }
}

#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) state: PeerState,
    pub(super) boot: u64,
    pub(super) sequence: u64,
    pub(super) heals: u32,
    pub(super) heard: Duration,
    /// When it last said that it is `Alive`.
    pub(super) alive_at: Duration,
    pub(super) digest: u64,
    /// That its files are others than ours.
    pub(super) differs: Option<Differs>,
    pub(super) probing: Probing,
    /// What it said of itself at length, with the digest of that.
    pub(super) standing: Option<(u64, Standing)>,
    /// The digest that its last heartbeat named, 0 for none, and since when that is another than the one known.
    pub(super) standing_digest: u64,
    pub(super) unknown_since: Option<Duration>,
    pub(super) asked_at: Option<Duration>,
    pub(super) assembly: Assembly,
    /// Parts of a standing that no heartbeat has named yet, and one that is whole.
    pub(super) early: Option<(u64, Assembly)>,
    pub(super) complete: Option<(u64, Standing)>,
    /// The latest heartbeat bore a word to this node.
    pub(super) spoke_to_us: bool,
    /// What this node is to it.
    pub(super) sees_us: PeerState,
    /// Which of our standings it backs, the latest last.
    pub(super) support: Vec<Support>,
    /// An earlier run of it may still be answered for by its kernel.
    pub(super) fenced_until: Duration,
    /// What it may still get of this node's standing.
    pub(super) allowance: Allowance,
}

/// Files that differ: digests of ours and of the peer's, since when they are these, and since when they differ at all.
#[derive(Clone, Debug)]
pub(super) struct Differs {
    pub(super) files: (u64, u64),
    pub(super) changed: Duration,
    pub(super) since: Duration,
}

impl Differs {
    pub(super) fn is_long(&self, now: Duration) -> bool {
        now >= self.changed + DIFFERS_AFTER || now >= self.since + DIFFERS_AT_MOST
    }
}

/// A peer's word that it backs a standing of this node.
#[derive(Clone, Debug)]
pub(super) struct Support {
    pub(super) digest: u64,
    /// When the heartbeat was sent that the peer had heard.
    pub(super) sent_at: Duration,
    pub(super) refused: BTreeSet<IpAddr>,
}

impl Peer {
    pub(super) fn unheard(now: Duration) -> Self {
        Self {
            state: PeerState::Unheard,
            boot: 0,
            sequence: 0,
            heals: 0,
            heard: now,
            alive_at: now,
            digest: 0,
            differs: None,
            probing: Probing::default(),
            standing: None,
            standing_digest: 0,
            unknown_since: None,
            asked_at: None,
            assembly: Assembly::default(),
            early: None,
            complete: None,
            spoke_to_us: false,
            sees_us: PeerState::Unheard,
            support: Vec::new(),
            fenced_until: now,
            allowance: Allowance::default(),
        }
    }

    /// What a message of this phase makes of it. A speaker that starts again on a node whose kernel has answered
    /// meanwhile goes on where the one before it stopped, if that is not too long ago.
    pub(super) fn state_after(&self, now: Duration, phase: Phase) -> PeerState {
        match phase {
            Phase::Resuming if self.state.counts() && now < self.alive_at + STALLED_DEAD_AFTER => PeerState::Stalled,
            Phase::Joining | Phase::Resuming => PeerState::Joining,
            Phase::Alive => PeerState::Alive,
            Phase::Leaving => PeerState::Leaving,
            Phase::Left => PeerState::Left,
        }
    }

    /// Whether its standing is known to its latest word.
    pub(super) fn is_known(&self) -> bool {
        self.standing.as_ref().map_or(0, |(digest, _)| *digest) == self.standing_digest
    }

    /// Judges its silence.
    pub(super) fn judge(&mut self, now: Duration) {
        if !self.state.is_watched() {
            return;
        }
        let vouched = self.probing.proves_until().is_some_and(|until| now < until);
        let bound = self.alive_at + STALLED_DEAD_AFTER;
        self.state = match self.state {
            PeerState::Stalled if now >= bound => PeerState::Dead,
            _ if now < self.heard + DEAD_AFTER => return,
            PeerState::Alive | PeerState::Stalled if vouched && now < bound => PeerState::Stalled,
            _ => PeerState::Dead,
        };
    }

    /// When it must be judged next.
    pub(super) fn next(&self) -> Option<Duration> {
        let silent = self.heard + DEAD_AFTER;
        let judged = match (self.state, self.probing.proves_until()) {
            (PeerState::Stalled, until) => until.unwrap_or(silent).max(silent).min(self.alive_at + STALLED_DEAD_AFTER),
            _ => silent,
        };
        self.state.is_watched().then_some(judged)
    }
}
