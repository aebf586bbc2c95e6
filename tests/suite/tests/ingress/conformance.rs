//! The 30 scenarios of ingress-controller-conformance, each as a row. Its background, a status that shows the address, is
//! asked of every feature; in place of pods of a cluster there are servers on this host.

use std::collections::BTreeSet;

use rcgen::generate_simple_self_signed;

use super::{
    client::{Answer, ask, ask_on, get, tls},
    daemon::{Proxy, wait_until},
    manifests::{secret, service},
    pod::{Pod, host_address},
};

/// What the status must show.
const PUBLISHED: &str = "192.0.2.10";

/// Who serves a request; `None` is 404.
type Served = Option<&'static str>;

const DEFAULT_BACKEND: [(&str, &str, &str); 6] = [
    ("GET", "my-host", "/"),
    ("GET", "my-host", "/sub-path"),
    ("POST", "some-host", "/"),
    ("PUT", "", "/resource"),
    ("DELETE", "some-host", "/resource"),
    ("PATCH", "my-host", "/resource"),
];

const HOST_RULES: [(&str, &str, Served); 6] = [
    ("https", "foo.bar.com", Some("foo-bar-com")),
    ("http", "foo.bar.com", Some("foo-bar-com")),
    ("http", "subdomain.bar.com", None),
    ("http", "bar.foo.com", Some("wildcard-foo-com")),
    ("http", "baz.bar.foo.com", None),
    ("http", "foo.com", None),
];

const PATH_RULES: [(&str, &str, Served); 16] = [
    ("exact-path-rules", "/foo", Some("foo-exact")),
    ("exact-path-rules", "/foo/", None),
    ("exact-path-rules", "/FOO", None),
    ("exact-path-rules", "/bar", None),
    ("prefix-path-rules", "/foo", Some("foo-prefix")),
    ("prefix-path-rules", "/foo/", Some("foo-prefix")),
    ("prefix-path-rules", "/FOO", None),
    ("prefix-path-rules", "/aaa/bbb", Some("aaa-slash-bbb-prefix")),
    ("prefix-path-rules", "/aaa/bbb/ccc", Some("aaa-slash-bbb-prefix")),
    ("prefix-path-rules", "/aaa/ccc", Some("aaa-prefix")),
    ("prefix-path-rules", "/aaaccc", None),
    ("prefix-path-rules", "/foo/", Some("foo-prefix")),
    ("mixed-path-rules", "/foo", Some("foo-exact")),
    ("trailing-slash-path-rules", "/aaa/bbb", Some("aaa-slash-bbb-slash-prefix")),
    ("trailing-slash-path-rules", "/aaa/bbb/", Some("aaa-slash-bbb-slash-prefix")),
    ("trailing-slash-path-rules", "/foo", None),
];

/// The daemon on a feature's Ingress and Services, each with one pod of its name.
fn start(ingress: &str, services: &[&str], more: &str) -> Option<(Proxy, Vec<Pod>)> {
    let ip = host_address()?;
    let pods: Vec<Pod> = services.iter().map(|name| Pod::start(ip, name)).collect();
    let mut text: String = services.iter().zip(&pods).map(|(name, pod)| service(name, &[pod])).collect();
    text.push_str(more);
    let proxy = Proxy::with(&["--publish-address", PUBLISHED], &[("services.yaml", &text), ("ingress.yaml", ingress)]);
    let shown = || proxy.status().contains(PUBLISHED);
    wait_until("the status shows the address", shown);
    Some((proxy, pods))
}

fn check(answer: &Answer, case: &str, served: Served) {
    match served {
        None => assert_eq!(answer.status, 404, "{case}"),
        Some(service) => {
            assert_eq!((answer.status, &*answer.version), (200, "HTTP/1.1"), "{case}");
            assert_eq!(answer.seen().pod, service, "{case}");
        }
    }
}

#[test]
fn default_backend() {
    let Some((proxy, _pods)) = start(include_str!("manifests/default-backend.yaml"), &["echo-service"], "") else {
        return;
    };
    let bare = proxy.http.ip().to_string();
    for (method, host, path) in DEFAULT_BACKEND {
        let host = if host.is_empty() { &bare } else { host };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: Go-http-client/1.1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        let answer = ask(proxy.http, request);
        let case = format!("{method} {host} {path}");
        check(&answer, &case, Some("echo-service"));
        for name in ["content-length", "content-type", "date", "server"] {
            assert!(answer.field(name).is_some_and(|value| !value.is_empty()), "{name} of {case}");
        }
        let seen = answer.seen();
        let line = (&*seen.method, &*seen.target, &*seen.version);
        assert_eq!(line, (method, path, "HTTP/1.1"), "{case}");
        assert_eq!(seen.field("user-agent").as_deref(), Some("Go-http-client/1.1"), "{case}");
    }
    println!("{} scenarios hold", DEFAULT_BACKEND.len());
}

#[test]
fn host_rules() {
    let pair = generate_simple_self_signed(vec!["foo.bar.com".to_owned()]).unwrap();
    let tls_secret = secret("conformance-tls", &pair.cert.pem(), &pair.signing_key.serialize_pem());
    let services = ["wildcard-foo-com", "foo-bar-com"];
    let Some((proxy, _pods)) = start(include_str!("manifests/host-rules.yaml"), &services, &tls_secret) else {
        return;
    };
    let over_tls = |host: &str, target: &str| {
        let stream = tls(proxy.https, host, pair.cert.der()).expect("the certificate is the host's");
        ask_on(stream, get(host, target).as_bytes())
    };
    for (scheme, host, served) in HOST_RULES {
        let case = format!("{scheme}://{host}");
        let mut answer = if scheme == "https" { over_tls(host, "/") } else { ask(proxy.http, get(host, "/")) };
        // The suite's client follows redirects.
        if answer.status == 308 {
            let location = answer.field("location").unwrap();
            assert_eq!(location, format!("https://{host}/"), "{case}");
            answer = over_tls(host, "/");
        }
        check(&answer, &case, served);
        if served.is_some() {
            assert_eq!(answer.seen().field("host").as_deref(), Some(host), "{case}");
        }
    }
    println!("{} scenarios hold", HOST_RULES.len());
}

#[test]
fn ingress_class() {
    let Some((proxy, _pods)) = start(include_str!("manifests/ingress-class.yaml"), &["ingress-class-prefix"], "")
    else {
        return;
    };
    let status = proxy.status();
    assert!(status.contains("known-class"), "ours has one: {status}");
    assert!(!status.contains("unknown-class"), "{status}");
    assert_eq!(ask(proxy.http, get("any.example", "/")).status, 404, "it is not served either");
    println!("1 scenario holds");
}

#[test]
fn load_balancing() {
    let Some(ip) = host_address() else { return };
    let pods: Vec<Pod> = (0..10).map(|index| Pod::start(ip, &format!("echo-{index}"))).collect();
    let all: Vec<&Pod> = pods.iter().collect();
    let ingress = include_str!("manifests/load-balancing.yaml");
    let flags = ["--publish-address", PUBLISHED];
    let proxy = Proxy::with(&flags, &[("services.yaml", &service("echo-service", &all)), ("ingress.yaml", ingress)]);
    let seen: BTreeSet<String> = (0..100)
        .map(|_| {
            let answer = ask(proxy.http, get("load-balancing", "/"));
            assert_eq!(answer.status, 200);
            answer.seen().pod
        })
        .collect();
    assert_eq!(seen.len(), pods.len(), "100 requests reach all: {seen:?}");
    println!("1 scenario holds");
}

#[test]
fn path_rules() {
    let services: BTreeSet<&str> = PATH_RULES.iter().filter_map(|(.., served)| *served).collect();
    let services: Vec<&str> = services.into_iter().chain(["foo-slash-exact"]).collect();
    let Some((proxy, _pods)) = start(include_str!("manifests/path-rules.yaml"), &services, "") else { return };
    for (host, path, served) in PATH_RULES {
        let answer = ask(proxy.http, get(host, path));
        check(&answer, &format!("{host} {path}"), served);
        if served.is_some() {
            assert_eq!(answer.seen().target, path);
        }
    }
    println!("{} scenarios hold", PATH_RULES.len());
}
