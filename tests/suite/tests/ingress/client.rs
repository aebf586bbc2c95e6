//! Clients that write bytes and read answers, in the clear and over TLS.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
};

use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, crypto::ring};
use rustls_pki_types::{CertificateDer, ServerName};

use super::{daemon::DEADLINE, pod::Seen};

/// An answer as it came.
#[derive(Clone, Debug, Default)]
pub(super) struct Answer {
    pub(super) version: String,
    pub(super) status: u16,
    fields: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Answer {
    /// Reads one answer to a request that is not HEAD; `None` where the stream ends before its first byte.
    pub(super) fn read(stream: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let broken = || io::Error::new(io::ErrorKind::InvalidData, "no answer");
        let (version, rest) = line.split_once(' ').ok_or_else(broken)?;
        let status = rest.get(..3).and_then(|status| status.parse().ok()).ok_or_else(broken)?;
        let mut answer = Self { version: version.to_owned(), status, ..Self::default() };
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            answer.fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        answer.read_body(stream)?;
        Ok(Some(answer))
    }

    fn read_body(&mut self, stream: &mut impl BufRead) -> io::Result<()> {
        if self.status == 101 || self.status == 204 {
            return Ok(());
        }
        if let Some(length) = self.field("content-length") {
            self.body.resize(length.parse().map_err(io::Error::other)?, 0);
            return stream.read_exact(&mut self.body);
        }
        if self.field("transfer-encoding").is_none() {
            return stream.read_to_end(&mut self.body).map(drop);
        }
        loop {
            let mut size = String::new();
            stream.read_line(&mut size)?;
            let size = usize::from_str_radix(size.trim(), 16).map_err(io::Error::other)?;
            let start = self.body.len();
            self.body.resize(start + size, 0);
            stream.read_exact(&mut self.body[start..])?;
            stream.read_line(&mut String::new())?;
            if size == 0 {
                return Ok(());
            }
        }
    }

    /// The value of a field that came once; several are joined.
    pub(super) fn field(&self, name: &str) -> Option<String> {
        let values: Vec<&str> = self.fields.iter().filter(|(own, _)| own == name).map(|(_, value)| &**value).collect();
        (!values.is_empty()).then(|| values.join(" | "))
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// What the pod says that it saw.
    pub(super) fn seen(&self) -> Seen {
        Seen::parse(&self.body).unwrap_or_else(|| panic!("{} is no answer of a pod: {}", self.status, self.text()))
    }
}

/// A request without a body, after which the proxy closes.
pub(super) fn request(method: &str, host: &str, target: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
}

pub(super) fn get(host: &str, target: &str) -> String {
    request("GET", host, target)
}

/// A connection on which nothing is waited for longer than the deadline.
pub(super) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// One request on a connection of its own.
pub(super) fn ask(address: SocketAddr, request: impl AsRef<[u8]>) -> Answer {
    ask_on(connect(address), request.as_ref())
}

pub(super) fn ask_on(mut stream: impl Read + Write, request: &[u8]) -> Answer {
    stream.write_all(request).unwrap();
    Answer::read(&mut BufReader::new(stream)).unwrap().expect("an answer")
}

/// Everything that comes back until the proxy closes; what cannot be written any more is left.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) answers: Vec<Answer>,
    /// The proxy ended the connection.
    pub(super) closed: bool,
}

/// Sends bytes that may be no request, and reads until the proxy closes or says nothing more.
pub(super) fn exchange(address: SocketAddr, bytes: &[u8]) -> Exchange {
    let mut stream = connect(address);
    let _refused_meanwhile = stream.write_all(bytes);
    let mut stream = BufReader::new(stream);
    let mut answers = Vec::new();
    loop {
        match Answer::read(&mut stream) {
            Ok(Some(answer)) => answers.push(answer),
            Ok(None) => return Exchange { answers, closed: true },
            Err(error) => {
                let waiting = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
                return Exchange { answers, closed: !waiting };
            }
        }
    }
}

/// TLS that believes this certificate alone.
pub(super) fn tls(
    address: SocketAddr,
    name: &str,
    trusted: &CertificateDer<'static>,
) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let config = builder.with_root_certificates(roots).with_no_client_auth();
    tls_with(address, name, config)
}

pub(super) fn tls_with(
    address: SocketAddr,
    name: &str,
    config: ClientConfig,
) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = connect(address);
    while connection.is_handshaking() {
        connection.complete_io(&mut stream)?;
    }
    Ok(StreamOwned::new(connection, stream))
}
