//! What conversion finds in one object: collected field by field, so that one reading tells all that is wrong with it.

use std::{fmt::Display, net::IpAddr};

use ipnet::IpNet;
use roadstead_model::{Labels, Port, Protocol, Severity};

use crate::names;

/// One finding about one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) severity: Severity,
    /// The field's path, such as `spec.ports[0].port`.
    pub(crate) field: String,
    pub(crate) reason: String,
}

/// The findings about one object. Reading functions return `None` after they have noted an error.
#[derive(Debug, Default)]
pub(crate) struct Findings(pub(crate) Vec<Finding>);

impl Findings {
    pub(crate) fn error(&mut self, field: impl Display, reason: impl Into<String>) {
        self.0.push(Finding { severity: Severity::Error, field: field.to_string(), reason: reason.into() });
    }

    pub(crate) fn warn(&mut self, field: impl Display, reason: impl Into<String>) {
        self.0.push(Finding { severity: Severity::Warning, field: field.to_string(), reason: reason.into() });
    }

    pub(crate) fn has_errors(&self) -> bool {
        self.0.iter().any(|finding| finding.severity == Severity::Error)
    }

    /// Notes an error unless the text has the form.
    pub(crate) fn form(&mut self, field: impl Display, text: &str, accepts: fn(&str) -> bool, form: &str) -> bool {
        let good = accepts(text);
        if !good {
            self.error(field, format!("{text:?} {form}"));
        }
        good
    }

    pub(crate) fn label(&mut self, field: impl Display, text: &str) -> bool {
        self.form(field, text, names::is_label, names::LABEL)
    }

    pub(crate) fn subdomain(&mut self, field: impl Display, text: &str) -> bool {
        self.form(field, text, names::is_subdomain, names::SUBDOMAIN)
    }

    pub(crate) fn labels(&mut self, field: impl Display, labels: &Labels) {
        for (key, value) in labels {
            if self.form(format_args!("{field}[{key}]"), key, names::is_qualified, names::QUALIFIED) {
                self.form(format_args!("{field}[{key}]"), value, names::is_label_value, names::LABEL_VALUE);
            }
        }
    }

    pub(crate) fn port(&mut self, field: impl Display, number: i32) -> Option<Port> {
        let port = u16::try_from(number).ok().and_then(Port::new);
        if port.is_none() {
            self.error(field, format!("{number} is no port, expected 1 to 65535"));
        }
        port
    }

    pub(crate) fn protocol(&mut self, field: impl Display, text: Option<&str>) -> Option<Protocol> {
        match text.unwrap_or("TCP").parse() {
            Ok(protocol) => Some(protocol),
            Err(error) => {
                self.error(field, error.to_string());
                None
            }
        }
    }

    pub(crate) fn ip(&mut self, field: impl Display, text: &str) -> Option<IpAddr> {
        match text.parse::<IpAddr>() {
            Ok(IpAddr::V6(ip)) if ip.to_ipv4_mapped().is_some() => {
                self.error(field, format!("{text:?} is an IPv4 address in IPv6 form, write it as IPv4"));
                None
            }
            Ok(ip) => Some(ip),
            Err(_) => {
                self.error(field, format!("{text:?} is no IP address"));
                None
            }
        }
    }

    /// An address that a machine elsewhere can have: as the API server, not unspecified, loopback or link-local.
    pub(crate) fn routable_ip(&mut self, field: impl Display, text: &str) -> Option<IpAddr> {
        let ip = self.ip(&field, text)?;
        let what = match ip {
            ip if ip.is_unspecified() => "unspecified",
            ip if ip.is_loopback() => "a loopback address",
            ip if ip.is_multicast() => "a multicast address",
            IpAddr::V4(ip) if ip.is_link_local() => "a link-local address",
            IpAddr::V6(ip) if ip.is_unicast_link_local() => "a link-local address",
            _ => return Some(ip),
        };
        self.error(field, format!("{text} is {what}"));
        None
    }

    /// A CIDR; host bits are cut off as the API server's consumers do.
    pub(crate) fn cidr(&mut self, field: impl Display, text: &str) -> Option<IpNet> {
        match text.trim().parse::<IpNet>() {
            Ok(net) => Some(net.trunc()),
            Err(_) => {
                self.error(field, format!("{text:?} is no CIDR such as 192.0.2.0/24"));
                None
            }
        }
    }

    /// One of a few words.
    pub(crate) fn word<T: Copy>(&mut self, field: impl Display, text: &str, words: &[(&str, T)]) -> Option<T> {
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let expected: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            self.error(field, format!("{text:?} is not known, expected {}", expected.join(" or ")));
        }
        found
    }
}
