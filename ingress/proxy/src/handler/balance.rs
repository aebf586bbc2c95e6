//! What a request brings to the choice of its endpoint, the key of a hash or the cookie of a session, and the cookie that the
//! answer takes back.
//!
//! The choice itself is the pool's. A route without hash and affinity costs two looks at its settings here.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::{
    HeaderMap, HeaderValue, Request,
    header::{COOKIE, USER_AGENT},
};
use roadstead_routes::{AffinityMode, Reach, SameSite, Scheme, SessionCookie};

use super::{Visit, facts::RequestFacts};
use crate::upstream::{Pool, Selection, Session};

/// The latest time that a date of HTTP can tell: the last second of the year 9999.
const LAST_SECOND: u64 = 253_402_300_799;

/// Begins the choice of an endpoint; the request is as the client sent it.
pub(super) fn selection<B>(visit: &Visit<'_>, pool: &Arc<Pool>, request: &Request<B>) -> Selection {
    let settings = &visit.route.settings;
    let hash_by = settings.balance.hash_by.as_ref();
    let key = hash_by.map(|hash_by| hash_by.key.render(&RequestFacts::of(visit, request)));
    let affinity = settings.affinity.as_ref().filter(|_| settings.balance.reach == Reach::Endpoints);
    let session = affinity.map(|affinity| {
        let cookie = &affinity.cookie;
        let refused = cookie.same_site_none_by_browser && refuses_same_site_none(request.headers());
        let same_site = cookie.same_site.filter(|same_site| !(refused && *same_site == SameSite::None));
        Session::new(cookie_named(request.headers(), &cookie.name), same_site)
    });
    Selection::new(Arc::clone(pool), Arc::clone(settings)).with_key(key).with_session(session)
}

/// The field that binds the client to the endpoint that answered, where that is new.
pub(super) fn session_cookie(visit: &Visit<'_>, selection: &Selection) -> Option<HeaderValue> {
    let (value, same_site) = selection.session_cookie()?;
    let cookie = &visit.route.settings.affinity.as_ref()?.cookie;
    let location = visit.route.path.as_ref().map_or("/", |(_, path)| path);
    let text = written(cookie, &value, location, visit.origin.scheme, same_site, SystemTime::now());
    HeaderValue::from_str(&text).ok()
}

/// Reads a field `Cookie` as a client may send it, and chooses an endpoint by it in both modes; for fuzzing. Tells whether both
/// found one, which they do whatever comes.
#[must_use]
pub fn fuzz_session(field: &[u8]) -> bool {
    let Ok(value) = HeaderValue::from_bytes(field) else { return true };
    let mut headers = HeaderMap::new();
    headers.insert(COOKIE, value);
    let cookie = cookie_named(&headers, "s");
    [AffinityMode::Balanced, AffinityMode::Persistent].into_iter().all(|mode| Session::finds_endpoint(cookie, mode))
}

fn written(
    cookie: &SessionCookie,
    value: &str,
    location: &str,
    scheme: Scheme,
    same_site: Option<SameSite>,
    now: SystemTime,
) -> String {
    let mut text = format!("{}={value}", cookie.name);
    let mut attribute = |attribute: &str, value: &str| {
        text.push_str("; ");
        text.push_str(attribute);
        text.push_str(value);
    };
    if let Some(seconds) = cookie.expires {
        attribute("Expires=", &httpdate::fmt_http_date(after(now, seconds)));
    }
    if let Some(seconds) = cookie.max_age {
        attribute("Max-Age=", &seconds.to_string());
    }
    if let Some(domain) = &cookie.domain {
        attribute("Domain=", domain);
    }
    attribute("Path=", cookie.path.as_deref().unwrap_or(location));
    if cookie.always_secure || scheme == Scheme::Https {
        attribute("Secure", "");
    }
    attribute("HttpOnly", "");
    if let Some(same_site) = same_site {
        attribute("SameSite=", same_site.as_str());
    }
    text
}

/// A moment within what a date of HTTP can tell.
fn after(now: SystemTime, seconds: i64) -> SystemTime {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    SystemTime::UNIX_EPOCH + Duration::from_secs(since.saturating_add_signed(seconds).min(LAST_SECOND))
}

/// The value of the first cookie of this very name.
pub(crate) fn cookie_named<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h [u8]> {
    let mut pairs = headers.get_all(COOKIE).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b';'));
    pairs.find_map(|pair| pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

/// Browsers that refuse a cookie with SameSite=None, or take it for Strict
/// (<https://www.chromium.org/updates/same-site/incompatible-clients>), as ingress-nginx tells them.
fn refuses_same_site_none(headers: &HeaderMap) -> bool {
    let Some(agent) = headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()) else { return false };
    let has = |text: &str| agent.contains(text);
    ["Chrome/4", "Chrome/5", "Chrome/6", "CPU iPhone OS 12", "iPad; CPU OS 12"].into_iter().any(has)
        || (has("Macintosh") && has("Intel Mac OS X 10_14") && has("Safari") && !has("Chrome"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain() -> SessionCookie {
        SessionCookie {
            name: "INGRESSCOOKIE".to_owned(),
            max_age: None,
            expires: None,
            path: None,
            domain: None,
            always_secure: false,
            same_site: None,
            same_site_none_by_browser: false,
        }
    }

    fn check(cookie: &SessionCookie, scheme: Scheme, expected: &str) {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        assert_eq!(written(cookie, "a|b", "/app", scheme, cookie.same_site, now), expected);
    }

    #[test]
    fn the_cookie_says_what_the_settings_say() {
        check(&plain(), Scheme::Http, "INGRESSCOOKIE=a|b; Path=/app; HttpOnly");
        check(&plain(), Scheme::Https, "INGRESSCOOKIE=a|b; Path=/app; Secure; HttpOnly");
        let full = SessionCookie {
            name: "route".to_owned(),
            max_age: Some(60),
            expires: Some(60),
            path: Some("/x".to_owned()),
            domain: Some("example.com".to_owned()),
            always_secure: true,
            same_site: Some(SameSite::Lax),
            same_site_none_by_browser: false,
        };
        let expected = "route=a|b; Expires=Tue, 14 Nov 2023 22:14:20 GMT; Max-Age=60; Domain=example.com; Path=/x; Secure; \
                        HttpOnly; SameSite=Lax";
        check(&full, Scheme::Http, expected);
    }

    #[test]
    fn no_number_of_seconds_is_too_large_for_a_date() {
        for (seconds, expected) in
            [(i64::MAX, "Fri, 31 Dec 9999 23:59:59 GMT"), (i64::MIN, "Thu, 01 Jan 1970 00:00:00 GMT")]
        {
            check(
                &SessionCookie { expires: Some(seconds), ..plain() },
                Scheme::Http,
                &format!("INGRESSCOOKIE=a|b; Expires={expected}; Path=/app; HttpOnly"),
            );
        }
    }

    #[test]
    fn whatever_the_cookie_says_there_is_an_endpoint() {
        for field in
            ["", "s", "s=", "s=|", "s=x|y", "a=b; s=\u{7f}\u{e9}", "s=ffffffffffffffffffffffffffffffff|", ";;;=;s=;s"]
        {
            assert!(fuzz_session(field.as_bytes()), "{field:?}");
        }
        assert!(fuzz_session(b"s=\xff\xfe|\xfd"));
    }

    #[test]
    fn cookies_are_found_by_their_very_name() {
        let mut headers = HeaderMap::new();
        for value in ["a=1; route2=no; routes", "Route=no;route=yes|b;route=late", "b=2"] {
            headers.append(COOKIE, HeaderValue::from_static(value));
        }
        for (name, expected) in [("route", Some("yes|b")), ("b", Some("2")), ("c", None), ("routes", None)] {
            let found = cookie_named(&headers, name).map(|value| String::from_utf8_lossy(value).into_owned());
            assert_eq!(found.as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn browsers_that_refuse_none_are_known() {
        for (agent, refuses) in [
            ("Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 Chrome/66.0.3359.139 Safari/537.36", true),
            ("Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 Chrome/131.0.0.0 Safari/537.36", false),
            ("Mozilla/5.0 (iPhone; CPU iPhone OS 12_1 like Mac OS X)", true),
            ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_14_6) AppleWebKit/605 Version/12.1 Safari/605.1.15", true),
            ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_14_6) AppleWebKit/537 Chrome/80.0 Safari/537.36", false),
            ("curl/8", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(USER_AGENT, HeaderValue::from_str(agent).unwrap());
            assert_eq!(refuses_same_site_none(&headers), refuses, "{agent}");
        }
        assert!(!refuses_same_site_none(&HeaderMap::new()));
    }
}
