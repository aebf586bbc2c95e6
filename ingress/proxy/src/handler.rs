//! One request's way: refusals, the route, the endpoint's answer, the fields on either side.

use std::{convert::Infallible, sync::Arc};

use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
    header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING, UPGRADE},
    request::Parts,
    uri::PathAndQuery,
};
use hyper::{
    body::{Body, Incoming},
    upgrade::OnUpgrade,
};
use roadstead_routes::{Outcome, Scheme, route};

use crate::{
    answer::{AnswerBody, forwarded, plain, redirect},
    control::Live,
    edge::Place,
    fields::{Hsts, Origin, Upgrade, to_client, to_upstream, wants_websocket},
    head::{is_authority, refused_status},
    tunnel,
    upstream::{Failure, RequestBody, UpstreamBody, send},
};

/// Answers a request; every failure is an answer too.
///
/// # Errors
/// None.
pub async fn handle(
    live: Arc<Live>,
    origin: Origin,
    place: Arc<Place>,
    mut request: Request<Incoming>,
) -> Result<Response<AnswerBody>, Infallible> {
    let in_flight = live.metrics.begin();
    let wanted_upgrade = request.version() < Version::HTTP_2 && wants_websocket(request.headers());
    if wanted_upgrade {
        request.extensions_mut().insert(place);
    }
    root_empty_path(request.uri_mut());
    let mut response = answer(&live, &origin, request).await;
    if wanted_upgrade && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        // The guard stopped judging heads behind a wish to upgrade, so nothing more may be read as a request.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    live.metrics.answered(response.status());
    tracing::debug!(peer = %origin.peer, status = response.status().as_u16(), "answered");
    Ok(response.map(|body| body.counted(in_flight)))
}

async fn answer(live: &Live, origin: &Origin, request: Request<Incoming>) -> Response<AnswerBody> {
    if let Some(status) = refused_status(request.headers()) {
        let mut response = plain(status);
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        return response;
    }
    if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
        return plain(StatusCode::METHOD_NOT_ALLOWED);
    }
    let Some(host) = host_of(&request) else {
        return plain(StatusCode::BAD_REQUEST);
    };
    let generation = live.generation.load_full();
    let target = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
    let authority = host.to_str().unwrap_or_default();
    match route(&generation.table, origin.scheme, authority, target) {
        Outcome::BadPath(_) => plain(StatusCode::BAD_REQUEST),
        Outcome::NotFound => plain(StatusCode::NOT_FOUND),
        Outcome::Unavailable { .. } => plain(StatusCode::SERVICE_UNAVAILABLE),
        Outcome::Redirect { location, .. } => redirect(&location),
        Outcome::Proxy { backend, .. } => {
            let hsts = hsts(live, origin, authority);
            match generation.pool(backend) {
                Some(pool) => match forward(pool, origin, &host, request, hsts).await {
                    Ok(response) => response,
                    Err(failure) => {
                        live.metrics.failed(failure);
                        plain(status_of(failure))
                    }
                },
                None => plain(StatusCode::SERVICE_UNAVAILABLE),
            }
        }
    }
}

/// The authority that the request is for: HTTP/2's `:authority`, else `Host`. Two that differ are none, and so is anything
/// that is not host and port. HTTP/1.0 may name no host; it gets the empty one.
fn host_of(request: &Request<Incoming>) -> Option<HeaderValue> {
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
fn root_empty_path(uri: &mut Uri) {
    let Some(target) = uri.path_and_query().filter(|target| target.as_str().starts_with('?')) else { return };
    if let Ok(rooted) = PathAndQuery::try_from(format!("/{}", target.as_str())) {
        let mut parts = uri.clone().into_parts();
        parts.path_and_query = Some(rooted);
        if let Ok(rooted) = Uri::from_parts(parts) {
            *uri = rooted;
        }
    }
}

fn hsts(live: &Live, origin: &Origin, authority: &str) -> Hsts {
    let certified = || live.certificates.load().has_own(authority);
    if origin.scheme == Scheme::Https && certified() { Hsts::Send } else { Hsts::Leave }
}

fn status_of(failure: Failure) -> StatusCode {
    match failure {
        Failure::NoEndpoint => StatusCode::SERVICE_UNAVAILABLE,
        Failure::Connect | Failure::Broken => StatusCode::BAD_GATEWAY,
        Failure::ConnectTimeout | Failure::Silent => StatusCode::GATEWAY_TIMEOUT,
        Failure::Client => StatusCode::BAD_REQUEST,
    }
}

async fn forward(
    pool: &crate::upstream::Pool,
    origin: &Origin,
    host: &HeaderValue,
    request: Request<Incoming>,
    hsts: Hsts,
) -> Result<Response<AnswerBody>, Failure> {
    let (mut parts, body) = request.into_parts();
    let client = wish_to_upgrade(&mut parts, &body);
    let upgrade = if client.is_some() { Upgrade::WebSocket } else { Upgrade::Never };
    to_upstream(&mut parts.headers, origin, host, upgrade);
    let mut response = send(pool, outgoing(parts, body)).await?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return switch(client, response);
    }
    to_client(response.headers_mut(), hsts);
    response.headers_mut().remove(UPGRADE);
    *response.version_mut() = Version::HTTP_11;
    Ok(forwarded(response))
}

/// The request as an endpoint gets it: HTTP/1.1, origin form, the target as the client wrote it.
fn outgoing(parts: Parts, body: Incoming) -> Request<RequestBody> {
    let mut request = Request::new(RequestBody::new(body));
    *request.method_mut() = parts.method;
    *request.uri_mut() = parts.uri.into_parts().path_and_query.map_or_else(|| Uri::from_static("/"), Uri::from);
    *request.headers_mut() = parts.headers;
    if !request.body().is_end_stream() && !request.headers().contains_key(CONTENT_LENGTH) {
        // Unasked, hyper sends no body with GET and HEAD: the endpoint would take an emptied request for the whole one.
        request.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    request
}

/// The client's side of an upgrade, when the request asks for one in the only form that the guard lets through: without
/// a body, on HTTP/1.1, with both fields. It comes with the connection's place, which the tunnel takes over.
fn wish_to_upgrade(parts: &mut Parts, body: &Incoming) -> Option<(OnUpgrade, Arc<Place>)> {
    let asked = parts.version == Version::HTTP_11
        && body.is_end_stream()
        && wants_websocket(&parts.headers)
        && names_upgrade(&parts.headers);
    if !asked {
        return None;
    }
    Some((parts.extensions.remove::<OnUpgrade>()?, parts.extensions.remove::<Arc<Place>>()?))
}

fn names_upgrade(headers: &HeaderMap) -> bool {
    let values = headers.get_all(CONNECTION).iter();
    values
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .any(|token| token.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
}

/// Both sides leave HTTP: the bytes are copied from now on. An endpoint that upgrades unasked broke the protocol.
fn switch(
    client: Option<(OnUpgrade, Arc<Place>)>,
    mut response: Response<UpstreamBody>,
) -> Result<Response<AnswerBody>, Failure> {
    let (client, place) = client.ok_or(Failure::Broken)?;
    tunnel::spawn(client, hyper::upgrade::on(&mut response), place);
    to_client(response.headers_mut(), Hsts::Leave);
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    let mut answer = plain(StatusCode::SWITCHING_PROTOCOLS);
    *answer.headers_mut() = std::mem::take(response.headers_mut());
    Ok(answer.map(AnswerBody::without_content))
}
