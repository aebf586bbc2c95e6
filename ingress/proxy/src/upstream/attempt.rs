//! One request to one endpoint: over a connection that is there already, else over a new one.
//!
//! `send` chooses endpoints and decides what may be tried again; what is decided here is only that a connection which was
//! dead before it could be used is no failure of its endpoint.

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::pin,
    task::{Context, Poll, ready},
    time::Instant,
};

use http::{Method, Request, Response, StatusCode};
use hyper::{body::Incoming, client::conn::TrySendError};

use super::{
    BodyFault, Failure, Progress, RequestBody, Trail, Transport, UpstreamBody,
    alarm::Alarm,
    connection::Lease,
    head_copy::HeadCopy,
    http2,
    request_body::{BodyClaim, Turn},
    transport::Wire,
};

/// How often a request is sent to an endpoint that leaves it alone: one that leaves its old connection takes it on a new one.
const UNTOUCHED_TRIES: u32 = 3;

/// What one endpoint made of a request.
pub(super) struct Attempt {
    /// The answer, whose body streams, or what became of it.
    pub(super) result: Result<Response<UpstreamBody>, Failure>,
    /// The request once more, for another attempt.
    pub(super) again: Again,
    /// Whether the endpoint may have begun to work on it.
    pub(super) reached: Reached,
}

/// A request after an attempt.
pub(super) enum Again {
    /// It was never sent.
    Whole(Box<Request<RequestBody>>),
    /// It was sent; this is what it was.
    Copy(Copy),
    /// It is the request's own fault.
    Never,
}

impl Again {
    /// Whether all of it can still be sent.
    pub(super) fn is_whole(&self) -> bool {
        match self {
            Self::Whole(_) => true,
            Self::Copy(copy) => copy.body.is_whole(),
            Self::Never => false,
        }
    }

    /// The request, where all of it can still be sent. An attempt that is still going on gets no more of its body then.
    pub(super) fn request(self) -> Option<Box<Request<RequestBody>>> {
        match self {
            Self::Whole(request) => Some(request),
            Self::Copy(copy) => copy.request().map(Box::new),
            Self::Never => None,
        }
    }
}

/// Whether an endpoint may know of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reached {
    /// It was never written, or the endpoint said that it left it alone.
    No,
    /// It was, in part at least.
    Perhaps,
}

/// Sends a request to this endpoint and no other.
pub(super) async fn attempt(
    endpoint: SocketAddr,
    transport: &Transport,
    mut request: Box<Request<RequestBody>>,
    trail: &mut Trail,
) -> Attempt {
    let mut tries_left = UNTOUCHED_TRIES;
    loop {
        let reused = Lease::reuse(endpoint, transport);
        let kind = if reused.is_some() { Connection::Reused } else { Connection::New };
        let lease = match reused {
            Some(lease) => Ok(lease),
            // Seldom, and large.
            None => Box::pin(Lease::connect(endpoint, transport)).await,
        };
        let lease = match lease {
            Ok(lease) => lease,
            Err(error) => return unconnected(endpoint, &error, request),
        };
        match kind {
            Connection::Reused => trail.connected_before(),
            Connection::New => trail.connected(),
        }
        let idempotent = is_idempotent(request.method());
        let attempt = exchange(lease, transport, request, trail).await;
        tries_left = tries_left.saturating_sub(1);
        let lost = matches!(attempt.result, Err(Failure::Broken));
        let once_more = match (transport.wire, kind) {
            // A shared connection stays where it is, and could refuse for ever.
            (Wire::Http2, _) => attempt.reached == Reached::No && tries_left > 0,
            // The endpoint closed the connection as it was taken up again; there are only so many of them.
            (_, Connection::Reused) => attempt.reached == Reached::No || idempotent,
            (_, Connection::New) => false,
        };
        if !lost || !once_more {
            return attempt;
        }
        let Attempt { result, again, reached } = attempt;
        let Some(same) = again.request() else { return Attempt { result, again: Again::Never, reached } };
        request = same;
    }
}

/// Where the connection of an attempt comes from.
#[derive(Clone, Copy)]
enum Connection {
    Reused,
    New,
}

fn unconnected(endpoint: SocketAddr, error: &io::Error, request: Box<Request<RequestBody>>) -> Attempt {
    tracing::debug!(%endpoint, %error, "endpoint cannot be connected to");
    let timed_out = error.kind() == io::ErrorKind::TimedOut;
    let failure = if timed_out { Failure::ConnectTimeout } else { Failure::Connect };
    Attempt { result: Err(failure), again: Again::Whole(request), reached: Reached::No }
}

/// Whether a method may be repeated (RFC 9110, section 9.2.2).
fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::PUT | Method::DELETE | Method::OPTIONS)
}

/// A request's head beside a claim to its body: what is needed to send it once more.
pub(super) struct Copy {
    head: HeadCopy,
    body: BodyClaim,
}

impl Copy {
    fn of(request: &Request<RequestBody>) -> Self {
        Self { head: HeadCopy::of(request), body: request.body().claim() }
    }

    /// The request, unless a part of its body is gone.
    fn request(self) -> Option<Request<RequestBody>> {
        self.head.request(self.body.body()?)
    }
}

async fn exchange(
    mut lease: Lease,
    transport: &Transport,
    request: Box<Request<RequestBody>>,
    trail: &mut Trail,
) -> Attempt {
    let copy = Copy::of(&request);
    let progress = request.body().progress();
    let failed = |failure, again| Attempt { result: Err(failure), again, reached: Reached::Perhaps };
    let wait = Wait { began: trail.sent().unwrap_or_else(Instant::now), progress: progress.as_ref(), transport };
    match answer(&mut lease, request, wait).await {
        None => failed(Failure::Silent, Again::Copy(copy)),
        Some(Ok(response)) => {
            trail.answered(response.status());
            let silence = transport.read_timeout;
            let lease = if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                lease.let_go();
                None
            } else {
                Some(lease)
            };
            let response = response.map(|body: Incoming| UpstreamBody::new(body, lease, silence));
            Attempt { result: Ok(response), again: Again::Copy(copy), reached: Reached::Perhaps }
        }
        Some(Err(mut error)) => {
            if let Some(unsent) = error.take_message() {
                return Attempt {
                    result: Err(Failure::Broken),
                    again: Again::Whole(Box::new(unsent)),
                    reached: Reached::No,
                };
            }
            if let Some(fault) = progress.and_then(|progress| progress.step().fault) {
                return failed(fault.into(), Again::Never);
            }
            let error = error.into_error();
            tracing::debug!(error = &error as &dyn std::error::Error, "endpoint gave no answer");
            let reached = if http2::is_untouched(&error) { Reached::No } else { Reached::Perhaps };
            let failure = if error.is_parse() { Failure::BadAnswer } else { Failure::Broken };
            Attempt { result: Err(failure), again: Again::Copy(copy), reached }
        }
    }
}

impl From<BodyFault> for Failure {
    fn from(fault: BodyFault) -> Self {
        match fault {
            BodyFault::Broken => Self::Client,
            BodyFault::TooLarge => Self::TooLarge,
            BodyFault::Slow => Self::SlowClient,
        }
    }
}

/// Sends a request and waits for its answer; `None` where the endpoint was silent for too long.
async fn answer(
    lease: &mut Lease,
    request: Box<Request<RequestBody>>,
    wait: Wait<'_>,
) -> Option<Result<Response<Incoming>, TrySendError<Request<RequestBody>>>> {
    match lease {
        Lease::Http1(lease) => {
            let mut answer = pin!(lease.send(*request));
            in_time(wait, |again, cx| match lease.poll_answer(answer.as_mut(), cx) {
                Poll::Ready(answer) => Poll::Ready(Some(answer)),
                Poll::Pending => lease.poll_alarm(again, cx).map(|()| None),
            })
            .await
        }
        Lease::Http2(lease) => {
            let (mut answer, mut alarm) = (Box::pin(lease.send(*request)), Alarm::default());
            in_time(wait, |again, cx| match answer.as_mut().poll(cx) {
                Poll::Ready(answer) => Poll::Ready(Some(answer)),
                Poll::Pending => alarm.poll_at(again, cx).map(|()| None),
            })
            .await
        }
    }
}

/// Waits for an answer as long as the endpoint is not silent: it has its time to take the request, then its time to answer.
/// While the client has nothing to send, the endpoint has none to lose. `poll` gives the answer, or nothing when it is time to
/// look again.
async fn in_time<T>(wait: Wait<'_>, mut poll: impl FnMut(Instant, &mut Context<'_>) -> Poll<Option<T>>) -> Option<T> {
    poll_fn(|cx| {
        loop {
            let (deadline, again) = wait.deadline();
            if let Some(answer) = ready!(poll(again, cx)) {
                return Poll::Ready(Some(answer));
            }
            if Instant::now() >= deadline {
                return Poll::Ready(None);
            }
        }
    })
    .await
}

/// What a wait for an answer goes by.
#[derive(Clone, Copy)]
struct Wait<'a> {
    /// When the request was sent.
    began: Instant,
    /// How far its body has come, where it has one.
    progress: Option<&'a Progress>,
    transport: &'a Transport,
}

impl Wait<'_> {
    /// When the endpoint will have been silent for too long, and when to look again: whose turn it is may change before then,
    /// and with it the patience.
    fn deadline(&self) -> (Instant, Instant) {
        let Self { began, progress, transport } = *self;
        let Some(step) = progress.map(Progress::step) else {
            let deadline = began + transport.read_timeout;
            return (deadline, deadline);
        };
        let now = Instant::now();
        let deadline = match step.turn {
            Turn::Over => step.at.max(began) + transport.read_timeout,
            Turn::Endpoint => step.at.max(began) + transport.send_timeout,
            Turn::Client => now + transport.send_timeout,
        };
        (deadline, deadline.min(now + transport.read_timeout.min(transport.send_timeout)))
    }
}
