//! TLS by host: which Secret's certificate serves it (exact name, then wildcard, then the default), and what its Ingresses ask
//! for beyond a certificate.

use std::collections::HashMap;

use roadstead_model::{Host, ObjectName};

use crate::{BackendId, CipherOrder, ClientAuth, TlsSettings, Versions, host::wildcard_key};

/// A host whose Ingresses ask for more than a certificate. The oldest that asks for a thing decides about it, for all paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostTls {
    /// The host; `None` for every host that no rule names.
    pub host: Option<Host>,
    /// Versions that are spoken.
    pub versions: Versions,
    /// Whose order of ciphers decides.
    pub cipher_order: CipherOrder,
    /// What is asked of clients.
    pub client_auth: Option<ClientAuth>,
    /// The Ingress that asks it.
    pub auth_ingress: Option<ObjectName>,
    /// Where connections are passed through to, instead of all that.
    pub passthrough: Option<BackendId>,
}

impl HostTls {
    /// A host that has what all have.
    pub(crate) fn new(host: Option<Host>, defaults: &TlsSettings) -> Self {
        let TlsSettings { versions, cipher_order, .. } = *defaults;
        Self { host, versions, cipher_order, client_auth: None, auth_ingress: None, passthrough: None }
    }

    /// Takes from a younger Ingress what no older one has decided; `Err` names the one that stands in the way.
    pub(crate) fn merge(
        &mut self,
        ingress: &ObjectName,
        settings: &TlsSettings,
        defaults: &TlsSettings,
    ) -> Result<(), ObjectName> {
        if self.versions == defaults.versions {
            self.versions = settings.versions;
        }
        if self.cipher_order == defaults.cipher_order {
            self.cipher_order = settings.cipher_order;
        }
        let Some(asked) = &settings.client_auth else { return Ok(()) };
        match (&self.client_auth, &self.auth_ingress) {
            (Some(decided), Some(owner)) if decided != asked => Err(owner.clone()),
            (Some(_), _) => Ok(()),
            (None, _) => {
                self.client_auth = Some(asked.clone());
                self.auth_ingress = Some(ingress.clone());
                Ok(())
            }
        }
    }
}

/// What `spec.tls` says about a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateRef {
    /// The Secret; `None` leaves the host to the default certificate, but it is a TLS host all the same.
    pub secret: Option<ObjectName>,
    /// The Ingress that says so.
    pub ingress: ObjectName,
}

/// TLS hosts and their Secrets, names only: keys and certificates never pass through this crate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateIndex {
    pub(crate) exact: HashMap<String, CertificateRef>,
    pub(crate) wildcard: HashMap<String, CertificateRef>,
    pub(crate) default: Option<CertificateRef>,
}

impl CertificateIndex {
    /// The entry for a host in lower case without a trailing dot; hosts that no entry names have none, even where there
    /// is a default.
    #[must_use]
    pub fn lookup(&self, host: &str) -> Option<&CertificateRef> {
        self.exact.get(host).or_else(|| self.wildcard.get(wildcard_key(host)?))
    }

    /// What serves hosts that no entry names: a TLS entry without hosts on an Ingress without hosts.
    #[must_use]
    pub fn default_certificate(&self) -> Option<&CertificateRef> {
        self.default.as_ref()
    }

    /// Every entry, in no order that means anything.
    pub fn entries(&self) -> impl Iterator<Item = &CertificateRef> {
        self.exact.values().chain(self.wildcard.values()).chain(&self.default)
    }

    /// Every host with its entry, in no order.
    pub fn hosts(&self) -> impl Iterator<Item = (Host, &CertificateRef)> {
        let exact = self.exact.iter().map(|(name, entry)| (Host::Exact(name.clone()), entry));
        exact.chain(self.wildcard.iter().map(|(rest, entry)| (Host::Wildcard(rest.clone()), entry)))
    }
}
