//! Every crate from elsewhere comes under a licence that `deny.toml` allows.
//!
//! cargo-deny reads the same list and more of it (advisories, sources); this keeps the list true on a machine without it.

use super::tree::Tree;

pub(super) fn licences_are_allowed(tree: &Tree) -> Vec<String> {
    let allowed = allowed(tree.text("deny.toml"));
    if allowed.is_empty() {
        return vec!["deny.toml allows no licence".to_owned()];
    }
    let foreign = tree.licences.iter().filter(|(_, expression)| !satisfied(expression, &allowed));
    foreign.map(|(package, expression)| format!("{package} has the licence \"{expression}\"")).collect()
}

/// The strings of the `allow` list in the section `[licenses]`.
fn allowed(deny: &str) -> Vec<&str> {
    let (_, section) = deny.split_once("\n[licenses]").unwrap_or_default();
    let (_, list) = section.split_once("allow = [").unwrap_or_default();
    let (list, _) = list.split_once(']').unwrap_or_default();
    list.split('"').skip(1).step_by(2).collect()
}

/// Whether an SPDX expression holds with these licences. `A/B` is the old way to write `A OR B`.
fn satisfied(expression: &str, allowed: &[&str]) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    any(&mut rest, allowed) && rest.is_empty()
}

/// `all OR all OR ...`
fn any(words: &mut &[&str], allowed: &[&str]) -> bool {
    let mut holds = all(words, allowed);
    while let Some(rest) = words.strip_prefix(&["OR"]) {
        *words = rest;
        holds |= all(words, allowed);
    }
    holds
}

/// `one AND one AND ...`
fn all(words: &mut &[&str], allowed: &[&str]) -> bool {
    let mut holds = one(words, allowed);
    while let Some(rest) = words.strip_prefix(&["AND"]) {
        *words = rest;
        holds &= one(words, allowed);
    }
    holds
}

/// A licence, a licence with an exception, or an expression in parentheses.
fn one(words: &mut &[&str], allowed: &[&str]) -> bool {
    let Some((first, rest)) = words.split_first() else { return false };
    *words = rest;
    if *first == "(" {
        let holds = any(words, allowed);
        let closed = words.strip_prefix(&[")"]);
        *words = closed.unwrap_or(words);
        return holds && closed.is_some();
    }
    if let ["WITH", exception, rest @ ..] = rest {
        *words = rest;
        return allowed.contains(&format!("{first} WITH {exception}").as_str());
    }
    allowed.contains(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_understood() {
        let allowed = ["MIT", "Apache-2.0", "Unicode-3.0", "Apache-2.0 WITH LLVM-exception"];
        let cases = [
            ("MIT", true),
            ("MIT OR GPL-3.0", true),
            ("GPL-3.0/MIT", true),
            ("GPL-3.0", false),
            ("MIT AND GPL-3.0", false),
            ("(MIT OR GPL-3.0) AND Unicode-3.0", true),
            ("(MIT OR GPL-3.0) AND ISC", false),
            ("Apache-2.0 WITH LLVM-exception OR ISC", true),
            ("MIT WITH LLVM-exception", false),
            ("(MIT", false),
            ("MIT MIT", false),
            ("", false),
        ];
        for (expression, expected) in cases {
            assert_eq!(satisfied(expression, &allowed), expected, "{expression}");
        }
    }
}
