//! Canaries: the other backend that a route may have, and which requests it takes.
//!
//! A canary has no routes of its own. `compile` puts it into the main Ingress's route of the same host, path and type, one for
//! each; everything but the backend is the main Ingress's. Here is only the choice.

use std::sync::Arc;

use roadstead_model::ObjectName;

use crate::{
    BackendId, Facts, Variable,
    settings::{CanaryRules, HeaderTest},
};

/// The canary of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteCanary {
    /// Where it leads.
    pub backend: BackendId,
    /// The Ingress that says so.
    pub ingress: ObjectName,
    /// Whom it takes.
    pub rules: Arc<CanaryRules>,
}

impl RouteCanary {
    /// Whether it takes a request. `roll` gives a number below its argument, each as often as every other.
    #[must_use]
    pub fn takes(&self, facts: &dyn Facts, roll: impl FnOnce(u32) -> u32) -> bool {
        self.asked_for(facts).unwrap_or_else(|| self.rules.weight > 0 && roll(self.rules.total) < self.rules.weight)
    }

    /// What the request itself says: header before cookie.
    #[must_use]
    pub fn asked_for(&self, facts: &dyn Facts) -> Option<bool> {
        self.by_header(facts).or_else(|| {
            let cookie = self.rules.cookie.as_deref()?;
            word(&facts.value(&Variable::Cookie(cookie.into())))
        })
    }

    fn by_header(&self, facts: &dyn Facts) -> Option<bool> {
        let (name, test) = self.rules.header.as_ref()?;
        let value = facts.value(&Variable::Header(name.clone()));
        match test {
            HeaderTest::Words => word(&value),
            HeaderTest::Value(wanted) => (*value == *wanted.as_bytes()).then_some(true),
            HeaderTest::Pattern(pattern) => (!value.is_empty() && pattern.is_match(&value)).then_some(true),
        }
    }
}

fn word(value: &[u8]) -> Option<bool> {
    match value {
        b"always" => Some(true),
        b"never" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
#[path = "canary_tests.rs"]
mod tests;
