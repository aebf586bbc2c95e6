//! Sending one request: which endpoint, and which one next when it fails.

use http::{Request, Response};

use super::{
    Pool, RequestBody, Trail, Transport, UpstreamBody,
    attempt::{Reached, attempt, is_idempotent},
};

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

/// Sends the request to an endpoint of the pool; the answer's body streams.
///
/// # Errors
/// [`Failure`] says which status the client gets.
pub async fn send(
    pool: &Pool,
    transport: &Transport,
    mut request: Request<RequestBody>,
    trail: &mut Trail,
) -> Result<Response<UpstreamBody>, Failure> {
    let mut tried = Vec::new();
    let mut failure = Failure::NoEndpoint;
    while tried.len() < MAX_ENDPOINTS {
        let Some(endpoint) = pool.pick(&tried) else { break };
        tried.push(endpoint);
        trail.begin(endpoint);
        let attempt = attempt(endpoint, transport, request, trail).await;
        failure = match attempt.result {
            Ok(response) => return Ok(response),
            Err(failure) => failure,
        };
        match attempt.request {
            Some(same) if may_repeat(failure, attempt.reached, &same) => request = same,
            _ => break,
        }
    }
    Err(failure)
}

/// An endpoint that was reached may have done what the request asks for; one that is slow will not be helped by another.
fn may_repeat(failure: Failure, reached: Reached, request: &Request<RequestBody>) -> bool {
    reached == Reached::No || (failure == Failure::Broken && is_idempotent(request.method()))
}
