//! The thread that everything timely happens on: heartbeats, election, answers, announcements.
//!
//! It owns its sockets and waits in one `poll`, apart from the async runtime, so that no other work of the process can
//! make a heartbeat late. The configuration comes in through an inbox; whoever writes there wakes the thread.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Read, Write},
    mem,
    net::IpAddr,
    os::{fd::AsFd, unix::net::UnixStream},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::Context as _;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use roadstead_layer2::{
    membership::{Arrival, Change, MAX_DATAGRAM, PeerState, Rejected},
    ownership::{Ownership, Partition},
    replica::{Documents, Table},
    wire::Mac,
};
use tokio::sync::{mpsc, watch};
use tracing::{debug, error, info, warn};

use crate::{
    kernel::{KernelLease, KernelResponder, Origin},
    links::Watch,
    loud::Loud,
    members::Members,
    metrics::Metrics,
    peers::{PeerAddress, PeerSocket},
    plan::{Desired, Owned},
    ports::{Announced, Ports},
    report::Announcing,
    segment::{Scene, Segment},
    standalone::Meeting,
    survey::{Questions, Survey, Surveyor},
};

/// Datagrams taken in a turn: more than a receive buffer of Linux's default size holds, so that all that had come when
/// the turn began is taken, and still a bound for a flood.
const DATAGRAMS_A_TURN: usize = 1024;
/// Documents of peers that wait to be read.
const ARRIVALS: usize = 64;

/// Frames taken from one interface before the heartbeats get their turn: a flood must not make this node look dead.
const FRAMES_A_TURN: usize = 64;
/// More frames than a receive buffer holds.
const FRAMES_QUEUED: usize = 1024;

/// What the engine starts with.
pub(crate) struct Setup {
    pub(crate) node: String,
    pub(crate) ownership: Ownership,
    /// When the ownership's time began.
    pub(crate) origin: Origin,
    /// `None` for a node without peers.
    pub(crate) peers: Option<PeerSocket>,
    pub(crate) ports: Ports,
    /// `None` where the kernel does not tell of changes: then the interfaces are looked at in turns.
    pub(crate) watch: Option<Watch>,
    /// What is looked for on the interfaces.
    pub(crate) questions: Questions,
    /// How often addresses are announced unasked; `None` for only when they come here.
    pub(crate) refresh: Option<Duration>,
    /// Whether the segment is asked for an address before it is handed out.
    pub(crate) probe: bool,
    pub(crate) metrics: Metrics,
    /// Who is told what this node announces.
    pub(crate) announcing: watch::Sender<Announcing>,
    /// What answers beside this process, if anything does.
    pub(crate) kernel: Option<Box<dyn KernelResponder>>,
}

/// What the segment says about new addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// The last configuration whose new addresses have all been asked for, by the number that [`Engine::set`] gave.
    pub(crate) done: u64,
    /// Addresses that another host has: they are not to be handed out.
    pub(crate) occupied: BTreeMap<IpAddr, Mac>,
}

#[derive(Debug, Default)]
struct Inbox {
    desired: Option<(Arc<Desired>, Table)>,
    /// The other speakers, where they are others than before.
    peers: Option<Vec<PeerAddress>>,
    documents: Option<Documents>,
    /// How many configurations were handed in.
    number: u64,
    stop: bool,
}

/// The running engine.
#[derive(Debug)]
pub(crate) struct Engine {
    inbox: Arc<Mutex<Inbox>>,
    waker: UnixStream,
    thread: JoinHandle<()>,
    verdicts: watch::Receiver<Verdict>,
    members: watch::Receiver<Members>,
    meetings: watch::Receiver<Meeting>,
}

impl Engine {
    /// Starts the thread; gives it with the documents that come from peers.
    pub(crate) fn start(setup: Setup) -> anyhow::Result<(Self, mpsc::Receiver<Arrival>)> {
        let (meeting, meetings) = watch::channel(Meeting::default());
        let (arrived, arrivals) = mpsc::channel(ARRIVALS);
        let (waker, woken) = UnixStream::pair().context("cannot make the engine's wake-up socket")?;
        waker.set_nonblocking(true).and_then(|()| woken.set_nonblocking(true)).context("cannot set up the socket")?;
        let inbox = Arc::new(Mutex::new(Inbox::default()));
        let segment = Segment::new(setup.refresh);
        let (verdict, verdicts) = watch::channel(Verdict::default());
        let (told, members) = watch::channel(Members::default());
        let waker_of_surveyor = waker.try_clone().context("cannot set up the socket")?;
        let surveyor = Surveyor::start(setup.questions.clone(), waker_of_surveyor)?;
        let mut turn = Turn {
            setup,
            inbox: Arc::clone(&inbox),
            woken,
            desired: None,
            audible: BTreeMap::new(),
            silent: BTreeSet::new(),
            segment,
            verdict,
            told,
            number: 0,
            loud: Loud::default(),
            is_loud: true,
            surveyor,
            meeting,
            met: None,
            files: 0,
            arrived,
            announced: BTreeSet::new(),
            generation: 0,
            leaving: false,
            stalled: BTreeSet::new(),
            refused: BTreeSet::new(),
        };
        let thread = std::thread::Builder::new().name("segment".to_owned()).spawn(move || turn.run());
        let thread = thread.context("cannot start the engine's thread")?;
        Ok((Self { inbox, waker, thread, verdicts, members, meetings }, arrivals))
    }

    /// Hands in the newest configuration, and the table of all addresses that are assigned. Gives the number by which
    /// [`Verdict::done`] names it.
    pub(crate) fn set(&self, desired: Arc<Desired>, table: Table) -> u64 {
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        inbox.desired = Some((desired, table));
        inbox.number += 1;
        let number = inbox.number;
        drop(inbox);
        self.wake();
        number
    }

    /// Hands in the other speakers; they count from the next configuration on.
    pub(crate) fn meet(&self, peers: Vec<PeerAddress>) {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner).peers = Some(peers);
        self.wake();
    }

    /// Hands in what the peers are told.
    pub(crate) fn publish(&self, documents: Documents) {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner).documents = Some(documents);
        self.wake();
    }

    /// What is known of the peers, for who assigns.
    pub(crate) fn meetings(&self) -> watch::Receiver<Meeting> {
        self.meetings.clone()
    }

    /// What is known of all speakers.
    pub(crate) fn members(&self) -> watch::Receiver<Members> {
        self.members.clone()
    }

    /// What the segment says about new addresses.
    pub(crate) fn verdicts(&self) -> watch::Receiver<Verdict> {
        self.verdicts.clone()
    }

    /// Tells the peers, stops answering, and waits for the thread's end.
    pub(crate) fn stop(self) {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner).stop = true;
        self.wake();
        if self.thread.join().is_err() {
            error!("the engine ended in a panic");
        }
    }

    fn wake(&self) {
        // A full pipe means that the thread will wake anyway.
        let _already_awake = (&self.waker).write(&[1]);
    }
}

struct Turn {
    setup: Setup,
    inbox: Arc<Mutex<Inbox>>,
    woken: UnixStream,
    desired: Option<Arc<Desired>>,
    audible: BTreeMap<IpAddr, Owned>,
    silent: BTreeSet<IpAddr>,
    segment: Segment,
    verdict: watch::Sender<Verdict>,
    /// What is known of all speakers.
    told: watch::Sender<Members>,
    /// Of the configuration that holds.
    number: u64,
    loud: Loud,
    /// What is said goes to everybody as well.
    is_loud: bool,
    surveyor: Surveyor,
    meeting: watch::Sender<Meeting>,
    /// The number of the indices that the meeting tells of.
    met: Option<u64>,
    /// The digest of this node's files that the election reckons with.
    files: u64,
    arrived: mpsc::Sender<Arrival>,
    announced: BTreeSet<Announced>,
    /// Numbers the configurations.
    generation: u64,
    /// Others are to take over, then it ends.
    leaving: bool,
    stalled: BTreeSet<String>,
    /// Peers about whose datagrams there was a warning.
    refused: BTreeSet<String>,
}

impl Turn {
    fn run(&mut self) {
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
        let (peers, documents) = (inbox.peers.take(), inbox.documents.take());
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
                let assigned = table.values().flatten().copied().collect();
                self.segment.probe(self.now(), &desired.fresh, &assigned);
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

    /// Hands the leases to the kernel's responder. What is claimed and not leased yet goes on as an earlier run left it.
    fn lease(&mut self) {
        let waiting = self.setup.ownership.waiting().collect();
        self.tell_kernel(&waiting);
    }

    /// Takes back from the kernel's responder what is claimed no more.
    fn withdraw(&mut self) {
        let claimed = self.setup.ownership.claims().map(|(ip, _)| ip).collect();
        self.tell_kernel(&claimed);
    }

    /// `left` are the addresses of which the kernel keeps what it has if there is no lease for it.
    fn tell_kernel(&mut self, left: &BTreeSet<IpAddr>) {
        if self.setup.kernel.is_none() {
            return;
        }
        let leases = self.announced.iter().filter_map(|announced| {
            let Announced { interface, mac, ip } = *announced;
            let until_ns = self.setup.origin.ns(self.lease_until(ip)?);
            let link_local = self.setup.ports.port(interface)?.station.link_local;
            Some(KernelLease { interface, mac, link_local, ip, until_ns, former: self.audible.get(&ip)?.former })
        });
        let leases: Vec<KernelLease> = leases.collect();
        let now = self.setup.origin.ns(self.now());
        // What an earlier speaker has left must not go before this one knows what it owns.
        let known = !self.setup.ownership.membership.is_undecided();
        if let Some(kernel) = &mut self.setup.kernel {
            kernel.follow(now, known.then_some((&leases, left)));
        }
    }

    /// Hands on what came from peers, and what is known of them.
    fn assemble(&mut self, now: Duration) {
        let strict = self.setup.ownership.rules().partition == Partition::Strict;
        let membership = &mut self.setup.ownership.membership;
        while let Ok(place) = self.arrived.try_reserve() {
            let Some(arrival) = membership.take_arrival() else { break };
            place.send(arrival);
        }
        let (version, indices) = membership.indices();
        let assigning = |name: &str| {
            let state = membership.states().find(|(peer, _)| *peer == name).map(|(_, state)| state);
            state.is_none_or(|state| state == PeerState::Alive)
        };
        let mut live = membership.live();
        live.retain(|name| assigning(name));
        let meeting = Meeting {
            over: membership.has_heard(now) && !membership.is_behind(now),
            cold: membership.is_cold(now),
            quorate: !strict || membership.is_quorate(),
            disagreeing: membership.disagreeing(now).map(str::to_owned).collect(),
            live,
            indices: BTreeMap::new(),
        };
        let known = self.meeting.borrow();
        let same = Meeting { indices: BTreeMap::new(), ..known.clone() } == meeting && self.met == Some(version);
        drop(known);
        if !same {
            let known = indices.into_iter().filter(|(peer, _)| meeting.live.contains(*peer));
            let indices = known.map(|(peer, index)| (peer.to_owned(), Arc::clone(index))).collect();
            self.met = Some(version);
            self.meeting.send_replace(Meeting { indices, ..meeting });
        }
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

    /// Looks where the kernel's responder answers, which decides how long a lease is, and counts what it has answered.
    fn look(&mut self, attached: &BTreeSet<u32>) {
        let Some(kernel) = &mut self.setup.kernel else { return };
        self.setup.ports.show(|ports, links| kernel.look(ports, links, attached));
        // A majority does not wait for a kernel to fall silent.
        let waits = self.setup.ownership.rules().partition == Partition::Availability;
        if waits && kernel.vouches() {
            self.setup.ownership.membership.answer_by_kernel();
        } else {
            self.setup.ownership.membership.answer_by_process();
        }
        for (ip, answers) in kernel.answered() {
            self.setup.metrics.responses(ip, answers);
        }
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

    /// Logs and counts what changed. An address that was won but has no interface to be announced on is told about too:
    /// nobody answers for it then.
    fn tell(&mut self, owned: BTreeMap<IpAddr, Owned>, announced: &BTreeSet<Announced>) {
        let heard: BTreeSet<IpAddr> = announced.iter().map(|announced| announced.ip).collect();
        let (audible, silent): (BTreeMap<_, _>, BTreeMap<_, _>) =
            owned.into_iter().partition(|(ip, _)| heard.contains(ip));
        for ip in audible.keys().filter(|ip| !self.audible.contains_key(ip)) {
            info!(%ip, "announces the address");
        }
        for ip in self.audible.keys().filter(|ip| !audible.contains_key(ip)) {
            info!(%ip, "no longer announces the address");
        }
        self.tell_announcing(&audible, &silent, announced);
        let silent: BTreeSet<IpAddr> = silent.into_keys().collect();
        for ip in silent.difference(&self.silent) {
            warn!(%ip, "this node is to announce the address, but on no interface it can");
        }
        self.setup.metrics.announced(&self.setup.node, &audible);
        (self.audible, self.silent) = (audible, silent);
    }

    fn tell_announcing(
        &self,
        audible: &BTreeMap<IpAddr, Owned>,
        silent: &BTreeMap<IpAddr, Owned>,
        announced: &BTreeSet<Announced>,
    ) {
        let mut announcing = Announcing::default();
        for Announced { interface, ip, .. } in announced {
            let (Some(owned), Some(port)) = (audible.get(ip), self.setup.ports.port(*interface)) else { continue };
            for service in &owned.services {
                announcing.services.entry(service.clone()).or_default().insert(port.name.clone());
            }
        }
        announcing.silent = silent.values().flat_map(|owned| owned.services.iter().cloned()).collect();
        self.setup.announcing.send_if_modified(|told| {
            let news = *told != announcing;
            *told = announcing;
            news
        });
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

    fn tell_members(&self) {
        let members = Members::of(&self.setup.ownership);
        self.told.send_if_modified(|told| {
            let news = *told != members;
            *told = members;
            news
        });
    }

    fn tell_verdict(&self) {
        let done = if self.segment.is_asking() { self.verdict.borrow().done } else { self.number };
        let verdict = Verdict { done, occupied: self.segment.occupied() };
        self.setup.metrics.occupied(verdict.occupied.len());
        self.verdict.send_if_modified(|told| {
            let news = *told != verdict;
            *told = verdict;
            news
        });
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
