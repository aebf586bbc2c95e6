//! How one request travels to whichever endpoint takes it: decided once, before an endpoint is chosen.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use roadstead_routes::Keepalive;
use rustls_pki_types::ServerName;

use super::tls::TlsPolicy;

/// How a request is carried.
#[derive(Clone, Debug)]
pub struct Transport {
    /// What the endpoint speaks.
    pub wire: Wire,
    /// Over TLS; `None`: in the clear.
    pub tls: Option<TlsTransport>,
    /// How long an endpoint has to accept a connection.
    pub connect_timeout: Duration,
    /// How long an endpoint may send nothing while something is due from it.
    pub read_timeout: Duration,
    /// How long an endpoint may take nothing of a request.
    pub send_timeout: Duration,
    /// How long connections are kept.
    pub keepalive: Keepalive,
}

/// What an endpoint speaks, over TLS or in the clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// HTTP/1.0: one request a connection.
    Http10,
    /// HTTP/1.1.
    Http11,
    /// HTTP/2, many requests at once.
    Http2,
}

/// The TLS side of a transport.
#[derive(Clone, Debug)]
pub struct TlsTransport {
    /// Keys, trust and versions.
    pub policy: Arc<TlsPolicy>,
    /// Whom the endpoint is taken for; `None`: nobody in particular, so its address will do.
    pub name: Option<ServerName<'static>>,
}

/// What two requests must have in common to share a connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) endpoint: SocketAddr,
    /// The policy's number and the name that was asked for; `None` in the clear.
    trust: Option<(u64, Option<ServerName<'static>>)>,
}

impl Transport {
    pub(super) fn key(&self, endpoint: SocketAddr) -> Key {
        let trust = self.tls.as_ref().map(|tls| (tls.policy.id(), tls.name.clone()));
        Key { endpoint, trust }
    }
}
