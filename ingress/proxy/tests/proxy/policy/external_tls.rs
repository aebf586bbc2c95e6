//! An authentication service over TLS: the program trusts it by the roots of its host, and asks nobody else.

use std::{fs, sync::Arc};

use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt, net::TcpListener, task::JoinHandle};
use tokio_rustls::TlsAcceptor;

use crate::{
    binary::Program,
    client::{exchange, get, read_until, status},
};

/// Answers 200 to whatever is asked, with a certificate for `localhost`, which is returned as PEM.
async fn start() -> (u16, String, JoinHandle<()>) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let chain: Vec<CertificateDer<'static>> = vec![made.cert.der().clone()];
    let provider = roadstead_proxy::tls::provider();
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = builder.with_no_client_auth().with_single_cert(chain, key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // A client that does not trust the certificate leaves in the handshake.
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            read_until(&mut stream, "\r\n\r\n").await;
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await.unwrap();
            stream.shutdown().await.unwrap();
        }
    });
    (port, made.cert.pem(), task)
}

/// The program has no endpoint, so a request that may come gets 503 and one that nobody vouches for 500.
#[tokio::test]
async fn a_service_over_tls_is_asked_where_its_certificate_is_trusted() {
    let (port, certificate, service) = start().await;
    let (manifests, state) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let manifest = format!(
        r#"apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: web
  annotations: {{ nginx.ingress.kubernetes.io/auth-url: "https://localhost:{port}/auth" }}
spec:
  rules:
  - host: a.example
    http:
      paths:
      - path: /
        pathType: Prefix
        backend: {{ service: {{ name: web, port: {{ number: 80 }} }} }}
"#
    );
    fs::write(manifests.path().join("web.yaml"), manifest).unwrap();
    let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap().cert.pem();
    for (roots, expected) in [(certificate, 503), (other, 500)] {
        let file = state.path().join("roots.pem");
        fs::write(&file, roots).unwrap();
        let program = Program::start_with(manifests.path(), state.path(), &[("SSL_CERT_FILE", &file)]);
        let answer = exchange(program.http, get("a.example", "/")).await;
        assert_eq!(status(&answer), expected, "{answer}");
    }
    service.abort();
}
