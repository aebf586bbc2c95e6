//! The request to an endpoint, the answer to the client, and the change to a tunnel where both want one.

use std::sync::Arc;

use http::{
    HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, Version,
    header::{CONNECTION, CONTENT_LENGTH, SET_COOKIE, TRANSFER_ENCODING, UPGRADE},
    request::Parts,
};
use hyper::{
    body::{Body, Incoming},
    upgrade::OnUpgrade,
};
use roadstead_routes::Scheme;

use super::{
    Visit,
    balance::{selection, session_cookie},
    headers::hide,
};
use crate::{
    answer::{AnswerBody, forwarded, plain},
    edge::Place,
    fields::{Hsts, Upgrade, X_REQUEST_ID, set_fields, to_client, to_upstream, wants_websocket},
    forwarded::Forwarded,
    limiter::Held,
    tunnel,
    upstream::{Failure, RequestBody, Selection, Transport, UpstreamBody, send},
};

/// Sends the request to an endpoint, and hands the answer on; a failure is an answer of our own.
pub(super) async fn forward(visit: &mut Visit<'_>, request: Request<Incoming>) -> Response<AnswerBody> {
    let Some(pool) = visit.pool().cloned() else { return plain(StatusCode::SERVICE_UNAVAILABLE) };
    let mut selection = selection(visit, &pool, &request);
    let outcome = try_forward(visit, &mut selection, request).await;
    visit.live.metrics.retried(visit.record.trail.steps().count().saturating_sub(1));
    match outcome {
        Ok(response) => {
            let cookie = session_cookie(visit, &selection);
            visit.answer_fields.extend(cookie.map(|cookie| (SET_COOKIE, cookie)));
            response
        }
        Err(failure) => {
            visit.live.metrics.failed(failure);
            plain(status_of(failure))
        }
    }
}

async fn try_forward(
    visit: &mut Visit<'_>,
    selection: &mut Selection,
    request: Request<Incoming>,
) -> Result<Response<AnswerBody>, Failure> {
    let (mut parts, body) = request.into_parts();
    let client = wish_to_upgrade(&mut parts, &body);
    let upgrade = if client.is_some() { Upgrade::WebSocket } else { Upgrade::Never };
    if let Some(made) = visit.made_request_id.get() {
        parts.headers.entry(&X_REQUEST_ID).or_insert_with(|| made.clone());
    }
    to_upstream(&mut parts.headers, visit.origin, &visit.host, upgrade);
    if let Some(believed) = parts.extensions.remove::<Forwarded>() {
        believed.apply(&mut parts.headers);
    }
    set_fields(&mut parts.headers, &visit.upstream_fields);
    if let Some(target) = visit.target.take() {
        parts.uri = Uri::from(target);
    }
    visit.record.fields.request_id = parts.headers.get(&X_REQUEST_ID).cloned();
    let transport = Transport::default();
    let request = outgoing(parts, body);
    visit.record.body = request.body().progress();
    let mut response = send(selection, &transport, request, &mut visit.record.trail).await?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let kept = visit.record.held.take();
        return switch(client, response, &transport, kept);
    }
    to_client(response.headers_mut(), hsts(visit));
    hide(visit, response.headers_mut());
    response.headers_mut().remove(UPGRADE);
    *response.version_mut() = Version::HTTP_11;
    Ok(forwarded(response))
}

fn hsts(visit: &Visit<'_>) -> Hsts {
    if visit.origin.scheme != Scheme::Https || !visit.live.certificates.load().has_own(visit.authority()) {
        return Hsts::Leave;
    }
    visit.live.edge.load().hsts.clone().map_or(Hsts::Leave, Hsts::Send)
}

fn status_of(failure: Failure) -> StatusCode {
    match failure {
        Failure::NoEndpoint => StatusCode::SERVICE_UNAVAILABLE,
        Failure::Connect | Failure::Broken => StatusCode::BAD_GATEWAY,
        Failure::ConnectTimeout | Failure::Silent => StatusCode::GATEWAY_TIMEOUT,
        Failure::Client => StatusCode::BAD_REQUEST,
    }
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
    transport: &Transport,
    held: Option<Held>,
) -> Result<Response<AnswerBody>, Failure> {
    let (client, place) = client.ok_or(Failure::Broken)?;
    let held = (place, held, response.body_mut().take_in_use());
    tunnel::spawn(client, hyper::upgrade::on(&mut response), transport.read_timeout, held);
    to_client(response.headers_mut(), Hsts::Leave);
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    let mut answer = plain(StatusCode::SWITCHING_PROTOCOLS);
    *answer.headers_mut() = std::mem::take(response.headers_mut());
    Ok(answer.map(AnswerBody::without_content))
}
