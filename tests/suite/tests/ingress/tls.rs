//! TLS from files: which certificate a name gets, redirects to https, and certificates that are replaced under open
//! connections (reference 2.1, 2.2(4)).

use std::io::{BufReader, Write as _};

use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};

use super::{
    client::{Answer, ask, ask_on, get, tls},
    daemon::{Proxy, wait_until},
    manifests::{annotated, ingress, secret, service},
    pod::{Pod, host_address},
};

fn pair(names: &[&str]) -> CertifiedKey<KeyPair> {
    generate_simple_self_signed(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap()
}

fn stored(name: &str, pair: &CertifiedKey<KeyPair>) -> String {
    secret(name, &pair.cert.pem(), &pair.signing_key.serialize_pem())
}

/// `spec.tls` for these hosts and Secrets, to stand behind an Ingress.
fn entries(entries: &[(&str, &str)]) -> String {
    let entries: Vec<String> =
        entries.iter().map(|(host, secret)| format!("{{ hosts: [{host:?}], secretName: {secret} }}")).collect();
    format!("  tls: [{}]\n", entries.join(", "))
}

#[test]
fn every_name_gets_its_certificate() {
    let Some(ip) = host_address() else { return };
    let pod = Pod::start(ip, "web");
    let (exact, wild) = (pair(&["a.example"]), pair(&["*.b.example", "a.example", "x.y.b.example", "b.example"]));
    let paths = [("Prefix", "/", "web")];
    let text = [
        service("web", &[&pod]),
        ingress("exact", "a.example", &paths),
        entries(&[("a.example", "exact")]),
        ingress("wild", "*.b.example", &paths),
        entries(&[("*.b.example", "wild")]),
        stored("exact", &exact),
        stored("wild", &wild),
    ]
    .concat();
    let proxy = Proxy::start(&[("all.yaml", &text)]);
    let gets = |name: &str, pair: &CertifiedKey<KeyPair>| tls(proxy.https, name, pair.cert.der()).is_ok();
    // Exact before wildcard, which covers one label; nobody else's certificate is shown for other names.
    for (name, has_exact, has_wild) in [
        ("a.example", true, false),
        ("x.b.example", false, true),
        ("x.y.b.example", false, false),
        ("b.example", false, false),
    ] {
        assert_eq!((gets(name, &exact), gets(name, &wild)), (has_exact, has_wild), "{name}");
    }
    for (host, pair) in [("a.example", &exact), ("x.b.example", &wild)] {
        let answer = ask_on(tls(proxy.https, host, pair.cert.der()).unwrap(), get(host, "/").as_bytes());
        assert_eq!((answer.status, answer.seen().field("x-forwarded-proto").as_deref()), (200, Some("https")));
    }
}

/// 308 where the host is a TLS host, without the port; the challenge of ACME is exempt.
#[test]
fn tls_hosts_are_redirected_to() {
    let Some(ip) = host_address() else { return };
    let pod = Pod::start(ip, "web");
    let paths = [("Prefix", "/", "web")];
    let text = [
        service("web", &[&pod]),
        ingress("tls", "tls.example", &paths),
        "  tls: [{ hosts: [tls.example] }]\n".to_owned(),
        annotated("off", "off.example", &paths, &[("nginx.ingress.kubernetes.io/ssl-redirect", "false")]),
        "  tls: [{ hosts: [off.example] }]\n".to_owned(),
        ingress("plain", "plain.example", &paths),
    ]
    .concat();
    let proxy = Proxy::start(&[("all.yaml", &text)]);
    for (method, host, target, expected) in [
        ("GET", "tls.example", "/x?y=%20z", Some("https://tls.example/x?y=%20z")),
        ("POST", "tls.example:8080", "/", Some("https://tls.example/")),
        ("GET", "TLS.Example.", "/", Some("https://tls.example/")),
        ("GET", "tls.example", "/.well-known/acme-challenge/token", None),
        ("GET", "tls.example", "/.well-known/acme-challenger", Some("https://tls.example/.well-known/acme-challenger")),
        ("GET", "off.example", "/", None),
        ("GET", "plain.example", "/", None),
    ] {
        let request = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n");
        let answer = ask(proxy.http, request);
        let status = if expected.is_some() { 308 } else { 200 };
        assert_eq!(
            (answer.status, answer.field("location").as_deref()),
            (status, expected),
            "{method} {host} {target}"
        );
    }
}

/// A Secret is replaced, and replaced by what is no pair, while a connection with the first certificate is open.
#[test]
fn certificates_are_replaced_under_open_connections() {
    let Some(ip) = host_address() else { return };
    let pod = Pod::start(ip, "web");
    let (first, second) = (pair(&["a.example"]), pair(&["a.example"]));
    let ingress = [ingress("web", "a.example", &[("Prefix", "/", "web")]), entries(&[("a.example", "pair")])].concat();
    let proxy = Proxy::start(&[
        ("ingress.yaml", &[service("web", &[&pod]), ingress].concat()),
        ("secret.yaml", &stored("pair", &first)),
    ]);
    let mut open = BufReader::new(tls(proxy.https, "a.example", first.cert.der()).unwrap());
    let mut still_serves = || {
        open.get_mut().write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").unwrap();
        assert_eq!(Answer::read(&mut open).unwrap().unwrap().status, 200);
    };
    let gets = |pair: &CertifiedKey<KeyPair>| tls(proxy.https, "a.example", pair.cert.der()).is_ok();
    still_serves();
    proxy.write("secret.yaml", &stored("pair", &second));
    wait_until("the second certificate is shown", || gets(&second));
    assert!(!gets(&first));
    still_serves();
    // The key of another certificate: the last good pair stays.
    proxy.write("secret.yaml", &secret("pair", &first.cert.pem(), &second.signing_key.serialize_pem()));
    wait_until("the bad pair is told of", || proxy.log().contains("default/pair"));
    assert!(gets(&second), "the last good pair stays");
    still_serves();
    proxy.write("secret.yaml", &stored("pair", &first));
    wait_until("the first certificate is shown again", || gets(&first));
    still_serves();
}
