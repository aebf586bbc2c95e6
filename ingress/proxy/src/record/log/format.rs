//! Answers of a finished request to a log format of the operator's own.

use std::{borrow::Cow, io::Write};

use roadstead_routes::{Escape, Facts, LogVariable, Variable, normalise, request_host};

use super::{
    super::Record,
    clock::Moment,
    line::{
        each_step, escape, protocol, request_line, response_length, seconds, seconds_or_dash, upstream_name,
        upstream_status,
    },
};
use crate::handler::{first_named, joined};

/// A finished request, to be asked by a template. What it does not have is a dash, and every value is escaped.
pub(super) struct Told<'a> {
    pub(super) record: &'a Record,
    pub(super) now: Moment,
    pub(super) escape: Escape,
}

impl Facts for Told<'_> {
    fn value(&self, variable: &Variable) -> Cow<'_, [u8]> {
        let mut out = Vec::new();
        match variable {
            Variable::Set(place) => drop(LogVariable::at(*place).map(|variable| self.finished(&mut out, variable))),
            other => escape(&mut out, &self.of_request(other), self.escape),
        }
        if out.is_empty() && self.escape != Escape::Json {
            out.push(b'-');
        }
        out.into()
    }
}

impl Told<'_> {
    fn finished(&self, out: &mut Vec<u8>, variable: LogVariable) {
        let record = self.record;
        match variable {
            LogVariable::RemoteUser => escape(out, record.user.as_deref().unwrap_or_default().as_bytes(), self.escape),
            LogVariable::TimeLocal => self.now.local(out),
            LogVariable::TimeIso8601 => self.now.iso8601(out),
            LogVariable::Msec => self.now.msec(out),
            LogVariable::Request => request_line(out, record, self.escape),
            LogVariable::Status => drop(write!(out, "{}", record.told_status())),
            LogVariable::BodyBytesSent => drop(write!(out, "{}", record.sent)),
            LogVariable::BytesSent => drop(write!(out, "{}", record.answer_head_bytes + record.sent)),
            LogVariable::RequestLength => drop(write!(out, "{}", record.request_bytes())),
            LogVariable::RequestTime => seconds(out, record.elapsed()),
            LogVariable::UpstreamName => upstream_name(out, record),
            LogVariable::AlternativeUpstreamName => {
                if record.taken.as_ref().is_some_and(|taken| taken.canary().is_some()) {
                    upstream_name(out, record);
                }
            }
            LogVariable::UpstreamAddr => each_step(out, record, |out, step| drop(write!(out, "{}", step.endpoint))),
            LogVariable::UpstreamResponseLength => {
                each_step(out, record, |out, step| response_length(out, record, step));
            }
            LogVariable::UpstreamResponseTime => each_step(out, record, |out, step| seconds_or_dash(out, step.whole)),
            LogVariable::UpstreamConnectTime => {
                each_step(out, record, |out, step| seconds_or_dash(out, step.connected));
            }
            LogVariable::UpstreamHeaderTime => each_step(out, record, |out, step| seconds_or_dash(out, step.head)),
            LogVariable::UpstreamStatus => each_step(out, record, upstream_status),
            LogVariable::TraceId => escape(out, trace_id(record).as_bytes(), self.escape),
        }
    }

    fn of_request(&self, variable: &Variable) -> Vec<u8> {
        let record = self.record;
        let authority = record.authority();
        let taken = record.taken.as_ref();
        let backend = || taken.and_then(|taken| taken.generation.table.backend(taken.backend));
        let query = record.uri.query().unwrap_or_default();
        match variable {
            Variable::Host => request_host(authority).as_bytes().to_vec(),
            Variable::Authority => authority.as_bytes().to_vec(),
            Variable::Scheme => record.scheme.as_str().into(),
            Variable::RequestUri | Variable::EscapedRequestUri => record.target().into(),
            Variable::Path => normalise(record.uri.path()).unwrap_or(Cow::Borrowed(b"/")).into_owned(),
            Variable::Query => query.into(),
            Variable::QuestionMark => if query.is_empty() { "" } else { "?" }.into(),
            Variable::Argument(name) => first_named(query.as_bytes().split(|byte| *byte == b'&'), name).to_vec(),
            Variable::Cookie(name) => {
                let all = joined(&record.fields.kept, "cookie");
                first_named(all.split(|byte| *byte == b';').map(<[u8]>::trim_ascii), name).to_vec()
            }
            Variable::Header(name) => joined(&record.fields.kept, name).into_owned(),
            Variable::RemoteAddr | Variable::ForwardedFor => record.peer.to_string().into(),
            Variable::Method => record.method.as_str().into(),
            Variable::ServerPort => record.port.to_string().into(),
            Variable::Protocol => protocol(record).into(),
            Variable::ServerName => {
                taken.and_then(|taken| taken.route.host.as_ref()).map_or("_".to_owned(), ToString::to_string).into()
            }
            Variable::RequestId => {
                record.fields.request_id.as_ref().map(|id| id.as_bytes().to_vec()).unwrap_or_default()
            }
            Variable::Namespace => {
                taken.map(|taken| taken.route.ingress.namespace.as_bytes().to_vec()).unwrap_or_default()
            }
            Variable::IngressName => {
                taken.map(|taken| taken.route.ingress.name.as_bytes().to_vec()).unwrap_or_default()
            }
            Variable::ServiceName => {
                backend().map(|backend| backend.service.name.as_bytes().to_vec()).unwrap_or_default()
            }
            Variable::ServicePort => backend().map(|backend| backend.port.to_string()).unwrap_or_default().into(),
            Variable::LocationPath => {
                let path = taken.and_then(|taken| taken.route.path.as_ref());
                path.map_or("/", |(_, path)| path).into()
            }
            Variable::Capture(_) | Variable::Set(_) => Vec::new(),
        }
    }
}

/// The second part of a `traceparent` (W3C Trace Context, section 3.2); empty where it is none.
pub(super) fn trace_id(record: &Record) -> &str {
    let value = record.fields.traceparent.as_ref().and_then(|value| value.to_str().ok());
    value.and_then(|value| value.split('-').nth(1)).filter(|id| id.len() == 32).unwrap_or_default()
}
