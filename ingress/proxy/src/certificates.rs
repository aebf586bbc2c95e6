//! Certificates by host: from Secrets to what a handshake is answered with.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    sync::Arc,
};

use arc_swap::ArcSwap;
use roadstead_model::{Host, ObjectName, ObjectRef, Problem, Secret, Severity, Snapshot};
use roadstead_routes::{CertificateIndex, CertificateRef, request_host};
use rustls::{
    crypto::CryptoProvider,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject};

use crate::metrics::Expiry;

/// Why a Secret gives no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A key of the Secret's data is not there.
    #[error("the secret has no {0}")]
    Missing(&'static str),
    /// The chain is no PEM, or holds no certificate.
    #[error("tls.crt holds no valid certificates")]
    Chain(#[source] rustls_pki_types::pem::Error),
    /// The chain is empty.
    #[error("tls.crt holds no certificate")]
    NoCertificate,
    /// The key is no PEM of a known form.
    #[error("tls.key holds no valid private key")]
    Key(#[source] rustls_pki_types::pem::Error),
    /// Key and certificate do not belong together, or are of a kind that is not known.
    #[error("tls.crt and tls.key are no usable pair: {0}")]
    Pair(#[source] rustls::Error),
    /// The default certificate could not be made.
    #[error("cannot make the default certificate")]
    Default(#[source] rcgen::Error),
}

/// The certificates of one moment.
#[derive(Debug)]
pub struct Certificates {
    exact: HashMap<String, Named>,
    wildcard: HashMap<String, Named>,
    default: Arc<CertifiedKey>,
    /// When those of hosts end.
    pub expiries: Vec<Expiry>,
}

/// What a TLS host has: its own certificate, or nothing but the default one.
type Named = Option<Arc<CertifiedKey>>;

impl Certificates {
    /// Whether a host is served with a certificate that a Secret holds for it.
    #[must_use]
    pub fn has_own(&self, host: &str) -> bool {
        self.own(host).is_some()
    }

    fn lookup(&self, server_name: &str) -> Arc<CertifiedKey> {
        Arc::clone(self.own(server_name).unwrap_or(&self.default))
    }

    /// A host that is named itself is not served by a wildcard, whatever its Secret is like.
    fn own(&self, host: &str) -> Option<&Arc<CertifiedKey>> {
        let host = request_host(host);
        let wildcard = || host.split_once('.').and_then(|(_, rest)| self.wildcard.get(rest));
        self.exact.get(&*host).or_else(wildcard)?.as_ref()
    }
}

/// Answers handshakes with the certificates of the moment.
pub struct Resolver(pub Arc<ArcSwap<Certificates>>);

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let certificates = self.0.load();
        Some(hello.server_name().map_or_else(|| Arc::clone(&certificates.default), |name| certificates.lookup(name)))
    }
}

/// Makes [`Certificates`] of snapshots; remembers each Secret's last good pair.
pub struct CertificateStore {
    provider: Arc<CryptoProvider>,
    fallback: Arc<CertifiedKey>,
    known: HashMap<ObjectName, Known>,
}

struct Known {
    secret: Arc<Secret>,
    good: Option<Arc<CertifiedKey>>,
    /// The last second of the good one, since the epoch, and its serial number.
    term: Option<(i64, String)>,
    error: Option<String>,
}

impl CertificateStore {
    /// A store with a self-signed default certificate, made now.
    ///
    /// # Errors
    /// The certificate could not be made.
    pub fn new(provider: Arc<CryptoProvider>) -> Result<Self, CertificateError> {
        let made = rcgen::generate_simple_self_signed(vec!["default.roadstead.invalid".to_owned()])
            .map_err(CertificateError::Default)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let pair = CertifiedKey::from_der(vec![made.cert.der().clone()], key, &provider);
        let fallback = Arc::new(pair.map_err(CertificateError::Pair)?);
        Ok(Self { provider, fallback, known: HashMap::new() })
    }

    /// Certificates when nothing is known yet: the default one for all.
    #[must_use]
    pub fn none(&self) -> Certificates {
        let (exact, wildcard, expiries) = (HashMap::new(), HashMap::new(), Vec::new());
        Certificates { exact, wildcard, default: Arc::clone(&self.fallback), expiries }
    }

    /// The certificates that the index asks for. A host whose Secret is missing or broken gets the Secret's last good pair, or
    /// the default certificate, and a problem is told.
    pub fn update(
        &mut self,
        index: &CertificateIndex,
        default: Option<&ObjectName>,
        snapshot: &Snapshot,
        problems: &mut Vec<Problem>,
    ) -> Certificates {
        let mut certificates = self.none();
        let mut used = HashMap::new();
        if let Some(name) = default {
            // The operator's own word goes before any Ingress's.
            if !snapshot.secrets.contains_key(name) {
                problems.push(missing("Secret", name, None, name));
            }
            let pair = self.pair(name, snapshot, problems);
            certificates.default = pair.clone().unwrap_or(certificates.default);
            used.insert(name.clone(), pair);
        }
        let mut pair = |store: &mut Self, entry: &CertificateRef| {
            let name = entry.secret.as_ref()?;
            used.entry(name.clone()).or_insert_with(|| store.pair(name, snapshot, problems)).clone()
        };
        let mut hosts: Vec<_> = index.hosts().collect();
        hosts.sort_by(|(host, _), (other, _)| host.cmp(other));
        for (host, entry) in hosts {
            let pair = pair(self, entry);
            certificates.expiries.extend(entry.secret.as_ref().and_then(|secret| self.expiry(&host, secret)));
            match host {
                Host::Exact(name) => certificates.exact.insert(name, pair),
                Host::Wildcard(rest) => certificates.wildcard.insert(rest, pair),
            };
        }
        if default.is_none()
            && let Some(pair) = index.default_certificate().and_then(|entry| pair(self, entry))
        {
            certificates.default = pair;
        }
        self.known.retain(|name, _| used.contains_key(name));
        let asked = index.entries().filter_map(|entry| Some((&entry.ingress, entry.secret.as_ref()?)));
        let asked: BTreeSet<_> = asked.filter(|(_, secret)| !snapshot.secrets.contains_key(*secret)).collect();
        problems.extend(asked.into_iter().map(|(asker, name)| missing("Ingress", asker, Some("spec.tls"), name)));
        certificates
    }

    /// When the certificate that serves a host for a Secret ends.
    fn expiry(&self, host: &Host, secret: &ObjectName) -> Option<Expiry> {
        let (at, serial) = self.known.get(secret)?.term.clone()?;
        Some(Expiry { host: host.to_string(), secret: secret.clone(), serial, at })
    }

    fn pair(
        &mut self,
        name: &ObjectName,
        snapshot: &Snapshot,
        problems: &mut Vec<Problem>,
    ) -> Option<Arc<CertifiedKey>> {
        let Some(secret) = snapshot.secrets.get(name) else {
            self.known.remove(name);
            return None;
        };
        let known = self.read(name, secret);
        if let Some(error) = &known.error {
            let kept = if known.good.is_some() { "its last good pair" } else { "the default certificate" };
            problems.push(problem("Secret", name, None, format!("{error}; {kept} serves its hosts")));
        }
        known.good.clone()
    }

    /// Reads a Secret once for as long as it stays the same object.
    fn read(&mut self, name: &ObjectName, secret: &Arc<Secret>) -> &Known {
        let before = self.known.remove(name);
        let now = match before {
            Some(known) if Arc::ptr_eq(&known.secret, secret) => known,
            before => {
                let secret = Arc::clone(secret);
                match parse_pair(&secret, &self.provider) {
                    Ok(pair) => Known { secret, term: term(&pair), good: Some(Arc::new(pair)), error: None },
                    Err(error) => {
                        let (good, term) = before.map_or((None, None), |known| (known.good, known.term));
                        Known { secret, good, term, error: Some(error.to_string()) }
                    }
                }
            }
        };
        self.known.entry(name.clone()).or_insert(now)
    }
}

fn parse_pair(secret: &Secret, provider: &CryptoProvider) -> Result<CertifiedKey, CertificateError> {
    let field = |key: &'static str| secret.data.get(key).ok_or(CertificateError::Missing(key));
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(field("tls.crt")?).collect::<Result<_, _>>().map_err(CertificateError::Chain)?;
    if chain.is_empty() {
        return Err(CertificateError::NoCertificate);
    }
    let key = PrivateKeyDer::from_pem_slice(field("tls.key")?).map_err(CertificateError::Key)?;
    CertifiedKey::from_der(chain, key, provider).map_err(CertificateError::Pair)
}

fn term(pair: &CertifiedKey) -> Option<(i64, String)> {
    let (_, leaf) = x509_parser::parse_x509_certificate(pair.cert.first()?).ok()?;
    Some((leaf.validity().not_after.timestamp(), leaf.tbs_certificate.serial.to_string()))
}

/// Told to whoever asks for it.
fn missing(kind: &str, asker: &ObjectName, field: Option<&str>, secret: &ObjectName) -> Problem {
    problem(kind, asker, field, format!("secret {secret} does not exist; the default certificate serves its hosts"))
}

fn problem(kind: &str, name: &ObjectName, field: Option<&str>, reason: String) -> Problem {
    let object = Some(ObjectRef { kind: kind.to_owned(), name: name.clone() });
    Problem { severity: Severity::Error, place: None, object, field: field.map(str::to_owned), reason }
}
