//! Connections of clients: accepted within a limit, decrypted, guarded, served by hyper, and drained at the end.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use roadstead_routes::Scheme;
use roadstead_telemetry::Shutdown;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{interval, sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use crate::{
    control::Live,
    fields::Origin,
    handler::handle,
    head::{Guard, MAX_HEAD_BYTES, MAX_HEADERS, Patience},
    metrics::InFlight,
};

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// From the start of a connection, or a head's first byte, to the end of that head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// nginx's send_timeout: how long a client may take none of what is written to it.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// nginx's keepalive_timeout: between two requests.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// How long a new connection keeps its chance to bring a request after the shutdown.
const FIRST_REQUEST_GRACE: Duration = Duration::from_millis(500);
/// ingress-nginx's http2-max-concurrent-streams.
const MAX_STREAMS: u32 = 128;
/// Between two tries to accept while the process has no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A client's place among the connections, kept until its stream is closed, as a tunnel too.
pub struct Place {
    _slot: OwnedSemaphorePermit,
    _open: InFlight,
}

/// One listener of one thread.
pub struct Edge {
    /// What is served.
    pub live: Arc<Live>,
    /// TLS, or plain.
    pub tls: Option<TlsAcceptor>,
    /// Connections that this address may still take, over all threads.
    pub slots: Arc<Semaphore>,
    /// When to stop.
    pub shutdown: Shutdown,
}

impl Edge {
    /// Accepts until the shutdown, then returns the connections that are still open.
    pub async fn run(self: Arc<Self>, listener: TcpListener) -> JoinSet<()> {
        let mut connections = JoinSet::new();
        let mut stop = pin!(self.shutdown.wait());
        loop {
            while connections.try_join_next().is_some() {}
            let accepted = tokio::select! {
                biased;
                () = &mut stop => break,
                accepted = self.accept(&listener) => accepted,
            };
            match accepted {
                Ok((stream, peer, slot)) => drop(connections.spawn(Arc::clone(&self).serve(stream, peer, slot))),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        self.take_waiting(listener, &mut connections);
        connections
    }

    /// Serves what the kernel has accepted for this listener already; closing it would reset those connections.
    fn take_waiting(self: &Arc<Self>, listener: TcpListener, connections: &mut JoinSet<()>) {
        let Ok(listener) = listener.into_std() else { return };
        while let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() {
            let Ok((stream, peer)) = listener.accept() else { return };
            let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
            if let Ok(stream) = stream {
                connections.spawn(Arc::clone(self).serve(stream, peer, slot));
            }
        }
    }

    /// One connection beyond the limit waits here, all others in the kernel's queue, where they take no memory of ours. The
    /// slot is taken last, so that a thread without clients keeps none from the others.
    async fn accept(&self, listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
        let (stream, peer) = listener.accept().await?;
        let slot = Arc::clone(&self.slots).acquire_owned().await.map_err(io::Error::other)?;
        Ok((stream, peer, slot))
    }

    async fn serve(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, slot: OwnedSemaphorePermit) {
        let place = Arc::new(Place { _slot: slot, _open: InFlight::new(&self.live.metrics.connections) });
        let (Ok(()), Ok(local)) = (stream.set_nodelay(true), stream.local_addr()) else { return };
        let origin = |scheme| Origin { peer: canonical(peer.ip()), port: local.port(), scheme };
        match &self.tls {
            None => self.converse(stream, origin(Scheme::Http), place).await,
            Some(acceptor) => match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => self.converse(stream, origin(Scheme::Https), place).await,
                _ => self.live.metrics.handshake_failures.inc(),
            },
        }
    }

    /// The shutdown; a connection that has brought no request yet gets a moment for it, since it may be on its way.
    async fn stop(&self, traffic: &Traffic) {
        self.shutdown.wait().await;
        if traffic.begun.load(Ordering::Relaxed) == 0 {
            sleep(FIRST_REQUEST_GRACE).await;
        }
    }

    /// Serves requests until either side has enough.
    async fn converse<S>(&self, stream: S, origin: Origin, place: Arc<Place>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let traffic = Arc::new(Traffic::default());
        let service = {
            let (live, traffic) = (Arc::clone(&self.live), Arc::clone(&traffic));
            service_fn(move |request| {
                let (busy, moved) = (Busy::new(&traffic), Arc::clone(&traffic.moved));
                let answer = handle(Arc::clone(&live), origin, Arc::clone(&place), request);
                async move {
                    let answer = answer.await;
                    busy.finish();
                    answer.map(|answer| answer.map(|body| body.noted(moved)))
                }
            })
        };
        let builder = builder();
        let io = TokioIo::new(Guard::new(stream, Patience { head: HEAD_TIMEOUT, write: WRITE_TIMEOUT }));
        let mut connection = pin!(builder.serve_connection_with_upgrades(io, service));
        let mut stop = pin!(self.stop(&traffic));
        let mut stopping = false;
        let mut watch = interval(IDLE_TIMEOUT);
        let mut idle = Idle::default();
        loop {
            tokio::select! {
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(peer = %origin.peer, %error, "connection ended");
                    }
                    return;
                }
                () = &mut stop, if !stopping => {
                    stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = traffic.too_many_resets.notified() => {
                    tracing::debug!(peer = %origin.peer, "connection resets too many of its requests");
                    return;
                }
                _ = watch.tick() => {
                    // hyper ends idle HTTP/1 connections itself; an HTTP/2 one would stay for ever.
                    match idle.watch(&traffic) {
                        0 => {}
                        1..STALLED_TURNS => connection.as_mut().graceful_shutdown(),
                        STALLED_TURNS.. => {
                            tracing::debug!(peer = %origin.peer, "client takes nothing of its answers");
                            return;
                        }
                    }
                }
            }
        }
    }
}

/// How many requests a connection may take back before they are answered, beyond as many as were answered. Bursts are
/// h2's own matter; this is for resets paced one at a time, each of which costs an endpoint a request.
const RESET_BUDGET: u64 = 100;

/// The requests of one connection.
#[derive(Default)]
struct Traffic {
    begun: AtomicU64,
    answered: AtomicU64,
    reset: AtomicU64,
    /// Pieces of answers' bodies that were handed to hyper.
    moved: Arc<AtomicU64>,
    too_many_resets: Notify,
}

impl Traffic {
    fn is_idle(&self) -> bool {
        let ended = self.answered.load(Ordering::Relaxed) + self.reset.load(Ordering::Relaxed);
        self.begun.load(Ordering::Relaxed) == ended
    }
}

/// After so many turns of the watch without any motion a connection is cut. A client that grants no HTTP/2 flow control
/// never keeps a write waiting, so the guard cannot tell it from one that has nothing to read.
const STALLED_TURNS: u32 = 3;

/// How long a connection has been still.
#[derive(Default)]
struct Idle {
    seen: Option<(u64, u64)>,
    turns: u32,
}

impl Idle {
    /// The turns in a row within which no request was waiting for its answer, none came and no answer moved.
    fn watch(&mut self, traffic: &Traffic) -> u32 {
        let now = Some((traffic.begun.load(Ordering::Relaxed), traffic.moved.load(Ordering::Relaxed)));
        self.turns = if now == self.seen && traffic.is_idle() { self.turns + 1 } else { 0 };
        self.seen = now;
        self.turns
    }
}

/// One request until it is answered, or taken back by the client: then hyper drops it unanswered.
struct Busy {
    traffic: Arc<Traffic>,
    answered: bool,
}

impl Busy {
    fn new(traffic: &Arc<Traffic>) -> Self {
        traffic.begun.fetch_add(1, Ordering::Relaxed);
        Self { traffic: Arc::clone(traffic), answered: false }
    }

    fn finish(mut self) {
        self.answered = true;
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let traffic = &self.traffic;
        if self.answered {
            traffic.answered.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let reset = traffic.reset.fetch_add(1, Ordering::Relaxed) + 1;
        if reset > RESET_BUDGET + traffic.answered.load(Ordering::Relaxed) {
            traffic.too_many_resets.notify_one();
        }
    }
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_TIMEOUT)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD_BYTES * 2);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(u32::try_from(MAX_HEAD_BYTES).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(128)
        .keep_alive_interval(IDLE_TIMEOUT)
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}

/// A dual-stack socket shows IPv4 clients as `::ffff:a.b.c.d`; endpoints and logs get the address itself.
fn canonical(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_idle_while_nothing_moves() {
        let (traffic, mut idle) = (Arc::new(Traffic::default()), Idle::default());
        assert_eq!((idle.watch(&traffic), idle.watch(&traffic)), (0, 1));
        let busy = Busy::new(&traffic);
        assert_eq!((idle.watch(&traffic), idle.watch(&traffic)), (0, 0), "a request waits for its answer");
        busy.finish();
        assert_eq!((idle.watch(&traffic), idle.watch(&traffic)), (1, 2));
        traffic.moved.fetch_add(1, Ordering::Relaxed);
        assert_eq!((idle.watch(&traffic), idle.watch(&traffic)), (0, 1), "an answer moved");
    }
}
