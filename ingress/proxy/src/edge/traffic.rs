//! The requests of one connection as its watch sees them: under way, taken back, or none at all.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::Notify;

/// How many requests a connection may take back before they are answered, beyond as many as were answered. Bursts are
/// h2's own matter; this is for resets paced one at a time, each of which costs an endpoint a request.
const RESET_BUDGET: u64 = 100;

/// The requests of one connection.
#[derive(Default)]
pub(super) struct Traffic {
    begun: AtomicU64,
    answered: AtomicU64,
    reset: AtomicU64,
    /// Pieces of answers' bodies that were handed to hyper.
    pub(super) moved: Arc<AtomicU64>,
    too_many_resets: Notify,
    /// The connection has brought as many requests as it may.
    spent: Notify,
}

impl Traffic {
    /// Requests that have come.
    pub(super) fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    /// Tells the watch that no more requests are welcome.
    pub(super) fn spend(&self) {
        self.spent.notify_one();
    }

    /// Waits for [`Traffic::spend`].
    pub(super) async fn spent(&self) {
        self.spent.notified().await;
    }

    /// Waits until the client has taken back more requests than it may.
    pub(super) async fn too_many_resets(&self) {
        self.too_many_resets.notified().await;
    }

    fn is_idle(&self) -> bool {
        let ended = self.answered.load(Ordering::Relaxed) + self.reset.load(Ordering::Relaxed);
        self.begun.load(Ordering::Relaxed) == ended
    }
}

/// After so many turns of the watch without any motion a connection is cut. A client that grants no HTTP/2 flow control
/// never keeps a write waiting, so the guard cannot tell it from one that has nothing to read.
pub(super) const STALLED_TURNS: u32 = 3;

/// How long a connection has been still.
#[derive(Default)]
pub(super) struct Idle {
    seen: Option<(u64, u64)>,
    turns: u32,
}

impl Idle {
    /// The turns in a row within which no request was waiting for its answer, none came and no answer moved.
    pub(super) fn watch(&mut self, traffic: &Traffic) -> u32 {
        let now = Some((traffic.begun.load(Ordering::Relaxed), traffic.moved.load(Ordering::Relaxed)));
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
            traffic.too_many_resets.notify_one();
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
        traffic.moved.fetch_add(1, Ordering::Relaxed);
        assert_eq!((idle.watch(&traffic), idle.watch(&traffic)), (0, 1), "an answer moved");
    }
}
