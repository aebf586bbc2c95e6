//! How often a client may come, and how fast it is answered: `limit-rps`, `limit-rpm`, `limit-connections` and what belongs to
//! them.

use super::Reader;
use crate::Networks;

/// Limits for each client address; one set of counts for each Ingress, as in ingress-nginx.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `limit-rps`.
    pub per_second: Option<u32>,
    /// `limit-rpm`.
    pub per_minute: Option<u32>,
    /// `limit-connections`: requests at the same time, as nginx counts them.
    pub connections: Option<u32>,
    /// `limit-burst-multiplier`: so many times the rate may come at once.
    pub burst_multiplier: u32,
    /// `limit-allowlist`, also `limit-whitelist`: these are not counted.
    pub exempt: Networks,
    /// `limit-rate`: bytes a second of one answer; 0 is no limit.
    pub rate: u64,
    /// `limit-rate-after`: bytes before that begins.
    pub rate_after: u64,
    /// `limit-req-status-code`.
    pub request_status: u16,
    /// `limit-conn-status-code`.
    pub connection_status: u16,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            per_second: None,
            per_minute: None,
            connections: None,
            burst_multiplier: 5,
            exempt: Networks::default(),
            rate: 0,
            rate_after: 0,
            request_status: 503,
            connection_status: 503,
        }
    }
}

impl Limits {
    pub(super) fn read(reader: &mut Reader<'_>, base: &Self) -> Self {
        let count = |reader: &mut Reader<'_>, key| reader.annotation(key).number(0).filter(|count| *count > 0);
        // ingress-nginx writes both of these with a `k` behind the number.
        let kibibytes =
            |reader: &mut Reader<'_>, key| reader.either(key).number(0).map(|count| u64::from(count) * 1024);
        let status = |reader: &mut Reader<'_>, key| {
            reader.option(key).parse("a status from 400 to 599", |text| {
                text.parse().ok().filter(|status| (400..600).contains(status))
            })
        };
        let exempt = |reader: &mut Reader<'_>, key| reader.annotation(key).networks().ok().flatten();
        let (allowed, older) = (exempt(reader, "limit-allowlist"), exempt(reader, "limit-whitelist"));
        Self {
            per_second: count(reader, "limit-rps"),
            per_minute: count(reader, "limit-rpm"),
            connections: count(reader, "limit-connections"),
            burst_multiplier: reader.annotation("limit-burst-multiplier").number(0).unwrap_or(base.burst_multiplier),
            exempt: allowed.or(older).map(Networks::new).unwrap_or_default(),
            rate: kibibytes(reader, "limit-rate").unwrap_or(base.rate),
            rate_after: kibibytes(reader, "limit-rate-after").unwrap_or(base.rate_after),
            request_status: status(reader, "limit-req-status-code").unwrap_or(base.request_status),
            connection_status: status(reader, "limit-conn-status-code").unwrap_or(base.connection_status),
        }
    }

    /// Whether requests are counted at all.
    #[must_use]
    pub fn counts(&self) -> bool {
        self.per_second.is_some() || self.per_minute.is_some() || self.connections.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fixture,
        settings::{Options, Profile, Settings, network},
    };

    fn check(options: &[(&str, &str)], annotations: &[(&str, &str)], expected: &Limits, reported: usize) {
        let mut problems = Vec::new();
        let options = Options::read(Some(&fixture::config_map("x/options", options)), &mut problems);
        let ingress = fixture::annotated("default/web", annotations);
        let settings = Settings::of_ingress(&ingress, Profile::Nginx, &options, &mut problems);
        assert_eq!(&settings.limits, expected, "{annotations:?}");
        assert_eq!(problems.len(), reported, "{problems:?}");
    }

    #[test]
    fn limits_are_read_and_wrong_ones_left_out() {
        let none = Limits::default();
        check(&[], &[], &none, 0);
        let rates =
            [("limit-rps", "5"), ("limit-rpm", "100"), ("limit-connections", "2"), ("limit-burst-multiplier", "3")];
        let expected = Limits {
            per_second: Some(5),
            per_minute: Some(100),
            connections: Some(2),
            burst_multiplier: 3,
            ..none.clone()
        };
        check(&[], &rates, &expected, 0);
        check(&[], &[("limit-rps", "0")], &none, 0);
        check(&[], &[("limit-rps", "many")], &none, 1);
        check(&[], &[("limit-connections", "-1")], &none, 1);
        let exempt = Networks::new([network("10.0.0.0/8").unwrap()]);
        let exempted = Limits { per_second: Some(1), exempt, ..none.clone() };
        check(&[], &[("limit-rps", "1"), ("limit-whitelist", "10.0.0.0/8")], &exempted, 0);
        check(&[], &[("limit-rps", "1"), ("limit-allowlist", "10.0.0.0/8")], &exempted, 0);
        let counted = Limits { per_second: Some(1), ..none.clone() };
        check(&[], &[("limit-rps", "1"), ("limit-allowlist", "10.0.0.0/x")], &counted, 1);
        let slow = Limits { rate: 100 << 10, rate_after: 1 << 20, ..none.clone() };
        check(&[], &[("limit-rate", "100"), ("limit-rate-after", "1024")], &slow, 0);
        check(&[("limit-rate", "100"), ("limit-rate-after", "1024")], &[], &slow, 0);
        let statuses = Limits { request_status: 429, connection_status: 429, ..none.clone() };
        check(&[("limit-req-status-code", "429"), ("limit-conn-status-code", "429")], &[], &statuses, 0);
        check(&[("limit-req-status-code", "200")], &[], &none, 1);
    }
}
