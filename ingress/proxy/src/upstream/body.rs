//! Bodies on their way through: the request's with a note of its progress, the answer's with the connection it came by.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Sleep, sleep};

use super::{connection::Lease, pool::InUse};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How far the client's body has come; shared by the body and the wait for the answer.
#[derive(Clone, Debug)]
pub struct Progress(Arc<Mutex<Step>>);

/// Where a body stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    /// When the last bytes were taken.
    pub(super) at: Instant,
    /// Bytes of content so far.
    pub(super) bytes: u64,
    /// The client's stream broke or broke the rules.
    pub(super) failed: bool,
}

impl Progress {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Step { at: Instant::now(), bytes: 0, failed: false })))
    }

    fn lock(&self) -> MutexGuard<'_, Step> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn step(&self) -> Step {
        *self.lock()
    }

    /// Bytes of content that the client has sent so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.lock().bytes
    }
}

/// A request's body, streamed from the client.
pub struct RequestBody {
    incoming: Option<Incoming>,
    progress: Option<Progress>,
}

impl RequestBody {
    /// No body: nothing of the request is lost when it must be sent again.
    #[must_use]
    pub fn empty() -> Self {
        Self { incoming: None, progress: None }
    }

    /// The client's body.
    #[must_use]
    pub fn new(incoming: Incoming) -> Self {
        if incoming.is_end_stream() {
            return Self::empty();
        }
        Self { incoming: Some(incoming), progress: Some(Progress::new()) }
    }

    /// The note of its progress; `None` where there is no body.
    #[must_use]
    pub fn progress(&self) -> Option<Progress> {
        self.progress.clone()
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(incoming) = &mut self.incoming else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(incoming).poll_frame(cx));
        if let Some(progress) = &self.progress {
            let mut step = progress.lock();
            step.at = Instant::now();
            if let Some(Ok(data)) = frame.as_ref().map(|frame| frame.as_ref().map(Frame::data_ref)) {
                step.bytes += data.map_or(0, |data| data.len() as u64);
            }
            step.failed |= matches!(frame, Some(Err(_)));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

/// An answer's body; holds the connection, and gives it back at the end.
pub struct UpstreamBody {
    incoming: Incoming,
    lease: Option<Lease>,
    /// The longest silence.
    patience: Duration,
    silence: Option<Pin<Box<Sleep>>>,
    /// Counts the request at its endpoint.
    in_use: Option<InUse>,
}

impl UpstreamBody {
    pub(super) fn new(incoming: Incoming, lease: Lease, patience: Duration) -> Self {
        let mut body = Self { incoming, lease: Some(lease), patience, silence: None, in_use: None };
        body.release_at_end();
        body
    }

    /// Keeps a request counted at its endpoint until the body is dropped.
    pub(super) fn holding(mut self, in_use: InUse) -> Self {
        self.in_use = Some(in_use);
        self
    }

    /// What [`UpstreamBody::holding`] was given: for a tunnel, which outlives the body.
    pub(crate) fn take_in_use(&mut self) -> Option<InUse> {
        self.in_use.take()
    }

    /// The server may never poll again once this body says that it is at its end.
    fn release_at_end(&mut self) {
        if self.incoming.is_end_stream()
            && let Some(lease) = self.lease.take()
        {
            lease.release();
        }
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        match Pin::new(&mut this.incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                this.silence = None;
                this.release_at_end();
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                this.lease = None;
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Ready(None) => {
                if let Some(lease) = this.lease.take() {
                    lease.release();
                }
                Poll::Ready(None)
            }
            Poll::Pending => {
                let patience = this.patience;
                let silence = this.silence.get_or_insert_with(|| Box::pin(sleep(patience)));
                ready!(silence.as_mut().poll(cx));
                this.lease = None;
                Poll::Ready(Some(Err("the endpoint fell silent within the body".into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
