//! Whether an endpoint is believed: any that proves to have its key, or those alone that a Secret's authorities vouch for.

use std::sync::Arc;

use rustls::{
    CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    server::ParsedCertificate,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};

/// Verifies endpoints' certificates.
#[derive(Debug)]
pub(super) struct Verifier {
    algorithms: WebPkiSupportedAlgorithms,
    trust: Option<Trust>,
}

#[derive(Debug)]
struct Trust {
    roots: Arc<RootCertStore>,
    /// The most intermediate certificates between an endpoint's and a trusted one, as OpenSSL counts its depth.
    depth: usize,
}

impl Verifier {
    /// Takes any certificate: `proxy-ssl-verify` is off, as it is unless asked for.
    pub(super) fn any(provider: &CryptoProvider) -> Self {
        Self { algorithms: provider.signature_verification_algorithms, trust: None }
    }

    /// Takes certificates that lead to one of `roots`, for the name that was asked for.
    pub(super) fn trusting(provider: &CryptoProvider, roots: RootCertStore, depth: u32) -> Self {
        let depth = usize::try_from(depth).unwrap_or(usize::MAX);
        let trust = Some(Trust { roots: Arc::new(roots), depth });
        Self { algorithms: provider.signature_verification_algorithms, trust }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(trust) = &self.trust else { return Ok(ServerCertVerified::assertion()) };
        let certificate = EndEntityCert::try_from(end_entity).map_err(|_| CertificateError::BadEncoding)?;
        let is_short = |path: &VerifiedPath<'_>| {
            let short = path.intermediate_certificates().count() <= trust.depth;
            if short { Ok(()) } else { Err(webpki::Error::MaximumPathDepthExceeded) }
        };
        let verified = certificate.verify_for_usage(
            self.algorithms.all,
            &trust.roots.roots,
            intermediates,
            now,
            KeyUsage::server_auth(),
            None,
            Some(&is_short),
        );
        if let Err(error) = verified {
            tracing::debug!(%error, "endpoint is not believed");
            return Err(CertificateError::UnknownIssuer.into());
        }
        rustls::client::verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
