//! A socket whose small writes wait for the end of the runtime's turn, and then go out one after the other.
//!
//! On the packet's way this is the last thing before the kernel, towards clients and towards endpoints. In one turn a thread
//! serves every connection that has something to read. Written at once, each answer wakes its reader on another processor,
//! which has read it and sleeps again by the time the next one comes: a wake-up a request costs more than all of the
//! proxy's own work on it. Behind one another they find their readers awake. A thread that serves a single connection
//! writes as soon as it would have gone to sleep, so nobody waits longer than for the requests that came with his own.
//!
//! What does not fit the buffer is written at once. Errors show with the next call, as they do for bytes that the kernel has
//! taken. What is not written when the socket is dropped is tried once more and then lost, as with the kernel's own buffer.

use std::{
    cell::RefCell,
    future::poll_fn,
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// What waits at most; larger writes go past the buffer.
const ROOM: usize = 8 * 1024;

thread_local! {
    static TURN: RefCell<Turn> = const { RefCell::new(Turn { waiting: Vec::new(), flusher: None }) };
}

/// The sockets of a thread that have something to write.
struct Turn {
    waiting: Vec<Arc<Mutex<Inner>>>,
    /// Wakes the task that writes it; `None` where there is none, and nothing waits.
    flusher: Option<Waker>,
}

/// A connected TCP socket.
#[derive(Debug)]
pub(crate) struct Socket(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    stream: TcpStream,
    out: Vec<u8>,
    /// The flusher has it.
    queued: bool,
    error: Option<io::ErrorKind>,
    /// Who waits until `out` is written.
    waiter: Option<Waker>,
}

impl Socket {
    /// A stream of this thread.
    #[must_use]
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self(Arc::new(Mutex::new(Inner { stream, out: Vec::new(), queued: false, error: None, waiter: None })))
    }

    /// Takes bytes into the buffer, if there is room and somebody to write it; 0 where there is not.
    fn keep(&self, inner: &mut Inner, slices: &[IoSlice<'_>]) -> usize {
        let length = slices.iter().map(|slice| slice.len()).sum::<usize>();
        if length > ROOM - inner.out.len().min(ROOM) || !(inner.queued || enqueue(&self.0)) {
            return 0;
        }
        if inner.queued && inner.out.is_empty() {
            // The flusher has it from a write that had to wait, and may be waiting for the kernel no more.
            with_flusher(Waker::wake_by_ref);
        }
        inner.queued = true;
        inner.out.reserve(length);
        for slice in slices {
            inner.out.extend_from_slice(slice);
        }
        length
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let inner = &mut *lock(&self.0);
        if !inner.out.is_empty() {
            let _best_effort = inner.stream.try_write(&inner.out);
            inner.out = Vec::new();
        }
        inner.waiter = None;
    }
}

impl Inner {
    fn check(&self) -> io::Result<()> {
        self.error.map_or(Ok(()), |kind| Err(kind.into()))
    }

    /// Writes what waits.
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        let mut written = 0;
        let done = loop {
            let rest = self.out.get(written..).unwrap_or_default();
            if rest.is_empty() {
                break Poll::Ready(Ok(()));
            }
            match Pin::new(&mut self.stream).poll_write(cx, rest) {
                Poll::Ready(Ok(0)) => break Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => written += count,
                Poll::Ready(Err(error)) => break Poll::Ready(Err(error)),
                Poll::Pending => break Poll::Pending,
            }
        };
        if done.is_pending() {
            self.out.drain(..written);
        } else {
            // Idle connections are many, and keep no buffer.
            self.out = Vec::new();
        }
        done
    }

    /// Writes what waits, on behalf of a task of its own connection. A stream wakes only who asked it last, and that has to
    /// stay the flusher: it goes on where the task gives up, and wakes the task when all is written.
    fn poll_written(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = with_flusher(|flusher| self.poll_out(&mut Context::from_waker(flusher)));
        if let Poll::Ready(done) = polled.unwrap_or_else(|| self.poll_out(cx)) {
            return Poll::Ready(done);
        }
        if !self.waiter.as_ref().is_some_and(|waiter| waiter.will_wake(cx.waker())) {
            self.waiter = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

/// Does something with the waker of this thread's flusher, if there is one.
fn with_flusher<T>(work: impl FnOnce(&Waker) -> T) -> Option<T> {
    TURN.with_borrow(|turn| turn.flusher.as_ref().map(work))
}

/// Puts a socket among those that are written at the end of this turn; false where nobody would.
fn enqueue(socket: &Arc<Mutex<Inner>>) -> bool {
    TURN.with_borrow_mut(|turn| {
        let Some(flusher) = &turn.flusher else { return false };
        if turn.waiting.is_empty() {
            flusher.wake_by_ref();
        }
        turn.waiting.push(Arc::clone(socket));
        true
    })
}

/// Writes at the end of each turn of this thread's runtime, for as long as it is polled.
pub(crate) async fn flush_turns() {
    let _over = Over;
    let mut slow: Vec<Arc<Mutex<Inner>>> = Vec::new();
    let mut batch = Vec::new();
    poll_fn(move |cx| {
        TURN.with_borrow_mut(|turn| {
            if !turn.flusher.as_ref().is_some_and(|flusher| flusher.will_wake(cx.waker())) {
                turn.flusher = Some(cx.waker().clone());
            }
            std::mem::swap(&mut turn.waiting, &mut batch);
        });
        slow.append(&mut batch);
        slow.retain(|socket| {
            let inner = &mut *lock(socket);
            let written = inner.poll_out(cx);
            if let Poll::Ready(done) = written {
                inner.queued = false;
                inner.error = done.err().map(|error| error.kind());
                inner.waiter.take().into_iter().for_each(Waker::wake);
                return false;
            }
            true
        });
        Poll::<()>::Pending
    })
    .await;
}

/// Without the flusher every write is one of its own again.
struct Over;

impl Drop for Over {
    fn drop(&mut self) {
        TURN.with_borrow_mut(|turn| *turn = Turn { waiting: Vec::new(), flusher: None });
    }
}

fn lock(inner: &Mutex<Inner>) -> MutexGuard<'_, Inner> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut lock(&self.0).stream).poll_read(cx, out)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let inner = &mut *lock(&self.0);
        inner.check()?;
        let kept = self.keep(inner, slices);
        if kept > 0 {
            return Poll::Ready(Ok(kept));
        }
        if inner.queued {
            // The order of bytes: first what waits. Most often the kernel takes it at once.
            ready!(inner.poll_written(cx))?;
        }
        Pin::new(&mut inner.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What waits goes out with this turn.
        Poll::Ready(lock(&self.0).check())
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let inner = &mut *lock(&self.0);
        ready!(inner.poll_written(cx))?;
        Pin::new(&mut inner.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
        task::yield_now,
    };

    use super::*;

    async fn pair() -> (Socket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        (Socket::new(near.unwrap()), far.unwrap().0)
    }

    /// Pieces of all sizes, some larger than the buffer.
    fn pieces() -> impl Iterator<Item = Vec<u8>> {
        [1, 100, ROOM, 7, ROOM + 1, 1, 1, 3 * ROOM, ROOM - 1, 2]
            .into_iter()
            .zip(b'a'..)
            .map(|(size, byte)| vec![byte; size])
    }

    async fn check_order() {
        let (mut socket, mut far) = pair().await;
        let expected: Vec<u8> = (0..20).flat_map(|_| pieces()).flatten().collect();
        let reader = tokio::spawn(async move {
            let mut all = Vec::new();
            far.read_to_end(&mut all).await.unwrap();
            all
        });
        for piece in (0..20).flat_map(|_| pieces()) {
            socket.write_all(&piece).await.unwrap();
        }
        socket.shutdown().await.unwrap();
        assert!(reader.await.unwrap() == expected, "all bytes, in order");
    }

    #[tokio::test]
    async fn bytes_keep_their_order_without_a_flusher() {
        check_order().await;
    }

    #[tokio::test]
    async fn bytes_keep_their_order_with_one() {
        let flusher = tokio::spawn(flush_turns());
        yield_now().await;
        check_order().await;
        flusher.abort();
    }

    #[tokio::test]
    async fn small_writes_go_out_together_at_the_end_of_the_turn() {
        let flusher = tokio::spawn(flush_turns());
        yield_now().await;
        let (mut socket, mut far) = pair().await;
        socket.write_all(b"one").await.unwrap();
        socket.write_all(b"two").await.unwrap();
        assert_eq!(lock(&socket.0).out, b"onetwo", "nothing has been written yet");
        let mut seen = [0; 6];
        far.read_exact(&mut seen).await.unwrap();
        assert_eq!(&seen, b"onetwo");
        socket.write_all(b"last").await.unwrap();
        drop(socket);
        let mut rest = String::new();
        far.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "last", "what waits is written when the socket is dropped");
        flusher.abort();
    }

    #[tokio::test]
    async fn small_pieces_behind_one_that_had_to_wait_go_out_too() {
        let flusher = tokio::spawn(flush_turns());
        yield_now().await;
        let (mut socket, mut far) = pair().await;
        let write = async move {
            for _ in 0..1024 {
                socket.write_all(&[b'x'; ROOM / 2]).await.unwrap();
                socket.write_all(&[b'y'; 2 * ROOM]).await.unwrap();
            }
            socket.write_all(b"end").await.unwrap();
            socket
        };
        // As a connection's task, the writer is woken for other things too, and tries to write each time.
        let others = async {
            loop {
                yield_now().await;
            }
        };
        let writer = tokio::spawn(async move {
            tokio::select! { socket = write => socket, () = others => unreachable!("it never ends") }
        });
        for _ in 0..100 {
            yield_now().await;
        }
        let mut rest = 1024 * (ROOM / 2 + 2 * ROOM) + 3;
        let mut room = vec![0; 1 << 16];
        while rest > 0 {
            let read = tokio::time::timeout(Duration::from_secs(20), far.read(&mut room)).await;
            rest -= read.unwrap_or_else(|_| panic!("{rest} bytes do not come")).unwrap();
        }
        // The socket was there all the time: nothing went out because it was dropped.
        drop(writer.await.unwrap());
        flusher.abort();
    }

    #[tokio::test]
    async fn a_reader_that_is_slow_holds_the_writer_up_and_loses_nothing() {
        let flusher = tokio::spawn(flush_turns());
        yield_now().await;
        let (mut socket, mut far) = pair().await;
        let writer = tokio::spawn(async move {
            for _ in 0..4096 {
                socket.write_all(&[b'x'; ROOM / 2]).await.unwrap();
            }
            socket.shutdown().await.unwrap();
        });
        for _ in 0..100 {
            yield_now().await;
        }
        assert!(!writer.is_finished(), "16 MiB do not fit the kernel's buffers");
        let mut count = 0;
        let mut room = vec![0; 1 << 20];
        loop {
            match far.read(&mut room).await.unwrap() {
                0 => break,
                some => count += some,
            }
        }
        writer.await.unwrap();
        assert_eq!(count, 4096 * ROOM / 2);
        flusher.abort();
    }
}
