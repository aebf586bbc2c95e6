//! HTTP/1 connections to endpoints, and the idle ones that this thread keeps.
//!
//! hyper's half of such a connection is a future of its own, usually a task. Here whoever waits for an answer polls it in
//! place: a task would cost each request two more turns of the scheduler, one for the request on its way and one for the
//! answer on its way back. [`Relay`] is the waker that hyper knows, for the connection's whole life; it wakes whoever holds the
//! connection now.

mod idle;
mod relay;

use std::{
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::{
        TrySendError,
        http1::{Builder, SendRequest},
    },
    rt::{Read, Write},
};
use roadstead_routes::Keepalive;
use tokio::time::timeout;

use super::{
    RequestBody, Transport,
    alarm::Alarm,
    connection::{Stream, open},
    transport::{Key, Wire},
};
use crate::head::{MAX_HEAD_BYTES, MAX_HEADERS};
pub(super) use idle::sweep;
use relay::{Note, Relay};

/// How long an endpoint may take to read the rest of a request that it has answered already.
const REST_TIME: Duration = Duration::from_secs(5);

type Driver = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;
type Answer = Result<Response<Incoming>, TrySendError<Request<RequestBody>>>;

/// A connection in use by one request.
pub(super) struct Lease(Box<Link>);

struct Link {
    endpoint: SocketAddr,
    sender: SendRequest<RequestBody>,
    /// hyper's half; `None` once it has ended.
    driver: Option<Driver>,
    relay: Arc<Relay>,
    /// The relay as a waker.
    waker: Waker,
    /// What hyper wakes for answers and their bodies: the driver sends them, which is polled by whoever waits for them.
    note: Arc<Note>,
    noted: Waker,
    alarm: Alarm,
    key: Key,
    wire: Wire,
    keepalive: Keepalive,
    born: Instant,
    requests: u32,
}

impl Lease {
    /// An idle connection of this thread, the one used last first.
    pub(super) fn reuse(key: &Key) -> Option<Self> {
        idle::take(key).map(Self)
    }

    /// A new connection.
    pub(super) async fn connect(endpoint: SocketAddr, transport: &Transport) -> io::Result<Self> {
        let (sender, driver) = match open(endpoint, transport).await? {
            Stream::Plain(stream) => handshake(stream).await?,
            Stream::Tls(stream) => handshake(*stream).await?,
        };
        let (relay, note) = (Arc::new(Relay::default()), Arc::new(Note::default()));
        Ok(Self(Box::new(Link {
            endpoint,
            sender,
            driver: Some(driver),
            waker: Waker::from(Arc::clone(&relay)),
            relay,
            noted: Waker::from(Arc::clone(&note)),
            note,
            alarm: Alarm::default(),
            key: transport.key(endpoint),
            wire: transport.wire,
            keepalive: transport.keepalive,
            born: Instant::now(),
            requests: 0,
        })))
    }

    /// Hands a request to hyper; [`Lease::poll_answer`] makes it go out.
    pub(super) fn send(&mut self, request: Request<RequestBody>) -> impl Future<Output = Answer> + use<> {
        let link = &mut *self.0;
        link.requests += 1;
        // The driver would be woken, which is polled in any case.
        let sender = &mut link.sender;
        link.relay.quietly(|| sender.try_send_request(request)).0
    }

    /// Goes on with the connection until the answer's head is there.
    pub(super) fn poll_answer<F: Future<Output = Answer>>(
        &mut self,
        answer: Pin<&mut F>,
        cx: &mut Context<'_>,
    ) -> Poll<Answer> {
        self.0.poll_with(cx, |noted| answer.poll(noted))
    }

    /// Goes on with the connection until it has more of the answer's body.
    pub(super) fn poll_body<T>(
        &mut self,
        cx: &mut Context<'_>,
        poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        self.0.poll_with(cx, poll)
    }

    /// Ready when that time has come; the connection's own timer is set anew as seldom as possible.
    pub(super) fn poll_alarm(&mut self, at: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let link = &mut *self.0;
        link.relay.follow(cx.waker());
        link.alarm.poll_at(at, &mut Context::from_waker(&link.waker))
    }

    /// Lets an upgraded connection, or what is left of it, go on by itself until its stream is handed over.
    pub(super) fn let_go(self) {
        let mut link = self.0;
        tokio::spawn(poll_fn(move |cx| link.poll_driver(cx)));
    }

    pub(super) fn release(mut self) {
        let link = &mut *self.0;
        link.relay.follow_nobody();
        let now = Instant::now();
        if link.is_over() || link.is_spent(now) {
            return;
        }
        if link.sender.is_ready() {
            idle::keep(self.0, now);
            return;
        }
        // The endpoint answered before it had read the whole request: once it has, the connection is good again. One that
        // does not care for the rest gets no more of it.
        tokio::spawn(async move {
            let mut link = self.0;
            let ready = poll_fn(|cx| match link.poll_driver(cx) {
                Poll::Ready(()) => Poll::Ready(false),
                Poll::Pending if link.sender.is_ready() => Poll::Ready(true),
                Poll::Pending => Poll::Pending,
            });
            if timeout(REST_TIME, ready).await == Ok(true) {
                link.relay.follow_nobody();
                idle::keep(link, Instant::now());
            }
        });
    }
}

impl Link {
    fn is_over(&self) -> bool {
        self.driver.is_none() || self.sender.is_closed()
    }

    fn is_spent(&self, now: Instant) -> bool {
        self.wire == Wire::Http10
            || self.requests >= self.keepalive.requests
            || now.saturating_duration_since(self.born) >= self.keepalive.time
    }

    /// Whether it can take a request. Only if something has happened to it is the driver asked what.
    fn is_good(&mut self) -> bool {
        if self.relay.was_woken() {
            let cx = &mut Context::from_waker(&self.waker);
            let _whatever = drive(&mut self.driver, self.endpoint, cx);
        }
        !self.is_over() && self.sender.is_ready()
    }

    /// Goes on with the connection; ready when it has ended.
    fn poll_driver(&mut self, cx: &Context<'_>) -> Poll<()> {
        self.relay.follow(cx.waker());
        let relayed = &mut Context::from_waker(&self.waker);
        let (polled, woken) = self.relay.quietly(|| drive(&mut self.driver, self.endpoint, relayed));
        if woken && polled.is_pending() {
            // It has had its share of this turn, and more to do.
            cx.waker().wake_by_ref();
        }
        polled
    }

    /// Goes on with the connection, then looks at what it may have brought.
    fn poll_with<T>(&mut self, cx: &mut Context<'_>, poll: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        let _until_it_waits = self.poll_driver(cx);
        self.note.clear();
        let noted = &mut Context::from_waker(&self.noted);
        // What is taken makes room, of which the driver hears when it is polled next.
        let (polled, _) = self.relay.quietly(|| poll(noted));
        if polled.is_pending() && self.note.is_set() {
            // It was not looked at: this task has had its share of the turn.
            cx.waker().wake_by_ref();
        }
        polled
    }
}

fn drive(half: &mut Option<Driver>, endpoint: SocketAddr, cx: &mut Context<'_>) -> Poll<()> {
    let Some(driver) = half else { return Poll::Ready(()) };
    let Poll::Ready(ended) = driver.as_mut().poll(cx) else { return Poll::Pending };
    *half = None;
    if let Err(error) = ended {
        tracing::debug!(%endpoint, error = &error as &dyn std::error::Error, "upstream connection ended");
    }
    Poll::Ready(())
}

async fn handshake<S>(stream: S) -> io::Result<(SendRequest<RequestBody>, Driver)>
where
    S: Read + Write + Unpin + Send + 'static,
{
    let mut builder = Builder::new();
    builder.max_headers(MAX_HEADERS * 2).max_buf_size(MAX_HEAD_BYTES * 4);
    let (sender, connection) = builder.handshake(stream).await.map_err(io::Error::other)?;
    Ok((sender, Box::pin(connection.with_upgrades())))
}
