//! The record of one request, from its head to the last byte of its answer: what the access log and the metrics tell.
//!
//! It is begun with the request, goes with it through the stages, then with the answer's body (or the tunnel), and is told
//! when it is dropped: at the end of the answer, or where the client went away before one.

mod heads;

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header::HeaderName};
use hyper::body::Incoming;
use roadstead_routes::{BackendId, Route};

use crate::{
    control::{Generation, Live},
    fields::{Origin, X_REQUEST_ID},
    metrics::InFlight,
    upstream::{Progress, Trail},
};

/// nginx's status of a request that its client gave up before an answer.
const CLIENT_GONE: u16 = 499;

/// One request, as it will be told.
pub struct Record {
    live: Arc<Live>,
    _in_flight: InFlight,
    /// When its head was there.
    pub began: Instant,
    /// The client.
    pub peer: IpAddr,
    /// As the client wrote it.
    pub method: Method,
    /// As the client wrote it.
    pub uri: Uri,
    /// As the client wrote it.
    pub version: Version,
    /// The client's fields that the log tells, as far as they were there.
    pub fields: ClientFields,
    /// Bytes of the request's head, as HTTP/1.1 would write it.
    pub head_bytes: u64,
    /// Tells how much of its body has come.
    pub body: Option<Progress>,
    /// The user that authentication found.
    pub user: Option<Box<str>>,
    /// What took it.
    pub taken: Option<Taken>,
    /// The attempts at endpoints.
    pub trail: Trail,
    /// The answer's status.
    pub status: Option<StatusCode>,
    /// Bytes of the answer's head.
    pub answer_head_bytes: u64,
    /// Bytes of the answer's content that were handed to the client's connection.
    pub sent: u64,
}

/// The route of a request and where it led.
pub struct Taken {
    /// The generation that judged it.
    pub generation: Arc<Generation>,
    /// Its route.
    pub route: Arc<Route>,
    /// Its backend, which a canary may have changed.
    pub backend: BackendId,
}

/// Fields of a request that its record keeps.
#[derive(Clone, Debug, Default)]
pub struct ClientFields {
    /// `Host` or `:authority`.
    pub host: Option<HeaderValue>,
    /// `Referer`.
    pub referer: Option<HeaderValue>,
    /// `User-Agent`.
    pub user_agent: Option<HeaderValue>,
    /// `X-Forwarded-For`, as the client claimed it.
    pub forwarded_for: Option<HeaderValue>,
    /// `X-Request-ID`: the client's, or the one that was made for it.
    pub request_id: Option<HeaderValue>,
    /// `traceparent` (W3C Trace Context).
    pub traceparent: Option<HeaderValue>,
}

impl Record {
    /// Begins with a request's head.
    #[must_use]
    pub fn begin(live: &Arc<Live>, origin: &Origin, request: &Request<Incoming>) -> Self {
        Self {
            live: Arc::clone(live),
            _in_flight: live.metrics.begin(),
            began: Instant::now(),
            peer: origin.peer,
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            fields: ClientFields::of(request.headers()),
            head_bytes: heads::request_bytes(request.method(), request.uri(), request.headers()),
            body: None,
            user: None,
            taken: None,
            trail: Trail::default(),
            status: None,
            answer_head_bytes: 0,
            sent: 0,
        }
    }

    /// The answer's head is decided.
    pub fn answered<B>(&mut self, response: &Response<B>) {
        self.status = Some(response.status());
        self.answer_head_bytes = heads::response_bytes(response.status(), response.headers());
    }

    /// The status to tell.
    #[must_use]
    pub fn told_status(&self) -> u16 {
        self.status.map_or(CLIENT_GONE, |status| status.as_u16())
    }

    /// From the head to now.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Bytes of the request, its head and what came of its body.
    #[must_use]
    pub fn request_bytes(&self) -> u64 {
        self.head_bytes + self.body.as_ref().map_or(0, Progress::bytes)
    }
}

impl ClientFields {
    fn of(headers: &HeaderMap) -> Self {
        static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
        static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
        Self {
            host: headers.get(http::header::HOST).cloned(),
            referer: headers.get(http::header::REFERER).cloned(),
            user_agent: headers.get(http::header::USER_AGENT).cloned(),
            forwarded_for: headers.get(&X_FORWARDED_FOR).cloned(),
            request_id: headers.get(&X_REQUEST_ID).cloned(),
            traceparent: headers.get(&TRACEPARENT).cloned(),
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.trail.end();
        self.live.metrics.ended(self);
        tracing::debug!(peer = %self.peer, status = self.told_status(), "answered");
    }
}
