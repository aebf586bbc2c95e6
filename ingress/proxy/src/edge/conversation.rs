//! One client's conversation in HTTP: hyper's server around the guarded stream, and the watch over it.

use std::{pin::pin, sync::Arc, time::Duration};

use http::{
    HeaderValue, Response, Version,
    header::{CONNECTION, SERVER},
};
use hyper::{Request, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{interval, sleep},
};

use super::{
    Edge, EdgePolicy, Place,
    traffic::{Busy, Idle, STALLED_TURNS, Traffic},
};
use crate::{
    answer::AnswerBody,
    fields::Origin,
    handler::handle,
    head::{Guard, MAX_HEADERS},
    tls::Session,
};

/// How long a new connection keeps its chance to bring a request after the shutdown.
const FIRST_REQUEST_GRACE: Duration = Duration::from_millis(500);
/// Between two turns of the watch over a connection that may not stay idle at all.
const SHORTEST_WATCH: Duration = Duration::from_secs(1);

/// What is known of a connection before its first request.
pub(super) struct Caller {
    /// Where it comes from.
    pub(super) origin: Origin,
    /// Its TLS, where that is ended here.
    pub(super) session: Option<Arc<Session>>,
    /// What holds it among the connections.
    pub(super) place: Arc<Place>,
    /// What it is served by.
    pub(super) policy: Arc<EdgePolicy>,
}

impl Edge {
    /// The shutdown; a connection that has brought no request yet gets a moment for it, since it may be on its way.
    async fn stop(&self, traffic: &Traffic) {
        self.shutdown.wait().await;
        if traffic.begun() == 0 {
            sleep(FIRST_REQUEST_GRACE).await;
        }
    }

    /// Serves requests until either side has enough.
    pub(super) async fn converse<S>(&self, stream: S, caller: Caller)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let traffic = Arc::new(Traffic::default());
        let (peer, policy) = (caller.origin.peer, Arc::clone(&caller.policy));
        let caller = Arc::new(caller);
        let service = service_fn(|request| self.answer(&caller, &traffic, request));
        let builder = builder(&policy);
        let io = TokioIo::new(Guard::new(stream, policy.limits));
        let mut connection = pin!(builder.serve_connection_with_upgrades(io, service));
        let mut stop = pin!(self.stop(&traffic));
        let mut stopping = false;
        let mut watch = interval(policy.keep_alive.max(SHORTEST_WATCH));
        let mut idle = Idle::default();
        loop {
            tokio::select! {
                // Almost every wake-up is for the connection.
                biased;
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(%peer, %error, "connection ended");
                    }
                    return;
                }
                () = &mut stop, if !stopping => {
                    stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = traffic.spent() => connection.as_mut().graceful_shutdown(),
                () = traffic.too_many_resets() => {
                    tracing::debug!(%peer, "connection resets too many of its requests");
                    return;
                }
                _ = watch.tick() => {
                    // hyper ends idle HTTP/1 connections itself; an HTTP/2 one would stay for ever.
                    match idle.watch(&traffic) {
                        0 => {}
                        1..STALLED_TURNS => connection.as_mut().graceful_shutdown(),
                        STALLED_TURNS.. => {
                            tracing::debug!(%peer, "client takes nothing of its answers");
                            return;
                        }
                    }
                }
            }
        }
    }

    /// Answers one request of a connection.
    fn answer(
        &self,
        caller: &Arc<Caller>,
        traffic: &Arc<Traffic>,
        mut request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<AnswerBody>, std::convert::Infallible>> + use<> {
        let (busy, moved) = (Busy::new(traffic), Arc::clone(&traffic.moved));
        let is_last = traffic.begun() >= caller.policy.keep_alive_requests;
        if is_last {
            traffic.spend();
        }
        let closes = request.version() < Version::HTTP_2 && (is_last || caller.policy.keep_alive.is_zero());
        caller.policy.field_names.drop_from(request.headers_mut());
        let origin = caller.believed(&mut request);
        if let Some(session) = &caller.session
            && self.live.generation.load().table.has_client_auth()
        {
            request.extensions_mut().insert(Arc::clone(session));
        }
        let names_server = caller.policy.server_tokens;
        // On the heap for as long as it is at work: hyper would keep room for it in every idle connection, and HTTP/2 would move
        // all of it into a task.
        let answer = Box::pin(handle(Arc::clone(&self.live), origin, Arc::clone(&caller.place), request));
        async move {
            let answer = answer.await;
            busy.finish();
            answer.map(|mut answer| {
                if !names_server {
                    answer.headers_mut().remove(SERVER);
                }
                if closes {
                    answer.headers_mut().entry(CONNECTION).or_insert(HeaderValue::from_static("close"));
                }
                answer.map(|body| body.noted(moved))
            })
        }
    }
}

impl Caller {
    /// Where a request comes from, by a trusted peer's word or by the connection alone.
    fn believed(&self, request: &mut Request<Incoming>) -> Origin {
        let Some((origin, forwarded)) = self.policy.forwarded.believe(&self.origin, request.headers()) else {
            return self.origin;
        };
        if forwarded.says_more() {
            request.extensions_mut().insert(forwarded);
        }
        origin
    }
}

fn builder(policy: &EdgePolicy) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    let head_bytes = policy.limits.head_bytes;
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(policy.keep_alive.max(policy.limits.head))
        .max_headers(MAX_HEADERS)
        .max_buf_size(head_bytes.saturating_mul(2).max(16 * 1024));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(policy.http2_streams)
        .max_header_list_size(u32::try_from(head_bytes).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(128)
        .keep_alive_interval(policy.keep_alive.max(SHORTEST_WATCH))
        .keep_alive_timeout(Duration::from_secs(20));
    if policy.limits.http2 { builder } else { builder.http1_only() }
}
