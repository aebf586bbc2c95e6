//! Connections to endpoints: opened, lent to requests, and given back.
//!
//! HTTP/1 connections serve one request at a time and wait idle for the next (`http1`), HTTP/2 ones are shared (`http2`). Both
//! are kept by endpoint and trust, so that none ever serves a request that asked for other keys or another name.

use std::{future::Future, io, net::SocketAddr};

use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    Transport, http1, http2,
    transport::{TlsTransport, Wire},
};
use crate::socket::Socket;

/// A connection, or a share of one, in use by one request.
pub(super) enum Lease {
    Http1(http1::Lease),
    Http2(http2::Lease),
}

/// A new stream to an endpoint.
pub(super) enum Stream {
    Plain(TokioIo<Socket>),
    Tls(Box<TokioIo<TlsStream<Socket>>>),
}

impl Lease {
    /// A connection that this thread has already.
    pub(super) fn reuse(endpoint: SocketAddr, transport: &Transport) -> Option<Self> {
        match transport.wire {
            Wire::Http10 => None,
            Wire::Http11 => http1::Lease::reuse(&transport.key(endpoint)).map(Self::Http1),
            Wire::Http2 => http2::Lease::share(&transport.key(endpoint)).map(Self::Http2),
        }
    }

    /// A new connection.
    pub(super) async fn connect(endpoint: SocketAddr, transport: &Transport) -> io::Result<Self> {
        let connecting = async {
            match transport.wire {
                Wire::Http10 | Wire::Http11 => http1::Lease::connect(endpoint, transport).await.map(Self::Http1),
                Wire::Http2 => http2::Lease::connect(endpoint, transport).await.map(Self::Http2),
            }
        };
        let timed_out = |_| io::Error::new(io::ErrorKind::TimedOut, "no connection in time");
        timeout(transport.connect_timeout, connecting).await.map_err(timed_out)?
    }

    /// Gives the connection back when the answer has been read to its end.
    pub(super) fn release(self) {
        match self {
            Self::Http1(lease) => lease.release(),
            // Its share ends here.
            Self::Http2(_) => {}
        }
    }

    /// Lets a connection that is no longer HTTP go on by itself.
    pub(super) fn let_go(self) {
        match self {
            Self::Http1(lease) => lease.let_go(),
            Self::Http2(_) => {}
        }
    }
}

/// Opens a stream, over TLS where the transport asks for it.
pub(super) async fn open(endpoint: SocketAddr, transport: &Transport) -> io::Result<Stream> {
    let stream = TcpStream::connect(endpoint).await?;
    stream.set_nodelay(true)?;
    let stream = Socket::new(stream);
    match &transport.tls {
        None => Ok(Stream::Plain(TokioIo::new(stream))),
        Some(tls) => {
            let stream = secure(endpoint, stream, tls, transport.wire).await?;
            Ok(Stream::Tls(Box::new(TokioIo::new(stream))))
        }
    }
}

async fn secure(endpoint: SocketAddr, stream: Socket, tls: &TlsTransport, wire: Wire) -> io::Result<TlsStream<Socket>> {
    let name = tls.name.clone().unwrap_or_else(|| ServerName::IpAddress(endpoint.ip().into()));
    let stream = TlsConnector::from(tls.policy.config(wire)).connect(name, stream).await?;
    // An endpoint that chose nothing is believed to speak what the Ingress says.
    match (wire, stream.get_ref().1.alpn_protocol()) {
        (Wire::Http2, Some(protocol)) if protocol != b"h2" => {
            Err(io::Error::new(io::ErrorKind::InvalidData, "the endpoint does not speak HTTP/2"))
        }
        _ => Ok(stream),
    }
}

/// Runs a connection until it ends by itself.
pub(super) fn drive<F, E>(endpoint: SocketAddr, connection: F) -> tokio::task::JoinHandle<()>
where
    F: Future<Output = Result<(), E>> + Send + 'static,
    E: std::error::Error + 'static,
{
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%endpoint, error = &error as &dyn std::error::Error, "upstream connection ended");
        }
    })
}

/// Closes this thread's connections that are over their time or closed by their endpoint.
pub fn sweep_idle() {
    http1::sweep();
    http2::sweep();
}
