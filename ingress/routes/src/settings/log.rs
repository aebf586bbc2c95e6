//! The access log: whether a request is told, and how.
//!
//! Sources: <https://kubernetes.github.io/ingress-nginx/user-guide/nginx-configuration/log-format/> and the ConfigMap options
//! beside it.

use std::collections::BTreeSet;

use super::Reader;
use crate::template::{Template, Variable};

/// Whether requests of an Ingress are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Logging {
    /// `enable-access-log`, and `disable-access-log` of the ConfigMap.
    pub access: bool,
}

impl Default for Logging {
    fn default() -> Self {
        Self { access: true }
    }
}

/// How requests are told, for the whole controller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// `log-format-upstream`; none is ingress-nginx's own format. Variables that only a finished request has are
    /// [`Variable::Set`], by their place in [`LogVariable::NAMED`].
    pub format: Option<Template>,
    /// What is done to values that could end a field or a line.
    pub escape: Escape,
    /// `skip-access-log-urls`: targets as clients write them that are not told.
    pub skip: BTreeSet<String>,
}

/// nginx's `escape` of `log_format` (<https://nginx.org/en/docs/http/ngx_http_log_module.html#log_format>).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Escape {
    /// Quotes, backslashes and all but visible ASCII as `\xXX`.
    #[default]
    Default,
    /// As in a JSON string: `log-format-escape-json`.
    Json,
    /// Not at all, but for line ends: `log-format-escape-none`.
    None,
}

/// What only a finished request has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogVariable {
    /// `$remote_user`.
    RemoteUser,
    /// `$time_local`.
    TimeLocal,
    /// `$time_iso8601`.
    TimeIso8601,
    /// `$msec`: seconds since the epoch, with milliseconds.
    Msec,
    /// `$request`: method, target and version.
    Request,
    /// `$status`.
    Status,
    /// `$body_bytes_sent`.
    BodyBytesSent,
    /// `$bytes_sent`, with the head.
    BytesSent,
    /// `$request_length`.
    RequestLength,
    /// `$request_time`, seconds with milliseconds.
    RequestTime,
    /// `$proxy_upstream_name`: namespace, Service and port with dashes.
    UpstreamName,
    /// `$proxy_alternative_upstream_name`: of the canary that took the request.
    AlternativeUpstreamName,
    /// `$upstream_addr`: of every attempt, with commas; so are those below.
    UpstreamAddr,
    /// `$upstream_response_length`.
    UpstreamResponseLength,
    /// `$upstream_response_time`.
    UpstreamResponseTime,
    /// `$upstream_connect_time`.
    UpstreamConnectTime,
    /// `$upstream_header_time`.
    UpstreamHeaderTime,
    /// `$upstream_status`.
    UpstreamStatus,
    /// `$trace_id` of the request's `traceparent`.
    TraceId,
}

impl LogVariable {
    /// All of them with their names; the place here is the place in a template.
    pub const NAMED: [(&'static str, Self); 19] = [
        ("remote_user", Self::RemoteUser),
        ("time_local", Self::TimeLocal),
        ("time_iso8601", Self::TimeIso8601),
        ("msec", Self::Msec),
        ("request", Self::Request),
        ("status", Self::Status),
        ("body_bytes_sent", Self::BodyBytesSent),
        ("bytes_sent", Self::BytesSent),
        ("request_length", Self::RequestLength),
        ("request_time", Self::RequestTime),
        ("proxy_upstream_name", Self::UpstreamName),
        ("proxy_alternative_upstream_name", Self::AlternativeUpstreamName),
        ("upstream_addr", Self::UpstreamAddr),
        ("upstream_response_length", Self::UpstreamResponseLength),
        ("upstream_response_time", Self::UpstreamResponseTime),
        ("upstream_connect_time", Self::UpstreamConnectTime),
        ("upstream_header_time", Self::UpstreamHeaderTime),
        ("upstream_status", Self::UpstreamStatus),
        ("trace_id", Self::TraceId),
    ];

    /// The variable at a place of a format.
    #[must_use]
    pub fn at(place: usize) -> Option<Self> {
        Self::NAMED.get(place).map(|(_, variable)| *variable)
    }
}

impl Logging {
    pub(super) fn read(reader: &mut Reader<'_>, base: &Self) -> Self {
        let disabled = reader.option("disable-access-log").boolean();
        let disabled = reader.option("disable-http-access-log").boolean().or(disabled);
        let enabled = reader.annotation("enable-access-log").boolean();
        Self { access: enabled.or(disabled.map(|disabled| !disabled)).unwrap_or(base.access) }
    }
}

impl LogOptions {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let json = reader.option("log-format-escape-json").boolean().unwrap_or(false);
        let none = reader.option("log-format-escape-none").boolean().unwrap_or(false);
        let escape = match (json, none) {
            (true, _) => Escape::Json,
            (false, true) => Escape::None,
            (false, false) => Escape::Default,
        };
        let skip = reader.option("skip-access-log-urls").list().unwrap_or_default();
        let skip = skip.into_iter().map(str::to_owned).collect();
        let format = reader.option("log-format-upstream").text().map(format_of);
        let format = match format.transpose() {
            Ok(format) => format,
            Err(reason) => {
                reader.complain("log-format-upstream", format!("{reason}; the default format holds"));
                None
            }
        };
        Self { format, escape, skip }
    }

    /// Fields of requests that the format names, for they must be kept until the request is told.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.format.iter().flat_map(Template::variables).filter_map(|variable| match variable {
            Variable::Header(name) => Some(&**name),
            Variable::Cookie(_) => Some("cookie"),
            _ => None,
        })
    }
}

fn format_of(text: &str) -> Result<Template, String> {
    let place = |name: &str| LogVariable::NAMED.iter().position(|(known, _)| *known == name);
    Template::parse_with(text, place).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use roadstead_model::ConfigMap;

    use super::*;
    use crate::{fixture, settings::Options};

    fn options(data: &[(&str, &str)]) -> (Options, Vec<String>) {
        let data: BTreeMap<_, _> = data.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let mut problems = Vec::new();
        let options = Options::read(Some(&ConfigMap { meta: fixture::meta("n/options"), data }), &mut problems);
        (options, problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn formats_are_read_with_the_variables_of_finished_requests() {
        let (options, problems) = options(&[
            ("log-format-upstream", "$remote_addr $status $upstream_addr $http_x_user $cookie_a"),
            ("log-format-escape-json", "true"),
            ("skip-access-log-urls", "/healthz, /ready"),
            ("disable-access-log", "true"),
        ]);
        assert_eq!(problems, [""; 0]);
        assert_eq!(options.log.fields().collect::<Vec<_>>(), ["x-user", "cookie"]);
        assert_eq!((options.log.escape, options.log.skip.len()), (Escape::Json, 2));
        let places = options.log.format.unwrap();
        let places = places.variables().filter_map(|variable| match variable {
            Variable::Set(place) => LogVariable::at(*place),
            _ => None,
        });
        assert_eq!(places.collect::<Vec<_>>(), [LogVariable::Status, LogVariable::UpstreamAddr]);
        assert!(!options.defaults.logging.access);
    }

    #[test]
    fn a_format_that_asks_for_the_unknown_is_told() {
        let (options, problems) = options(&[("log-format-upstream", "$status $geoip_city")]);
        assert_eq!(options.log.format, None);
        let expected = "warning: ConfigMap n/options: data[log-format-upstream]: knows no variable $geoip_city; the default format holds";
        assert_eq!(problems, [expected]);
    }
}
