//! Client certificates: ingress-nginx's `auth-tls-*` annotations.
//!
//! They hold for a whole host, since a certificate is asked for before anybody knows a path; `tls` decides whose do. Whether
//! the Secret holds what is needed is not known here.

use roadstead_model::ObjectName;

use super::Reader;
use crate::{Case, Pattern};

/// What an Ingress asks of the clients of its hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// Certificates are asked for and judged.
    Verify(ClientAuthRules),
    /// What the annotations mean is not known: nobody may come, since everybody would be a guess in the wrong direction.
    Unreadable,
}

/// How certificates are judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAuthRules {
    /// `auth-tls-secret`: its `ca.crt` holds those who may vouch for clients, its `ca.crl` whom they have disowned.
    pub secret: ObjectName,
    /// `auth-tls-verify-client`.
    pub need: ClientCertificate,
    /// `auth-tls-verify-depth`: the most certificates between the client's and one of `ca.crt`.
    pub depth: u32,
    /// `auth-tls-pass-certificate-to-upstream`.
    pub pass_certificate: bool,
    /// `auth-tls-match-cn`: a regular expression that the subject must match.
    pub match_cn: Option<Pattern>,
    /// `auth-tls-error-page`: where clients are sent whose certificate is no good.
    pub error_page: Option<String>,
}

/// `auth-tls-verify-client`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertificate {
    /// `on`: without a good one there is nothing.
    Required,
    /// `optional`: one that is shown must be good.
    Optional,
    /// `optional_no_ca`: one that is shown need not be vouched for.
    OptionalUnverified,
}

impl ClientAuth {
    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let secret = reader.annotation("auth-tls-secret").object();
        let words = [
            ("on", Some(ClientCertificate::Required)),
            ("off", None),
            ("optional", Some(ClientCertificate::Optional)),
            ("optional_no_ca", Some(ClientCertificate::OptionalUnverified)),
        ];
        // As in ingress-nginx a word that is none means "on": a typing error must not let anybody in.
        let need = reader.annotation("auth-tls-verify-client").word(&words);
        let depth = reader.annotation("auth-tls-verify-depth").number(1).unwrap_or(1);
        let pass_certificate = reader.annotation("auth-tls-pass-certificate-to-upstream").boolean().unwrap_or(false);
        let match_cn = reader.annotation("auth-tls-match-cn").strict("a regular expression with CN=", match_cn);
        let error_page = reader.annotation("auth-tls-error-page").parse("an absolute URL", error_page);
        let secret = match secret {
            Ok(None) => {
                for key in ["auth-tls-verify-client", "auth-tls-match-cn"] {
                    if reader.annotation(key).text().is_some() {
                        reader.complain(key, "has no effect without auth-tls-secret");
                    }
                }
                return None;
            }
            Ok(Some(secret)) => secret,
            Err(_) => return Some(Self::Unreadable),
        };
        let need = need.unwrap_or(Some(ClientCertificate::Required))?;
        let Ok(match_cn) = match_cn else { return Some(Self::Unreadable) };
        Some(Self::Verify(ClientAuthRules { secret, need, depth, pass_certificate, match_cn, error_page }))
    }
}

/// An expression that can be compiled, and speaks of the common name.
fn match_cn(text: &str) -> Option<Pattern> {
    text.contains("CN=").then(|| Pattern::new(text, Case::Sensitive).ok())?
}

/// A path would lead back to where a certificate is asked for.
fn error_page(text: &str) -> Option<String> {
    let absolute = ["http://", "https://"].iter().any(|scheme| text.starts_with(scheme));
    (absolute && text.bytes().all(|byte| byte.is_ascii_graphic())).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    fn read(annotations: &[(&str, &str)]) -> (Option<ClientAuth>, Vec<String>) {
        let mut ingress = fixture::ingress("default/web");
        for (key, value) in annotations {
            ingress.meta.annotations.insert(format!("nginx.ingress.kubernetes.io/auth-tls-{key}"), (*value).to_owned());
        }
        let mut problems = Vec::new();
        let mut reader = Reader::of_ingress(&ingress, &mut problems);
        let auth = ClientAuth::read(&mut reader);
        reader.finish();
        let field = |problem: &roadstead_model::Problem| problem.field.clone().unwrap();
        (auth, problems.iter().map(field).collect())
    }

    fn rules(secret: &str) -> ClientAuthRules {
        ClientAuthRules {
            secret: fixture::name(secret),
            need: ClientCertificate::Required,
            depth: 1,
            pass_certificate: false,
            match_cn: None,
            error_page: None,
        }
    }

    #[test]
    fn annotations_are_read() {
        assert_eq!(read(&[]), (None, vec![]));
        assert_eq!(read(&[("secret", "ca")]), (Some(ClientAuth::Verify(rules("default/ca"))), vec![]));
        assert_eq!(read(&[("secret", "ca"), ("verify-client", "off")]), (None, vec![]));
        let all = [
            ("secret", "other/ca"),
            ("verify-client", "optional_no_ca"),
            ("verify-depth", "3"),
            ("pass-certificate-to-upstream", "true"),
            ("match-cn", "^CN=(a|b),"),
            ("error-page", "https://a.example/error"),
        ];
        let expected = ClientAuthRules {
            need: ClientCertificate::OptionalUnverified,
            depth: 3,
            pass_certificate: true,
            match_cn: Pattern::new("^CN=(a|b),", Case::Sensitive).ok(),
            error_page: Some("https://a.example/error".to_owned()),
            ..rules("other/ca")
        };
        assert_eq!(read(&all), (Some(ClientAuth::Verify(expected)), vec![]));
    }

    /// A wrong value never opens a host.
    #[test]
    fn wrong_values_are_reported_and_let_nobody_in() {
        let key = |key: &str| vec![format!("metadata.annotations[nginx.ingress.kubernetes.io/auth-tls-{key}]")];
        let strict = Some(ClientAuth::Verify(rules("default/ca")));
        for (name, value) in [
            ("verify-client", "sometimes"),
            ("verify-depth", "0"),
            ("pass-certificate-to-upstream", "yes"),
            ("error-page", "/error"),
            ("error-page", "https://a.example/a b"),
        ] {
            assert_eq!(read(&[("secret", "ca"), (name, value)]), (strict.clone(), key(name)), "{name}: {value}");
        }
        for value in ["CN=(", "a.example"] {
            let expected = (Some(ClientAuth::Unreadable), key("match-cn"));
            assert_eq!(read(&[("secret", "ca"), ("match-cn", value)]), expected);
        }
        assert_eq!(read(&[("secret", "a/b/c")]), (Some(ClientAuth::Unreadable), key("secret")));
        assert_eq!(read(&[("verify-client", "on")]), (None, key("verify-client")));
    }
}
