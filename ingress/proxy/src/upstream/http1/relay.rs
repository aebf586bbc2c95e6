//! Wakers that stay the same while the tasks behind them change.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};
use std::task::{Wake, Waker};

/// Wakes whoever holds a connection now; while nobody does, it only remembers.
#[derive(Default)]
pub(super) struct Relay {
    holder: Mutex<Option<Waker>>,
    woken: AtomicBool,
    /// The holder is at work on the connection, and need not be told.
    quiet: AtomicBool,
}

impl Relay {
    /// From now on wakes this task.
    pub(super) fn follow(&self, task: &Waker) {
        let mut holder = self.holder.lock().unwrap_or_else(PoisonError::into_inner);
        if !holder.as_ref().is_some_and(|holder| holder.will_wake(task)) {
            *holder = Some(task.clone());
        }
    }

    /// From now on wakes nobody.
    pub(super) fn follow_nobody(&self) {
        *self.holder.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Works on the connection; what wakes it meanwhile wakes nobody, and is told.
    pub(super) fn quietly<T>(&self, work: impl FnOnce() -> T) -> (T, bool) {
        self.woken.store(false, Ordering::Relaxed);
        self.quiet.store(true, Ordering::Release);
        let done = work();
        self.quiet.store(false, Ordering::Release);
        (done, self.woken.load(Ordering::Relaxed))
    }

    /// Whether anything has happened since it was worked on, or asked last.
    pub(super) fn was_woken(&self) -> bool {
        self.woken.swap(false, Ordering::Relaxed)
    }
}

impl Wake for Relay {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::Relaxed);
        if !self.quiet.load(Ordering::Acquire)
            && let Some(holder) = &*self.holder.lock().unwrap_or_else(PoisonError::into_inner)
        {
            holder.wake_by_ref();
        }
    }
}

/// Remembers that it was woken.
#[derive(Default)]
pub(super) struct Note(AtomicBool);

impl Note {
    pub(super) fn clear(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Wake for Note {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_wakes_its_holder_unless_that_is_at_work() {
        let relay = Arc::new(Relay::default());
        let (one, other) = (Arc::new(Note::default()), Arc::new(Note::default()));
        let waker = Waker::from(Arc::clone(&relay));
        waker.wake_by_ref();
        assert!(relay.was_woken() && !relay.was_woken(), "nobody holds it, but it remembers");
        relay.follow(&Waker::from(Arc::clone(&one)));
        let (_, woken) = relay.quietly(|| waker.wake_by_ref());
        assert!(woken && !one.is_set());
        waker.wake_by_ref();
        assert!(one.is_set());
        relay.follow(&Waker::from(Arc::clone(&other)));
        one.clear();
        waker.wake_by_ref();
        assert!(other.is_set() && !one.is_set());
        other.clear();
        relay.follow_nobody();
        waker.wake();
        assert!(!other.is_set() && relay.was_woken());
    }
}
