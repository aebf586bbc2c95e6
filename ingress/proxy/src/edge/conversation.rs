//! One client's conversation in HTTP: hyper's server around the guarded stream, and the watch over it.
//!
//! The stream waits for its first byte by itself (`lounge`), tells which HTTP it is, and is lent to hyper's server of that.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{
    HeaderValue, Response, Version,
    header::{CONNECTION, SERVER},
};
use hyper::{
    Request,
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::sleep,
};

use super::{
    Edge, EdgePolicy, Place,
    lounge::{Home, note_still},
    notice::{Event, Watch},
    traffic::{Busy, STALLED_TURNS, TURNS, Traffic},
};
use crate::{
    answer::{AnswerBody, Flow},
    fields::Origin,
    handler::handle,
    head::{Guard, Hello, MAX_HEADERS},
    tls::Session,
};

/// How long a new connection keeps its chance to bring a request after the shutdown.
const FIRST_REQUEST_GRACE: Duration = Duration::from_millis(500);
/// Between two signs of life that an HTTP/2 client is asked for, where connections may not stay idle at all.
const SHORTEST_PING: Duration = Duration::from_secs(1);

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

/// How serving a connection ended.
enum Served {
    /// For good.
    Over,
    /// It is still, and its stream can be taken back.
    Still,
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
        let caller = Arc::new(caller);
        let mut guard = Box::new(Guard::new(stream, caller.policy.limits));
        let mut watch = Watch::new(&traffic, caller.policy.keep_alive, self.stop(&traffic));
        let home = Home::new();
        loop {
            let mut server = match poll_fn(|cx| poll_hello(cx, &mut guard, &mut watch, &traffic)).await {
                None => return,
                Some(Hello::Http2) => {
                    let service = service_fn(|request| self.answer(&caller, &traffic, request));
                    let io = TokioIo::new(home.lend(guard, &traffic));
                    let mut server = Box::pin(http2(&caller.policy).serve_connection(io, service));
                    let wind_down = |server: Pin<&mut http2::Connection<_, _, _>>| server.graceful_shutdown();
                    serve(server.as_mut(), wind_down, &mut watch, &traffic, &caller).await;
                    return;
                }
                Some(Hello::Http1) => {
                    let service = service_fn(|request| self.answer(&caller, &traffic, request));
                    let io = TokioIo::new(home.lend(guard, &traffic));
                    Box::pin(http1(&caller.policy).serve_connection(io, service).with_upgrades())
                }
            };
            let wind_down = |server: Pin<&mut http1::UpgradeableConnection<_, _>>| server.graceful_shutdown();
            match serve(server.as_mut(), wind_down, &mut watch, &traffic, &caller).await {
                Served::Over => return,
                Served::Still => match home.recall(server) {
                    Some(recalled) => guard = recalled,
                    None => return,
                },
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
        let busy = Busy::new(traffic);
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
        let request = Box::new(request.map(Some));
        let answer = Box::pin(handle(Arc::clone(&self.live), origin, Arc::clone(&caller.place), request));
        async move {
            let answer = answer.await;
            let passage = Flow::enter(busy.flow());
            busy.finish();
            answer.map(|mut answer| {
                if !names_server {
                    answer.headers_mut().remove(SERVER);
                }
                if closes {
                    answer.headers_mut().entry(CONNECTION).or_insert(HeaderValue::from_static("close"));
                }
                answer.map(|body| body.noted(passage))
            })
        }
    }
}

/// Waits for the first byte of a request; `None` where there will be none.
fn poll_hello<S: AsyncRead + Unpin>(
    cx: &mut Context<'_>,
    guard: &mut Guard<S>,
    watch: &mut Watch<'_>,
    traffic: &Traffic,
) -> Poll<Option<Hello>> {
    loop {
        if let Poll::Ready(hello) = guard.poll_hello(cx) {
            return Poll::Ready(hello);
        }
        match watch.poll_event(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Event::Stop | Event::Spent | Event::TooManyResets) => return Poll::Ready(None),
            // For the first request the guard's own time counts.
            Poll::Ready(Event::Idle(TURNS..)) if traffic.begun() > 0 => return Poll::Ready(None),
            Poll::Ready(Event::Idle(_) | Event::Aside) => {}
        }
    }
}

/// Serves until the connection ends, or until it can be put aside.
async fn serve<C, E>(
    mut server: Pin<&mut C>,
    wind_down: impl Fn(Pin<&mut C>),
    watch: &mut Watch<'_>,
    traffic: &Arc<Traffic>,
    caller: &Caller,
) -> Served
where
    C: Future<Output = Result<(), E>>,
    E: std::fmt::Display,
{
    let peer = caller.origin.peer;
    poll_fn(|cx| {
        loop {
            if let Poll::Ready(ended) = server.as_mut().poll(cx) {
                if let Err(error) = ended {
                    tracing::debug!(%peer, %error, "connection ended");
                }
                return Poll::Ready(Served::Over);
            }
            match watch.poll_event(cx) {
                Poll::Pending => break,
                Poll::Ready(Event::TooManyResets) => {
                    tracing::debug!(%peer, "connection resets too many of its requests");
                    return Poll::Ready(Served::Over);
                }
                // A head that has begun has the guard's time.
                Poll::Ready(Event::Idle(_)) if traffic.is_in_head() => {}
                Poll::Ready(Event::Idle(STALLED_TURNS..)) => {
                    tracing::debug!(%peer, "client takes nothing of its answers");
                    return Poll::Ready(Served::Over);
                }
                Poll::Ready(Event::Stop | Event::Spent | Event::Idle(TURNS..)) => wind_down(server.as_mut()),
                Poll::Ready(Event::Aside) if traffic.is_still() => return Poll::Ready(Served::Still),
                Poll::Ready(Event::Idle(_) | Event::Aside) => {}
            }
        }
        if traffic.is_still() {
            note_still(traffic);
        }
        Poll::Pending
    })
    .await
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

/// How long a head may take and a connection be idle is the guard's and the watch's to say: hyper's own timer is set anew for
/// each request.
fn http1(policy: &EdgePolicy) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .header_read_timeout(None)
        .max_headers(MAX_HEADERS)
        .max_buf_size(policy.limits.head_bytes.saturating_mul(2).max(16 * 1024));
    builder
}

fn http2(policy: &EdgePolicy) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(policy.http2_streams)
        .max_header_list_size(u32::try_from(policy.limits.head_bytes).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(128)
        .keep_alive_interval(policy.keep_alive.max(SHORTEST_PING))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}
