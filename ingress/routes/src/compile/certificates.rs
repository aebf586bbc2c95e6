//! Whose certificate serves a host: claims of TLS entries, those with a rule for the host first.

use roadstead_model::{Host, Ingress, IngressTls, ObjectName};

use super::Compiler;
use crate::{CertificateRef, settings::warning};

/// An Ingress asks for a Secret to serve a host.
pub(super) struct TlsClaim<'a> {
    pub(super) ingress: &'a Ingress,
    pub(super) field: String,
    pub(super) host: Option<Host>,
    pub(super) secret: Option<&'a ObjectName>,
    /// The Ingress has a rule for this very host. Such claims come first, so that no Ingress can take the certificate of
    /// a host that it does not serve.
    pub(super) has_rule: bool,
}

impl<'a> Compiler<'a> {
    pub(super) fn claim_tls(&mut self, ingress: &'a Ingress, index: usize, tls: &'a IngressTls) {
        let rule_hosts: Vec<_> = ingress.rules.iter().filter_map(|rule| rule.host.as_ref()).collect();
        let mut claim = |host: Option<&Host>| {
            let has_rule = host.is_none_or(|host| rule_hosts.contains(&host));
            let field = format!("spec.tls[{index}]");
            let secret = tls.secret.as_ref();
            self.claims.push(TlsClaim { ingress, field, host: host.cloned(), secret, has_rule });
        };
        match (tls.hosts.is_empty(), rule_hosts.is_empty()) {
            (false, _) => tls.hosts.iter().for_each(|host| claim(Some(host))),
            (true, false) => rule_hosts.iter().for_each(|host| claim(Some(host))),
            (true, true) => claim(None),
        }
    }

    /// Claims are sorted by now: those with a rule first, each kind oldest first.
    pub(super) fn assign_certificates(&mut self) {
        for claim in std::mem::take(&mut self.claims) {
            let entry = CertificateRef { secret: claim.secret.cloned(), ingress: claim.ingress.meta.name.clone() };
            let index = &mut self.table.certificates;
            let kept = match &claim.host {
                Some(Host::Exact(name)) => index.exact.entry(name.clone()).or_insert_with(|| entry.clone()),
                Some(Host::Wildcard(rest)) => index.wildcard.entry(rest.clone()).or_insert_with(|| entry.clone()),
                None => index.default.get_or_insert_with(|| entry.clone()),
            };
            if kept.secret != entry.secret {
                let host = claim.host.as_ref().map_or_else(|| "every other host".to_owned(), Host::to_string);
                let reason = format!("the certificate of {host} is already chosen by Ingress {}", kept.ingress);
                self.conflict(warning(claim.ingress, claim.field, reason));
            }
        }
    }

    /// A host's other name gets its certificate, unless a TLS entry names it too; whether the certificate is valid for it is for
    /// its client to tell.
    pub(super) fn share_certificate(&mut self, host: &str, other: &str) {
        let index = &mut self.table.certificates;
        if index.lookup(other).is_none()
            && let Some(entry) = index.lookup(host).cloned()
        {
            index.exact.insert(other.to_owned(), entry);
        }
    }
}
