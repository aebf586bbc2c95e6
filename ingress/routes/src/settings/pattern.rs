//! A regular expression of a setting: compiled once, compared by its text.

use std::fmt;

use regex::{Regex, RegexBuilder};

/// How much memory one compiled expression may take; its matching time is linear whatever it says.
const MAX_COMPILED_BYTES: usize = 256 * 1024;

/// An expression that compiles. nginx's are PCRE: look-around and back-references are none of these.
#[derive(Clone)]
pub struct Pattern(Regex);

impl Pattern {
    /// Compiles; `None` where that cannot be done.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        RegexBuilder::new(text).size_limit(MAX_COMPILED_BYTES).build().ok().map(Self)
    }

    /// Whether it matches anywhere in a text.
    #[must_use]
    pub fn is_match(&self, text: &str) -> bool {
        self.0.is_match(text)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for Pattern {}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_str().fmt(f)
    }
}
