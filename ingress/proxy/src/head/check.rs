//! Judging one HTTP/1 head (RFC 9112): what is ambiguous is refused, and how long the body is gets said once.

use std::str;

use super::MAX_HEADERS;
use crate::fields::is_websocket;

/// Why a request is answered without being looked at further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The answer's status.
    pub status: u16,
    /// For the log at debug level.
    pub reason: &'static str,
}

impl Refusal {
    pub(super) const fn new(status: u16, reason: &'static str) -> Self {
        Self { status, reason }
    }
}

const fn bad(reason: &'static str) -> Refusal {
    Refusal::new(400, reason)
}

/// What follows a head on the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Framing {
    /// The body.
    pub length: Length,
    /// The request may turn the stream into WebSocket, the only protocol that is let through.
    pub upgrade: bool,
}

/// How a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// After this many bytes; none is 0.
    Bytes(u64),
    /// By its own grammar.
    Chunked,
}

/// Where the head that `bytes` begin with ends, just behind its empty line; `None` while it is incomplete. The first `seen`
/// bytes have been searched before.
///
/// # Errors
/// A line feed without a carriage return: some parsers end lines there, others do not.
pub fn end_of_head(bytes: &[u8], seen: usize) -> Result<Option<usize>, Refusal> {
    let mut from = seen;
    while let Some(offset) = bytes.get(from..).and_then(|rest| rest.iter().position(|byte| *byte == b'\n')) {
        let end = from + offset + 1;
        let line_end = bytes.get(..end).unwrap_or_default();
        if !line_end.ends_with(b"\r\n") {
            return Err(bad("bare line feed"));
        }
        if line_end.ends_with(b"\r\n\r\n") {
            return Ok(Some(end));
        }
        from = end;
    }
    Ok(None)
}

/// Judges a complete head, the empty line included. Its size is the guard's matter.
///
/// # Errors
/// The status to answer with, and why.
pub fn check_head(head: &[u8]) -> Result<Framing, Refusal> {
    let lines = head.strip_suffix(b"\r\n\r\n").ok_or(bad("head has no end"))?;
    let mut lines = Lines { rest: Some(lines) };
    let request = RequestLine::parse(lines.next().ok_or(bad("no request line"))??)?;
    let mut fields = Fields::default();
    let mut count = 0;
    for line in lines {
        count += 1;
        if count > MAX_HEADERS {
            return Err(Refusal::new(431, "too many header fields"));
        }
        fields.read(line?)?;
    }
    fields.judge(&request)
}

/// Lines between CRLF pairs; a carriage return or line feed anywhere else is an error.
struct Lines<'a> {
    rest: Option<&'a [u8]>,
}

impl<'a> Iterator for Lines<'a> {
    type Item = Result<&'a [u8], Refusal>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.rest?;
        let Some(end) = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
            self.rest = None;
            return Some(Ok(rest));
        };
        let (line, after) = rest.split_at(end);
        self.rest = after.strip_prefix(b"\r\n");
        Some(if self.rest.is_some() { Ok(line) } else { Err(bad("carriage return or line feed alone")) })
    }
}

/// The first line, as far as judging needs it.
struct RequestLine<'a> {
    /// HTTP/1.1, not 1.0.
    is_1_1: bool,
    /// The authority of an absolute-form target (RFC 9112, section 3.2.2).
    authority: Option<&'a [u8]>,
}

impl<'a> RequestLine<'a> {
    fn parse(line: &'a [u8]) -> Result<Self, Refusal> {
        let mut words = line.split(|byte| *byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(bad("request line is not three words"));
        };
        if method.is_empty() || !method.iter().all(|byte| is_token(*byte)) {
            return Err(bad("method is no token"));
        }
        if matches!(method, b"CONNECT" | b"TRACE") {
            return Err(Refusal::new(405, "method is not for a reverse proxy"));
        }
        let is_1_1 = match version {
            b"HTTP/1.1" => true,
            b"HTTP/1.0" => false,
            _ => return Err(Refusal::new(505, "version is neither 1.0 nor 1.1")),
        };
        Ok(Self { is_1_1, authority: authority_of(target, method)? })
    }
}

fn authority_of<'a>(target: &'a [u8], method: &[u8]) -> Result<Option<&'a [u8]>, Refusal> {
    if !target.iter().all(|byte| is_target_byte(*byte)) {
        return Err(bad("target holds a forbidden character"));
    }
    // What hyper would answer with a bare 400 of its own; browsers leave a backtick raw in a query, never in a path.
    if str::from_utf8(target).is_err() {
        return Err(bad("target is no UTF-8"));
    }
    if target.iter().take_while(|byte| **byte != b'?').any(|byte| *byte == b'`') {
        return Err(bad("path holds a backtick"));
    }
    if target.first() == Some(&b'/') || (target == b"*" && method == b"OPTIONS") {
        return Ok(None);
    }
    for scheme in [b"http://".as_slice(), b"https://"] {
        if let Some((start, rest)) = target.split_at_checked(scheme.len())
            && start.eq_ignore_ascii_case(scheme)
        {
            return Ok(rest.split(|byte| matches!(byte, b'/' | b'?')).next());
        }
    }
    Err(bad("target is in none of the forms of a request"))
}

/// The fields that decide where a message ends and whom it is for.
#[derive(Default)]
struct Fields<'a> {
    host: Option<&'a [u8]>,
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
}

impl<'a> Fields<'a> {
    fn read(&mut self, line: &'a [u8]) -> Result<(), Refusal> {
        let colon = line.iter().position(|byte| *byte == b':').ok_or(bad("field without a colon"))?;
        let (name, value) = line.split_at(colon);
        if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) {
            return Err(bad("field name is no token"));
        }
        let value = trim_whitespace(value.get(1..).unwrap_or_default());
        if !value.iter().all(|byte| is_value_byte(*byte)) {
            return Err(bad("field value holds a control character"));
        }
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => self.read_host(value),
            7 if name.eq_ignore_ascii_case(b"upgrade") => {
                self.upgrade |= is_websocket(value);
                Ok(())
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => self.read_length(value),
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => self.read_coding(value),
            _ => Ok(()),
        }
    }

    fn read_host(&mut self, value: &'a [u8]) -> Result<(), Refusal> {
        if self.host.replace(value).is_some() {
            return Err(bad("more than one host"));
        }
        if is_authority(value) { Ok(()) } else { Err(bad("host is no host")) }
    }

    fn read_length(&mut self, value: &[u8]) -> Result<(), Refusal> {
        // Eighteen digits are an exabyte and fit a u64; a list such as "2, 2" fails here too.
        let digits = (1..=18).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
        let length = str::from_utf8(value).ok().filter(|_| digits).and_then(|text| text.parse().ok());
        let length = length.ok_or(bad("content-length is no number"))?;
        match self.length.replace(length) {
            None => Ok(()),
            Some(_) => Err(bad("more than one content-length")),
        }
    }

    fn read_coding(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if self.chunked {
            return Err(bad("more than one transfer-encoding"));
        }
        if !value.eq_ignore_ascii_case(b"chunked") {
            return Err(Refusal::new(501, "transfer-encoding is not chunked alone"));
        }
        self.chunked = true;
        Ok(())
    }

    fn judge(&self, request: &RequestLine<'_>) -> Result<Framing, Refusal> {
        if request.is_1_1 && self.host.is_none_or(<[u8]>::is_empty) {
            return Err(bad("no host"));
        }
        if let (Some(authority), Some(host)) = (request.authority, self.host)
            && !authority.eq_ignore_ascii_case(host)
        {
            return Err(bad("target and host name two hosts"));
        }
        if request.authority.is_some_and(|authority| !is_authority(authority)) {
            return Err(bad("authority of the target is no host"));
        }
        if self.chunked && (self.length.is_some() || !request.is_1_1) {
            return Err(bad("transfer-encoding beside content-length or in HTTP/1.0"));
        }
        let length = if self.chunked { Length::Chunked } else { Length::Bytes(self.length.unwrap_or(0)) };
        Ok(Framing { length, upgrade: self.upgrade && length == Length::Bytes(0) })
    }
}

/// A token's characters (RFC 9110, section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Visible characters but those that RFC 3986 keeps out of a URI and that parsers disagree about. UTF-8 is let through, as
/// every server does; browsers' older scripts send it.
fn is_target_byte(byte: u8) -> bool {
    byte > 0x20 && byte != 0x7f && !b"<>\"#".contains(&byte)
}

/// Optional whitespace is spaces and tabs (RFC 9110, section 5.6.3); a form feed, which Rust trims as well, is none.
fn trim_whitespace(value: &[u8]) -> &[u8] {
    let is_text = |byte: &u8| !matches!(byte, b' ' | b'\t');
    let start = value.iter().position(is_text).unwrap_or(value.len());
    let end = value.iter().rposition(is_text).map_or(start, |last| last + 1);
    value.get(start..end).unwrap_or_default()
}

fn is_value_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= 0x20 && byte != 0x7f)
}

/// `host[:port]`; an empty host is for HTTP/1.0 and refused elsewhere for 1.1.
pub(crate) fn is_authority(value: &[u8]) -> bool {
    let (host, port) = match value.iter().position(|byte| *byte == b']') {
        Some(end) => value.split_at(end + 1),
        None => value.split_at(value.iter().position(|byte| *byte == b':').unwrap_or(value.len())),
    };
    let host_ok = match host.strip_prefix(b"[").and_then(|host| host.strip_suffix(b"]")) {
        Some(inner) => str::from_utf8(inner).is_ok_and(|text| text.parse::<std::net::Ipv6Addr>().is_ok()),
        None => host.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(byte)),
    };
    let port_ok = match port.strip_prefix(b":") {
        None => port.is_empty(),
        Some(digits) => str::from_utf8(digits).is_ok_and(|text| {
            digits.iter().all(u8::is_ascii_digit) && (text.is_empty() || text.parse::<u16>().is_ok())
        }),
    };
    host_ok && port_ok
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
