//! The forms of names that an API server accepts (RFC 1123, RFC 6335 and Kubernetes' own).
//!
//! Source: k8s.io/apimachinery/pkg/util/validation.

/// What a label of RFC 1123 must look like.
pub(crate) const LABEL: &str =
    "must be a DNS label: at most 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit";
/// What a subdomain of RFC 1123 must look like.
pub(crate) const SUBDOMAIN: &str =
    "must be a DNS name: labels of a-z, 0-9 and '-' joined by '.', at most 253 characters";
/// What the name of a container's port must look like.
pub(crate) const PORT_NAME: &str =
    "must be a port name: at most 15 of a-z, 0-9 and single '-' between them, with at least one letter";
/// What keys of labels and annotations must look like.
pub(crate) const QUALIFIED: &str =
    "must be a qualified name: letters, digits, '-', '_' and '.', at most 63, with an optional DNS name and '/' before";
/// What values of labels must look like.
pub(crate) const LABEL_VALUE: &str = "must be a label value: at most 63 of letters, digits, '-', '_' and '.', beginning and ending with a letter or digit";
/// What keys of Secrets and ConfigMaps must look like.
pub(crate) const DATA_KEY: &str = "must be a key of letters, digits, '-', '_' and '.', at most 253";

/// RFC 1123 label.
pub(crate) fn is_label(text: &str) -> bool {
    text.len() <= 63 && framed(text, lower, |byte| byte == b'-')
}

/// RFC 1123 subdomain.
pub(crate) fn is_subdomain(text: &str) -> bool {
    // Only the whole is bounded: Kubernetes does not bound the labels of a subdomain.
    text.len() <= 253 && text.split('.').all(|label| framed(label, lower, |byte| byte == b'-'))
}

/// IANA service name, as container ports are named.
pub(crate) fn is_port_name(text: &str) -> bool {
    text.len() <= 15
        && framed(text, lower, |byte| byte == b'-')
        && !text.contains("--")
        && text.bytes().any(|byte| byte.is_ascii_lowercase())
}

/// `[subdomain/]name`, as keys of labels.
pub(crate) fn is_qualified(text: &str) -> bool {
    let (prefix, name) = match text.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    prefix.is_none_or(is_subdomain) && !name.is_empty() && is_label_value(name)
}

/// Value of a label; may be empty.
pub(crate) fn is_label_value(text: &str) -> bool {
    text.is_empty() || (text.len() <= 63 && framed(text, alphanumeric, |byte| b"-_.".contains(&byte)))
}

/// Key of a Secret or ConfigMap.
pub(crate) fn is_data_key(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=253).contains(&text.len()) && text.bytes().all(plain) && text != "." && !text.starts_with("..")
}

fn lower(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

fn alphanumeric(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
}

/// Not empty, `edge` at both ends, `edge` or `inner` between.
fn framed(text: &str, edge: impl Fn(u8) -> bool, inner: impl Fn(u8) -> bool) -> bool {
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    edge(*first) && edge(*last) && bytes.iter().all(|byte| edge(*byte) || inner(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(accepts: fn(&str) -> bool, good: &[&str], bad: &[&str]) {
        for text in good {
            assert!(accepts(text), "{text:?} is good");
        }
        for text in bad {
            assert!(!accepts(text), "{text:?} is bad");
        }
    }

    #[test]
    fn forms() {
        let long = "a".repeat(64);
        check(is_label, &["a", "a-b", "0", "web1"], &["", "-a", "a-", "A", "a.b", "a_b", &long]);
        check(is_subdomain, &["a", "a.b-c.d", &long], &["", ".a", "a.", "a..b", "A.b", "a.-b", &"a.".repeat(130)]);
        check(is_port_name, &["http", "http-2", "a"], &["", "80", "a--b", "-a", "HTTP", "abcdefghijklmnop"]);
        check(is_qualified, &["app", "a.b/c", "A_b.c"], &["", "a/", "/a", "a/b/c", "A.b/c", "-a", &long]);
        check(is_label_value, &["", "A_b.c-1"], &["-a", "a-", "a/b", &long]);
        check(is_data_key, &["tls.crt", ".x", "-"], &["", ".", "..", "..data", "a/b", "a b"]);
    }
}
