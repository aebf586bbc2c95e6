//! Whom the controller answers 403 for every host: `block-cidrs`, `block-user-agents`, `block-referers` of the ConfigMap.
//!
//! These lists guard everything, so a wrong entry is left out and told, and the others hold: closing all hosts over one slip
//! would be worse than what the list is against.

use super::{Reader, units};
use crate::{Case, Networks, Pattern};

/// Clients that get 403.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blocks {
    /// By address.
    pub networks: Networks,
    /// By User-Agent.
    pub user_agents: Vec<TextPattern>,
    /// By Referer.
    pub referers: Vec<TextPattern>,
}

/// A value as nginx's `map` compares it: as a whole in whatever case, or by an expression behind `~` or `~*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TextPattern {
    /// The whole value.
    Whole(String),
    /// Part of it.
    Expression(Pattern),
}

impl Blocks {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        Self {
            networks: Networks::new(entries(reader, "block-cidrs", "a CIDR", units::network)),
            user_agents: entries(reader, "block-user-agents", "a text or an expression", TextPattern::parse),
            referers: entries(reader, "block-referers", "a text or an expression", TextPattern::parse),
        }
    }

    /// Whether nobody is blocked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty() && self.user_agents.is_empty() && self.referers.is_empty()
    }
}

fn entries<T>(reader: &mut Reader<'_>, key: &'static str, what: &str, parse: impl Fn(&str) -> Option<T>) -> Vec<T> {
    let list = reader.option(key).list().unwrap_or_default();
    let mut entries = Vec::new();
    for text in list {
        match parse(text) {
            Some(entry) => entries.push(entry),
            None => reader.complain(key, format!("{text:?} is not {what}; it is left out")),
        }
    }
    entries
}

impl TextPattern {
    fn parse(text: &str) -> Option<Self> {
        // Such a text may stand in quotes, as nginx's configuration has them.
        let text = text.trim_matches(['"', '\'']);
        let expression = |text, case| Pattern::new(text, case).ok().map(Self::Expression);
        match (text.strip_prefix("~*"), text.strip_prefix('~')) {
            (Some(text), _) => expression(text, Case::Insensitive),
            (None, Some(text)) => expression(text, Case::Sensitive),
            (None, None) => Some(Self::Whole(text.to_owned())),
        }
    }

    /// Whether a field's value is meant.
    #[must_use]
    pub fn matches(&self, value: &[u8]) -> bool {
        match self {
            Self::Whole(text) => text.as_bytes().eq_ignore_ascii_case(value),
            Self::Expression(expression) => expression.is_match(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    fn read(options: &[(&str, &str)], reported: usize) -> Blocks {
        let config_map = fixture::config_map("x/options", options);
        let mut problems = Vec::new();
        let mut reader = Reader::of_config_map(&config_map, &mut problems);
        let blocks = Blocks::read(&mut reader);
        reader.finish();
        assert_eq!(problems.len(), reported, "{problems:?}");
        blocks
    }

    #[test]
    fn entries_are_read_one_by_one() {
        assert!(read(&[], 0).is_empty());
        let blocks = read(&[("block-cidrs", "10.0.0.0/8, oops,2001:db8::/32")], 1);
        assert!(blocks.networks.contains("10.1.1.1".parse().unwrap()));
        assert!(blocks.networks.contains("2001:db8::1".parse().unwrap()));
        let agents = read(&[("block-user-agents", "~*curl/, Evil Bot, ~Go-[0-9]+, ~(")], 1).user_agents;
        let blocked = |agent: &str| agents.iter().any(|pattern| pattern.matches(agent.as_bytes()));
        for (agent, expected) in [
            ("CURL/8.0", true),
            ("evil bot", true),
            ("Evil Bot 2", false),
            ("Go-11", true),
            ("go-11", false),
            ("Mozilla", false),
            ("", false),
        ] {
            assert_eq!(blocked(agent), expected, "{agent}");
        }
        assert_eq!(read(&[("block-referers", "~*spam\\.example")], 0).referers.len(), 1);
    }
}
