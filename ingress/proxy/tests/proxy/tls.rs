//! Certificates by SNI, redirects, HTTP/2, and Secrets that are no pair.

use http_body_util::{BodyExt, Empty};
use hyper::{Request, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use roadstead_model::Snapshot;

use crate::{
    client::{exchange, exchange_on, get, status, tls},
    endpoint::TestEndpoint,
    objects::{empty, ingress, secret, service},
    proxy::Proxy,
};

fn pair(host: &str) -> CertifiedKey<KeyPair> {
    generate_simple_self_signed(vec![host.to_owned()]).unwrap()
}

fn add_pair(snapshot: &mut Snapshot, name: &str, pair: &CertifiedKey<KeyPair>) {
    secret(snapshot, name, &pair.cert.pem(), &pair.signing_key.serialize_pem());
}

#[tokio::test]
async fn each_host_has_its_certificate() {
    let web = TestEndpoint::start("web").await;
    let (a, b) = (pair("a.example"), pair("*.b.example"));
    let mut snapshot = empty();
    service(&mut snapshot, "web", &[web.address]);
    add_pair(&mut snapshot, "a", &a);
    add_pair(&mut snapshot, "b", &b);
    let paths = [("a.example", "/", "web"), ("*.b.example", "/", "web")];
    ingress(&mut snapshot, "all", &paths, &[("a.example", "a"), ("*.b.example", "b")]);
    let proxy = Proxy::start(snapshot);
    for (host, pair) in [("a.example", &a), ("www.b.example", &b)] {
        let stream = tls(proxy.https, host, pair.cert.der(), "http/1.1").await.unwrap();
        let answer = exchange_on(stream, get(host, "/x").as_bytes()).await;
        for expected in ["endpoint=web", "x-forwarded-proto: https", "strict-transport-security: max-age=31536000"] {
            assert!(answer.contains(expected), "{expected} of {host}: {answer}");
        }
    }
    let other = tls(proxy.https, "a.example", b.cert.der(), "http/1.1").await;
    assert!(other.is_err(), "a.example must not be served with the certificate of b.example");
}

#[tokio::test]
async fn tls_hosts_redirect_and_challenges_do_not() {
    let web = TestEndpoint::start("web").await;
    let mut snapshot = empty();
    service(&mut snapshot, "web", &[web.address]);
    ingress(&mut snapshot, "web", &[("a.example", "/", "web")], &[("a.example", "missing")]);
    let proxy = Proxy::start(snapshot);
    let answer = exchange(proxy.http, get("a.example:8080", "/x?y=z")).await;
    assert_eq!(status(&answer), 308);
    assert!(answer.contains("\r\nlocation: https://a.example/x?y=z\r\n"), "{answer}");
    let answer = exchange(proxy.http, get("a.example", "/.well-known/acme-challenge/t")).await;
    assert_eq!(status(&answer), 200, "{answer}");
}

/// Not even by a wildcard's certificate; and a promise of TLS is worth nothing where the certificate is no good.
#[tokio::test]
async fn a_host_without_its_secret_is_served_by_the_default_certificate() {
    let web = TestEndpoint::start("web").await;
    let wildcard = pair("*.b.example");
    let mut snapshot = empty();
    service(&mut snapshot, "web", &[web.address]);
    add_pair(&mut snapshot, "all", &wildcard);
    let tls_hosts = [("*.b.example", "all"), ("x.b.example", "missing")];
    ingress(&mut snapshot, "web", &[("x.b.example", "/", "web"), ("y.b.example", "/", "web")], &tls_hosts);
    let proxy = Proxy::start(snapshot);
    let ask = async |name: &str, host: &str| {
        let stream = tls(proxy.https, name, wildcard.cert.der(), "http/1.1").await?;
        std::io::Result::Ok(exchange_on(stream, get(host, "/").as_bytes()).await)
    };
    assert!(ask("x.b.example", "x.b.example").await.is_err(), "it has the default certificate");
    let hsts = "strict-transport-security";
    assert!(ask("y.b.example", "y.b.example").await.unwrap().contains(hsts));
    let answer = ask("y.b.example", "x.b.example").await.unwrap();
    assert!(answer.contains("endpoint=web") && !answer.contains(hsts), "{answer}");
}

#[tokio::test]
async fn http2_is_served() {
    let web = TestEndpoint::start("web").await;
    let a = pair("a.example");
    let mut snapshot = empty();
    service(&mut snapshot, "web", &[web.address]);
    add_pair(&mut snapshot, "a", &a);
    ingress(&mut snapshot, "web", &[("a.example", "/", "web")], &[("a.example", "a")]);
    let proxy = Proxy::start(snapshot);
    let stream = tls(proxy.https, "a.example", a.cert.der(), "h2").await.unwrap();
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let driver = tokio::spawn(connection);
    for _ in 0..3 {
        let request = Request::get("https://a.example/h2").header("cookie", "a=b").header("cookie", "c=d");
        let response = sender.send_request(request.body(Empty::<bytes::Bytes>::new()).unwrap()).await.unwrap();
        assert_eq!(response.version(), hyper::Version::HTTP_2);
        let body = String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap();
        for expected in ["GET /h2\n", "host: a.example\n", "cookie: a=b; c=d\n"] {
            assert!(body.contains(expected), "{expected:?} in {body}");
        }
    }
    assert_eq!(web.connections(), 1);
    let mismatch = Request::get("https://a.example/").header("host", "other.example");
    let response = sender.send_request(mismatch.body(Empty::new()).unwrap()).await.unwrap();
    assert_eq!(response.status(), 400);
    drop(sender);
    driver.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_broken_secret_keeps_the_last_good_pair_and_harms_nobody_else() {
    let web = TestEndpoint::start("web").await;
    let (a, b) = (pair("a.example"), pair("b.example"));
    let mut snapshot = empty();
    service(&mut snapshot, "web", &[web.address]);
    add_pair(&mut snapshot, "a", &a);
    add_pair(&mut snapshot, "b", &b);
    let paths = [("a.example", "/", "web"), ("b.example", "/", "web"), ("c.example", "/", "web")];
    ingress(&mut snapshot, "all", &paths, &[("a.example", "a"), ("b.example", "b"), ("c.example", "never")]);
    let mut proxy = Proxy::start(snapshot.clone());
    let errors = "roadstead_ingress_config_problems{severity=\"error\"}";
    assert_eq!(proxy.metric(errors).as_deref(), Some("1"), "the missing secret of c.example");
    let works = async |proxy: &Proxy, host: &str, pair: &CertifiedKey<KeyPair>| {
        tls(proxy.https, host, pair.cert.der(), "http/1.1").await.is_ok()
    };
    for (certificate, key) in [
        (a.cert.pem(), b.signing_key.serialize_pem()),
        ("no certificate".to_owned(), a.signing_key.serialize_pem()),
        (a.cert.pem(), "no key".to_owned()),
    ] {
        secret(&mut snapshot, "a", &certificate, &key);
        proxy.apply(&snapshot);
        assert_eq!(proxy.metric(errors).as_deref(), Some("2"), "{certificate} {key}");
        assert!(works(&proxy, "a.example", &a).await, "the last good pair is kept");
        assert!(works(&proxy, "b.example", &b).await);
    }
    let renewed = pair("a.example");
    add_pair(&mut snapshot, "a", &renewed);
    proxy.apply(&snapshot);
    assert!(works(&proxy, "a.example", &renewed).await);
    assert_eq!(proxy.metric(errors).as_deref(), Some("1"));
}
