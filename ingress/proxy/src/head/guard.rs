//! The stream between client and hyper that lets only judged heads through.
//!
//! It follows the message boundaries itself, so every head of a keep-alive or pipelined stream is judged, and hyper never
//! gets more than one message's head in a read. A refused head is replaced by a head of our own that carries a mark only this
//! process knows: hyper then answers in order, behind whatever it is still sending, and closes. Nothing behind a refused
//! head reaches hyper.

use std::{
    cell::RefCell,
    collections::hash_map::RandomState,
    hash::BuildHasher,
    io,
    pin::Pin,
    sync::LazyLock,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use http::{HeaderMap, StatusCode};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

use super::{Chunked, Framing, Length, Refusal, check_head, end_of_head};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const READ_BYTES: usize = 4 * 1024;
/// How much a refused client may still send while the answer goes out; draining keeps the kernel from resetting the
/// connection before the answer is read.
const DRAIN_BYTES: usize = 256 * 1024;
const MARK: &str = "x-roadstead-refused";

/// Makes the mark unforgeable; a client cannot know it.
static NONCE: LazyLock<String> = LazyLock::new(|| {
    format!("{:016x}{:016x}", RandomState::new().hash_one("nonce"), RandomState::new().hash_one("second half"))
});

/// The status to answer with, when the request stands for one that the guard refused.
#[must_use]
pub fn refused_status(headers: &HeaderMap) -> Option<StatusCode> {
    let (nonce, status) = headers.get(MARK)?.to_str().ok()?.split_once('-')?;
    if nonce != *NONCE {
        return None;
    }
    Some(StatusCode::from_bytes(status.as_bytes()).unwrap_or(StatusCode::BAD_REQUEST))
}

/// How much a client may send at once, and how long it is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of a head: request line, fields and the empty line.
    pub head_bytes: usize,
    /// From the start of the connection, or a later head's first byte, to the end of the head.
    pub head: Duration,
    /// While nothing comes of a body that is waited for.
    pub body: Duration,
    /// While it takes nothing of what is written to it.
    pub write: Duration,
    /// Whether HTTP/2's preface is let through; else it is a head like any other, and a bad one.
    pub http2: bool,
}

/// A client's stream, guarded.
pub struct Guard<S> {
    stream: S,
    /// Read, and not yet given to hyper.
    buffer: BytesMut,
    /// How many bytes at the front of `buffer` hyper may have.
    released: usize,
    state: State,
    limits: Limits,
    /// Runs while a head is incomplete: from the start of the connection, later from a head's first byte.
    deadline: Option<Pin<Box<Sleep>>>,
    /// Runs while a write waits for the client.
    stalled: Option<Pin<Box<Sleep>>>,
    /// While a body is under way: runs from the last wait for more of it.
    quiet: Option<Quiet>,
}

/// The time that a body may be waited for. The timer stays until the message's end, so that a body in many pieces sets it
/// anew and makes none.
struct Quiet {
    timer: Pin<Box<Sleep>>,
    waiting: bool,
}

enum State {
    /// Nothing has been read: HTTP/2 is still possible.
    Start,
    /// In a head, of which this much has been searched for its end.
    Head { seen: usize },
    /// In a body with this much to come.
    Body { left: u64 },
    /// In a chunked body.
    Chunked(Chunked),
    /// No longer ours to follow: HTTP/2, or behind a request to upgrade. The proxy closes the connection when an upgrade is
    /// not accepted, so that nothing in here is taken for a request.
    Passing,
    /// A head was refused; what comes is dropped, up to this much.
    Refused { left: usize },
    /// The client has nothing more to send.
    Ended,
}

impl<S> Guard<S> {
    /// Guards a stream; the time for its first head begins now.
    pub fn new(stream: S, limits: Limits) -> Self {
        let deadline = Some(Box::pin(sleep(limits.head)));
        Self {
            stream,
            buffer: BytesMut::new(),
            released: 0,
            state: State::Start,
            limits,
            deadline,
            stalled: None,
            quiet: None,
        }
    }

    /// Moves on over what is buffered; releases at most one head, or as much of a body as is there.
    fn advance(&mut self) -> io::Result<()> {
        while self.released == 0 && !self.buffer.is_empty() {
            match &mut self.state {
                State::Start => {
                    if !self.tell_version() {
                        return Ok(());
                    }
                }
                State::Head { seen } => {
                    let seen = *seen;
                    if !self.read_head(seen) {
                        return Ok(());
                    }
                }
                State::Body { left: 0 } => self.next_head(),
                State::Body { left } => {
                    self.released = usize::try_from(*left).unwrap_or(usize::MAX).min(self.buffer.len());
                    *left -= self.released as u64;
                }
                State::Chunked(chunked) if chunked.is_done() => self.next_head(),
                State::Chunked(chunked) => match chunked.advance(&self.buffer) {
                    Ok(used) => self.released = used,
                    // The head is long answered to; hyper can only fail the body.
                    Err(refusal) => {
                        self.state = State::Ended;
                        return Err(io::Error::new(io::ErrorKind::InvalidData, refusal.reason));
                    }
                },
                State::Passing => self.released = self.buffer.len(),
                State::Refused { .. } | State::Ended => {
                    self.buffer.clear();
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Whether nothing is under way: all of the last message has been handed out, nothing of the next one has come.
    pub fn is_quiet(&self) -> bool {
        let is_between = match &self.state {
            State::Start | State::Head { seen: 0 } | State::Body { left: 0 } => true,
            State::Chunked(chunked) => chunked.is_done(),
            _ => false,
        };
        is_between && self.buffer.is_empty() && self.stalled.is_none()
    }

    /// Whether a head has begun to come.
    pub fn is_in_head(&self) -> bool {
        matches!(self.state, State::Start | State::Head { .. }) && !self.buffer.is_empty()
    }

    fn next_head(&mut self) {
        self.state = State::Head { seen: 0 };
        self.quiet = None;
    }

    /// Tells HTTP/2's preface from an HTTP/1 head; false while that is open.
    fn tell_version(&mut self) -> bool {
        let common = self.buffer.len().min(PREFACE.len());
        if !self.limits.http2 || self.buffer.get(..common) != PREFACE.get(..common) {
            self.state = State::Head { seen: 0 };
            return true;
        }
        if self.buffer.len() < PREFACE.len() {
            return false;
        }
        self.deadline = None;
        self.state = State::Passing;
        true
    }

    /// Judges the head at the front of the buffer; false while it is incomplete.
    fn read_head(&mut self, seen: usize) -> bool {
        // RFC 9112, section 2.2: empty lines before the request line are to be ignored. However many, else it would matter
        // how they are cut into reads.
        while seen == 0 && self.buffer.starts_with(b"\r\n") {
            self.buffer.advance(2);
        }
        let judged = match end_of_head(&self.buffer, seen) {
            Ok(None) if self.buffer.len() > self.limits.head_bytes => Err(Refusal::new(431, "head too large")),
            Ok(None) => {
                // An end may lie across two reads, so its first three bytes are searched again.
                self.state = State::Head { seen: self.buffer.len().saturating_sub(3) };
                if self.deadline.is_none() {
                    self.deadline = Some(Box::pin(sleep(self.limits.head)));
                }
                return false;
            }
            Ok(Some(end)) if end > self.limits.head_bytes => Err(Refusal::new(431, "head too large")),
            Ok(Some(end)) => check_head(self.buffer.get(..end).unwrap_or_default()).map(|framing| (end, framing)),
            Err(refusal) => Err(refusal),
        };
        self.deadline = None;
        match judged {
            Ok((end, framing)) => self.release_head(end, framing),
            Err(refusal) => self.refuse(refusal),
        }
        true
    }

    fn release_head(&mut self, end: usize, framing: Framing) {
        self.released = end;
        self.state = match framing {
            Framing { upgrade: true, .. } => State::Passing,
            Framing { length: Length::Chunked, .. } => State::Chunked(Chunked::default()),
            Framing { length: Length::Bytes(left), .. } => State::Body { left },
        };
    }

    /// Puts our own marked head in the place of the client's.
    fn refuse(&mut self, refusal: Refusal) {
        tracing::debug!(status = refusal.status, reason = refusal.reason, "head refused");
        let head = format!(
            "GET / HTTP/1.1\r\nhost: refused\r\n{MARK}: {}-{}\r\nconnection: close\r\n\r\n",
            *NONCE, refusal.status
        );
        self.deadline = None;
        self.buffer = BytesMut::from(head.as_bytes());
        self.released = self.buffer.len();
        self.state = State::Refused { left: DRAIN_BYTES };
    }

    fn give(&mut self, out: &mut ReadBuf<'_>) {
        let count = self.released.min(out.remaining());
        out.put_slice(self.buffer.get(..count).unwrap_or_default());
        self.buffer.advance(count);
        self.released -= count;
        if self.buffer.is_empty() {
            // An idle connection holds no buffer.
            self.buffer = BytesMut::new();
        }
    }

    /// What a write came to, or the error of a client that has taken nothing for too long.
    fn in_time<T>(&mut self, written: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let patience = self.limits.write;
        ready!(self.stalled.get_or_insert_with(|| Box::pin(sleep(patience))).as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing of what it is sent")))
    }

    /// An error when a body that is waited for has been waited for too long.
    fn poll_quiet(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let patience = self.limits.body;
        let quiet = self.quiet.get_or_insert_with(|| Quiet { timer: Box::pin(sleep(patience)), waiting: false });
        if !quiet.waiting {
            quiet.waiting = true;
            quiet.timer.as_mut().reset(Instant::now() + patience);
        }
        ready!(quiet.timer.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client sends nothing of its body")))
    }

    /// Something of a body has come.
    fn unquiet(&mut self) {
        if let Some(quiet) = &mut self.quiet {
            quiet.waiting = false;
        }
    }

    /// True when the time for the head is over: then it has been refused, or the stream ended if nothing had come.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> bool {
        let expired = self.deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready());
        if expired && self.buffer.is_empty() {
            self.deadline = None;
            self.state = State::Ended;
        } else if expired {
            self.refuse(Refusal::new(408, "head took too long"));
        }
        expired
    }
}

/// What a connection begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hello {
    /// A head of HTTP/1, good or bad.
    Http1,
    /// HTTP/2's preface.
    Http2,
}

impl<S: AsyncRead + Unpin> Guard<S> {
    /// Waits until something of a request is there, and of a first one enough to tell HTTP/2 from HTTP/1; `None` where nothing
    /// comes any more. What has come is read as ever afterwards.
    pub fn poll_hello(&mut self, cx: &mut Context<'_>) -> Poll<Option<Hello>> {
        loop {
            let told = !self.buffer.is_empty() && (!matches!(self.state, State::Start) || self.tell_version());
            if told {
                let is_http2 = matches!(self.state, State::Passing);
                return Poll::Ready(Some(if is_http2 { Hello::Http2 } else { Hello::Http1 }));
            }
            match self.poll_fill(cx) {
                // The client may have sent a part of the preface and no more.
                Poll::Ready(Ok(0)) if !self.buffer.is_empty() => self.state = State::Head { seen: 0 },
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(None),
                Poll::Pending if !self.poll_deadline(cx) => return Poll::Pending,
                Poll::Pending if self.buffer.is_empty() => return Poll::Ready(None),
                Poll::Ready(Ok(_)) | Poll::Pending => {}
            }
        }
    }

    /// Reads into the buffer; the number of new bytes, 0 at the end of the stream.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // The room is the thread's, so that a head costs no more memory than it has bytes, and none while it is waited for.
        thread_local! {
            static ROOM: RefCell<[u8; READ_BYTES]> = const { RefCell::new([0; READ_BYTES]) };
        }
        ROOM.with_borrow_mut(|room| {
            let mut space = ReadBuf::new(room);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut space))?;
            self.buffer.extend_from_slice(space.filled());
            Poll::Ready(Ok(space.filled().len()))
        })
    }

    /// Reads into hyper's own buffer where no byte needs to be looked at.
    fn poll_direct(&mut self, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let State::Body { left } = &mut self.state else {
            return Pin::new(&mut self.stream).poll_read(cx, out);
        };
        let limit = usize::try_from(*left).unwrap_or(usize::MAX);
        let before = out.filled().len();
        if out.remaining() <= limit {
            ready!(Pin::new(&mut self.stream).poll_read(cx, out))?;
        } else {
            let mut part = ReadBuf::new(out.initialize_unfilled_to(limit));
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut part))?;
            let count = part.filled().len();
            out.advance(count);
        }
        *left -= (out.filled().len() - before) as u64;
        Poll::Ready(Ok(()))
    }

    /// Drops what a refused client still sends. hyper is not told about the end: it would drop the answer.
    fn poll_drain(&mut self, cx: &mut Context<'_>, mut left: usize) -> Poll<io::Result<()>> {
        while left > 0 {
            let count = ready!(self.poll_fill(cx))?;
            self.buffer.clear();
            left = if count == 0 { 0 } else { left.saturating_sub(count) };
            self.state = State::Refused { left };
        }
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guard<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            this.advance()?;
            if this.released > 0 {
                this.give(out);
                return Poll::Ready(Ok(()));
            }
            match this.state {
                State::Ended => return Poll::Ready(Ok(())),
                State::Refused { left } => return this.poll_drain(cx, left),
                State::Body { left: 1.. } => {
                    let polled = this.poll_direct(cx, out);
                    if polled.is_pending() {
                        return this.poll_quiet(cx);
                    }
                    this.unquiet();
                    return polled;
                }
                State::Passing => return this.poll_direct(cx, out),
                _ => {}
            }
            let polled = this.poll_fill(cx);
            if let State::Chunked(chunked) = &this.state
                && !chunked.is_done()
            {
                if polled.is_pending() {
                    return this.poll_quiet(cx);
                }
                this.unquiet();
            }
            match polled {
                Poll::Ready(Ok(0)) => {
                    this.buffer.clear();
                    this.state = State::Ended;
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if this.poll_deadline(cx) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guard<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.in_time(written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.in_time(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.in_time(flushed, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.in_time(closed, cx)
    }
}

#[cfg(test)]
#[path = "guard_tests.rs"]
mod tests;
