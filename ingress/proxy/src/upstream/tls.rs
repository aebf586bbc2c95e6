//! TLS to endpoints: from what an Ingress asks for and its Secret to what a handshake needs.
//!
//! `control` fills the store with every snapshot, so a renewed Secret counts from the next connection on, without touching a
//! route. Each policy that is made has a number of its own, by which connections are kept apart.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use roadstead_model::{ObjectName, ObjectRef, Problem, Secret, Severity, Snapshot};
use roadstead_routes::{SecretChoice, Sni, Table, UpstreamTls, UpstreamVersions, Verify};
use rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion,
    crypto::CryptoProvider,
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};

use super::{tls_verify::Verifier, transport::Wire};

/// Why endpoints cannot be spoken to over TLS as an Ingress asks for.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TlsError {
    /// What is asked for makes no sense; it has been reported with the settings.
    #[error("the settings cannot be used")]
    Settings,
    /// There is no such Secret.
    #[error("secret {0} does not exist")]
    NoSecret(ObjectName),
    /// The Secret holds neither trust nor a certificate.
    #[error("secret {0} has neither ca.crt nor tls.crt and tls.key")]
    EmptySecret(ObjectName),
    /// Verifying was asked for without saying whom to trust.
    #[error("secret {0} has no usable ca.crt to verify endpoints by")]
    NoTrust(ObjectName),
    /// The certificate to show is none.
    #[error("secret {0} has no usable tls.crt and tls.key")]
    Certificate(ObjectName),
    /// rustls refuses the whole.
    #[error("the settings go together with no handshake: {0}")]
    Rustls(String),
}

/// How handshakes with endpoints are made under one set of settings and one version of their Secret.
pub struct TlsPolicy {
    id: u64,
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
    name: PolicyName,
}

/// Whom an endpoint is taken for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyName {
    /// `proxy-ssl-name`.
    Fixed(ServerName<'static>),
    /// Nobody says, and it matters: its Service, as `name.namespace.svc`.
    Service,
    /// Nobody says, and nobody looks.
    Any,
}

impl fmt::Debug for TlsPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsPolicy").field("id", &self.id).field("name", &self.name).finish_non_exhaustive()
    }
}

impl TlsPolicy {
    /// Tells this policy from every other, and from itself under an older Secret.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn config(&self, wire: Wire) -> Arc<ClientConfig> {
        match wire {
            Wire::Http10 | Wire::Http11 => Arc::clone(&self.http1),
            Wire::Http2 => Arc::clone(&self.http2),
        }
    }

    /// Whom an endpoint of a Service is taken for; `None`: nobody in particular.
    #[must_use]
    pub fn name(&self, service: &ObjectName) -> Option<ServerName<'static>> {
        match &self.name {
            PolicyName::Fixed(name) => Some(name.clone()),
            PolicyName::Service => ServerName::try_from(format!("{}.{}.svc", service.name, service.namespace)).ok(),
            PolicyName::Any => None,
        }
    }
}

/// The policies of one moment, by what asked for them.
#[derive(Debug, Default)]
pub struct TlsPolicies {
    by_settings: HashMap<UpstreamTls, Made>,
}

#[derive(Clone, Debug)]
struct Made {
    /// What it was made of, to see whether it is still the same.
    secret: Option<Arc<Secret>>,
    policy: Result<Arc<TlsPolicy>, TlsError>,
}

impl TlsPolicies {
    /// The policy of a route's settings.
    ///
    /// # Errors
    /// What is wrong with it: such requests get 503.
    pub fn lookup(&self, settings: &UpstreamTls) -> Result<Arc<TlsPolicy>, TlsError> {
        self.by_settings.get(settings).map_or(Err(TlsError::Settings), |made| made.policy.clone())
    }

    /// The policies for these settings; those whose Secret is the same object as before stay the same.
    #[must_use]
    pub fn update<'s>(
        &self,
        settings: impl Iterator<Item = &'s UpstreamTls>,
        snapshot: &Snapshot,
        provider: &CryptoProvider,
    ) -> Self {
        let mut by_settings = HashMap::new();
        for settings in settings {
            if by_settings.contains_key(settings) {
                continue;
            }
            let secret = match &settings.secret {
                SecretChoice::Named(name) => snapshot.secrets.get(name).cloned(),
                _ => None,
            };
            let same = |made: &&Made| made.secret.as_ref().map(Arc::as_ptr) == secret.as_ref().map(Arc::as_ptr);
            let made = self.by_settings.get(settings).filter(same).cloned().unwrap_or_else(|| {
                let policy = make(settings, secret.as_deref(), provider).map(Arc::new);
                Made { secret: secret.clone(), policy }
            });
            by_settings.insert(settings.clone(), made);
        }
        Self { by_settings }
    }

    /// Tells of each Ingress whose endpoints cannot be spoken to as it asks for.
    pub fn report(&self, table: &Table, problems: &mut Vec<Problem>) {
        if self.by_settings.values().all(|made| made.policy.is_ok()) {
            return;
        }
        let mut told = BTreeSet::new();
        for route in table.routes() {
            // What is wrong with the settings themselves has been told with them.
            let Err(error) = self.lookup(&route.settings.upstream_tls) else { continue };
            if matches!(error, TlsError::Settings) || !told.insert(&route.ingress) {
                continue;
            }
            problems.push(Problem {
                severity: Severity::Error,
                place: None,
                object: Some(ObjectRef { kind: "Ingress".to_owned(), name: route.ingress.clone() }),
                field: Some("metadata.annotations[nginx.ingress.kubernetes.io/proxy-ssl-secret]".to_owned()),
                reason: format!("{error}; requests get 503"),
            });
        }
    }
}

fn make(settings: &UpstreamTls, secret: Option<&Secret>, provider: &CryptoProvider) -> Result<TlsPolicy, TlsError> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let (trust, identity) = match (&settings.secret, secret) {
        (SecretChoice::None, _) => (None, None),
        (SecretChoice::Unusable, _) => return Err(TlsError::Settings),
        (SecretChoice::Named(name), None) => return Err(TlsError::NoSecret(name.clone())),
        (SecretChoice::Named(name), Some(secret)) => {
            let (trust, identity) = (trust(name, secret)?, identity(name, secret)?);
            if trust.is_none() && identity.is_none() {
                return Err(TlsError::EmptySecret(name.clone()));
            }
            (trust, identity)
        }
    };
    let verifier = match (settings.verify, trust, &settings.secret) {
        (Verify::Off, ..) => Verifier::any(provider),
        (Verify::Depth(depth), Some(trust), _) => Verifier::trusting(provider, trust, depth),
        (Verify::Depth(_), None, SecretChoice::Named(name)) => return Err(TlsError::NoTrust(name.clone())),
        (Verify::Depth(_), None, _) => return Err(TlsError::Settings),
    };
    let name = match &settings.name {
        Some(name) => PolicyName::Fixed(ServerName::try_from(name.clone()).map_err(|_| TlsError::Settings)?),
        None if settings.verify != Verify::Off || settings.server_name == Sni::Send => PolicyName::Service,
        None => PolicyName::Any,
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(limited(provider, settings)))
        .with_protocol_versions(versions(settings.versions))
        .map_err(|error| TlsError::Rustls(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut http1 = match (identity, &settings.secret) {
        (Some((chain, key)), SecretChoice::Named(name)) => {
            builder.with_client_auth_cert(chain, key).map_err(|_| TlsError::Certificate(name.clone()))?
        }
        _ => builder.with_no_client_auth(),
    };
    http1.enable_sni = settings.server_name == Sni::Send;
    let mut http2 = http1.clone();
    http2.alpn_protocols = vec![b"h2".to_vec()];
    http1.alpn_protocols = vec![b"http/1.1".to_vec()];
    let id = NEXT.fetch_add(1, Ordering::Relaxed);
    Ok(TlsPolicy { id, http1: Arc::new(http1), http2: Arc::new(http2), name })
}

fn versions(versions: UpstreamVersions) -> &'static [&'static SupportedProtocolVersion] {
    static BOTH: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
    match versions {
        UpstreamVersions::Both => &BOTH,
        UpstreamVersions::Tls12 => BOTH.get(1..).unwrap_or_default(),
        UpstreamVersions::Tls13 => BOTH.get(..1).unwrap_or_default(),
    }
}

/// The provider with no other TLS 1.2 suites than those asked for; OpenSSL's list does not speak of TLS 1.3 either.
fn limited(provider: &CryptoProvider, settings: &UpstreamTls) -> CryptoProvider {
    let mut provider = provider.clone();
    if let Some(ciphers) = &settings.ciphers {
        provider.cipher_suites.retain(|suite| {
            let name = format!("{:?}", suite.suite());
            suite.version() == &TLS13 || ciphers.iter().any(|cipher| is_same_suite(cipher, &name))
        });
    }
    provider
}

/// `ECDHE-RSA-AES128-GCM-SHA256` is `TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256`.
fn is_same_suite(openssl: &str, iana: &str) -> bool {
    let letters = |text: &str| text.replace(['-', '_'], "");
    let iana = letters(iana).replacen("TLS", "", 1).replacen("WITH", "", 1);
    let openssl = letters(openssl);
    // OpenSSL leaves the hash away where there is but one.
    iana == openssl || iana.strip_suffix("SHA256") == Some(openssl.as_str())
}

fn trust(name: &ObjectName, secret: &Secret) -> Result<Option<RootCertStore>, TlsError> {
    let Some(pem) = secret.data.get("ca.crt") else { return Ok(None) };
    let broken = || TlsError::NoTrust(name.clone());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        roots.add(certificate.map_err(|_| broken())?).map_err(|_| broken())?;
    }
    if roots.is_empty() { Err(broken()) } else { Ok(Some(roots)) }
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn identity(name: &ObjectName, secret: &Secret) -> Result<Option<Identity>, TlsError> {
    let (chain, key) = match (secret.data.get("tls.crt"), secret.data.get("tls.key")) {
        (None, None) => return Ok(None),
        (Some(chain), Some(key)) => (chain, key),
        _ => return Err(TlsError::Certificate(name.clone())),
    };
    let broken = |_| TlsError::Certificate(name.clone());
    let chain: Vec<_> = CertificateDer::pem_slice_iter(chain).collect::<Result<_, _>>().map_err(broken)?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(broken)?;
    Ok(Some((chain, key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openssl_s_names_are_found_among_rustls_s() {
        let provider = crate::tls::provider();
        for (asked, left) in [
            (vec!["ECDHE-RSA-AES128-GCM-SHA256"], 1),
            (vec!["ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-RSA-AES256-GCM-SHA384"], 2),
            (vec!["ECDHE-RSA-CHACHA20-POLY1305", "ECDHE-ECDSA-CHACHA20-POLY1305"], 2),
        ] {
            let settings = UpstreamTls { ciphers: Some(asked.clone()), ..UpstreamTls::default() };
            let suites = limited(&provider, &settings).cipher_suites;
            let tls12 = suites.iter().filter(|suite| suite.version() == &TLS12).count();
            assert_eq!((tls12, suites.len() - tls12), (left, 3), "{asked:?}");
        }
    }
}
