//! The turns of the engine's thread: what has come in, what time has done, what follows from both, what goes out.

mod leasing;
mod telling;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Read},
    mem,
    net::IpAddr,
    os::{fd::AsFd, unix::net::UnixStream},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use roadstead_layer2::membership::{Arrival, Change, MAX_DATAGRAM, PeerState, Rejected};
use tokio::sync::{mpsc, watch};
use tracing::{debug, error, info, warn};

use super::{Inbox, Setup, Verdict};
use crate::{
    links::Watch,
    loud::Loud,
    members::Members,
    peers::PeerAddress,
    plan::{Desired, Owned},
    ports::Announced,
    segment::{Scene, Segment},
    standalone::Meeting,
    survey::{Survey, Surveyor},
};

/// Datagrams taken in a turn: more than a receive buffer of Linux's default size holds, so that all that had come when
/// the turn began is taken, and still a bound for a flood.
const DATAGRAMS_A_TURN: usize = 1024;
/// Frames taken from one interface before the heartbeats get their turn: a flood must not make this node look dead.
const FRAMES_A_TURN: usize = 64;
/// More frames than a receive buffer holds.
const FRAMES_QUEUED: usize = 1024;

/// What the thread knows and owns.
pub(super) struct Turn {
    pub(super) setup: Setup,
    pub(super) inbox: Arc<Mutex<Inbox>>,
    pub(super) woken: UnixStream,
    pub(super) desired: Option<Arc<Desired>>,
    pub(super) audible: BTreeMap<IpAddr, Owned>,
    pub(super) silent: BTreeSet<IpAddr>,
    pub(super) segment: Segment,
    pub(super) verdict: watch::Sender<Verdict>,
    /// What is known of all speakers.
    pub(super) told: watch::Sender<Members>,
    /// Of the configuration that holds.
    pub(super) number: u64,
    pub(super) loud: Loud,
    /// What is said goes to everybody as well.
    pub(super) is_loud: bool,
    pub(super) surveyor: Surveyor,
    pub(super) meeting: watch::Sender<Meeting>,
    /// The number of the indices that the meeting tells of.
    pub(super) met: Option<u64>,
    /// The digest of this node's files that the election reckons with.
    pub(super) files: u64,
    pub(super) arrived: mpsc::Sender<Arrival>,
    pub(super) announced: BTreeSet<Announced>,
    /// Numbers the configurations.
    pub(super) generation: u64,
    /// Others are to take over, then it ends.
    pub(super) leaving: bool,
    pub(super) stalled: BTreeSet<String>,
    /// Peers about whose datagrams there was a warning.
    pub(super) refused: BTreeSet<String>,
}

impl Turn {
    pub(super) fn run(&mut self) {
        // Before anything is decided: without an interface this node would win nothing.
        self.tell_interfaces();
        loop {
            if let Err(error) = self.wait() {
                error!(%error, "cannot wait for frames");
                return;
            }
            let (configured, stop) = self.take_inbox();
            let now = self.now();
            if stop && !self.leaving {
                self.leaving = true;
                self.setup.ownership.set_leaving(now);
            }
            // What has come in counts before what time has done: after this process was stopped for a while, the
            // heartbeats that queued up show that nobody is dead.
            // For the same reason it judges by the moment before it read: whatever came until then is read.
            let mut change = self.take_datagrams();
            // By these datagrams another node may have gone silent: what was asked before that was its to answer.
            let takes_over = self.setup.ownership.waiting().next().is_some();
            let mut occupied = takes_over && self.answer(FRAMES_QUEUED);
            let states = self.setup.ownership.membership.states().map(|(_, state)| state);
            self.is_loud = self.loud.follow(now, states);
            change = change.max(self.setup.ownership.tick(now));
            self.send();
            self.assemble(now);
            self.watch_stalled();
            let rescanned = self.rescan();
            if rescanned {
                self.loud.disturbed(now);
            }
            if configured || rescanned || stop || change != Change::Nothing {
                self.decide(change);
                self.tell_members();
            }
            if self.leaving && self.setup.ownership.may_leave(now) {
                return self.leave();
            }
            self.lease();
            occupied |= self.answer(FRAMES_A_TURN);
            let freed = self.announce();
            if occupied || freed {
                self.decide(Change::Nothing);
            }
            self.tell_verdict();
        }
    }

    fn now(&self) -> Duration {
        self.setup.origin.elapsed()
    }

    fn wait(&mut self) -> io::Result<()> {
        let mut next = self.setup.ownership.next();
        for other in [self.segment.next(), self.surveyor.next()].into_iter().flatten() {
            next = next.min(other);
        }
        // Rounded up: waking before the moment would spin until it comes.
        let millis = next.saturating_sub(self.now()).as_nanos().div_ceil(1_000_000);
        let timeout = PollTimeout::try_from(u64::try_from(millis).unwrap_or(u64::MAX)).unwrap_or(PollTimeout::MAX);
        let mut fds = vec![PollFd::new(self.woken.as_fd(), PollFlags::POLLIN)];
        fds.extend(self.setup.watch.iter().map(|watch| PollFd::new(watch.as_fd(), PollFlags::POLLIN)));
        fds.extend(self.setup.peers.iter().map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN)));
        fds.extend(self.setup.ports.iter().map(|(_, port)| PollFd::new(port.socket.as_fd(), PollFlags::POLLIN)));
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut drained = [0; 64];
        while (&self.woken).read(&mut drained).is_ok_and(|length| length == drained.len()) {}
        Ok(())
    }

    /// Whether there is a new configuration, and whether to stop.
    fn take_inbox(&mut self) -> (bool, bool) {
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        let (desired, number, stop) = (inbox.desired.take(), inbox.number, inbox.stop);
        let (peers, documents, fresh) = (inbox.peers.take(), inbox.documents.take(), mem::take(&mut inbox.fresh));
        drop(inbox);
        if let Some(peers) = peers {
            self.meet(&peers);
        }
        let mut configured = desired.is_some();
        if let Some(documents) = documents {
            let now = self.now();
            configured |= mem::replace(&mut self.files, documents.files) != documents.files;
            self.setup.ownership.set_files(now, documents.files);
            self.setup.ownership.membership.set_documents(now, documents);
        }
        if let Some((desired, table)) = desired {
            self.number = number;
            if self.setup.ports.exclude(desired.snapshot.excluded_interfaces().as_deref()) {
                self.surveyor.hurry();
            }
            if self.setup.probe {
                let assigned: BTreeSet<IpAddr> = table.values().flatten().copied().collect();
                self.segment.probe(self.now(), &(&fresh & &assigned), &assigned);
            }
            self.desired = Some(desired);
            self.generation += 1;
            self.setup.ownership.membership.set_configured();
        }
        (configured, stop)
    }

    /// Goes by other peers from now on.
    fn meet(&mut self, peers: &[PeerAddress]) {
        let now = self.now();
        info!(peers = peers.len(), "other speakers are named");
        self.setup.ownership.membership.set_peers(now, peers.iter().map(|peer| peer.name.clone()));
        if let Some(socket) = &mut self.setup.peers {
            socket.set_peers(peers);
        }
        if let Some(kernel) = &mut self.setup.kernel {
            kernel.meet(peers.iter().map(|peer| peer.address).collect());
        }
        self.surveyor.meet(peers.iter().map(|peer| peer.address).collect());
    }

    fn take_datagrams(&mut self) -> Change {
        let mut change = Change::Nothing;
        let Some(peers) = &self.setup.peers else { return change };
        let mut buffer = [0; MAX_DATAGRAM + 1];
        for _ in 0..DATAGRAMS_A_TURN {
            let Some((datagram, sender)) = peers.receive(&mut buffer) else { break };
            let now = self.setup.origin.elapsed();
            match self.setup.ownership.receive(now, datagram, |name| peers.is_at(name, sender)) {
                Ok(heard) => change = change.max(heard),
                // A datagram that was late is no news.
                Err(Rejected::Replayed) => {}
                Err(reason @ (Rejected::EarlierRun(_) | Rejected::Misplaced(_))) => {
                    // Once for each peer and kind: both texts name the peer.
                    if self.refused.insert(reason.to_string()) {
                        warn!(%sender, %reason, "heartbeats of a peer are refused");
                    }
                }
                Err(reason) => debug!(%sender, %reason, "datagram dropped"),
            }
        }
        self.send();
        change
    }

    /// Sends what the membership has to say.
    fn send(&mut self) {
        let Some(peers) = &self.setup.peers else { return };
        let mut told = BTreeSet::new();
        for (peer, datagram) in self.setup.ownership.membership.take_outgoing() {
            peers.send_to(&peer, &datagram);
            // Parts of a standing are the same for all.
            if self.is_loud && told.insert(datagram.clone()) {
                peers.send_to_everybody(&datagram);
            }
        }
        for (peer, part) in self.setup.ownership.membership.take_parts() {
            peers.send_to(&peer, &part);
        }
    }

    /// Tells of peers whose kernel answers while their speaker is silent.
    fn watch_stalled(&mut self) {
        let states = self.setup.ownership.membership.states();
        let stalled: BTreeSet<String> =
            states.filter(|(_, state)| *state == PeerState::Stalled).map(|(name, _)| name.to_owned()).collect();
        for peer in stalled.difference(&self.stalled) {
            warn!(%peer, "the peer's speaker is silent, its kernel answers: it keeps its addresses for a while");
        }
        self.stalled = stalled;
    }

    /// Until when this node may answer for an address that it announces; nothing if it may not now.
    fn lease_until(&self, ip: IpAddr) -> Option<Duration> {
        self.setup.ownership.lease_until(ip)
    }

    /// Whether it may answer at this very moment. To be asked before each answer: the process may have stood still since
    /// anything was decided.
    fn may_answer(&self, ip: IpAddr) -> bool {
        self.lease_until(ip).is_some_and(|until| self.now() < until)
    }

    /// Has the interfaces looked at, at once when something became of them, and now and then; follows what was found.
    fn rescan(&mut self) -> bool {
        if let Some(seen) = self.setup.watch.as_ref().map(Watch::drain) {
            self.surveyor.note(seen);
        }
        let now = self.now();
        let Some(survey) = self.surveyor.follow(now) else { return false };
        let followed = survey.context("cannot list the network interfaces").and_then(|survey| {
            let Survey { links, attached, gone, everybody } = survey;
            if let Some(peers) = &mut self.setup.peers {
                peers.set_everybody(everybody);
            }
            Ok((self.setup.ports.rescan(links, gone)?, attached))
        });
        let (rescanned, attached) = match followed {
            Ok((rescanned, attached)) => (rescanned, Some(attached)),
            Err(error) => {
                warn!(error = format!("{error:#}"), "cannot follow the interfaces");
                (false, None)
            }
        };
        self.tell_interfaces();
        for (_, port) in self.setup.ports.iter() {
            self.setup.metrics.dropped(port.socket.take_dropped().unwrap_or(0));
        }
        if let Some(attached) = attached {
            self.look(&attached);
        }
        rescanned
    }

    /// Tells the peers where this node announces, and as whom.
    fn tell_interfaces(&mut self) {
        let stations = self.setup.ports.iter().map(|(_, port)| port.station.mac);
        self.setup.ownership.membership.set_stations(stations);
        let usable = self.setup.ports.iter().map(|(_, port)| port.name.clone()).collect();
        self.setup.ownership.set_interfaces(self.now(), usable);
    }

    /// Holds the elections and takes up or lays down addresses. What this node claims it tells at once, and what it has laid
    /// down as soon as nothing here answers for it: others wait for that word.
    fn decide(&mut self, change: Change) {
        let membership = &self.setup.ownership.membership;
        let live = membership.live();
        for (name, state) in membership.states() {
            self.setup.metrics.peer(name, state);
        }
        if change >= Change::Members {
            let nodes: Vec<&str> = live.iter().map(String::as_str).collect();
            let dead = membership.states().filter(|(_, state)| *state == PeerState::Dead).count();
            info!(live = nodes.join(","), dead, "members changed");
        }
        let Some(desired) = self.desired.clone() else { return };
        let can = self.setup.ownership.abilities();
        // Thousands of elections take longer than the peers wait for a heartbeat.
        let fields = desired.fields(&live, &can, || self.beat());
        let now = self.now();
        let upheld = self.setup.ownership.decide(now, self.generation, &fields);
        // Another node answers as soon as it hears that this one does not: the kernel falls silent first.
        self.withdraw();
        self.beat();
        let answered = self.setup.ownership.answered();
        let address = |peer: &str| self.setup.peers.as_ref().and_then(|peers| peers.address(peer));
        let answered = answered.map(|(ip, former)| (ip, former.and_then(address))).collect();
        let mut owned = desired.owned(&self.setup.node, &answered);
        owned.retain(|ip, _| !self.segment.is_barred(*ip));
        self.setup.ports.warn_of_local(desired.allocation.services.values().flat_map(|got| got.ips.iter().copied()));
        let announced = self.setup.ports.announce(&owned);
        self.segment.own(now, &announced);
        if upheld || change == Change::Healed {
            self.segment.restart(now);
        }
        self.tell(owned, &announced);
        self.announced = announced;
    }

    /// Sends the heartbeats if they are due.
    fn beat(&mut self) {
        let now = self.now();
        if self.setup.ownership.membership.beat(now) {
            self.send();
        }
    }

    /// Takes the frames that came in, so many of an interface; true if an address turned out to be another host's.
    fn answer(&mut self, frames: usize) -> bool {
        let now = self.now();
        let mut segment = mem::take(&mut self.segment);
        let heard = segment.hear(now, scene(&self.setup), frames, |ip| self.may_answer(ip));
        self.segment = segment;
        for index in heard.broken {
            self.setup.ports.reopen(index);
            self.surveyor.hurry();
        }
        heard.occupied
    }

    /// Sends what is due; true if an address has become free.
    fn announce(&mut self) -> bool {
        let now = self.now();
        let mut segment = mem::take(&mut self.segment);
        let freed = segment.speak(now, scene(&self.setup), |ip| self.may_answer(ip));
        self.segment = segment;
        freed
    }

    /// Goes silent, then says so, three times: a lost farewell costs the others the whole dead interval where nobody has
    /// taken over before.
    fn leave(&mut self) {
        self.setup.ports.announce(&BTreeMap::new());
        self.tell(BTreeMap::new(), &BTreeSet::new());
        self.announced.clear();
        if let Some(kernel) = &mut self.setup.kernel {
            kernel.leave();
        }
        for _ in 0..3 {
            let now = self.now();
            self.setup.ownership.leave(now);
            self.send();
        }
        info!("left");
    }
}

fn scene(setup: &Setup) -> Scene<'_> {
    let kernel = setup.kernel.as_deref();
    Scene { ports: &setup.ports, membership: &setup.ownership.membership, metrics: &setup.metrics, kernel }
}
