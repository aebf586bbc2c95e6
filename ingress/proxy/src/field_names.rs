//! Names of header fields that are dropped on the way in, as nginx drops them: a CGI-like reader cannot tell `a_b` from `a-b`,
//! and names with other marks are seldom meant well.
//!
//! Whether a name is a token at all was judged on the raw bytes (`head`).

use http::{HeaderMap, HeaderName};

/// Which names are dropped: ingress-nginx's `enable-underscores-in-headers` and `ignore-invalid-headers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldNames {
    /// All that hold more than letters, digits and hyphens.
    Plain,
    /// The same, but underscores may be.
    Underscores,
    /// Those with underscores alone.
    NoUnderscores,
    /// None.
    Any,
}

impl FieldNames {
    /// By the two options.
    #[must_use]
    pub fn new(underscores: bool, ignore_invalid: bool) -> Self {
        match (ignore_invalid, underscores) {
            (true, false) => Self::Plain,
            (true, true) => Self::Underscores,
            (false, false) => Self::NoUnderscores,
            (false, true) => Self::Any,
        }
    }

    /// Drops the fields of a request whose names are not wanted.
    pub fn drop_from(self, headers: &mut HeaderMap) {
        if headers.keys().all(|name| self.wants(name)) {
            return;
        }
        let unwanted: Vec<_> = headers.keys().filter(|name| !self.wants(name)).cloned().collect();
        for name in unwanted {
            headers.remove(name);
        }
    }

    fn wants(self, name: &HeaderName) -> bool {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        let bytes = name.as_str().as_bytes();
        match self {
            Self::Plain => bytes.iter().all(|byte| is_plain(*byte)),
            Self::Underscores => bytes.iter().all(|byte| is_plain(*byte) || *byte == b'_'),
            Self::NoUnderscores => !bytes.contains(&b'_'),
            Self::Any => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn check(underscores: bool, ignore_invalid: bool, kept: &[&str]) {
        let mut headers = HeaderMap::new();
        for name in ["x-plain", "x_under", "x.dot", "x!"] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static("v"));
        }
        FieldNames::new(underscores, ignore_invalid).drop_from(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, kept);
    }

    #[test]
    fn odd_names_are_dropped_unless_wanted() {
        check(false, true, &["x-plain"]);
        check(true, true, &["x-plain", "x_under"]);
        check(false, false, &["x!", "x-plain", "x.dot"]);
        check(true, false, &["x!", "x-plain", "x.dot", "x_under"]);
    }
}
