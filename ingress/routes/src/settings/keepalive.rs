//! How long connections to endpoints are kept: options of the ConfigMap, for all Ingresses together.

use std::time::Duration;

use super::{Reader, units};

/// ingress-nginx's `upstream-keepalive-*`. nginx counts by worker process, the proxy by thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// `upstream-keepalive-connections`: idle connections that are kept at once; 0 keeps none.
    pub connections: u32,
    /// `upstream-keepalive-time`: the age at which a connection takes no more requests.
    pub time: Duration,
    /// `upstream-keepalive-timeout`: how long a connection is kept without a request.
    pub timeout: Duration,
    /// `upstream-keepalive-requests`: after how many requests a connection takes no more.
    pub requests: u32,
}

impl Default for Keepalive {
    /// ingress-nginx's values.
    fn default() -> Self {
        Self { connections: 320, time: Duration::from_secs(3600), timeout: Duration::from_secs(60), requests: 10_000 }
    }
}

impl Keepalive {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let base = Self::default();
        let above_zero = |text| units::duration(text).filter(|time| !time.is_zero());
        let what = "a time of more than 0 such as 60 or 1h";
        Self {
            connections: reader.option("upstream-keepalive-connections").number(0).unwrap_or(base.connections),
            time: reader.option("upstream-keepalive-time").parse(what, above_zero).unwrap_or(base.time),
            timeout: reader.option("upstream-keepalive-timeout").parse(what, above_zero).unwrap_or(base.timeout),
            requests: reader.option("upstream-keepalive-requests").number(1).unwrap_or(base.requests),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::fixture::check_options;

    #[test]
    fn options_are_read_or_reported() {
        let built_in = Keepalive::default();
        let short =
            Keepalive { connections: 0, time: Duration::from_secs(1800), timeout: Duration::from_secs(5), requests: 1 };
        let all = [
            ("upstream-keepalive-connections", "0"),
            ("upstream-keepalive-time", "30m"),
            ("upstream-keepalive-timeout", "5"),
            ("upstream-keepalive-requests", "1"),
        ];
        check_options(&all, Keepalive::read, &short, &[]);
        for (key, value) in [
            ("upstream-keepalive-connections", "-1"),
            ("upstream-keepalive-time", "0"),
            ("upstream-keepalive-timeout", "never"),
            ("upstream-keepalive-requests", "0"),
        ] {
            check_options(&[(key, value)], Keepalive::read, &built_in, &[key]);
        }
    }
}
