//! Which Secret's certificate serves a host: exact name, then wildcard, then the default.

use std::collections::HashMap;

use roadstead_model::{Host, ObjectName};

use crate::host::wildcard_key;

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

    /// Every host with its entry, in no order.
    pub fn hosts(&self) -> impl Iterator<Item = (Host, &CertificateRef)> {
        let exact = self.exact.iter().map(|(name, entry)| (Host::Exact(name.clone()), entry));
        exact.chain(self.wildcard.iter().map(|(rest, entry)| (Host::Wildcard(rest.clone()), entry)))
    }
}
