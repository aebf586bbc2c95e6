//! Sending one request: the endpoint, the connection, and the next of either when one fails.

use std::{future::Future, io, net::SocketAddr, pin::pin, time::Instant};

use http::{Method, Request, Response};
use hyper::body::{Body, Incoming};
use tokio::time::sleep_until;

use super::{Pool, RequestBody, SILENCE_TIMEOUT, Trail, UpstreamBody, body::Progress, connection::Lease};

/// nginx's proxy_next_upstream_tries, as ingress-nginx sets it.
const MAX_ENDPOINTS: usize = 3;

/// Why there is no answer to hand on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// There is no endpoint: 503.
    NoEndpoint,
    /// No endpoint could be connected to: 502.
    Connect,
    /// None could be connected to in time: 504.
    ConnectTimeout,
    /// The endpoint broke the connection or the protocol: 502.
    Broken,
    /// The endpoint did not answer in time: 504.
    Silent,
    /// The client broke its own request: 400.
    Client,
}

/// What one attempt on one connection came to.
enum Attempt {
    Answered(Response<UpstreamBody>),
    /// The connection was dead before the request was written, or it closed without an answer to a request that may be
    /// repeated: here it is again.
    Again(Request<RequestBody>),
    Failed(Failure),
}

/// Sends the request to an endpoint of the pool; the answer's body streams.
///
/// # Errors
/// [`Failure`] says which status the client gets.
pub async fn send(
    pool: &Pool,
    mut request: Request<RequestBody>,
    trail: &mut Trail,
) -> Result<Response<UpstreamBody>, Failure> {
    let mut tried = Vec::new();
    let mut failure = Failure::NoEndpoint;
    while tried.len() < MAX_ENDPOINTS {
        let Some(endpoint) = pool.pick(&tried) else { break };
        tried.push(endpoint);
        trail.begin(endpoint);
        while let Some(lease) = Lease::reuse(endpoint) {
            let copy = repeatable(&request);
            trail.connected();
            match attempt(lease, request, copy, trail).await {
                Attempt::Answered(response) => return Ok(response),
                Attempt::Failed(failure) => return Err(failure),
                Attempt::Again(same) => request = same,
            }
        }
        match connect_and_send(endpoint, request, trail).await {
            Ok(Attempt::Answered(response)) => return Ok(response),
            Ok(Attempt::Failed(failure)) => return Err(failure),
            Ok(Attempt::Again(same)) => {
                request = same;
                failure = Failure::Broken;
            }
            Err((same, error)) => {
                tracing::debug!(%endpoint, %error, "endpoint cannot be connected to");
                request = same;
                failure = connect_failure(&error);
            }
        }
    }
    Err(failure)
}

async fn connect_and_send(
    endpoint: SocketAddr,
    request: Request<RequestBody>,
    trail: &mut Trail,
) -> Result<Attempt, (Request<RequestBody>, io::Error)> {
    match Lease::connect(endpoint).await {
        Ok(lease) => {
            let copy = repeatable(&request);
            trail.connected();
            Ok(attempt(lease, request, copy, trail).await)
        }
        Err(error) => Err((request, error)),
    }
}

fn connect_failure(error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::TimedOut { Failure::ConnectTimeout } else { Failure::Connect }
}

/// A copy of a request that has no body and whose method may be repeated (RFC 9110, section 9.2.2).
fn repeatable(request: &Request<RequestBody>) -> Option<Request<RequestBody>> {
    let idempotent =
        matches!(*request.method(), Method::GET | Method::HEAD | Method::PUT | Method::DELETE | Method::OPTIONS);
    if !idempotent || !request.body().is_end_stream() {
        return None;
    }
    let mut copy = Request::new(RequestBody::empty());
    copy.method_mut().clone_from(request.method());
    copy.uri_mut().clone_from(request.uri());
    copy.headers_mut().clone_from(request.headers());
    Some(copy)
}

async fn attempt(
    mut lease: Lease,
    request: Request<RequestBody>,
    copy: Option<Request<RequestBody>>,
    trail: &mut Trail,
) -> Attempt {
    let progress = request.body().progress();
    let sent = in_time(lease.sender.try_send_request(request), progress.as_ref()).await;
    match sent {
        None => Attempt::Failed(Failure::Silent),
        Some(Ok(response)) => {
            trail.answered(response.status());
            Attempt::Answered(response.map(|body: Incoming| UpstreamBody::new(body, lease)))
        }
        Some(Err(mut error)) => {
            if let Some(unsent) = error.take_message() {
                return Attempt::Again(unsent);
            }
            if progress.is_some_and(|progress| progress.step().failed) {
                return Attempt::Failed(Failure::Client);
            }
            let error = error.into_error();
            match copy {
                // Nothing of an answer had come: the endpoint closed the connection while the request was under way.
                Some(copy) if error.is_incomplete_message() || error.is_canceled() || is_io(&error) => {
                    Attempt::Again(copy)
                }
                _ => {
                    tracing::debug!(%error, "endpoint gave no answer");
                    Attempt::Failed(Failure::Broken)
                }
            }
        }
    }
}

fn is_io(error: &hyper::Error) -> bool {
    std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>()).is_some()
}

/// Waits for an answer as long as there is no silence: while the client's body moves, the endpoint has time.
async fn in_time<F: Future>(answer: F, progress: Option<&Progress>) -> Option<F::Output> {
    let mut answer = pin!(answer);
    let mut last = Instant::now();
    loop {
        tokio::select! {
            output = &mut answer => return Some(output),
            () = sleep_until((last + SILENCE_TIMEOUT).into()) => {}
        }
        let moved = progress.map_or(last, |progress| progress.step().at);
        if moved <= last {
            return None;
        }
        last = moved;
    }
}
