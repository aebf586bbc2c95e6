//! TLS to endpoints: who is believed, what is shown to them, and that connections never cross from one trust to another.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, body::Incoming, server::conn::http1, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use roadstead_model::Snapshot;
use rustls::{RootCertStore, ServerConfig, server::WebPkiClientVerifier};
use rustls_pki_types::{PrivateKeyDer, pem::PemObject};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::TlsAcceptor;

use super::{problems, snapshot};
use crate::{
    client::{exchange, get, read_until, status},
    objects::{annotate, ingress, secret_of},
    proxy::Proxy,
};

/// An authority, perhaps one that another one vouches for.
struct Authority {
    pem: String,
    /// What it must show with each certificate, so that its root is found.
    chain: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key, and what leads to its root.
struct Pair {
    chain: String,
    key: String,
}

impl Authority {
    fn root(name: &str) -> Self {
        Self::new(name, None)
    }

    fn new(name: &str, above: Option<&Self>) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let (pem, chain) = match above {
            None => (params.self_signed(&key).unwrap().pem(), String::new()),
            Some(above) => {
                let pem = params.signed_by(&key, &above.issuer).unwrap().pem();
                (pem.clone(), format!("{pem}{}", above.chain))
            }
        };
        Self { pem, chain, issuer: Issuer::new(params, key) }
    }

    fn pair(&self, name: &str) -> Pair {
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Pair { chain: format!("{}{}", certificate.pem(), self.chain), key: key.serialize_pem() }
    }
}

/// Whom an endpoint lets in.
enum Clients {
    Any,
    Of(String),
}

/// Tells what it saw of the handshake. Ends when it is dropped.
struct TlsEndpoint {
    address: std::net::SocketAddr,
    handshakes: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for TlsEndpoint {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl TlsEndpoint {
    async fn start(pair: &Pair, clients: Clients) -> Self {
        let builder = ServerConfig::builder_with_provider(roadstead_proxy::tls::provider());
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let builder = match clients {
            Clients::Any => builder.with_no_client_auth(),
            Clients::Of(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(rustls_pki_types::CertificateDer::from_pem_slice(authority.as_bytes()).unwrap()).unwrap();
                let provider = roadstead_proxy::tls::provider();
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
                builder.with_client_cert_verifier(verifier)
            }
        };
        let chain: Result<Vec<_>, _> =
            rustls_pki_types::CertificateDer::pem_slice_iter(pair.chain.as_bytes()).collect();
        let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
        let mut config = builder.with_single_cert(chain.unwrap(), key).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let handshakes = Arc::new(AtomicUsize::new(0));
        let task = tokio::spawn(accept(listener, TlsAcceptor::from(Arc::new(config)), Arc::clone(&handshakes)));
        Self { address, handshakes, task }
    }

    fn handshakes(&self) -> usize {
        self.handshakes.load(Ordering::SeqCst)
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, handshakes: Arc<AtomicUsize>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (acceptor, handshakes) = (acceptor.clone(), Arc::clone(&handshakes));
        connections.spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            handshakes.fetch_add(1, Ordering::SeqCst);
            let tls = stream.get_ref().1;
            let seen = format!(
                "sni={} client={} version={:?} suite={:?}",
                tls.server_name().unwrap_or("-"),
                tls.peer_certificates().map_or(0, <[_]>::len),
                tls.protocol_version().unwrap(),
                tls.negotiated_cipher_suite().unwrap().suite(),
            );
            let h2 = tls.alpn_protocol() == Some(b"h2");
            let service = service_fn(move |request| {
                let seen = seen.clone();
                async move { Ok::<_, std::convert::Infallible>(answer(request, &seen)) }
            });
            if h2 {
                let _ = http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
            } else {
                let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                let _ = connection.with_upgrades().await;
            }
        });
    }
}

fn answer(mut request: Request<Incoming>, seen: &str) -> Response<Full<Bytes>> {
    if request.headers().contains_key("upgrade") {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let (mut read, mut write) = tokio::io::split(TokioIo::new(upgrade.await.unwrap()));
            tokio::io::copy(&mut read, &mut write).await
        });
        let response = Response::builder().status(101).header("upgrade", "websocket").header("connection", "upgrade");
        return response.body(Full::default()).unwrap();
    }
    Response::new(Full::from(format!("{:?} {seen}\n", request.version())))
}

const HTTPS: (&str, &str) = ("backend-protocol", "HTTPS");

fn with_secret(endpoint: &TlsEndpoint, annotations: &[(&str, &str)], data: &[(&str, &str)]) -> Snapshot {
    let mut snapshot = snapshot(&[endpoint.address], annotations);
    secret_of(&mut snapshot, "s", "Opaque", data);
    snapshot
}

async fn ask(proxy: &Proxy) -> String {
    exchange(proxy.http, get("a", "/")).await
}

#[tokio::test]
async fn any_certificate_will_do_unless_it_is_verified() {
    let (ours, theirs) = (Authority::root("ours"), Authority::root("theirs"));
    let web = TlsEndpoint::start(&ours.pair("web.example"), Clients::Any).await;
    let verify: &[(&str, &str)] = &[HTTPS, ("proxy-ssl-verify", "on"), ("proxy-ssl-secret", "s")];
    let named = |name: &'static str| [verify, &[("proxy-ssl-name", name)]].concat();
    for (annotations, authority, expected) in [
        (vec![HTTPS], &theirs, 200),
        (vec![HTTPS, ("proxy-ssl-secret", "s")], &theirs, 200),
        (named("web.example"), &ours, 200),
        (named("web.example"), &theirs, 502),
        (named("other.example"), &ours, 502),
        // Nobody says whom to expect: the Service, as its own name within the cluster.
        (verify.to_vec(), &ours, 502),
    ] {
        let proxy = Proxy::start(with_secret(&web, &annotations, &[("ca.crt", &authority.pem)]));
        let answer = ask(&proxy).await;
        assert_eq!(status(&answer), expected, "{annotations:?}: {answer}");
        assert_eq!(problems(&proxy), "0 warnings, 0 errors", "{annotations:?}");
    }
    let web = TlsEndpoint::start(&ours.pair("web.default.svc"), Clients::Any).await;
    let proxy = Proxy::start(with_secret(&web, verify, &[("ca.crt", &ours.pem)]));
    assert_eq!(status(&ask(&proxy).await), 200);
}

#[tokio::test]
async fn the_way_to_the_authority_has_a_length() {
    let root = Authority::root("root");
    let middle = Authority::new("middle", Some(&root));
    let web = TlsEndpoint::start(&middle.pair("web.example"), Clients::Any).await;
    let base = [HTTPS, ("proxy-ssl-verify", "on"), ("proxy-ssl-secret", "s"), ("proxy-ssl-name", "web.example")];
    for (depth, expected) in [("0", 502), ("1", 200), ("2", 200), ("deep", 200)] {
        let annotations = [&base[..], &[("proxy-ssl-verify-depth", depth)]].concat();
        let proxy = Proxy::start(with_secret(&web, &annotations, &[("ca.crt", &root.pem)]));
        let answer = ask(&proxy).await;
        assert_eq!(status(&answer), expected, "{depth}: {answer}");
    }
}

#[tokio::test]
async fn names_versions_and_suites_are_as_asked_for() {
    let ours = Authority::root("ours");
    let web = TlsEndpoint::start(&ours.pair("web.example"), Clients::Any).await;
    let name = ("proxy-ssl-name", "web.example");
    for (more, expected) in [
        (&[][..], "sni=- client=0 version=TLSv1_3"),
        (&[name], "sni=- "),
        (&[name, ("proxy-ssl-server-name", "on")], "sni=web.example "),
        (&[("proxy-ssl-server-name", "on")], "sni=web.default.svc "),
        (&[("proxy-ssl-protocols", "TLSv1.2")], "version=TLSv1_2"),
        (&[("proxy-ssl-protocols", "TLSv1.3")], "version=TLSv1_3"),
        (
            &[("proxy-ssl-protocols", "TLSv1.2"), ("proxy-ssl-ciphers", "ECDHE-ECDSA-AES128-GCM-SHA256")],
            "suite=TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        ),
    ] {
        let annotations = [&[HTTPS], more].concat();
        let proxy = Proxy::start(snapshot(&[web.address], &annotations));
        let answer = ask(&proxy).await;
        assert!(answer.contains(expected), "{annotations:?}: {answer}");
    }
}

#[tokio::test]
async fn endpoints_that_ask_for_a_certificate_are_shown_the_secret_s() {
    let ours = Authority::root("ours");
    let web = TlsEndpoint::start(&ours.pair("web.example"), Clients::Of(ours.pem.clone())).await;
    let shown = ours.pair("proxy.example");
    let pair = [("tls.crt", shown.chain.as_str()), ("tls.key", shown.key.as_str())];
    let proxy = Proxy::start(with_secret(&web, &[HTTPS, ("proxy-ssl-secret", "default/s")], &pair));
    let answer = ask(&proxy).await;
    assert!(answer.contains("client=1"), "{answer}");
    let proxy = Proxy::start(with_secret(&web, &[HTTPS], &pair));
    assert_eq!(status(&ask(&proxy).await), 502);
}

#[tokio::test]
async fn a_secret_counts_as_soon_as_it_changes() {
    let (ours, theirs) = (Authority::root("ours"), Authority::root("theirs"));
    let web = TlsEndpoint::start(&ours.pair("web.example"), Clients::Any).await;
    let annotations = [HTTPS, ("proxy-ssl-verify", "on"), ("proxy-ssl-secret", "s"), ("proxy-ssl-name", "web.example")];
    let mut snapshot = snapshot(&[web.address], &annotations);
    let mut proxy = Proxy::start(snapshot.clone());
    assert_eq!((status(&ask(&proxy).await), problems(&proxy)), (503, "0 warnings, 1 errors".to_owned()));
    for (data, expected, told) in [
        (&[("ca.crt", ours.pem.as_str())][..], 200, 0),
        (&[("ca.crt", &theirs.pem)], 502, 0),
        (&[("ca.crt", "nonsense")], 503, 1),
        (&[("other", "x")], 503, 1),
        (&[("ca.crt", &ours.pem), ("tls.crt", "nonsense"), ("tls.key", "nonsense")], 503, 1),
        (&[("ca.crt", &ours.pem)], 200, 0),
    ] {
        secret_of(&mut snapshot, "s", "Opaque", data);
        proxy.apply(&snapshot);
        assert_eq!(status(&ask(&proxy).await), expected, "{data:?}");
        assert_eq!(problems(&proxy), format!("0 warnings, {told} errors"), "{data:?}");
    }
}

#[tokio::test]
async fn connections_do_not_cross_from_one_trust_to_another() {
    let (ours, theirs) = (Authority::root("ours"), Authority::root("theirs"));
    let web = TlsEndpoint::start(&ours.pair("web.example"), Clients::Any).await;
    let mut snapshot = with_secret(&web, &[HTTPS], &[("ca.crt", &ours.pem)]);
    secret_of(&mut snapshot, "theirs", "Opaque", &[("ca.crt", &theirs.pem)]);
    let verify = [HTTPS, ("proxy-ssl-verify", "on"), ("proxy-ssl-name", "web.example")];
    for (host, secret) in [("b", "s"), ("c", "theirs")] {
        ingress(&mut snapshot, host, &[(host, "/", "web")], &[]);
        annotate(&mut snapshot, host, &verify);
        annotate(&mut snapshot, host, &[("proxy-ssl-secret", secret)]);
    }
    let proxy = Proxy::start(snapshot);
    let mut seen = Vec::new();
    for host in ["a", "b", "c", "a", "b", "c"] {
        seen.push((status(&exchange(proxy.http, get(host, "/")).await), web.handshakes()));
    }
    // One connection for each of the first two, used twice; none is good enough for the third.
    let refused = seen[2];
    assert_eq!(refused.0, 502);
    let statuses: Vec<_> = seen.iter().map(|(status, _)| *status).collect();
    assert_eq!(statuses, [200, 200, 502, 200, 200, 502]);
    assert_eq!((seen[0].1, seen[1].1), (1, 2));
    assert_eq!((seen[3].1, seen[4].1), (refused.1, refused.1), "both are reused");
}

#[tokio::test]
async fn what_would_weaken_trust_is_refused_and_told() {
    let ours = Authority::root("ours");
    let web = TlsEndpoint::start(&ours.pair("web.example"), Clients::Any).await;
    for (key, value, expected) in [
        ("proxy-ssl-verify", "on", 503),
        ("proxy-ssl-verify", "maybe", 503),
        ("proxy-ssl-secret", "other/s", 503),
        ("proxy-ssl-secret", "a/b/c", 503),
        ("proxy-ssl-name", "a b", 200),
        ("proxy-ssl-server-name", "maybe", 200),
        ("proxy-ssl-protocols", "TLSv1", 200),
        ("proxy-ssl-ciphers", "RC4", 200),
    ] {
        let proxy = Proxy::start(snapshot(&[web.address], &[HTTPS, (key, value)]));
        assert_eq!(status(&ask(&proxy).await), expected, "{key} {value}");
        assert_eq!(problems(&proxy), "1 warnings, 0 errors", "{key} {value}");
    }
}

#[tokio::test]
async fn the_protocol_may_follow_the_client_or_be_grpc() {
    let ours = Authority::root("ours");
    let web = TlsEndpoint::start(&ours.pair("web.example"), Clients::Any).await;
    for (protocol, expected) in [("HTTPS", "HTTP/1.1 sni"), ("GRPCS", "HTTP/2.0 sni")] {
        let proxy = Proxy::start(snapshot(&[web.address], &[("backend-protocol", protocol)]));
        for _ in 0..2 {
            let answer = ask(&proxy).await;
            assert!(answer.contains(expected), "{protocol}: {answer}");
        }
    }
    assert_eq!(web.handshakes(), 2);
    let (plain, secure) = (crate::endpoint::TestEndpoint::start("plain").await, web);
    let mut snapshot = snapshot(&[plain.address], &[("backend-protocol", "AUTO_HTTP")]);
    crate::objects::service(&mut snapshot, "secure", &[secure.address]);
    ingress(&mut snapshot, "secure", &[("b", "/", "secure")], &[]);
    annotate(&mut snapshot, "secure", &[("backend-protocol", "AUTO_HTTP")]);
    let client = rcgen::generate_simple_self_signed(vec!["b".to_owned()]).unwrap();
    crate::objects::secret(&mut snapshot, "b", &client.cert.pem(), &client.signing_key.serialize_pem());
    crate::objects::edit(&mut snapshot, "secure", |ingress| {
        ingress.tls.push(roadstead_model::IngressTls {
            hosts: vec![roadstead_model::Host::Exact("b".to_owned())],
            secret: Some(roadstead_model::ObjectName::new("default", "b")),
        });
    });
    let proxy = Proxy::start(snapshot);
    assert!(ask(&proxy).await.contains("endpoint=plain"));
    let stream = crate::client::tls(proxy.https, "b", client.cert.der(), "http/1.1").await.unwrap();
    let answer = crate::client::exchange_on(stream, get("b", "/").as_bytes()).await;
    assert!(answer.contains("version=TLSv1_3"), "{answer}");
}

#[tokio::test]
async fn websockets_are_tunnelled_over_tls() {
    let ours = Authority::root("ours");
    let web = TlsEndpoint::start(&ours.pair("web.example"), Clients::Any).await;
    let proxy = Proxy::start(snapshot(&[web.address], &[HTTPS]));
    let mut stream = TcpStream::connect(proxy.http).await.unwrap();
    let request = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    assert_eq!(status(&read_until(&mut stream, "\r\n\r\n").await), 101);
    stream.write_all(b"hello").await.unwrap();
    assert_eq!(read_until(&mut stream, "hello").await, "hello");
    stream.shutdown().await.unwrap();
    assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0);
}
