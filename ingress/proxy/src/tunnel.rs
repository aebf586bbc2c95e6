//! Upgraded streams (WebSocket, RFC 6455): bytes both ways, until either side is done or both are silent.

use std::{
    cell::RefCell,
    io,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional},
    task::JoinSet,
    time::{sleep_until, timeout},
};

use crate::record::Record;

thread_local! {
    /// The tunnels of this thread. They outlive the connection that hyper knows, so the drain asks here.
    static TUNNELS: RefCell<JoinSet<()>> = RefCell::new(JoinSet::new());
}

/// Where a tunnel finds the record of the request that it began with: it is told when the tunnel ends, as by nginx.
#[derive(Clone, Default)]
pub struct Ledger(Arc<Mutex<Option<Box<Record>>>>);

impl Ledger {
    /// Leaves the record to the tunnel.
    pub fn keep(&self, record: Box<Record>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(record);
    }

    /// Tells it, with the bytes that were carried.
    fn close(&self, motion: &Motion) {
        if let Some(mut record) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            record.sent += motion.sent.load(Ordering::Relaxed);
            record.received += motion.received.load(Ordering::Relaxed);
        }
    }
}

/// Closed however the tunnel ends.
struct Open<'a>(&'a Ledger, &'a Motion);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.close(self.1);
    }
}

/// Copies between two streams once both have been upgraded, until neither has said anything for `silence`. What is
/// `held`, such as the client's place among the connections, is kept for as long as the tunnel is open.
pub fn spawn<H: Send + 'static>(client: OnUpgrade, upstream: OnUpgrade, silence: Duration, ledger: Ledger, held: H) {
    TUNNELS.with_borrow_mut(|tunnels| {
        while tunnels.try_join_next().is_some() {}
        tunnels.spawn(async move {
            let _held = held;
            let motion = Motion::new();
            let _open = Open(&ledger, &motion);
            let (client, upstream) = match tokio::try_join!(client, upstream) {
                Ok(both) => both,
                Err(error) => {
                    tracing::debug!(%error, "upgrade came to nothing");
                    return;
                }
            };
            if let Err(error) = carry_on(&motion, TokioIo::new(client), TokioIo::new(upstream), silence).await {
                tracing::debug!(%error, "tunnel broke");
            }
        });
    });
}

/// Copies both ways until both sides have ended, or nothing has moved in either direction for `silence`.
pub(crate) async fn carry<C, U>(client: C, upstream: U, silence: Duration) -> io::Result<()>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    carry_on(&Motion::new(), client, upstream, silence).await
}

async fn carry_on<C, U>(motion: &Motion, client: C, mut upstream: U, silence: Duration) -> io::Result<()>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    let mut client = Watched { stream: client, motion };
    let mut copy = pin!(copy_bidirectional(&mut client, &mut upstream));
    loop {
        let last = motion.last();
        tokio::select! {
            ended = &mut copy => return ended.map(|_| ()),
            () = sleep_until((last + silence).into()) => {}
        }
        if motion.last() == last {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "both sides are silent"));
        }
    }
}

/// When bytes last passed, in either direction.
struct Motion {
    start: Instant,
    /// Microseconds after the start.
    last: AtomicU64,
    /// Bytes from the client.
    received: AtomicU64,
    /// Bytes to it.
    sent: AtomicU64,
}

impl Motion {
    fn new() -> Self {
        let [last, received, sent] = [0; 3].map(AtomicU64::new);
        Self { start: Instant::now(), last, received, sent }
    }

    fn last(&self) -> Instant {
        self.start + Duration::from_micros(self.last.load(Ordering::Relaxed))
    }

    fn note(&self) {
        let now = u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }
}

/// The client's stream; every byte of a tunnel passes it, one way or the other.
struct Watched<'a, S> {
    stream: S,
    motion: &'a Motion,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<'_, S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = out.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, out);
        if polled.is_ready() {
            self.motion.note();
            self.motion.received.fetch_add((out.filled().len() - before) as u64, Ordering::Relaxed);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<'_, S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if let Poll::Ready(written) = &polled {
            self.motion.note();
            self.motion.sent.fetch_add(written.as_ref().map_or(0, |count| *count as u64), Ordering::Relaxed);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Waits for this thread's tunnels to end by themselves, then ends them.
pub async fn drain(patience: Duration) {
    let mut tunnels = TUNNELS.take();
    let _ = timeout(patience, async { while tunnels.join_next().await.is_some() {} }).await;
    tunnels.shutdown().await;
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const SILENCE: Duration = Duration::from_millis(200);

    #[tokio::test]
    async fn silence_both_ways_ends_a_tunnel_and_one_side_alone_does_not() {
        let ((mut near, client), (upstream, mut far)) = (duplex(64), duplex(64));
        let tunnel = tokio::spawn(carry(client, upstream, SILENCE));
        let begin = Instant::now();
        // The client says nothing for longer than the silence, while the other side goes on.
        while begin.elapsed() < SILENCE * 3 {
            far.write_all(b"x").await.unwrap();
            near.read_exact(&mut [0]).await.unwrap();
        }
        assert!(!tunnel.is_finished());
        let ended = timeout(Duration::from_secs(10), tunnel).await.expect("in time").unwrap();
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_half_closed_tunnel_is_silent_too() {
        let ((mut near, client), (upstream, _far)) = (duplex(64), duplex(64));
        near.shutdown().await.unwrap();
        let ended = timeout(Duration::from_secs(10), carry(client, upstream, SILENCE)).await.expect("in time");
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
