//! Connections of clients: accepted within limits, told apart, decrypted, guarded, served by hyper, and drained at the end.
//!
//! On the packet's way: this file accepts and counts (`clients`), `arrival` reads the PROXY protocol, `handshake` looks at the
//! ClientHello and ends TLS or passes it through, `conversation` speaks HTTP under the watch of `notice` and `traffic`, and
//! `lounge` keeps connections between two requests. `policy` is what they all go by.

mod arrival;
mod clients;
mod conversation;
mod handshake;
mod lounge;
mod notice;
mod policy;
mod traffic;

pub use clients::Clients;
pub use handshake::fuzz_client_hello;
pub use policy::{EdgeFlags, EdgePolicy, ProxyProtocol};

use std::{io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use roadstead_telemetry::Shutdown;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::sleep,
};

use crate::{
    control::Live,
    edge::{clients::ClientPlace, conversation::Caller},
    metrics::InFlight,
};

/// Between two tries to accept while the process has no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A client's place among the connections, kept until its stream is closed, as a tunnel too.
pub struct Place {
    _slot: OwnedSemaphorePermit,
    _client: Vec<ClientPlace>,
    _open: InFlight,
}

/// What a listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// HTTP in the clear.
    Plain,
    /// TLS, with HTTP in it or passed through.
    Tls,
}

/// One listener of one thread.
pub struct Edge {
    /// What is served.
    pub live: Arc<Live>,
    /// TLS, or plain.
    pub transport: Transport,
    /// Connections that this address may still take, over all threads.
    pub slots: Arc<Semaphore>,
    /// Connections of each client, over all addresses.
    pub clients: Arc<Clients>,
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
        let open = InFlight::new(&self.live.metrics.connections);
        let policy = self.live.edge.load_full();
        let Some(arrival) = self.arrive(stream, peer, &policy).await else { return };
        let place = Arc::new(Place { _slot: slot, _client: arrival.places, _open: open });
        let caller = Caller { origin: arrival.origin, session: None, place, policy };
        // Each part in a box of its own: a connection would keep room for the largest of them, the handshake's, to its end.
        match self.transport {
            Transport::Plain => Box::pin(self.converse(arrival.intake, caller)).await,
            Transport::Tls => {
                let Some(secured) = Box::pin(self.secure(arrival.intake, caller)).await else { return };
                let (stream, caller) = *secured;
                Box::pin(self.converse(stream, caller)).await;
            }
        }
    }
}
