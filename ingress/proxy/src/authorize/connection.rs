//! Connections to authentication services, and the idle ones that this thread keeps.

use std::{
    cell::RefCell,
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Uri, response::Parts};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use roadstead_routes::AuthKeepalive;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

use crate::head::{MAX_HEAD_BYTES, MAX_HEADERS};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// nginx's proxy_read_timeout.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// A longer content of an answer is not read to its end; nobody gets to see it.
const MAX_CONTENT: usize = 64 << 10;

thread_local! {
    static IDLE: RefCell<HashMap<Peer, Vec<Idle>>> = RefCell::default();
}

/// Whom a connection leads to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    /// The name in its certificate, over TLS.
    pub(super) tls: Option<ServerName<'static>>,
}

struct Idle {
    since: Instant,
    timeout: Duration,
    served: u32,
    sender: Sender,
}

type Sender = SendRequest<Empty<Bytes>>;

/// A request without a body, to be sent as often as it takes.
pub(super) struct Head {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
}

impl Head {
    fn request(&self) -> Request<Empty<Bytes>> {
        let mut request = Request::new(Empty::new());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }
}

/// Sends a request, on an idle connection where there is one; where that one had died, on a new one.
pub(super) async fn exchange(
    peer: &Peer,
    tls: Option<&Arc<ClientConfig>>,
    head: &Head,
    keepalive: AuthKeepalive,
) -> io::Result<Parts> {
    while let Some((sender, served)) = reuse(peer) {
        match converse(peer, sender, served, head, keepalive).await {
            Err(error) if error.kind() != io::ErrorKind::TimedOut => {}
            answered => return answered,
        }
    }
    let sender = timeout(CONNECT_TIMEOUT, connect(peer, tls)).await.map_err(|_| timed_out("no connection"))??;
    converse(peer, sender, 0, head, keepalive).await
}

async fn converse(
    peer: &Peer,
    mut sender: Sender,
    served: u32,
    head: &Head,
    keepalive: AuthKeepalive,
) -> io::Result<Parts> {
    let answer = async {
        let response = sender.send_request(head.request()).await.map_err(io::Error::other)?;
        let (parts, body): (Parts, Incoming) = response.into_parts();
        let whole = Limited::new(body, MAX_CONTENT).collect().await.is_ok();
        let again = whole && served + 1 < keepalive.requests && sender.ready().await.is_ok();
        Ok::<_, io::Error>((parts, again))
    };
    let (parts, again) = timeout(ANSWER_TIMEOUT, answer).await.map_err(|_| timed_out("no answer"))??;
    if again {
        keep(peer, Idle { since: Instant::now(), timeout: keepalive.timeout, served: served + 1, sender }, keepalive);
    }
    Ok(parts)
}

fn reuse(peer: &Peer) -> Option<(Sender, u32)> {
    IDLE.with_borrow_mut(|idle| {
        let waiting = idle.get_mut(peer)?;
        while let Some(idle) = waiting.pop() {
            if idle.sender.is_ready() && idle.since.elapsed() < idle.timeout {
                return Some((idle.sender, idle.served));
            }
        }
        None
    })
}

fn keep(peer: &Peer, connection: Idle, keepalive: AuthKeepalive) {
    IDLE.with_borrow_mut(|idle| {
        let waiting = idle.entry(peer.clone()).or_default();
        if waiting.len() < usize::try_from(keepalive.connections).unwrap_or(usize::MAX) {
            waiting.push(connection);
        }
    });
}

/// Closes this thread's idle connections that are over their time or closed by the service.
pub fn sweep_idle() {
    IDLE.with_borrow_mut(|idle| {
        for waiting in idle.values_mut() {
            waiting.retain(|idle| idle.since.elapsed() < idle.timeout && !idle.sender.is_closed());
        }
        idle.retain(|_, waiting| !waiting.is_empty());
    });
}

async fn connect(peer: &Peer, tls: Option<&Arc<ClientConfig>>) -> io::Result<Sender> {
    let stream = TcpStream::connect(peer.address).await?;
    stream.set_nodelay(true)?;
    match (&peer.tls, tls) {
        (None, _) => handshake(TokioIo::new(stream)).await,
        (Some(name), Some(config)) => {
            let stream = TlsConnector::from(Arc::clone(config)).connect(name.clone(), stream).await?;
            handshake(TokioIo::new(stream)).await
        }
        (Some(_), None) => Err(io::Error::other("this host has no trusted roots")),
    }
}

async fn handshake<S>(stream: S) -> io::Result<Sender>
where
    S: hyper::rt::Read + hyper::rt::Write + Send + Unpin + 'static,
{
    let mut builder = http1::Builder::new();
    builder.max_headers(MAX_HEADERS * 2).max_buf_size(MAX_HEAD_BYTES * 2);
    let (sender, connection) = builder.handshake(stream).await.map_err(io::Error::other)?;
    // Ends when the sender is dropped, or when the service closes.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection to an authentication service ended");
        }
    });
    Ok(sender)
}

fn timed_out(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("{what} in time"))
}
