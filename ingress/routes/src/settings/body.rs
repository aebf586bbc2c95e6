//! How large a request's body may be, and how much of it is read before an endpoint is chosen.

use super::Reader;

/// What holds for the bodies of requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    /// `proxy-body-size`: the most bytes; `None` is no limit.
    pub limit: Option<u64>,
    /// `proxy-request-buffering`: whether the body, as far as it fits the buffer, is read before an endpoint is chosen.
    pub buffering: Buffering,
    /// `client-body-buffer-size`: how many bytes that is. A larger body streams behind it; nothing is written to files.
    pub buffer: u64,
}

/// `proxy-request-buffering`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Buffering {
    /// A slow upload holds no endpoint until it fills the buffer, and a request that fits it can be sent again.
    On,
    /// The endpoint gets each piece as it comes.
    Off,
}

/// The largest buffer that is kept for one request, whatever is asked for.
const MAX_BUFFER: u64 = 1 << 20;

impl Default for Body {
    /// ingress-nginx's values.
    fn default() -> Self {
        Self { limit: Some(1 << 20), buffering: Buffering::On, buffer: 8 << 10 }
    }
}

impl Body {
    pub(super) fn read(reader: &mut Reader<'_>, base: &Self) -> Self {
        let limit = match reader.either("proxy-body-size").size() {
            None => base.limit,
            Some(0) => None,
            limit => limit,
        };
        let words = [("on", Buffering::On), ("off", Buffering::Off)];
        let buffering = reader.either("proxy-request-buffering").word(&words).unwrap_or(base.buffering);
        let mut buffer = reader.either("client-body-buffer-size").size().unwrap_or(base.buffer);
        if buffer > MAX_BUFFER {
            reader.complain("client-body-buffer-size", "is more than 1m, which is kept in memory at most; 1m holds");
            buffer = MAX_BUFFER;
        }
        Self { limit, buffering, buffer }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::fixture;

    fn check(values: &[(&str, &str)], expected: impl FnOnce(&mut Body), reported: &[&str]) {
        let mut body = Body::default();
        expected(&mut body);
        fixture::check(values, |reader| Body::read(reader, &Body::default()), &body, reported);
    }

    #[test]
    fn sizes_and_words() {
        check(&[], |_| {}, &[]);
        check(&[("proxy-body-size", "8m")], |read| read.limit = Some(8 << 20), &[]);
        check(&[("proxy-body-size", "0")], |read| read.limit = None, &[]);
        check(&[("proxy-body-size", "8mb")], |_| {}, &["proxy-body-size"]);
        check(&[("proxy-request-buffering", "off")], |read| read.buffering = Buffering::Off, &[]);
        check(&[("proxy-request-buffering", "no")], |_| {}, &["proxy-request-buffering"]);
        check(&[("client-body-buffer-size", "64k")], |read| read.buffer = 64 << 10, &[]);
        check(&[("client-body-buffer-size", "1g")], |read| read.buffer = 1 << 20, &["client-body-buffer-size"]);
        check(&[("client-body-buffer-size", "k")], |_| {}, &["client-body-buffer-size"]);
    }
}
