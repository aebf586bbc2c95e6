//! An answer that is read ahead of its client (`proxy-buffering`): a slow client then does not hold the endpoint, as long as what
//! it has yet to take fits the buffers. Beyond them the endpoint waits for the client; nothing is written to files.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::{BoxError, body::Streamed};

type Piece = (Result<Frame<Bytes>, BoxError>, Option<OwnedSemaphorePermit>);

/// The client's end of such an answer.
pub(super) struct ReadAhead {
    pieces: mpsc::UnboundedReceiver<Piece>,
    /// What is still to come, where the endpoint told the length.
    left: Option<u64>,
}

impl ReadAhead {
    /// Reads a body ahead, at most this many bytes of it, and one piece.
    pub(super) fn start(body: Streamed, bytes: u64) -> Self {
        let (sender, pieces) = mpsc::unbounded_channel();
        let left = body.size_hint().exact();
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        tokio::spawn(read(body, sender, bytes));
        Self { pieces, left }
    }
}

/// Reads until the body is over or the client gone; then the endpoint is let go.
async fn read(mut body: Streamed, sender: mpsc::UnboundedSender<Piece>, bytes: u32) {
    let room = Arc::new(Semaphore::new(usize::try_from(bytes).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS)));
    loop {
        let next = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx));
        let frame = tokio::select! {
            frame = next => frame,
            () = sender.closed() => return,
        };
        let Some(frame) = frame else { return };
        let length = frame.as_ref().ok().and_then(Frame::data_ref).map_or(0, Bytes::len);
        let length = u32::try_from(length).unwrap_or(u32::MAX).min(bytes);
        let permit = tokio::select! {
            permit = Arc::clone(&room).acquire_many_owned(length) => permit.ok(),
            () = sender.closed() => return,
        };
        if sender.send((frame, permit)).is_err() {
            return;
        }
    }
}

impl Body for ReadAhead {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some((frame, _room)) = ready!(self.pieces.poll_recv(cx)) else { return Poll::Ready(None) };
        if let (Some(left), Ok(Some(data))) = (&mut self.left, frame.as_ref().map(Frame::data_ref)) {
            *left = left.saturating_sub(data.len() as u64);
        }
        Poll::Ready(Some(frame))
    }

    fn is_end_stream(&self) -> bool {
        self.left == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
