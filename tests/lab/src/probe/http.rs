//! HTTP/1.1, plain or over TLS, one request a connection.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::header::{CONNECTION, HOST, HeaderName, HeaderValue};
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;

use super::tls::{self, TlsFlags};
use super::{Answer, Repeat};

/// The longest body that is read.
const LONGEST_BODY: usize = 16 << 20;

/// The flags of `probe http`.
#[derive(Args, Clone, Debug)]
pub struct HttpFlags {
    /// `http://HOST[:PORT]/PATH`, or `https://…`
    url: Uri,
    /// Where the URL's host is; needed where it is a name, which is not looked up
    #[arg(long, value_name = "ADDRESS:PORT")]
    resolve_to: Option<SocketAddr>,
    /// Another host for the Host header than the URL's, which stays in the TLS greeting
    #[arg(long)]
    host: Option<String>,
    #[arg(long, default_value = "GET")]
    method: Method,
    /// `NAME: VALUE`
    #[arg(long, value_parser = header)]
    header: Vec<(HeaderName, HeaderValue)>,
    #[command(flatten)]
    tls: TlsFlags,
    #[command(flatten)]
    pub(super) repeat: Repeat,
}

/// What all attempts have in common.
pub(super) struct Client {
    flags: HttpFlags,
    /// The name in the URL, without the brackets of an IPv6 address.
    host: String,
    address: SocketAddr,
    tls: Option<TlsConnector>,
}

impl Client {
    pub(super) fn new(flags: &HttpFlags) -> Result<Self> {
        let secure = match flags.url.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(anyhow!("{} is neither http nor https", flags.url)),
        };
        let host = flags.url.host().context("the URL has no host")?.trim_matches(['[', ']']);
        let port = flags.url.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let written = || host.parse().map(|ip| SocketAddr::new(ip, port));
        let address = flags.resolve_to.map_or_else(written, Ok);
        Ok(Self {
            flags: flags.clone(),
            host: host.to_owned(),
            address: address.with_context(|| format!("where is {host}? --resolve-to ADDRESS:PORT says it"))?,
            tls: if secure { Some(tls::connector(&flags.tls)?) } else { None },
        })
    }

    pub(super) fn probe(&self, runtime: &Runtime, timeout: Duration) -> Answer {
        Answer::of(|answer| runtime.block_on(self.timed(answer, timeout)))
    }

    /// One exchange within its time.
    pub(super) async fn timed(&self, answer: &mut Answer, timeout: Duration) -> Result<()> {
        let late = |_| anyhow::Error::from(std::io::Error::from(std::io::ErrorKind::TimedOut));
        tokio::time::timeout(timeout, self.exchange(answer)).await.map_err(late)?
    }

    async fn exchange(&self, answer: &mut Answer) -> Result<()> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        answer.peer = Some(stream.peer_addr()?);
        answer.local = Some(stream.local_addr()?);
        let Some(tls) = &self.tls else { return self.request(stream, answer).await };
        let name = ServerName::try_from(self.host.clone()).context("tls: the host is no server name")?;
        let stream = tls.connect(name, stream).await.map_err(tls::told)?;
        self.request(stream, answer).await
    }

    async fn request(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        answer: &mut Answer,
    ) -> Result<()> {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // Its errors reach the request as well.
        let connection = tokio::spawn(connection);
        let response = sender.send_request(self.head()?).await?;
        answer.status = Some(response.status().as_u16());
        for (name, value) in response.headers() {
            answer.headers.insert(name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned());
        }
        let body = Limited::new(response.into_body(), LONGEST_BODY).collect().await;
        answer.take(&body.map_err(|error| anyhow!(error))?.to_bytes());
        connection.abort();
        Ok(())
    }

    fn head(&self) -> Result<Request<Empty<Bytes>>> {
        let path = self.flags.url.path_and_query().map_or("/", |path| path.as_str());
        let authority = self.flags.url.authority().map_or(self.host.as_str(), |authority| authority.as_str());
        let host = self.flags.host.as_deref().unwrap_or(authority);
        let mut request = Request::builder().method(&self.flags.method).uri(path).body(Empty::new())?;
        let headers = request.headers_mut();
        headers.insert(HOST, HeaderValue::from_str(host).context("the host is no header value")?);
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        headers.extend(self.flags.header.iter().cloned());
        Ok(request)
    }
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue)> {
    let (name, value) = text.split_once(':').context("a header is \"NAME: VALUE\"")?;
    Ok((name.trim().parse()?, value.trim().parse()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_as_they_are_written() {
        let cases = [
            ("Accept: */*", Some(("accept", "*/*"))),
            ("X-A:b:c", Some(("x-a", "b:c"))),
            ("none", None),
            (": x", None),
        ];
        for (text, expected) in cases {
            let read = header(text).ok();
            let read = read.as_ref().map(|(name, value)| (name.as_str(), value.to_str().unwrap()));
            assert_eq!(read, expected, "{text}");
        }
    }
}
