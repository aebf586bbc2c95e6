//! What the edge goes by: the command line and the ConfigMap's options, made into one decided whole.
//!
//! On the configuration's way `control` makes one with every change of the options; a connection takes the one of its start
//! and keeps it.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use roadstead_model::{ObjectName, ObjectRef, Problem, Severity};
use roadstead_routes::{Networks, Options};

use crate::{
    field_names::FieldNames,
    forwarded::{Belief, Chain, ForwardedRules},
    head::Limits,
    trusted::Network,
};

/// nginx's send_timeout: how long a client may take none of what is written to it.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// What the command line says about the edge; the ConfigMap's options add to it.
#[derive(Clone, Debug, Default)]
pub struct EdgeFlags {
    /// `--trusted-proxy`.
    pub trusted: Vec<Network>,
    /// `--use-proxy-protocol`.
    pub proxy_protocol: ProxyProtocol,
    /// `--default-ssl-certificate`: the Secret whose pair serves hosts without one.
    pub default_certificate: Option<ObjectName>,
}

/// Whether connections begin with a header of the PROXY protocol. There is no "maybe": the specification forbids to guess,
/// since a client could then write the header itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// They do not.
    #[default]
    Off,
    /// All of them do, whoever sends them.
    Required,
}

/// What a connection is served by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgePolicy {
    /// Whether a header of the PROXY protocol comes first.
    pub proxy_protocol: ProxyProtocol,
    /// Who is believed about clients, by that header, and has no limit of connections.
    pub trusted: Networks,
    /// Who is believed in header fields, and how.
    pub forwarded: ForwardedRules,
    /// Sizes and times of a connection.
    pub limits: Limits,
    /// Between two requests.
    pub keep_alive: Duration,
    /// The most requests of one connection.
    pub keep_alive_requests: u64,
    /// The most requests at once on an HTTP/2 connection.
    pub http2_streams: u32,
    /// The value of Strict-Transport-Security, where it is sent.
    pub hsts: Option<HeaderValue>,
    /// Whether answers name this server.
    pub server_tokens: bool,
    /// Which fields of requests are dropped by their names.
    pub field_names: FieldNames,
    /// How long a stream that is passed through may be silent.
    pub stream_timeout: Duration,
}

impl Default for EdgePolicy {
    fn default() -> Self {
        Self::new(&EdgeFlags::default(), &Options::default())
    }
}

impl EdgePolicy {
    /// Decides.
    #[must_use]
    pub fn new(flags: &EdgeFlags, all: &Options) -> Self {
        let options = &all.edge;
        let proxy_protocol = if options.proxy_protocol { ProxyProtocol::Required } else { flags.proxy_protocol };
        let by_fields = options.forwarded_headers == Some(true) || options.real_ip;
        let by_option = by_fields || options.proxy_protocol;
        let by_flag = || flags.trusted.iter().map(|network| (network.0, network.1));
        let trusted = Networks::new(by_flag().chain(options.trusted.iter().copied().filter(|_| by_option)));
        let fields = match options.forwarded_headers {
            Some(false) => Networks::default(),
            _ if by_fields => trusted.clone(),
            _ => Networks::new(by_flag()),
        };
        let believes_all = options.forwarded_headers == Some(true) || !options.real_ip;
        Self {
            proxy_protocol,
            trusted,
            forwarded: ForwardedRules {
                trusted: fields,
                field: HeaderName::from_bytes(options.forwarded_for_header.as_bytes())
                    .unwrap_or(HeaderName::from_static("x-forwarded-for")),
                belief: if believes_all { Belief::All } else { Belief::Address },
                chain: if options.full_forwarded_for { Chain::Full } else { Chain::Client },
            },
            limits: Limits {
                head_bytes: usize::try_from(options.head_bytes).unwrap_or(usize::MAX),
                head: options.header_timeout,
                body: options.body_timeout,
                write: WRITE_TIMEOUT,
                http2: options.http2,
            },
            keep_alive: options.keep_alive,
            keep_alive_requests: options.keep_alive_requests.map_or(u64::MAX, u64::from),
            http2_streams: options.http2_streams,
            hsts: all.hsts.value().and_then(|value| HeaderValue::from_str(&value).ok()),
            server_tokens: options.server_tokens,
            field_names: FieldNames::new(options.underscores, options.ignore_invalid),
            stream_timeout: options.stream_timeout,
        }
    }

    /// What of the options comes to nothing because of what others say.
    #[must_use]
    pub fn problems(&self, options: &Options, config_map: Option<&ObjectName>) -> Vec<Problem> {
        let mut problems = Vec::new();
        if !self.trusted.is_empty() {
            return problems;
        }
        let options = &options.edge;
        let asked = [
            ("use-proxy-protocol", options.proxy_protocol),
            ("use-forwarded-headers", options.forwarded_headers == Some(true)),
            ("enable-real-ip", options.real_ip),
        ];
        for (key, _) in asked.iter().filter(|(_, asked)| *asked) {
            let object = config_map.map(|name| ObjectRef { kind: "ConfigMap".to_owned(), name: name.clone() });
            let reason = "believes nobody, since neither proxy-real-ip-cidr nor --trusted-proxy names a trusted peer \
                          (ingress-nginx trusts every peer here)";
            problems.push(Problem {
                severity: Severity::Warning,
                place: None,
                object,
                field: Some(format!("data[{key}]")),
                reason: reason.to_owned(),
            });
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use roadstead_routes::EdgeOptions;

    use super::*;

    fn check(trusted_flag: &str, options: &EdgeOptions, header: [bool; 2], fields: [bool; 2], problems: usize) {
        let trusted = trusted_flag.parse::<Network>().into_iter().collect();
        let options = &Options { edge: options.clone(), ..Options::default() };
        let policy = EdgePolicy::new(&EdgeFlags { trusted, ..EdgeFlags::default() }, options);
        let peers = ["10.0.0.1", "172.16.0.1"].map(|text| text.parse().unwrap());
        assert_eq!(peers.map(|peer| policy.trusted.contains(peer)), header, "{options:?}");
        assert_eq!(peers.map(|peer| policy.forwarded.trusted.contains(peer)), fields, "{options:?}");
        assert_eq!(policy.problems(options, None).len(), problems, "{options:?}");
    }

    /// 10/8 is the flag's, 172.16/12 the ConfigMap's.
    #[test]
    fn who_is_trusted_depends_on_both() {
        let base = EdgeOptions { trusted: vec![([172, 16, 0, 0].into(), 12)], ..EdgeOptions::default() };
        let forwarded = |asked| EdgeOptions { forwarded_headers: Some(asked), ..base.clone() };
        let real_ip = EdgeOptions { real_ip: true, ..base.clone() };
        let proxy = EdgeOptions { proxy_protocol: true, ..base.clone() };
        check("", &EdgeOptions::default(), [false, false], [false, false], 0);
        check("10.0.0.0/8", &base, [true, false], [true, false], 0);
        check("10.0.0.0/8", &forwarded(true), [true, true], [true, true], 0);
        check("10.0.0.0/8", &forwarded(false), [true, false], [false, false], 0);
        check("10.0.0.0/8", &real_ip, [true, true], [true, true], 0);
        check("", &proxy, [false, true], [false, false], 0);
        check("", &EdgeOptions { trusted: Vec::new(), ..proxy }, [false, false], [false, false], 1);
        check("", &EdgeOptions { trusted: Vec::new(), ..forwarded(true) }, [false, false], [false, false], 1);
    }
}
