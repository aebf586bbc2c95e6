//! A request's answers to the questions of templates: nginx's variables, as `roadstead-routes` knows them.
//!
//! Nothing is worked out before it is asked for. Fields of the client are passed on as it sent them; that no value breaks out
//! of where it is put is the template's matter.

use std::{borrow::Cow, sync::OnceLock};

use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version, header::COOKIE, uri::PathAndQuery};
use roadstead_routes::{BackendId, Facts, Route, Table, Variable, normalise, request_host};

use super::Visit;
use crate::fields::{Origin, X_REQUEST_ID, request_id};

/// One request on its way, to be asked.
pub(crate) struct RequestFacts<'a> {
    pub(crate) origin: &'a Origin,
    pub(crate) host: &'a HeaderValue,
    pub(crate) table: &'a Table,
    pub(crate) route: &'a Route,
    pub(crate) backend: BackendId,
    pub(crate) made_request_id: &'a OnceLock<HeaderValue>,
    pub(crate) method: &'a Method,
    pub(crate) uri: &'a Uri,
    pub(crate) version: Version,
    pub(crate) headers: &'a HeaderMap,
}

impl<'a> RequestFacts<'a> {
    /// A request in the middle of its visit.
    pub(crate) fn of<B>(visit: &'a Visit<'_>, request: &'a Request<B>) -> Self {
        Self {
            origin: visit.origin,
            host: &visit.host,
            table: &visit.generation.table,
            route: &visit.route,
            backend: visit.backend,
            made_request_id: &visit.made_request_id,
            method: request.method(),
            uri: request.uri(),
            version: request.version(),
            headers: request.headers(),
        }
    }

    fn header(&self, name: &str) -> Cow<'a, [u8]> {
        if name == "host" {
            return Cow::Borrowed(self.host.as_bytes());
        }
        joined(self.headers, name)
    }

    fn forwarded_for(&self) -> Cow<'a, [u8]> {
        let peer = self.origin.peer.to_string().into_bytes();
        match joined(self.headers, "x-forwarded-for") {
            claimed if claimed.is_empty() => Cow::Owned(peer),
            claimed => Cow::Owned([&*claimed, &peer].join(&b", "[..])),
        }
    }

    fn cookie(&self, name: &str) -> &'a [u8] {
        let pairs = self.headers.get_all(COOKIE).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b';'));
        first_named(pairs.map(<[u8]>::trim_ascii), name)
    }

    fn authority(&self) -> &'a str {
        self.host.to_str().unwrap_or_default()
    }

    fn request_id(&self) -> &'a HeaderValue {
        self.headers.get(&X_REQUEST_ID).unwrap_or_else(|| self.made_request_id.get_or_init(request_id))
    }

    fn request_uri(&self) -> &'a str {
        self.uri.path_and_query().map_or("/", PathAndQuery::as_str)
    }
}

impl Facts for RequestFacts<'_> {
    fn value(&self, variable: &Variable) -> Cow<'_, [u8]> {
        let backend = || self.table.backend(self.backend);
        match variable {
            Variable::Host => bytes(request_host(self.authority())),
            Variable::Authority => self.host.as_bytes().into(),
            Variable::Scheme => self.origin.scheme.as_str().as_bytes().into(),
            Variable::RequestUri => self.request_uri().as_bytes().into(),
            Variable::EscapedRequestUri => escaped(self.request_uri()).into(),
            Variable::Path => normalise(self.uri.path()).unwrap_or(Cow::Borrowed(b"/")),
            Variable::Query => self.uri.query().unwrap_or_default().as_bytes().into(),
            Variable::QuestionMark => {
                self.uri.query().filter(|query| !query.is_empty()).map_or("", |_| "?").as_bytes().into()
            }
            Variable::Argument(name) => {
                let query = self.uri.query().unwrap_or_default().as_bytes();
                first_named(query.split(|byte| *byte == b'&'), name).into()
            }
            Variable::Cookie(name) => self.cookie(name).into(),
            Variable::Header(name) => self.header(name),
            Variable::RemoteAddr => self.origin.peer.to_string().into_bytes().into(),
            Variable::Method => self.method.as_str().as_bytes().into(),
            Variable::ServerPort => self.origin.port.to_string().into_bytes().into(),
            Variable::Protocol => protocol(self.version).as_bytes().into(),
            Variable::ServerName => {
                self.route.host.as_ref().map_or("_".to_owned(), ToString::to_string).into_bytes().into()
            }
            Variable::ForwardedFor => self.forwarded_for(),
            Variable::RequestId => self.request_id().as_bytes().into(),
            Variable::Namespace => self.route.ingress.namespace.as_bytes().into(),
            Variable::IngressName => self.route.ingress.name.as_bytes().into(),
            Variable::ServiceName => {
                backend().map_or(Cow::Borrowed(b""), |backend| backend.service.name.as_bytes().into())
            }
            Variable::ServicePort => {
                backend().map(|backend| backend.port.to_string()).unwrap_or_default().into_bytes().into()
            }
            Variable::LocationPath => self.route.path.as_ref().map_or("/", |(_, path)| path).as_bytes().into(),
            // They belong to a rule's own facts, which ask here for all the rest.
            Variable::Capture(_) | Variable::Set(_) => Cow::Borrowed(b""),
        }
    }
}

fn bytes(text: Cow<'_, str>) -> Cow<'_, [u8]> {
    match text {
        Cow::Borrowed(text) => text.as_bytes().into(),
        Cow::Owned(text) => text.into_bytes().into(),
    }
}

/// All fields of a name as one (RFC 9110, section 5.3), as nginx gives them.
pub(crate) fn joined<'h>(headers: &'h HeaderMap, name: &str) -> Cow<'h, [u8]> {
    let mut values = headers.get_all(name).iter();
    let Some(first) = values.next() else { return Cow::Borrowed(b"") };
    let joint: &[u8] = if name == "cookie" { b"; " } else { b", " };
    let mut rest = values.peekable();
    if rest.peek().is_none() {
        return first.as_bytes().into();
    }
    rest.fold(first.as_bytes().to_vec(), |all, value| [&*all, value.as_bytes()].join(joint)).into()
}

/// The value of the first `name=value` whose name is this one in whatever case.
pub(crate) fn first_named<'v>(mut pairs: impl Iterator<Item = &'v [u8]>, name: &str) -> &'v [u8] {
    let found = pairs.find_map(|pair| {
        let (found, value) = pair.split_at_checked(name.len())?;
        value.strip_prefix(b"=").filter(|_| found.eq_ignore_ascii_case(name.as_bytes()))
    });
    found.unwrap_or_default()
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        _ => "HTTP/1.1",
    }
}

/// Percent-encoding that leaves the unreserved characters alone (RFC 3986, section 2.3).
fn escaped(text: &str) -> Vec<u8> {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let digit = |value: u8| DIGITS.get(usize::from(value)).copied().unwrap_or(b'0');
    let mut out = Vec::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte);
        } else {
            out.extend([b'%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn fields_of_one_name_are_one_value() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("a", "1"), ("b", "1"), ("b", "2"), ("b", "3"), ("cookie", "x=1"), ("cookie", "y=2")] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        for (name, expected) in [("a", "1"), ("b", "1, 2, 3"), ("cookie", "x=1; y=2"), ("none", "")] {
            assert_eq!(String::from_utf8_lossy(&joined(&headers, name)), expected, "{name}");
        }
    }

    #[test]
    fn arguments_are_found_by_their_whole_name() {
        for (query, name, expected) in [
            ("page=2&size=3", "size", "3"),
            ("Page=2", "page", "2"),
            ("pages=1&page=2&page=3", "page", "2"),
            ("page", "page", ""),
            ("", "page", ""),
            ("page=a=b", "page", "a=b"),
        ] {
            let found = first_named(query.as_bytes().split(|byte| *byte == b'&'), name);
            assert_eq!(String::from_utf8_lossy(found), expected, "{query} {name}");
        }
    }

    #[test]
    fn escaping_leaves_nothing_that_ends_a_value() {
        assert_eq!(escaped("/a-b/c.d?x=1&y=~_ \u{e9}"), b"%2Fa-b%2Fc.d%3Fx%3D1%26y%3D~_%20%C3%A9");
    }
}
