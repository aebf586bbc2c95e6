//! Connections to endpoints, and the idle ones that this thread keeps.

use std::{
    cell::RefCell,
    collections::HashMap,
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

use super::{RequestBody, Transport};
use crate::head::{MAX_HEAD_BYTES, MAX_HEADERS};

/// nginx's upstream keepalive_timeout.
const IDLE_TIME: Duration = Duration::from_secs(60);
/// How long an endpoint may take to read the rest of a request that it has answered already.
const REST_TIME: Duration = Duration::from_secs(5);
/// ingress-nginx's upstream-keepalive-connections, which counts per worker as this does per thread.
const MAX_IDLE: usize = 320;

thread_local! {
    static IDLE: RefCell<Idle> = RefCell::default();
}

#[derive(Default)]
struct Idle {
    by_endpoint: HashMap<SocketAddr, Vec<(Instant, Sender)>>,
    count: usize,
}

type Sender = SendRequest<RequestBody>;

/// A connection in use by one request.
pub(super) struct Lease {
    pub(super) sender: Sender,
    endpoint: SocketAddr,
}

impl Lease {
    /// An idle connection of this thread, the one used last first.
    pub(super) fn reuse(endpoint: SocketAddr) -> Option<Self> {
        IDLE.with_borrow_mut(|idle| {
            let waiting = idle.by_endpoint.get_mut(&endpoint)?;
            while let Some((since, sender)) = waiting.pop() {
                idle.count -= 1;
                if sender.is_ready() && since.elapsed() < IDLE_TIME {
                    return Some(Self { sender, endpoint });
                }
            }
            None
        })
    }

    /// A new connection.
    pub(super) async fn connect(endpoint: SocketAddr, transport: &Transport) -> io::Result<Self> {
        let stream =
            timeout(transport.connect_timeout, TcpStream::connect(endpoint)).await.map_err(|_| timed_out())??;
        stream.set_nodelay(true)?;
        let mut builder = http1::Builder::new();
        builder.max_headers(MAX_HEADERS * 2).max_buf_size(MAX_HEAD_BYTES * 4);
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        // Ends when the sender is dropped, when the endpoint closes, or in an upgraded stream that the request's task owns.
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%endpoint, %error, "upstream connection ended");
            }
        });
        Ok(Self { sender, endpoint })
    }

    /// Gives the connection back when the answer has been read to its end.
    pub(super) fn release(mut self) {
        if self.sender.is_closed() {
            return;
        }
        if self.sender.is_ready() {
            self.keep();
            return;
        }
        // The endpoint answered before it had read the whole request: once it has, the connection is good again.
        tokio::spawn(async move {
            if matches!(timeout(REST_TIME, self.sender.ready()).await, Ok(Ok(()))) {
                self.keep();
            }
        });
    }

    fn keep(self) {
        IDLE.with_borrow_mut(|idle| {
            if idle.count < MAX_IDLE {
                idle.count += 1;
                idle.by_endpoint.entry(self.endpoint).or_default().push((Instant::now(), self.sender));
            }
        });
    }
}

fn timed_out() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "no connection in time")
}

/// Closes this thread's idle connections that are over their time or closed by their endpoint.
pub fn sweep_idle() {
    IDLE.with_borrow_mut(|idle| {
        for waiting in idle.by_endpoint.values_mut() {
            waiting.retain(|(since, sender)| since.elapsed() < IDLE_TIME && !sender.is_closed());
        }
        idle.by_endpoint.retain(|_, waiting| !waiting.is_empty());
        idle.count = idle.by_endpoint.values().map(Vec::len).sum();
    });
}
