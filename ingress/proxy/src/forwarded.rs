//! What a trusted peer says in header fields about the client behind it: address, scheme, port and host.
//!
//! On the packet's way this stands between hyper and `handler`: what comes out is the origin that allow lists, limits, logs
//! and X-Real-IP see. Nobody is believed unless configuration says so. The fields are read as ingress-nginx reads them
//! (nginx's real_ip_recursive; X-Forwarded-Proto, -Port and -Host of the nearest proxy's making); RFC 7239's Forwarded is
//! not read, and never handed on.

use std::net::{IpAddr, SocketAddr};

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{GetAll, HOST},
};
use roadstead_routes::{Networks, Scheme};

use crate::{fields::Origin, head::is_authority};

static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
static X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Whom to believe, and in which field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardedRules {
    /// Who is believed.
    pub trusted: Networks,
    /// The field that holds addresses: ingress-nginx's `forwarded-for-header`.
    pub field: HeaderName,
    /// How much is believed.
    pub belief: Belief,
    /// What endpoints get to see of it.
    pub chain: Chain,
}

/// How much of what a trusted peer says is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Belief {
    /// Address, scheme, port and host.
    All,
    /// The client's address alone.
    Address,
}

impl Default for ForwardedRules {
    fn default() -> Self {
        Self { trusted: Networks::default(), field: X_FORWARDED_FOR.clone(), belief: Belief::All, chain: Chain::Client }
    }
}

/// X-Forwarded-For as endpoints get it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chain {
    /// The client's address alone.
    Client,
    /// What came, and the peer's address behind it: ingress-nginx's `compute-full-forwarded-for`.
    Full,
}

/// What was believed beyond the origin; a request carries it as an extension.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forwarded {
    /// The host that the client asked the first proxy for.
    pub host: Option<HeaderValue>,
    /// The value for X-Forwarded-For, where it is more than the client's address.
    pub chain: Option<HeaderValue>,
}

impl ForwardedRules {
    /// The origin behind a trusted peer, and what else it says; `None` where the peer is not believed.
    #[must_use]
    pub fn believe(&self, peer: &Origin, headers: &HeaderMap) -> Option<(Origin, Forwarded)> {
        if !self.trusted.contains(peer.peer) {
            return None;
        }
        let believed = |name| if self.belief == Belief::All { first(headers, name) } else { None };
        let origin = Origin {
            peer: client(peer.peer, &headers.get_all(&self.field), &self.trusted),
            port: believed(&X_FORWARDED_PORT).and_then(|text| text.parse().ok()).unwrap_or(peer.port),
            scheme: believed(&X_FORWARDED_PROTO).and_then(scheme).unwrap_or(peer.scheme),
        };
        let host = believed(&X_FORWARDED_HOST).filter(|host| !host.is_empty() && is_authority(host.as_bytes()));
        let chain = match self.chain {
            Chain::Full => chain(&headers.get_all(&X_FORWARDED_FOR), peer.peer),
            Chain::Client => None,
        };
        Some((origin, Forwarded { host: host.and_then(|host| HeaderValue::from_str(host).ok()), chain }))
    }
}

impl Forwarded {
    /// Whether there is anything to apply.
    #[must_use]
    pub fn says_more(&self) -> bool {
        self.host.is_some() || self.chain.is_some()
    }

    /// Puts what was believed into the fields that an endpoint gets, in place of what the connection alone would say.
    pub fn apply(self, headers: &mut HeaderMap) {
        if let Some(host) = self.host {
            headers.insert(X_FORWARDED_HOST.clone(), host.clone());
            headers.insert(HOST, host);
        }
        if let Some(chain) = self.chain {
            headers.insert(X_FORWARDED_FOR.clone(), chain);
        }
    }
}

/// The right-most address that is not trusted; where all are, the left-most one. What is no address ends the search.
fn client(peer: IpAddr, values: &GetAll<'_, HeaderValue>, trusted: &Networks) -> IpAddr {
    let mut client = peer;
    let lines = values.iter().rev().filter_map(|value| value.to_str().ok());
    for entry in lines.flat_map(|line| line.rsplit(',')) {
        let Some(address) = address(entry.trim()) else { break };
        client = address;
        if !trusted.contains(address) {
            break;
        }
    }
    client
}

/// An address, with or without a port.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))?;
    Some(IpAddr::to_canonical(&address))
}

fn scheme(text: &str) -> Option<Scheme> {
    if ["https", "wss"].iter().any(|name| text.eq_ignore_ascii_case(name)) {
        return Some(Scheme::Https);
    }
    ["http", "ws"].iter().any(|name| text.eq_ignore_ascii_case(name)).then_some(Scheme::Http)
}

/// The first entry of a field that may be a list: proxies put the client's side first.
fn first<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()?.split(',').next().map(str::trim)
}

fn chain(values: &GetAll<'_, HeaderValue>, peer: IpAddr) -> Option<HeaderValue> {
    let peer = peer.to_string();
    let lines: Vec<_> = values.iter().map(HeaderValue::as_bytes).chain([peer.as_bytes()]).collect();
    HeaderValue::from_bytes(&lines.join(&b", "[..])).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(chain: Chain) -> ForwardedRules {
        let trusted =
            Networks::new([("10.0.0.0", 8), ("fd00::", 8)].map(|(text, length)| (text.parse().unwrap(), length)));
        ForwardedRules { trusted, chain, ..ForwardedRules::default() }
    }

    fn map(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    fn peer(address: &str) -> Origin {
        Origin { peer: address.parse().unwrap(), port: 80, scheme: Scheme::Http }
    }

    fn check_client(lines: &[&str], expected: &str) {
        let fields: Vec<_> = lines.iter().map(|line| ("x-forwarded-for", *line)).collect();
        let (origin, _) = rules(Chain::Client).believe(&peer("10.0.0.1"), &map(&fields)).unwrap();
        assert_eq!(origin.peer.to_string(), expected, "{lines:?}");
    }

    #[test]
    fn the_client_is_the_last_address_that_nobody_vouches_for() {
        check_client(&[], "10.0.0.1");
        check_client(&["192.0.2.7"], "192.0.2.7");
        check_client(&["1.1.1.1, 192.0.2.7"], "192.0.2.7");
        check_client(&["1.1.1.1, 192.0.2.7, 10.9.9.9"], "192.0.2.7");
        check_client(&["1.1.1.1", "192.0.2.7,10.9.9.9"], "192.0.2.7");
        check_client(&["10.1.1.1, 10.2.2.2"], "10.1.1.1");
        check_client(&["192.0.2.7:51234"], "192.0.2.7");
        check_client(&["[2001:db8::1]:51234, fd00::1"], "2001:db8::1");
        check_client(&["[2001:db8::1]"], "2001:db8::1");
        check_client(&["::ffff:192.0.2.7"], "192.0.2.7");
        check_client(&["192.0.2.7, unknown"], "10.0.0.1");
        check_client(&["192.0.2.7, unknown, 10.2.2.2"], "10.2.2.2");
        check_client(&["", "192.0.2.7"], "192.0.2.7");
        check_client(&["192.0.2.7,"], "10.0.0.1");
    }

    #[test]
    fn nobody_is_believed_unasked() {
        let headers = map(&[("x-forwarded-for", "192.0.2.7"), ("x-forwarded-proto", "https")]);
        assert_eq!(ForwardedRules::default().believe(&peer("10.0.0.1"), &headers), None);
        assert_eq!(rules(Chain::Full).believe(&peer("192.0.2.1"), &headers), None);
    }

    #[test]
    fn scheme_port_and_host_are_kept_where_they_make_sense() {
        for (fields, expected) in [
            (vec![], (Scheme::Http, 80, None)),
            (vec![("x-forwarded-proto", "HTTPS, http")], (Scheme::Https, 80, None)),
            (vec![("x-forwarded-proto", "gopher")], (Scheme::Http, 80, None)),
            (vec![("x-forwarded-port", "8443")], (Scheme::Http, 8443, None)),
            (vec![("x-forwarded-port", "99999")], (Scheme::Http, 80, None)),
            (vec![("x-forwarded-host", "a.example:8443, b.example")], (Scheme::Http, 80, Some("a.example:8443"))),
            (vec![("x-forwarded-host", "a b")], (Scheme::Http, 80, None)),
            (vec![("x-forwarded-host", "")], (Scheme::Http, 80, None)),
        ] {
            let (origin, forwarded) = rules(Chain::Client).believe(&peer("10.0.0.1"), &map(&fields)).unwrap();
            let host = forwarded.host.as_ref().map(|host| host.to_str().unwrap());
            assert_eq!((origin.scheme, origin.port, host), expected, "{fields:?}");
        }
    }

    #[test]
    fn the_chain_grows_by_the_peer() {
        let headers = map(&[("x-forwarded-for", "1.1.1.1, 192.0.2.7"), ("x-forwarded-for", "10.2.2.2")]);
        let chain = |kind| rules(kind).believe(&peer("10.0.0.1"), &headers).unwrap().1.chain;
        assert_eq!(chain(Chain::Full).unwrap(), "1.1.1.1, 192.0.2.7, 10.2.2.2, 10.0.0.1");
        assert_eq!(chain(Chain::Client), None);
    }

    #[test]
    fn the_address_alone_can_be_believed() {
        let rules = ForwardedRules { belief: Belief::Address, ..rules(Chain::Client) };
        let headers = map(&[
            ("x-forwarded-for", "192.0.2.7"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-port", "443"),
            ("x-forwarded-host", "a.example"),
        ]);
        let (origin, forwarded) = rules.believe(&peer("10.0.0.1"), &headers).unwrap();
        assert_eq!((origin.peer.to_string().as_str(), origin.port, origin.scheme), ("192.0.2.7", 80, Scheme::Http));
        assert_eq!(forwarded, Forwarded::default());
    }

    #[test]
    fn another_field_can_hold_the_address() {
        let rules = ForwardedRules { field: HeaderName::from_static("cf-connecting-ip"), ..rules(Chain::Client) };
        let headers = map(&[("x-forwarded-for", "1.1.1.1"), ("cf-connecting-ip", "192.0.2.7")]);
        assert_eq!(rules.believe(&peer("10.0.0.1"), &headers).unwrap().0.peer.to_string(), "192.0.2.7");
    }
}
