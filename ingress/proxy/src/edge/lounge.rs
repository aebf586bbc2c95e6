//! Idle connections without hyper: a stream that waits for its next request needs none of the buffers that a conversation does.
//!
//! hyper keeps 16 KiB of buffers for each HTTP/1 connection that it serves. So the guarded stream is only lent to it
//! ([`Lent`]); when nothing has been under way for a moment, hyper's part is dropped, the stream comes home, and hyper is
//! made anew with the first byte of the next request. Connections that are busy never notice.

use std::{
    cell::RefCell,
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    runtime::Handle,
    time::sleep,
};

use super::traffic::Traffic;
use crate::head::Guard;

/// A connection is put aside when it has been still from one look to the next.
const LOOK: Duration = Duration::from_millis(100);

thread_local! {
    /// This thread's connections that were still when they were looked at last.
    static STILL: RefCell<Vec<Arc<Traffic>>> = const { RefCell::new(Vec::new()) };
}

/// Notes that a connection is still. For one that is noted already it costs a look at a flag.
pub(super) fn note_still(traffic: &Arc<Traffic>) {
    if traffic.listed.load(Ordering::Relaxed) {
        return;
    }
    let Ok(runtime) = Handle::try_current() else { return };
    traffic.listed.store(true, Ordering::Relaxed);
    traffic.marked.store(traffic.begun(), Ordering::Relaxed);
    STILL.with_borrow_mut(|still| {
        if still.is_empty() {
            runtime.spawn(look());
        }
        still.push(Arc::clone(traffic));
    });
}

/// Asks those to be put aside that have brought nothing since the last look, until there are none.
async fn look() {
    let mut goes_on = true;
    while goes_on {
        sleep(LOOK).await;
        goes_on = STILL.with_borrow_mut(|still| {
            still.retain(|traffic| {
                let begun = traffic.begun();
                let moved = traffic.marked.swap(begun, Ordering::Relaxed) != begun;
                if !moved {
                    traffic.listed.store(false, Ordering::Relaxed);
                    traffic.put_aside();
                }
                moved
            });
            !still.is_empty()
        });
    }
}

/// Where a stream comes back to.
pub(super) struct Home<S> {
    wanted: AtomicBool,
    guard: Mutex<Option<Box<Guard<S>>>>,
}

impl<S> Home<S> {
    /// Nothing has come back yet.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { wanted: AtomicBool::new(false), guard: Mutex::new(None) })
    }

    /// Lends a stream to hyper.
    pub(super) fn lend(self: &Arc<Self>, guard: Box<Guard<S>>, traffic: &Arc<Traffic>) -> Lent<S> {
        self.wanted.store(false, Ordering::Relaxed);
        Lent { guard: Some(guard), home: Arc::clone(self), traffic: Arc::clone(traffic) }
    }

    /// Takes it back by dropping what it was lent to; `None` where that has given it away.
    pub(super) fn recall<B>(&self, borrower: B) -> Option<Box<Guard<S>>> {
        self.wanted.store(true, Ordering::Relaxed);
        drop(borrower);
        self.guard.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A guarded stream in hyper's hands.
pub(super) struct Lent<S> {
    /// There until it is dropped.
    guard: Option<Box<Guard<S>>>,
    home: Arc<Home<S>>,
    traffic: Arc<Traffic>,
}

impl<S> Lent<S> {
    fn guard(&mut self) -> io::Result<Pin<&mut Guard<S>>>
    where
        S: Unpin,
    {
        self.guard.as_deref_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// A write that waits is something under way.
    fn written<T>(&self, polled: Poll<T>) -> Poll<T> {
        if polled.is_pending() {
            self.traffic.quiet.store(false, Ordering::Relaxed);
        }
        polled
    }
}

impl<S> Drop for Lent<S> {
    fn drop(&mut self) {
        if self.home.wanted.load(Ordering::Relaxed) {
            *self.home.guard.lock().unwrap_or_else(PoisonError::into_inner) = self.guard.take();
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lent<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut guard = self.guard()?;
        let polled = guard.as_mut().poll_read(cx, out);
        let (quiet, in_head) = (polled.is_pending() && guard.is_quiet(), guard.is_in_head());
        self.traffic.quiet.store(quiet, Ordering::Relaxed);
        self.traffic.in_head.store(in_head, Ordering::Relaxed);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Lent<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = self.guard()?.poll_write(cx, bytes);
        self.written(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = self.guard()?.poll_write_vectored(cx, slices);
        self.written(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.guard.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = self.guard()?.poll_flush(cx);
        self.written(polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.guard()?.poll_shutdown(cx)
    }
}
