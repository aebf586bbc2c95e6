//! What a TLS connection leaves behind for its requests: the name that it asked for, and the client's certificate with the
//! verdict on it.

use std::sync::Arc;

use rustls_pki_types::{CertificateDer, UnixTime};

use super::{ClientVerdict, ClientVerifier};

/// One TLS connection that ended here.
#[derive(Debug)]
pub struct Session {
    name: Option<String>,
    /// Who judged at the handshake; a request may come when the host has another judge.
    judged: Option<(Arc<ClientVerifier>, Arc<ClientVerdict>)>,
    chain: Vec<CertificateDer<'static>>,
}

impl Session {
    /// Judges the chain that came with the handshake.
    #[must_use]
    pub fn new(
        name: Option<String>,
        verifier: Option<&Arc<ClientVerifier>>,
        chain: Option<&[CertificateDer<'static>]>,
    ) -> Self {
        let chain = chain.unwrap_or_default();
        let judged = verifier.map(|verifier| (Arc::clone(verifier), Arc::new(verifier.judge(chain, UnixTime::now()))));
        Self { name, judged, chain: chain.to_vec() }
    }

    /// The name of the ClientHello, in lower case.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The verdict by the judge that the host has now; `None` where this connection was never asked for a certificate, so
    /// that only a new one can tell.
    #[must_use]
    pub fn verdict(&self, verifier: &Arc<ClientVerifier>) -> Option<Arc<ClientVerdict>> {
        let (judge, verdict) = self.judged.as_ref()?;
        if Arc::ptr_eq(judge, verifier) {
            return Some(Arc::clone(verdict));
        }
        Some(Arc::new(verifier.judge(&self.chain, UnixTime::now())))
    }
}
