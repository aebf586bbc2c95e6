//! nginx's notations: times, sizes, networks, names of objects.

use std::{net::IpAddr, time::Duration};

use roadstead_model::ObjectName;

/// The longest time that is taken for one; nginx's own numbers end near it.
const MAX_SECONDS: u64 = 10 * 365 * 86_400;

/// A time (<https://nginx.org/en/docs/syntax.html>): seconds, or parts with units such as `1m30s`; `ms` too.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, after) = rest.split_at(digits);
        let number: u64 = number.parse().ok()?;
        let unit = after.len() - after.trim_start_matches(|c: char| c.is_ascii_alphabetic()).len();
        let (unit, after) = after.split_at(unit);
        let part = match unit {
            "" if after.is_empty() => Duration::from_secs(number),
            "ms" => Duration::from_millis(number),
            "s" => Duration::from_secs(number),
            "m" => Duration::from_secs(number.checked_mul(60)?),
            "h" => Duration::from_secs(number.checked_mul(3_600)?),
            "d" => Duration::from_secs(number.checked_mul(86_400)?),
            "w" => Duration::from_secs(number.checked_mul(7 * 86_400)?),
            _ => return None,
        };
        total = total.checked_add(part)?;
        rest = after.trim_start();
    }
    (!text.is_empty() && total.as_secs() <= MAX_SECONDS).then_some(total)
}

/// A size in bytes (<https://nginx.org/en/docs/syntax.html>): a number, or one with `k`, `m` or `g` in either case.
pub(crate) fn size(text: &str) -> Option<u64> {
    let (number, shift) = match text.as_bytes().last()? {
        b'k' | b'K' => (text.get(..text.len() - 1)?, 10),
        b'm' | b'M' => (text.get(..text.len() - 1)?, 20),
        b'g' | b'G' => (text.get(..text.len() - 1)?, 30),
        _ => (text, 0),
    };
    let number: u64 = number.bytes().all(|byte| byte.is_ascii_digit()).then(|| number.parse().ok())??;
    number.checked_mul(1 << shift)
}

/// An address, or a network as `address/length`; bits behind the length do not matter.
pub(crate) fn network(text: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)));
    let address: IpAddr = address.parse().ok()?;
    let full = if address.is_ipv4() { 32 } else { 128 };
    let length = length.map_or(Some(full), |length| length.parse().ok())?;
    (length <= full).then_some((address, length))
}

/// `name` in a namespace, or `namespace/name`.
pub(crate) fn object(text: &str, namespace: &str) -> Option<ObjectName> {
    let (namespace, name) = text.split_once('/').unwrap_or((namespace, text));
    let is_name = |text: &str| {
        !text.is_empty()
            && text.len() <= 253
            && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte))
    };
    (is_name(namespace) && is_name(name)).then(|| ObjectName::new(namespace, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_nginx_s() {
        for (text, milliseconds) in [
            ("60", Some(60_000)),
            ("60s", Some(60_000)),
            ("1m30s", Some(90_000)),
            ("1h 5m", Some(3_900_000)),
            ("500ms", Some(500)),
            ("2d", Some(172_800_000)),
            ("0", Some(0)),
            ("", None),
            ("-1", None),
            ("1y", None),
            ("s", None),
            ("1.5s", None),
            ("99999999999999999999", None),
            ("9999999999d", None),
        ] {
            assert_eq!(duration(text).map(|time| time.as_millis()), milliseconds, "{text}");
        }
        for (text, bytes) in [
            ("0", Some(0)),
            ("8k", Some(8 << 10)),
            ("1M", Some(1 << 20)),
            ("2g", Some(2 << 30)),
            ("m", None),
            ("", None),
            ("1mb", None),
            ("-1", None),
            ("+1", None),
            ("99999999999g", None),
        ] {
            assert_eq!(size(text), bytes, "{text}");
        }
    }

    #[test]
    fn networks_and_names_are_checked() {
        for (text, ok) in [
            ("10.0.0.0/8", true),
            ("192.0.2.1", true),
            ("2001:db8::/32", true),
            ("10.0.0.0/33", false),
            ("10.0.0/8", false),
            ("example", false),
        ] {
            assert_eq!(network(text).is_some(), ok, "{text}");
        }
        assert_eq!(object("s", "n"), Some(ObjectName::new("n", "s")));
        assert_eq!(object("m/s", "n"), Some(ObjectName::new("m", "s")));
        assert_eq!((object("a/b/c", "n"), object("", "n"), object("A", "n")), (None, None, None));
    }
}
