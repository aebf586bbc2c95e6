//! Cross-origin requests (the Fetch standard's CORS protocol): preflights are answered here, and answers get the fields that let
//! another origin's page read them.
//!
//! The fields are those of ingress-nginx, on every answer of the route, refusals too, and they replace the endpoint's. Vary is
//! added where the origin decides, which ingress-nginx leaves out: a shared cache would mix origins up.

use http::{
    HeaderMap, HeaderValue, Method, Response, StatusCode,
    header::{
        ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
        ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, CONTENT_LENGTH,
        CONTENT_TYPE, ORIGIN, VARY,
    },
};
use roadstead_routes::{Cors, Origins};

use super::{ClientRequest, Visit, stages::Stage};
use crate::answer::{AnswerBody, plain};

/// Notes whose page asks, and answers a preflight of an origin that may.
pub(super) fn preflight(visit: &mut Visit<'_>, request: &ClientRequest) -> Stage {
    let Some(cors) = &visit.route.settings.cors else { return Stage::Continue(()) };
    let origin = request.headers().get(ORIGIN);
    let allowed = match &cors.origins {
        Origins::Any => Some(HeaderValue::from_static("*")),
        listed => origin.filter(|origin| listed.contain(origin.as_bytes())).cloned(),
    };
    let answers = allowed.is_some() && request.method() == Method::OPTIONS;
    visit.findings.cors_origin = allowed;
    if !answers {
        return Stage::Continue(());
    }
    let mut response = plain(StatusCode::NO_CONTENT).map(AnswerBody::without_content);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain charset=UTF-8"));
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    Stage::Break(response)
}

/// Gives an answer the fields of the route.
pub(super) fn share(visit: &Visit<'_>, response: &mut Response<AnswerBody>) {
    let Some(cors) = &visit.settings().cors else { return };
    let headers = response.headers_mut();
    if cors.origins != Origins::Any {
        headers.append(VARY, HeaderValue::from_static("Origin"));
    }
    if let Some(origin) = &visit.findings.cors_origin {
        fields(cors, origin, headers);
    }
}

fn fields(cors: &Cors, origin: &HeaderValue, headers: &mut HeaderMap) {
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    if cors.credentials {
        headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
    let texts = [
        (ACCESS_CONTROL_ALLOW_METHODS, Some(&cors.methods)),
        (ACCESS_CONTROL_ALLOW_HEADERS, Some(&cors.headers)),
        (ACCESS_CONTROL_EXPOSE_HEADERS, cors.expose.as_ref()),
    ];
    for (name, text) in texts {
        if let Some(value) = text.and_then(|text| HeaderValue::from_str(text).ok()) {
            headers.insert(name, value);
        }
    }
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from(cors.max_age));
}
