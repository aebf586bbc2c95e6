//! Which requests are sent away, and where to: what the table alone decides, and what a route's Ingress asks for.
//!
//! The order is that of ingress-nginx: the sibling of a host, the root of the host, a slash that is missing, and only then the
//! Ingress of the route: `temporal-redirect` or `permanent-redirect`, a
//! `rewrite-target` on another host, then the way to https. What a redirect looks like is
//! decided here, so that the proxy and the dry run cannot differ.

use crate::{Facts, Profile, Route, Scheme, Settings, Table, Variable, rewrite::rewritten_away};

/// An answer that sends the client elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308, or whatever else from 300 to 308 the Ingress asks for.
    pub status: u16,
    /// The Location field: visible ASCII characters alone.
    pub location: String,
    /// Why, for a person.
    pub reason: &'static str,
}

impl Redirect {
    pub(crate) fn new(status: u16, location: &[u8], reason: &'static str) -> Self {
        Self { status, location: visible(location), reason }
    }
}

/// Where a route's Ingress sends a request instead of serving it.
#[must_use]
pub fn redirect(table: &Table, route: &Route, scheme: Scheme, facts: &dyn Facts) -> Option<Redirect> {
    if let Some(moved) = &route.settings.redirects.moved {
        let reason = "the Ingress is moved by permanent-redirect or temporal-redirect";
        return Some(Redirect::new(moved.code, &moved.location.render(facts), reason));
    }
    rewritten_away(route, facts).or_else(|| to_https(table, route, scheme, facts))
}

fn to_https(table: &Table, route: &Route, scheme: Scheme, facts: &dyn Facts) -> Option<Redirect> {
    let redirects = &route.settings.redirects;
    if scheme == Scheme::Https || !(redirects.ssl || redirects.force_ssl) {
        return None;
    }
    let host = facts.value(&Variable::Host);
    if host.is_empty() || is_clear(route, facts) {
        return None;
    }
    let reason = match redirects.force_ssl {
        true => "force-ssl-redirect is on",
        false if str::from_utf8(&host).is_ok_and(|host| is_tls_host(table, route, host)) => {
            "the host is a TLS host and ssl-redirect is on"
        }
        false => return None,
    };
    let target = facts.value(&Variable::RequestUri);
    let target = as_sent_away(&route.settings, &target);
    Some(Redirect::new(redirects.code, &[&b"https://"[..], &host, target].concat(), reason))
}

/// The target of a redirect to the same path elsewhere. ingress-nginx drops one slash at its end.
pub(crate) fn as_sent_away<'t>(settings: &Settings, target: &'t [u8]) -> &'t [u8] {
    if settings.profile == Profile::Nginx && !settings.redirects.preserve_trailing_slash {
        return target.strip_suffix(b"/").unwrap_or(target);
    }
    target
}

/// Whether the path stays in the clear. ingress-nginx compares the beginning of the rule's path, so that only a rule of its own,
/// such as an ACME solver's, is left alone; elsewhere the request's path counts, by its elements.
fn is_clear(route: &Route, facts: &dyn Facts) -> bool {
    let clear = &route.settings.redirects.clear_paths;
    if route.settings.profile == Profile::Nginx {
        let path = route.path.as_ref().map_or("/", |(_, path)| path.as_str());
        return clear.iter().any(|prefix| path.starts_with(&**prefix));
    }
    let path = facts.value(&Variable::Path);
    let is_below =
        |prefix: &[u8]| path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"));
    clear.iter().any(|prefix| is_below(prefix.strip_suffix('/').unwrap_or(prefix).as_bytes()))
}

/// The host is named by a TLS entry, or it is served by the very Ingress that names the certificate of all other hosts.
fn is_tls_host(table: &Table, route: &Route, host: &str) -> bool {
    let certificates = table.certificates();
    certificates.lookup(host).is_some()
        || certificates.default_certificate().is_some_and(|entry| entry.ingress == route.ingress)
}

/// Percent-encodes what may not stand in a URI and leaves the rest as it is (RFC 3986, section 2).
fn visible(location: &[u8]) -> String {
    let mut out = String::with_capacity(location.len());
    for &byte in location {
        if byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
#[path = "redirect_tests.rs"]
mod tests;
