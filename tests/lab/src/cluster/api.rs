//! A client of the API server, as small as the lab's needs: JSON over HTTP/2 from the network of a place.
//!
//! It shares no code with the sources of the daemons, whose view of the API the tests judge.

use std::fmt;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use bytes::{Buf as _, Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper::header::CONTENT_TYPE;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;

use super::credentials::Pair;
use crate::place::Place;

/// How long a connection may take, and a request that is no watch.
const CONNECT: Duration = Duration::from_secs(2);
const REQUEST: Duration = Duration::from_secs(15);
/// Until a request that was put off is made again.
const PUT_OFF: Duration = Duration::from_millis(200);
/// The longest answer, and the longest line of a watch.
const LONGEST: usize = 64 << 20;

/// What a body is.
pub(crate) const JSON: &str = "application/json";
/// What its manager wants of an object, in the place of what it wanted before.
pub(crate) const APPLY: &str = "application/apply-patch+yaml";
/// A patch that merges lists of objects by their keys.
pub(crate) const STRATEGIC_MERGE: &str = "application/strategic-merge-patch+json";
/// A patch that replaces lists.
pub(crate) const MERGE: &str = "application/merge-patch+json";

/// A client with its certificate. Clones share its connection.
#[derive(Clone)]
pub(crate) struct Api(Arc<Inner>);

struct Inner {
    /// From where it connects.
    place: Place,
    address: SocketAddr,
    tls: TlsConnector,
    connection: Mutex<Option<SendRequest<Full<Bytes>>>>,
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Api").field(&self.0.address).finish()
    }
}

/// The API server said no.
#[derive(Debug)]
pub struct Refusal {
    /// The status of HTTP.
    pub status: u16,
    /// Why, in words.
    pub message: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the API server says {}: {}", self.status, self.message)
    }
}

impl std::error::Error for Refusal {}

/// The status with which the API server refused; `None` for all other errors.
pub(crate) fn refused(error: &anyhow::Error) -> Option<u16> {
    error.downcast_ref::<Refusal>().map(|refusal| refusal.status)
}

impl Api {
    /// A client in a place's network.
    pub(super) fn new(place: &Place, address: SocketAddr, authority: &Path, pair: &Pair) -> Result<Self> {
        let certificates = CertificateDer::pem_file_iter(&pair.certificate)?.collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_file(&pair.key)?;
        let mut config = trusting(authority)?.with_client_auth_cert(certificates, key)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        let tls = TlsConnector::from(Arc::new(config));
        Ok(Self(Arc::new(Inner { place: place.clone(), address, tls, connection: Mutex::new(None) })))
    }

    /// Reads an object or a list.
    pub(crate) async fn get(&self, path: &str) -> Result<Value> {
        self.call(Method::GET, path, JSON, None).await
    }

    /// Makes a request and reads the answer: JSON, or text as a string. What the server only puts off (429), as all requests
    /// for a kind whose storage it makes just then, is asked again.
    pub(crate) async fn call(&self, method: Method, path: &str, kind: &str, body: Option<&Value>) -> Result<Value> {
        let exchange = async {
            loop {
                match self.exchange(&method, path, kind, body).await {
                    Err(error) if refused(&error) == Some(429) => sleep(PUT_OFF).await,
                    result => return result,
                }
            }
        };
        let late = || format!("{method} {path}: no answer within {REQUEST:?}");
        timeout(REQUEST, exchange).await.with_context(late)?
    }

    async fn exchange(&self, method: &Method, path: &str, kind: &str, body: Option<&Value>) -> Result<Value> {
        let response = self.send(method.clone(), path, kind, body).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LONGEST).collect().await;
        let bytes = body.map_err(|error| anyhow!(error))?.to_bytes();
        let answer: Value = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
        if !status.is_success() {
            let said = answer.get("message").and_then(Value::as_str).map_or_else(|| answer.to_string(), str::to_owned);
            return Err(Refusal { status: status.as_u16(), message: said }.into());
        }
        Ok(answer)
    }

    /// Begins a watch. The path has its parameters, `watch=1` among them.
    pub(crate) async fn watch(&self, path: &str) -> Result<Watch> {
        let begun = timeout(REQUEST, self.send(Method::GET, path, JSON, None)).await.context("no answer to a watch")?;
        let response = begun?;
        let status = response.status().as_u16();
        if status != 200 {
            bail!(Refusal { status, message: format!("no watch of {path}") });
        }
        Ok(Watch { body: response.into_body(), rest: BytesMut::new() })
    }

    async fn send(&self, method: Method, path: &str, kind: &str, body: Option<&Value>) -> Result<Response<Incoming>> {
        let inner = &self.0;
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = Request::builder().method(method).uri(format!("https://{}{path}", inner.address));
        let request = request.header(CONTENT_TYPE, kind).body(Full::new(Bytes::from(body)))?;
        let mut sender = self.connection().await?;
        let response = sender.send_request(request).await;
        if response.is_err() {
            // Whatever is wrong with it, the next request finds a new one.
            *inner.connection.lock().await = None;
        }
        Ok(response?)
    }

    async fn connection(&self) -> Result<SendRequest<Full<Bytes>>> {
        let inner = &self.0;
        let mut connection = inner.connection.lock().await;
        if let Some(sender) = connection.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(sender.clone());
        }
        let (place, address) = (inner.place.clone(), inner.address);
        let connect = move || place.run(|| TcpStream::connect_timeout(&address, CONNECT));
        let stream = tokio::task::spawn_blocking(connect).await???;
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let stream = tokio::net::TcpStream::from_std(stream)?;
        let name = ServerName::IpAddress(address.ip().into());
        let stream =
            timeout(CONNECT, inner.tls.connect(name, stream)).await.context("the handshake took too long")??;
        let (sender, driver) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        // Its errors reach the requests as well.
        tokio::spawn(driver);
        *connection = Some(sender.clone());
        Ok(sender)
    }
}

/// A running watch.
pub(crate) struct Watch {
    body: Incoming,
    rest: BytesMut,
}

impl Watch {
    /// The next event; `None` where the server ends the watch.
    pub(crate) async fn next(&mut self) -> Result<Option<Value>> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line = self.rest.split_to(end);
                self.rest.advance(1);
                return Ok(Some(serde_json::from_slice(&line)?));
            }
            let Some(frame) = self.body.frame().await else { return Ok(None) };
            if let Ok(data) = frame?.into_data() {
                self.rest.extend_from_slice(&data);
            }
            if self.rest.len() > LONGEST {
                bail!("an event of a watch is longer than {LONGEST} bytes");
            }
        }
    }
}

fn trusting(authority: &Path) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(authority)? {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(roots))
}
