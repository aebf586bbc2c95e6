//! Cross-origin requests: `enable-cors` and the `cors-*` annotations, with ingress-nginx's defaults.

use super::Reader;

/// What other origins' pages may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cors {
    /// Whose pages.
    pub origins: Origins,
    /// Access-Control-Allow-Methods.
    pub methods: String,
    /// Access-Control-Allow-Headers.
    pub headers: String,
    /// Access-Control-Expose-Headers.
    pub expose: Option<String>,
    /// Access-Control-Allow-Credentials is sent, as `true`.
    pub credentials: bool,
    /// Access-Control-Max-Age, in seconds.
    pub max_age: u32,
}

/// Origins that may ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origins {
    /// Every one: `*`.
    Any,
    /// These.
    Listed(Vec<OriginPattern>),
}

/// One origin (RFC 6454), or those of one more label before a domain. In lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OriginPattern {
    /// The origin itself; `null` too.
    Exact(String),
    /// `scheme://`, any one label, then `.domain` with an optional port.
    Subdomain {
        /// With the `://`.
        scheme: String,
        /// With the leading dot.
        rest: String,
    },
}

const METHODS: &str = "GET, PUT, POST, DELETE, PATCH, OPTIONS";
const HEADERS: &str =
    "DNT,Keep-Alive,User-Agent,X-Requested-With,If-Modified-Since,Cache-Control,Content-Type,Range,Authorization";
const MAX_AGE: u32 = 1_728_000;

impl Cors {
    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let enabled = reader.annotation("enable-cors").boolean();
        let origins = origins(reader);
        let methods = reader
            .annotation("cors-allow-methods")
            .parse("a list of methods", |text| words(text, |byte| byte.is_ascii_alphabetic()));
        let headers = reader.annotation("cors-allow-headers").parse("a list of headers", |text| {
            words(text, |byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        });
        let expose = reader.annotation("cors-expose-headers").parse("a list of headers or *", |text| {
            words(text, |byte| byte.is_ascii_alphanumeric() || b"-_*".contains(&byte))
        });
        let credentials = reader.annotation("cors-allow-credentials").boolean();
        let max_age = reader.annotation("cors-max-age").number(0);
        (enabled == Some(true)).then(|| Self {
            origins,
            methods: methods.unwrap_or_else(|| METHODS.to_owned()),
            headers: headers.unwrap_or_else(|| HEADERS.to_owned()),
            expose,
            credentials: credentials.unwrap_or(true),
            max_age: max_age.unwrap_or(MAX_AGE),
        })
    }
}

/// A wrong origin is left out; where all are wrong, nobody's page may ask. ingress-nginx falls back to `*` for some of them.
fn origins(reader: &mut Reader<'_>) -> Origins {
    let Some(list) = reader.annotation("cors-allow-origin").list() else { return Origins::Any };
    if list.contains(&"*") {
        return Origins::Any;
    }
    let mut patterns = Vec::new();
    for text in list {
        match OriginPattern::parse(text) {
            Some(pattern) => patterns.push(pattern),
            None => reader.complain("cors-allow-origin", format!("{text:?} is no origin; it is left out")),
        }
    }
    Origins::Listed(patterns)
}

impl Origins {
    /// Whether a request's Origin is one of them. Case does not matter, as in ingress-nginx.
    #[must_use]
    pub fn contain(&self, origin: &[u8]) -> bool {
        match self {
            Self::Any => true,
            Self::Listed(patterns) => patterns.iter().any(|pattern| pattern.matches(origin)),
        }
    }
}

impl OriginPattern {
    fn parse(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        if text == "null" {
            return Some(Self::Exact(text));
        }
        let (scheme, rest) = text.split_once("://")?;
        if scheme.is_empty() || !scheme.bytes().all(|byte| byte.is_ascii_lowercase()) {
            return None;
        }
        let (host, port) = rest.split_once(':').map_or((rest, None), |(host, port)| (host, Some(port)));
        let port_fits = port.is_none_or(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()));
        let name = host.strip_prefix("*.").unwrap_or(host);
        if !port_fits || name.is_empty() || !name.bytes().all(|byte| is_label(byte) || byte == b'.') {
            return None;
        }
        Some(match rest.strip_prefix('*') {
            Some(rest) => Self::Subdomain { scheme: format!("{scheme}://"), rest: rest.to_owned() },
            None => Self::Exact(text),
        })
    }

    fn matches(&self, origin: &[u8]) -> bool {
        match self {
            Self::Exact(own) => own.as_bytes().eq_ignore_ascii_case(origin),
            Self::Subdomain { scheme, rest } => {
                let label = origin.split_at_checked(scheme.len()).and_then(|(start, host)| {
                    let (label, end) = host.split_at_checked(host.len().checked_sub(rest.len())?)?;
                    let fits =
                        scheme.as_bytes().eq_ignore_ascii_case(start) && rest.as_bytes().eq_ignore_ascii_case(end);
                    fits.then_some(label)
                });
                label.is_some_and(|label| !label.is_empty() && label.iter().all(|byte| is_label(*byte)))
            }
        }
    }
}

/// Holds whatever bytes come as an Origin against one pattern of each kind; for fuzzing.
#[must_use]
pub fn fuzz_origin(bytes: &[u8]) -> bool {
    let (pattern, origin) = bytes.iter().position(|byte| *byte == b'\n').map_or((bytes, bytes), |end| {
        let (pattern, rest) = bytes.split_at(end);
        (pattern, rest.get(1..).unwrap_or_default())
    });
    let own = std::str::from_utf8(pattern).ok().and_then(OriginPattern::parse);
    let wildcard = OriginPattern::parse("https://*.example.com:8443");
    own.into_iter().chain(wildcard).any(|pattern| pattern.matches(origin))
}

fn is_label(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-'
}

/// A list as it stands, where each of its words is of these bytes alone.
fn words(text: &str, fits: impl Fn(u8) -> bool) -> Option<String> {
    let mut words = text.split([',', ' ']).filter(|word| !word.is_empty()).peekable();
    words.peek()?;
    words.all(|word| word.bytes().all(&fits)).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    fn read(annotations: &[(&str, &str)], reported: usize) -> Option<Cors> {
        let ingress = fixture::annotated("default/web", annotations);
        let mut problems = Vec::new();
        let mut reader = Reader::of_ingress(&ingress, &mut problems);
        let cors = Cors::read(&mut reader);
        reader.finish();
        assert_eq!(problems.len(), reported, "{annotations:?} {problems:?}");
        cors
    }

    #[test]
    fn origins_are_matched_whole() {
        for (list, origin, expected) in [
            ("*", "https://anywhere.example", true),
            ("https://a.example", "https://a.example", true),
            ("https://a.example", "HTTPS://A.example", true),
            ("https://a.example", "http://a.example", false),
            ("https://a.example", "https://a.example:8443", false),
            ("https://a.example", "evilhttps://a.example", false),
            ("https://a.example", "https://a.example.evil.example", false),
            ("https://a.example", "https://aXexample", false),
            ("https://a.example, http://b.example:81", "http://b.example:81", true),
            ("https://*.example.com:8443", "https://x.example.com:8443", true),
            ("https://*.example.com:8443", "https://x.example.com", false),
            ("https://*.example.com", "https://x.y.example.com", false),
            ("https://*.example.com", "https://example.com", false),
            ("https://*.example.com", "https://.example.com", false),
            ("https://*.example.com", "https://evil.example/.example.com", false),
            ("app://*.example.com", "app://x.example.com", true),
            ("null", "null", true),
            ("https://a.example", "null", false),
            ("https://a.example", "", false),
        ] {
            let cors = read(&[("enable-cors", "true"), ("cors-allow-origin", list)], 0).unwrap();
            assert_eq!(cors.origins.contain(origin.as_bytes()), expected, "{list} {origin}");
        }
    }

    #[test]
    fn wrong_values_fall_back_and_wrong_origins_let_nobody_in() {
        assert_eq!(read(&[], 0), None);
        assert_eq!(read(&[("enable-cors", "yes")], 1), None);
        assert_eq!(read(&[("cors-max-age", "5")], 0), None);
        let default = read(&[("enable-cors", "true")], 0).unwrap();
        assert_eq!((default.origins.clone(), default.credentials, default.max_age), (Origins::Any, true, MAX_AGE));
        assert_eq!((default.methods.as_str(), default.headers.as_str(), &default.expose), (METHODS, HEADERS, &None));
        let wrong = [
            ("enable-cors", "true"),
            ("cors-allow-methods", "GET; POST"),
            ("cors-allow-headers", "$remote_addr"),
            ("cors-expose-headers", "\"x\""),
            ("cors-allow-credentials", "maybe"),
            ("cors-max-age", "-1"),
        ];
        assert_eq!(read(&wrong, 5), Some(default));
        let origin = |list| read(&[("enable-cors", "true"), ("cors-allow-origin", list)], 1).unwrap().origins;
        assert_eq!(origin("a.example"), Origins::Listed(Vec::new()));
        assert_eq!(origin("https://*.*.example"), Origins::Listed(Vec::new()));
        assert_eq!(
            origin("https://a.example/path,null"),
            Origins::Listed(vec![OriginPattern::Exact("null".to_owned())])
        );
        let set = [("enable-cors", "true"), ("cors-allow-methods", "GET, POST"), ("cors-expose-headers", "*, X-1")];
        let cors = read(&set, 0).unwrap();
        assert_eq!((cors.methods.as_str(), cors.expose.as_deref()), ("GET, POST", Some("*, X-1")));
    }

    #[test]
    fn fuzzed_origins_are_read_to_their_end() {
        assert!(fuzz_origin(b"https://x.example.com:8443"));
        assert!(fuzz_origin(b"http://*.a\nhttp://b.a"));
        assert!(!fuzz_origin(b"") && !fuzz_origin(b"://") && !fuzz_origin(b"https://*\xff\n\xff"));
    }
}
