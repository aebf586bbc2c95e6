//! How requests travel to endpoints: protocol, times, and the size of an answer's head.

use std::time::Duration;

use super::{Reader, units};

/// How the requests of an Ingress reach its endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transport {
    /// `backend-protocol`; without it the Service's `appProtocol` decides.
    pub protocol: Option<Protocol>,
    /// `proxy-http-version`, for the protocols that are HTTP/1.
    pub version: Version,
    /// `proxy-connect-timeout`: how long an endpoint has to accept a connection.
    pub connect_timeout: Duration,
    /// `proxy-read-timeout`: how long an endpoint may send nothing while something is due from it.
    pub read_timeout: Duration,
    /// `proxy-send-timeout`: how long an endpoint may take nothing of a request.
    pub send_timeout: Duration,
    /// `proxy-buffer-size`: the most bytes of an answer's head; `None` leaves it to the proxy's own limit.
    pub head_limit: Option<u64>,
    /// `proxy-buffering`: how much of an answer is read ahead of the client.
    pub read_ahead: ReadAhead,
}

/// What endpoints speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1 in the clear.
    Http,
    /// HTTP/1 over TLS.
    Https,
    /// HTTP/2 in the clear, known beforehand (RFC 9113, section 3.3).
    Grpc,
    /// HTTP/2 over TLS.
    Grpcs,
    /// As the client came: over TLS or in the clear.
    AutoHttp,
    /// FastCGI, which is not served: requests get 503.
    FastCgi,
}

/// The version of HTTP/1 that endpoints are asked in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// 1.0: a connection for each request, no chunked coding.
    Http10,
    /// 1.1.
    #[default]
    Http11,
}

/// How far an answer is read before the client takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadAhead {
    /// `proxy-buffering: "on"`.
    pub enabled: bool,
    /// `proxy-buffers-number`.
    pub buffers: u32,
}

const PROTOCOLS: [(&str, Protocol); 6] = [
    ("HTTP", Protocol::Http),
    ("HTTPS", Protocol::Https),
    ("GRPC", Protocol::Grpc),
    ("GRPCS", Protocol::Grpcs),
    ("AUTO_HTTP", Protocol::AutoHttp),
    ("FCGI", Protocol::FastCgi),
];

/// nginx takes 4k or 8k, a page of memory, for each buffer.
const BUFFER_SIZE: u64 = 4 * 1024;

impl Default for Transport {
    /// ingress-nginx's values.
    fn default() -> Self {
        Self {
            protocol: None,
            version: Version::Http11,
            connect_timeout: Duration::from_secs(5),
            read_timeout: Duration::from_secs(60),
            send_timeout: Duration::from_secs(60),
            head_limit: None,
            read_ahead: ReadAhead { enabled: false, buffers: 4 },
        }
    }
}

impl Transport {
    pub(super) fn read(reader: &mut Reader<'_>, base: &Self) -> Self {
        let protocol = reader.annotation("backend-protocol").word(&PROTOCOLS);
        if protocol == Some(Protocol::FastCgi) {
            reader.complain("backend-protocol", "FCGI is not served; requests get 503");
        }
        let version = [("1.0", Version::Http10), ("1.1", Version::Http11)];
        let on_or_off = [("on", true), ("off", false)];
        let read = Self {
            protocol: protocol.or(base.protocol),
            version: reader.either("proxy-http-version").word(&version).unwrap_or(base.version),
            connect_timeout: time(reader, "proxy-connect-timeout").unwrap_or(base.connect_timeout),
            read_timeout: time(reader, "proxy-read-timeout").unwrap_or(base.read_timeout),
            send_timeout: time(reader, "proxy-send-timeout").unwrap_or(base.send_timeout),
            head_limit: size(reader, "proxy-buffer-size").or(base.head_limit),
            read_ahead: ReadAhead {
                enabled: reader.either("proxy-buffering").word(&on_or_off).unwrap_or(base.read_ahead.enabled),
                buffers: reader.either("proxy-buffers-number").number(1).unwrap_or(base.read_ahead.buffers),
            },
        };
        if reader.either("proxy-max-temp-file-size").size().is_some_and(|size| size > 0) {
            reader.complain("proxy-max-temp-file-size", "has no effect: answers are never written to files");
        }
        read
    }

    /// The bytes of an answer that are read ahead of the client; 0: each piece is handed on as it comes.
    #[must_use]
    pub fn read_ahead_bytes(&self) -> u64 {
        if !self.read_ahead.enabled {
            return 0;
        }
        u64::from(self.read_ahead.buffers).saturating_mul(self.head_limit.unwrap_or(BUFFER_SIZE))
    }
}

/// A time during which something must happen: none at all is no time.
pub(super) fn time(reader: &mut Reader<'_>, key: &'static str) -> Option<Duration> {
    let read = |text| units::duration(text).filter(|time| !time.is_zero());
    reader.either(key).parse("a time of more than 0 such as 60 or 60s", read)
}

fn size(reader: &mut Reader<'_>, key: &'static str) -> Option<u64> {
    reader.either(key).parse("a size of more than 0 such as 8k", |text| units::size(text).filter(|size| *size > 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::fixture;

    fn check(values: &[(&str, &str)], expected: impl FnOnce(&mut Transport), reported: &[&str]) {
        let mut transport = Transport::default();
        expected(&mut transport);
        fixture::check(values, |reader| Transport::read(reader, &Transport::default()), &transport, reported);
    }

    #[test]
    fn protocols_are_known_or_reported() {
        for (word, protocol) in PROTOCOLS {
            let reported: &[&str] = if protocol == Protocol::FastCgi { &["backend-protocol"] } else { &[] };
            check(&[("backend-protocol", word)], |read| read.protocol = Some(protocol), reported);
        }
        check(&[("backend-protocol", "grpc")], |read| read.protocol = Some(Protocol::Grpc), &[]);
        check(&[("backend-protocol", "AJP")], |_| {}, &["backend-protocol"]);
    }

    #[test]
    fn times_sizes_and_words() {
        check(&[("proxy-read-timeout", "3600")], |read| read.read_timeout = Duration::from_secs(3600), &[]);
        check(&[("proxy-send-timeout", "10s")], |read| read.send_timeout = Duration::from_secs(10), &[]);
        check(&[("proxy-connect-timeout", "500ms")], |read| read.connect_timeout = Duration::from_millis(500), &[]);
        for key in ["proxy-read-timeout", "proxy-send-timeout", "proxy-connect-timeout"] {
            for value in ["0", "-1", "soon"] {
                check(&[(key, value)], |_| {}, &[key]);
            }
        }
        check(&[("proxy-http-version", "1.0")], |read| read.version = Version::Http10, &[]);
        check(&[("proxy-http-version", "2")], |_| {}, &["proxy-http-version"]);
        check(&[("proxy-buffer-size", "16k")], |read| read.head_limit = Some(16 << 10), &[]);
        check(&[("proxy-buffer-size", "0")], |_| {}, &["proxy-buffer-size"]);
        check(&[("proxy-buffering", "on")], |read| read.read_ahead.enabled = true, &[]);
        check(&[("proxy-buffering", "true")], |_| {}, &["proxy-buffering"]);
        check(&[("proxy-buffers-number", "8")], |read| read.read_ahead.buffers = 8, &[]);
        check(&[("proxy-buffers-number", "0")], |_| {}, &["proxy-buffers-number"]);
        check(&[("proxy-max-temp-file-size", "0")], |_| {}, &[]);
        check(&[("proxy-max-temp-file-size", "1024m")], |_| {}, &["proxy-max-temp-file-size"]);
        check(&[("proxy-max-temp-file-size", "much")], |_| {}, &["proxy-max-temp-file-size"]);
    }

    #[test]
    fn reading_ahead_is_a_number_of_buffers() {
        let on = |buffers, head_limit| {
            let read_ahead = ReadAhead { enabled: true, buffers };
            Transport { head_limit, read_ahead, ..Transport::default() }.read_ahead_bytes()
        };
        assert_eq!(Transport::default().read_ahead_bytes(), 0);
        assert_eq!((on(4, None), on(8, Some(16 << 10))), (16 << 10, 128 << 10));
    }
}
