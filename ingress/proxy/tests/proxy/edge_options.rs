//! The ConfigMap's options for connections, the default certificate, and what a client does wrong before it speaks HTTP.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{Request, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use roadstead_model::{ObjectName, Snapshot};
use roadstead_proxy::edge::EdgeFlags;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    DEADLINE,
    client::{exchange, exchange_on, get, read_until, status, tls},
    endpoint::TestEndpoint,
    objects::{empty, ingress, options, secret, service},
    proxy::{Proxy, Setup},
};

const WARNINGS: &str = "roadstead_ingress_config_problems{severity=\"warning\"}";
const KEPT: &str = "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";

fn pair(host: &str) -> CertifiedKey<KeyPair> {
    generate_simple_self_signed(vec![host.to_owned()]).unwrap()
}

fn add_pair(snapshot: &mut Snapshot, name: &str, pair: &CertifiedKey<KeyPair>) {
    secret(snapshot, name, &pair.cert.pem(), &pair.signing_key.serialize_pem());
}

/// One host with a certificate, and these options.
async fn start(data: &[(&str, &str)]) -> (TestEndpoint, CertifiedKey<KeyPair>, Snapshot, Proxy) {
    let (web, own) = (TestEndpoint::start("web").await, pair("a.example"));
    let mut snapshot = empty();
    service(&mut snapshot, "web", &[web.address]);
    add_pair(&mut snapshot, "own", &own);
    ingress(&mut snapshot, "web", &[("a.example", "/", "web")], &[("a.example", "own")]);
    ingress(&mut snapshot, "plain", &[("b.example", "/", "web")], &[]);
    options(&mut snapshot, data);
    let proxy = Proxy::start(snapshot.clone());
    (web, own, snapshot, proxy)
}

/// Reads until the proxy closes.
async fn rest(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut all = Vec::new();
    let _ = timeout(DEADLINE, stream.read_to_end(&mut all)).await.expect("it is closed in time");
    String::from_utf8_lossy(&all).into_owned()
}

const PLAIN: &str = "GET / HTTP/1.1\r\nHost: b.example\r\n\r\n";

#[tokio::test]
async fn a_connection_brings_so_many_requests() {
    let (_web, _, mut snapshot, mut proxy) = start(&[("keep-alive-requests", "3")]).await;
    let answer = exchange(proxy.http, PLAIN.repeat(5)).await;
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 3, "{answer}");
    assert_eq!(answer.matches("connection: close").count(), 1, "{answer}");
    // HTTP/2 is told by GOAWAY, and what has come by then is answered.
    let stream = TcpStream::connect(proxy.http).await.unwrap();
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let driver = tokio::spawn(connection);
    let mut answered = 0;
    while answered < 50 && sender.ready().await.is_ok() {
        let request = Request::get("http://b.example/").body(Empty::<Bytes>::new()).unwrap();
        let Ok(response) = sender.send_request(request).await else { break };
        assert_eq!(response.status(), 200);
        let _ = response.into_body().collect().await;
        answered += 1;
    }
    assert!((3..10).contains(&answered), "{answered}");
    timeout(DEADLINE, driver).await.expect("it ends in time").unwrap().unwrap();
    options(&mut snapshot, &[("keep-alive-requests", "none")]);
    proxy.apply(&snapshot);
    let close = get("b.example", "/");
    let answer = exchange(proxy.http, format!("{}{close}", PLAIN.repeat(5))).await;
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 6, "{answer}");
    assert_eq!(proxy.metric(WARNINGS).as_deref(), Some("1"));
}

#[tokio::test]
async fn an_idle_connection_is_kept_for_so_long() {
    let (_web, _, mut snapshot, mut proxy) = start(&[("keep-alive", "2s")]).await;
    let mut stream = TcpStream::connect(proxy.http).await.unwrap();
    stream.write_all(PLAIN.as_bytes()).await.unwrap();
    assert_eq!(status(&read_until(&mut stream, "body=").await), 200);
    rest(&mut stream).await;
    options(&mut snapshot, &[("keep-alive", "0")]);
    proxy.apply(&snapshot);
    let answer = exchange(proxy.http, PLAIN.repeat(2)).await;
    assert!(answer.matches("HTTP/1.1 ").count() == 1 && answer.contains("connection: close"), "{answer}");
}

#[tokio::test]
async fn slow_heads_and_bodies_have_their_time() {
    let (web, _, mut snapshot, mut proxy) =
        start(&[("client-header-timeout", "200ms"), ("client-body-timeout", "200ms")]).await;
    let slow = async |proxy: &Proxy, start: &str| {
        let mut stream = TcpStream::connect(proxy.http).await.unwrap();
        stream.write_all(start.as_bytes()).await.unwrap();
        rest(&mut stream).await
    };
    assert_eq!(status(&slow(&proxy, "GET / HTTP/1.1\r\nHost: b").await), 408);
    let post = "POST / HTTP/1.1\r\nHost: b.example\r\n";
    for body in ["Content-Length: 9\r\n\r\nsome", "Transfer-Encoding: chunked\r\n\r\n4\r\nsome\r\n"] {
        let answer = slow(&proxy, &format!("{post}{body}")).await;
        assert!(!answer.contains(" 200 "), "{answer}");
    }
    // Wrong values: the times are the built-in ones, which are longer than this.
    options(&mut snapshot, &[("client-header-timeout", "0"), ("client-body-timeout", "soon")]);
    proxy.apply(&snapshot);
    assert_eq!(proxy.metric(WARNINGS).as_deref(), Some("2"));
    let mut stream = TcpStream::connect(proxy.http).await.unwrap();
    let begun = Instant::now();
    stream.write_all(format!("{post}Content-Length: 8\r\nConnection: close\r\n\r\nsome").as_bytes()).await.unwrap();
    let early = timeout(Duration::from_millis(600), stream.readable()).await;
    assert!(early.is_err(), "it is waited for, after {:?}", begun.elapsed());
    stream.write_all(b"more").await.unwrap();
    assert!(rest(&mut stream).await.contains("body=somemore"));
    assert!(web.requests() > 0);
}

#[tokio::test]
async fn heads_have_the_size_that_is_allowed() {
    let (_web, _, mut snapshot, mut proxy) = start(&[("large-client-header-buffers", "2 1k")]).await;
    let with = |bytes: usize| {
        format!("GET / HTTP/1.1\r\nHost: b.example\r\nX: {}\r\nConnection: close\r\n\r\n", "x".repeat(bytes))
    };
    assert_eq!(status(&exchange(proxy.http, with(1_000)).await), 200);
    assert_eq!(status(&exchange(proxy.http, with(3_000)).await), 431);
    options(&mut snapshot, &[("large-client-header-buffers", "8 16k")]);
    proxy.apply(&snapshot);
    assert_eq!(status(&exchange(proxy.http, with(100_000)).await), 200);
    options(&mut snapshot, &[("large-client-header-buffers", "16k")]);
    proxy.apply(&snapshot);
    assert_eq!(status(&exchange(proxy.http, with(3_000)).await), 200);
    assert_eq!(status(&exchange(proxy.http, with(100_000)).await), 431);
    assert_eq!(proxy.metric(WARNINGS).as_deref(), Some("1"));
}

#[tokio::test]
async fn http2_is_spoken_as_the_options_say() {
    let (web, own, mut snapshot, mut proxy) = start(&[("http2-max-concurrent-streams", "2")]).await;
    let stream = tls(proxy.https, "a.example", own.cert.der(), "h2").await.unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let driver = tokio::spawn(connection);
    let ask = |path: &str| {
        let mut sender = sender.clone();
        let request = Request::get(format!("https://a.example{path}")).body(Empty::<Bytes>::new()).unwrap();
        tokio::spawn(async move { sender.send_request(request).await.unwrap().status() })
    };
    let first = ask("/gate");
    crate::wait_until("the first is there", async || web.requests() == 1).await;
    let second = ask("/gate");
    crate::wait_until("the second is there", async || web.requests() == 2).await;
    let third = ask("/third");
    let early = timeout(Duration::from_millis(200), async {
        while web.requests() < 3 {
            tokio::task::yield_now().await;
        }
    });
    assert!(early.await.is_err(), "the third waits for a free stream");
    web.open_gate();
    web.open_gate();
    for answer in [first, second, third] {
        assert_eq!(timeout(DEADLINE, answer).await.expect("in time").unwrap(), 200);
    }
    drop(sender);
    driver.abort();
    options(&mut snapshot, &[("use-http2", "false")]);
    proxy.apply(&snapshot);
    let refused = tls(proxy.https, "a.example", own.cert.der(), "h2").await;
    assert!(refused.is_err(), "no common protocol");
    let stream = tls(proxy.https, "a.example", own.cert.der(), "http/1.1").await.unwrap();
    assert_eq!(status(&exchange_on(stream, get("a.example", "/").as_bytes()).await), 200);
    let preface = exchange(proxy.http, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    assert_eq!(status(&preface), 505, "{preface:?}");
    options(&mut snapshot, &[("use-http2", "perhaps"), ("http2-max-concurrent-streams", "0")]);
    proxy.apply(&snapshot);
    assert!(tls(proxy.https, "a.example", own.cert.der(), "h2").await.is_ok());
    assert_eq!(proxy.metric(WARNINGS).as_deref(), Some("2"));
}

#[tokio::test]
async fn fields_are_added_and_dropped_as_the_options_say() {
    let (_web, own, mut snapshot, mut proxy) = start(&[]).await;
    let request = "GET / HTTP/1.1\r\nHost: a.example\r\nX_Under: u\r\nX.Dot: d\r\nConnection: close\r\n\r\n";
    let mut check = async |data: &[(&str, &str)], has: &[&str], has_not: &[&str], warnings: &str| {
        options(&mut snapshot, data);
        proxy.apply(&snapshot);
        let stream = tls(proxy.https, "a.example", own.cert.der(), "http/1.1").await.unwrap();
        let answer = exchange_on(stream, request.as_bytes()).await;
        assert_eq!(status(&answer), 200, "{data:?} {answer}");
        assert!(has.iter().all(|text| answer.contains(text)), "{data:?} {has:?} {answer}");
        assert!(!has_not.iter().any(|text| answer.contains(text)), "{data:?} {has_not:?} {answer}");
        assert_eq!(proxy.metric(WARNINGS).as_deref(), Some(warnings), "{data:?}");
    };
    let hsts = "\r\nstrict-transport-security: ";
    let default = "\r\nstrict-transport-security: max-age=31536000; includeSubDomains\r\n";
    check(&[], &[default, "\r\nserver: roadstead\r\n"], &["x_under", "x.dot"], "0").await;
    check(&[("hsts", "false")], &[], &[hsts], "0").await;
    check(&[("hsts", "no")], &[default], &[], "1").await;
    let short = "\r\nstrict-transport-security: max-age=60; preload\r\n";
    let data = [("hsts-max-age", "60"), ("hsts-include-subdomains", "false"), ("hsts-preload", "true")];
    check(&data, &[short], &[], "0").await;
    let data = [("hsts-max-age", "-1"), ("hsts-include-subdomains", "0"), ("hsts-preload", "1")];
    check(&data, &[default], &[], "3").await;
    check(&[("server-tokens", "false")], &[], &["\r\nserver:"], "0").await;
    check(&[("server-tokens", "off")], &["\r\nserver: roadstead\r\n"], &[], "1").await;
    check(&[("enable-underscores-in-headers", "true")], &["x_under: u"], &["x.dot"], "0").await;
    check(&[("enable-underscores-in-headers", "1")], &[], &["x_under", "x.dot"], "1").await;
    check(&[("ignore-invalid-headers", "false")], &["x.dot: d"], &["x_under"], "0").await;
    check(&[("ignore-invalid-headers", "no")], &[], &["x_under", "x.dot"], "1").await;
}

#[tokio::test]
async fn unknown_hosts_get_the_default_certificate_or_no_handshake() {
    let (_web, own, mut snapshot, _) = start(&[]).await;
    let default = pair("other.example");
    add_pair(&mut snapshot, "default", &default);
    let name = Some(ObjectName::new("default", "default"));
    let setup = |default_certificate| Setup {
        edge: EdgeFlags { default_certificate, ..EdgeFlags::default() },
        ..Setup::default()
    };
    let mut proxy = Proxy::with(snapshot.clone(), setup(name));
    let works = async |proxy: &Proxy, host: &str, pair: &CertifiedKey<KeyPair>| {
        tls(proxy.https, host, pair.cert.der(), "http/1.1").await.is_ok()
    };
    assert!(works(&proxy, "other.example", &default).await);
    assert!(works(&proxy, "a.example", &own).await);
    options(&mut snapshot, &[("ssl-reject-handshake", "true")]);
    proxy.apply(&snapshot);
    let error = tls(proxy.https, "other.example", default.cert.der(), "http/1.1").await.unwrap_err();
    assert!(error.to_string().contains("UnrecognisedName"), "{error}");
    assert!(works(&proxy, "a.example", &own).await);
    options(&mut snapshot, &[("ssl-reject-handshake", "1")]);
    proxy.apply(&snapshot);
    assert!(works(&proxy, "other.example", &default).await);
    // A Secret that is not there is told, and a certificate of our own takes its place.
    let gone = Proxy::with(snapshot, setup(Some(ObjectName::new("default", "gone"))));
    assert!(!works(&gone, "other.example", &default).await && works(&gone, "a.example", &own).await);
    assert_eq!(gone.metric("roadstead_ingress_config_problems{severity=\"error\"}").as_deref(), Some("1"));
}

/// Its connections go on with the certificate that they began with.
#[tokio::test]
async fn a_new_certificate_drops_no_connection() {
    let (_web, own, mut snapshot, mut proxy) = start(&[]).await;
    let mut stream = tls(proxy.https, "a.example", own.cert.der(), "http/1.1").await.unwrap();
    for _ in 0..5 {
        stream.write_all(KEPT.as_bytes()).await.unwrap();
        assert_eq!(status(&read_until(&mut stream, "body=").await), 200);
        let renewed = pair("a.example");
        add_pair(&mut snapshot, "own", &renewed);
        proxy.apply(&snapshot);
        assert!(tls(proxy.https, "a.example", renewed.cert.der(), "http/1.1").await.is_ok());
    }
}

#[tokio::test]
async fn what_is_no_clienthello_gets_an_answer_or_an_end() {
    let (_web, own, _, proxy) = start(&[]).await;
    let answer = exchange(proxy.https, get("a.example", "/")).await;
    assert!(status(&answer) == 400 && answer.contains("plain HTTP request was sent to the HTTPS port"), "{answer}");
    // A record that promises a handshake of 64 KiB, and a stream of them.
    let large = [&[0x16, 3, 1, 0x40, 0, 1, 0, 0xff, 0xff][..], &[0; 0x4000]].concat();
    let mut stream = TcpStream::connect(proxy.https).await.unwrap();
    let _ = stream.write_all(&large.repeat(4)).await;
    rest(&mut stream).await;
    // The client may see the end before it is counted.
    let failures = || proxy.metric("roadstead_ingress_tls_handshake_failures_total ");
    crate::wait_until("both are counted", async || failures().as_deref() == Some("2")).await;
    assert!(tls(proxy.https, "a.example", own.cert.der(), "http/1.1").await.is_ok());
}

/// A silent client, and one that begins a ClientHello and stops, hold their places for seconds and no longer.
#[tokio::test]
async fn a_client_that_never_says_hello_is_closed() {
    let (_web, _, _, proxy) = start(&[]).await;
    let silent = async |start: &[u8]| {
        let mut stream = TcpStream::connect(proxy.https).await.unwrap();
        stream.write_all(start).await.unwrap();
        rest(&mut stream).await
    };
    let (first, second) = tokio::join!(silent(b""), silent(&[0x16, 3, 1, 0, 200, 1]));
    assert_eq!((first.as_str(), second.as_str()), ("", ""));
}
