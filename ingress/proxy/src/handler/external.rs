//! External authentication: what the service is asked about a request, and what its answer means for it.

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Uri,
    header::{CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, SET_COOKIE, WWW_AUTHENTICATE},
};
use roadstead_routes::{Cookies, ExternalAuth, Facts, Template, Variable};

use super::{
    ClientRequest, RequestFacts, Visit,
    who::{Refusal, refuse},
};
use crate::{
    answer::AnswerBody,
    authorize::{Question, Verdict},
    fields::{Upgrade, X_REQUEST_ID, to_upstream},
    forwarded::Forwarded,
};

static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static X_ORIGINAL_URL: HeaderName = HeaderName::from_static("x-original-url");
static X_ORIGINAL_URI: HeaderName = HeaderName::from_static("x-original-uri");
static X_ORIGINAL_METHOD: HeaderName = HeaderName::from_static("x-original-method");
static X_SENT_FROM: HeaderName = HeaderName::from_static("x-sent-from");
static X_AUTH_REQUEST_REDIRECT: HeaderName = HeaderName::from_static("x-auth-request-redirect");

/// Asks the service; what it says goes to the endpoint and to the client as the settings have it.
///
/// # Errors
/// The answer that the client gets: the service's own 401 or 403, or 500 for whatever is no decision.
pub(super) async fn ask_service(
    auth: &ExternalAuth,
    visit: &mut Visit<'_>,
    request: &mut ClientRequest,
) -> Result<(), Refusal> {
    let question = question(auth, visit, request).ok_or_else(|| refuse(StatusCode::INTERNAL_SERVER_ERROR))?;
    let verdict = match visit.live.policy.authorizer.ask(question).await {
        Ok(verdict) => verdict,
        Err(error) => {
            tracing::debug!(%error, ingress = %visit.route.ingress, "the authentication service gives no answer");
            return Err(refuse(StatusCode::INTERNAL_SERVER_ERROR));
        }
    };
    visit.findings.auth_cookies.extend(verdict.headers.get_all(SET_COOKIE).iter().cloned());
    match verdict.status {
        status if status.is_success() => {
            pass_on(auth, &verdict, request.headers_mut());
            Ok(())
        }
        StatusCode::UNAUTHORIZED => {
            let mut refusal = refuse(StatusCode::UNAUTHORIZED);
            for challenge in verdict.headers.get_all(WWW_AUTHENTICATE) {
                refusal.headers_mut().append(WWW_AUTHENTICATE, challenge.clone());
            }
            Err(refusal)
        }
        StatusCode::FORBIDDEN => Err(refuse(StatusCode::FORBIDDEN)),
        _ => Err(refuse(StatusCode::INTERNAL_SERVER_ERROR)),
    }
}

/// Gives the endpoint the fields of the answer that it is to see, and never the client's own of the same name.
fn pass_on(auth: &ExternalAuth, verdict: &Verdict, headers: &mut HeaderMap) {
    for name in &auth.response_headers {
        let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else { continue };
        headers.remove(&name);
        let values: Vec<&[u8]> = verdict.headers.get_all(&name).iter().map(HeaderValue::as_bytes).collect();
        if let Ok(value) = HeaderValue::from_bytes(&values.join(&b", "[..]))
            && !value.is_empty()
        {
            headers.insert(name, value);
        }
    }
}

/// The request to the service: the client's fields, without a body, and what ingress-nginx's template says about it.
fn question<'a>(auth: &'a ExternalAuth, visit: &Visit<'_>, request: &ClientRequest) -> Option<Question<'a>> {
    let facts = RequestFacts::of(visit, request);
    let uri: Uri = auth.url.render_text(&facts).parse().ok()?;
    let host = HeaderValue::from_str(uri.host()?).ok()?;
    let mut headers = request.headers().clone();
    to_upstream(&mut headers, visit.origin, &visit.host, Upgrade::Never);
    if let Some(believed) = request.extensions().get::<Forwarded>() {
        believed.clone().apply(&mut headers);
    }
    for name in [CONTENT_LENGTH, CONTENT_TYPE, EXPECT, X_FORWARDED_PROTO.clone()] {
        headers.remove(name);
    }
    let id = HeaderValue::from_bytes(&facts.value(&Variable::RequestId)).ok()?;
    headers.insert(X_REQUEST_ID.clone(), id);
    let target = HeaderValue::from_bytes(&facts.value(&Variable::RequestUri)).ok()?;
    let url = [facts.value(&Variable::Scheme), facts.value(&Variable::Authority), facts.value(&Variable::RequestUri)];
    let [scheme, authority, path] = url;
    let url = HeaderValue::from_bytes(&[&*scheme, b"://", &*authority, &*path].concat()).ok()?;
    headers.insert(HOST, host);
    headers.insert(X_ORIGINAL_URL.clone(), url);
    headers.insert(X_ORIGINAL_METHOD.clone(), HeaderValue::from_str(request.method().as_str()).ok()?);
    headers.insert(X_SENT_FROM.clone(), HeaderValue::from_static("nginx-ingress-controller"));
    if auth.method.is_some() {
        headers.insert(X_ORIGINAL_URI.clone(), target.clone());
    }
    let redirect = auth.request_redirect.as_ref().and_then(|redirect| rendered(redirect, &facts));
    headers.insert(X_AUTH_REQUEST_REDIRECT.clone(), redirect.unwrap_or(target));
    set_fields(&mut headers, &auth.set_headers, &facts);
    let cache = auth.cache.as_ref().map(|cache| {
        let route = &visit.route;
        let host = route.host.as_ref().map(ToString::to_string).unwrap_or_default();
        let path = route.path.as_ref().map_or("", |(_, path)| path);
        let own = [route.ingress.to_string(), host, path.to_owned(), cache.scope.clone()].map(String::into_bytes);
        (cache, own.into_iter().chain([cache.key.render(&facts)]).collect())
    });
    let method = auth.method.map_or(Some(Method::GET), |method| method.parse().ok())?;
    let (service, keepalive, wanted) = (auth.service.as_ref(), auth.keepalive, auth.response_headers.as_slice());
    Some(Question { method, uri, headers, service, keepalive, wanted, cache })
}

fn rendered(template: &Template, facts: &dyn Facts) -> Option<HeaderValue> {
    HeaderValue::from_bytes(&template.render(facts)).ok()
}

/// Sets fields as nginx's `proxy_set_header` does: an empty value takes the field away.
pub(super) fn set_fields(headers: &mut HeaderMap, fields: &[(String, Template)], facts: &dyn Facts) {
    for (name, template) in fields {
        let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else { continue };
        match rendered(template, facts) {
            Some(value) if !value.is_empty() => drop(headers.insert(name, value)),
            _ => drop(headers.remove(name)),
        }
    }
}

/// Gives the client the service's cookies, with the statuses that nginx's `add_header` knows or with all.
pub(super) fn set_cookies(visit: &Visit<'_>, response: &mut Response<AnswerBody>) {
    if visit.findings.auth_cookies.is_empty() {
        return;
    }
    let external = visit.settings().auth.external.set();
    let always = external.is_some_and(|external| external.cookies == Cookies::Always);
    if always || matches!(response.status().as_u16(), 200 | 201 | 204 | 206 | 301..=304 | 307 | 308) {
        for cookie in &visit.findings.auth_cookies {
            response.headers_mut().append(SET_COOKIE, cookie.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use http::header::AUTHORIZATION;

    use super::*;

    #[test]
    fn the_client_cannot_bring_what_the_service_is_to_say() {
        let verdict = |fields: &[(&'static str, &'static str)]| {
            let headers =
                fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
            Verdict { status: StatusCode::OK, headers: headers.collect() }
        };
        let auth = ExternalAuth {
            url: Template::default(),
            service: None,
            method: None,
            signin: None,
            response_headers: vec!["x-user".to_owned(), "authorization".to_owned()],
            request_redirect: None,
            set_headers: Vec::new(),
            cookies: Cookies::Successes,
            cache: None,
            keepalive: roadstead_routes::AuthKeepalive::default(),
        };
        let mut headers = HeaderMap::new();
        headers.append("x-user", HeaderValue::from_static("root"));
        headers.append(AUTHORIZATION, HeaderValue::from_static("Bearer forged"));
        headers.append("x-other", HeaderValue::from_static("stays"));
        pass_on(&auth, &verdict(&[("x-user", "alice"), ("x-other", "unasked")]), &mut headers);
        assert_eq!(headers.get("x-user"), Some(&HeaderValue::from_static("alice")));
        assert_eq!(headers.get("x-other"), Some(&HeaderValue::from_static("stays")));
        assert_eq!(headers.get(AUTHORIZATION), None);
    }
}
