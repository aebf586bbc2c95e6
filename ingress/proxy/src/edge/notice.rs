//! What concerns a connection beside its bytes, at the cost of one look at a flag while there is nothing.
//!
//! A connection's task is woken for its bytes almost every time. Asking the shutdown, the timer and the rest each time would
//! cost more than a part of hyper's own work, so they wake a flag of their own, and the task with it.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use tokio::time::{Interval, interval};

use super::traffic::{Idle, TURNS, Traffic};

/// Between two turns of the watch over a connection that may not stay idle at all.
const SHORTEST_TURN: Duration = Duration::from_millis(250);

/// A flag, and the task that looks at it.
#[derive(Default)]
pub(super) struct Notice {
    told: AtomicBool,
    task: Mutex<Option<Waker>>,
}

impl Notice {
    /// Sets the flag and wakes the task.
    pub(super) fn tell(&self) {
        if !self.told.swap(true, Ordering::Relaxed)
            && let Some(task) = &*self.task.lock().unwrap_or_else(PoisonError::into_inner)
        {
            task.wake_by_ref();
        }
    }
}

impl Wake for Notice {
    fn wake(self: Arc<Self>) {
        self.tell();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.tell();
    }
}

/// What has become of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The process is to end.
    Stop,
    /// It has brought as many requests as it may.
    Spent,
    /// It takes too many of them back.
    TooManyResets,
    /// It has been idle for so many turns; 0 where it has not.
    Idle(u32),
    /// It could be put aside.
    Aside,
}

/// Everything that wakes the flag.
pub(super) struct Watch<'a> {
    traffic: &'a Traffic,
    waker: Waker,
    task: Option<Waker>,
    /// `None` once it has come.
    stop: Option<Pin<Box<dyn Future<Output = ()> + Send + 'a>>>,
    turns: Interval,
    idle: Idle,
}

impl<'a> Watch<'a> {
    /// Watches over a connection that may be idle for `keep_alive`.
    pub(super) fn new(traffic: &'a Traffic, keep_alive: Duration, stop: impl Future<Output = ()> + Send + 'a) -> Self {
        Self {
            traffic,
            waker: Waker::from(Arc::clone(&traffic.notice)),
            task: None,
            stop: Some(Box::pin(stop)),
            turns: interval((keep_alive / TURNS).max(SHORTEST_TURN)),
            idle: Idle::default(),
        }
    }

    /// The next event. Whoever gets one asks again.
    pub(super) fn poll_event(&mut self, cx: &Context<'_>) -> Poll<Event> {
        let notice = &self.traffic.notice;
        let is_new = !self.task.as_ref().is_some_and(|task| task.will_wake(cx.waker()));
        if is_new {
            self.task = Some(cx.waker().clone());
            *notice.task.lock().unwrap_or_else(PoisonError::into_inner) = self.task.clone();
        }
        if !notice.told.load(Ordering::Relaxed) && !is_new {
            return Poll::Pending;
        }
        notice.told.store(false, Ordering::Relaxed);
        let event = self.look();
        if event.is_ready() {
            // There may be more than one.
            notice.told.store(true, Ordering::Relaxed);
        }
        event
    }

    fn look(&mut self) -> Poll<Event> {
        let cx = &mut Context::from_waker(&self.waker);
        if self.stop.as_mut().is_some_and(|stop| stop.as_mut().poll(cx).is_ready()) {
            self.stop = None;
            return Poll::Ready(Event::Stop);
        }
        if self.traffic.take_spent() {
            return Poll::Ready(Event::Spent);
        }
        if self.traffic.has_too_many_resets() {
            return Poll::Ready(Event::TooManyResets);
        }
        if self.turns.poll_tick(cx).is_ready() {
            return Poll::Ready(Event::Idle(self.idle.watch(self.traffic)));
        }
        if self.traffic.take_aside() {
            return Poll::Ready(Event::Aside);
        }
        Poll::Pending
    }
}
