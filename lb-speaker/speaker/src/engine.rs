//! The thread that everything timely happens on: heartbeats, election, answers, announcements.
//!
//! It owns its sockets and waits in one `poll`, apart from the async runtime, so that no other work of the process can
//! make a heartbeat late. The configuration comes in through an inbox; whoever writes there wakes the thread.

mod turn;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    net::IpAddr,
    os::unix::net::UnixStream,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::Context as _;
use roadstead_layer2::{
    membership::Arrival,
    ownership::Ownership,
    replica::{Documents, Table},
    wire::Mac,
};
use tokio::sync::{mpsc, watch};
use tracing::error;

use crate::{
    kernel::{KernelResponder, Origin},
    links::Watch,
    loud::Loud,
    members::Members,
    metrics::Metrics,
    peers::{PeerAddress, PeerSocket},
    plan::Desired,
    ports::Ports,
    report::Announcing,
    segment::Segment,
    standalone::Meeting,
    survey::{Questions, Surveyor},
};
use turn::Turn;

/// Documents of peers that wait to be read.
const ARRIVALS: usize = 64;

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
    /// Addresses that the segment is to be asked for, of all configurations that were handed in since the thread looked.
    fresh: BTreeSet<IpAddr>,
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
        inbox.fresh.extend(&desired.fresh);
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
