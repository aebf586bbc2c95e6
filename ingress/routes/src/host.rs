//! Hosts of requests: how a `Host` header or an SNI becomes the key that the table is asked for.

use std::borrow::Cow;

/// The host of a `Host` header or `:authority`: without port and trailing dot, lower case. An IPv6 literal keeps its
/// brackets.
#[must_use]
pub fn request_host(authority: &str) -> Cow<'_, str> {
    let host = without_port(authority);
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    }
}

fn without_port(authority: &str) -> &str {
    if authority.starts_with('[') {
        return authority.find(']').and_then(|end| authority.get(..=end)).unwrap_or(authority);
    }
    authority.split_once(':').map_or(authority, |(host, _)| host)
}

/// The port of an authority with its colon, or nothing.
pub(crate) fn port_with_colon(authority: &str) -> &str {
    let port = authority.get(without_port(authority).len()..).unwrap_or_default();
    if port.len() > 1 { port } else { "" }
}

/// The host with `www.` where the name has none, and without it where it has.
pub(crate) fn www_sibling(host: &str) -> String {
    host.strip_prefix("www.").map_or_else(|| format!("www.{host}"), str::to_owned)
}

/// What a wildcard host must equal to match: everything after the first label.
pub(crate) fn wildcard_key(host: &str) -> Option<&str> {
    match host.split_once('.') {
        Some((first, rest)) if !first.is_empty() && !rest.is_empty() => Some(rest),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_lose_port_dot_and_case() {
        for (authority, expected) in [
            ("foo.example", "foo.example"),
            ("FOO.Example:8443", "foo.example"),
            ("foo.example.", "foo.example"),
            ("foo.example.:80", "foo.example"),
            ("192.0.2.1:80", "192.0.2.1"),
            ("[2001:DB8::1]:443", "[2001:db8::1]"),
            ("[2001:db8::1]", "[2001:db8::1]"),
            ("", ""),
        ] {
            assert_eq!(request_host(authority), expected, "{authority}");
        }
    }
    #[test]
    fn ports_and_siblings() {
        for (authority, port) in [("a", ""), ("a:80", ":80"), ("a:", ""), ("[::1]:8", ":8"), ("[::1]", "")] {
            assert_eq!(port_with_colon(authority), port, "{authority}");
        }
        assert_eq!(www_sibling("a.example"), "www.a.example");
        assert_eq!(www_sibling("www.a.example"), "a.example");
    }
}
