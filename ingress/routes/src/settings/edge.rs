//! Options of the edge: who is believed about clients, how long and how much a client may take, how HTTP is spoken to it.
//!
//! These are the ConfigMap's alone, and hold for every connection: they are read before anybody knows an Ingress. Where
//! ingress-nginx's own value would be unsafe at an edge, ours differs, and the field says so.

use std::{net::IpAddr, time::Duration};

use super::Reader;

/// The most bytes that a head may be allowed to have.
const MAX_HEAD_BYTES: u64 = 1 << 20;

/// The edge's options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgeOptions {
    /// `use-proxy-protocol`: every connection begins with a header of the PROXY protocol.
    pub proxy_protocol: bool,
    /// `use-forwarded-headers`: what trusted peers say in X-Forwarded-* is believed; `None` leaves it to the command line.
    pub forwarded_headers: Option<bool>,
    /// `enable-real-ip`: the client's address is believed, and nothing else.
    pub real_ip: bool,
    /// `proxy-real-ip-cidr`: who is trusted. ingress-nginx trusts everybody by default; here nobody is.
    pub trusted: Vec<(IpAddr, u8)>,
    /// `forwarded-for-header`: the field that holds the client's address, in lower case.
    pub forwarded_for_header: String,
    /// `compute-full-forwarded-for`: endpoints see the whole chain of addresses.
    pub full_forwarded_for: bool,
    /// `keep-alive`: between two requests; zero closes after each.
    pub keep_alive: Duration,
    /// `keep-alive-requests`: how many requests one connection may bring; `None` for as many as it likes. ingress-nginx's 1000
    /// give back memory that nginx gathers with every request of a connection; nothing here does that.
    pub keep_alive_requests: Option<u32>,
    /// `client-header-timeout`: for a whole head, where nginx's 60 seconds are 10 here.
    pub header_timeout: Duration,
    /// `client-body-timeout`: between two pieces of a body.
    pub body_timeout: Duration,
    /// `large-client-header-buffers`, number times size: the most bytes of a head.
    pub head_bytes: u64,
    /// `http2-max-concurrent-streams`.
    pub http2_streams: u32,
    /// `use-http2`.
    pub http2: bool,
    /// `server-tokens`: answers name this server. ingress-nginx's default is not to.
    pub server_tokens: bool,
    /// `enable-underscores-in-headers`: fields with an underscore in their name are handed on.
    pub underscores: bool,
    /// `ignore-invalid-headers`: fields whose names hold more than letters, digits and hyphens are dropped.
    pub ignore_invalid: bool,
    /// `ssl-reject-handshake`: no handshake for hosts that nothing here names.
    pub reject_unknown_hosts: bool,
    /// `proxy-stream-timeout`: how long a passed-through stream may be silent.
    pub stream_timeout: Duration,
}

impl Default for EdgeOptions {
    fn default() -> Self {
        Self {
            proxy_protocol: false,
            forwarded_headers: None,
            real_ip: false,
            trusted: Vec::new(),
            forwarded_for_header: "x-forwarded-for".to_owned(),
            full_forwarded_for: false,
            keep_alive: Duration::from_secs(75),
            keep_alive_requests: None,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(60),
            head_bytes: 32 * 1024,
            http2_streams: 128,
            http2: true,
            server_tokens: true,
            underscores: false,
            ignore_invalid: true,
            reject_unknown_hosts: false,
            stream_timeout: Duration::from_secs(600),
        }
    }
}

impl EdgeOptions {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let base = Self::default();
        let options = Self {
            proxy_protocol: reader.option("use-proxy-protocol").boolean().unwrap_or(base.proxy_protocol),
            forwarded_headers: reader.option("use-forwarded-headers").boolean(),
            real_ip: reader.option("enable-real-ip").boolean().unwrap_or(base.real_ip),
            // Half a list of trusted peers would change whose address is taken for a client's.
            trusted: reader.option("proxy-real-ip-cidr").networks().ok().flatten().unwrap_or_default(),
            forwarded_for_header: reader
                .option("forwarded-for-header")
                .parse("the name of a header field", field_name)
                .unwrap_or(base.forwarded_for_header),
            full_forwarded_for: reader
                .option("compute-full-forwarded-for")
                .boolean()
                .unwrap_or(base.full_forwarded_for),
            keep_alive: reader.option("keep-alive").duration().unwrap_or(base.keep_alive),
            keep_alive_requests: reader.option("keep-alive-requests").number(1),
            header_timeout: positive(reader, "client-header-timeout", base.header_timeout),
            body_timeout: positive(reader, "client-body-timeout", base.body_timeout),
            head_bytes: reader
                .option("large-client-header-buffers")
                .parse("a number and a size such as 4 8k, together 1k to 1m", head_bytes)
                .unwrap_or(base.head_bytes),
            http2_streams: reader.option("http2-max-concurrent-streams").number(1).unwrap_or(base.http2_streams),
            http2: reader.option("use-http2").boolean().unwrap_or(base.http2),
            server_tokens: reader.option("server-tokens").boolean().unwrap_or(base.server_tokens),
            underscores: reader.option("enable-underscores-in-headers").boolean().unwrap_or(base.underscores),
            ignore_invalid: reader.option("ignore-invalid-headers").boolean().unwrap_or(base.ignore_invalid),
            reject_unknown_hosts: reader.option("ssl-reject-handshake").boolean().unwrap_or(base.reject_unknown_hosts),
            stream_timeout: positive(reader, "proxy-stream-timeout", base.stream_timeout),
        };
        if options.proxy_protocol && options.forwarded_headers == Some(true) {
            let reason = "has no effect beside use-proxy-protocol: the client's address comes from that header, and \
                          fields count only where that client is itself a trusted proxy";
            reader.complain("use-forwarded-headers", reason);
        }
        options
    }
}

/// A time that must not be zero: a limit of no time at all would refuse everybody.
fn positive(reader: &mut Reader<'_>, key: &'static str, base: Duration) -> Duration {
    let time = |text: &str| super::units::duration(text).filter(|time| !time.is_zero());
    reader.option(key).parse("a time such as 60 or 60s, and not zero", time).unwrap_or(base)
}

/// A name of a field (RFC 9110, section 5.1), in lower case.
fn field_name(text: &str) -> Option<String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (text.len() <= 64 && text.bytes().all(fits)).then(|| text.to_ascii_lowercase())
}

/// `4 8k`: nginx keeps so many buffers of that size for one head.
fn head_bytes(text: &str) -> Option<u64> {
    let (number, size) = text.split_once(' ')?;
    let total = number.parse::<u64>().ok()?.checked_mul(super::units::size(size.trim())?)?;
    (1024..=MAX_HEAD_BYTES).contains(&total).then_some(total)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use roadstead_model::{ConfigMap, Problem};

    use super::*;
    use crate::fixture;

    fn read(data: &[(&str, &str)]) -> (EdgeOptions, Vec<Problem>) {
        let data: BTreeMap<_, _> = data.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let config_map = ConfigMap { meta: fixture::meta("ingress/options"), data };
        let mut problems = Vec::new();
        let mut reader = Reader::of_config_map(&config_map, &mut problems);
        let options = EdgeOptions::read(&mut reader);
        reader.finish();
        (options, problems)
    }

    #[test]
    fn options_are_read() {
        let (options, problems) = read(&[
            ("use-proxy-protocol", "true"),
            ("enable-real-ip", "true"),
            ("proxy-real-ip-cidr", "10.0.0.0/8, 192.0.2.1"),
            ("forwarded-for-header", "CF-Connecting-IP"),
            ("compute-full-forwarded-for", "true"),
            ("keep-alive", "0"),
            ("keep-alive-requests", "10"),
            ("client-header-timeout", "5"),
            ("client-body-timeout", "30"),
            ("large-client-header-buffers", "2 16k"),
            ("http2-max-concurrent-streams", "64"),
            ("use-http2", "false"),
            ("server-tokens", "false"),
            ("enable-underscores-in-headers", "true"),
            ("ignore-invalid-headers", "false"),
            ("ssl-reject-handshake", "true"),
            ("proxy-stream-timeout", "60s"),
        ]);
        assert_eq!(problems, []);
        let expected = EdgeOptions {
            proxy_protocol: true,
            forwarded_headers: None,
            real_ip: true,
            trusted: vec![([10, 0, 0, 0].into(), 8), ([192, 0, 2, 1].into(), 32)],
            forwarded_for_header: "cf-connecting-ip".to_owned(),
            full_forwarded_for: true,
            keep_alive: Duration::ZERO,
            keep_alive_requests: Some(10),
            header_timeout: Duration::from_secs(5),
            body_timeout: Duration::from_secs(30),
            head_bytes: 32 * 1024,
            http2_streams: 64,
            http2: false,
            server_tokens: false,
            underscores: true,
            ignore_invalid: false,
            reject_unknown_hosts: true,
            stream_timeout: Duration::from_secs(60),
        };
        assert_eq!(options, expected);
        assert_eq!(read(&[]), (EdgeOptions::default(), Vec::new()));
    }

    #[test]
    fn wrong_values_are_reported_and_change_nothing() {
        for (key, value) in [
            ("use-proxy-protocol", "yes"),
            ("use-forwarded-headers", "1"),
            ("proxy-real-ip-cidr", "10.0.0.0/8,everybody"),
            ("forwarded-for-header", "X Forwarded"),
            ("keep-alive", "-1"),
            ("keep-alive-requests", "0"),
            ("client-header-timeout", "0"),
            ("client-body-timeout", "soon"),
            ("large-client-header-buffers", "8k"),
            ("large-client-header-buffers", "1000000 8k"),
            ("http2-max-concurrent-streams", "many"),
            ("proxy-stream-timeout", "0s"),
        ] {
            let (options, problems) = read(&[(key, value)]);
            assert_eq!(options, EdgeOptions::default(), "{key}: {value}");
            let fields: Vec<_> = problems.iter().map(|problem| problem.field.clone().unwrap()).collect();
            assert_eq!(fields, [format!("data[{key}]")], "{problems:?}");
        }
    }
}
