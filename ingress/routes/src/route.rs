//! One request's way through the table.

use std::{fmt, sync::Arc};

use crate::{
    BackendId, Route, Table, Target,
    host::request_host,
    path::{BadPath, normalise},
};

/// Paths below this one answer an ACME HTTP-01 challenge (RFC 8555, section 8.3) and are never redirected.
const ACME_CHALLENGE: &[u8] = b"/.well-known/acme-challenge";

/// How the request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// In the clear.
    Http,
    /// Over TLS.
    Https,
}

impl Scheme {
    /// As in a URL.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// What happens to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome<'t> {
    /// It goes to a backend.
    Proxy {
        /// Why.
        route: &'t Arc<Route>,
        /// Where.
        backend: BackendId,
    },
    /// 308 to https.
    Redirect {
        /// The route that would have taken it.
        route: &'t Arc<Route>,
        /// The value for the Location header.
        location: String,
    },
    /// 503: the route leads to something that is not served.
    Unavailable {
        /// The route.
        route: &'t Arc<Route>,
    },
    /// 404: no rule and no default backend takes it.
    NotFound,
    /// 400: the path means nothing.
    BadPath(BadPath),
}

impl fmt::Display for BadPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Relative => "the path does not start with a slash",
            Self::Escape => "the path holds a broken percent escape",
            Self::Nul => "the path holds an encoded NUL",
            Self::AboveRoot => "the path leads above the root",
        })
    }
}

/// Finds what takes a request. `authority` is the `Host` header's value (port, dot and case do not matter), `target` the
/// path with its query, as the client wrote them.
#[must_use]
pub fn route<'t>(table: &'t Table, scheme: Scheme, authority: &str, target: &str) -> Outcome<'t> {
    let host = request_host(authority);
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    let path = match normalise(path) {
        Ok(path) => path,
        Err(bad) => return Outcome::BadPath(bad),
    };
    let Some(route) = table.find(&host, &path) else {
        return Outcome::NotFound;
    };
    if scheme == Scheme::Http && must_redirect(table, route, &host, &path) {
        return Outcome::Redirect { route, location: format!("https://{host}{target}") };
    }
    match route.target {
        Target::Backend(backend) => Outcome::Proxy { route, backend },
        Target::Resource { .. } => Outcome::Unavailable { route },
    }
}

fn must_redirect(table: &Table, route: &Route, host: &str, path: &[u8]) -> bool {
    route.settings.redirects.ssl && !host.is_empty() && is_tls_host(table, route, host) && !is_acme_challenge(path)
}

/// The host is named by a TLS entry, or it is served by the very Ingress that names the certificate of all other hosts.
fn is_tls_host(table: &Table, route: &Route, host: &str) -> bool {
    let certificates = table.certificates();
    certificates.lookup(host).is_some()
        || certificates.default_certificate().is_some_and(|entry| entry.ingress == route.ingress)
}

fn is_acme_challenge(path: &[u8]) -> bool {
    path.strip_prefix(ACME_CHALLENGE).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

#[cfg(test)]
#[path = "route_tests.rs"]
mod tests;
