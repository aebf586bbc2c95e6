//! One request's way through the table.

use std::{fmt, sync::Arc};

use crate::{
    BackendId, Redirect, Route, Table, Target,
    host::{port_with_colon, request_host},
    path::{BadPath, escape, normalise},
    redirect::as_sent_away,
    table::Found,
};

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
    /// It is sent elsewhere, whatever the route's own Ingress says.
    Redirect {
        /// The route that asks for it.
        route: &'t Arc<Route>,
        /// Where to.
        redirect: Redirect,
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
/// path with its query, as the client wrote them. What the route's own Ingress makes of the request is decided afterwards:
/// [`crate::redirect()`].
#[must_use]
pub fn route<'t>(table: &'t Table, scheme: Scheme, authority: &str, target: &str) -> Outcome<'t> {
    let host = request_host(authority);
    let (path, query) = target.split_at(target.find('?').unwrap_or(target.len()));
    let normal = match normalise(path) {
        Ok(path) => path,
        Err(bad) => return Outcome::BadPath(bad),
    };
    let base = || format!("{}://{authority}", scheme.as_str());
    match table.find(&host, &normal) {
        None => Outcome::NotFound,
        Some(Found::Route(route)) => match route.target {
            Target::Backend(backend) => Outcome::Proxy { route, backend },
            Target::Resource { .. } => Outcome::Unavailable { route },
        },
        Some(Found::Sibling(sibling, route)) => {
            let base = format!("{}://{sibling}{}", scheme.as_str(), port_with_colon(authority));
            let location = [base.as_bytes(), as_sent_away(&route.settings, target.as_bytes())].concat();
            let reason = "from-to-www-redirect sends the host to the one that is served";
            Outcome::Redirect { route, redirect: Redirect::new(route.settings.redirects.code, &location, reason) }
        }
        Some(Found::AppRoot(root, route)) => {
            let location = format!("{}{root}", base());
            let reason = "app-root sends the root of the host there";
            Outcome::Redirect { route, redirect: Redirect::new(302, location.as_bytes(), reason) }
        }
        Some(Found::Slash(route)) => {
            let base = if route.settings.redirects.relative { String::new() } else { base() };
            let location = [base.as_bytes(), &escape(&normal), b"/", query.as_bytes()].concat();
            let reason = "only the path with a slash at its end is served, and class nginx sends there";
            Outcome::Redirect { route, redirect: Redirect::new(301, &location, reason) }
        }
    }
}

#[cfg(test)]
#[path = "route_tests.rs"]
pub(crate) mod tests;
