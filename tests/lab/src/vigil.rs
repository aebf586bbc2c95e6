//! A vigil over one address: somebody asks at a fixed pace, on a thread that goes before all ordinary work, and keeps
//! who answered each question and when. What is asked is a datagram to an echo server, or who has the address.

mod datagrams;
mod log;
mod neighbours;

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::lab::Lab;
use crate::place::Place;
use crate::priority;

pub use log::{Log, Review};

/// How soon a receiving thread sees that it shall end.
const PAUSE: Duration = Duration::from_millis(50);

/// A running vigil; dropping it ends it.
#[derive(Debug)]
pub struct Vigil {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    log: Mutex<Log>,
    ended: AtomicBool,
    /// Microseconds between two questions.
    every: AtomicU64,
}

impl Vigil {
    /// A datagram a millisecond from a place to the lab's echo server at an address. Who answers is the server's name.
    ///
    /// # Errors
    ///
    /// Where there is no socket.
    pub fn datagrams(place: &Place, to: SocketAddr) -> Result<Self> {
        let asker = datagrams::Asker::open(place, to)?;
        let hearer = asker.hearer()?;
        Self::start(Duration::from_millis(1), move |number| asker.ask(number), move |log| hearer.hear(log))
    }

    /// Asks the segment every 10 ms from a place who has an address. Who answers is the node of the hardware address.
    /// The place should be nobody who uses the address: its kernel would learn from the answers.
    ///
    /// # Errors
    ///
    /// Where there is no socket.
    pub fn neighbours(lab: &Lab, place: &Place, of: IpAddr) -> Result<Self> {
        let asker = neighbours::Asker::open(place, of)?;
        let hearer = asker.hearer(lab)?;
        Self::start(Duration::from_millis(10), move |number| asker.ask(number), move |log| hearer.hear(log))
    }

    /// Looks at the log. Questions and answers wait meanwhile, though their moments are right.
    pub fn look<T>(&self, work: impl FnOnce(&Log) -> T) -> T {
        work(&self.shared.log())
    }

    /// Who alone has answered everything for so long.
    #[must_use]
    pub fn steady(&self, window: Duration) -> Option<Arc<str>> {
        let now = Instant::now();
        self.look(|log| log.steady(now, window))
    }

    /// What was seen between two moments.
    #[must_use]
    pub fn review(&self, from: Instant, to: Instant) -> Review {
        self.look(|log| log.review(from, to))
    }

    /// Asks at another pace from now on. A millisecond's costs a tenth of a processor, which others may need.
    pub fn pace(&self, every: Duration) {
        self.shared.every.store(u64::try_from(every.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Forgets what was asked before that moment.
    pub fn forget(&self, before: Instant) {
        self.shared.log().forget(before);
    }

    fn start(
        every: Duration,
        ask: impl Fn(u64) + Send + 'static,
        hear: impl Fn(&Shared) + Send + 'static,
    ) -> Result<Self> {
        let shared =
            Arc::new(Shared { log: Mutex::default(), ended: AtomicBool::new(false), every: AtomicU64::new(0) });
        let (asking, hearing) = (Arc::clone(&shared), Arc::clone(&shared));
        let mut vigil = Self { shared, threads: Vec::new() };
        vigil.pace(every);
        let hearer = move || {
            while !hearing.has_ended() {
                hear(&hearing);
            }
        };
        vigil.threads.push(urgently("vigil-hears", hearer)?);
        vigil.threads.push(urgently("vigil-asks", move || asking.ask(ask))?);
        Ok(vigil)
    }
}

impl Drop for Vigil {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            // A panic of it has been printed.
            let _ended = thread.join();
        }
    }
}

impl Shared {
    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// At absolute moments, so that the pace is kept; those that a machine standing still has missed are left out.
    fn ask(&self, ask: impl Fn(u64)) {
        let mut next = Instant::now();
        while !self.has_ended() {
            let number = self.log().ask(Instant::now());
            ask(number);
            next += Duration::from_micros(self.every.load(Ordering::Relaxed));
            let now = Instant::now();
            if next < now {
                next = now;
            }
            thread::sleep(next - now);
        }
    }
}

fn urgently(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    let thread = thread::Builder::new().name(name.to_owned()).spawn(|| {
        priority::raise();
        work();
    });
    Ok(thread?)
}
