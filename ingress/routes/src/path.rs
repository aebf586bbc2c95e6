//! Request paths, normalised for matching: percent-decoding, dot segments, doubled slashes, as nginx does.
//!
//! Only the table sees the normalised path; the proxy forwards the path as the client wrote it.

use std::borrow::Cow;

/// The path cannot be normalised; nginx answers such requests with 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadPath {
    /// It does not start with a slash.
    Relative,
    /// A `%` without two hexadecimal digits behind it.
    Escape,
    /// An encoded NUL.
    Nul,
    /// `..` leads above the root.
    AboveRoot,
}

/// The path that matching sees. Decoding happens before dot segments and slashes are looked at, so `%2e%2e` and `%2f` are
/// what they decode to. The query must have been cut off before.
///
/// # Errors
/// [`BadPath`] tells why the path means nothing.
pub fn normalise(path: &str) -> Result<Cow<'_, [u8]>, BadPath> {
    if !path.starts_with('/') {
        return Err(BadPath::Relative);
    }
    if is_normal(path.as_bytes()) {
        return Ok(Cow::Borrowed(path.as_bytes()));
    }
    resolve(&decode(path.as_bytes())?).map(Cow::Owned)
}

/// Whether nothing would change: no escape, no empty element, no element that begins with a dot.
pub(crate) fn is_normal(path: &[u8]) -> bool {
    let mut after_slash = false;
    for &byte in path {
        if byte == b'%' || (after_slash && (byte == b'/' || byte == b'.')) {
            return false;
        }
        after_slash = byte == b'/';
    }
    true
}

/// A decoded path as it is written in a request line or a Location, as nginx escapes it.
pub(crate) fn escape(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    for &byte in path {
        if byte.is_ascii_graphic() && !b"#%?\"<>\\^`{|}".contains(&byte) {
            out.push(byte);
        } else {
            out.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
    out
}

/// As [`escape`], of text.
pub(crate) fn escape_text(path: &str) -> String {
    String::from_utf8_lossy(&escape(path.as_bytes())).into_owned()
}

fn decode(path: &[u8]) -> Result<Vec<u8>, BadPath> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut bytes = path.iter();
    while let Some(&byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        match hex_pair(bytes.next(), bytes.next())? {
            0 => return Err(BadPath::Nul),
            value => decoded.push(value),
        }
    }
    Ok(decoded)
}

fn hex_pair(high: Option<&u8>, low: Option<&u8>) -> Result<u8, BadPath> {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16)).ok_or(BadPath::Escape);
    let value = digit(high)? * 16 + digit(low)?;
    u8::try_from(value).map_err(|_| BadPath::Escape)
}

/// Removes empty and dot elements; a path that ended in a slash or a dot element ends in a slash.
fn resolve(decoded: &[u8]) -> Result<Vec<u8>, BadPath> {
    let mut elements: Vec<&[u8]> = Vec::new();
    let mut ends_in_slash = true;
    for element in decoded.split(|byte| *byte == b'/') {
        ends_in_slash = matches!(element, b"" | b"." | b"..");
        match element {
            b"" | b"." => {}
            b".." => drop(elements.pop().ok_or(BadPath::AboveRoot)?),
            other => elements.push(other),
        }
    }
    let mut path = Vec::with_capacity(decoded.len());
    for element in &elements {
        path.push(b'/');
        path.extend_from_slice(element);
    }
    if ends_in_slash || path.is_empty() {
        path.push(b'/');
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, expected: Result<&str, BadPath>) {
        let actual = normalise(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        assert_eq!(actual, expected.map(str::to_owned), "{path}");
    }

    #[test]
    fn paths_are_normalised_as_nginx_does() {
        for (path, expected) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/b/", "/a/b/"),
            ("/a//b", "/a/b"),
            ("//", "/"),
            ("/a/./b", "/a/b"),
            ("/a/.", "/a/"),
            ("/a/b/..", "/a/"),
            ("/a/../b", "/b"),
            ("/a/%2e%2E/b", "/b"),
            ("/a%2fb", "/a/b"),
            ("/%61", "/a"),
            ("/a%20b", "/a b"),
            ("/.hidden", "/.hidden"),
            ("/a/..b/...", "/a/..b/..."),
            ("/a%252e", "/a%2e"),
        ] {
            check(path, Ok(expected));
        }
    }

    #[test]
    fn meaningless_paths_are_refused() {
        check("", Err(BadPath::Relative));
        check("a", Err(BadPath::Relative));
        check("*", Err(BadPath::Relative));
        check("/%", Err(BadPath::Escape));
        check("/%4", Err(BadPath::Escape));
        check("/%zz", Err(BadPath::Escape));
        check("/a%00b", Err(BadPath::Nul));
        check("/..", Err(BadPath::AboveRoot));
        check("/a/../../b", Err(BadPath::AboveRoot));
    }

    #[test]
    fn escaped_paths_decode_to_themselves() {
        assert_eq!(escape(b"/a b?c%d\xff#/e;f=1&g,h"), b"/a%20b%3Fc%25d%FF%23/e;f=1&g,h");
        let all: Vec<u8> = (1..=255).collect();
        assert_eq!(decode(&escape(&all)).unwrap(), all);
    }

    #[test]
    fn normalising_twice_changes_nothing_more() {
        for path in ["/a//b/../c/./", "/x/y/..//z", "/./.", "/a/b/%2e"] {
            let once = normalise(path).unwrap().into_owned();
            let again = normalise(std::str::from_utf8(&once).unwrap()).unwrap().into_owned();
            assert_eq!(once, again, "{path}");
        }
    }
}
