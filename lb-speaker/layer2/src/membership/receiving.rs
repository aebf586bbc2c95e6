//! What comes in: of which kind a datagram is, whether its sender may say it, and what follows from a heartbeat.

use std::time::Duration;

use super::{
    Change, DEAD_AFTER, Membership, MessageError, PeerState, Rejected,
    document::{Kind, Part},
    message::{Message, Phase, Question},
    probe::{self, Echo},
};

impl Membership {
    /// Takes a datagram in; `is_at` tells whether it came from the address of the peer with that name.
    ///
    /// # Errors
    /// Why the datagram was dropped.
    pub fn receive(
        &mut self,
        now: Duration,
        datagram: &[u8],
        is_at: impl Fn(&str) -> bool,
    ) -> Result<Change, Rejected> {
        if Kind::of(datagram).is_some() {
            return self.receive_part(now, datagram, is_at);
        }
        if Question::is(datagram) {
            return self.receive_question(now, datagram, is_at);
        }
        if probe::is_echo(datagram) {
            return self.receive_echo(now, datagram, is_at);
        }
        if probe::is_probe(datagram) {
            return Err(Rejected::Probe);
        }
        let message = Message::decode(datagram, self.key.as_ref())?;
        self.check_sender(message.name, is_at)?;
        let peer = self.peers.get_mut(message.name).ok_or(Rejected::Stranger)?;
        if message.boot < peer.boot {
            return Err(Rejected::EarlierRun(message.name.to_owned()));
        }
        if (message.boot, message.sequence) <= (peer.boot, peer.sequence) {
            // What was sent to everybody bears a word to another node, and the one to this node may come behind it.
            let awaited = (message.boot, message.sequence) == (peer.boot, peer.sequence) && !peer.spoke_to_us;
            if !awaited || message.word.boot != self.boot {
                return Err(Rejected::Replayed);
            }
            return Ok(if self.take_word(&message) { Change::Claims } else { Change::Nothing });
        }
        let same_run = peer.boot == message.boot;
        if !same_run {
            peer.fenced_until = peer.heard + DEAD_AFTER;
            peer.support.clear();
            peer.sees_us = PeerState::Unheard;
        }
        let returns = same_run && peer.state == PeerState::Dead && message.phase == Phase::Alive;
        let healed = returns || (same_run && peer.heals != message.heals);
        let counted = peer.state.counts();
        peer.state = peer.state_after(now, message.phase);
        peer.alive_at = if message.phase == Phase::Alive { now } else { peer.alive_at };
        (peer.boot, peer.sequence, peer.heals) = (message.boot, message.sequence, message.heals);
        (peer.heard, peer.digest) = (now, message.digest);
        peer.probing.reset();
        // A run that ended has no standing, except where its kernel answers on.
        if !same_run && peer.state != PeerState::Stalled {
            peer.standing = None;
        }
        let claimed = peer.standing_digest;
        // Who resumes has not told its standing yet; what its kernel holds stays as it was.
        if message.phase != Phase::Resuming || peer.state != PeerState::Stalled {
            peer.standing_digest = message.standing;
            peer.notice(now, counted);
        }
        let claimed = claimed != peer.standing_digest;
        let state = peer.state;
        if self.peer_stations.get(message.name).is_none_or(|known| known != message.stations) {
            self.peer_stations.insert(message.name.to_owned(), message.stations.to_vec());
        }
        if returns {
            self.heals = self.heals.wrapping_add(1);
            // It may be waiting for a word of ours before it answers again.
            self.next = now;
        }
        self.catch_up(now, message.name);
        let seen = self.take_word(&message);
        self.settle(message.name);
        self.ask(now);
        self.exchange(now);
        self.backing.dirty |= claimed || state.counts() != counted || !same_run;
        Ok(match state.counts() {
            _ if healed => Change::Healed,
            alive if alive != counted => Change::Members,
            _ if claimed || seen || message.phase == Phase::Leaving => Change::Claims,
            _ => Change::Nothing,
        })
    }

    fn receive_echo(
        &mut self,
        now: Duration,
        datagram: &[u8],
        is_at: impl Fn(&str) -> bool,
    ) -> Result<Change, Rejected> {
        let echo = Echo::decode(datagram).ok_or(MessageError::Malformed)?;
        let mut senders = self.peers.iter_mut().filter(|(name, peer)| peer.state.counts() && is_at(name));
        if senders.any(|(_, peer)| peer.probing.take(now, &echo)) {
            Ok(Change::Nothing)
        } else {
            Err(Rejected::Unasked)
        }
    }

    pub(super) fn check_sender(&self, name: &str, is_at: impl Fn(&str) -> bool) -> Result<(), Rejected> {
        match name {
            name if name == self.name => Err(Rejected::OwnName),
            name if !self.peers.contains_key(name) => Err(Rejected::Stranger),
            name if !is_at(name) => Err(Rejected::Misplaced(name.to_owned())),
            _ => Ok(()),
        }
    }

    fn receive_part(
        &mut self,
        now: Duration,
        datagram: &[u8],
        is_at: impl Fn(&str) -> bool,
    ) -> Result<Change, Rejected> {
        let part = Part::decode(datagram, self.key.as_ref())?;
        self.check_sender(part.name, is_at)?;
        if part.kind == Kind::Standing {
            return Ok(self.receive_standing(now, &part));
        }
        self.receive_document(now, &part);
        Ok(Change::Nothing)
    }
}
