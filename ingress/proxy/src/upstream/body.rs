//! An answer's body on its way to the client; it holds the connection that it comes by.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Sleep, sleep};

use super::{BoxError, connection::Lease, pool::InUse, read_ahead::ReadAhead};

/// An answer's body; holds the connection, and gives it back at the end.
pub struct UpstreamBody(Way);

enum Way {
    /// Each piece is asked for when the client can take it.
    Streamed(Streamed),
    /// A task reads it ahead of the client.
    Ahead(ReadAhead),
}

impl UpstreamBody {
    pub(super) fn new(incoming: Incoming, lease: Option<Lease>, patience: Duration) -> Self {
        Self(Way::Streamed(Streamed::new(incoming, lease, patience)))
    }

    /// Keeps a request counted at its endpoint until the body is dropped.
    pub(super) fn holding(mut self, in_use: InUse) -> Self {
        if let Way::Streamed(body) = &mut self.0 {
            body.in_use = Some(in_use);
        }
        self
    }

    /// What [`UpstreamBody::holding`] was given: for a tunnel, which outlives the body.
    pub(crate) fn take_in_use(&mut self) -> Option<InUse> {
        match &mut self.0 {
            Way::Streamed(body) => body.in_use.take(),
            Way::Ahead(_) => None,
        }
    }

    /// Reads at most so many bytes, and one piece, ahead of the client.
    pub(crate) fn reading_ahead(self, bytes: u64) -> Self {
        match self.0 {
            Way::Streamed(body) if !body.is_end_stream() => Self(Way::Ahead(ReadAhead::start(body, bytes))),
            way => Self(way),
        }
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.0 {
            Way::Streamed(body) => Pin::new(body).poll_frame(cx),
            Way::Ahead(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Way::Streamed(body) => body.is_end_stream(),
            Way::Ahead(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Way::Streamed(body) => body.size_hint(),
            Way::Ahead(body) => body.size_hint(),
        }
    }
}

/// A body as it comes from its endpoint.
pub(super) struct Streamed {
    incoming: Incoming,
    lease: Option<Lease>,
    /// The longest silence.
    patience: Duration,
    silence: Option<Pin<Box<Sleep>>>,
    /// Counts the request at its endpoint.
    in_use: Option<InUse>,
}

impl Streamed {
    fn new(incoming: Incoming, lease: Option<Lease>, patience: Duration) -> Self {
        let mut body = Self { incoming, lease, patience, silence: None, in_use: None };
        body.release_at_end();
        body
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

impl Body for Streamed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let incoming = &mut this.incoming;
        let polled = match &mut this.lease {
            Some(Lease::Http1(lease)) => lease.poll_body(cx, |cx| Pin::new(&mut *incoming).poll_frame(cx)),
            _ => Pin::new(incoming).poll_frame(cx),
        };
        match polled {
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
