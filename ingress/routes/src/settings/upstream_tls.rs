//! TLS to endpoints: `proxy-ssl-*`. What is read here says what is asked for; Secrets are opened by the proxy.

use roadstead_model::ObjectName;

use super::{Reader, reader::Wrong};

/// How endpoints are spoken to over TLS. Connections made under one of these never serve a request under another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct UpstreamTls {
    /// `proxy-ssl-secret`: `ca.crt` to verify endpoints by, `tls.crt` and `tls.key` to show them.
    pub secret: SecretChoice,
    /// `proxy-ssl-verify`.
    pub verify: Verify,
    /// `proxy-ssl-name`: whom an endpoint's certificate must name, and whom SNI asks for.
    pub name: Option<String>,
    /// `proxy-ssl-server-name`: whether SNI is sent.
    pub server_name: Sni,
    /// `proxy-ssl-protocols`.
    pub versions: UpstreamVersions,
    /// `proxy-ssl-ciphers`: by OpenSSL's names, those of TLS 1.2 alone; `None`: all that are known.
    pub ciphers: Option<Vec<&'static str>>,
}

/// The Secret, as far as it may be used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum SecretChoice {
    /// There is none.
    #[default]
    None,
    /// This one.
    Named(ObjectName),
    /// What is written cannot be used, and has been reported. Requests get 503, as nothing says whom to trust.
    Unusable,
}

/// Whether an endpoint's certificate is verified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Verify {
    /// Any certificate will do.
    #[default]
    Off,
    /// It must lead to the Secret's `ca.crt` over at most this many intermediate certificates (`proxy-ssl-verify-depth`).
    Depth(u32),
}

/// Whether a name is sent in the clear at the start of a handshake (RFC 6066, section 3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Sni {
    /// No.
    #[default]
    Omit,
    /// Yes.
    Send,
}

/// The versions of TLS that may be spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum UpstreamVersions {
    /// 1.2 or 1.3.
    #[default]
    Both,
    /// 1.2 alone.
    Tls12,
    /// 1.3 alone.
    Tls13,
}

/// The TLS 1.2 cipher suites that rustls has, by OpenSSL's names.
const CIPHERS: [&str; 6] = [
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-RSA-CHACHA20-POLY1305",
];

impl UpstreamTls {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let secret = match reader.own_object("proxy-ssl-secret") {
            Ok(None) => SecretChoice::None,
            Ok(Some(name)) => SecretChoice::Named(name),
            Err(Wrong) => SecretChoice::Unusable,
        };
        let on_or_off = [("on", true), ("off", false)];
        let depth = reader.annotation("proxy-ssl-verify-depth").number(0).unwrap_or(1);
        let verify = reader.annotation("proxy-ssl-verify").strict("on or off", |text| word(text, &on_or_off));
        let (verify, secret) = match verify {
            Ok(Some(true)) if secret == SecretChoice::None => {
                reader.complain("proxy-ssl-verify", "needs proxy-ssl-secret with a ca.crt; requests get 503");
                (Verify::Depth(depth), SecretChoice::Unusable)
            }
            Ok(Some(true)) => (Verify::Depth(depth), secret),
            Ok(_) => (Verify::Off, secret),
            // Somebody wanted to be sure of something.
            Err(Wrong) => (Verify::Off, SecretChoice::Unusable),
        };
        let server_name = reader.annotation("proxy-ssl-server-name").word(&[("on", Sni::Send), ("off", Sni::Omit)]);
        Self {
            secret,
            verify,
            name: reader.annotation("proxy-ssl-name").parse("a host name", name),
            server_name: server_name.unwrap_or_default(),
            versions: versions(reader),
            ciphers: ciphers(reader),
        }
    }
}

fn word<T: Copy>(text: &str, words: &[(&str, T)]) -> Option<T> {
    words.iter().find(|(word, _)| word.eq_ignore_ascii_case(text)).map(|(_, value)| *value)
}

/// A DNS name as certificates hold it; the proxy reads it once more into its own type.
fn name(text: &str) -> Option<String> {
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    (text.len() <= 253 && text.split('.').all(is_label)).then(|| text.to_ascii_lowercase())
}

fn versions(reader: &mut Reader<'_>) -> UpstreamVersions {
    let key = "proxy-ssl-protocols";
    let known = ["SSLv2", "SSLv3", "TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"];
    let read = |text: &str| {
        let words: Vec<_> = text.split_ascii_whitespace().map(str::to_owned).collect();
        words.iter().all(|word| known.contains(&word.as_str())).then_some(words)
    };
    let Some(words) = reader.annotation(key).parse("a list such as TLSv1.2 TLSv1.3", read) else {
        return UpstreamVersions::Both;
    };
    let has = |version: &str| words.iter().any(|word| word == version);
    match (has("TLSv1.2"), has("TLSv1.3")) {
        (true, false) => UpstreamVersions::Tls12,
        (false, true) => UpstreamVersions::Tls13,
        (true, true) => UpstreamVersions::Both,
        (false, false) => {
            reader.complain(key, "names no version that is spoken here; TLSv1.2 and TLSv1.3 hold");
            UpstreamVersions::Both
        }
    }
}

/// Of an OpenSSL list the names count that rustls has too. Words for whole classes mean all of those, for every one of them
/// is strong; what is taken away from a class is what rustls never had.
fn ciphers(reader: &mut Reader<'_>) -> Option<Vec<&'static str>> {
    let key = "proxy-ssl-ciphers";
    let text = reader.annotation(key).text()?.to_owned();
    let classes = ["DEFAULT", "ALL", "HIGH", "ECDH", "ECDHE", "EECDH", "AESGCM", "EECDH+AESGCM", "ECDHE+AESGCM"];
    let mut chosen = Vec::new();
    for word in text.split([':', ',', ' ']).filter(|word| !word.is_empty() && !word.starts_with(['!', '-', '@'])) {
        if classes.contains(&word) {
            return None;
        }
        chosen.extend(CIPHERS.iter().filter(|cipher| **cipher == word));
    }
    if chosen.is_empty() {
        reader.complain(key, "names no cipher suite that is known here; all that are known hold");
        return None;
    }
    Some(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::fixture;

    fn check(values: &[(&str, &str)], expected: impl FnOnce(&mut UpstreamTls), reported: &[&str]) {
        let mut tls = UpstreamTls::default();
        expected(&mut tls);
        fixture::check(values, UpstreamTls::read, &tls, reported);
    }

    #[test]
    fn what_is_asked_for_is_read() {
        let own = SecretChoice::Named(ObjectName::new("default", "s"));
        check(&[], |_| {}, &[]);
        check(&[("proxy-ssl-secret", "default/s")], |read| read.secret = own.clone(), &[]);
        check(
            &[("proxy-ssl-secret", "s"), ("proxy-ssl-verify", "on"), ("proxy-ssl-verify-depth", "2")],
            |read| (read.secret, read.verify) = (own.clone(), Verify::Depth(2)),
            &[],
        );
        check(&[("proxy-ssl-name", "Web.Example")], |read| read.name = Some("web.example".to_owned()), &[]);
        check(&[("proxy-ssl-server-name", "on")], |read| read.server_name = Sni::Send, &[]);
        check(&[("proxy-ssl-protocols", "TLSv1 TLSv1.1 TLSv1.2")], |read| read.versions = UpstreamVersions::Tls12, &[]);
        check(&[("proxy-ssl-protocols", "TLSv1.3")], |read| read.versions = UpstreamVersions::Tls13, &[]);
        check(&[("proxy-ssl-ciphers", "HIGH:!aNULL:!MD5")], |_| {}, &[]);
        check(
            &[("proxy-ssl-ciphers", "ECDHE-RSA-AES128-GCM-SHA256:AES128-SHA")],
            |read| read.ciphers = Some(vec!["ECDHE-RSA-AES128-GCM-SHA256"]),
            &[],
        );
    }

    #[test]
    fn what_would_weaken_trust_is_refused_and_told() {
        let refused = |read: &mut UpstreamTls| read.secret = SecretChoice::Unusable;
        check(&[("proxy-ssl-secret", "other/s")], refused, &["proxy-ssl-secret"]);
        check(&[("proxy-ssl-secret", "a/b/c")], refused, &["proxy-ssl-secret"]);
        check(&[("proxy-ssl-verify", "yes")], refused, &["proxy-ssl-verify"]);
        check(
            &[("proxy-ssl-verify", "on")],
            |read| (read.secret, read.verify) = (SecretChoice::Unusable, Verify::Depth(1)),
            &["proxy-ssl-verify"],
        );
    }

    #[test]
    fn wrong_values_are_told() {
        for (key, value) in [
            ("proxy-ssl-name", "a b"),
            ("proxy-ssl-server-name", "maybe"),
            ("proxy-ssl-verify-depth", "-1"),
            ("proxy-ssl-protocols", "TLSv9"),
            ("proxy-ssl-protocols", "TLSv1"),
            ("proxy-ssl-ciphers", "AES128-SHA"),
        ] {
            check(&[(key, value)], |_| {}, &[key]);
        }
    }
}
