//! Profiles of hosts, made of the table's words and the Secrets behind them, and kept for as long as neither changes: a new
//! configuration would have a new ticket key, and every client would have to shake hands in full.

use std::{collections::HashMap, sync::Arc};

use roadstead_model::{Host, ObjectRef, Problem, Secret, Severity, Snapshot};
use roadstead_routes::{ClientAuth, HostTls, Table};
use rustls::{ServerConfig, crypto::CryptoProvider, server::ResolvesServerCert};

use super::{
    ClientVerifier, HostProfile,
    profile::{Terms, server_config},
};

/// The profiles of one table.
#[derive(Debug, Default, PartialEq)]
pub struct TlsProfiles {
    /// By the host's index in the table.
    hosts: Vec<Profile>,
    /// Of hosts that ask for nothing special; none before the first snapshot.
    plain: Option<Profile>,
}

/// Compared by identity: what is kept is the same.
#[derive(Clone, Debug)]
struct Profile(Arc<HostProfile>);

impl PartialEq for Profile {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl TlsProfiles {
    /// The profile of a host by its index in the table.
    #[must_use]
    pub fn of(&self, index: usize) -> Option<&Arc<HostProfile>> {
        self.hosts.get(index).map(|profile| &profile.0)
    }

    /// The profile of a host that asks for nothing special.
    #[must_use]
    pub fn plain(&self) -> Option<&Arc<HostProfile>> {
        self.plain.as_ref().map(|profile| &profile.0)
    }
}

/// Makes profiles.
pub struct TlsStore {
    provider: Arc<CryptoProvider>,
    resolver: Arc<dyn ResolvesServerCert>,
    plain: HashMap<Terms, Profile>,
    guarded: HashMap<Option<Host>, Guarded>,
}

/// A host that asks for client certificates.
struct Guarded {
    auth: ClientAuth,
    secret: Option<Arc<Secret>>,
    terms: Terms,
    profile: Profile,
    error: Option<String>,
}

impl TlsStore {
    /// A store whose profiles show the certificates of this resolver.
    #[must_use]
    pub fn new(provider: Arc<CryptoProvider>, resolver: Arc<dyn ResolvesServerCert>) -> Self {
        Self { provider, resolver, plain: HashMap::new(), guarded: HashMap::new() }
    }

    /// The profiles that a table asks for.
    ///
    /// # Errors
    /// rustls refuses a configuration: nothing that objects say can bring that about.
    pub fn update(
        &mut self,
        table: &Table,
        snapshot: &Snapshot,
        problems: &mut Vec<Problem>,
    ) -> Result<TlsProfiles, rustls::Error> {
        let http2 = table.options().edge.http2;
        let defaults = &table.options().defaults.tls;
        let terms = Terms { versions: defaults.versions, cipher_order: defaults.cipher_order, http2 };
        let plain = Some(self.plain(terms)?);
        let mut before = std::mem::take(&mut self.guarded);
        let mut hosts = Vec::with_capacity(table.tls_hosts().len());
        for host in table.tls_hosts() {
            let terms = Terms { versions: host.versions, cipher_order: host.cipher_order, http2 };
            let Some(auth) = &host.client_auth else {
                hosts.push(self.plain(terms)?);
                continue;
            };
            let secret = match auth {
                ClientAuth::Verify(rules) => snapshot.secrets.get(&rules.secret).cloned(),
                ClientAuth::Unreadable => None,
            };
            let kept = before.remove(&host.host).filter(|kept| {
                kept.terms == terms && kept.auth == *auth && same(kept.secret.as_ref(), secret.as_ref())
            });
            let guarded = match kept {
                Some(kept) => kept,
                None => self.guard(auth, secret, terms)?,
            };
            if let Some(reason) = &guarded.error {
                problems.push(problem(host, reason));
            }
            hosts.push(guarded.profile.clone());
            self.guarded.insert(host.host.clone(), guarded);
        }
        Ok(TlsProfiles { hosts, plain })
    }

    fn plain(&mut self, terms: Terms) -> Result<Profile, rustls::Error> {
        if let Some(profile) = self.plain.get(&terms) {
            return Ok(profile.clone());
        }
        let config = self.config(terms, None)?;
        let profile = Profile(Arc::new(HostProfile { config, client_auth: None }));
        self.plain.insert(terms, profile.clone());
        Ok(profile)
    }

    fn guard(&self, auth: &ClientAuth, secret: Option<Arc<Secret>>, terms: Terms) -> Result<Guarded, rustls::Error> {
        let verifier = match (auth, &secret) {
            (ClientAuth::Unreadable, _) => Err(None),
            (ClientAuth::Verify(rules), None) => Err(Some(format!("secret {} does not exist", rules.secret))),
            (ClientAuth::Verify(rules), Some(secret)) => ClientVerifier::new(rules, secret, &self.provider)
                .map_err(|error| Some(format!("secret {}: {error}", rules.secret))),
        };
        let (verifier, error) = match verifier {
            Ok(verifier) => (verifier, None),
            Err(error) => (ClientVerifier::nobody(), error),
        };
        let config = self.config(terms, Some(&verifier))?;
        let profile = Profile(Arc::new(HostProfile { config, client_auth: Some(Arc::new(verifier)) }));
        Ok(Guarded { auth: auth.clone(), secret, terms, profile, error })
    }

    fn config(&self, terms: Terms, verifier: Option<&ClientVerifier>) -> Result<Arc<ServerConfig>, rustls::Error> {
        let question = verifier.and_then(ClientVerifier::question);
        server_config(Arc::clone(&self.provider), terms, Arc::clone(&self.resolver), question)
    }
}

fn same(before: Option<&Arc<Secret>>, now: Option<&Arc<Secret>>) -> bool {
    match (before, now) {
        (Some(before), Some(now)) => Arc::ptr_eq(before, now) || before.data == now.data,
        (None, None) => true,
        _ => false,
    }
}

fn problem(host: &HostTls, reason: &str) -> Problem {
    Problem {
        severity: Severity::Error,
        place: None,
        object: host.auth_ingress.as_ref().map(|name| ObjectRef { kind: "Ingress".to_owned(), name: name.clone() }),
        field: Some("metadata.annotations[nginx.ingress.kubernetes.io/auth-tls-secret]".to_owned()),
        reason: format!("{reason}; requests for its hosts get 403"),
    }
}
