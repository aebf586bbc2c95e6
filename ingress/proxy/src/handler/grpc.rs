//! Answers of our own to gRPC clients: with a status that they can tell their callers.

use http::{
    HeaderName, HeaderValue, Request, Response, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_TYPE},
};

use crate::answer::AnswerBody;

static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
static GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Whether a request is a gRPC call.
pub(super) fn is_call<B>(request: &Request<B>) -> bool {
    let content_type = request.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    content_type.is_some_and(|value| {
        let rest = value.strip_prefix(b"application/grpc");
        rest.is_some_and(|rest| rest.first().is_none_or(|byte| matches!(byte, b'+' | b';' | b' ')))
    })
}

/// Says in gRPC's terms what an answer of ours means; an endpoint's answer is left alone. The HTTP status stays, as nginx's
/// would: a client without `grpc-status` makes the same of it (doc/http-grpc-status-mapping.md of grpc).
pub(super) fn translate(response: &mut Response<AnswerBody>) {
    let status = response.status();
    if !response.body().is_own() || status.as_u16() < 400 {
        return;
    }
    let (code, text) = match status {
        StatusCode::BAD_REQUEST => ("13", "bad request"),
        StatusCode::UNAUTHORIZED => ("16", "unauthorized"),
        StatusCode::FORBIDDEN => ("7", "forbidden"),
        StatusCode::NOT_FOUND => ("12", "no route"),
        StatusCode::PAYLOAD_TOO_LARGE => ("8", "request too large"),
        StatusCode::TOO_MANY_REQUESTS => ("14", "too many requests"),
        StatusCode::BAD_GATEWAY => ("14", "no answer from an endpoint"),
        StatusCode::SERVICE_UNAVAILABLE => ("14", "no endpoint"),
        StatusCode::GATEWAY_TIMEOUT => ("14", "no answer in time"),
        _ => ("2", "refused by the proxy"),
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(GRPC_STATUS.clone(), HeaderValue::from_static(code));
    headers.insert(GRPC_MESSAGE.clone(), HeaderValue::from_static(text));
    headers.remove(CONTENT_LENGTH);
    // A message would have to be framed, and there is none.
    response.body_mut().empty();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::plain;

    #[test]
    fn calls_are_told_by_their_content_type() {
        for (value, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;charset=x", true),
            ("application/grpc-web", false),
            ("application/json", false),
        ] {
            let request = Request::builder().header(CONTENT_TYPE, value).body(()).unwrap();
            assert_eq!(is_call(&request), expected, "{value}");
        }
    }

    #[test]
    fn refusals_have_a_status_and_no_message() {
        for (status, code) in [(404, "12"), (413, "8"), (502, "14"), (503, "14"), (504, "14"), (418, "2")] {
            let mut response = plain(StatusCode::from_u16(status).unwrap());
            translate(&mut response);
            assert_eq!(response.headers()[&GRPC_STATUS], code);
            assert!(hyper::body::Body::is_end_stream(response.body()), "{status}");
        }
        let mut redirect = plain(StatusCode::FOUND);
        translate(&mut redirect);
        assert!(!redirect.headers().contains_key(&GRPC_STATUS));
    }
}
