//! Basic authentication: `auth-type`, `auth-secret`, `auth-secret-type`, `auth-realm`.
//!
//! Only the Secret's name is decided here; who its users are the proxy looks up, so that a changed Secret touches no route.

use roadstead_model::ObjectName;

use super::{Guard, Reader};

/// Users and passwords are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BasicAuth {
    /// Who may come.
    pub secret: PasswordSecret,
    /// What the client is shown; holds neither quotes nor backslashes nor control characters.
    pub realm: String,
}

/// A Secret of users and hashed passwords.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PasswordSecret {
    /// Its name.
    pub name: ObjectName,
    /// How the users stand in it.
    pub form: SecretForm,
}

/// `auth-secret-type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SecretForm {
    /// `auth-file`: an htpasswd file under the key `auth`.
    #[default]
    File,
    /// `auth-map`: a key for each user, with the hash for a value.
    Map,
}

const FORMS: [(&str, SecretForm); 2] = [("auth-file", SecretForm::File), ("auth-map", SecretForm::Map)];

impl BasicAuth {
    pub(super) fn read(reader: &mut Reader<'_>) -> Guard<Self> {
        let form = reader.annotation("auth-secret-type").closing().strict("one of auth-file, auth-map", |text| {
            FORMS.iter().find(|(word, _)| *word == text).map(|(_, form)| *form)
        });
        let realm = reader.annotation("auth-realm").parse("text without quotes", realm);
        let secret = reader.own_object("auth-secret");
        match reader.annotation("auth-type").text() {
            None => return Guard::Unset,
            Some("basic") => {}
            Some(other) => {
                let what = if other == "digest" { "digest is not honoured" } else { "must be basic" };
                reader.complain("auth-type", format!("{what}: its requests get 503"));
                return Guard::Wrong;
            }
        }
        match (secret, form) {
            (Ok(Some(name)), Ok(form)) => {
                let secret = PasswordSecret { name, form: form.unwrap_or_default() };
                Guard::Set(Self { secret, realm: realm.unwrap_or_default() })
            }
            (Ok(None), _) => {
                reader.complain("auth-type", "asks for users and auth-secret names none: its requests get 503");
                Guard::Wrong
            }
            _ => Guard::Wrong,
        }
    }
}

fn realm(text: &str) -> Option<String> {
    let fits = |c: char| !c.is_control() && c.is_ascii() && c != '"' && c != '\\';
    text.chars().all(fits).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{fixture, settings::reader::Namespaces};

    fn secret(namespace: &str, form: SecretForm, realm: &str) -> Guard<BasicAuth> {
        let secret = PasswordSecret { name: ObjectName::new(namespace, "s"), form };
        Guard::Set(BasicAuth { secret, realm: realm.to_owned() })
    }

    fn check(annotations: &[(&str, &str)], namespaces: Namespaces, expected: &Guard<BasicAuth>, reported: usize) {
        let ingress = fixture::annotated("default/web", annotations);
        let mut problems = Vec::new();
        let mut reader = Reader::of_ingress(&ingress, &mut problems);
        reader.namespaces = namespaces;
        assert_eq!(&BasicAuth::read(&mut reader), expected, "{annotations:?}");
        reader.finish();
        assert_eq!(problems.len(), reported, "{annotations:?} {problems:?}");
    }

    #[test]
    fn what_cannot_be_honoured_closes() {
        use SecretForm::{File, Map};
        check(&[], Namespaces::Own, &Guard::Unset, 0);
        check(&[("auth-secret", "s"), ("auth-realm", "x")], Namespaces::Own, &Guard::Unset, 0);
        check(&[("auth-type", "basic"), ("auth-secret", "s")], Namespaces::Own, &secret("default", File, ""), 0);
        let map =
            [("auth-type", "basic"), ("auth-secret", "s"), ("auth-secret-type", "auth-map"), ("auth-realm", "My a")];
        check(&map, Namespaces::Own, &secret("default", Map, "My a"), 0);
        let quoted = [("auth-type", "basic"), ("auth-secret", "s"), ("auth-realm", "a\"b")];
        check(&quoted, Namespaces::Own, &secret("default", File, ""), 1);
        check(&[("auth-type", "digest"), ("auth-secret", "s")], Namespaces::Own, &Guard::Wrong, 1);
        check(&[("auth-type", "Basic auth")], Namespaces::Own, &Guard::Wrong, 1);
        check(&[("auth-type", "basic")], Namespaces::Own, &Guard::Wrong, 1);
        check(&[("auth-type", "basic"), ("auth-secret", "a/b/c")], Namespaces::Own, &Guard::Wrong, 1);
        check(
            &[("auth-type", "basic"), ("auth-secret", "s"), ("auth-secret-type", "x")],
            Namespaces::Own,
            &Guard::Wrong,
            1,
        );
        check(&[("auth-type", "basic"), ("auth-secret", "other/s")], Namespaces::Own, &Guard::Wrong, 1);
        check(&[("auth-type", "basic"), ("auth-secret", "other/s")], Namespaces::All, &secret("other", File, ""), 0);
    }
}
