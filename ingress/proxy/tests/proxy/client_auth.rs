//! Clients' certificates on real connections: who comes in, what endpoints are told, and that no connection, session or
//! header carries one host's verdict to another.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{Request, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CertifiedKey, DnType, IsCa, KeyPair, KeyUsagePurpose,
    generate_simple_self_signed,
};
use roadstead_model::Snapshot;
use rustls::{
    ClientConfig, HandshakeKind, NamedGroup,
    client::{
        ClientSessionMemoryCache, ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue,
    },
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use tokio::io::AsyncWriteExt;

use crate::{
    client::{client_config, exchange, exchange_on, get, read_until, status, tls_by},
    endpoint::TestEndpoint,
    objects::{annotate, empty, ingress, options, secret, secret_of, service},
    proxy::Proxy,
};

type Ca = CertifiedIssuer<'static, KeyPair>;
type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn ca(name: &str) -> Ca {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn identity(ca: &Ca, name: &str) -> Identity {
    let (mut params, key) = (CertificateParams::default(), KeyPair::generate().unwrap());
    params.distinguished_name.push(DnType::CommonName, name);
    let certificate = params.signed_by(&key, ca).unwrap();
    (vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
}

/// Made by OpenSSL 3.0, whose `x509 -req` makes version 1; rcgen cannot.
const OLD_CA: &str = "\
-----BEGIN CERTIFICATE-----
MIIBhzCCAS2gAwIBAgIUBum+rSQOHfjxvjoSwseToWkFwGQwCgYIKoZIzj0EAwIw
GDEWMBQGA1UEAwwNb2xkIGF1dGhvcml0eTAgFw0yNjExMjUyMTQyMjVaGA8yMTI2
MTEwMTIxNDIyNVowGDEWMBQGA1UEAwwNb2xkIGF1dGhvcml0eTBZMBMGByqGSM49
AgEGCCqGSM49AwEHA0IABFCSgl/RK48Nmg8SqCGhK3VJg7sCXrkiCot99LdXUHG7
NkxJ2LDI1a8HT+VEUdlPIRK3a8U/BiP6IT0ZfCpV4jejUzBRMB0GA1UdDgQWBBQO
5F/PbAlpF7Z1RfdM7dzFDw3PyTAfBgNVHSMEGDAWgBQO5F/PbAlpF7Z1RfdM7dzF
Dw3PyTAPBgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMCA0gAMEUCIAxl/9ItdzAi
E52vgTHLgq7ydB/JJvtuJJXj8ldI0mywAiEA7Mt9zznohrEQsbKcWGac8udeph1y
Oi468fP1JJA6VQI=
-----END CERTIFICATE-----
";

/// Signed by it.
const OLD_CLIENT: &str = "\
-----BEGIN CERTIFICATE-----
MIIBJDCBzAIBAjAKBggqhkjOPQQDAjAYMRYwFAYDVQQDDA1vbGQgYXV0aG9yaXR5
MCAXDTI2MTEyNTIxNDIyNloYDzIxMjYxMTAxMjE0MjI2WjAkMQ0wCwYDVQQKDARB
Y21lMRMwEQYDVQQDDApvbGQgY2xpZW50MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcD
QgAEQBCpRu+ruiV5BnoM8V93TUy3BWYHi0ebPXmBlM3uBZb8+D2p+bDMmoNGOSbv
yPTMIRUX7UzvybmiDt0mysciCDAKBggqhkjOPQQDAgNHADBEAiB3bjd/17OSq0BT
ywJ2R7rvgk+LxH9UvEiEn+MaCuYLbgIgEHlIIQW287nmrghZZIH/CFJCU5oITQsD
m73UUH4zlsQ=
-----END CERTIFICATE-----
";

/// The client's, for this test alone.
const OLD_KEY: &str = "\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgay6DnDL76qZTx0uo
mq/xqFwkNgr1W5YlBenvGnHv7S6hRANCAARAEKlG76u6JXkGegzxX3dNTLcFZgeL
R5s9eYGUze4Flvz4Pan5sMyag0Y5Ju/I9MwhFRftTO/JuaIO3SbKxyII
-----END PRIVATE KEY-----
";

/// Two hosts with one certificate: `guarded.example` asks for client certificates of `ca`, `plain.example` does not.
struct Hosts {
    _web: TestEndpoint,
    own: CertifiedKey<KeyPair>,
    ca: Ca,
    snapshot: Snapshot,
}

impl Hosts {
    async fn new(annotations: &[(&str, &str)]) -> Self {
        let web = TestEndpoint::start("web").await;
        let own = generate_simple_self_signed(["guarded.example", "plain.example"].map(str::to_owned)).unwrap();
        let ca = ca("clients");
        let mut snapshot = empty();
        service(&mut snapshot, "web", &[web.address]);
        secret(&mut snapshot, "own", &own.cert.pem(), &own.signing_key.serialize_pem());
        secret_of(&mut snapshot, "ca", "Opaque", &[("ca.crt", &ca.pem())]);
        ingress(&mut snapshot, "guarded", &[("guarded.example", "/", "web")], &[("guarded.example", "own")]);
        ingress(&mut snapshot, "plain", &[("plain.example", "/", "web")], &[("plain.example", "own")]);
        annotate(&mut snapshot, "guarded", annotations);
        Self { _web: web, own, ca, snapshot }
    }

    async fn guarded(more: &[(&str, &str)]) -> Self {
        Self::new(&[&[("auth-tls-secret", "default/ca")], more].concat()).await
    }

    fn config(&self, identity: Option<Identity>) -> ClientConfig {
        client_config(self.own.cert.der(), "http/1.1", identity, &[&TLS13, &TLS12])
    }

    async fn ask(&self, proxy: &Proxy, name: &str, host: &str, identity: Option<Identity>) -> String {
        let stream = tls_by(proxy.https, name, self.config(identity)).await.unwrap();
        exchange_on(stream, get(host, "/").as_bytes()).await
    }
}

const GUARDED: &str = "guarded.example";
const PLAIN: &str = "plain.example";
const ERRORS: &str = "roadstead_ingress_config_problems{severity=\"error\"}";
const WARNINGS: &str = "roadstead_ingress_config_problems{severity=\"warning\"}";

#[tokio::test]
async fn only_clients_with_a_good_certificate_come_in() {
    let hosts = Hosts::guarded(&[]).await;
    let proxy = Proxy::start(hosts.snapshot.clone());
    let ask = async |identity| hosts.ask(&proxy, GUARDED, GUARDED, identity).await;
    assert_eq!(status(&ask(None).await), 400);
    assert_eq!(status(&ask(Some(identity(&ca("stranger"), "client"))).await), 400);
    let answer = ask(Some(identity(&hosts.ca, "client 1"))).await;
    assert_eq!(status(&answer), 200, "{answer}");
    assert!(answer.contains("ssl-client-verify: SUCCESS\n"), "{answer}");
    assert!(answer.contains("ssl-client-subject-dn: CN=client 1") && !answer.contains("ssl-client-cert:"), "{answer}");
    assert!(answer.contains("ssl-client-issuer-dn: CN=clients"), "{answer}");
    assert_eq!(status(&hosts.ask(&proxy, PLAIN, PLAIN, None).await), 200, "the other host asks nothing");
    // TLS 1.2 is judged alike.
    for (identity, expected) in [(Some(identity(&hosts.ca, "client")), 200), (None, 400)] {
        let config = client_config(hosts.own.cert.der(), "http/1.1", identity, &[&TLS12]);
        let stream = tls_by(proxy.https, GUARDED, config).await.unwrap();
        assert_eq!(status(&exchange_on(stream, get(GUARDED, "/").as_bytes()).await), expected);
    }
}

/// OpenSSL's old certificates have no extensions, and clients have them still.
#[tokio::test]
async fn certificates_of_version_1_come_in() {
    let mut hosts = Hosts::guarded(&[]).await;
    secret_of(&mut hosts.snapshot, "ca", "Opaque", &[("ca.crt", OLD_CA)]);
    let proxy = Proxy::start(hosts.snapshot.clone());
    for version in [&TLS12, &TLS13] {
        let chain = vec![CertificateDer::from_pem_slice(OLD_CLIENT.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(OLD_KEY.as_bytes()).unwrap();
        let config = config_of_any_chain(hosts.own.cert.der(), chain, &key, version);
        let stream = tls_by(proxy.https, GUARDED, config).await.unwrap();
        let answer = exchange_on(stream, get(GUARDED, "/").as_bytes()).await;
        assert!(status(&answer) == 200 && answer.contains("ssl-client-subject-dn: CN=old client,O=Acme\n"), "{answer}");
    }
}

/// rustls' own check of pairs reads version 3 alone.
fn config_of_any_chain(
    trusted: &CertificateDer<'static>,
    chain: Vec<CertificateDer<'static>>,
    key: &PrivateKeyDer<'static>,
    version: &'static rustls::SupportedProtocolVersion,
) -> ClientConfig {
    let key = rustls::crypto::ring::sign::any_supported_type(key).unwrap();
    let shown = Arc::new(rustls::sign::CertifiedKey::new(chain, key));
    let mut config = client_config(trusted, "http/1.1", None, &[version]);
    config.client_auth_cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(shown));
    config
}

/// What only the proxy may say, it says alone: on guarded hosts and on all others.
#[tokio::test]
async fn clients_cannot_say_that_they_were_verified() {
    let hosts = Hosts::guarded(&[("auth-tls-verify-client", "optional")]).await;
    let proxy = Proxy::start(hosts.snapshot.clone());
    let claims = "Ssl-Client-Verify: SUCCESS\r\nSSL-Client-Subject-DN: CN=admin\r\nssl-client-issuer-dn: CN=ca\r\n\
        ssl-client-cert: x\r\nConnection: close, ssl-client-verify\r\n";
    for (host, verify) in [(GUARDED, Some("ssl-client-verify: NONE\n")), (PLAIN, None)] {
        let stream = tls_by(proxy.https, host, hosts.config(None)).await.unwrap();
        let answer = exchange_on(stream, format!("GET / HTTP/1.1\r\nHost: {host}\r\n{claims}\r\n").as_bytes()).await;
        assert_eq!(status(&answer), 200, "{answer}");
        assert_eq!(answer.matches("ssl-client-").count(), usize::from(verify.is_some()), "{answer}");
        assert!(verify.is_none_or(|line| answer.contains(line)), "{answer}");
    }
    let plain = exchange(proxy.http, format!("GET / HTTP/1.1\r\nHost: other\r\n{claims}\r\n")).await;
    assert_eq!(status(&plain), 404);
}

#[tokio::test]
async fn the_annotations_say_how_certificates_are_judged() {
    let stranger = ca("stranger");
    for (annotations, none, bad, good) in [
        (&[("auth-tls-verify-client", "on")][..], 400, 400, 200),
        (&[("auth-tls-verify-client", "optional")], 200, 400, 200),
        (&[("auth-tls-verify-client", "optional_no_ca")], 200, 200, 200),
        (&[("auth-tls-verify-client", "off")], 200, 200, 200),
        (&[("auth-tls-match-cn", "CN=(client|other)$")], 400, 400, 200),
        (&[("auth-tls-match-cn", "CN=other")], 400, 400, 403),
        (&[("auth-tls-error-page", "https://www.example/no")], 302, 302, 200),
        // Wrong values: nobody comes in by them.
        (&[("auth-tls-verify-client", "perhaps")], 400, 400, 200),
        (&[("auth-tls-verify-depth", "none")], 400, 400, 200),
        (&[("auth-tls-error-page", "/no")], 400, 400, 200),
        (&[("auth-tls-pass-certificate-to-upstream", "1")], 400, 400, 200),
        (&[("auth-tls-match-cn", "CN=(")], 403, 403, 403),
        (&[("auth-tls-secret", "default/gone")], 403, 403, 403),
        (&[("auth-tls-secret", "default/own")], 403, 403, 403),
        (&[("auth-tls-secret", "a/b/c")], 403, 403, 403),
    ] {
        let mut hosts = Hosts::guarded(&[]).await;
        annotate(&mut hosts.snapshot, "guarded", annotations);
        let proxy = Proxy::start(hosts.snapshot.clone());
        let clients = [None, Some(identity(&stranger, "client")), Some(identity(&hosts.ca, "client"))];
        for (identity, expected) in clients.into_iter().zip([none, bad, good]) {
            let shown = identity.is_some();
            let answer = hosts.ask(&proxy, GUARDED, GUARDED, identity).await;
            assert_eq!(status(&answer), expected, "{annotations:?} {shown} {answer}");
            let location = answer.contains("\r\nlocation: https://www.example/no\r\n");
            assert_eq!(location, expected == 302, "{answer}");
        }
        assert_eq!(status(&hosts.ask(&proxy, PLAIN, PLAIN, None).await), 200, "another host is not harmed");
        let (warnings, errors) = (proxy.metric(WARNINGS), proxy.metric(ERRORS));
        let told = warnings.as_deref() == Some("1") || errors.as_deref() == Some("1");
        let wrong = ["perhaps", "none", "/no", "1", "CN=(", "default/gone", "default/own", "a/b/c"];
        assert_eq!(told, wrong.contains(&annotations[0].1), "{annotations:?} {warnings:?} {errors:?}");
    }
}

#[tokio::test]
async fn endpoints_get_the_certificate_where_they_are_meant_to() {
    let hosts = Hosts::guarded(&[("auth-tls-pass-certificate-to-upstream", "true")]).await;
    let proxy = Proxy::start(hosts.snapshot.clone());
    let answer = hosts.ask(&proxy, GUARDED, GUARDED, Some(identity(&hosts.ca, "client"))).await;
    assert!(answer.contains("ssl-client-cert: -----BEGIN%20CERTIFICATE-----%0AMII"), "{answer}");
    let optional = Hosts::guarded(&[("auth-tls-verify-client", "optional_no_ca")]).await;
    let proxy = Proxy::start(optional.snapshot.clone());
    let answer = optional.ask(&proxy, GUARDED, GUARDED, Some(identity(&ca("stranger"), "client"))).await;
    assert!(answer.contains("ssl-client-verify: FAILED:unable to verify the first certificate\n"), "{answer}");
}

/// A connection that was judged for one host, or not at all, brings nothing to another.
#[tokio::test]
async fn a_connection_is_good_for_the_host_that_it_was_made_for() {
    let hosts = Hosts::guarded(&[]).await;
    let proxy = Proxy::start(hosts.snapshot.clone());
    let client = || Some(identity(&hosts.ca, "client"));
    assert_eq!(status(&hosts.ask(&proxy, PLAIN, GUARDED, client()).await), 421);
    assert_eq!(status(&hosts.ask(&proxy, GUARDED, PLAIN, client()).await), 421);
    assert_eq!(status(&hosts.ask(&proxy, GUARDED, "other.example", client()).await), 421);
    assert_eq!(status(&hosts.ask(&proxy, GUARDED, "GUARDED.example.:443", client()).await), 200);
    // HTTP/2, where a browser reuses a connection for every host of its certificate.
    let config = client_config(hosts.own.cert.der(), "h2", client(), &[&TLS13]);
    let stream = tls_by(proxy.https, PLAIN, config).await.unwrap();
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let driver = tokio::spawn(connection);
    for (host, expected) in [(PLAIN, 200), (GUARDED, 421), (PLAIN, 200)] {
        let request = Request::get(format!("https://{host}/")).body(Empty::<Bytes>::new()).unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), expected, "{host}");
        response.into_body().collect().await.unwrap();
    }
    drop(sender);
    driver.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_client_in_the_clear_is_sent_to_tls_or_refused() {
    let mut hosts = Hosts::guarded(&[]).await;
    let mut proxy = Proxy::start(hosts.snapshot.clone());
    let answer = exchange(proxy.http, get(GUARDED, "/x")).await;
    assert!(status(&answer) == 308 && answer.contains("\r\nlocation: https://guarded.example/x\r\n"), "{answer}");
    annotate(&mut hosts.snapshot, "guarded", &[("ssl-redirect", "false")]);
    proxy.apply(&hosts.snapshot);
    assert_eq!(status(&exchange(proxy.http, get(GUARDED, "/x")).await), 400);
    let optional = Hosts::guarded(&[("auth-tls-verify-client", "optional"), ("ssl-redirect", "false")]).await;
    let proxy = Proxy::start(optional.snapshot.clone());
    let answer = exchange(proxy.http, get(GUARDED, "/x")).await;
    assert!(status(&answer) == 200 && answer.contains("ssl-client-verify: NONE\n"), "{answer}");
}

/// Gives every session to every host, as a client might that wants to carry one over.
#[derive(Debug)]
struct Anywhere(ClientSessionMemoryCache);

fn anywhere() -> ServerName<'static> {
    ServerName::try_from("anywhere").unwrap()
}

impl ClientSessionStore for Anywhere {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.0.set_kx_hint(anywhere(), group);
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.0.kx_hint(&anywhere())
    }

    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.0.set_tls12_session(anywhere(), value);
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.0.tls12_session(&anywhere())
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.0.remove_tls12_session(&anywhere());
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.0.insert_tls13_ticket(anywhere(), value);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.take_tls13_ticket(&anywhere())
    }
}

#[tokio::test]
async fn sessions_are_resumed_within_a_host_and_never_across_the_boundary() {
    for versions in [[&TLS13], [&TLS12]] {
        let hosts = Hosts::guarded(&[]).await;
        let mut proxy = Proxy::start(hosts.snapshot.clone());
        let mut config =
            client_config(hosts.own.cert.der(), "http/1.1", Some(identity(&hosts.ca, "client")), &versions);
        config.resumption = Resumption::store(Arc::new(Anywhere(ClientSessionMemoryCache::new(64))));
        let config = Arc::new(config);
        let ask = async |proxy: &Proxy, host: &str| {
            let mut stream = tls_by(proxy.https, host, Arc::clone(&config)).await.unwrap();
            let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let code = status(&read_until(&mut stream, "body=").await);
            (stream.get_ref().1.handshake_kind().unwrap(), code)
        };
        assert_eq!(ask(&proxy, PLAIN).await, (HandshakeKind::Full, 200));
        assert_eq!(ask(&proxy, PLAIN).await, (HandshakeKind::Resumed, 200), "tickets work at all");
        assert_eq!(ask(&proxy, GUARDED).await, (HandshakeKind::Full, 200), "not with the plain host's");
        assert_eq!(ask(&proxy, GUARDED).await, (HandshakeKind::Resumed, 200), "the certificate is remembered");
        assert_eq!(ask(&proxy, PLAIN).await, (HandshakeKind::Full, 200), "not with the guarded host's");
        // Something else changes: the sessions stay.
        assert_eq!(ask(&proxy, GUARDED).await, (HandshakeKind::Full, 200));
        let mut snapshot = hosts.snapshot.clone();
        ingress(&mut snapshot, "more", &[("more.example", "/", "web")], &[]);
        proxy.apply(&snapshot);
        assert_eq!(ask(&proxy, GUARDED).await, (HandshakeKind::Resumed, 200));
        // Another authority: a session from before it is worth nothing.
        secret_of(&mut snapshot, "ca", "Opaque", &[("ca.crt", &ca("others").pem())]);
        proxy.apply(&snapshot);
        let mut stream = tls_by(proxy.https, GUARDED, Arc::clone(&config)).await.unwrap();
        stream.write_all(get(GUARDED, "/").as_bytes()).await.unwrap();
        assert_eq!(status(&read_until(&mut stream, "\r\n\r\n").await), 400);
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
    }
}

/// The rules of the moment hold for a request, however old its connection is.
#[tokio::test]
async fn an_open_connection_is_judged_by_new_rules() {
    let mut hosts = Hosts::new(&[]).await;
    let mut proxy = Proxy::start(hosts.snapshot.clone());
    let request = format!("GET / HTTP/1.1\r\nHost: {GUARDED}\r\n\r\n");
    let open = async |proxy: &Proxy, identity| {
        let mut stream = tls_by(proxy.https, GUARDED, hosts.config(Some(identity))).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        assert_eq!(status(&read_until(&mut stream, "body=").await), 200);
        stream
    };
    let mut before = open(&proxy, identity(&hosts.ca, "client")).await;
    annotate(&mut hosts.snapshot, "guarded", &[("auth-tls-secret", "ca")]);
    proxy.apply(&hosts.snapshot);
    before.write_all(request.as_bytes()).await.unwrap();
    let answer = read_until(&mut before, "\r\n\r\n").await;
    assert_eq!(status(&answer), 421, "it was never asked for a certificate: {answer}");
    let mut judged = {
        let mut stream = tls_by(proxy.https, GUARDED, hosts.config(Some(identity(&hosts.ca, "client")))).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        assert_eq!(status(&read_until(&mut stream, "body=").await), 200);
        stream
    };
    secret_of(&mut hosts.snapshot, "ca", "Opaque", &[("ca.crt", &ca("others").pem())]);
    proxy.apply(&hosts.snapshot);
    judged.write_all(request.as_bytes()).await.unwrap();
    assert_eq!(status(&read_until(&mut judged, "\r\n\r\n").await), 400, "nobody vouches for it any more");
}

#[tokio::test]
async fn versions_are_chosen_by_host_and_by_option() {
    let mut hosts = Hosts::new(&[("ssl-protocols", "TLSv1.3")]).await;
    let mut proxy = Proxy::start(hosts.snapshot.clone());
    let with = async |proxy: &Proxy, host: &str, version| {
        let config = client_config(hosts.own.cert.der(), "http/1.1", None, &[version]);
        tls_by(proxy.https, host, config).await.is_ok()
    };
    assert!(with(&proxy, GUARDED, &TLS13).await && !with(&proxy, GUARDED, &TLS12).await);
    assert!(with(&proxy, PLAIN, &TLS13).await && with(&proxy, PLAIN, &TLS12).await);
    options(&mut hosts.snapshot, &[("ssl-protocols", "TLSv1.2")]);
    proxy.apply(&hosts.snapshot);
    assert!(!with(&proxy, PLAIN, &TLS13).await && with(&proxy, PLAIN, &TLS12).await);
    assert!(with(&proxy, GUARDED, &TLS13).await && !with(&proxy, GUARDED, &TLS12).await);
    options(&mut hosts.snapshot, &[("ssl-protocols", "TLSv9")]);
    proxy.apply(&hosts.snapshot);
    assert!(with(&proxy, PLAIN, &TLS13).await && with(&proxy, PLAIN, &TLS12).await);
    assert_eq!(proxy.metric(WARNINGS).as_deref(), Some("1"));
}

/// The client would rather have ChaCha20; the server's own order begins with AES.
#[tokio::test]
async fn the_order_of_ciphers_is_the_client_s_unless_a_host_says_otherwise() {
    use rustls::{CipherSuite, crypto::ring::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256};
    let mut hosts = Hosts::new(&[("ssl-prefer-server-ciphers", "true")]).await;
    let mut proxy = Proxy::start(hosts.snapshot.clone());
    let mut provider = rustls::crypto::ring::default_provider();
    provider.cipher_suites.insert(0, TLS13_CHACHA20_POLY1305_SHA256);
    let mut roots = rustls::RootCertStore::empty();
    roots.add(hosts.own.cert.der().clone()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(&[&TLS13]).unwrap();
    let config = Arc::new(builder.with_root_certificates(roots).with_no_client_auth());
    let chosen = async |proxy: &Proxy, host: &str| {
        let stream = tls_by(proxy.https, host, Arc::clone(&config)).await.unwrap();
        stream.get_ref().1.negotiated_cipher_suite().unwrap().suite()
    };
    assert_eq!(chosen(&proxy, PLAIN).await, CipherSuite::TLS13_CHACHA20_POLY1305_SHA256);
    assert_eq!(chosen(&proxy, GUARDED).await, CipherSuite::TLS13_AES_256_GCM_SHA384);
    annotate(&mut hosts.snapshot, "guarded", &[("ssl-prefer-server-ciphers", "on")]);
    proxy.apply(&hosts.snapshot);
    assert_eq!(chosen(&proxy, GUARDED).await, CipherSuite::TLS13_CHACHA20_POLY1305_SHA256);
    assert_eq!(proxy.metric(WARNINGS).as_deref(), Some("1"));
}
