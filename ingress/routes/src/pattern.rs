//! Regular expressions from annotations: paths, headers, conditions of snippets.
//!
//! They are compiled with the table and only run on the request's way. The engine runs in time linear to what it searches, so no
//! pattern can hang a thread; size and nesting are bounded. What PCRE has and such an engine cannot have (look-around,
//! back-references) is refused by its name. Equal patterns are compiled once and shared, across generations of the table too,
//! so that an edit costs what it changes.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, LazyLock, Mutex, PoisonError, Weak},
};

use regex::bytes::{Captures, Regex, RegexBuilder};

/// The longest pattern, in bytes.
const MAX_TEXT: usize = 1024;
/// The most memory of a compiled pattern, in bytes.
const MAX_COMPILED: usize = 256 * 1024;
/// The most memory that a search may cache, in bytes.
const MAX_CACHE: usize = 256 * 1024;
/// How deep groups may be nested.
const MAX_DEPTH: u32 = 32;

/// Whether letters match in either case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Case {
    /// `a` is not `A`.
    Sensitive,
    /// `a` is `A` (ASCII).
    Insensitive,
}

/// A compiled pattern over bytes. Two are equal when they were written alike.
#[derive(Clone)]
pub struct Pattern(Arc<Compiled>);

struct Compiled {
    text: Box<str>,
    case: Case,
    /// What everything that matches from its first byte on begins with.
    beginning: Box<str>,
    regex: Regex,
}

/// Why a text is no pattern; completes "the pattern …".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatternError(String);

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for PatternError {}

impl Pattern {
    /// Compiles a text.
    ///
    /// # Errors
    /// [`PatternError`] says what is wrong, or what PCRE knows and this does not.
    pub fn new(text: &str, case: Case) -> Result<Self, PatternError> {
        static KNOWN: LazyLock<Mutex<Known>> = LazyLock::new(Mutex::default);
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pattern) = known.find(text, case) {
            return Ok(pattern);
        }
        let compiled = Arc::new(Compiled::new(text, case)?);
        known.keep(&compiled);
        Ok(Self(compiled))
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0.text
    }

    /// How many groups it has.
    #[must_use]
    pub fn groups(&self) -> usize {
        self.0.regex.captures_len().saturating_sub(1)
    }

    /// Whether it matches anywhere.
    #[must_use]
    pub fn is_match(&self, bytes: &[u8]) -> bool {
        self.0.regex.is_match(bytes)
    }

    /// Whether a match begins at the first byte. What is found first begins leftmost, so it begins there if anything does.
    #[must_use]
    pub fn begins(&self, bytes: &[u8]) -> bool {
        self.may_begin(bytes) && self.0.regex.find(bytes).is_some_and(|found| found.start() == 0)
    }

    /// The groups of the first match.
    #[must_use]
    pub fn captures<'b>(&self, bytes: &'b [u8]) -> Option<Captures<'b>> {
        self.0.regex.captures(bytes)
    }

    fn may_begin(&self, bytes: &[u8]) -> bool {
        let beginning = self.0.beginning.as_bytes();
        bytes.get(..beginning.len()).is_some_and(|start| match self.0.case {
            Case::Sensitive => start == beginning,
            Case::Insensitive => start.eq_ignore_ascii_case(beginning),
        })
    }
}

impl Compiled {
    fn new(text: &str, case: Case) -> Result<Self, PatternError> {
        if text.len() > MAX_TEXT {
            return Err(PatternError(format!("is longer than {MAX_TEXT} bytes")));
        }
        let regex = RegexBuilder::new(text)
            .unicode(false)
            .case_insensitive(case == Case::Insensitive)
            .size_limit(MAX_COMPILED)
            .dfa_size_limit(MAX_CACHE)
            .nest_limit(MAX_DEPTH)
            .build()
            .map_err(|error| PatternError(reason(&error)))?;
        Ok(Self { text: text.into(), case, beginning: beginning(text).into(), regex })
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.text == other.0.text && self.0.case == other.0.case
    }
}

impl Eq for Pattern {}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({:?}, {:?})", self.0.text, self.0.case)
    }
}

/// Patterns in use anywhere in the process.
#[derive(Default)]
struct Known {
    by_text: HashMap<(Box<str>, Case), Weak<Compiled>>,
    /// When the map is as long as this, it is rid of what is not in use any more.
    sweep_at: usize,
}

impl Known {
    fn find(&self, text: &str, case: Case) -> Option<Pattern> {
        self.by_text.get(&(text.into(), case))?.upgrade().map(Pattern)
    }

    fn keep(&mut self, compiled: &Arc<Compiled>) {
        if self.by_text.len() >= self.sweep_at {
            self.by_text.retain(|_, weak| weak.strong_count() > 0);
            self.sweep_at = 2 * self.by_text.len() + 64;
        }
        self.by_text.insert((compiled.text.clone(), compiled.case), Arc::downgrade(compiled));
    }
}

/// The last line of the library's report, without the picture above it.
fn reason(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(limit) => format!("takes more than {limit} bytes when compiled"),
        other => {
            let text = other.to_string();
            let line = text.lines().rev().find_map(|line| line.trim().strip_prefix("error: "));
            format!("is not understood: {}", line.unwrap_or("it is no regular expression"))
        }
    }
}

/// The literal text that a pattern begins with; nothing where that is not plain to see.
fn beginning(text: &str) -> &str {
    if text.contains('|') && has_bare_alternative(text) {
        return "";
    }
    let end = text.bytes().position(|byte| b"\\.+*?()|[]{}^$".contains(&byte)).unwrap_or(text.len());
    // A quantifier is about the character before it.
    let end = match text.as_bytes().get(end) {
        Some(b'*' | b'?' | b'{') => {
            text.get(..end).and_then(|before| before.char_indices().last()).map_or(0, |(at, _)| at)
        }
        _ => end,
    };
    text.get(..end).unwrap_or_default()
}

/// Whether a `|` stands outside all groups and classes.
fn has_bare_alternative(text: &str) -> bool {
    let (mut depth, mut class, mut escaped) = (0_usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'[' => class = true,
            b']' => class = false,
            b'(' if !class => depth += 1,
            b')' if !class => depth = depth.saturating_sub(1),
            b'|' if !class && depth == 0 => return true,
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_from_the_first_byte() {
        for (text, path, expected) in [
            ("/foo(/|$)(.*)", "/foo", true),
            ("/foo(/|$)(.*)", "/foo/bar", true),
            ("/foo(/|$)(.*)", "/foobar", false),
            ("/foo(/|$)(.*)", "/x/foo/", false),
            ("/Foo", "/fOOx", true),
            ("/a|/b", "/b/x", true),
            ("/a|/b", "/x/b", false),
            ("/fo*", "/f", true),
            ("/fo{0}x", "/fx", true),
            ("/foo\\.bar", "/foo.bar", true),
            ("/foo\\.bar", "/fooxbar", false),
            ("/[A-Z0-9]{3}", "/abc", true),
            ("(?:/a|/b)c", "/bc", true),
            ("", "/", true),
            ("/.*\\.(png|jpg)$", "/x/y.png", true),
            ("/.*\\.(png|jpg)$", "/x/y.png?", false),
        ] {
            let pattern = Pattern::new(text, Case::Insensitive).unwrap();
            assert_eq!(pattern.begins(path.as_bytes()), expected, "{text} {path}");
        }
        assert!(!Pattern::new("/foo", Case::Sensitive).unwrap().begins(b"/FOO"));
        assert!(Pattern::new("/.", Case::Sensitive).unwrap().begins(b"/\xff"), "bytes, not characters");
    }

    #[test]
    fn what_cannot_be_is_named() {
        for (text, reason) in [
            ("/foo(?!bar)", "look-around"),
            ("/(?<=x)y", "look-around"),
            ("/(a)\\1", "backreferences are not supported"),
            ("/(a", "unclosed group"),
            ("/a)(b", "unopened group"),
            ("/[z-a]", "invalid character class range"),
            ("/(a{100}){100}{100}", "when compiled"),
            (&"a".repeat(2000), "is longer than 1024 bytes"),
            (&"(".repeat(100), ""),
        ] {
            let error = Pattern::new(text, Case::Sensitive).unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn equal_patterns_are_one() {
        let one = Pattern::new("/shared/[a-z]+", Case::Sensitive).unwrap();
        let same = Pattern::new("/shared/[a-z]+", Case::Sensitive).unwrap();
        assert!(Arc::ptr_eq(&one.0, &same.0));
        assert_ne!(one, Pattern::new("/shared/[a-z]+", Case::Insensitive).unwrap());
        assert_eq!(Pattern::new("/(a)(b(c))", Case::Sensitive).unwrap().groups(), 3);
    }
}
