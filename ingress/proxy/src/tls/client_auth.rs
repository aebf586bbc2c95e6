//! Clients' certificates: asked for in the handshake, judged behind it, and the judgement carried out per request.
//!
//! As in nginx the handshake itself only proves that the client holds the key of whatever certificate it shows: a client
//! without a good one gets an answer in HTTP, not an alert. The chain is verified by webpki against the Secret's `ca.crt` and
//! `ca.crl`; the verdict stays with the connection (`session`).

use std::{fmt, sync::Arc};

use roadstead_model::Secret;
use roadstead_routes::{ClientAuthRules, ClientCertificate};
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, TrustAnchor, UnixTime, pem::PemObject};
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage, OwnedCertRevocationList, RevocationOptions,
    RevocationOptionsBuilder, VerifiedPath, anchor_from_trusted_cert,
};
use x509_parser::{certificate::X509Certificate, parse_x509_certificate};

use super::{name::rfc2253, version1};

/// Why a Secret is no authority over clients.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A key of the Secret's data is not there.
    #[error("the secret has no ca.crt")]
    Missing,
    /// It is no PEM.
    #[error("{0} is no valid PEM")]
    Pem(&'static str, #[source] rustls_pki_types::pem::Error),
    /// There is no certificate in it.
    #[error("ca.crt holds no certificate")]
    Empty,
    /// One of its entries is broken.
    #[error("{0} holds an entry that cannot be read: {1}")]
    Entry(&'static str, webpki::Error),
}

/// Who judges the clients of a host, and by what rules.
#[derive(Debug)]
pub struct ClientVerifier(Judge);

#[derive(Debug)]
enum Judge {
    /// Nobody can be told good from bad, so nobody may come.
    Nobody,
    Authority(Box<Authority>),
}

struct Authority {
    rules: ClientAuthRules,
    provider: Arc<CryptoProvider>,
    certificates: Vec<CertificateDer<'static>>,
    anchors: Vec<TrustAnchor<'static>>,
    revoked: Vec<CertRevocationList<'static>>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("rules", &self.rules).finish_non_exhaustive()
    }
}

/// How a client's certificate stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// None was shown.
    Absent,
    /// It is vouched for.
    Good,
    /// It is sound, but nobody who is known vouches for it.
    Unverified(String),
    /// It is no good whoever vouches for it: expired, revoked, broken.
    Bad(String),
}

/// The verdict on one connection's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientVerdict {
    /// How it stands.
    pub standing: Standing,
    /// Its subject (RFC 2253).
    pub subject: String,
    /// Its issuer (RFC 2253).
    pub issuer: String,
    /// Itself, as PEM with percent escapes; empty unless the rules ask to pass it on.
    pub escaped_pem: String,
}

impl ClientVerdict {
    /// On a client that shows none.
    #[must_use]
    pub fn absent() -> Self {
        Self { standing: Standing::Absent, subject: String::new(), issuer: String::new(), escaped_pem: String::new() }
    }
}

/// What a verdict means for a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sentence<'v> {
    /// It goes on.
    Admit,
    /// 400, or a redirect to the page for such clients.
    Refuse {
        /// `auth-tls-error-page`.
        error_page: Option<&'v str>,
    },
    /// 403: a good certificate of somebody else, or nobody may come.
    Forbid,
}

impl ClientVerifier {
    /// One that lets nobody in.
    #[must_use]
    pub fn nobody() -> Self {
        Self(Judge::Nobody)
    }

    /// One that judges by a Secret.
    ///
    /// # Errors
    /// The Secret cannot be used.
    pub fn new(
        rules: &ClientAuthRules,
        secret: &Secret,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, AuthorityError> {
        let pem = secret.data.get("ca.crt").ok_or(AuthorityError::Missing)?;
        let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(pem)
            .collect::<Result<_, _>>()
            .map_err(|e| AuthorityError::Pem("ca.crt", e))?;
        if certificates.is_empty() {
            return Err(AuthorityError::Empty);
        }
        let anchor = |certificate| anchor_from_trusted_cert(certificate).map(|anchor| anchor.to_owned());
        let anchors = certificates.iter().map(anchor).collect::<Result<_, _>>();
        Ok(Self(Judge::Authority(Box::new(Authority {
            rules: rules.clone(),
            provider: Arc::clone(provider),
            anchors: anchors.map_err(|error| AuthorityError::Entry("ca.crt", error))?,
            certificates,
            revoked: revocation_lists(secret)?,
        }))))
    }

    /// What rustls asks clients for; `None` where it need not ask.
    #[must_use]
    pub fn question(&self) -> Option<Arc<dyn ClientCertVerifier>> {
        let Judge::Authority(authority) = &self.0 else { return None };
        let hints = authority.anchors.iter().map(|anchor| DistinguishedName::in_sequence(&anchor.subject)).collect();
        Some(Arc::new(Question { hints, provider: Arc::clone(&authority.provider) }))
    }

    /// The verdict on the chain that a client has shown and proved to hold the key of.
    #[must_use]
    pub fn judge(&self, chain: &[CertificateDer<'static>], now: UnixTime) -> ClientVerdict {
        let mut verdict = ClientVerdict::absent();
        let (Judge::Authority(authority), Some((leaf, rest))) = (&self.0, chain.split_first()) else { return verdict };
        let Ok((_, parsed)) = parse_x509_certificate(leaf) else {
            verdict.standing = Standing::Bad("certificate cannot be read".to_owned());
            return verdict;
        };
        verdict.subject = rfc2253(parsed.subject());
        verdict.issuer = rfc2253(parsed.issuer());
        if authority.rules.pass_certificate {
            verdict.escaped_pem = escaped_pem(leaf);
        }
        let is_own = authority.certificates.contains(leaf);
        verdict.standing = match authority.verify(leaf, rest, now) {
            Ok(()) => Standing::Good,
            // As in OpenSSL a certificate that is itself in ca.crt needs nobody else to vouch for it.
            Err(_) if is_own => current(&parsed, now),
            Err(webpki::Error::UnsupportedCertVersion) => authority.verify_version1(&parsed, now),
            Err(error) => standing(&error),
        };
        verdict
    }

    /// What a verdict means by these rules.
    #[must_use]
    pub fn sentence(&self, verdict: &ClientVerdict) -> Sentence<'_> {
        let Judge::Authority(authority) = &self.0 else { return Sentence::Forbid };
        let rules = &authority.rules;
        let admitted = match (&verdict.standing, rules.need) {
            (Standing::Good, _) => true,
            (Standing::Absent, need) => need != ClientCertificate::Required,
            (Standing::Unverified(_), need) => need == ClientCertificate::OptionalUnverified,
            (Standing::Bad(_), _) => false,
        };
        if !admitted {
            return Sentence::Refuse { error_page: rules.error_page.as_deref() };
        }
        match &rules.match_cn {
            Some(pattern) if !pattern.is_match(verdict.subject.as_bytes()) => Sentence::Forbid,
            _ => Sentence::Admit,
        }
    }

    /// Whether endpoints get the certificate itself.
    #[must_use]
    pub fn passes_certificate(&self) -> bool {
        matches!(&self.0, Judge::Authority(authority) if authority.rules.pass_certificate)
    }
}

impl Authority {
    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), webpki::Error> {
        let leaf = EndEntityCert::try_from(leaf)?;
        let lists: Vec<_> = self.revoked.iter().collect();
        let algorithms = self.provider.signature_verification_algorithms.all;
        let depth = usize::try_from(self.rules.depth).unwrap_or(usize::MAX);
        let within_depth = |path: &VerifiedPath<'_>| {
            let between = path.intermediate_certificates().count();
            if between <= depth { Ok(()) } else { Err(webpki::Error::MaximumPathDepthExceeded) }
        };
        leaf.verify_for_usage(
            algorithms,
            &self.anchors,
            rest,
            now,
            KeyUsage::client_auth(),
            revocation(&lists),
            Some(&within_depth),
        )
        .map(|_| ())
    }

    fn verify_version1(&self, certificate: &X509Certificate<'_>, now: UnixTime) -> Standing {
        if !self.revoked.is_empty() {
            return Standing::Bad("revocation of a certificate of version 1 cannot be checked".to_owned());
        }
        let algorithms = &self.provider.signature_verification_algorithms;
        if version1::is_signed_by(certificate, &self.certificates, algorithms) {
            return current(certificate, now);
        }
        standing(&webpki::Error::UnknownIssuer)
    }
}

/// Good, unless its time is over or has not come.
fn current(certificate: &X509Certificate<'_>, now: UnixTime) -> Standing {
    let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let (from, until) = (certificate.validity().not_before.timestamp(), certificate.validity().not_after.timestamp());
    if seconds < from {
        return Standing::Bad("certificate is not yet valid".to_owned());
    }
    if seconds > until { Standing::Bad("certificate has expired".to_owned()) } else { Standing::Good }
}

/// As with nginx's `ssl_crl` every certificate of the chain must have a list, and a current one.
fn revocation<'l>(lists: &'l [&'l CertRevocationList<'l>]) -> Option<RevocationOptions<'l>> {
    let builder = RevocationOptionsBuilder::new(lists).ok()?;
    Some(builder.with_expiration_policy(ExpirationPolicy::Enforce).build())
}

fn revocation_lists(secret: &Secret) -> Result<Vec<CertRevocationList<'static>>, AuthorityError> {
    let Some(pem) = secret.data.get("ca.crl") else { return Ok(Vec::new()) };
    let mut lists = Vec::new();
    for list in CertificateRevocationListDer::pem_slice_iter(pem) {
        let list = list.map_err(|error| AuthorityError::Pem("ca.crl", error))?;
        let list = OwnedCertRevocationList::from_der(&list).map_err(|error| AuthorityError::Entry("ca.crl", error))?;
        lists.push(CertRevocationList::from(list));
    }
    Ok(lists)
}

/// In OpenSSL's words where nginx's users know them.
fn standing(error: &webpki::Error) -> Standing {
    use webpki::Error::{
        CaUsedAsEndEntity, CertExpired, CertNotValidYet, CertRevoked, CrlExpired, MaximumPathDepthExceeded,
        UnknownIssuer, UnknownRevocationStatus,
    };
    let reason = match error {
        UnknownIssuer => return Standing::Unverified("unable to verify the first certificate".to_owned()),
        CaUsedAsEndEntity => return Standing::Unverified("self-signed certificate".to_owned()),
        CertExpired { .. } => "certificate has expired",
        CertNotValidYet { .. } => "certificate is not yet valid",
        CertRevoked => "certificate revoked",
        CrlExpired { .. } => "CRL has expired",
        UnknownRevocationStatus => "unable to get certificate CRL",
        MaximumPathDepthExceeded => "certificate chain too long",
        other => return Standing::Bad(format!("{other:?}")),
    };
    Standing::Bad(reason.to_owned())
}

/// nginx's `$ssl_client_escaped_cert`.
fn escaped_pem(certificate: &CertificateDer<'_>) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    let pem = pem::encode_config(&pem::Pem::new("CERTIFICATE", certificate.to_vec()), config);
    let mut escaped = String::with_capacity(pem.len() * 5 / 4);
    for byte in pem.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => escaped.push(char::from(byte)),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

/// What the handshake asks: any certificate, with proof of its key. The chain is judged later.
#[derive(Debug)]
struct Question {
    hints: Vec<DistinguishedName>,
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for Question {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        match version1::key(certificate) {
            Some(key) => version1::verify_tls12(message, &key, signature, algorithms),
            None => verify_tls12_signature(message, certificate, signature, algorithms),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        match version1::key(certificate) {
            Some(key) => version1::verify_tls13(message, &key, signature, algorithms),
            None => verify_tls13_signature(message, certificate, signature, algorithms),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
#[path = "client_auth_tests.rs"]
mod tests;
