//! The server: threads with a runtime each, and the one task that applies snapshots.

use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::Context;
use roadstead_telemetry::Shutdown;
use tokio::{
    runtime,
    sync::Semaphore,
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout_at},
};

use crate::{
    authorize,
    control::Live,
    edge::{Clients, Edge, Transport},
    listen, socket, tunnel,
    upstream::sweep_idle,
};

/// How long requests may take to end after the signal; Kubernetes kills 30 seconds after it.
const DRAIN_TIME: Duration = Duration::from_secs(20);
const SWEEP_INTERVAL: Duration = Duration::from_secs(15);

/// Where and how wide to listen.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Addresses in the clear.
    pub http: Vec<SocketAddr>,
    /// Addresses over TLS.
    pub https: Vec<SocketAddr>,
    /// Threads, each with a listener of its own on every address.
    pub threads: usize,
    /// Connections that each address takes at once.
    pub max_connections: usize,
    /// Connections that each client has at once, over all addresses.
    pub max_connections_per_client: u32,
}

/// A running server.
pub struct Server {
    /// The bound addresses in the clear.
    pub http: Vec<SocketAddr>,
    /// The bound addresses over TLS.
    pub https: Vec<SocketAddr>,
    threads: Vec<JoinHandle<()>>,
}

type Listeners = Vec<(TcpListener, Arc<Edge>)>;

impl Server {
    /// Binds every address and starts the threads.
    ///
    /// # Errors
    /// An address cannot be bound, or a thread or runtime cannot be made.
    pub fn start(options: &ServerOptions, live: &Arc<Live>, shutdown: &Shutdown) -> anyhow::Result<Self> {
        let clients = Clients::new(options.max_connections_per_client);
        let threads = options.threads.max(1);
        let mut server = Self { http: Vec::new(), https: Vec::new(), threads: Vec::new() };
        let mut shares: Vec<Listeners> = (0..threads).map(|_| Vec::new()).collect();
        let plain = options.http.iter().map(|address| (address, Transport::Plain));
        let secure = options.https.iter().map(|address| (address, Transport::Tls));
        for (address, transport) in plain.chain(secure) {
            let listeners = listen::bind(*address, threads)?;
            let bound = if transport == Transport::Tls { &mut server.https } else { &mut server.http };
            bound.extend(listeners.first().and_then(|listener| listener.local_addr().ok()));
            let slots = Arc::new(Semaphore::new(options.max_connections.min(Semaphore::MAX_PERMITS)));
            let edge = Arc::new(Edge {
                live: Arc::clone(live),
                transport,
                slots,
                clients: Arc::clone(&clients),
                shutdown: shutdown.clone(),
            });
            for (share, listener) in shares.iter_mut().zip(listeners) {
                share.push((listener, Arc::clone(&edge)));
            }
        }
        for (index, share) in shares.into_iter().enumerate() {
            let live = Arc::clone(live);
            let runtime =
                runtime::Builder::new_current_thread().enable_all().build().context("cannot make a runtime")?;
            let shutdown = shutdown.clone();
            let thread = thread::Builder::new()
                .name(format!("proxy-{index}"))
                .spawn(move || {
                    runtime.block_on(work(share, shutdown));
                    // Tasks that are still there are dropped with the runtime, and their requests told.
                    drop(runtime);
                    if let Some(log) = live.log.get() {
                        log.flush();
                    }
                })
                .context("cannot start a thread")?;
            server.threads.push(thread);
        }
        Ok(server)
    }

    /// Waits until every thread has drained; they begin with the shutdown.
    pub fn join(self) {
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the proxy panicked");
            }
        }
    }
}

/// One thread: its listeners, then the drain.
async fn work(listeners: Listeners, shutdown: Shutdown) {
    let sweeper = tokio::spawn(async {
        let mut turns = interval(SWEEP_INTERVAL);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            turns.tick().await;
            sweep_idle();
            authorize::sweep_idle();
        }
    });
    let flusher = tokio::spawn(socket::flush_turns());
    let mut edges = JoinSet::new();
    for (listener, edge) in listeners {
        match tokio::net::TcpListener::from_std(listener) {
            Ok(listener) => drop(edges.spawn(edge.run(listener))),
            Err(error) => tracing::error!(%error, "a listener cannot be used"),
        }
    }
    shutdown.wait().await;
    let deadline = Instant::now() + DRAIN_TIME;
    let mut open = Vec::new();
    while let Some(edge) = edges.join_next().await {
        open.extend(edge);
    }
    for mut connections in open {
        let ended = async { while connections.join_next().await.is_some() {} };
        if timeout_at(deadline.into(), ended).await.is_err() {
            tracing::warn!(left = connections.len(), "connections are cut, the time to drain is over");
            connections.shutdown().await;
        }
    }
    tunnel::drain(deadline.saturating_duration_since(Instant::now())).await;
    sweeper.abort();
    flusher.abort();
}
