//! `use-regex`, `rewrite-target`, `x-forwarded-prefix`: paths as regular expressions, and what an endpoint sees of them.

use super::{Reader, Template, redirect::is_absolute};
use crate::Variable;

/// How an Ingress's paths are read and forwarded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// `use-regex`: paths are regular expressions.
    pub use_regex: bool,
    /// `rewrite-target`.
    pub target: Option<RewriteTarget>,
    /// `x-forwarded-prefix`: the field of that name, where the path is rewritten.
    pub forwarded_prefix: Option<Template>,
}

/// What takes the place of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RewriteTarget {
    /// As it was written.
    pub text: Box<str>,
    /// Another host: the client is sent there with 302.
    pub absolute: bool,
    /// Before the question mark.
    pub path: Template,
    /// Behind the question mark. The request's own query is added, unless this is empty: nginx's way to drop it.
    pub query: Option<Template>,
}

impl Rewrite {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let use_regex = reader.annotation("use-regex").boolean().unwrap_or(false);
        let target = target(reader);
        let forwarded_prefix = reader.annotation("x-forwarded-prefix").template().unwrap_or(None);
        if forwarded_prefix.is_some() && target.is_none() {
            reader.complain("x-forwarded-prefix", "has no effect without rewrite-target");
        }
        Self { use_regex, target, forwarded_prefix }
    }

    /// Whether this path is rewritten; one that would stay as it is counts for nothing, as in ingress-nginx.
    #[must_use]
    pub fn of_path(&self, path: &str) -> Option<&RewriteTarget> {
        self.target.as_ref().filter(|target| *target.text != *path)
    }

    /// Whether a path is meant as a regular expression.
    #[must_use]
    pub fn is_regex(&self, path: &str) -> bool {
        self.use_regex || self.of_path(path).is_some()
    }
}

impl RewriteTarget {
    /// The highest group that it asks for.
    pub(crate) fn groups(&self) -> usize {
        let variables = self.path.variables().chain(self.query.iter().flat_map(Template::variables));
        let groups =
            variables.map(|variable| if let Variable::Capture(number) = variable { (*number).into() } else { 0 });
        groups.max().unwrap_or(0)
    }
}

fn target(reader: &mut Reader<'_>) -> Option<RewriteTarget> {
    let whole = reader.annotation("rewrite-target").template().unwrap_or(None)?;
    let text = reader.annotation("rewrite-target").text()?;
    let absolute = is_absolute(&whole);
    if !absolute && !text.starts_with('/') && !text.starts_with('$') {
        reader.complain("rewrite-target", "must begin with a slash, a variable, http:// or https://; it has no effect");
        return None;
    }
    let (path, query) = match text.split_once('?') {
        Some((path, query)) => (path, Template::parse(query).ok()),
        None => (text, None),
    };
    let path = Template::parse(path).ok()?;
    // A path is written as nginx holds it, decoded; what stands in a URL is written as it goes out.
    let path = if absolute { path } else { path.map_text(crate::path::escape_text) };
    Some(RewriteTarget { text: text.into(), absolute, path, query })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn wrong_targets_are_named_and_have_no_effect() {
        for (annotations, reason) in [
            (&[("rewrite-target", "relative/path")][..], "must begin with a slash"),
            (&[("rewrite-target", "/$nothing")], "knows no variable $nothing"),
            (&[("rewrite-target", "/$")], "a dollar sign that begins no variable"),
            (&[("rewrite-target", "/a\nb")], "holds a control character"),
            (&[("use-regex", "1")], "must be true or false"),
            (&[("x-forwarded-prefix", "/p")], "has no effect without rewrite-target"),
        ] {
            let (rewrite, problems) = fixture::read(annotations, Rewrite::read);
            assert_eq!((rewrite.target, rewrite.use_regex), (None, false), "{annotations:?}");
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert!(problems[0].contains(reason), "{annotations:?}: {problems:?}");
        }
    }

    #[test]
    fn a_target_that_is_the_path_rewrites_nothing() {
        let (rewrite, problems) = fixture::read(&[("rewrite-target", "/same")], Rewrite::read);
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!((rewrite.is_regex("/same"), rewrite.is_regex("/other")), (false, true));
    }
}
