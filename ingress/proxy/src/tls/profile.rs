//! What a handshake is answered with: one rustls configuration for all plain hosts, one of its own for each host that asks for
//! client certificates.
//!
//! A configuration has its own ticket key and session store, so a session that began under one host's rules is never resumed
//! under another's.

use std::{fmt, sync::Arc};

use roadstead_routes::{CipherOrder, Versions};
use rustls::{
    ServerConfig, SupportedProtocolVersion,
    crypto::{CryptoProvider, ring},
    server::{ResolvesServerCert, danger::ClientCertVerifier},
    version::{TLS12, TLS13},
};

use super::ClientVerifier;
use crate::upstream::Pool;

/// How TLS of a host ends here.
pub struct HostProfile {
    /// For rustls.
    pub config: Arc<ServerConfig>,
    /// Who judges clients' certificates.
    pub client_auth: Option<Arc<ClientVerifier>>,
}

impl fmt::Debug for HostProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostProfile").field("client_auth", &self.client_auth.is_some()).finish_non_exhaustive()
    }
}

/// What becomes of a connection once its host is known.
#[derive(Clone, Copy, Debug)]
pub enum TlsChoice<'g> {
    /// TLS ends here.
    Terminate(&'g Arc<HostProfile>),
    /// TLS ends at an endpoint.
    PassThrough(&'g Arc<Pool>),
    /// There is nothing to answer with.
    None,
}

/// What a configuration is made of, beside the certificates and the verifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Terms {
    pub(super) versions: Versions,
    pub(super) cipher_order: CipherOrder,
    pub(super) http2: bool,
}

/// Makes a configuration.
///
/// # Errors
/// The provider knows no cipher for these versions, or could not make the ticket key.
pub(super) fn server_config(
    provider: Arc<CryptoProvider>,
    terms: Terms,
    resolver: Arc<dyn ResolvesServerCert>,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let versions: &[&SupportedProtocolVersion] = match terms.versions {
        Versions::Both => &[&TLS13, &TLS12],
        Versions::Only12 => &[&TLS12],
        Versions::Only13 => &[&TLS13],
    };
    let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(versions)?;
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(resolver);
    config.ignore_client_order = terms.cipher_order == CipherOrder::Server;
    config.alpn_protocols = if terms.http2 { vec![b"h2".to_vec()] } else { Vec::new() };
    config.alpn_protocols.push(b"http/1.1".to_vec());
    config.ticketer = ring::Ticketer::new()?;
    Ok(Arc::new(config))
}
