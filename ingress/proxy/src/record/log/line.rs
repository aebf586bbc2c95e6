//! A line of the access log: ingress-nginx's default, JSON, or a format of the operator's own.

use std::{
    io::Write,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use clap::ValueEnum;
use http::HeaderValue;
use roadstead_model::BackendPort;
use roadstead_routes::{Escape, LogOptions};

use super::{
    super::Record,
    clock::Moment,
    format::{Told, trace_id},
};
use crate::upstream::Step;

/// `--access-log-format`; a format of the ConfigMap goes before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LineStyle {
    /// ingress-nginx's default format, so that what reads its logs goes on.
    #[default]
    Nginx,
    /// One JSON object a line.
    Json,
}

/// Appends the line of a request that is over.
pub(super) fn render(out: &mut Vec<u8>, record: &Record, style: LineStyle, options: &LogOptions) {
    let now = Moment::now();
    match (&options.format, style) {
        (Some(format), _) => {
            let told = Told { record, now, escape: options.escape };
            out.extend(format.render(&told));
        }
        (None, LineStyle::Nginx) => nginx(out, record, now),
        (None, LineStyle::Json) => json(out, record, now),
    }
    out.push(b'\n');
}

/// `upstreaminfo` of <https://kubernetes.github.io/ingress-nginx/user-guide/nginx-configuration/log-format/>.
fn nginx(out: &mut Vec<u8>, record: &Record, now: Moment) {
    // Numbers and addresses are written by hand: the machinery behind `write!` took longer than all else here.
    address(out, record.peer);
    out.extend_from_slice(b" - ");
    or_dash(out, record.user.as_deref().map(str::as_bytes));
    out.extend_from_slice(b" [");
    now.local(out);
    out.extend_from_slice(b"] \"");
    request_line(out, record, Escape::Default);
    out.extend_from_slice(b"\" ");
    number(out, record.told_status().into());
    out.push(b' ');
    number(out, record.sent);
    out.extend_from_slice(b" \"");
    or_dash(out, record.fields.referer.as_ref().map(HeaderValue::as_bytes));
    out.extend_from_slice(b"\" \"");
    or_dash(out, record.fields.user_agent.as_ref().map(HeaderValue::as_bytes));
    out.extend_from_slice(b"\" ");
    number(out, record.request_bytes());
    out.push(b' ');
    seconds(out, record.elapsed());
    out.extend_from_slice(b" [");
    upstream_name(out, record);
    out.extend_from_slice(b"] [] ");
    each_step(out, record, |out, step| endpoint(out, step.endpoint));
    out.push(b' ');
    each_step(out, record, |out, step| response_length(out, record, step));
    out.push(b' ');
    each_step(out, record, |out, step| seconds_or_dash(out, step.whole));
    out.push(b' ');
    each_step(out, record, upstream_status);
    out.push(b' ');
    or_dash(out, record.fields.request_id.as_ref().map(HeaderValue::as_bytes));
}

/// Names are nginx's variables; numbers are numbers.
fn json(out: &mut Vec<u8>, record: &Record, now: Moment) {
    let mut first = true;
    let mut text = |out: &mut Vec<u8>, name: &str, write: &dyn Fn(&mut Vec<u8>)| {
        out.extend_from_slice(if std::mem::take(&mut first) { b"{\"" } else { b",\"" });
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":\"");
        write(out);
        out.push(b'"');
    };
    let field = |value: Option<&HeaderValue>| value.map(HeaderValue::as_bytes).unwrap_or_default().to_vec();
    text(out, "time", &|out| now.iso8601(out));
    text(out, "remote_addr", &|out| drop(write!(out, "{}", record.peer)));
    text(out, "remote_user", &|out| escape(out, record.user.as_deref().unwrap_or_default().as_bytes(), Escape::Json));
    text(out, "method", &|out| escape(out, record.method.as_str().as_bytes(), Escape::Json));
    text(out, "host", &|out| escape(out, &field(record.fields.host.as_ref()), Escape::Json));
    text(out, "uri", &|out| escape(out, record.target().as_bytes(), Escape::Json));
    text(out, "protocol", &|out| out.extend_from_slice(protocol(record).as_bytes()));
    text(out, "referer", &|out| escape(out, &field(record.fields.referer.as_ref()), Escape::Json));
    text(out, "user_agent", &|out| escape(out, &field(record.fields.user_agent.as_ref()), Escape::Json));
    text(out, "request_id", &|out| escape(out, &field(record.fields.request_id.as_ref()), Escape::Json));
    text(out, "trace_id", &|out| escape(out, trace_id(record).as_bytes(), Escape::Json));
    let taken = record.taken.as_ref();
    let ingress = |out: &mut Vec<u8>| drop(taken.map(|taken| write!(out, "{}", taken.route.ingress)));
    text(out, "ingress", &ingress);
    text(out, "upstream", &|out| upstream_name_or(out, record, b""));
    text(out, "upstream_addr", &|out| {
        each_step_or(out, record, b"", |out, step| drop(write!(out, "{}", step.endpoint)));
    });
    text(out, "upstream_status", &|out| each_step_or(out, record, b"", upstream_status));
    let _ = write!(
        out,
        ",\"status\":{},\"body_bytes_sent\":{},\"bytes_sent\":{},\"request_length\":{},\"request_time\":",
        record.told_status(),
        record.sent,
        record.answer_head_bytes + record.sent,
        record.request_bytes()
    );
    seconds(out, record.elapsed());
    for (name, time) in [
        ("upstream_connect_time", record.trail.last().and_then(|step| step.connected)),
        ("upstream_header_time", record.trail.last().and_then(|step| step.head)),
        ("upstream_response_time", record.trail.last().and_then(|step| step.whole)),
    ] {
        if let Some(time) = time {
            let _ = write!(out, ",\"{name}\":");
            seconds(out, time);
        }
    }
    out.push(b'}');
}

pub(super) fn request_line(out: &mut Vec<u8>, record: &Record, escape: Escape) {
    self::escape(out, record.method.as_str().as_bytes(), escape);
    out.push(b' ');
    self::escape(out, record.target().as_bytes(), escape);
    out.push(b' ');
    out.extend_from_slice(protocol(record).as_bytes());
}

pub(super) fn protocol(record: &Record) -> &'static str {
    match record.version {
        http::Version::HTTP_10 => "HTTP/1.0",
        http::Version::HTTP_2 => "HTTP/2.0",
        _ => "HTTP/1.1",
    }
}

/// `namespace-service-port`, as ingress-nginx names its upstreams; empty where no route took the request.
pub(super) fn upstream_name(out: &mut Vec<u8>, record: &Record) {
    upstream_name_or(out, record, b"");
}

fn upstream_name_or(out: &mut Vec<u8>, record: &Record, none: &[u8]) {
    let Some(taken) = &record.taken else { return out.extend_from_slice(none) };
    if let Some(backend) = taken.generation.table.backend(taken.backend) {
        for part in [&*backend.service.namespace, "-", &*backend.service.name, "-"] {
            out.extend_from_slice(part.as_bytes());
        }
        match &backend.port {
            BackendPort::Number(port) => number(out, port.get().into()),
            BackendPort::Name(name) => out.extend_from_slice(name.as_bytes()),
        }
    }
}

pub(super) fn upstream_status(out: &mut Vec<u8>, step: &Step) {
    match step.status {
        Some(status) => out.extend_from_slice(status.as_str().as_bytes()),
        None => out.push(b'-'),
    }
}

/// An attempt that came to nothing has sent nothing; the last one sent what the client got.
pub(super) fn response_length(out: &mut Vec<u8>, record: &Record, step: &Step) {
    let is_last = record.trail.last().is_some_and(|last| last.began == step.began);
    let length = if is_last && step.status.is_some() { record.sent } else { 0 };
    number(out, length);
}

/// Something of every attempt, with commas; a dash where there was none.
pub(super) fn each_step(out: &mut Vec<u8>, record: &Record, write: impl Fn(&mut Vec<u8>, &Step)) {
    each_step_or(out, record, b"-", write);
}

fn each_step_or(out: &mut Vec<u8>, record: &Record, none: &[u8], write: impl Fn(&mut Vec<u8>, &Step)) {
    let mut steps = record.trail.steps().peekable();
    if steps.peek().is_none() {
        out.extend_from_slice(none);
    }
    while let Some(step) = steps.next() {
        write(out, step);
        if steps.peek().is_some() {
            out.extend_from_slice(b", ");
        }
    }
}

pub(super) fn seconds_or_dash(out: &mut Vec<u8>, time: Option<Duration>) {
    match time {
        Some(time) => seconds(out, time),
        None => out.push(b'-'),
    }
}

/// Seconds with three decimals.
pub(super) fn seconds(out: &mut Vec<u8>, time: Duration) {
    number(out, time.as_secs());
    let millis = time.subsec_millis();
    out.push(b'.');
    out.extend([millis / 100, millis / 10 % 10, millis % 10].map(digit));
}

/// A number in decimal.
pub(super) fn number(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [b'0'; 20];
    let mut length = 0;
    for place in digits.iter_mut().rev() {
        *place = digit(u32::try_from(number % 10).unwrap_or(0));
        number /= 10;
        length += 1;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(20 - length..).unwrap_or_default());
}

fn digit(value: u32) -> u8 {
    b'0' + u8::try_from(value % 10).unwrap_or(0)
}

fn address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => {
            for (place, part) in address.octets().into_iter().enumerate() {
                if place > 0 {
                    out.push(b'.');
                }
                number(out, part.into());
            }
        }
        // Writing to a vector cannot fail.
        IpAddr::V6(address) => drop(write!(out, "{address}")),
    }
}

fn endpoint(out: &mut Vec<u8>, endpoint: SocketAddr) {
    match endpoint {
        SocketAddr::V4(endpoint) => {
            address(out, (*endpoint.ip()).into());
            out.push(b':');
            number(out, endpoint.port().into());
        }
        SocketAddr::V6(endpoint) => drop(write!(out, "{endpoint}")),
    }
}

fn or_dash(out: &mut Vec<u8>, value: Option<&[u8]>) {
    match value.filter(|value| !value.is_empty()) {
        Some(value) => escape(out, value, Escape::Default),
        None => out.push(b'-'),
    }
}

/// Appends a value so that it ends neither its field nor the line, whatever a client put into it.
pub(super) fn escape(out: &mut Vec<u8>, value: &[u8], escape: Escape) {
    match escape {
        Escape::Default => {
            // Hardly any value holds such a byte.
            if value.iter().all(|byte| matches!(byte, 0x20..0x7f) && !matches!(byte, b'"' | b'\\')) {
                return out.extend_from_slice(value);
            }
            for byte in value {
                match byte {
                    b'"' | b'\\' | 0..0x20 | 0x7f.. => drop(write!(out, "\\x{byte:02X}")),
                    _ => out.push(*byte),
                }
            }
        }
        Escape::Json => {
            for piece in String::from_utf8_lossy(value).chars() {
                match piece {
                    '"' | '\\' => {
                        out.push(b'\\');
                        out.push(u8::try_from(piece).unwrap_or(b'?'));
                    }
                    '\0'..' ' | '\u{7f}' => drop(write!(out, "\\u{:04X}", u32::from(piece))),
                    _ => out.extend_from_slice(piece.encode_utf8(&mut [0; 4]).as_bytes()),
                }
            }
        }
        Escape::None => out.extend(value.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(value: &[u8], mode: Escape, expected: &str) {
        let mut out = Vec::new();
        escape(&mut out, value, mode);
        assert_eq!(String::from_utf8_lossy(&out), expected, "{value:?} {mode:?}");
    }

    #[test]
    fn numbers_and_addresses_are_written_as_elsewhere() {
        let written = |write: &dyn Fn(&mut Vec<u8>)| {
            let mut out = Vec::new();
            write(&mut out);
            String::from_utf8(out).unwrap()
        };
        for value in [0, 7, 10, 200, 65_535, u64::MAX] {
            assert_eq!(written(&|out| number(out, value)), value.to_string());
        }
        for text in ["192.0.2.7", "0.0.0.0", "255.255.255.255", "2001:db8::1"] {
            assert_eq!(written(&|out| address(out, text.parse().unwrap())), text);
        }
        for text in ["192.0.2.7:80", "[2001:db8::1]:65535"] {
            assert_eq!(written(&|out| endpoint(out, text.parse().unwrap())), text);
        }
        for (micros, expected) in [(0, "0.000"), (1_999, "0.001"), (61_020_000, "61.020")] {
            assert_eq!(written(&|out| seconds(out, Duration::from_micros(micros))), expected);
        }
    }

    #[test]
    fn nothing_that_a_client_sends_ends_a_field_or_a_line() {
        let hostile = b"a\"b\\c\r\nd\x01\xc3\xa9";
        check(hostile, Escape::Default, "a\\x22b\\x5Cc\\x0D\\x0Ad\\x01\\xC3\\xA9");
        check(hostile, Escape::Json, "a\\\"b\\\\c\\u000D\\u000Ad\\u0001\u{e9}");
        check(hostile, Escape::None, "a\"b\\c  d\x01\u{e9}");
        let mut out = b"{\"x\":\"".to_vec();
        escape(&mut out, &(0..=255).collect::<Vec<u8>>(), Escape::Json);
        out.extend_from_slice(b"\"}");
        assert!(serde_json::from_slice::<serde_json::Value>(&out).is_ok());
    }
}
