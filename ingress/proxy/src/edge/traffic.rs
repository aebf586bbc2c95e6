//! The requests of one connection as its watch sees them: under way, taken back, or none at all.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use super::notice::Notice;
use crate::answer::Flow;

/// How many requests a connection may take back before they are answered, beyond as many as were answered. Bursts are
/// h2's own matter; this is for resets paced one at a time, each of which costs an endpoint a request.
const RESET_BUDGET: u64 = 100;

/// The requests of one connection.
#[derive(Default)]
pub(super) struct Traffic {
    begun: AtomicU64,
    answered: AtomicU64,
    reset: AtomicU64,
    /// The answers that hyper has not written yet.
    pub(super) flow: Arc<Flow>,
    too_many_resets: AtomicBool,
    /// The connection has brought as many requests as it may.
    spent: AtomicBool,
    /// Nothing of a request has come since the last one.
    pub(super) quiet: AtomicBool,
    /// A part of an HTTP/1 head has come.
    pub(super) in_head: AtomicBool,
    /// It stands among those that may be put aside.
    pub(super) listed: AtomicBool,
    /// Requests that had begun when it was looked at there.
    pub(super) marked: AtomicU64,
    /// It is to be put aside.
    aside: AtomicBool,
    /// Wakes the connection's watch.
    pub(super) notice: Arc<Notice>,
}

impl Traffic {
    /// Requests that have come.
    pub(super) fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    /// Tells the watch that no more requests are welcome.
    pub(super) fn spend(&self) {
        self.spent.store(true, Ordering::Relaxed);
        self.notice.tell();
    }

    /// Whether that was told since it was asked last.
    pub(super) fn take_spent(&self) -> bool {
        self.spent.swap(false, Ordering::Relaxed)
    }

    /// Whether the client has taken back more requests than it may.
    pub(super) fn has_too_many_resets(&self) -> bool {
        self.too_many_resets.load(Ordering::Relaxed)
    }

    /// Asks the connection to be put aside.
    pub(super) fn put_aside(&self) {
        self.aside.store(true, Ordering::Relaxed);
        self.notice.tell();
    }

    /// Whether that was asked since it was looked at last.
    pub(super) fn take_aside(&self) -> bool {
        self.aside.swap(false, Ordering::Relaxed)
    }

    /// Whether nothing at all is under way: no request, no answer, no part of a head.
    pub(super) fn is_still(&self) -> bool {
        self.quiet.load(Ordering::Relaxed) && self.flow.is_over() && self.is_idle()
    }

    /// Whether a head has begun and not ended.
    pub(super) fn is_in_head(&self) -> bool {
        self.in_head.load(Ordering::Relaxed)
    }

    fn is_idle(&self) -> bool {
        let ended = self.answered.load(Ordering::Relaxed) + self.reset.load(Ordering::Relaxed);
        self.begun.load(Ordering::Relaxed) == ended
    }
}

/// The watch looks so often within the time that a connection may be idle.
pub(super) const TURNS: u32 = 4;
/// After so many turns of the watch without any motion a connection is cut. A client that grants no HTTP/2 flow control
/// never keeps a write waiting, so the guard cannot tell it from one that has nothing to read.
pub(super) const STALLED_TURNS: u32 = 3 * TURNS;

/// How long a connection has been still.
#[derive(Default)]
pub(super) struct Idle {
    seen: Option<(u64, u64)>,
    turns: u32,
}

impl Idle {
    /// The turns in a row within which no request was waiting for its answer, none came and no answer moved.
    pub(super) fn watch(&mut self, traffic: &Traffic) -> u32 {
        let now = Some((traffic.begun.load(Ordering::Relaxed), traffic.flow.moved()));
        self.turns = if now == self.seen && traffic.is_idle() { self.turns + 1 } else { 0 };
        self.seen = now;
        self.turns
    }
}

/// One request until it is answered, or taken back by the client: then hyper drops it unanswered.
pub(super) struct Busy {
    traffic: Arc<Traffic>,
    answered: bool,
}

impl Busy {
    /// Counts a request as begun.
    pub(super) fn new(traffic: &Arc<Traffic>) -> Self {
        traffic.begun.fetch_add(1, Ordering::Relaxed);
        Self { traffic: Arc::clone(traffic), answered: false }
    }

    /// The answers of its connection.
    pub(super) fn flow(&self) -> &Arc<Flow> {
        &self.traffic.flow
    }

    pub(super) fn finish(mut self) {
        self.answered = true;
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let traffic = &self.traffic;
        if self.answered {
            traffic.answered.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let reset = traffic.reset.fetch_add(1, Ordering::Relaxed) + 1;
        if reset > RESET_BUDGET + traffic.answered.load(Ordering::Relaxed) {
            traffic.too_many_resets.store(true, Ordering::Relaxed);
            traffic.notice.tell();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_idle_while_nothing_moves() {
        let (traffic, mut idle) = (Arc::new(Traffic::default()), Idle::default());
        assert_eq!((idle.watch(&traffic), idle.watch(&traffic)), (0, 1));
        let busy = Busy::new(&traffic);
        assert_eq!((idle.watch(&traffic), idle.watch(&traffic)), (0, 0), "a request waits for its answer");
        busy.finish();
        assert_eq!((idle.watch(&traffic), idle.watch(&traffic)), (1, 2));
        traffic.flow.note();
        assert_eq!((idle.watch(&traffic), idle.watch(&traffic)), (0, 1), "an answer moved");
    }

    #[test]
    fn a_connection_is_still_when_nothing_is_under_way() {
        let traffic = Arc::new(Traffic::default());
        assert!(!traffic.is_still(), "nobody has looked for a request yet");
        traffic.quiet.store(true, Ordering::Relaxed);
        assert!(traffic.is_still());
        let busy = Busy::new(&traffic);
        assert!(!traffic.is_still());
        let passage = Flow::enter(busy.flow());
        busy.finish();
        assert!(!traffic.is_still(), "the answer is not written yet");
        drop(passage);
        assert!(traffic.is_still());
    }
}
