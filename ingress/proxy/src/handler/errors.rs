//! Answers that another Service gives in place of whoever had them: `custom-http-errors` and `default-backend`.
//!
//! The Service learns what happened by ingress-nginx's fields, and its answer goes to the client as it is, with its own status.
//! It is asked once and its answer is not looked at again, so no error leads to another round; when it gives none, the client
//! gets what it would have got without it.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use roadstead_routes::{BackendId, Facts, Variable};

use super::{
    RequestFacts, Visit,
    forward::{FromEndpoint, hand_on},
};
use crate::{
    answer::AnswerBody,
    fields::{Upgrade, set_fields, to_upstream},
    upstream::{RequestBody, Selection, Transport, Wire, send},
};

static X_CODE: HeaderName = HeaderName::from_static("x-code");
static X_ORIGINAL_URI: HeaderName = HeaderName::from_static("x-original-uri");

/// Sends a request whose backend has no endpoint to the Ingress's default backend.
pub(super) fn fall_back<B>(visit: &mut Visit<'_>, request: &Request<B>) {
    let Some(fallback) = visit.route.fallback.filter(|_| visit.settings().errors.backend.is_some()) else { return };
    let is_empty = |id: BackendId| visit.generation.pool(id).is_none_or(|pool| pool.is_empty());
    if !is_empty(visit.backend) || is_empty(fallback) {
        return;
    }
    let fields = told(visit, request, StatusCode::SERVICE_UNAVAILABLE);
    visit.upstream_fields.extend(fields);
    visit.backend = fallback;
    visit.fell_back = true;
}

/// The answer of the default backend, where the status is one that it answers.
pub(super) async fn answered_by_default(
    visit: &mut Visit<'_>,
    kept: &Request<()>,
    response: Response<AnswerBody>,
) -> Response<AnswerBody> {
    let errors = &visit.route.settings.errors;
    let from_endpoint = response.extensions().get::<FromEndpoint>().is_some();
    if !errors.covers(response.status().as_u16()) || (from_endpoint && errors.keep_endpoints) {
        return response;
    }
    match ask(visit, kept, response.status()).await {
        Some(answer) => answer,
        None => response,
    }
}

async fn ask(visit: &mut Visit<'_>, kept: &Request<()>, status: StatusCode) -> Option<Response<AnswerBody>> {
    let pool = visit.generation.pool(visit.route.fallback?)?.clone();
    let mut headers = kept.headers().clone();
    for name in [header::CONTENT_LENGTH, header::CONTENT_TYPE, header::EXPECT] {
        headers.remove(name);
    }
    to_upstream(&mut headers, visit.origin, &visit.host, Upgrade::Never);
    set_fields(&mut headers, &told(visit, kept, status));
    set_fields(&mut headers, &[(X_ORIGINAL_URI.clone(), original_uri(kept))]);
    let mut request = Request::new(RequestBody::empty());
    *request.method_mut() = if kept.method() == Method::HEAD { Method::HEAD } else { Method::GET };
    *request.uri_mut() = root(kept.uri());
    *request.headers_mut() = headers;
    let mut selection = Selection::new(pool, visit.route.settings.clone());
    // ingress-nginx reaches it in the clear, whatever the Ingress's own backend speaks.
    let times = &visit.route.settings.transport;
    let transport = Transport {
        wire: Wire::Http11,
        tls: None,
        connect_timeout: times.connect_timeout,
        read_timeout: times.read_timeout,
        send_timeout: times.send_timeout,
        keepalive: visit.generation.table.options().keepalive,
    };
    let response = send(&mut selection, &transport, Box::new(request), &mut visit.record.trail).await.ok()?;
    (response.status() != StatusCode::SWITCHING_PROTOCOLS).then(|| hand_on(visit, response, false))
}

/// What the default backend is told of the request.
fn told<B>(visit: &Visit<'_>, request: &Request<B>, status: StatusCode) -> Vec<(HeaderName, HeaderValue)> {
    let facts = RequestFacts::of(visit, request);
    let mut fields = vec![(X_CODE.clone(), HeaderValue::from(status.as_u16()))];
    for (name, variable) in [
        ("x-format", Variable::Header("accept".into())),
        ("x-namespace", Variable::Namespace),
        ("x-ingress-name", Variable::IngressName),
        ("x-service-name", Variable::ServiceName),
        ("x-service-port", Variable::ServicePort),
        ("x-request-id", Variable::RequestId),
    ] {
        if let Ok(value) = HeaderValue::from_bytes(&facts.value(&variable)) {
            fields.push((HeaderName::from_static(name), value));
        }
    }
    fields
}

fn original_uri(kept: &Request<()>) -> HeaderValue {
    let target = kept.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    HeaderValue::from_str(target).unwrap_or_else(|_| HeaderValue::from_static("/"))
}

/// The root with the request's query.
fn root(uri: &Uri) -> Uri {
    let target = uri.query().map_or_else(|| "/".to_owned(), |query| format!("/?{query}"));
    Uri::try_from(target).unwrap_or_else(|_| Uri::from_static("/"))
}

/// The head of a request, for what is asked about it once it is gone.
pub(super) fn head_of<B>(request: &Request<B>) -> Request<()> {
    let mut kept = Request::new(());
    kept.method_mut().clone_from(request.method());
    kept.uri_mut().clone_from(request.uri());
    *kept.version_mut() = request.version();
    let headers: &HeaderMap = request.headers();
    kept.headers_mut().clone_from(headers);
    kept
}
