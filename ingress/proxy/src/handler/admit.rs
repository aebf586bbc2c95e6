//! Requests that no route may see: refused heads, methods that are not for a reverse proxy, authorities that are none.

use http::{
    HeaderValue, Method, Response, StatusCode, Uri, Version,
    header::{CONNECTION, HOST},
    uri::PathAndQuery,
};

use super::ClientRequest;
use crate::{
    answer::{AnswerBody, plain},
    head::{is_authority, refused_status},
};

/// What was found out about a request that may go on.
pub(super) struct Admitted {
    /// The authority that it is for.
    pub(super) host: HeaderValue,
}

/// Lets a request on, or answers it.
pub(super) fn admit(request: &ClientRequest) -> Result<Admitted, Box<Response<AnswerBody>>> {
    if let Some(status) = refused_status(request.headers()) {
        let mut response = plain(status);
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        return Err(response.into());
    }
    if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
        return Err(plain(StatusCode::METHOD_NOT_ALLOWED).into());
    }
    let host = host_of(request).ok_or_else(|| plain(StatusCode::BAD_REQUEST))?;
    Ok(Admitted { host })
}

/// The authority that the request is for: HTTP/2's `:authority`, else `Host`. Two that differ are none, and so is anything
/// that is not host and port. HTTP/1.0 may name no host; it gets the empty one.
fn host_of(request: &ClientRequest) -> Option<HeaderValue> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let header = hosts.next();
    if hosts.next().is_some() {
        return None;
    }
    let authority = request.uri().authority().map(http::uri::Authority::as_str);
    let host = match (authority, header) {
        (Some(authority), Some(header)) if !authority.as_bytes().eq_ignore_ascii_case(header.as_bytes()) => {
            return None;
        }
        (Some(authority), _) => HeaderValue::from_str(authority).ok()?,
        (None, Some(header)) => header.clone(),
        (None, None) if request.version() == Version::HTTP_10 => HeaderValue::from_static(""),
        (None, None) => return None,
    };
    is_authority(host.as_bytes()).then_some(host)
}

/// `http://host?query` asks for `/?query` (RFC 9110, section 4.2.3).
pub(super) fn root_empty_path(uri: &mut Uri) {
    let Some(target) = uri.path_and_query().filter(|target| target.as_str().starts_with('?')) else { return };
    if let Ok(rooted) = PathAndQuery::try_from(format!("/{}", target.as_str())) {
        let mut parts = uri.clone().into_parts();
        parts.path_and_query = Some(rooted);
        if let Ok(rooted) = Uri::from_parts(parts) {
            *uri = rooted;
        }
    }
}
