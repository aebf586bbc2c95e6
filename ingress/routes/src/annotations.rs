//! Annotations of an Ingress: honoured, or reported by name; none is ignored in silence.

use roadstead_model::{Ingress, ObjectRef, Problem, Severity};

/// Prefixes that address an Ingress controller's settings; ours goes before ingress-nginx's.
const PREFIXES: [&str; 2] = ["roadstead.dev/", "nginx.ingress.kubernetes.io/"];

const SSL_REDIRECT: &str = "ssl-redirect";

/// The settings of one Ingress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Plain requests for a TLS host are sent to https.
    pub(crate) ssl_redirect: bool,
}

impl Settings {
    /// Reads the annotations, and says which of them have no effect.
    pub(crate) fn read(ingress: &Ingress, problems: &mut Vec<Problem>) -> Self {
        let mut ssl_redirect = None;
        for prefix in PREFIXES {
            for (key, value) in &ingress.meta.annotations {
                let problem = match key.strip_prefix(prefix) {
                    None => continue,
                    Some(SSL_REDIRECT) => match value.parse::<bool>() {
                        Ok(chosen) => {
                            ssl_redirect = ssl_redirect.or(Some(chosen));
                            continue;
                        }
                        Err(_) => format!("must be true or false, not {value:?}; the default true holds"),
                    },
                    Some(_) => "is not honoured by this version".to_owned(),
                };
                problems.push(warning(ingress, format!("metadata.annotations[{key}]"), problem));
            }
        }
        Self { ssl_redirect: ssl_redirect.unwrap_or(true) }
    }
}

/// A warning about a field of an Ingress.
pub(crate) fn warning(ingress: &Ingress, field: String, reason: String) -> Problem {
    let object = ObjectRef { kind: "Ingress".to_owned(), name: ingress.meta.name.clone() };
    Problem { severity: Severity::Warning, place: None, object: Some(object), field: Some(field), reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    fn check(annotations: &[(&str, &str)], ssl_redirect: bool, reported: &[&str]) {
        let mut ingress = fixture::ingress("default/web");
        for (key, value) in annotations {
            ingress.meta.annotations.insert((*key).to_owned(), (*value).to_owned());
        }
        let mut problems = Vec::new();
        let settings = Settings::read(&ingress, &mut problems);
        assert_eq!(settings.ssl_redirect, ssl_redirect, "{annotations:?}");
        let fields: Vec<_> = problems.iter().map(|problem| problem.field.clone().unwrap()).collect();
        let expected: Vec<_> = reported.iter().map(|key| format!("metadata.annotations[{key}]")).collect();
        assert_eq!(fields, expected, "{annotations:?}");
    }

    #[test]
    fn annotations_are_honoured_or_reported() {
        let (ours, nginx) = ("roadstead.dev/ssl-redirect", "nginx.ingress.kubernetes.io/ssl-redirect");
        check(&[], true, &[]);
        check(&[(nginx, "false")], false, &[]);
        check(&[(ours, "false")], false, &[]);
        check(&[(ours, "true"), (nginx, "false")], true, &[]);
        check(&[(nginx, "no")], true, &[nginx]);
        let body_size = "nginx.ingress.kubernetes.io/proxy-body-size";
        check(&[(body_size, "8m"), ("example.com/team", "a")], true, &[body_size]);
    }
}
