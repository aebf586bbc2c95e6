//! A request's body: streamed from the client, counted against its limit, and kept as long as it can be sent once more.
//!
//! Body and observers share one [`Source`]. What was read before an endpoint was chosen (`proxy-request-buffering`), and what an
//! endpoint took that gave no answer, is kept in memory up to the buffer's size; then it is let go, and the request cannot be
//! repeated any more. Nothing is ever written to a file.

use std::{
    future::{Future, poll_fn},
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::HeaderMap;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Sleep, sleep};

use super::{BoxError, linger::Linger};

/// What holds for a request's body.
#[derive(Clone, Copy, Debug)]
pub struct BodyRules {
    /// The most bytes; `None` is no limit.
    pub limit: Option<u64>,
    /// How many bytes may be kept so that the request can be sent once more.
    pub keep: usize,
    /// How long the client may pause.
    pub timeout: Duration,
    /// What becomes of a body that nobody wants.
    pub linger: Linger,
}

/// What is wrong with a body; each is an answer to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyFault {
    /// The client broke off or broke the rules: 400.
    #[error("the client's body broke off")]
    Broken,
    /// It is longer than its limit: 413.
    #[error("the body is longer than its limit")]
    TooLarge,
    /// The client paused for too long: 408.
    #[error("the client paused for too long within its body")]
    Slow,
}

/// How far the client's body has come, for whoever waits for an answer to it.
#[derive(Clone)]
pub struct Progress(Arc<Mutex<Source>>);

impl std::fmt::Debug for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Progress").field(&self.step()).finish()
    }
}

/// Where a body stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    /// When bytes were last taken by the endpoint's connection, or asked for while the client had none.
    pub(super) at: Instant,
    /// Bytes of content so far.
    pub(super) bytes: u64,
    /// What ended the body before its time.
    pub(super) fault: Option<BodyFault>,
    /// Whose turn it is.
    pub(super) turn: Turn,
}

/// Who has to do something next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// The client, to send more.
    Client,
    /// The endpoint, to take more.
    Endpoint,
    /// Nobody: all has been handed over.
    Over,
}

/// Pieces smaller than this are copied.
const COPIED: usize = 2048;

/// The client's end of a body.
struct Source {
    incoming: Option<Incoming>,
    rules: BodyRules,
    /// What has been read and is not yet lost, in order.
    kept: Vec<Piece>,
    kept_bytes: usize,
    /// Something that was handed out is no longer kept.
    lost: bool,
    /// Which body may read; an older one belongs to an attempt that failed.
    holder: u32,
    step: Step,
    /// The client was asked for it.
    begun: bool,
    pause: Option<Pin<Box<Sleep>>>,
}

#[derive(Clone)]
enum Piece {
    Data(Bytes),
    Trailers(HeaderMap),
}

impl From<Piece> for Frame<Bytes> {
    fn from(piece: Piece) -> Self {
        match piece {
            Piece::Data(bytes) => Self::data(bytes),
            Piece::Trailers(fields) => Self::trailers(fields),
        }
    }
}

impl Source {
    fn new(incoming: Incoming, rules: BodyRules) -> Self {
        let step = Step { at: Instant::now(), bytes: 0, fault: None, turn: Turn::Endpoint };
        let (kept, kept_bytes, lost, holder, begun, pause) = (Vec::new(), 0, false, 0, false, None);
        Self { incoming: Some(incoming), rules, kept, kept_bytes, lost, holder, step, begun, pause }
    }

    /// The next piece from the client; `None` at the end.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Piece, BodyFault>>> {
        loop {
            if let Some(fault) = self.step.fault {
                return Poll::Ready(Some(Err(fault)));
            }
            let Some(incoming) = &mut self.incoming else { return Poll::Ready(None) };
            self.begun = true;
            let Poll::Ready(frame) = Pin::new(incoming).poll_frame(cx) else {
                self.step.turn = Turn::Client;
                let timeout = self.rules.timeout;
                ready!(self.pause.get_or_insert_with(|| Box::pin(sleep(timeout))).as_mut().poll(cx));
                return Poll::Ready(Some(Err(self.fail(BodyFault::Slow))));
            };
            self.pause = None;
            self.step.at = Instant::now();
            self.step.turn = Turn::Endpoint;
            // HTTP/2 may end a body with an empty frame, which is nothing to lose.
            let is_empty = matches!(&frame, Some(Ok(frame)) if frame.data_ref().is_some_and(Bytes::is_empty));
            if !is_empty {
                return Poll::Ready(self.take(frame));
            }
        }
    }

    fn take(&mut self, frame: Option<Result<Frame<Bytes>, hyper::Error>>) -> Option<Result<Piece, BodyFault>> {
        match frame {
            None => {
                self.incoming = None;
                None
            }
            Some(Err(error)) => {
                tracing::debug!(%error, "client's body broke off");
                let fault = if is_timeout(&error) { BodyFault::Slow } else { BodyFault::Broken };
                Some(Err(self.fail(fault)))
            }
            Some(Ok(frame)) => match frame.into_data() {
                Ok(bytes) => {
                    self.step.bytes += bytes.len() as u64;
                    if self.rules.limit.is_some_and(|limit| self.step.bytes > limit) {
                        return Some(Err(self.fail(BodyFault::TooLarge)));
                    }
                    // A piece holds all of the buffer that it was read into, which a body that drips must not keep.
                    let bytes = if bytes.len() < COPIED { Bytes::copy_from_slice(&bytes) } else { bytes };
                    Some(Ok(Piece::Data(bytes)))
                }
                Err(frame) => Some(Ok(frame.into_trailers().map_or(Piece::Data(Bytes::new()), Piece::Trailers))),
            },
        }
    }

    /// The body ends here; what the client still sends is of no use.
    fn fail(&mut self, fault: BodyFault) -> BodyFault {
        self.step.fault = Some(fault);
        self.pause = None;
        let incoming = self.incoming.take();
        if let (BodyFault::TooLarge, Some(incoming)) = (fault, incoming) {
            self.rules.linger.discard(incoming, self.begun);
        }
        fault
    }

    /// Keeps a piece while there is room; returns false where it is handed out for good.
    fn keep(&mut self, piece: &Piece) -> bool {
        if self.lost || self.kept_bytes >= self.rules.keep {
            self.lost = true;
            self.kept.clear();
            return false;
        }
        if let Piece::Data(bytes) = piece {
            self.kept_bytes += bytes.len();
        }
        self.kept.push(piece.clone());
        true
    }

    fn is_over(&self) -> bool {
        self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        if let Some(incoming) = self.incoming.take() {
            self.rules.linger.discard(incoming, self.begun);
        }
    }
}

/// Whether it was the guard that lost its patience with the client.
fn is_timeout(error: &hyper::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return error.kind() == io::ErrorKind::TimedOut;
        }
        cause = error.source();
    }
    false
}

/// A request's body, or what is still to come of it.
pub struct RequestBody {
    source: Option<Arc<Mutex<Source>>>,
    holder: u32,
    /// How many of the kept pieces have been handed out.
    place: usize,
}

impl RequestBody {
    /// No body.
    #[must_use]
    pub fn empty() -> Self {
        Self { source: None, holder: 0, place: 0 }
    }

    /// The client's body.
    #[must_use]
    pub fn new(incoming: Incoming, rules: BodyRules) -> Self {
        if incoming.is_end_stream() {
            return Self::empty();
        }
        Self { source: Some(Arc::new(Mutex::new(Source::new(incoming, rules)))), holder: 0, place: 0 }
    }

    /// The note of its progress; `None` where there is no body.
    #[must_use]
    pub fn progress(&self) -> Option<Progress> {
        self.source.clone().map(Progress)
    }

    /// Reads the body until the buffer is full or the body over.
    ///
    /// # Errors
    /// What is wrong with it as far as it was read.
    pub async fn read_ahead(&mut self) -> Result<(), BodyFault> {
        let Some(source) = &self.source else { return Ok(()) };
        poll_fn(|cx| {
            let mut source = lock(source);
            while source.kept_bytes < source.rules.keep {
                match ready!(source.poll_piece(cx)) {
                    None => break,
                    Some(Err(fault)) => return Poll::Ready(Err(fault)),
                    Some(Ok(piece)) => _ = source.keep(&piece),
                }
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// Whether the length is known because all of it is here.
    #[must_use]
    pub fn whole_length(&self) -> Option<u64> {
        let Some(source) = &self.source else { return Some(0) };
        let source = lock(source);
        let has_trailers = source.kept.iter().any(|piece| matches!(piece, Piece::Trailers(_)));
        (source.is_over() && !source.lost && !has_trailers).then_some(source.kept_bytes as u64)
    }

    /// A claim to the same body from its start.
    pub(super) fn claim(&self) -> BodyClaim {
        BodyClaim(self.source.clone())
    }
}

/// A body that can perhaps be had once more, when the one that was sent has come to nothing.
pub(super) struct BodyClaim(Option<Arc<Mutex<Source>>>);

impl BodyClaim {
    /// Whether nothing of the body is lost.
    pub(super) fn is_whole(&self) -> bool {
        self.0.as_ref().is_none_or(|source| {
            let source = lock(source);
            !source.lost && source.step.fault.is_none()
        })
    }

    /// The body from its start. Whoever still holds the old one gets no more of it.
    pub(super) fn body(self) -> Option<RequestBody> {
        let Some(source) = self.0 else { return Some(RequestBody::empty()) };
        let holder = {
            let mut source = lock(&source);
            if source.lost || source.step.fault.is_some() {
                return None;
            }
            source.holder += 1;
            source.step.at = Instant::now();
            source.step.turn = Turn::Endpoint;
            source.holder
        };
        Some(RequestBody { source: Some(source), holder, place: 0 })
    }
}

impl Progress {
    pub(super) fn step(&self) -> Step {
        lock(&self.0).step
    }

    /// Bytes of content that the client has sent so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.step().bytes
    }
}

fn lock(source: &Arc<Mutex<Source>>) -> MutexGuard<'_, Source> {
    source.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let Some(source) = &this.source else { return Poll::Ready(None) };
        let mut source = lock(source);
        if source.holder != this.holder {
            return Poll::Ready(Some(Err("this attempt is over".into())));
        }
        if let Some(piece) = source.kept.get(this.place).cloned() {
            this.place += 1;
            source.step.at = Instant::now();
            if source.is_over() && source.kept.len() == this.place {
                source.step.turn = Turn::Over;
            }
            return Poll::Ready(Some(Ok(piece.into())));
        }
        let piece = ready!(source.poll_piece(cx));
        if let Some(Ok(piece)) = &piece {
            this.place = if source.keep(piece) { this.place + 1 } else { 0 };
        }
        if piece.is_none() || source.is_over() {
            source.step.turn = Turn::Over;
        }
        Poll::Ready(piece.map(|piece| piece.map(Frame::from).map_err(BoxError::from)))
    }

    fn is_end_stream(&self) -> bool {
        let Some(source) = &self.source else { return true };
        let source = lock(source);
        source.is_over() && source.kept.len() <= self.place && source.step.fault.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let Some(source) = &self.source else { return SizeHint::with_exact(0) };
        let source = lock(source);
        let mut left = 0;
        for piece in source.kept.iter().skip(self.place) {
            match piece {
                Piece::Data(bytes) => left += bytes.len() as u64,
                // An exact length would leave them no place.
                Piece::Trailers(_) => return SizeHint::default(),
            }
        }
        let coming = source.incoming.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint);
        coming.exact().map_or_else(SizeHint::default, |coming| SizeHint::with_exact(left.saturating_add(coming)))
    }
}
