//! Answers of authentication services that are kept, by nginx's rules for a proxy cache.
//!
//! All answers together take a bounded number of bytes. Keys are keyed hashes of what the configuration makes a key of.

use std::{
    collections::hash_map::RandomState,
    hash::BuildHasher,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{
    HeaderMap,
    header::{CACHE_CONTROL, SET_COOKIE, VARY},
};
use quick_cache::{Weighter, sync::Cache};
use roadstead_routes::{AuthCache, Statuses};

use super::Verdict;

/// Bytes of all answers; nginx's cache of ingress-nginx may take 128 MiB of a disk.
const MAX_BYTES: u64 = 32 << 20;
/// What an entry takes besides its fields.
const OVERHEAD: u64 = 256;
/// What is expected; the cache grows beyond.
const EXPECTED_ENTRIES: usize = 1024;

/// Kept answers.
pub(super) struct Verdicts {
    kept: Cache<u128, Kept, ByBytes>,
    keys: (RandomState, RandomState),
}

#[derive(Clone)]
struct Kept {
    verdict: Arc<Verdict>,
    until: Instant,
}

#[derive(Clone)]
struct ByBytes;

impl Weighter<u128, Kept> for ByBytes {
    fn weight(&self, _key: &u128, kept: &Kept) -> u64 {
        let fields = kept.verdict.headers.iter();
        OVERHEAD + fields.map(|(name, value)| name.as_str().len() as u64 + value.len() as u64 + 64).sum::<u64>()
    }
}

impl Default for Verdicts {
    fn default() -> Self {
        Self {
            kept: Cache::with_weighter(EXPECTED_ENTRIES, MAX_BYTES, ByBytes),
            keys: (RandomState::new(), RandomState::new()),
        }
    }
}

impl Verdicts {
    /// The key of what a route and a request make it of.
    pub(super) fn key(&self, parts: &[&[u8]]) -> u128 {
        u128::from(self.keys.0.hash_one(parts)) << 64 | u128::from(self.keys.1.hash_one(parts))
    }

    pub(super) fn find(&self, key: u128) -> Option<Arc<Verdict>> {
        let kept = self.kept.get(&key)?;
        if Instant::now() < kept.until {
            return Some(kept.verdict);
        }
        self.kept.remove(&key);
        None
    }

    /// Keeps an answer, if its status and its own fields let it.
    pub(super) fn keep(&self, key: u128, verdict: &Arc<Verdict>, answer: &HeaderMap, cache: &AuthCache) {
        if let Some(time) = lifetime(verdict.status.as_u16(), answer, cache).filter(|time| !time.is_zero()) {
            self.kept.insert(key, Kept { verdict: Arc::clone(verdict), until: Instant::now() + time });
        }
    }
}

/// How long an answer may be kept. What it says itself goes before the configuration, as in nginx; one that sets cookies or
/// depends on fields of the request is meant for one client.
fn lifetime(status: u16, answer: &HeaderMap, cache: &AuthCache) -> Option<Duration> {
    if answer.contains_key(SET_COOKIE) || answer.contains_key(VARY) {
        return None;
    }
    let (_, configured) = cache.durations.iter().find(|(statuses, _)| match statuses {
        Statuses::Listed(codes) => codes.contains(&status),
        Statuses::Unnamed => [200, 301, 302].contains(&status),
    })?;
    let mut own = None;
    for value in answer.get_all(CACHE_CONTROL) {
        for directive in value.to_str().unwrap_or("no-store").split(',').map(str::trim) {
            let (name, argument) = directive.split_once('=').unwrap_or((directive, ""));
            match name.to_ascii_lowercase().as_str() {
                "no-store" | "no-cache" | "private" => return None,
                "s-maxage" | "max-age" if own.is_none() || name.eq_ignore_ascii_case("s-maxage") => {
                    own = Some(argument.trim_matches('"').parse().unwrap_or(0));
                }
                _ => {}
            }
        }
    }
    // Nothing is trusted for longer than a day.
    Some(own.map_or(*configured, |seconds: u64| Duration::from_secs(seconds.min(86_400))))
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue, StatusCode};
    use roadstead_routes::Template;

    use super::*;

    #[test]
    fn answers_are_kept_as_long_as_they_may_be() {
        let durations = vec![(Statuses::Listed(vec![200, 401]), Duration::from_secs(300))];
        let cache = AuthCache { key: Template::default(), scope: String::new(), durations };
        for (status, fields, expected) in [
            (200, &[][..], Some(300)),
            (401, &[], Some(300)),
            (403, &[], None),
            (200, &[("set-cookie", "a=b")], None),
            (200, &[("vary", "cookie")], None),
            (200, &[("cache-control", "no-store")], None),
            (200, &[("cache-control", "public, Private")], None),
            (200, &[("cache-control", "max-age=5")], Some(5)),
            (200, &[("cache-control", "max-age=5, s-maxage=7")], Some(7)),
            (200, &[("cache-control", "max-age=x")], Some(0)),
            (200, &[("cache-control", "max-age=99999999999")], Some(86_400)),
            (403, &[("cache-control", "max-age=5")], None),
        ] {
            let headers =
                fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
            let found = lifetime(status, &headers.collect(), &cache).map(|time| time.as_secs());
            assert_eq!(found, expected, "{status} {fields:?}");
        }
    }

    #[test]
    fn a_flood_of_keys_takes_bounded_memory() {
        let verdicts = Verdicts::default();
        let durations = vec![(Statuses::Unnamed, Duration::from_secs(300))];
        let cache = AuthCache { key: Template::default(), scope: String::new(), durations };
        let headers: HeaderMap =
            [(http::header::WARNING, HeaderValue::from_str(&"x".repeat(8_000)).expect("ascii"))].into_iter().collect();
        for number in 0..20_000_u32 {
            let verdict = Arc::new(Verdict { status: StatusCode::OK, headers: headers.clone() });
            verdicts.keep(verdicts.key(&[&number.to_be_bytes()]), &verdict, &HeaderMap::new(), &cache);
        }
        println!("20,000 answers of 8 kB: {} kept, {} bytes", verdicts.kept.len(), verdicts.kept.weight());
        assert!(verdicts.kept.weight() <= MAX_BYTES && verdicts.kept.len() > 1000);
        assert_ne!(verdicts.key(&[b"a", b"bc"]), verdicts.key(&[b"ab", b"c"]));
        let last = verdicts.key(&[&19_999_u32.to_be_bytes()]);
        assert!(verdicts.find(last).is_some());
    }
}
