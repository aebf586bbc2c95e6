//! The path that an endpoint gets to see: `rewrite-target`, with what the path's groups took.
//!
//! nginx keeps paths decoded while it rewrites them, and escapes the result; so does this. Without a rewrite nothing is touched:
//! the proxy forwards what the client wrote.

use std::borrow::Cow;

use crate::{Facts, Redirect, Route, Variable, path::escape, settings::RewriteTarget};

/// The target of the request that an endpoint gets, path and query; `None` where it is the client's own.
#[must_use]
pub fn rewritten(route: &Route, facts: &dyn Facts) -> Option<String> {
    let target = target_of(route).filter(|target| !target.absolute)?;
    let mut out = render(route, target, facts);
    if out.first() != Some(&b'/') {
        out.insert(0, b'/');
    }
    Some(Redirect::new(0, &out, "").location)
}

/// Where a request is sent, when its Ingress rewrites to another host.
pub(crate) fn rewritten_away(route: &Route, facts: &dyn Facts) -> Option<Redirect> {
    let target = target_of(route).filter(|target| target.absolute)?;
    let reason = "rewrite-target leads to another host";
    Some(Redirect::new(302, &render(route, target, facts), reason))
}

fn target_of(route: &Route) -> Option<&RewriteTarget> {
    let target = route.settings.rewrite.target.as_ref()?;
    let path = route.path.as_ref().map_or("/", |(_, path)| path);
    (*target.text != *path).then_some(target)
}

fn render(route: &Route, target: &RewriteTarget, facts: &dyn Facts) -> Vec<u8> {
    let path = facts.value(&Variable::Path);
    let captures = route.pattern.as_ref().and_then(|pattern| pattern.captures(&path));
    let group =
        |number: u8| captures.as_ref().and_then(|captures| captures.get(number.into())).map(|found| found.as_bytes());
    let captured = Captured { facts, group: &group };
    let mut out = target.path.render(&captured);
    let own = facts.value(&Variable::Query);
    match &target.query {
        None => append(&mut out, b'?', &own),
        Some(query) => {
            let query = query.render(&captured);
            if !query.is_empty() {
                append(&mut out, b'?', &query);
                append(&mut out, b'&', &own);
            }
        }
    }
    out
}

fn append(out: &mut Vec<u8>, joint: u8, query: &[u8]) {
    if !query.is_empty() {
        out.push(joint);
        out.extend_from_slice(query);
    }
}

/// A request's facts, with the groups of its path, escaped for a place in a URI.
struct Captured<'a> {
    facts: &'a dyn Facts,
    group: &'a dyn Fn(u8) -> Option<&'a [u8]>,
}

impl Facts for Captured<'_> {
    fn value(&self, variable: &Variable) -> Cow<'_, [u8]> {
        match variable {
            Variable::Capture(number) => escape((self.group)(*number).unwrap_or_default()).into(),
            Variable::Path => escape(&self.facts.value(variable)).into(),
            _ => self.facts.value(variable),
        }
    }
}

#[cfg(test)]
#[path = "rewrite_tests.rs"]
mod tests;
