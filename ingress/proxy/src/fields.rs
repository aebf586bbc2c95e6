//! Header fields at the proxy's two sides: what an endpoint gets to see, and what a client gets back.
//!
//! The set is ingress-nginx's template with its defaults: nothing that the client says about itself is believed.

use std::{
    array::from_fn,
    cell::{Cell, RefCell},
    collections::hash_map::RandomState,
    hash::BuildHasher,
    io::Write,
    net::IpAddr,
};

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{
        CONNECTION, COOKIE, HOST, InvalidHeaderValue, PROXY_AUTHENTICATE, SERVER, STRICT_TRANSPORT_SECURITY, TE,
        TRAILER, TRANSFER_ENCODING, UPGRADE,
    },
};
use roadstead_routes::Scheme;

/// Names a request in the logs of everybody on its way.
pub static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
static X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
static X_SCHEME: HeaderName = HeaderName::from_static("x-scheme");
static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
static X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static X_FORWARDED_SCHEME: HeaderName = HeaderName::from_static("x-forwarded-scheme");
static X_ORIGINAL_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-original-forwarded-for");
static KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
static PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
static HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
static PROXY: HeaderName = HeaderName::from_static("proxy");
static FORWARDED: HeaderName = HeaderName::from_static("forwarded");

/// What names this proxy in `Server`.
pub const SERVER_NAME: HeaderValue = HeaderValue::from_static("roadstead");

/// More than [`to_upstream`] adds.
const ADDED_FIELDS: usize = 12;

/// Where a request came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The client's address, an IPv4 one never as IPv6.
    pub peer: IpAddr,
    /// The port that it connected to.
    pub port: u16,
    /// In the clear or over TLS.
    pub scheme: Scheme,
}

/// Turns a client's fields into those that an endpoint gets.
pub fn to_upstream(headers: &mut HeaderMap, origin: &Origin, host: &HeaderValue, upgrade: Upgrade) {
    // The fields that are set below make room once and not at each step.
    headers.reserve(ADDED_FIELDS);
    remove_hop_by_hop(headers);
    headers.remove(&PROXY);
    headers.remove(&FORWARDED);
    join_cookies(headers);
    if upgrade == Upgrade::WebSocket {
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
    headers.remove(&X_ORIGINAL_FORWARDED_FOR);
    if let Some(claimed) = headers.remove(&X_FORWARDED_FOR) {
        headers.insert(X_ORIGINAL_FORWARDED_FOR.clone(), claimed);
    }
    if !headers.contains_key(&X_REQUEST_ID) {
        headers.insert(X_REQUEST_ID.clone(), request_id());
    }
    if let Ok(peer) = address(origin.peer) {
        headers.insert(X_REAL_IP.clone(), peer.clone());
        headers.insert(X_FORWARDED_FOR.clone(), peer);
    }
    let scheme = HeaderValue::from_static(origin.scheme.as_str());
    for name in [&X_FORWARDED_PROTO, &X_FORWARDED_SCHEME, &X_SCHEME] {
        headers.insert(name.clone(), scheme.clone());
    }
    headers.insert(X_FORWARDED_PORT.clone(), HeaderValue::from(origin.port));
    headers.insert(X_FORWARDED_HOST.clone(), host.clone());
    headers.insert(HOST, host.clone());
}

/// Sets fields in place of those that are there; an empty value takes a field away, as nginx's proxy_set_header does.
pub fn set_fields(headers: &mut HeaderMap, fields: &[(HeaderName, HeaderValue)]) {
    for (name, value) in fields {
        if value.is_empty() {
            headers.remove(name);
        } else {
            headers.insert(name.clone(), value.clone());
        }
    }
}

/// An address as a value, written without text of its own in between.
fn address(ip: IpAddr) -> Result<HeaderValue, InvalidHeaderValue> {
    // A client's requests come one after the other, with others' between them.
    thread_local! {
        static LAST: RefCell<[(IpAddr, HeaderValue); 8]> =
            RefCell::new(from_fn(|_| (IpAddr::from([0, 0, 0, 0]), HeaderValue::from_static("0.0.0.0"))));
    }
    let place = match ip {
        IpAddr::V4(ip) => usize::from(ip.octets()[3]),
        IpAddr::V6(ip) => usize::from(ip.octets()[15]),
    };
    LAST.with_borrow_mut(|last| match last.get_mut(place % 8) {
        Some((known, value)) if *known == ip => Ok(value.clone()),
        Some(place) => {
            *place = (ip, written(ip)?);
            Ok(place.1.clone())
        }
        None => written(ip),
    })
}

fn written(ip: IpAddr) -> Result<HeaderValue, InvalidHeaderValue> {
    // The longest are of the form ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255.
    let mut text = [0; 45];
    let mut rest = text.as_mut_slice();
    let _fits = write!(rest, "{ip}");
    let length = 45 - rest.len();
    HeaderValue::from_bytes(text.get(..length).unwrap_or_default())
}

/// Turns an endpoint's fields into those that a client gets; `hsts` for a host with a certificate, over TLS.
pub fn to_client(headers: &mut HeaderMap, hsts: Hsts) {
    let upgrade = headers.remove(UPGRADE);
    remove_hop_by_hop(headers);
    headers.insert(SERVER, SERVER_NAME);
    if let Hsts::Send(value) = hsts
        && !headers.contains_key(STRICT_TRANSPORT_SECURITY)
    {
        headers.insert(STRICT_TRANSPORT_SECURITY, value);
    }
    // Only an accepted upgrade needs it; the caller checks the status.
    if let Some(protocol) = upgrade {
        headers.insert(UPGRADE, protocol);
    }
}

/// What a request may turn its connection into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upgrade {
    /// Nothing: the wish for anything else, such as h2c, stays here. Granted, it would carry requests past every rule.
    Never,
    /// WebSocket (RFC 6455).
    WebSocket,
}

/// Whether WebSocket is among the protocols asked for. The guard asks the same of the raw field lines.
#[must_use]
pub fn wants_websocket(headers: &HeaderMap) -> bool {
    headers.get_all(UPGRADE).iter().any(|value| is_websocket(value.as_bytes()))
}

/// Whether a value of Upgrade is WebSocket alone.
pub(crate) fn is_websocket(value: &[u8]) -> bool {
    value.trim_ascii().eq_ignore_ascii_case(b"websocket")
}

/// Whether Strict-Transport-Security is added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hsts {
    /// It is, with this value, unless the endpoint set its own.
    Send(HeaderValue),
    /// Plain HTTP, a host without a certificate of its own, or nobody wants it.
    Leave,
}

/// RFC 9110, section 7.6.1: these, and whatever Connection names, mean this hop alone.
fn remove_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
            .filter_map(|token| HeaderName::from_bytes(token.trim_ascii()).ok())
            // RFC 9110 forbids naming what is meant for the recipient; an endpoint must not lose it to a trick.
            .filter(|name| !is_end_to_end(name))
            .collect();
        for name in named {
            headers.remove(name);
        }
        headers.remove(CONNECTION);
    }
    // One pass over the names that are there is cheaper than a search for each that could be.
    if headers.keys().any(is_hop_by_hop) {
        for name in [&KEEP_ALIVE, &PROXY_CONNECTION, &HTTP2_SETTINGS] {
            headers.remove(name);
        }
        for name in [TE, TRAILER, TRANSFER_ENCODING, UPGRADE, PROXY_AUTHENTICATE] {
            headers.remove(name);
        }
    }
}

fn is_hop_by_hop(name: &HeaderName) -> bool {
    [TE, TRAILER, TRANSFER_ENCODING, UPGRADE, PROXY_AUTHENTICATE].contains(name)
        || [&KEEP_ALIVE, &PROXY_CONNECTION, &HTTP2_SETTINGS].contains(&name)
}

fn is_end_to_end(name: &HeaderName) -> bool {
    *name == HOST
        || *name == COOKIE
        || name.as_str().starts_with("content-")
        || name.as_str().starts_with("ssl-client-")
        || name.as_str() == "authorization"
}

/// RFC 9113, section 8.2.3: HTTP/2 may send a cookie in pieces, HTTP/1.1 may not.
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_some() {
        let pieces: Vec<_> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
        if let Ok(joined) = HeaderValue::from_bytes(&pieces.join(&b"; "[..])) {
            headers.insert(COOKIE, joined);
        }
    }
}

/// 32 hexadecimal digits, unlike any other of this process and of others with all likelihood. It identifies, it does not
/// protect: a keyed hash of a counter is enough and costs no system call.
pub(crate) fn request_id() -> HeaderValue {
    thread_local! {
        static KEYS: (RandomState, RandomState) = (RandomState::new(), RandomState::new());
        static COUNT: Cell<u64> = const { Cell::new(0) };
    }
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let count = COUNT.get().wrapping_add(1);
    COUNT.set(count);
    let halves = KEYS.with(|(high, low)| [high.hash_one(count).to_be_bytes(), low.hash_one(count).to_be_bytes()]);
    let mut text = [0; 32];
    for (pair, byte) in text.chunks_exact_mut(2).zip(halves.as_flattened()) {
        for (digit, half) in pair.iter_mut().zip([byte >> 4, byte & 15]) {
            *digit = DIGITS.get(usize::from(half)).copied().unwrap_or_default();
        }
    }
    HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn check(client: &[(&str, &str)], expected: &[(&str, Option<&str>)]) {
        let mut headers = map(client);
        let origin = Origin { peer: "192.0.2.7".parse().unwrap(), port: 443, scheme: Scheme::Https };
        to_upstream(&mut headers, &origin, &HeaderValue::from_static("a.example:443"), Upgrade::Never);
        for (name, value) in expected {
            let all: Vec<_> = headers.get_all(*name).iter().map(|value| value.to_str().unwrap()).collect();
            assert_eq!(all, value.iter().copied().collect::<Vec<_>>(), "{name} of {client:?}");
        }
    }

    #[test]
    fn the_client_is_described_by_us_alone() {
        check(
            &[
                ("X-Forwarded-For", "1.1.1.1"),
                ("X-Forwarded-Proto", "http"),
                ("X-Real-IP", "1.1.1.1"),
                ("X-Request-ID", "id"),
            ],
            &[
                ("x-forwarded-for", Some("192.0.2.7")),
                ("x-original-forwarded-for", Some("1.1.1.1")),
                ("x-real-ip", Some("192.0.2.7")),
                ("x-forwarded-proto", Some("https")),
                ("x-forwarded-scheme", Some("https")),
                ("x-scheme", Some("https")),
                ("x-forwarded-port", Some("443")),
                ("x-forwarded-host", Some("a.example:443")),
                ("host", Some("a.example:443")),
                ("x-request-id", Some("id")),
            ],
        );
    }

    #[test]
    fn nobody_else_tells_of_original_addresses() {
        check(&[("X-Original-Forwarded-For", "1.1.1.1")], &[("x-original-forwarded-for", None)]);
        check(
            &[("X-Original-Forwarded-For", "1.1.1.1"), ("X-Forwarded-For", "2.2.2.2")],
            &[("x-original-forwarded-for", Some("2.2.2.2"))],
        );
    }

    #[test]
    fn what_is_meant_for_this_hop_stays_here() {
        check(
            &[
                ("Connection", "close, X-Secret, Host, Cookie, Ssl-Client-Verify"),
                ("X-Secret", "s"),
                ("Keep-Alive", "5"),
                ("Proxy-Connection", "x"),
                ("Proxy", "evil"),
                ("TE", "trailers"),
                ("Upgrade", "h2c"),
                ("Cookie", "a=b"),
                ("Cookie", "c=d"),
                ("Accept", "x"),
                ("Ssl-Client-Verify", "SUCCESS"),
            ],
            &[
                ("connection", None),
                ("x-secret", None),
                ("keep-alive", None),
                ("proxy-connection", None),
                ("proxy", None),
                ("te", None),
                ("upgrade", None),
                ("cookie", Some("a=b; c=d")),
                ("accept", Some("x")),
                ("ssl-client-verify", Some("SUCCESS")),
            ],
        );
    }

    #[test]
    fn answers_get_our_name_and_hsts() {
        let mut headers = map(&[("Server", "backend"), ("Connection", "close"), ("Keep-Alive", "5")]);
        to_client(&mut headers, Hsts::Send(HeaderValue::from_static("max-age=1")));
        assert_eq!(headers.get(SERVER), Some(&SERVER_NAME));
        assert!(headers.contains_key(STRICT_TRANSPORT_SECURITY));
        assert!(!headers.contains_key(CONNECTION) && !headers.contains_key(&KEEP_ALIVE));
        to_client(&mut headers, Hsts::Leave);
    }

    #[test]
    fn request_ids_differ() {
        assert_ne!(request_id(), request_id());
        assert_eq!(request_id().len(), 32);
    }
}
