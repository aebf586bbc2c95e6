//! HTTP/2 connections to endpoints (RFC 9113): in the clear with prior knowledge, or over TLS; shared by this thread's requests.

use std::{
    cell::RefCell,
    collections::HashMap,
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};

use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::{
        TrySendError,
        http2::{Builder, SendRequest},
    },
    rt::{Read, Write},
};
use hyper_util::rt::TokioExecutor;
use roadstead_routes::Keepalive;
use tokio::sync::Mutex;

use super::{
    RequestBody, Transport,
    connection::{Stream, drive, open},
    transport::Key,
};
use crate::head::MAX_HEAD_BYTES;

/// Requests that share a connection at most, whatever more the endpoint allows: one lost connection must not take all.
const MAX_STREAMS: usize = 100;

/// Connections of one thread to one endpoint; beyond that, requests wait for the streams of others to end.
const MAX_CONNECTIONS: usize = 8;

/// How much of an answer may be on its way on one stream, and on all of a connection together.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

thread_local! {
    static OPEN: RefCell<HashMap<Key, Endpoint>> = RefCell::default();
}

/// The connections of one key.
#[derive(Default)]
struct Endpoint {
    connections: Vec<Connection>,
    /// Held while one is opened, so that many requests at once do not open one each.
    opening: Arc<Mutex<()>>,
}

#[derive(Clone)]
struct Connection {
    sender: SendRequest<RequestBody>,
    state: Arc<State>,
    keepalive: Keepalive,
    born: Instant,
}

#[derive(Default)]
struct State {
    /// Requests that are using it now.
    users: AtomicUsize,
    /// Requests so far.
    requests: AtomicU64,
    /// The endpoint's own limit of streams.
    streams: AtomicUsize,
    /// When the last request ended, in milliseconds after the connection's start.
    idle_since: AtomicU64,
}

impl Connection {
    fn users(&self) -> usize {
        self.state.users.load(Ordering::Relaxed)
    }

    fn has_room(&self) -> bool {
        self.users() < MAX_STREAMS.min(self.state.streams.load(Ordering::Relaxed).max(1))
    }

    /// It takes no more requests; those that use it go on.
    fn is_spent(&self) -> bool {
        self.sender.is_closed()
            || self.born.elapsed() >= self.keepalive.time
            || self.state.requests.load(Ordering::Relaxed) >= u64::from(self.keepalive.requests)
    }

    fn is_unused_for_long(&self) -> bool {
        let idle = self.age().saturating_sub(self.state.idle_since.load(Ordering::Relaxed));
        let patience = if self.keepalive.connections == 0 { 0 } else { self.keepalive.timeout.as_millis() };
        self.users() == 0 && u128::from(idle) >= patience
    }

    fn age(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn lease(&self) -> Lease {
        self.state.users.fetch_add(1, Ordering::Relaxed);
        self.state.requests.fetch_add(1, Ordering::Relaxed);
        Lease(self.clone())
    }
}

/// One request's share of a connection.
pub(super) struct Lease(Connection);

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.state.idle_since.store(self.0.age(), Ordering::Relaxed);
        self.0.state.users.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Lease {
    /// A share of a connection of this thread, where one has room; the fullest one that can take more needs the fewest
    /// connections.
    pub(super) fn share(key: &Key) -> Option<Self> {
        OPEN.with_borrow_mut(|open| {
            let connections = &mut open.get_mut(key)?.connections;
            connections.retain(|connection| !connection.is_spent() && !connection.is_unused_for_long());
            let roomy = connections.iter().filter(|connection| connection.has_room());
            let chosen = roomy.max_by_key(|connection| connection.users()).or_else(|| {
                let all_there_may_be = connections.len() >= MAX_CONNECTIONS;
                connections.iter().filter(|_| all_there_may_be).min_by_key(|connection| connection.users())
            })?;
            Some(chosen.lease())
        })
    }

    /// A share of a new connection, or of one that another request has just opened.
    pub(super) async fn connect(endpoint: SocketAddr, transport: &Transport) -> io::Result<Self> {
        let key = transport.key(endpoint);
        let opening = OPEN.with_borrow_mut(|open| Arc::clone(&open.entry(key.clone()).or_default().opening));
        let _alone = opening.lock().await;
        if let Some(lease) = Self::share(&key) {
            return Ok(lease);
        }
        let state = Arc::new(State { streams: AtomicUsize::new(MAX_STREAMS), ..State::default() });
        let sender = match open(endpoint, transport).await? {
            Stream::Plain(stream) => handshake(endpoint, stream, &state).await?,
            Stream::Tls(stream) => handshake(endpoint, *stream, &state).await?,
        };
        let connection = Connection { sender, state, keepalive: transport.keepalive, born: Instant::now() };
        let lease = connection.lease();
        OPEN.with_borrow_mut(|open| open.entry(key).or_default().connections.push(connection));
        Ok(lease)
    }

    pub(super) async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, TrySendError<Request<RequestBody>>> {
        self.0.sender.try_send_request(request).await
    }
}

async fn handshake<S>(endpoint: SocketAddr, stream: S, state: &Arc<State>) -> io::Result<SendRequest<RequestBody>>
where
    S: Read + Write + Unpin + Send + 'static,
{
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(u32::try_from(MAX_HEAD_BYTES * 4).unwrap_or(u32::MAX));
    let (sender, connection) = builder.handshake(stream).await.map_err(io::Error::other)?;
    let state = Arc::clone(state);
    let watched = async move {
        let mut connection = pin!(connection);
        poll_fn(|cx| {
            let polled = connection.as_mut().poll(cx);
            // The endpoint may change its limit at any time.
            state.streams.store(connection.current_max_send_streams(), Ordering::Relaxed);
            polled
        })
        .await
    };
    drop(drive(endpoint, watched));
    Ok(sender)
}

/// Whether the endpoint said that it has not begun to work on a request: it refused the stream, or was leaving (RFC 9113,
/// sections 8.7 and 6.8). Such a request may be sent again, whatever its method.
pub(super) fn is_untouched(error: &hyper::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            let refused = error.reason() == Some(h2::Reason::REFUSED_STREAM);
            return error.is_remote() && (refused || error.is_go_away());
        }
        cause = error.source();
    }
    false
}

pub(super) fn sweep() {
    OPEN.with_borrow_mut(|open| {
        for endpoint in open.values_mut() {
            endpoint.connections.retain(|connection| !connection.is_spent() && !connection.is_unused_for_long());
        }
        // Somebody may be waiting for one that is being opened.
        open.retain(|_, endpoint| !endpoint.connections.is_empty() || Arc::strong_count(&endpoint.opening) > 1);
    });
}
