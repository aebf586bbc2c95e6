//! Sending one request: which endpoint, and which one next when it fails, by nginx's rules.
//!
//! A request goes on to another endpoint for the causes that `proxy-next-upstream` names, as long as there are tries, time and
//! endpoints left. One that an endpoint may have begun to work on goes on only if its method may be repeated or the route says
//! so, and only if all of it can be sent again. Nothing is repeated once the head of an answer has been handed on.

use std::time::{Duration, Instant};

use http::{Method, Request, Response};
use roadstead_routes::{Cause, Retries};

use super::{
    RequestBody, Selection, Trail, Transport, UpstreamBody,
    attempt::{Attempt, Reached, attempt},
    pool::Outcome,
};

/// Why there is no answer to hand on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// There is no endpoint: 503.
    NoEndpoint,
    /// What the Ingress asks for cannot be done, or not safely: 503.
    NoTransport,
    /// No endpoint could be connected to: 502.
    Connect,
    /// None could be connected to in time: 504.
    ConnectTimeout,
    /// The endpoint broke the connection or the protocol: 502.
    Broken,
    /// What the endpoint sent is no answer, or has too large a head: 502.
    BadAnswer,
    /// The endpoint did not answer in time: 504.
    Silent,
    /// The client broke its own request: 400.
    Client,
    /// The client's body is longer than its limit: 413.
    TooLarge,
    /// The client paused for too long within its body: 408.
    SlowClient,
    /// HTTP/1.0 cannot carry a body of unknown length: 411.
    NoLength,
}

impl Failure {
    /// nginx's word for it; `None` where no other endpoint would do better.
    fn cause(self) -> Option<Cause> {
        match self {
            Self::Connect | Self::Broken => Some(Cause::Error),
            Self::BadAnswer => Some(Cause::InvalidHeader),
            Self::ConnectTimeout | Self::Silent => Some(Cause::Timeout),
            Self::NoEndpoint
            | Self::NoTransport
            | Self::Client
            | Self::TooLarge
            | Self::SlowClient
            | Self::NoLength => None,
        }
    }
}

/// Sends the request to an endpoint; the answer's body streams, and counts as a request under way until it is dropped.
///
/// # Errors
/// [`Failure`] says which status the client gets.
pub(crate) async fn send(
    selection: &mut Selection,
    transport: &Transport,
    mut request: Box<Request<RequestBody>>,
    trail: &mut Trail,
) -> Result<Response<UpstreamBody>, Failure> {
    let mut budget = Budget::new(selection.settings().retries);
    let mut in_use = selection.next().ok_or(Failure::NoEndpoint)?;
    loop {
        trail.begin(in_use.address());
        let repeatable = budget.may_repeat(request.method());
        let Attempt { result, again, reached } = attempt(in_use.address(), transport, request, trail).await;
        selection.note(&mut in_use, outcome(&result));
        let goes_on = (repeatable || reached == Reached::No) && budget.allows(&result) && again.is_whole();
        let next = goes_on.then(|| {
            selection.leave(&in_use);
            selection.next()
        });
        // Only now, for it takes the body from an attempt whose answer may be handed on instead.
        let next = next.flatten().and_then(|next| Some((again.request()?, next)));
        match next {
            Some(next) => (request, in_use) = next,
            None => return result.map(|response| response.map(|body| body.holding(in_use))),
        }
    }
}

fn outcome(result: &Result<Response<UpstreamBody>, Failure>) -> Outcome {
    match result {
        Ok(_) => Outcome::Answered,
        Err(Failure::Connect | Failure::ConnectTimeout | Failure::Broken) => Outcome::Unreachable,
        Err(_) => Outcome::Unknown,
    }
}

/// What is left of a request's tries.
struct Budget {
    rules: Retries,
    made: u32,
    /// Where the time is limited.
    deadline: Option<Instant>,
}

impl Budget {
    fn new(rules: Retries) -> Self {
        let deadline = Some(rules.timeout).filter(|time| *time != Duration::ZERO);
        Self { rules, made: 0, deadline: deadline.and_then(|time| Instant::now().checked_add(time)) }
    }

    /// Whether a request may be sent a second time when an endpoint may know of it. nginx counts these three as harmful, and
    /// no other.
    fn may_repeat(&self, method: &Method) -> bool {
        self.rules.non_idempotent || !(matches!(*method, Method::POST | Method::PATCH) || method.as_str() == "LOCK")
    }

    /// Counts a try, and tells whether what it came to is worth another one.
    fn allows(&mut self, result: &Result<Response<UpstreamBody>, Failure>) -> bool {
        self.made += 1;
        let cause = match result {
            Ok(response) => Some(Cause::Status(response.status().as_u16())),
            Err(failure) => failure.cause(),
        };
        cause.is_some_and(|cause| self.rules.causes.contain(cause))
            && (self.rules.tries == 0 || self.made < self.rules.tries)
            && self.deadline.is_none_or(|deadline| Instant::now() < deadline)
    }
}
