//! From a route's settings to how its requests travel: the protocol that counts, times, and TLS.

use http::{HeaderMap, Version as HttpVersion, header::EXPECT};
use roadstead_routes::{Buffering, Protocol, Scheme, Version};

use super::Visit;
use crate::upstream::{BodyRules, Failure, Linger, TlsTransport, Transport, Wire};

/// How this request reaches its endpoint.
///
/// # Errors
/// [`Failure::NoTransport`] where the Ingress asks for what is not served, or for trust that its Secret does not give.
pub(super) fn transport(visit: &Visit<'_>) -> Result<Transport, Failure> {
    let settings = &visit.settings().transport;
    let version = match settings.version {
        Version::Http10 => Wire::Http10,
        Version::Http11 => Wire::Http11,
    };
    let (wire, secure) = match settings.protocol.or_else(|| app_protocol(visit)) {
        None | Some(Protocol::Http) => (version, false),
        Some(Protocol::Https) => (version, true),
        Some(Protocol::AutoHttp) => (version, visit.origin.scheme == Scheme::Https),
        Some(Protocol::Grpc) => (Wire::Http2, false),
        Some(Protocol::Grpcs) => (Wire::Http2, true),
        Some(Protocol::FastCgi) => return Err(Failure::NoTransport),
    };
    Ok(Transport {
        wire,
        tls: if secure { Some(tls(visit)?) } else { None },
        connect_timeout: settings.connect_timeout,
        read_timeout: settings.read_timeout,
        send_timeout: settings.send_timeout,
        keepalive: visit.generation.table.options().keepalive,
    })
}

fn app_protocol(visit: &Visit<'_>) -> Option<Protocol> {
    let known = visit.live.app_protocols.load();
    if known.is_empty() {
        return None;
    }
    known.get(visit.generation.table.backend(visit.backend)?).copied()
}

fn tls(visit: &Visit<'_>) -> Result<TlsTransport, Failure> {
    let policies = visit.live.endpoint_tls.load();
    let policy = policies.lookup(&visit.settings().upstream_tls).map_err(|_| Failure::NoTransport)?;
    let backend = visit.generation.table.backend(visit.backend).ok_or(Failure::NoTransport)?;
    let name = policy.name(&backend.service);
    Ok(TlsTransport { policy, name })
}

/// What holds for this request's body. Whatever is HTTP/2 streams from its first byte, or two sides that talk in turns would
/// wait for each other.
pub(super) fn body_rules(
    visit: &Visit<'_>,
    version: HttpVersion,
    headers: &HeaderMap,
    wire: Option<Wire>,
) -> BodyRules {
    let body = &visit.settings().body;
    let buffered = body.buffering == Buffering::On && wire.is_some_and(|wire| wire != Wire::Http2);
    BodyRules {
        limit: body.limit,
        keep: if buffered { usize::try_from(body.buffer).unwrap_or(usize::MAX) } else { 0 },
        timeout: visit.generation.table.options().edge.body_timeout,
        linger: match version {
            HttpVersion::HTTP_2 => Linger::Drop,
            _ if headers.contains_key(EXPECT) => Linger::ReadIfBegun,
            _ => Linger::Read,
        },
    }
}
