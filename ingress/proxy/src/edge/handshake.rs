//! The start of TLS: the ClientHello is read first, bounded in size and time, and names the host; then the stream is passed
//! through to an endpoint as it is, or TLS ends here with what that host asks for.

use std::{io, sync::Arc, time::Duration};

use roadstead_routes::request_host;
use rustls::server::Acceptor;
use tokio::{
    io::AsyncWriteExt,
    time::{Instant, timeout_at},
};
use tokio_rustls::{LazyConfigAcceptor, StartHandshake, server::TlsStream};

use super::{Edge, conversation::Caller};
use crate::{
    intake::Intake,
    passthrough::pass,
    socket::Socket,
    tls::{HostProfile, Session, TlsChoice},
};

/// From the start of the connection to its last handshake message.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// From the start of the connection to the end of the ClientHello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest ClientHello with its record headers; post-quantum key shares make for about 2 KiB.
const MAX_HELLO_BYTES: usize = 16 * 1024;
/// The first byte of a handshake record.
const HANDSHAKE_RECORD: u8 = 0x16;
/// nginx's status 497, as its clients see it.
const PLAIN_ON_TLS: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nserver: roadstead\r\ncontent-type: text/plain; charset=utf-8\r\n\
    content-length: 59\r\nconnection: close\r\n\r\n400 The plain HTTP request was sent to the HTTPS port here\n";

/// The fatal alert of a server that does not serve the name (RFC 6066, section 3), as nginx's ssl_reject_handshake sends it.
const UNRECOGNISED_NAME: &[u8] = &[0x15, 3, 3, 0, 2, 2, 112];

/// A stream behind its handshake, and who speaks there.
pub(super) type Secured = (TlsStream<Intake<Socket>>, Caller);

impl Edge {
    /// Takes a connection of a TLS listener to the end of its handshake; one that is passed through to its very end.
    pub(super) async fn secure(&self, intake: Intake<Socket>, caller: Caller) -> Option<Box<Secured>> {
        let secured = self.shake_hands(intake, caller).await;
        if secured.is_err() {
            self.live.metrics.handshake_failures.inc();
        }
        secured.ok().flatten()
    }

    async fn shake_hands(&self, intake: Intake<Socket>, caller: Caller) -> io::Result<Option<Box<Secured>>> {
        let begun = Instant::now();
        let mut start = timeout_at(begun + HELLO_TIMEOUT, read_hello(intake)).await??;
        let generation = self.live.generation.load_full();
        let name = start.client_hello().server_name().map(|name| request_host(name).into_owned());
        match generation.tls(name.as_deref()) {
            TlsChoice::PassThrough(pool) => {
                let (pool, mut intake) = (Arc::clone(pool), start.io);
                drop((generation, start.accepted));
                intake.rewind();
                pass(intake, pool, caller.policy.stream_timeout).await;
                Ok(None)
            }
            TlsChoice::Terminate(profile) => {
                let profile = Arc::clone(profile);
                drop(generation);
                let finished = timeout_at(begun + HANDSHAKE_TIMEOUT, self.terminate(start, profile, name, caller));
                Ok(Some(Box::new(finished.await??)))
            }
            TlsChoice::None => {
                let refused = async { start.io.write_all(UNRECOGNISED_NAME).await };
                timeout_at(begun + HANDSHAKE_TIMEOUT, refused).await??;
                Err(io::ErrorKind::NotFound.into())
            }
        }
    }

    async fn terminate(
        &self,
        mut start: StartHandshake<Intake<Socket>>,
        profile: Arc<HostProfile>,
        name: Option<String>,
        caller: Caller,
    ) -> io::Result<Secured> {
        start.io.forget();
        let stream = start.into_stream(Arc::clone(&profile.config)).await?;
        let chain = stream.get_ref().1.peer_certificates();
        let session = Session::new(name, profile.client_auth.as_ref(), chain);
        Ok((stream, Caller { session: Some(Arc::new(session)), ..caller }))
    }
}

/// Reads the ClientHello; a copy of its bytes stays in the intake. A client that speaks HTTP in the clear is told so.
async fn read_hello(mut intake: Intake<Socket>) -> io::Result<StartHandshake<Intake<Socket>>> {
    intake.read_ahead_once().await?;
    if intake.ahead().first() != Some(&HANDSHAKE_RECORD) {
        if intake.ahead().first().is_some_and(u8::is_ascii_uppercase) {
            intake.write_all(PLAIN_ON_TLS).await?;
            intake.shutdown().await?;
        }
        return Err(io::ErrorKind::InvalidData.into());
    }
    LazyConfigAcceptor::new(Acceptor::default(), intake.keeping(MAX_HELLO_BYTES)).await
}

/// What a ClientHello names, as the edge would see it; for fuzzing.
#[must_use]
pub fn fuzz_client_hello(bytes: &[u8]) -> Option<(Option<String>, Vec<Vec<u8>>)> {
    let mut acceptor = Acceptor::default();
    let mut rest = bytes.get(..bytes.len().min(MAX_HELLO_BYTES))?;
    while !rest.is_empty() {
        acceptor.read_tls(&mut rest).ok()?;
        if let Some(accepted) = acceptor.accept().ok()? {
            let hello = accepted.client_hello();
            let name = hello.server_name().map(|name| request_host(name).into_owned());
            let protocols = hello.alpn().map(|names| names.map(<[u8]>::to_vec).collect()).unwrap_or_default();
            return Some((name, protocols));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;
    use crate::tls::provider;

    fn hello(name: &'static str, protocols: &[&str]) -> Vec<u8> {
        let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
        let mut config = builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let mut client = ClientConnection::new(Arc::new(config), name.try_into().unwrap()).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn names_and_protocols_are_read() {
        let bytes = hello("A.Example", &["h2", "http/1.1"]);
        let expected = (Some("a.example".to_owned()), vec![b"h2".to_vec(), b"http/1.1".to_vec()]);
        assert_eq!(fuzz_client_hello(&bytes), Some(expected));
        assert_eq!(fuzz_client_hello(&hello("192.0.2.1", &[])), Some((None, vec![])));
        for end in 0..bytes.len() {
            assert_eq!(fuzz_client_hello(&bytes[..end]), None, "{end} bytes");
        }
    }

    #[test]
    fn broken_hellos_name_nothing_and_do_no_harm() {
        let good = hello("a.example", &["h2"]);
        assert_eq!(fuzz_client_hello(b"GET / HTTP/1.1\r\n\r\n"), None);
        for place in 0..good.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut bytes = good.clone();
                bytes[place] = value;
                let _ = fuzz_client_hello(&bytes);
            }
        }
    }

    #[test]
    fn the_answer_in_the_clear_says_its_length() {
        let text = String::from_utf8(PLAIN_ON_TLS.to_vec()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())), "{head} {}", body.len());
    }
}
