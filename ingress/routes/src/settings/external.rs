//! External authentication: `auth-url` and what belongs to it, as annotations and as the ConfigMap's `global-auth-*`.
//!
//! What the request to the authentication service looks like is decided here; it is sent by the proxy. A Service of the cluster is
//! named by its DNS name, and told apart here, so that no resolver is needed for it.

use std::time::Duration;

use roadstead_model::{BackendPort, ObjectName};

use super::{Guard, Reach, Reader, Wrong, header_name, header_templates, reader::Value, units};
use crate::{Backend, Template};

/// Another service decides who may come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalAuth {
    /// Where it is asked: an absolute `http` or `https` URL once rendered.
    pub url: Template,
    /// The Service, where the URL names one by its name in the cluster.
    pub service: Option<Backend>,
    /// `auth-method`; `None` is GET, and leaves out the two fields that come with a method of one's own.
    pub method: Option<&'static str>,
    /// Where a client without credentials is sent.
    pub signin: Option<Template>,
    /// Fields of its answer that the endpoint gets, in lower case. The client's own of these names never reach the endpoint.
    pub response_headers: Vec<String>,
    /// X-Auth-Request-Redirect, where it is not the request's own path.
    pub request_redirect: Option<Template>,
    /// Further fields of the request.
    pub set_headers: Vec<(String, Template)>,
    /// Whether its cookies go with refusals and errors too.
    pub cookies: Cookies,
    /// How long its answers hold; `None` asks for every request.
    pub cache: Option<AuthCache>,
    /// The connections to it.
    pub keepalive: AuthKeepalive,
}

/// `auth-always-set-cookie`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cookies {
    /// With answers of the statuses that nginx's `add_header` knows.
    #[default]
    Successes,
    /// With all answers.
    Always,
}

/// Answers that are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthCache {
    /// Requests with the same key get the same answer.
    pub key: Template,
    /// Where the question goes and what is read of its answer, as written: another one does not hold for this.
    pub scope: String,
    /// By the answer's status; the first that names it.
    pub durations: Vec<(Statuses, Duration)>,
}

/// Which statuses a duration is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statuses {
    /// These.
    Listed(Vec<u16>),
    /// None was named: nginx means 200, 301 and 302.
    Unnamed,
}

/// `auth-keepalive`, `auth-keepalive-requests`, `auth-keepalive-timeout`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuthKeepalive {
    /// Idle connections that a thread keeps.
    pub connections: u32,
    /// Requests that one connection carries.
    pub requests: u32,
    /// How long an idle one is kept.
    pub timeout: Duration,
}

impl Default for AuthKeepalive {
    /// ingress-nginx keeps none unless it is told to; here a handful saves a handshake a request and costs nothing.
    fn default() -> Self {
        Self { connections: 8, requests: 1000, timeout: Duration::from_secs(60) }
    }
}

/// Those of ingress-nginx but CONNECT, which asks for a tunnel.
const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"];
/// ingress-nginx's auth-cache-duration.
const DEFAULT_DURATION: &str = "200 202 401 5m";

/// The keys of one of the two places where external authentication is asked for.
struct Keys {
    place: Place,
    url: &'static str,
    method: &'static str,
    signin: &'static str,
    redirect_parameter: &'static str,
    response_headers: &'static str,
    request_redirect: &'static str,
    cookies: &'static str,
    cache_key: &'static str,
    cache_duration: &'static str,
}

#[derive(Clone, Copy)]
enum Place {
    Annotations,
    Options,
}

const OWN: Keys = Keys {
    place: Place::Annotations,
    url: "auth-url",
    method: "auth-method",
    signin: "auth-signin",
    redirect_parameter: "auth-signin-redirect-param",
    response_headers: "auth-response-headers",
    request_redirect: "auth-request-redirect",
    cookies: "auth-always-set-cookie",
    cache_key: "auth-cache-key",
    cache_duration: "auth-cache-duration",
};

const GLOBAL: Keys = Keys {
    place: Place::Options,
    url: "global-auth-url",
    method: "global-auth-method",
    signin: "global-auth-signin",
    redirect_parameter: "global-auth-signin-redirect-param",
    response_headers: "global-auth-response-headers",
    request_redirect: "global-auth-request-redirect",
    cookies: "global-auth-always-set-cookie",
    cache_key: "global-auth-cache-key",
    cache_duration: "global-auth-cache-duration",
};

impl ExternalAuth {
    /// An Ingress's own, else the controller's unless `enable-global-auth` is `false`.
    pub(super) fn read(reader: &mut Reader<'_>, base: &Guard<Self>) -> Guard<Self> {
        let global = Self::read_place(reader, &GLOBAL);
        let own = Self::read_place(reader, &OWN);
        let wanted = reader.annotation("enable-global-auth").boolean().unwrap_or(true);
        if !own.is_unset() {
            return own;
        }
        if !global.is_unset() {
            return global;
        }
        if wanted { base.clone() } else { Guard::Unset }
    }

    fn read_place(reader: &mut Reader<'_>, keys: &Keys) -> Guard<Self> {
        match Self::try_read(reader, keys) {
            Ok(None) => Guard::Unset,
            Ok(Some(auth)) => Guard::Set(auth),
            // What is wrong has been told of the key that it stands under.
            Err(Wrong) => Guard::Wrong,
        }
    }

    fn try_read(reader: &mut Reader<'_>, keys: &Keys) -> Result<Option<Self>, Wrong> {
        let target = keys.value(reader, keys.url).closing().strict("an http or https URL with known variables", url);
        let method = keys
            .value(reader, keys.method)
            .closing()
            .strict("a method", |text| METHODS.iter().find(|method| **method == text).copied());
        let response_headers = keys.value(reader, keys.response_headers).closing().strict("names of headers", |text| {
            text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(header_name).collect::<Option<Vec<_>>>()
        });
        let parameter = keys.value(reader, keys.redirect_parameter).parse("a parameter's name", |text| {
            text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)).then_some(text)
        });
        let signin = keys.value(reader, keys.signin).parse("a URL with known variables", |text| {
            let (template, _) = url(text)?;
            signin(text, parameter.unwrap_or("rd")).or(Some(template))
        });
        let request_redirect = keys.value(reader, keys.request_redirect).template().ok().flatten();
        let cookies = keys.value(reader, keys.cookies).boolean().unwrap_or_default();
        let cache = keys.cache(reader);
        let (set_headers, keepalive) = match keys.place {
            Place::Annotations => (own_headers(reader), keepalive(reader)),
            Place::Options => (Ok(Vec::new()), AuthKeepalive::default()),
        };
        let Some((url, service)) = target? else { return Ok(None) };
        Ok(Some(Self {
            url,
            service,
            method: method?,
            signin,
            response_headers: response_headers?.unwrap_or_default(),
            request_redirect,
            set_headers: set_headers?,
            cookies: if cookies { Cookies::Always } else { Cookies::Successes },
            cache,
            keepalive,
        }))
    }
}

impl Keys {
    fn value<'r, 'a>(&self, reader: &'r mut Reader<'a>, key: &'static str) -> Value<'r, 'a> {
        match self.place {
            Place::Annotations => reader.annotation(key),
            Place::Options => reader.option(key),
        }
    }

    fn cache(&self, reader: &mut Reader<'_>) -> Option<AuthCache> {
        let what = "durations such as 200 202 401 5m";
        let scope = [self.url, self.method, self.response_headers]
            .map(|key| self.value(reader, key).text().unwrap_or_default());
        let given = self.value(reader, self.cache_duration).parse(what, durations);
        let key = self.value(reader, self.cache_key).template().ok().flatten()?;
        Some(AuthCache {
            key,
            scope: scope.join("\n"),
            durations: given.or_else(|| durations(DEFAULT_DURATION)).unwrap_or_default(),
        })
    }
}

fn own_headers(reader: &mut Reader<'_>) -> Result<Vec<(String, Template)>, Wrong> {
    let Some(config_map) = reader.config_map("auth-proxy-set-headers")? else { return Ok(Vec::new()) };
    header_templates(&config_map.data).map_err(|reason| {
        reader.complain(
            "auth-proxy-set-headers",
            format!("ConfigMap {}: {reason}; requests get 503", config_map.meta.name),
        );
        Wrong
    })
}

fn keepalive(reader: &mut Reader<'_>) -> AuthKeepalive {
    let default = AuthKeepalive::default();
    if reader.annotation("auth-keepalive-share-vars").boolean() == Some(true) {
        reader.complain("auth-keepalive-share-vars", "has no effect: there are no variables to share");
    }
    AuthKeepalive {
        connections: reader.annotation("auth-keepalive").number(0).unwrap_or(default.connections),
        requests: reader.annotation("auth-keepalive-requests").number(1).unwrap_or(default.requests),
        timeout: reader.annotation("auth-keepalive-timeout").duration().unwrap_or(default.timeout),
    }
}

/// An absolute URL, and the Service of the cluster that it names.
fn url(text: &str) -> Option<(Template, Option<Backend>)> {
    let (default_port, rest) = match (text.strip_prefix("http://"), text.strip_prefix("https://")) {
        (Some(rest), _) => (80, rest),
        (_, Some(rest)) => (443, rest),
        _ => return None,
    };
    let authority = rest.split(['/', '?', '#']).next().filter(|authority| !authority.is_empty())?;
    if text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '#') || authority.contains('@') {
        return None;
    }
    Some((Template::parse(text).ok()?, service(authority, default_port)))
}

/// `name.namespace.svc` with or without `cluster.local` behind it.
fn service(authority: &str, default_port: u16) -> Option<Backend> {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok()?),
        None => (authority, default_port),
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    let name = host.strip_suffix(".svc.cluster.local").or_else(|| host.strip_suffix(".svc"))?;
    let (name, namespace) = name.split_once('.').filter(|(_, namespace)| !namespace.contains('.'))?;
    let service: ObjectName = units::object(name, namespace).filter(|object| !object.name.is_empty())?;
    Some(Backend { service, port: BackendPort::Number(port.try_into().ok()?), reach: Reach::Endpoints })
}

/// The sign-in page's URL with the way back in it, unless it has that already.
fn signin(text: &str, parameter: &str) -> Option<Template> {
    let query = text.split_once('?').map(|(_, query)| query).filter(|query| !query.is_empty());
    let has = |query: &str| {
        query
            .split('&')
            .any(|pair| pair.split_once('=').is_some_and(|(name, value)| name == parameter && !value.is_empty()))
    };
    let back = format!("{parameter}=$pass_access_scheme://$http_host$escaped_request_uri");
    match query {
        Some(query) if has(query) => Template::parse(text).ok(),
        Some(_) => Template::parse(&format!("{text}&{back}")).ok(),
        None => Template::parse(&format!("{}?{back}", text.strip_suffix('?').unwrap_or(text))).ok(),
    }
}

/// `200 202 401 5m, 403 1m`: codes with the time that their answers hold.
fn durations(text: &str) -> Option<Vec<(Statuses, Duration)>> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(duration).collect()
}

fn duration(text: &str) -> Option<(Statuses, Duration)> {
    let mut words: Vec<&str> = text.split_whitespace().collect();
    let time = units::duration(words.pop()?)?;
    let codes = words.iter().map(|word| word.parse().ok().filter(|code| (100..600).contains(code)));
    let codes: Vec<u16> = codes.collect::<Option<_>>()?;
    Some((if codes.is_empty() { Statuses::Unnamed } else { Statuses::Listed(codes) }, time))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    fn read(annotations: &[(&str, &str)], reported: usize) -> Guard<ExternalAuth> {
        let ingress = fixture::annotated("default/web", annotations);
        let mut problems = Vec::new();
        let mut reader = Reader::of_ingress(&ingress, &mut problems);
        let auth = ExternalAuth::read(&mut reader, &Guard::Unset);
        reader.finish();
        assert_eq!(problems.len(), reported, "{annotations:?} {problems:?}");
        auth
    }

    #[test]
    fn urls_name_services_or_hosts() {
        for (text, expected) in [
            ("http://auth.prod.svc.cluster.local/check", Some(Some(("prod", "auth", 80)))),
            ("http://auth.prod.svc:4180/oauth2/auth?x=$request_uri", Some(Some(("prod", "auth", 4180)))),
            ("https://auth.prod.svc.cluster.local.", Some(Some(("prod", "auth", 443)))),
            ("https://auth.example.com/", Some(None)),
            ("https://$host/oauth2/auth", Some(None)),
            ("http://10.0.0.1:8080", Some(None)),
            ("http://a.b.prod.svc", Some(None)),
            ("ftp://auth.example.com", None),
            ("auth.example.com", None),
            ("http://", None),
            ("http:///x", None),
            ("http://user@host/", None),
            ("http://host/a b", None),
            ("http://host/$unknown_thing", None),
        ] {
            let expected = expected.map(|service| {
                service.map(|(namespace, name, port)| Backend {
                    service: ObjectName::new(namespace, name),
                    port: fixture::port(port),
                    reach: Reach::Endpoints,
                })
            });
            assert_eq!(url(text).map(|(_, service)| service), expected, "{text}");
        }
    }

    #[test]
    fn the_way_back_is_added_once() {
        let back = "$pass_access_scheme://$http_host$escaped_request_uri";
        for (text, parameter, expected) in [
            ("https://$host/start", "rd", format!("https://$host/start?rd={back}")),
            ("https://$host/start?", "rd", format!("https://$host/start?rd={back}")),
            ("https://a.example/s?x=1", "rd", format!("https://a.example/s?x=1&rd={back}")),
            ("https://a.example/s?rd=$escaped_request_uri", "rd", "https://a.example/s?rd=$escaped_request_uri".into()),
            ("https://a.example/s?rd=", "rd", format!("https://a.example/s?rd=&rd={back}")),
            ("https://a.example/s?rd=x", "next", format!("https://a.example/s?rd=x&next={back}")),
        ] {
            assert_eq!(signin(text, parameter), Template::parse(&expected).ok(), "{text}");
        }
    }

    #[test]
    fn durations_are_nginx_s() {
        let minutes = |count: u64| Duration::from_secs(count * 60);
        let listed = |codes: &[u16]| Statuses::Listed(codes.to_vec());
        for (text, expected) in [
            ("200 202 401 5m", Some(vec![(listed(&[200, 202, 401]), minutes(5))])),
            ("200 1m, 401 2m", Some(vec![(listed(&[200]), minutes(1)), (listed(&[401]), minutes(2))])),
            ("10m", Some(vec![(Statuses::Unnamed, minutes(10))])),
            ("200", Some(vec![(Statuses::Unnamed, Duration::from_secs(200))])),
            ("5m 200", None),
            ("999 5m", None),
            ("200 x", None),
        ] {
            assert_eq!(durations(text), expected, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_honoured_closes_and_the_rest_falls_back() {
        assert_eq!(read(&[], 0), Guard::Unset);
        assert_eq!(read(&[("auth-url", "nonsense")], 1), Guard::Wrong);
        let url = ("auth-url", "http://auth.example/");
        assert_eq!(read(&[url, ("auth-method", "FETCH")], 1), Guard::Wrong);
        assert_eq!(read(&[url, ("auth-response-headers", "X-User, a b")], 1), Guard::Wrong);
        assert_eq!(read(&[url, ("auth-proxy-set-headers", "gone")], 1), Guard::Wrong);
        let Guard::Set(plain) = read(&[url], 0) else { panic!("it is good") };
        assert_eq!(
            (plain.method, &plain.signin, plain.cookies, &plain.cache),
            (None, &None, Cookies::Successes, &None)
        );
        let all = [
            url,
            ("auth-method", "POST"),
            ("auth-signin", "https://$host/start"),
            ("auth-response-headers", "X-User, X-Email"),
            ("auth-always-set-cookie", "true"),
            ("auth-cache-key", "$cookie_session"),
            ("auth-cache-duration", "never"),
            ("auth-keepalive", "2"),
            ("auth-keepalive-timeout", "5"),
            ("auth-snippet", "proxy_set_header X 1;"),
        ];
        let Guard::Set(auth) = read(&all, 2) else { panic!("it is good") };
        assert_eq!((auth.method, auth.cookies), (Some("POST"), Cookies::Always));
        assert_eq!(auth.response_headers, ["x-user", "x-email"]);
        assert_eq!(auth.cache.map(|cache| cache.durations), durations(DEFAULT_DURATION));
        assert_eq!((auth.keepalive.connections, auth.keepalive.timeout), (2, Duration::from_secs(5)));
    }
}
