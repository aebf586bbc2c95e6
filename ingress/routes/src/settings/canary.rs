//! `canary` and what chooses it: a header, a cookie, a share of all requests.

use super::{Reader, Wrong};
use crate::{Case, Pattern};

/// What an Ingress says of being a canary.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Canary {
    /// It is none.
    #[default]
    Main,
    /// It takes some of the requests of a rule of another Ingress.
    Canary(CanaryRules),
    /// `canary` makes no sense: whether it may take requests of its own nobody knows, so it takes none.
    Unreadable,
}

/// Which requests a canary takes: by the header, else by the cookie, else by weight.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CanaryRules {
    /// `canary-by-header`, and what its value must be.
    pub header: Option<(Box<str>, HeaderTest)>,
    /// `canary-by-cookie`: `always` and `never` decide.
    pub cookie: Option<Box<str>>,
    /// `canary-weight`: so many of `total` requests.
    pub weight: u32,
    /// `canary-weight-total`, at least 100.
    pub total: u32,
}

/// What a header's value means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderTest {
    /// `always` takes the canary, `never` the main Ingress, anything else leaves it to the cookie.
    Words,
    /// `canary-by-header-value`: this very value takes the canary.
    Value(Box<str>),
    /// `canary-by-header-pattern`.
    Pattern(Pattern),
}

impl Canary {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let enabled = reader.annotation("canary").strict("true or false", |text| text.parse().ok());
        let header = header(reader);
        let cookie = reader.annotation("canary-by-cookie").parse("a cookie's name", token);
        let weight = reader.annotation("canary-weight").number(0);
        let total = reader.annotation("canary-weight-total").number(100).unwrap_or(100);
        match enabled {
            Err(Wrong) => Self::Unreadable,
            Ok(Some(true)) => Self::Canary(CanaryRules { header, cookie, weight: weight.unwrap_or(0), total }),
            Ok(_) => {
                for (key, is_set) in [
                    ("canary-by-header", header.is_some()),
                    ("canary-by-cookie", cookie.is_some()),
                    ("canary-weight", weight.is_some()),
                ] {
                    if is_set {
                        reader.complain(key, "has no effect: canary is not true");
                    }
                }
                Self::Main
            }
        }
    }
}

fn header(reader: &mut Reader<'_>) -> Option<(Box<str>, HeaderTest)> {
    let name = reader.annotation("canary-by-header").parse("a header's name", |text| {
        token(text).map(|name| name.to_ascii_lowercase().replace('_', "-").into_boxed_str())
    });
    let value = reader.annotation("canary-by-header-value").text();
    let pattern = reader.annotation("canary-by-header-pattern").text();
    if name.is_none() {
        for (key, is_set) in [("canary-by-header-value", value), ("canary-by-header-pattern", pattern)] {
            if is_set.is_some() {
                reader.complain(key, "has no effect without canary-by-header");
            }
        }
    }
    let name = name?;
    match (value, pattern) {
        (Some(value), pattern) => {
            if pattern.is_some() {
                reader.complain("canary-by-header-pattern", "has no effect beside canary-by-header-value");
            }
            Some((name, HeaderTest::Value(value.into())))
        }
        (None, None) => Some((name, HeaderTest::Words)),
        (None, Some(pattern)) => match Pattern::new(pattern, Case::Sensitive) {
            Ok(pattern) => Some((name, HeaderTest::Pattern(pattern))),
            Err(error) => {
                reader.complain("canary-by-header-pattern", format!("{error}; the header takes nobody to the canary"));
                None
            }
        },
    }
}

/// A name of letters, digits, dashes and underscores.
fn token(text: &str) -> Option<Box<str>> {
    let ok = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    (ok && text.len() <= 128).then(|| text.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn wrong_values_are_named() {
        let on = ("canary", "true");
        for (annotations, reason) in [
            (&[("canary", "yes")][..], "canary]: must be true or false"),
            (&[on, ("canary-weight", "x")], "canary-weight]: must be a whole number"),
            (&[on, ("canary-weight", "-1")], "canary-weight]: must be a whole number"),
            (&[on, ("canary-weight-total", "10")], "canary-weight-total]: must be a whole number of at least 100"),
            (&[on, ("canary-by-header", "a b")], "canary-by-header]: must be a header's name"),
            (&[on, ("canary-by-cookie", "a;b")], "canary-by-cookie]: must be a cookie's name"),
            (&[on, ("canary-by-header-value", "x")], "canary-by-header-value]: has no effect without"),
            (&[on, ("canary-by-header", "x"), ("canary-by-header-pattern", "(?=y)")], "look-around"),
            (&[("canary-weight", "10")], "canary-weight]: has no effect: canary is not true"),
            (&[("canary", "false"), ("canary-by-header", "x")], "canary-by-header]: has no effect: canary is not true"),
        ] {
            let (canary, problems) = fixture::read(annotations, Canary::read);
            assert_eq!(problems.len(), 1, "{annotations:?}: {problems:?}");
            assert!(problems[0].contains(reason), "{annotations:?}: {problems:?}");
            let expected = match annotations {
                [("canary", "yes")] => Canary::Unreadable,
                [("canary", "true"), ..] => Canary::Canary(CanaryRules { total: 100, ..CanaryRules::default() }),
                _ => Canary::Main,
            };
            assert_eq!(canary, expected, "{annotations:?}");
        }
    }
}
