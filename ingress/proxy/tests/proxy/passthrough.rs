//! TLS that ends at an endpoint: chosen by SNI, bytes untouched, half-closed streams, a silence limit and the drain.

use std::sync::Arc;

use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    DEADLINE,
    client::{exchange, exchange_on, get, status, tls},
    endpoint::TestEndpoint,
    objects::{annotate, empty, ingress, options, secret, service},
    proxy::Proxy,
};

/// An endpoint that ends TLS itself and echoes: `name:` and what it got, once the client has said all.
struct TlsEndpoint {
    address: std::net::SocketAddr,
    certificate: CertificateDer<'static>,
}

impl TlsEndpoint {
    async fn start(host: &str) -> Self {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(vec![host.to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let builder = ServerConfig::builder_with_provider(roadstead_proxy::tls::provider());
        let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let mut config = builder.with_single_cert(vec![cert.der().clone()], key).unwrap();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let (acceptor, listener) =
            (TlsAcceptor::from(Arc::new(config)), TcpListener::bind("127.0.0.1:0").await.unwrap());
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let mut stream = acceptor.accept(stream).await.ok()?;
                    let mut all = Vec::new();
                    stream.read_to_end(&mut all).await.ok()?;
                    stream.write_all(&[b"echo:", &all[..]].concat()).await.ok()?;
                    stream.shutdown().await.ok()
                });
            }
        });
        Self { address, certificate: cert.der().clone() }
    }
}

fn pair(host: &str) -> CertifiedKey<KeyPair> {
    generate_simple_self_signed(vec![host.to_owned()]).unwrap()
}

#[tokio::test]
async fn a_host_is_passed_through_by_its_name_and_others_are_not() {
    let (endpoint, web) = (TlsEndpoint::start("pass.example").await, TestEndpoint::start("web").await);
    let own = pair("a.example");
    let mut snapshot = empty();
    service(&mut snapshot, "pass", &[endpoint.address]);
    service(&mut snapshot, "web", &[web.address]);
    secret(&mut snapshot, "a", &own.cert.pem(), &own.signing_key.serialize_pem());
    ingress(&mut snapshot, "pass", &[("pass.example", "/", "pass")], &[]);
    annotate(&mut snapshot, "pass", &[("ssl-passthrough", "true")]);
    ingress(&mut snapshot, "web", &[("a.example", "/", "web")], &[("a.example", "a")]);
    let proxy = Proxy::start(snapshot);
    let mut stream = tls(proxy.https, "pass.example", &endpoint.certificate, "http/1.1").await.unwrap();
    // More than one read's worth, and half-closed before the answer begins.
    let text = "0123456789abcdef".repeat(64 * 1024);
    stream.write_all(text.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    timeout(DEADLINE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert_eq!(answer.strip_prefix("echo:"), Some(text.as_str()));
    let stream = tls(proxy.https, "a.example", own.cert.der(), "http/1.1").await.unwrap();
    assert!(exchange_on(stream, get("a.example", "/").as_bytes()).await.contains("endpoint=web"));
    // Asked for in HTTP it is misdirected over TLS, and sent to TLS in the clear.
    let stream = tls(proxy.https, "a.example", own.cert.der(), "http/1.1").await.unwrap();
    assert_eq!(status(&exchange_on(stream, get("pass.example", "/").as_bytes()).await), 421);
    let answer = exchange(proxy.http, get("pass.example", "/x?y")).await;
    assert!(status(&answer) == 308 && answer.contains("\r\nlocation: https://pass.example/x?y\r\n"), "{answer}");
}

#[tokio::test]
async fn a_wrong_value_passes_nothing_through() {
    let endpoint = TlsEndpoint::start("pass.example").await;
    let mut snapshot = empty();
    service(&mut snapshot, "pass", &[endpoint.address]);
    ingress(&mut snapshot, "pass", &[("pass.example", "/", "pass")], &[]);
    annotate(&mut snapshot, "pass", &[("ssl-passthrough", "yes")]);
    let proxy = Proxy::start(snapshot);
    assert!(tls(proxy.https, "pass.example", &endpoint.certificate, "http/1.1").await.is_err());
    assert_eq!(proxy.metric("roadstead_ingress_config_problems{severity=\"warning\"}").as_deref(), Some("1"));
}

#[tokio::test]
async fn silence_and_the_want_of_endpoints_end_a_stream() {
    let endpoint = TlsEndpoint::start("pass.example").await;
    let mut snapshot = empty();
    service(&mut snapshot, "pass", &[endpoint.address]);
    ingress(&mut snapshot, "pass", &[("pass.example", "/", "pass")], &[]);
    annotate(&mut snapshot, "pass", &[("ssl-passthrough", "true")]);
    options(&mut snapshot, &[("proxy-stream-timeout", "200ms")]);
    let mut proxy = Proxy::start(snapshot.clone());
    let mut stream = tls(proxy.https, "pass.example", &endpoint.certificate, "http/1.1").await.unwrap();
    let mut rest = Vec::new();
    let _ = timeout(DEADLINE, stream.read_to_end(&mut rest)).await.expect("it ends in time");
    service(&mut snapshot, "pass", &[]);
    proxy.apply(&snapshot);
    assert!(tls(proxy.https, "pass.example", &endpoint.certificate, "http/1.1").await.is_err());
}

#[tokio::test]
async fn the_drain_waits_for_a_passed_through_stream() {
    let endpoint = TlsEndpoint::start("pass.example").await;
    let mut snapshot = empty();
    service(&mut snapshot, "pass", &[endpoint.address]);
    ingress(&mut snapshot, "pass", &[("pass.example", "/", "pass")], &[]);
    annotate(&mut snapshot, "pass", &[("ssl-passthrough", "true")]);
    let proxy = Proxy::start(snapshot);
    let mut stream = tls(proxy.https, "pass.example", &endpoint.certificate, "http/1.1").await.unwrap();
    stream.write_all(b"before").await.unwrap();
    proxy.shutdown.trigger();
    crate::wait_until("no new connection is taken", async || TcpStream::connect(proxy.https).await.is_err()).await;
    stream.write_all(b" and after").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    timeout(DEADLINE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert_eq!(answer, "echo:before and after");
    timeout(DEADLINE, proxy.join()).await.expect("the drain ends with the stream");
}
