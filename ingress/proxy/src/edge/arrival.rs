//! The first moments of a connection: whose it is, by the socket or by the PROXY protocol, and whether that client may have
//! one more.
//!
//! With the PROXY protocol on, every connection must begin with its header, as with nginx's `listen … proxy_protocol`; one that
//! does not is closed. What the header says is believed of trusted peers alone: from others it is read and put aside, and
//! the connection stays theirs.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use roadstead_routes::Scheme;
use tokio::{io::AsyncRead, net::TcpStream, time::timeout};

use super::{Edge, EdgePolicy, ProxyProtocol, Transport, clients::ClientPlace};
use crate::{
    fields::Origin,
    intake::Intake,
    proxy_protocol::{Flow, parse},
    socket::Socket,
};

/// For a header of the PROXY protocol, from the start of the connection; a balancer sends it at once.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection that may go on.
pub(super) struct Arrival {
    pub(super) intake: Intake<Socket>,
    pub(super) origin: Origin,
    pub(super) places: Vec<ClientPlace>,
}

impl Edge {
    /// Finds out whose connection it is; `None` closes it.
    pub(super) async fn arrive(&self, stream: TcpStream, peer: SocketAddr, policy: &EdgePolicy) -> Option<Arrival> {
        let peer = canonical(peer.ip());
        let is_trusted = policy.trusted.contains(peer);
        let mut places = Vec::new();
        if !is_trusted {
            places.push(self.admit(peer)?);
        }
        stream.set_nodelay(true).ok()?;
        let port = stream.local_addr().ok()?.port();
        let scheme = if self.transport == Transport::Tls { Scheme::Https } else { Scheme::Http };
        let mut origin = Origin { peer, port, scheme };
        let mut intake = Intake::new(Socket::new(stream));
        if policy.proxy_protocol == ProxyProtocol::Required {
            match timeout(HEADER_TIMEOUT, read_header(&mut intake)).await {
                Ok(Ok(Some(flow))) if is_trusted => {
                    origin = announced(&flow, scheme);
                    if !policy.trusted.contains(origin.peer) {
                        places.push(self.admit(origin.peer)?);
                    }
                }
                Ok(Ok(_)) => {}
                Ok(Err(error)) => {
                    tracing::debug!(%peer, %error, "connection without a header of the PROXY protocol");
                    self.live.metrics.refused_connection("proxy_protocol");
                    return None;
                }
                Err(_) => {
                    self.live.metrics.refused_connection("proxy_protocol");
                    return None;
                }
            }
        }
        Some(Arrival { intake, origin, places })
    }

    fn admit(&self, client: IpAddr) -> Option<ClientPlace> {
        let place = self.clients.admit(client);
        if place.is_none() {
            tracing::debug!(%client, "client has too many connections");
            self.live.metrics.refused_connection("client_limit");
        }
        place
    }
}

/// Takes the header off the front of the stream.
async fn read_header(intake: &mut Intake<impl AsyncRead + Unpin>) -> io::Result<Option<Flow>> {
    loop {
        intake.read_ahead().await?;
        let parsed = parse(intake.ahead()).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        if let Some(header) = parsed {
            intake.consume(header.length);
            return Ok(header.flow);
        }
    }
}

/// As ingress-nginx: a balancer that took the connection on port 443 has ended TLS, even where it comes in the clear here.
fn announced(flow: &Flow, scheme: Scheme) -> Origin {
    let port = flow.destination.port();
    Origin { peer: canonical(flow.source.ip()), port, scheme: if port == 443 { Scheme::Https } else { scheme } }
}

/// A dual-stack socket shows IPv4 clients as `::ffff:a.b.c.d`; endpoints and logs get the address itself.
fn canonical(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_balancer_s_port_443_is_https() {
        let flow = |port| Flow {
            source: "[::ffff:192.0.2.7]:1".parse().unwrap(),
            destination: SocketAddr::from(([192, 0, 2, 1], port)),
        };
        let origin = announced(&flow(443), Scheme::Http);
        assert_eq!((origin.peer.to_string().as_str(), origin.port, origin.scheme), ("192.0.2.7", 443, Scheme::Https));
        assert_eq!(announced(&flow(80), Scheme::Http).scheme, Scheme::Http);
        assert_eq!(announced(&flow(8443), Scheme::Https).scheme, Scheme::Https);
    }
}
