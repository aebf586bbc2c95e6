//! When a request goes to the next endpoint, and how often: nginx's `proxy_next_upstream`
//! (<https://nginx.org/en/docs/http/ngx_http_proxy_module.html#proxy_next_upstream>).

use std::time::Duration;

use super::Reader;

/// ingress-nginx's proxy-next-upstream-tries.
const DEFAULT_TRIES: u32 = 3;

/// The rules of one Ingress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retries {
    /// What makes a request go on.
    pub causes: Causes,
    /// Whether POST, LOCK and PATCH may be sent a second time too.
    pub non_idempotent: bool,
    /// Endpoints that one request may try; 0 leaves it at one time each.
    pub tries: u32,
    /// For how long a request may go on to another endpoint; zero for as long as there are tries.
    pub timeout: Duration,
}

/// What may become of a request at an endpoint, as far as another one may do better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// No connection, or one that broke before the answer's head was there.
    Error,
    /// No connection or no answer in time.
    Timeout,
    /// An answer that is none.
    InvalidHeader,
    /// An answer with this status.
    Status(u16),
}

/// A set of [`Cause`]s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Causes(u16);

/// nginx's words for causes; each has the bit of its place.
const WORDS: [(&str, Cause); 10] = [
    ("error", Cause::Error),
    ("timeout", Cause::Timeout),
    ("invalid_header", Cause::InvalidHeader),
    ("http_500", Cause::Status(500)),
    ("http_502", Cause::Status(502)),
    ("http_503", Cause::Status(503)),
    ("http_504", Cause::Status(504)),
    ("http_403", Cause::Status(403)),
    ("http_404", Cause::Status(404)),
    ("http_429", Cause::Status(429)),
];

impl Causes {
    /// Whether a request goes on because of this.
    #[must_use]
    pub fn contain(self, cause: Cause) -> bool {
        self.0 & Self::bit(cause) != 0
    }

    fn bit(cause: Cause) -> u16 {
        WORDS.iter().position(|(_, other)| *other == cause).map_or(0, |place| 1 << place)
    }
}

impl FromIterator<Cause> for Causes {
    fn from_iter<I: IntoIterator<Item = Cause>>(causes: I) -> Self {
        Self(causes.into_iter().map(Self::bit).fold(0, |bits, bit| bits | bit))
    }
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            causes: [Cause::Error, Cause::Timeout].into_iter().collect(),
            non_idempotent: false,
            tries: DEFAULT_TRIES,
            timeout: Duration::ZERO,
        }
    }
}

impl Retries {
    pub(super) fn read(reader: &mut Reader<'_>, base: &Self) -> Self {
        let what = "error, timeout, invalid_header, http_500, http_502, http_503, http_504, http_403, http_404, http_429, \
                    non_idempotent with spaces between, or off";
        let words = reader.either("proxy-next-upstream").parse(what, words);
        let (causes, named) = words.unwrap_or((base.causes, base.non_idempotent));
        let everywhere = reader.option("retry-non-idempotent").boolean();
        Self {
            causes,
            // The option holds for every Ingress, whatever words its annotation has.
            non_idempotent: named || everywhere.unwrap_or(base.non_idempotent),
            tries: reader.either("proxy-next-upstream-tries").number(0).unwrap_or(base.tries),
            timeout: reader.either("proxy-next-upstream-timeout").duration().unwrap_or(base.timeout),
        }
    }
}

/// Causes, and whether `non_idempotent` is among the words. `off` beside others switches everything off, as in nginx.
fn words(text: &str) -> Option<(Causes, bool)> {
    let mut causes = Causes::default();
    let (mut off, mut non_idempotent) = (false, false);
    for word in text.split_ascii_whitespace() {
        match word {
            "off" => off = true,
            "non_idempotent" => non_idempotent = true,
            _ => causes.0 |= Causes::bit(WORDS.iter().find(|(known, _)| *known == word)?.1),
        }
    }
    Some(if off { (Causes::default(), false) } else { (causes, non_idempotent) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::fixture::check;

    fn of(causes: &[Cause]) -> Retries {
        Retries { causes: causes.iter().copied().collect(), ..Retries::default() }
    }

    #[test]
    fn the_words_are_nginx_s() {
        let read = |reader: &mut Reader<'_>| Retries::read(reader, &Retries::default());
        let key = "proxy-next-upstream";
        check(&[], read, &of(&[Cause::Error, Cause::Timeout]), &[]);
        check(&[(key, "off")], read, &of(&[]), &[]);
        check(&[(key, "error off")], read, &of(&[]), &[]);
        let several = of(&[Cause::Status(502), Cause::InvalidHeader]);
        check(&[(key, "http_502  invalid_header")], read, &several, &[]);
        let unsafe_too = Retries { non_idempotent: true, ..of(&[Cause::Error]) };
        check(&[(key, "error non_idempotent")], read, &unsafe_too, &[]);
        check(&[(key, "http_501")], read, &Retries::default(), &[key]);
        check(&[(key, "error,timeout")], read, &Retries::default(), &[key]);
    }

    #[test]
    fn tries_and_time_are_numbers() {
        let read = |reader: &mut Reader<'_>| Retries::read(reader, &Retries::default());
        let (tries, timeout) = ("proxy-next-upstream-tries", "proxy-next-upstream-timeout");
        let both = Retries { tries: 0, timeout: Duration::from_secs(5), ..Retries::default() };
        check(&[(tries, "0"), (timeout, "5")], read, &both, &[]);
        check(&[(tries, "-1"), (timeout, "soon")], read, &Retries::default(), &[tries, timeout]);
        // Of the ConfigMap alone.
        check(&[("retry-non-idempotent", "true")], read, &Retries::default(), &["retry-non-idempotent"]);
    }

    #[test]
    fn only_what_is_named_is_a_cause() {
        let retries = of(&[Cause::Status(503)]);
        assert!(retries.causes.contain(Cause::Status(503)));
        for other in [Cause::Status(500), Cause::Status(200), Cause::Error] {
            assert!(!retries.causes.contain(other), "{other:?}");
        }
    }
}
