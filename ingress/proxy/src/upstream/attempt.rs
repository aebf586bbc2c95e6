//! One request to one endpoint: over an idle connection where there is one, else over a new one.
//!
//! `send` chooses endpoints and decides what may be tried again; what is decided here is only that a connection which was
//! dead before it could be used is no failure of its endpoint.

use std::{future::Future, io, net::SocketAddr, pin::pin, time::Instant};

use http::{Method, Request, Response};
use hyper::body::{Body, Incoming};
use tokio::time::sleep_until;

use super::{Failure, RequestBody, Trail, Transport, UpstreamBody, body::Progress, connection::Lease};

/// What one endpoint made of a request.
pub(super) struct Attempt {
    /// The answer, whose body streams, or what became of it.
    pub(super) result: Result<Response<UpstreamBody>, Failure>,
    /// The request once more, where it can still be sent whole.
    pub(super) request: Option<Request<RequestBody>>,
    /// Whether the endpoint may have begun to work on it.
    pub(super) reached: Reached,
}

/// Whether an endpoint may know of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reached {
    /// It was never written.
    No,
    /// It was, in part at least.
    Perhaps,
}

/// Sends a request to this endpoint and no other.
pub(super) async fn attempt(
    endpoint: SocketAddr,
    transport: &Transport,
    mut request: Request<RequestBody>,
    trail: &mut Trail,
) -> Attempt {
    while let Some(lease) = Lease::reuse(endpoint) {
        trail.connected();
        let attempt = exchange(lease, transport, request, trail).await;
        match attempt {
            // The endpoint closed the connection as it was taken up again.
            Attempt { result: Err(Failure::Broken), request: Some(same), reached }
                if reached == Reached::No || is_idempotent(same.method()) =>
            {
                request = same;
            }
            attempt => return attempt,
        }
    }
    match Lease::connect(endpoint, transport).await {
        Ok(lease) => {
            trail.connected();
            exchange(lease, transport, request, trail).await
        }
        Err(error) => {
            tracing::debug!(%endpoint, %error, "endpoint cannot be connected to");
            let timed_out = error.kind() == io::ErrorKind::TimedOut;
            let failure = if timed_out { Failure::ConnectTimeout } else { Failure::Connect };
            Attempt { result: Err(failure), request: Some(request), reached: Reached::No }
        }
    }
}

/// Whether a method may be repeated (RFC 9110, section 9.2.2).
fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::PUT | Method::DELETE | Method::OPTIONS)
}

/// A copy of a request that has no body and may be repeated.
fn copy_of(request: &Request<RequestBody>) -> Option<Request<RequestBody>> {
    if !is_idempotent(request.method()) || !request.body().is_end_stream() {
        return None;
    }
    let mut copy = Request::new(RequestBody::empty());
    copy.method_mut().clone_from(request.method());
    copy.uri_mut().clone_from(request.uri());
    copy.headers_mut().clone_from(request.headers());
    Some(copy)
}

async fn exchange(
    mut lease: Lease,
    transport: &Transport,
    request: Request<RequestBody>,
    trail: &mut Trail,
) -> Attempt {
    let copy = copy_of(&request);
    let progress = request.body().progress();
    let failed = |failure, request| Attempt { result: Err(failure), request, reached: Reached::Perhaps };
    match in_time(lease.sender.try_send_request(request), progress.as_ref(), transport).await {
        None => failed(Failure::Silent, copy),
        Some(Ok(response)) => {
            trail.answered(response.status());
            let silence = transport.read_timeout;
            let response = response.map(|body: Incoming| UpstreamBody::new(body, lease, silence));
            Attempt { result: Ok(response), request: copy, reached: Reached::Perhaps }
        }
        Some(Err(mut error)) => {
            if let Some(unsent) = error.take_message() {
                return Attempt { result: Err(Failure::Broken), request: Some(unsent), reached: Reached::No };
            }
            if progress.is_some_and(|progress| progress.step().failed) {
                return failed(Failure::Client, None);
            }
            let error = error.into_error();
            tracing::debug!(%error, "endpoint gave no answer");
            // Nothing of an answer had come, or it was none: only the first is worth another try.
            let cut = error.is_incomplete_message() || error.is_canceled() || is_io(&error);
            failed(Failure::Broken, copy.filter(|_| cut))
        }
    }
}

fn is_io(error: &hyper::Error) -> bool {
    std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>()).is_some()
}

/// Waits for an answer as long as there is no silence: while the client's body moves, the endpoint has time.
async fn in_time<F: Future>(answer: F, progress: Option<&Progress>, transport: &Transport) -> Option<F::Output> {
    let mut answer = pin!(answer);
    let mut last = Instant::now();
    loop {
        tokio::select! {
            output = &mut answer => return Some(output),
            () = sleep_until((last + transport.read_timeout).into()) => {}
        }
        let moved = progress.map_or(last, |progress| progress.step().at);
        if moved <= last {
            return None;
        }
        last = moved;
    }
}
