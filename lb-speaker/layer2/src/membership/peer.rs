//! One peer as this node knows it.

use std::time::Duration;

use super::{DEAD_AFTER, STALLED_DEAD_AFTER, message::Phase, probe::Probing};

/// What is known of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerState {
    /// Not heard since this node started.
    Unheard,
    /// Heard, but not ready to announce.
    Joining,
    /// Heard and ready.
    Alive,
    /// Its speaker is silent, but its kernel vouches that it still answers for what the speaker announced.
    Stalled,
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

    /// Whether its silence is still to be judged.
    pub(super) fn is_watched(self) -> bool {
        matches!(self, Self::Joining | Self::Alive | Self::Stalled)
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
    /// Since when its table and ours differ.
    pub(super) differs: Option<Duration>,
    pub(super) probing: Probing,
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
        }
    }

    /// What a message of this phase makes of it. A speaker that starts again on a node whose kernel has answered
    /// meanwhile goes on where the one before it stopped, if that is not too long ago.
    pub(super) fn state_after(&self, now: Duration, phase: Phase) -> PeerState {
        match phase {
            Phase::Resuming if self.state.counts() && now < self.alive_at + STALLED_DEAD_AFTER => PeerState::Stalled,
            Phase::Joining | Phase::Resuming => PeerState::Joining,
            Phase::Alive => PeerState::Alive,
            Phase::Left => PeerState::Left,
        }
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
