//! The record of one request, from its head to the last byte of its answer: what the access log and the metrics tell.
//!
//! It is begun with the request, goes with it through the stages, then with the answer's body or the tunnel, and is told
//! when it is dropped: at the end of the answer, or where the client went away before one.

mod heads;
pub mod log;

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
    header::HeaderName,
    uri::{Authority, PathAndQuery},
};
use roadstead_routes::{Backend, BackendId, LogOptions, Route, Scheme};

use crate::{
    control::{Generation, Live},
    fields::{Origin, X_REQUEST_ID},
    limiter::Held,
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
    /// The port that it connected to.
    pub port: u16,
    /// In the clear or over TLS.
    pub scheme: Scheme,
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
    /// Bytes that came behind the request, where it became a tunnel.
    pub received: u64,
    /// Its place among those of its client, where they are counted.
    pub held: Option<Held>,
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
    /// How long it took, once it is over.
    took: Option<Duration>,
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

impl Taken {
    /// The canary's backend, where the request went to one.
    #[must_use]
    pub fn canary(&self) -> Option<&Backend> {
        let canary = self.route.canary.as_ref().filter(|canary| canary.backend == self.backend)?;
        self.generation.table.backend(canary.backend)
    }
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
    /// `X-Request-ID`: the client's, or the one that was made for it.
    pub request_id: Option<HeaderValue>,
    /// `traceparent` (W3C Trace Context).
    pub traceparent: Option<HeaderValue>,
    /// Whatever else the log's format names.
    pub kept: HeaderMap,
}

impl Record {
    /// Begins with a request's head.
    #[must_use]
    pub fn begin<B>(live: &Arc<Live>, origin: &Origin, request: &Request<B>) -> Self {
        Self {
            live: Arc::clone(live),
            _in_flight: live.metrics.begin(),
            began: Instant::now(),
            peer: origin.peer,
            port: origin.port,
            scheme: origin.scheme,
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            fields: ClientFields::of(request.headers()),
            head_bytes: heads::request_bytes(request.method(), request.uri(), request.headers()),
            body: None,
            received: 0,
            held: None,
            user: None,
            taken: None,
            trail: Trail::default(),
            status: None,
            answer_head_bytes: 0,
            sent: 0,
            took: None,
        }
    }

    /// Keeps the fields that the log's format asks for; only a format of the operator's own does.
    pub fn keep(&mut self, options: &LogOptions, headers: &HeaderMap) {
        for name in options.fields() {
            for value in headers.get_all(name) {
                if let Ok(name) = HeaderName::from_bytes(name.as_bytes()) {
                    self.fields.kept.append(name, value.clone());
                }
            }
        }
    }

    /// Path and query as the client wrote them.
    #[must_use]
    pub fn target(&self) -> &str {
        self.uri.path_and_query().map_or("/", PathAndQuery::as_str)
    }

    /// The authority as the client wrote it; empty where there was none.
    #[must_use]
    pub fn authority(&self) -> &str {
        let host = self.fields.host.as_ref().and_then(|host| host.to_str().ok());
        self.uri.authority().map(Authority::as_str).or(host).unwrap_or_default()
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

    /// From the head to the end, or to now.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.took.unwrap_or_else(|| self.began.elapsed())
    }

    /// Bytes of the request, its head and what came of its body.
    #[must_use]
    pub fn request_bytes(&self) -> u64 {
        self.head_bytes + self.received + self.body.as_ref().map_or(0, Progress::bytes)
    }
}

impl ClientFields {
    fn of(headers: &HeaderMap) -> Self {
        static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
        Self {
            host: headers.get(http::header::HOST).cloned(),
            referer: headers.get(http::header::REFERER).cloned(),
            user_agent: headers.get(http::header::USER_AGENT).cloned(),
            request_id: headers.get(&X_REQUEST_ID).cloned(),
            traceparent: headers.get(&TRACEPARENT).cloned(),
            kept: HeaderMap::new(),
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let now = Instant::now();
        self.took = Some(now.saturating_duration_since(self.began));
        self.trail.end(now);
        self.live.metrics.ended(self);
        if let Some(log) = self.live.log.get() {
            log.tell(self);
        }
        tracing::debug!(peer = %self.peer, status = self.told_status(), "answered");
    }
}
