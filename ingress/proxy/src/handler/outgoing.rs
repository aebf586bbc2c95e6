//! The request as an endpoint gets it: version, target, and the fields that belong to the connection.

use http::{
    HeaderMap, HeaderValue, Request, Uri, Version,
    header::{CONTENT_LENGTH, EXPECT, HOST, TE, TRAILER, TRANSFER_ENCODING},
    uri::{Authority, PathAndQuery, Scheme},
};
use hyper::body::Body;

use super::ClientRequest;
use crate::upstream::{Failure, RequestBody, Transport, Wire};

/// Fields that mean the hop and not the request, as the client sent them.
pub(super) struct Hop {
    /// The client takes trailers.
    takes_trailers: bool,
    /// The trailers that the client announced.
    announced: Option<HeaderValue>,
}

impl Hop {
    /// Looks at them before they are removed.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let names_trailers = |value: &HeaderValue| {
            let mut words = value.as_bytes().split(|byte| *byte == b',');
            words.any(|word| word.trim_ascii().eq_ignore_ascii_case(b"trailers"))
        };
        let takes_trailers = headers.get_all(TE).iter().any(names_trailers);
        Self { takes_trailers, announced: headers.get(TRAILER).cloned() }
    }

    /// Whether an HTTP/1 client may be sent trailers.
    pub(super) fn takes_trailers(&self) -> bool {
        self.takes_trailers
    }
}

/// Makes the request.
///
/// # Errors
/// [`Failure::NoLength`]: HTTP/1.0 cannot carry a body whose length is not known.
pub(super) fn outgoing(
    client: &mut ClientRequest,
    body: RequestBody,
    hop: Hop,
    transport: &Transport,
) -> Result<Box<Request<RequestBody>>, Failure> {
    // In one place from here to hyper, however many hands it goes through.
    let mut request = Box::new(Request::new(body));
    std::mem::swap(request.method_mut(), client.method_mut());
    std::mem::swap(request.headers_mut(), client.headers_mut());
    // The client was told to continue, or not, by us.
    request.headers_mut().remove(EXPECT);
    let target = std::mem::take(client.uri_mut()).into_parts().path_and_query;
    let target = target.unwrap_or_else(|| PathAndQuery::from_static("/"));
    match transport.wire {
        Wire::Http10 => {
            *request.version_mut() = Version::HTTP_10;
            frame(&mut request, None)?;
            *request.uri_mut() = Uri::from(target);
        }
        Wire::Http11 => {
            frame(&mut request, Some(hop))?;
            *request.uri_mut() = Uri::from(target);
        }
        Wire::Http2 => {
            *request.version_mut() = Version::HTTP_2;
            *request.uri_mut() = absolute(request.headers_mut().remove(HOST), target, transport)?;
            // gRPC servers take a request without it for one that lost its trailers on the way. The one hop that this is
            // about is ours, and it takes trailers.
            request.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
        }
    }
    Ok(request)
}

/// Says how long the body is, where nothing does so yet. Unasked, hyper sends no body with GET and HEAD: the endpoint would take
/// an emptied request for the whole one. `hop` is there where the body may be sent in chunks.
fn frame(request: &mut Request<RequestBody>, hop: Option<Hop>) -> Result<(), Failure> {
    if request.body().is_end_stream() || request.headers().contains_key(CONTENT_LENGTH) {
        return Ok(());
    }
    match (request.body().whole_length(), hop) {
        (Some(length), _) => {
            request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        (None, None) => return Err(Failure::NoLength),
        (None, Some(hop)) => {
            request.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            if let Some(announced) = hop.announced {
                request.headers_mut().insert(TRAILER, announced);
            }
        }
    }
    Ok(())
}

/// HTTP/2 names its authority in the target (RFC 9113, section 8.3.1).
fn absolute(host: Option<HeaderValue>, target: PathAndQuery, transport: &Transport) -> Result<Uri, Failure> {
    let authority = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let scheme = if transport.tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP };
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(scheme);
    // A client of HTTP/1.0 may name none.
    parts.authority = Some(authority.unwrap_or_else(|| Authority::from_static("upstream")));
    parts.path_and_query = Some(target);
    Uri::from_parts(parts).map_err(|_| Failure::Client)
}
