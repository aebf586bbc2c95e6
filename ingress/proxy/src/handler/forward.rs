//! The request to an endpoint, the answer to the client, and the change to a tunnel where both want one.

use std::sync::Arc;

use http::{
    HeaderMap, HeaderValue, Response, StatusCode, Uri, Version,
    header::{CONNECTION, CONTENT_LENGTH, SET_COOKIE, TRAILER, UPGRADE},
};
use hyper::{body::Body, upgrade::OnUpgrade};
use roadstead_routes::Scheme;

use super::{
    ClientRequest, Visit,
    balance::{selection, session_cookie},
    headers::hide,
    outgoing::{Hop, outgoing},
    transport::{body_rules, transport},
};
use crate::{
    answer::{AnswerBody, forwarded, plain},
    edge::Place,
    fields::{Hsts, Upgrade, X_REQUEST_ID, set_fields, to_client, to_upstream, wants_websocket},
    forwarded::Forwarded,
    limiter::Held,
    tunnel::{self, Ledger},
    upstream::{Failure, RequestBody, Selection, Transport, UpstreamBody, send},
};

/// Sends the request to an endpoint, and hands the answer on; a failure is an answer of our own.
pub(super) async fn forward(visit: &mut Visit<'_>, request: &mut ClientRequest) -> Response<AnswerBody> {
    let version = request.version();
    let mut selection = visit.pool().map(|pool| selection(visit, pool, request));
    let transport = transport(visit);
    let wire = transport.as_ref().ok().map(|transport| transport.wire);
    // From here on, a body that nobody wants is taken off the client's hands however the request ends.
    let body = match request.body_mut().take().filter(|body| !body.is_end_stream()) {
        Some(body) => RequestBody::new(body, body_rules(visit, version, request.headers(), wire)),
        None => RequestBody::empty(),
    };
    let forwarded = match (transport, &mut selection) {
        (Ok(transport), Some(selection)) => try_forward(visit, selection, &transport, request, body).await,
        (Ok(_), None) => Err(Failure::NoEndpoint),
        (Err(failure), _) => Err(failure),
    };
    visit.live.metrics.retried(visit.record.trail.steps().count().saturating_sub(1));
    if let (Ok(_), Some(selection)) = (&forwarded, &selection) {
        let cookie = session_cookie(visit, selection);
        visit.answer_fields.extend(cookie.map(|cookie| (SET_COOKIE, cookie)));
    }
    forwarded.unwrap_or_else(|failure| {
        visit.live.metrics.failed(failure);
        let mut answer = plain(status_of(failure));
        if version < Version::HTTP_2 && matches!(failure, Failure::TooLarge | Failure::SlowClient) {
            // As nginx does, so that the client need not send the rest.
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    })
}

async fn try_forward(
    visit: &mut Visit<'_>,
    selection: &mut Selection,
    transport: &Transport,
    request: &mut ClientRequest,
    mut body: RequestBody,
) -> Result<Response<AnswerBody>, Failure> {
    visit.record.body = body.progress();
    if is_too_long(visit, request.headers()) {
        return Err(Failure::TooLarge);
    }
    let client = wish_to_upgrade(request, &body);
    let upgrade = if client.is_some() { Upgrade::WebSocket } else { Upgrade::Never };
    body.read_ahead().await?;
    let hop = Hop::of(request.headers());
    let takes_trailers = hop.takes_trailers();
    address(visit, request, upgrade);
    let request = outgoing(request, body, hop, transport)?;
    let response = send(selection, transport, request, &mut visit.record.trail).await?;
    if has_too_large_head(visit, &response) {
        return Err(Failure::BadAnswer);
    }
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let kept = visit.record.held.take();
        return switch(client, response, transport, kept);
    }
    Ok(hand_on(visit, response, takes_trailers))
}

/// Turns the client's target and fields into those that an endpoint gets.
fn address(visit: &mut Visit<'_>, request: &mut ClientRequest, upgrade: Upgrade) {
    if let Some(made) = visit.made_request_id.get() {
        request.headers_mut().entry(&X_REQUEST_ID).or_insert_with(|| made.clone());
    }
    to_upstream(request.headers_mut(), visit.origin, &visit.host, upgrade);
    if let Some(believed) = request.extensions_mut().remove::<Forwarded>() {
        believed.apply(request.headers_mut());
    }
    set_fields(request.headers_mut(), &visit.upstream_fields);
    if let Some(target) = visit.target.take() {
        *request.uri_mut() = Uri::from(target);
    }
    visit.record.fields.request_id = request.headers().get(&X_REQUEST_ID).cloned();
}

/// Marks the answers of endpoints among all answers.
#[derive(Clone, Copy)]
pub(super) struct FromEndpoint;

/// Turns an endpoint's answer into the client's.
pub(super) fn hand_on(
    visit: &Visit<'_>,
    mut response: Response<UpstreamBody>,
    takes_trailers: bool,
) -> Response<AnswerBody> {
    response.extensions_mut().insert(FromEndpoint);
    let headers = response.headers_mut();
    let announced = headers.get(TRAILER).filter(|_| takes_trailers).cloned();
    to_client(headers, hsts(visit));
    hide(visit, headers);
    headers.remove(UPGRADE);
    if let Some(announced) = announced {
        headers.insert(TRAILER, announced);
    }
    *response.version_mut() = Version::HTTP_11;
    match read_ahead_bytes(visit, response.headers_mut()) {
        0 => forwarded(response),
        bytes => forwarded(response.map(|body| body.reading_ahead(bytes))),
    }
}

/// How much of an answer is read ahead of the client: what the Ingress says, unless the application knows better, as nginx lets it.
fn read_ahead_bytes(visit: &Visit<'_>, headers: &mut HeaderMap) -> u64 {
    match visit.settings().transport.read_ahead_bytes() {
        0 => 0,
        bytes => match headers.remove("x-accel-buffering") {
            Some(wish) if wish.as_bytes().eq_ignore_ascii_case(b"no") => 0,
            _ => bytes,
        },
    }
}

/// Whether a body is longer than its limit by its own word; one that does not tell is counted as it comes.
fn is_too_long(visit: &Visit<'_>, headers: &HeaderMap) -> bool {
    let Some(limit) = visit.settings().body.limit else { return false };
    let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    length.is_some_and(|length| length > limit)
}

/// Whether an answer's head is longer than `proxy-buffer-size`, counted as HTTP/1 writes it. nginx reads it into such a buffer.
fn has_too_large_head(visit: &Visit<'_>, response: &Response<UpstreamBody>) -> bool {
    let Some(limit) = visit.settings().transport.head_limit else { return false };
    let fields = response.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len());
    let size = "HTTP/1.1 200 OK\r\n\r\n".len() + fields.sum::<usize>();
    u64::try_from(size).is_ok_and(|size| size > limit)
}

fn hsts(visit: &Visit<'_>) -> Hsts {
    if visit.origin.scheme != Scheme::Https || !visit.live.certificates.load().has_own(visit.authority()) {
        return Hsts::Leave;
    }
    visit.live.edge.load().hsts.clone().map_or(Hsts::Leave, Hsts::Send)
}

fn status_of(failure: Failure) -> StatusCode {
    match failure {
        Failure::NoEndpoint | Failure::NoTransport => StatusCode::SERVICE_UNAVAILABLE,
        Failure::Connect | Failure::Broken | Failure::BadAnswer => StatusCode::BAD_GATEWAY,
        Failure::ConnectTimeout | Failure::Silent => StatusCode::GATEWAY_TIMEOUT,
        Failure::Client => StatusCode::BAD_REQUEST,
        Failure::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Failure::SlowClient => StatusCode::REQUEST_TIMEOUT,
        Failure::NoLength => StatusCode::LENGTH_REQUIRED,
    }
}

/// The client's side of an upgrade, when the request asks for one in the only form that the guard lets through: without
/// a body, on HTTP/1.1, with both fields. It comes with the connection's place, which the tunnel takes over.
fn wish_to_upgrade(request: &mut ClientRequest, body: &RequestBody) -> Option<(OnUpgrade, Arc<Place>)> {
    let asked = request.version() == Version::HTTP_11
        && body.is_end_stream()
        && wants_websocket(request.headers())
        && names_upgrade(request.headers());
    if !asked {
        return None;
    }
    Some((request.extensions_mut().remove::<OnUpgrade>()?, request.extensions_mut().remove::<Arc<Place>>()?))
}

fn names_upgrade(headers: &HeaderMap) -> bool {
    let values = headers.get_all(CONNECTION).iter();
    values
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .any(|token| token.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
}

/// Both sides leave HTTP: the bytes are copied from now on. An endpoint that upgrades unasked broke the protocol. As in
/// nginx, the time within which an endpoint must say something is also that of a tunnel in which nobody does.
fn switch(
    client: Option<(OnUpgrade, Arc<Place>)>,
    mut response: Response<UpstreamBody>,
    transport: &Transport,
    held: Option<Held>,
) -> Result<Response<AnswerBody>, Failure> {
    let (client, place) = client.ok_or(Failure::Broken)?;
    let held = (place, held, response.body_mut().take_in_use());
    let ledger = Ledger::default();
    tunnel::spawn(client, hyper::upgrade::on(&mut response), transport.read_timeout, ledger.clone(), held);
    to_client(response.headers_mut(), Hsts::Leave);
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    let mut answer = plain(StatusCode::SWITCHING_PROTOCOLS);
    *answer.headers_mut() = std::mem::take(response.headers_mut());
    answer.extensions_mut().insert(ledger);
    Ok(answer.map(AnswerBody::without_content))
}
