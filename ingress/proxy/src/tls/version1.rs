//! Client certificates of X.509 version 1: what `openssl x509 -req` made for many years unless it was told otherwise, and what
//! OpenSSL, so ingress-nginx, accepts. webpki reads version 3 alone.
//!
//! Only what is safe without extensions is done here: such a certificate is a client's, never an authority's, and it is good
//! when a certificate of ca.crt itself has signed it.

use rustls::{
    DigitallySignedStruct, Error, PeerMisbehaved,
    client::danger::HandshakeSignatureValid,
    crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key},
};
use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer};
use webpki::RawPublicKeyEntity;
use x509_parser::{certificate::X509Certificate, parse_x509_certificate, x509::X509Version};

/// The key of a certificate of version 1; `None` for any other version, and for what is no certificate.
pub(super) fn key(certificate: &CertificateDer<'_>) -> Option<SubjectPublicKeyInfoDer<'static>> {
    let (_, parsed) = parse_x509_certificate(certificate).ok()?;
    (parsed.version() == X509Version::V1).then(|| SubjectPublicKeyInfoDer::from(parsed.public_key().raw.to_vec()))
}

/// A handshake's signature by such a key in TLS 1.3.
pub(super) fn verify_tls13(
    message: &[u8],
    key: &SubjectPublicKeyInfoDer<'_>,
    signature: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, Error> {
    verify_tls13_signature_with_raw_key(message, key, signature, algorithms)
}

/// A handshake's signature by such a key in TLS 1.2, where a scheme does not name the curve.
pub(super) fn verify_tls12(
    message: &[u8],
    key: &SubjectPublicKeyInfoDer<'_>,
    signature: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, Error> {
    let named = algorithms.mapping.iter().find(|(scheme, _)| *scheme == signature.scheme).map(|(_, known)| *known);
    let known = named.ok_or(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme)?;
    if verifies(key, known, message, signature.signature()) {
        return Ok(HandshakeSignatureValid::assertion());
    }
    Err(rustls::CertificateError::BadSignature.into())
}

/// Whether one of the authorities has signed the certificate. Algorithms are tried rather than read from the certificate:
/// whichever fits is a sound one.
pub(super) fn is_signed_by(
    certificate: &X509Certificate<'_>,
    authorities: &[CertificateDer<'_>],
    algorithms: &WebPkiSupportedAlgorithms,
) -> bool {
    let signed = certificate.tbs_certificate.as_ref();
    let signature = &certificate.signature_value.data;
    authorities.iter().any(|authority| {
        parse_x509_certificate(authority).is_ok_and(|(_, authority)| {
            let key = SubjectPublicKeyInfoDer::from(authority.public_key().raw);
            authority.subject().as_raw() == certificate.issuer().as_raw()
                && verifies(&key, algorithms.all, signed, signature)
        })
    })
}

fn verifies(
    key: &SubjectPublicKeyInfoDer<'_>,
    algorithms: &[&dyn SignatureVerificationAlgorithm],
    message: &[u8],
    signature: &[u8],
) -> bool {
    let Ok(key) = RawPublicKeyEntity::try_from(key) else { return false };
    algorithms.iter().any(|algorithm| key.verify_signature(*algorithm, message, signature).is_ok())
}
