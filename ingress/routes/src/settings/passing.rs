//! Under which names an Ingress is reached, and what it changes of heads on their way through: `server-alias`,
//! `upstream-vhost`, `connection-proxy-header`, `proxy-redirect-*`, `proxy-cookie-*`.

use std::borrow::Cow;

use roadstead_model::Host;

use super::{Reader, Template};
use crate::{Case, Facts, Pattern, Variable};

/// Names and heads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Passing {
    /// `server-alias`: other names of the Ingress's hosts.
    pub aliases: Vec<Host>,
    /// `upstream-vhost`: the host that endpoints are asked for.
    pub vhost: Option<Template>,
    /// `connection-proxy-header`: `keep-alive` or `close`.
    pub connection: Option<&'static str>,
    /// `proxy-redirect-from` and `-to`: what becomes of Location and Refresh.
    pub redirect: Option<Substitution>,
    /// `proxy-cookie-domain`.
    pub cookie_domain: Option<Substitution>,
    /// `proxy-cookie-path`.
    pub cookie_path: Option<Substitution>,
}

/// What takes the place of a text, or of its beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Substitution {
    from: From,
    to: Template,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum From {
    Text(Box<str>),
    Pattern(Pattern),
}

impl Passing {
    pub(super) fn read(reader: &mut Reader<'_>, base: &Self) -> Self {
        let connection = [("keep-alive", "keep-alive"), ("close", "close")];
        Self {
            aliases: aliases(reader),
            vhost: reader.annotation("upstream-vhost").template().unwrap_or(None),
            connection: reader.annotation("connection-proxy-header").word(&connection),
            redirect: redirect(reader, base),
            cookie_domain: pair(reader, "proxy-cookie-domain", Case::Insensitive).unwrap_or(base.cookie_domain.clone()),
            cookie_path: pair(reader, "proxy-cookie-path", Case::Sensitive).unwrap_or(base.cookie_path.clone()),
        }
    }

    /// Whether an answer has to be looked at.
    #[must_use]
    pub fn changes_answers(&self) -> bool {
        self.redirect.is_some() || self.cookie_domain.is_some() || self.cookie_path.is_some()
    }
}

fn aliases(reader: &mut Reader<'_>) -> Vec<Host> {
    let names = reader.annotation("server-alias").list().unwrap_or_default();
    let read: Vec<_> = names.iter().map(|name| (*name, alias(name))).collect();
    for (name, _) in read.iter().filter(|(_, alias)| alias.is_none()) {
        reader.complain("server-alias", format!("{name:?} is no host name; it has no effect"));
    }
    read.into_iter().filter_map(|(_, alias)| alias).collect()
}

fn alias(name: &str) -> Option<Host> {
    let name = name.to_ascii_lowercase();
    let is_name = |name: &str| {
        let label =
            |label: &str| !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        name.len() <= 253 && name.split('.').all(label)
    };
    match name.strip_prefix("*.") {
        Some(rest) => is_name(rest).then(|| Host::Wildcard(rest.to_owned())),
        None => is_name(&name).then_some(Host::Exact(name)),
    }
}

/// `proxy-redirect-to` alone means nothing, and neither does `proxy-redirect-from` beside `to: off`, as in ingress-nginx.
fn redirect(reader: &mut Reader<'_>, base: &Passing) -> Option<Substitution> {
    let from = reader.either("proxy-redirect-from").text();
    let to = reader.either("proxy-redirect-to").template();
    match (from, to) {
        (None, _) => base.redirect.clone(),
        (Some("off"), _) => None,
        (Some("default"), _) => {
            reader.complain("proxy-redirect-from", "default has no effect: the endpoints' names are not known here");
            None
        }
        (Some(_), Ok(None)) => {
            reader.complain("proxy-redirect-from", "has no effect without proxy-redirect-to");
            None
        }
        (Some(from), Ok(Some(to))) if to.constant() != Some("off") => {
            substitution(reader, "proxy-redirect-from", from, to, Case::Sensitive)
        }
        (Some(_), _) => None,
    }
}

/// `off`, or what to replace and by what. `None` where nothing is said.
fn pair(reader: &mut Reader<'_>, key: &'static str, case: Case) -> Option<Option<Substitution>> {
    let text = reader.either(key).text()?;
    if text == "off" {
        return Some(None);
    }
    let mut words = text.split_whitespace();
    let (Some(from), Some(to), None) = (words.next(), words.next(), words.next()) else {
        reader.complain(
            key,
            format!("must be off, or two words: what to replace and by what, not {text:?}; it has no effect"),
        );
        return None;
    };
    match Template::parse(to) {
        Ok(to) => substitution(reader, key, from, to, case).map(Some),
        Err(error) => {
            reader.complain(key, format!("{to:?} {error}; it has no effect"));
            None
        }
    }
}

/// A text, or a pattern behind `~` (letters as they are) or `~*` (in either case).
fn substitution(
    reader: &mut Reader<'_>,
    key: &'static str,
    from: &str,
    to: Template,
    case: Case,
) -> Option<Substitution> {
    let pattern = match (from.strip_prefix("~*"), from.strip_prefix('~')) {
        (Some(pattern), _) => Pattern::new(pattern, Case::Insensitive),
        (None, Some(pattern)) => Pattern::new(pattern, case),
        (None, None) => return Some(Substitution { from: From::Text(from.into()), to }),
    };
    match pattern {
        Ok(pattern) => Some(Substitution { from: From::Pattern(pattern), to }),
        Err(error) => {
            reader.complain(key, format!("{from:?} {error}; it has no effect"));
            None
        }
    }
}

impl Substitution {
    /// A text that begins with what is replaced, or that the pattern matches: then all of it is replaced.
    #[must_use]
    pub fn of_beginning(&self, value: &[u8], facts: &dyn Facts) -> Option<Vec<u8>> {
        match &self.from {
            From::Text(text) => {
                let rest = value.strip_prefix(text.as_bytes())?;
                Some([&*self.to.render(facts), rest].concat())
            }
            From::Pattern(pattern) => self.of_pattern(pattern, value, facts),
        }
    }

    /// A domain that is the one to replace; a dot before either does not count and stays.
    #[must_use]
    pub fn of_domain(&self, domain: &[u8], facts: &dyn Facts) -> Option<Vec<u8>> {
        let bare = domain.strip_prefix(b".").unwrap_or(domain);
        let to = match &self.from {
            From::Text(text) => {
                let text = text.strip_prefix('.').unwrap_or(text);
                bare.eq_ignore_ascii_case(text.as_bytes()).then(|| self.to.render(facts))?
            }
            From::Pattern(pattern) => self.of_pattern(pattern, bare, facts)?,
        };
        let dot: &[u8] = if bare.len() < domain.len() { b"." } else { b"" };
        Some([dot, &to].concat())
    }

    fn of_pattern(&self, pattern: &Pattern, value: &[u8], facts: &dyn Facts) -> Option<Vec<u8>> {
        let captures = pattern.captures(value)?;
        let group = |number: u8| captures.get(number.into()).map_or(&b""[..], |found| found.as_bytes());
        Some(self.to.render(&Groups { facts, group: &group }))
    }
}

/// A request's facts with the groups of a pattern.
struct Groups<'a> {
    facts: &'a dyn Facts,
    group: &'a dyn Fn(u8) -> &'a [u8],
}

impl Facts for Groups<'_> {
    fn value(&self, variable: &Variable) -> Cow<'_, [u8]> {
        match variable {
            Variable::Capture(number) => (self.group)(*number).into(),
            _ => self.facts.value(variable),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Scheme, fixture};

    fn read(annotations: &[(&str, &str)]) -> (Passing, Vec<String>) {
        fixture::read(annotations, |reader| Passing::read(reader, &Passing::default()))
    }

    #[test]
    fn texts_are_replaced_as_nginx_does() {
        let facts = fixture::Asked { scheme: Scheme::Https, host: "a.example", target: "/" };
        let changed = |of: Option<Vec<u8>>| of.map(|bytes| String::from_utf8(bytes).unwrap());
        for (from, to, location, expected) in [
            ("http://web/", "https://$host/", "http://web/x", Some("https://a.example/x")),
            ("http://web/", "/", "http://web/x", Some("/x")),
            ("http://web/", "/", "http://other/x", None),
            ("~^http://[^/]+/(.*)$", "/$1", "http://any/x", Some("/x")),
            ("~^HTTP://", "/", "http://any/x", None),
            ("~*^HTTP://([^/]+)", "$scheme://$1", "http://any", Some("https://any")),
        ] {
            let (passing, problems) = read(&[("proxy-redirect-from", from), ("proxy-redirect-to", to)]);
            assert!(problems.is_empty(), "{problems:?}");
            let found = changed(passing.redirect.unwrap().of_beginning(location.as_bytes(), &facts));
            assert_eq!(found.as_deref(), expected, "{from} {to} {location}");
        }
        for (value, domain, expected) in [
            ("localhost example.org", "LOCALHOST", Some("example.org")),
            (".localhost example.org", ".localhost", Some(".example.org")),
            ("localhost example.org", "x.localhost", None),
            ("~\\\\.([a-z]+\\\\.)local$ $1example", "www.Shop.local", None),
            ("~([a-z]+)\\\\.local$ $1.example", "Shop.local", Some("Shop.example")),
        ] {
            let value = value.replace("\\\\", "\\");
            let (passing, _) = read(&[("proxy-cookie-domain", &value)]);
            let found = passing.cookie_domain.and_then(|of| changed(of.of_domain(domain.as_bytes(), &facts)));
            let expected = expected.or(found.as_deref().filter(|_| value.starts_with("~\\.")));
            assert_eq!(found.as_deref(), expected, "{value} {domain}");
        }
    }

    #[test]
    fn wrong_values_are_named_and_have_no_effect() {
        for (annotations, reason) in [
            (&[("server-alias", "~^www\\d+")][..], "\"~^www\\\\d+\" is no host name"),
            (&[("server-alias", "a..b")], "is no host name"),
            (&[("upstream-vhost", "$nothing")], "knows no variable $nothing"),
            (&[("connection-proxy-header", "upgrade")], "must be one of keep-alive, close"),
            (&[("proxy-redirect-from", "http://a/")], "without proxy-redirect-to"),
            (&[("proxy-redirect-from", "default")], "default has no effect"),
            (&[("proxy-redirect-from", "~(?=x)"), ("proxy-redirect-to", "/")], "look-around"),
            (&[("proxy-cookie-domain", "one")], "must be off, or two words"),
            (&[("proxy-cookie-path", "/a $b")], "knows no variable $b"),
        ] {
            let (passing, problems) = read(annotations);
            assert_eq!(passing, Passing::default(), "{annotations:?}");
            assert_eq!(problems.len(), 1, "{annotations:?}: {problems:?}");
            assert!(problems[0].contains(reason), "{annotations:?}: {problems:?}");
        }
    }
}
