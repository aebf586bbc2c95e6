//! Clients that write raw bytes, in the clear and over TLS.

use std::{net::SocketAddr, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion,
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::DEADLINE;

/// `GET path` that asks to close.
pub(crate) fn get(host: &str, path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
}

/// Sends bytes, returns everything that comes back until the proxy closes.
pub(crate) async fn exchange(address: SocketAddr, bytes: impl AsRef<[u8]>) -> String {
    let stream = TcpStream::connect(address).await.unwrap();
    exchange_on(stream, bytes.as_ref()).await
}

pub(crate) async fn exchange_on(mut stream: impl AsyncRead + AsyncWrite + Unpin, bytes: &[u8]) -> String {
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let read = timeout(DEADLINE, stream.read_to_end(&mut answer)).await.expect("the proxy closes in time");
    // A reset after the answer is no loss of it.
    assert!(read.is_ok() || !answer.is_empty(), "{read:?}");
    String::from_utf8_lossy(&answer).into_owned()
}

/// Reads until the text is there.
pub(crate) async fn read_until(stream: &mut (impl AsyncRead + Unpin), end: &str) -> String {
    let mut answer = Vec::new();
    let read = async {
        while !String::from_utf8_lossy(&answer).contains(end) {
            assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0, "ended after {answer:?}");
        }
    };
    timeout(DEADLINE, read).await.expect("the answer in time");
    String::from_utf8(answer).unwrap()
}

/// The status of an answer.
pub(crate) fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("no status in {answer:?}"))
}

/// A handshake for `name`; only `trusted` is believed.
pub(crate) async fn tls(
    address: SocketAddr,
    name: &str,
    trusted: &CertificateDer<'static>,
    protocol: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    tls_by(address, name, client_config(trusted, protocol, None, &[&TLS13, &TLS12])).await
}

/// How a client shakes hands: whom it believes, what it speaks, and what it shows.
pub(crate) fn client_config(
    trusted: &CertificateDer<'static>,
    protocol: &str,
    identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    versions: &[&'static SupportedProtocolVersion],
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = roadstead_proxy::tls::provider();
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
    let builder = builder.with_root_certificates(roots);
    let mut config = match identity {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    config
}

/// A handshake for `name` by such a configuration.
pub(crate) async fn tls_by(
    address: SocketAddr,
    name: &str,
    config: impl Into<Arc<ClientConfig>>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    timeout(DEADLINE, TlsConnector::from(config.into()).connect(name, stream)).await.expect("a handshake in time")
}
