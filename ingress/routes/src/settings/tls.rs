//! What an Ingress wants of TLS for its hosts, and what of it the ConfigMap says for all.
//!
//! Like client certificates these hold for a host, not for a path. rustls decides the order and set of ciphers: what
//! ingress-nginx lets one choose beyond versions and preference is reported as having no effect.

use super::{ClientAuth, Reader};

/// TLS of the hosts of an Ingress.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// `ssl-passthrough`: connections go to an endpoint as they are; nothing else that the Ingress says holds over TLS.
    pub passthrough: bool,
    /// `ssl-protocols`, as an option or, beyond what ingress-nginx has, an annotation.
    pub versions: Versions,
    /// `ssl-prefer-server-ciphers`.
    pub cipher_order: CipherOrder,
    /// `auth-tls-*`.
    pub client_auth: Option<ClientAuth>,
}

/// The versions of TLS that are spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Versions {
    /// 1.2 and 1.3.
    #[default]
    Both,
    /// 1.2 alone.
    Only12,
    /// 1.3 alone.
    Only13,
}

/// Whose order of ciphers decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CipherOrder {
    /// The client's: it knows which of them its processor is good at.
    #[default]
    Client,
    /// The server's.
    Server,
}

impl TlsSettings {
    pub(super) fn read(reader: &mut Reader<'_>, base: &Self) -> Self {
        let words = [("true", CipherOrder::Server), ("false", CipherOrder::Client)];
        for key in ["ssl-ciphers", "ssl-ecdh-curve", "ssl-dh-param"] {
            if reader.either(key).text().is_some() {
                reader.complain(
                    key,
                    "has no effect: the ciphers and curves of TLS 1.2 and 1.3 are fixed, all with forward secrecy",
                );
            }
        }
        Self {
            passthrough: reader.annotation("ssl-passthrough").boolean().unwrap_or(base.passthrough),
            versions: versions(reader).unwrap_or(base.versions),
            cipher_order: reader.either("ssl-prefer-server-ciphers").word(&words).unwrap_or(base.cipher_order),
            client_auth: ClientAuth::read(reader),
        }
    }
}

/// A list with spaces, as nginx's `ssl_protocols`. Old versions in it are left out and reported.
fn versions(reader: &mut Reader<'_>) -> Option<Versions> {
    let text = reader.either("ssl-protocols").text()?;
    let known = ["SSLv2", "SSLv3", "TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"];
    let words: Vec<_> = text.split_whitespace().collect();
    if let Some(word) = words.iter().find(|word| !known.contains(*word)) {
        reader.complain("ssl-protocols", format!("holds {word:?}, which is no version of TLS; it has no effect"));
        return None;
    }
    let versions = match (words.contains(&"TLSv1.2"), words.contains(&"TLSv1.3")) {
        (true, true) => Some(Versions::Both),
        (true, false) => Some(Versions::Only12),
        (false, true) => Some(Versions::Only13),
        (false, false) => None,
    };
    if words.iter().any(|word| !["TLSv1.2", "TLSv1.3"].contains(word)) {
        reader.complain("ssl-protocols", "names versions below 1.2, which are never spoken");
    }
    versions
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    fn check(annotations: &[(&str, &str)], expected: &TlsSettings, reported: &[&str]) {
        let mut ingress = fixture::ingress("default/web");
        for (key, value) in annotations {
            ingress.meta.annotations.insert(format!("nginx.ingress.kubernetes.io/{key}"), (*value).to_owned());
        }
        let mut problems = Vec::new();
        let mut reader = Reader::of_ingress(&ingress, &mut problems);
        assert_eq!(&TlsSettings::read(&mut reader, &TlsSettings::default()), expected, "{annotations:?}");
        reader.finish();
        let fields: Vec<_> = problems.iter().map(|problem| problem.field.clone().unwrap()).collect();
        let reported: Vec<_> =
            reported.iter().map(|key| format!("metadata.annotations[nginx.ingress.kubernetes.io/{key}]")).collect();
        assert_eq!(fields, reported, "{annotations:?}");
    }

    #[test]
    fn annotations_are_read_or_reported() {
        let default = TlsSettings::default();
        check(&[], &default, &[]);
        check(&[("ssl-passthrough", "true")], &TlsSettings { passthrough: true, ..default.clone() }, &[]);
        check(&[("ssl-passthrough", "1")], &default, &["ssl-passthrough"]);
        let server = TlsSettings { cipher_order: CipherOrder::Server, ..default.clone() };
        check(&[("ssl-prefer-server-ciphers", "True")], &server, &[]);
        check(&[("ssl-prefer-server-ciphers", "on")], &default, &["ssl-prefer-server-ciphers"]);
        check(&[("ssl-ciphers", "HIGH")], &default, &["ssl-ciphers"]);
        for (text, versions, reported) in [
            ("TLSv1.2 TLSv1.3", Versions::Both, false),
            ("TLSv1.3", Versions::Only13, false),
            ("TLSv1.2", Versions::Only12, false),
            ("TLSv1 TLSv1.1 TLSv1.2", Versions::Only12, true),
            ("TLSv1", Versions::Both, true),
            ("TLSv1.3 tls", Versions::Both, true),
        ] {
            let reported: &[&str] = if reported { &["ssl-protocols"] } else { &[] };
            check(&[("ssl-protocols", text)], &TlsSettings { versions, ..default.clone() }, reported);
        }
    }
}
