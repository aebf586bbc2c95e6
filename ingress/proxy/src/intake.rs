//! A client's stream at its start: bytes can be read ahead of whoever will speak the protocol, and given back.
//!
//! On the packet's way this is the first reader behind accept(2). The PROXY protocol's header is taken off its front; a
//! ClientHello is read by the TLS acceptor while a copy is kept, so that the stream can be handed on as if nothing had
//! been read. Afterwards it is one branch in front of the socket. It knows none of these protocols itself.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// How much is asked of the socket at a time.
const READ_BYTES: usize = 2 * 1024;

/// A stream with what was read ahead of it.
#[derive(Debug)]
pub struct Intake<S> {
    stream: S,
    /// Read from the stream; empty once nothing is read ahead any more.
    buffer: BytesMut,
    /// How much of the buffer the reader has had; more than 0 only while a copy is kept.
    given: usize,
    keep: Keep,
}

/// What happens to bytes that the reader has had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keep {
    Nothing,
    /// They stay in the buffer, up to this many.
    Copy(usize),
}

impl<S> Intake<S> {
    /// Nothing is read ahead yet.
    pub fn new(stream: S) -> Self {
        Self { stream, buffer: BytesMut::new(), given: 0, keep: Keep::Nothing }
    }

    /// What was read ahead.
    #[must_use]
    pub fn ahead(&self) -> &[u8] {
        &self.buffer
    }

    /// Takes bytes off the front of what was read ahead.
    pub fn consume(&mut self, count: usize) {
        self.buffer.advance(count.min(self.buffer.len()));
    }

    /// From here on what is read is kept as well; reading more than `limit` bytes is an error.
    #[must_use]
    pub fn keeping(mut self, limit: usize) -> Self {
        self.keep = Keep::Copy(limit);
        self
    }

    /// The next reader gets the kept bytes again, from the first one.
    pub fn rewind(&mut self) {
        self.given = 0;
        self.keep = Keep::Nothing;
    }

    /// The kept bytes have served their purpose; those that the reader has not had stay.
    pub fn forget(&mut self) {
        self.buffer.advance(self.given.min(self.buffer.len()));
        self.given = 0;
        self.keep = Keep::Nothing;
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
    }

    /// The socket.
    #[must_use]
    pub fn socket(&self) -> &S {
        &self.stream
    }
}

impl<S: AsyncRead + Unpin> Intake<S> {
    /// Reads more ahead.
    ///
    /// # Errors
    /// The stream broke, or it ended.
    pub async fn read_ahead(&mut self) -> io::Result<()> {
        self.buffer.reserve(READ_BYTES);
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// Reads ahead unless that has been done.
    ///
    /// # Errors
    /// As [`Intake::read_ahead`].
    pub async fn read_ahead_once(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() { self.read_ahead().await } else { Ok(()) }
    }

    /// Gives what was read ahead, before anything new is read. False where there was nothing.
    fn give(&mut self, out: &mut ReadBuf<'_>) -> bool {
        let waiting = self.buffer.get(self.given..).unwrap_or_default();
        let count = waiting.len().min(out.remaining());
        out.put_slice(waiting.get(..count).unwrap_or_default());
        match self.keep {
            Keep::Copy(_) => self.given += count,
            Keep::Nothing => {
                self.buffer.advance(count);
                if self.buffer.is_empty() {
                    self.buffer = BytesMut::new();
                }
            }
        }
        count > 0
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Intake<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.buffer.is_empty() && this.give(out) {
            return Poll::Ready(Ok(()));
        }
        let Keep::Copy(limit) = this.keep else { return Pin::new(&mut this.stream).poll_read(cx, out) };
        let room = limit.saturating_sub(this.buffer.len()).min(out.remaining());
        if room == 0 {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "too much before the protocol is known",
            )));
        }
        let mut part = ReadBuf::new(out.initialize_unfilled_to(room));
        ready!(Pin::new(&mut this.stream).poll_read(cx, &mut part))?;
        let count = part.filled().len();
        this.buffer.extend_from_slice(part.filled());
        this.given += count;
        out.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Intake<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt, duplex};

    use super::*;

    async fn intake(bytes: &[u8]) -> Intake<tokio::io::DuplexStream> {
        let (mut client, server) = duplex(1024);
        client.write_all(bytes).await.unwrap();
        Intake::new(server)
    }

    async fn rest(intake: &mut Intake<tokio::io::DuplexStream>) -> String {
        let mut all = String::new();
        intake.read_to_string(&mut all).await.unwrap();
        all
    }

    #[tokio::test]
    async fn what_is_consumed_ahead_is_gone_and_the_rest_follows() {
        let mut intake = intake(b"headbody").await;
        intake.read_ahead().await.unwrap();
        assert_eq!(intake.ahead(), b"headbody");
        intake.consume(4);
        assert_eq!(rest(&mut intake).await, "body");
        assert_eq!(intake.read_ahead().await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn a_kept_copy_is_given_again_or_forgotten() {
        for (rewound, expected) in [(true, "helloworld"), (false, "world")] {
            let mut intake = intake(b"helloworld").await;
            intake.read_ahead().await.unwrap();
            let mut intake = intake.keeping(64);
            let mut first = [0; 5];
            intake.read_exact(&mut first).await.unwrap();
            assert_eq!(&first, b"hello");
            if rewound {
                intake.rewind();
            } else {
                intake.forget();
            }
            assert_eq!(rest(&mut intake).await, expected);
            assert!(intake.ahead().is_empty());
        }
    }

    #[tokio::test]
    async fn a_copy_has_a_limit() {
        let mut intake = intake(&[b'x'; 65]).await.keeping(64);
        let mut all = Vec::new();
        assert_eq!(intake.read_to_end(&mut all).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
