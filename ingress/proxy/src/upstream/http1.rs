//! HTTP/1 connections to endpoints, and the idle ones that this thread keeps.

use std::{
    cell::RefCell,
    collections::HashMap,
    io,
    net::SocketAddr,
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
use tokio::{task::AbortHandle, time::timeout};

use super::{
    RequestBody, Transport,
    connection::{Stream, drive, open},
    transport::{Key, Wire},
};
use crate::head::{MAX_HEAD_BYTES, MAX_HEADERS};

/// How long an endpoint may take to read the rest of a request that it has answered already.
const REST_TIME: Duration = Duration::from_secs(5);

thread_local! {
    static IDLE: RefCell<Idle> = RefCell::default();
}

#[derive(Default)]
struct Idle {
    by_key: HashMap<Key, Vec<Waiting>>,
    count: usize,
}

struct Waiting {
    lease: Lease,
    until: Instant,
}

impl Waiting {
    fn is_good(&self, now: Instant) -> bool {
        now < self.until && self.lease.sender.is_ready()
    }
}

/// A connection in use by one request.
pub(super) struct Lease {
    sender: SendRequest<RequestBody>,
    key: Key,
    wire: Wire,
    keepalive: Keepalive,
    born: Instant,
    requests: u32,
    task: AbortHandle,
}

impl Lease {
    /// An idle connection of this thread, the one used last first.
    pub(super) fn reuse(key: &Key) -> Option<Self> {
        IDLE.with_borrow_mut(|idle| {
            let waiting = idle.by_key.get_mut(key)?;
            let now = Instant::now();
            while let Some(candidate) = waiting.pop() {
                idle.count -= 1;
                if candidate.is_good(now) {
                    return Some(candidate.lease);
                }
            }
            None
        })
    }

    /// A new connection.
    pub(super) async fn connect(endpoint: SocketAddr, transport: &Transport) -> io::Result<Self> {
        let (sender, task) = match open(endpoint, transport).await? {
            Stream::Plain(stream) => handshake(endpoint, stream).await?,
            Stream::Tls(stream) => handshake(endpoint, *stream).await?,
        };
        let (wire, keepalive) = (transport.wire, transport.keepalive);
        Ok(Self { sender, key: transport.key(endpoint), wire, keepalive, born: Instant::now(), requests: 0, task })
    }

    pub(super) async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, TrySendError<Request<RequestBody>>> {
        self.requests += 1;
        self.sender.try_send_request(request).await
    }

    pub(super) fn release(mut self) {
        if self.sender.is_closed() || self.is_spent() {
            return;
        }
        if self.sender.is_ready() {
            self.keep();
            return;
        }
        // The endpoint answered before it had read the whole request: once it has, the connection is good again. One that
        // does not care for the rest gets no more of it.
        tokio::spawn(async move {
            match timeout(REST_TIME, self.sender.ready()).await {
                Ok(Ok(())) => self.keep(),
                Ok(Err(_)) => {}
                Err(_) => self.task.abort(),
            }
        });
    }

    fn is_spent(&self) -> bool {
        self.wire == Wire::Http10
            || self.requests >= self.keepalive.requests
            || self.born.elapsed() >= self.keepalive.time
    }

    fn keep(self) {
        IDLE.with_borrow_mut(|idle| {
            if idle.count < usize::try_from(self.keepalive.connections).unwrap_or(usize::MAX) {
                idle.count += 1;
                let until = (Instant::now() + self.keepalive.timeout).min(self.born + self.keepalive.time);
                idle.by_key.entry(self.key.clone()).or_default().push(Waiting { lease: self, until });
            }
        });
    }
}

async fn handshake<S>(endpoint: SocketAddr, stream: S) -> io::Result<(SendRequest<RequestBody>, AbortHandle)>
where
    S: Read + Write + Unpin + Send + 'static,
{
    let mut builder = Builder::new();
    builder.max_headers(MAX_HEADERS * 2).max_buf_size(MAX_HEAD_BYTES * 4);
    let (sender, connection) = builder.handshake(stream).await.map_err(io::Error::other)?;
    // Ends when the sender is dropped, when the endpoint closes, or in an upgraded stream that the request's task owns.
    Ok((sender, drive(endpoint, connection.with_upgrades()).abort_handle()))
}

pub(super) fn sweep() {
    let now = Instant::now();
    IDLE.with_borrow_mut(|idle| {
        for waiting in idle.by_key.values_mut() {
            waiting.retain(|candidate| candidate.is_good(now));
        }
        idle.by_key.retain(|_, waiting| !waiting.is_empty());
        idle.count = idle.by_key.values().map(Vec::len).sum();
    });
}
