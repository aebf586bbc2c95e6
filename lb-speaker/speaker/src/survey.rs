//! Looks at the interfaces and at the programs on them, on a thread of its own: the kernel lists both under a lock that
//! whoever makes or removes a network namespace holds for tenths of a second, and no heartbeat may wait for that.

use std::{
    collections::BTreeSet,
    io::{self, Write},
    mem,
    net::SocketAddr,
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel},
    time::Duration,
};

use anyhow::Context as _;
use roadstead_dataplane::responder::attached;

use crate::{
    links::{self, Link, Seen},
    loud::{Everybody, everybody},
};

/// How often to look without word of a change.
const RESCAN: Duration = Duration::from_secs(1);
/// Looking takes this part of the time at most, however often the interfaces change.
const RESCAN_SHARE: u32 = 5;
/// A look that takes longer waits for the kernel more than it works.
const LONGEST_WORK: Duration = Duration::from_millis(25);

/// What a look found.
#[derive(Clone, Debug)]
pub(crate) struct Survey {
    /// All interfaces.
    pub(crate) links: Vec<Link>,
    /// Those where a program of the agent meets what comes in.
    pub(crate) attached: BTreeSet<u32>,
    /// Those that had been removed before: what has the same number now is another one.
    pub(crate) gone: BTreeSet<u32>,
    /// How to reach everybody where a peer is.
    pub(crate) everybody: BTreeSet<Everybody>,
}

/// What is looked for besides the interfaces.
#[derive(Clone, Debug, Default)]
pub(crate) struct Questions {
    /// Where the agent's maps are pinned, if its programs are to be looked for.
    pub(crate) bpffs: Option<PathBuf>,
    /// Where the peers are.
    pub(crate) peers: BTreeSet<SocketAddr>,
}

impl Survey {
    /// Looks now.
    pub(crate) fn take(questions: &Questions) -> io::Result<Self> {
        let links = links::scan()?;
        let names = || links.iter().map(|link| &*link.name);
        let attached = questions.bpffs.as_ref().map(|bpffs| attached(bpffs, names())).unwrap_or_default();
        let attached = links.iter().filter(|link| attached.contains(&link.name)).map(|link| link.index).collect();
        Ok(Self { links, attached, gone: BTreeSet::new(), everybody: everybody(&questions.peers) })
    }
}

/// The thread that looks, and when it is to do so.
#[derive(Debug)]
pub(crate) struct Surveyor {
    questions: Questions,
    ask: SyncSender<Questions>,
    found: Receiver<io::Result<Survey>>,
    /// When the look that is under way began.
    begun: Option<Duration>,
    /// Links that were removed before it began, and since.
    gone: BTreeSet<u32>,
    gone_since: BTreeSet<u32>,
    next: Duration,
    /// Not before, whatever happens.
    earliest: Duration,
}

impl Surveyor {
    /// Starts the thread, which writes to `waker` when it has found something.
    pub(crate) fn start(questions: Questions, mut waker: UnixStream) -> anyhow::Result<Self> {
        let (ask, asked) = sync_channel::<Questions>(1);
        let (tell, found) = sync_channel(1);
        let work = move || {
            while let Ok(questions) = asked.recv() {
                if tell.send(Survey::take(&questions)).is_err() {
                    break;
                }
                // A full pipe means that the reader will wake anyway.
                let _already_awake = waker.write(&[1]);
            }
        };
        std::thread::Builder::new().name("survey".to_owned()).spawn(work).context("cannot start a thread")?;
        let (gone, gone_since) = (BTreeSet::new(), BTreeSet::new());
        let (next, earliest) = (Duration::ZERO, Duration::ZERO);
        Ok(Self { questions, ask, found, begun: None, gone, gone_since, next, earliest })
    }

    /// When [`Self::follow`] begins the next look; nothing while one is under way.
    pub(crate) fn next(&self) -> Option<Duration> {
        self.begun.is_none().then_some(self.next)
    }

    /// Something changed: looks as soon as it may.
    pub(crate) fn hurry(&mut self) {
        self.next = self.next.min(self.earliest);
    }

    /// The peers are there from now on.
    pub(crate) fn meet(&mut self, peers: BTreeSet<SocketAddr>) {
        self.questions.peers = peers;
        self.hurry();
    }

    /// Takes word of changes.
    pub(crate) fn note(&mut self, seen: Seen) {
        self.gone_since.extend(seen.gone);
        if seen.changed {
            self.hurry();
        }
    }

    /// Begins a look if one is due, and gives what the last one found, once.
    pub(crate) fn follow(&mut self, now: Duration) -> Option<io::Result<Survey>> {
        let found = self.begun.and_then(|begun| Some((self.found()?, now - begun)));
        let survey = found.map(|(survey, took)| {
            self.begun = None;
            self.earliest = now + took.min(LONGEST_WORK) * (RESCAN_SHARE - 1);
            // What changed while it looked asks for another look.
            self.next = if self.next > now { now + RESCAN } else { self.earliest };
            survey.map(|survey| Survey { gone: mem::take(&mut self.gone), ..survey })
        });
        if self.begun.is_none() && now >= self.next && self.ask.try_send(self.questions.clone()).is_ok() {
            (self.begun, self.next) = (Some(now), Duration::MAX);
            self.gone.append(&mut self.gone_since);
        }
        survey
    }

    fn found(&self) -> Option<io::Result<Survey>> {
        match self.found.try_recv() {
            Ok(found) => Some(found),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err(io::Error::other("the thread that looks has ended"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read, time::Instant};

    use super::*;

    #[test]
    fn it_looks_when_asked_and_once_more_for_what_changed_meanwhile() {
        let (waker, mut woken) = UnixStream::pair().unwrap();
        woken.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let origin = Instant::now();
        let mut surveyor = Surveyor::start(Questions::default(), waker).unwrap();
        assert_eq!(surveyor.next(), Some(Duration::ZERO));
        surveyor.note(Seen { changed: true, gone: BTreeSet::from([7]) });
        assert!(surveyor.follow(origin.elapsed()).is_none() && surveyor.next().is_none());
        surveyor.note(Seen { changed: true, gone: BTreeSet::from([8]) });
        woken.read_exact(&mut [0]).unwrap();
        let now = origin.elapsed();
        let survey = surveyor.follow(now).unwrap().unwrap();
        assert!(survey.links.iter().any(|link| link.name == "lo"), "{survey:?}");
        assert_eq!(survey.gone, BTreeSet::from([7]));
        // The change came while it looked: the next look is due soon, not in a second.
        let next = surveyor.next().unwrap();
        assert!(next <= now + LONGEST_WORK * RESCAN_SHARE, "{next:?} {now:?}");
        assert!(surveyor.follow(next).is_none() && surveyor.next().is_none());
        woken.read_exact(&mut [0]).unwrap();
        let now = origin.elapsed().max(next);
        assert_eq!(surveyor.follow(now).unwrap().unwrap().gone, BTreeSet::from([8]));
        assert_eq!(surveyor.next(), Some(now + RESCAN));
    }
}
