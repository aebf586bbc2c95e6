//! Who a client is: the PROXY protocol and X-Forwarded-* by trusted peers, and nobody else's word; how many connections one
//! client has.

use roadstead_model::Snapshot;
use roadstead_proxy::edge::{EdgeFlags, ProxyProtocol};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    DEADLINE,
    client::{client_config, exchange, exchange_on, get, read_until, status},
    endpoint::TestEndpoint,
    objects::{empty, ingress, options, secret, service},
    proxy::{Proxy, Setup},
    wait_until,
};

const LOOPBACK: &str = "127.0.0.0/8";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

async fn web() -> (TestEndpoint, Snapshot) {
    let web = TestEndpoint::start("web").await;
    let mut snapshot = empty();
    service(&mut snapshot, "web", &[web.address]);
    ingress(&mut snapshot, "web", &[("a", "/", "web")], &[]);
    (web, snapshot)
}

fn flags(trusted: &str, proxy_protocol: ProxyProtocol) -> Setup {
    let trusted = trusted.parse().into_iter().collect();
    Setup { edge: EdgeFlags { trusted, proxy_protocol, ..EdgeFlags::default() }, ..Setup::default() }
}

fn check_seen(answer: &str, expected: &[&str]) {
    assert_eq!(status(answer), 200, "{answer}");
    for line in expected {
        assert!(answer.contains(&format!("\n{line}\n")), "{line} in {answer}");
    }
}

fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let length = u16::try_from(block.len()).unwrap().to_be_bytes();
    [V2, &[command, family], &length, block].concat()
}

#[tokio::test]
async fn a_trusted_balancer_tells_the_client_by_the_proxy_protocol() {
    let (_web, snapshot) = web().await;
    let proxy = Proxy::with(snapshot, flags(LOOPBACK, ProxyProtocol::Required));
    let request = get("a", "/");
    let first = b"PROXY TCP4 192.0.2.7 192.0.2.1 51234 8080\r\n".to_vec();
    let second = v2(0x21, 0x11, &[192, 0, 2, 7, 192, 0, 2, 1, 0xc8, 0x22, 0x1f, 0x90, 4, 0, 1, 0]);
    for header in [first, second] {
        let answer = exchange(proxy.http, [&header, request.as_bytes()].concat()).await;
        let seen =
            ["x-real-ip: 192.0.2.7", "x-forwarded-for: 192.0.2.7", "x-forwarded-port: 8080", "x-forwarded-proto: http"];
        check_seen(&answer, &seen);
    }
    let sixth = "PROXY TCP6 2001:db8::7 2001:db8::1 51234 443\r\n";
    let answer = exchange(proxy.http, format!("{sixth}{request}")).await;
    check_seen(&answer, &["x-real-ip: 2001:db8::7", "x-forwarded-port: 443", "x-forwarded-proto: https"]);
    for own in [b"PROXY UNKNOWN\r\n".to_vec(), v2(0x20, 0x11, &[0; 12]), v2(0x21, 0x31, &[0; 216])] {
        let answer = exchange(proxy.http, [&own, request.as_bytes()].concat()).await;
        check_seen(&answer, &["x-real-ip: 127.0.0.1"]);
    }
}

#[tokio::test]
async fn the_header_comes_before_tls_as_well() {
    let (_web, mut snapshot) = web().await;
    let own = rcgen::generate_simple_self_signed(vec!["a".to_owned()]).unwrap();
    secret(&mut snapshot, "own", &own.cert.pem(), &own.signing_key.serialize_pem());
    ingress(&mut snapshot, "web", &[("a", "/", "web")], &[("a", "own")]);
    let proxy = Proxy::with(snapshot, flags(LOOPBACK, ProxyProtocol::Required));
    let config = client_config(own.cert.der(), "http/1.1", None, &[&rustls::version::TLS13]);
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    let mut stream = TcpStream::connect(proxy.https).await.unwrap();
    stream.write_all(b"PROXY TCP4 192.0.2.7 192.0.2.1 51234 8443\r\n").await.unwrap();
    let stream = timeout(DEADLINE, connector.connect("a".try_into().unwrap(), stream)).await.unwrap().unwrap();
    let answer = exchange_on(stream, get("a", "/").as_bytes()).await;
    check_seen(&answer, &["x-real-ip: 192.0.2.7", "x-forwarded-port: 8443", "x-forwarded-proto: https"]);
}

/// A byte at a time, and with pauses between header and request, it is the same header.
#[tokio::test]
async fn a_header_may_come_in_pieces() {
    let (_web, snapshot) = web().await;
    let proxy = Proxy::with(snapshot, flags(LOOPBACK, ProxyProtocol::Required));
    let mut stream = TcpStream::connect(proxy.http).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for byte in b"PROXY TCP4 192.0.2.7 192.0.2.1 51234 80\r\n" {
        stream.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    check_seen(&exchange_on(stream, get("a", "/").as_bytes()).await, &["x-real-ip: 192.0.2.7"]);
}

#[tokio::test]
async fn what_is_no_header_is_closed() {
    let (web, snapshot) = web().await;
    let proxy = Proxy::with(snapshot, flags(LOOPBACK, ProxyProtocol::Required));
    let request = get("a", "/");
    let bad = [
        request.clone().into_bytes(),
        format!("PROXY TCP4 192.0.2.7 192.0.2.1 51234\r\n{request}").into_bytes(),
        format!("PROXY TCP4 192.0.2.7 192.0.2.1 51234 99999\r\n{request}").into_bytes(),
        format!("PROXY TCP4 {}\r\n{request}", "1".repeat(200)).into_bytes(),
        [&v2(0x21, 0x11, &[0; 4]), request.as_bytes()].concat(),
        [&v2(0x11, 0x11, &[0; 12]), request.as_bytes()].concat(),
        [V2, &[0x21, 0x11, 0xff, 0xff], &[0; 8192]].concat(),
    ];
    for (number, bytes) in bad.iter().enumerate() {
        let mut stream = TcpStream::connect(proxy.http).await.unwrap();
        // The proxy may close, or reset, before all is written.
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let _ = timeout(DEADLINE, stream.read_to_end(&mut answer)).await.expect("it is closed in time");
        assert_eq!(answer, b"", "{number}");
    }
    assert_eq!(web.requests(), 0);
    let refused = proxy.metric("roadstead_ingress_refused_connections_total{reason=\"proxy_protocol\"}");
    assert_eq!(refused, Some(bad.len().to_string()));
}

/// The header is demanded of everybody, as by nginx; its word counts only from those who are trusted.
#[tokio::test]
async fn an_untrusted_peer_tells_nothing() {
    let (_web, snapshot) = web().await;
    let proxy = Proxy::with(snapshot, flags("192.0.2.0/24", ProxyProtocol::Required));
    let header = "PROXY TCP4 192.0.2.7 192.0.2.1 51234 443\r\n";
    let answer = exchange(proxy.http, format!("{header}{}", get("a", "/"))).await;
    check_seen(&answer, &["x-real-ip: 127.0.0.1", "x-forwarded-proto: http"]);
}

/// Behind a balancer of connections the fields are the client's own words, whoever the balancer is.
#[tokio::test]
async fn fields_of_a_client_behind_the_proxy_protocol_are_not_believed() {
    let (_web, snapshot) = web().await;
    let proxy = Proxy::with(snapshot, flags(LOOPBACK, ProxyProtocol::Required));
    let request = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.1.1.1\r\nConnection: close\r\n\r\n";
    let header = "PROXY TCP4 192.0.2.7 192.0.2.1 51234 80\r\n";
    let answer = exchange(proxy.http, format!("{header}{request}")).await;
    check_seen(&answer, &["x-real-ip: 192.0.2.7", "x-original-forwarded-for: 1.1.1.1"]);
}

#[tokio::test]
async fn the_options_ask_for_the_proxy_protocol_and_are_followed_at_once() {
    let (_web, mut snapshot) = web().await;
    let mut proxy = Proxy::start(snapshot.clone());
    let request = get("a", "/");
    let header = "PROXY TCP4 192.0.2.7 192.0.2.1 51234 80\r\n";
    check_seen(&exchange(proxy.http, &request).await, &["x-real-ip: 127.0.0.1"]);
    options(&mut snapshot, &[("use-proxy-protocol", "true"), ("proxy-real-ip-cidr", "127.0.0.1")]);
    proxy.apply(&snapshot);
    check_seen(&exchange(proxy.http, format!("{header}{request}")).await, &["x-real-ip: 192.0.2.7"]);
    // Nobody is trusted by default: that is told, and the header's word is put aside.
    options(&mut snapshot, &[("use-proxy-protocol", "true")]);
    proxy.apply(&snapshot);
    check_seen(&exchange(proxy.http, format!("{header}{request}")).await, &["x-real-ip: 127.0.0.1"]);
    let warnings = "roadstead_ingress_config_problems{severity=\"warning\"}";
    assert_eq!(proxy.metric(warnings).as_deref(), Some("1"));
    options(&mut snapshot, &[("use-proxy-protocol", "maybe")]);
    proxy.apply(&snapshot);
    check_seen(&exchange(proxy.http, &request).await, &["x-real-ip: 127.0.0.1"]);
    assert_eq!(proxy.metric(warnings).as_deref(), Some("1"), "the wrong value");
}

const CLAIMS: &str = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.1.1.1, 192.0.2.7, 127.0.0.9\r\nX-Forwarded-Proto: https\r\n\
    X-Forwarded-Port: 8443\r\nX-Forwarded-Host: www.example\r\nConnection: close\r\n\r\n";

#[tokio::test]
async fn a_trusted_proxy_tells_the_client_in_fields() {
    let (_web, snapshot) = web().await;
    let proxy = Proxy::with(snapshot, flags(LOOPBACK, ProxyProtocol::Off));
    let seen = [
        "x-real-ip: 192.0.2.7",
        "x-forwarded-for: 192.0.2.7",
        "x-original-forwarded-for: 1.1.1.1, 192.0.2.7, 127.0.0.9",
        "x-forwarded-proto: https",
        "x-forwarded-port: 8443",
        "x-forwarded-host: www.example",
        "host: www.example",
    ];
    check_seen(&exchange(proxy.http, CLAIMS).await, &seen);
}

#[tokio::test]
async fn nobody_s_fields_are_believed_by_default() {
    let (_web, snapshot) = web().await;
    let unasked = Proxy::start(snapshot.clone());
    let other = Proxy::with(snapshot, flags("192.0.2.0/24", ProxyProtocol::Off));
    for proxy in [unasked, other] {
        let port = format!("x-forwarded-port: {}", proxy.http.port());
        let seen = ["x-real-ip: 127.0.0.1", "x-forwarded-for: 127.0.0.1", "x-forwarded-proto: http", "host: a", &port];
        check_seen(&exchange(proxy.http, CLAIMS).await, &seen);
    }
}

#[tokio::test]
async fn the_options_say_whose_fields_are_believed_and_how() {
    let (_web, mut snapshot) = web().await;
    let mut proxy = Proxy::start(snapshot.clone());
    let trusted = ("proxy-real-ip-cidr", "127.0.0.0/8");
    let mut check = async |data: &[(&str, &str)], expected: &[&str]| {
        options(&mut snapshot, data);
        proxy.apply(&snapshot);
        check_seen(&exchange(proxy.http, CLAIMS).await, expected);
    };
    check(&[trusted], &["x-real-ip: 127.0.0.1"]).await;
    check(&[trusted, ("use-forwarded-headers", "true")], &["x-real-ip: 192.0.2.7", "x-forwarded-proto: https"]).await;
    check(&[("use-forwarded-headers", "true")], &["x-real-ip: 127.0.0.1", "x-forwarded-proto: http"]).await;
    check(&[trusted, ("enable-real-ip", "true")], &["x-real-ip: 192.0.2.7", "x-forwarded-proto: http"]).await;
    let full = ("compute-full-forwarded-for", "true");
    let chain = "x-forwarded-for: 1.1.1.1, 192.0.2.7, 127.0.0.9, 127.0.0.1";
    check(&[trusted, full, ("use-forwarded-headers", "true")], &["x-real-ip: 192.0.2.7", chain]).await;
    let field = ("forwarded-for-header", "X-Client");
    check(&[trusted, field, ("use-forwarded-headers", "true")], &["x-real-ip: 127.0.0.1"]).await;
    check(&[("use-forwarded-headers", "yes"), trusted], &["x-real-ip: 127.0.0.1"]).await;
}

/// The forwarded scheme decides about the redirect to https, or a balancer that ends TLS would be sent in circles.
#[tokio::test]
async fn a_client_that_came_by_tls_is_not_redirected() {
    let (_web, mut snapshot) = web().await;
    ingress(&mut snapshot, "web", &[("a", "/", "web")], &[("a", "missing")]);
    let proxy = Proxy::with(snapshot, flags(LOOPBACK, ProxyProtocol::Off));
    assert_eq!(status(&exchange(proxy.http, CLAIMS).await), 200);
    assert_eq!(status(&exchange(proxy.http, get("a", "/")).await), 308);
}

#[tokio::test]
async fn a_client_has_so_many_connections_and_no_more() {
    let (_web, snapshot) = web().await;
    let limit = Setup { max_connections_per_client: 2, ..Setup::default() };
    let proxy = Proxy::with(snapshot.clone(), limit);
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(proxy.http).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        assert_eq!(status(&read_until(&mut stream, "body=").await), 200);
        open.push(stream);
    }
    let mut third = TcpStream::connect(proxy.http).await.unwrap();
    let mut rest = Vec::new();
    let _ = timeout(DEADLINE, third.read_to_end(&mut rest)).await.expect("it is closed in time");
    assert_eq!(rest, b"");
    let refused = proxy.metric("roadstead_ingress_refused_connections_total{reason=\"client_limit\"}");
    assert_eq!(refused.as_deref(), Some("1"));
    drop(open);
    wait_until("there is a place again", async || exchange_once(&proxy).await.is_some()).await;
    // A trusted proxy stands for many clients.
    let limit = Setup { max_connections_per_client: 1, ..flags(LOOPBACK, ProxyProtocol::Off) };
    let proxy = Proxy::with(snapshot, limit);
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(proxy.http).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        assert_eq!(status(&read_until(&mut stream, "body=").await), 200);
        open.push(stream);
    }
}

/// Those whom a trusted balancer speaks of are counted each.
#[tokio::test]
async fn clients_behind_a_balancer_are_counted_too() {
    let (_web, snapshot) = web().await;
    let setup = Setup { max_connections_per_client: 1, ..flags(LOOPBACK, ProxyProtocol::Required) };
    let proxy = Proxy::with(snapshot, setup);
    let open = async |client: &str| {
        let mut stream = TcpStream::connect(proxy.http).await.unwrap();
        let header = format!("PROXY TCP4 {client} 192.0.2.1 51234 80\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
        stream.write_all(header.as_bytes()).await.unwrap();
        let mut start = [0; 12];
        (timeout(DEADLINE, stream.read_exact(&mut start)).await.expect("in time").is_ok(), stream)
    };
    let (served, _first) = open("192.0.2.7").await;
    assert!(served);
    assert!(!open("192.0.2.7").await.0, "the same client again");
    assert!(open("192.0.2.8").await.0, "another client");
}

async fn exchange_once(proxy: &Proxy) -> Option<u16> {
    let mut stream = TcpStream::connect(proxy.http).await.ok()?;
    stream.write_all(get("a", "/").as_bytes()).await.ok()?;
    let mut answer = String::new();
    timeout(DEADLINE, stream.read_to_string(&mut answer)).await.ok()?.ok()?;
    (!answer.is_empty()).then(|| status(&answer))
}
