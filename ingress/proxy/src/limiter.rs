//! How often each client came: exact leaky buckets and counts, over all threads of the process.
//!
//! The arithmetic is that of nginx's limit_req and limit_conn. Memory is bounded: there are so many buckets and no more, and the
//! one that was used longest ago is forgotten first, as in nginx's zones. Keys are keyed hashes, which nobody can aim at.

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::BuildHasher,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use lru::LruCache;
use roadstead_model::ObjectName;
use roadstead_routes::Limits;

const SHARDS: usize = 64;
/// Buckets of a shard: with the others 131,072 clients, in about 16 MiB.
const SHARD_BUCKETS: usize = 2048;
/// Buckets are drained and forgotten after so many milliseconds without a request, if they are empty by then.
const FORGET_AFTER: u64 = 60_000;

/// Counts for all Ingresses.
pub struct Limiter {
    buckets: Vec<Mutex<LruCache<u128, Buckets>>>,
    connections: Arc<Connections>,
    keys: (RandomState, RandomState),
    began: Instant,
}

type Connections = Vec<Mutex<HashMap<u128, u32>>>;

/// A client's buckets at one Ingress.
#[derive(Clone, Copy, Debug, Default)]
struct Buckets {
    second: Bucket,
    minute: Bucket,
}

/// One leaky bucket, in thousandths of a request and milliseconds.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    excess: u64,
    last: u64,
    /// The first request only fills the bucket's place.
    used: bool,
}

/// Why a request may not come now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exceeded {
    /// The rate and its burst.
    Rate,
    /// Requests at the same time.
    Connections,
}

/// A request's place among those of its client; given back when dropped.
pub struct Held {
    connections: Arc<Connections>,
    key: u128,
}

impl Default for Limiter {
    fn default() -> Self {
        Self {
            buckets: (0..SHARDS).map(|_| Mutex::new(LruCache::unbounded())).collect(),
            connections: Arc::new((0..SHARDS).map(|_| Mutex::default()).collect()),
            keys: (RandomState::new(), RandomState::new()),
            began: Instant::now(),
        }
    }
}

impl Limiter {
    /// Counts a request, unless it is one too many.
    ///
    /// # Errors
    /// [`Exceeded`] tells which limit it ran into.
    pub fn admit(&self, limits: &Limits, ingress: &ObjectName, client: IpAddr) -> Result<Option<Held>, Exceeded> {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.admit_at(limits, ingress, client, now)
    }

    fn admit_at(
        &self,
        limits: &Limits,
        ingress: &ObjectName,
        client: IpAddr,
        now: u64,
    ) -> Result<Option<Held>, Exceeded> {
        if limits.exempt.contains(client) {
            return Ok(None);
        }
        let key = self.key(ingress, client);
        self.count(limits, key, now)?;
        limits.connections.map(|most| self.hold(most, key)).transpose()
    }

    fn key(&self, ingress: &ObjectName, client: IpAddr) -> u128 {
        let (high, low) = (self.keys.0.hash_one((ingress, client)), self.keys.1.hash_one((ingress, client)));
        u128::from(high) << 64 | u128::from(low)
    }

    /// Both rates must have room, and then both are used.
    fn count(&self, limits: &Limits, key: u128, now: u64) -> Result<(), Exceeded> {
        let burst = |rate: u32| u64::from(rate) * u64::from(limits.burst_multiplier) * 1000;
        // nginx's own rounding: a rate a minute is held as whole thousandths of a request a second.
        let second = limits.per_second.map(|rate| (u64::from(rate) * 1000, burst(rate)));
        let minute = limits.per_minute.map(|rate| (u64::from(rate) * 1000 / 60, burst(rate)));
        if second.is_none() && minute.is_none() {
            return Ok(());
        }
        let Some(mut shard) = shard(&self.buckets, key) else { return Ok(()) };
        let mut buckets = shard.get(&key).copied().unwrap_or_default();
        let fits = |bucket: &mut Bucket, limit: Option<(u64, u64)>| match limit {
            Some((rate, burst)) => bucket.take(rate, burst, now),
            None => true,
        };
        if !fits(&mut buckets.second, second) || !fits(&mut buckets.minute, minute) {
            return Err(Exceeded::Rate);
        }
        shard.put(key, buckets);
        forget(&mut shard, now);
        Ok(())
    }

    fn hold(&self, most: u32, key: u128) -> Result<Held, Exceeded> {
        let mut counts = shard(&self.connections, key).ok_or(Exceeded::Connections)?;
        let count = counts.entry(key).or_default();
        if *count >= most {
            return Err(Exceeded::Connections);
        }
        *count += 1;
        Ok(Held { connections: Arc::clone(&self.connections), key })
    }

    /// Clients that are known now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.buckets.iter().map(|shard| lock(shard).len()).sum()
    }

    /// Whether no client is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some(mut counts) = shard(&self.connections, self.key) else { return };
        if let Some(count) = counts.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}

impl Bucket {
    /// Takes one request's room, if there is any. `rate` is in thousandths a second, `burst` in thousandths.
    fn take(&mut self, rate: u64, burst: u64, now: u64) -> bool {
        let elapsed = now.saturating_sub(self.last);
        let excess = match self.used {
            true => (self.excess + 1000).saturating_sub(rate.saturating_mul(elapsed) / 1000),
            false => 0,
        };
        if excess > burst {
            return false;
        }
        // Within one millisecond nothing leaks, and the fraction that has is not lost.
        if elapsed > 0 || !self.used {
            self.last = now;
        }
        self.excess = excess;
        self.used = true;
        true
    }
}

/// Forgets one or two clients that did not come for long, and the last one of a full shard in any case.
fn forget(shard: &mut LruCache<u128, Buckets>, now: u64) {
    for _ in 0..2 {
        let Some((_, oldest)) = shard.peek_lru() else { return };
        let idle = now.saturating_sub(oldest.second.last.max(oldest.minute.last)) > FORGET_AFTER;
        if !idle && shard.len() <= SHARD_BUCKETS {
            return;
        }
        shard.pop_lru();
    }
}

fn shard<T>(shards: &[Mutex<T>], key: u128) -> Option<MutexGuard<'_, T>> {
    shards.get(usize::try_from(key % SHARDS as u128).ok()?).map(lock)
}

fn lock<T>(shard: &Mutex<T>) -> MutexGuard<'_, T> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    const CLIENT: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

    fn admitted(limiter: &Limiter, limits: &Limits, at: u64, times: usize) -> usize {
        let ingress = ObjectName::new("default", "web");
        (0..times).filter(|_| limiter.admit_at(limits, &ingress, CLIENT, at).is_ok()).count()
    }

    /// One row: limits, then at each millisecond how many of how many requests come through.
    fn check(limits: &Limits, rows: &[(u64, usize, usize)]) {
        let limiter = Limiter::default();
        for (at, asked, expected) in rows {
            assert_eq!(admitted(&limiter, limits, *at, *asked), *expected, "{limits:?} at {at}");
        }
    }

    #[test]
    fn buckets_leak_as_nginx_s() {
        let limits = Limits::default();
        // burst is 5 x 2, and the first request is free: 11 at once, then two a second.
        let two = Limits { per_second: Some(2), ..limits.clone() };
        check(&two, &[(0, 20, 11), (499, 5, 0), (500, 5, 1), (1500, 5, 2), (60_000, 20, 11)]);
        let no_burst = Limits { per_second: Some(1), burst_multiplier: 0, ..limits.clone() };
        check(&no_burst, &[(0, 3, 1), (999, 1, 0), (1000, 2, 1), (5000, 2, 1)]);
        // 60 a minute with burst 60: the 62nd at once is too many.
        let minute = Limits { per_minute: Some(60), burst_multiplier: 1, ..limits.clone() };
        check(&minute, &[(0, 100, 61), (1000, 5, 1)]);
        // The tighter of both holds, and what it refuses does not count for the other.
        let both = Limits { per_second: Some(1), per_minute: Some(6), burst_multiplier: 1, ..limits.clone() };
        check(&both, &[(0, 9, 2), (1000, 9, 1), (2000, 9, 1), (3000, 9, 1), (4000, 9, 1), (5000, 9, 1), (6000, 9, 0)]);
        check(&limits, &[(0, 1000, 1000)]);
        let exempt = roadstead_routes::Networks::new([(CLIENT, 128)]);
        check(&Limits { exempt, ..two }, &[(0, 1000, 1000)]);
    }

    #[test]
    fn threads_share_a_bucket_to_the_last_request() {
        let limiter = Limiter::default();
        let limits = Limits { per_second: Some(100), connections: Some(u32::MAX), ..Limits::default() };
        let admitted = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| admitted(&limiter, &limits, 0, 500))).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).sum::<usize>()
        });
        assert_eq!(admitted, 501);
        assert!(limiter.connections.iter().all(|shard| lock(shard).is_empty()));
    }

    #[test]
    fn requests_at_the_same_time_are_given_back() {
        let (limiter, ingress) = (Limiter::default(), ObjectName::new("default", "web"));
        let limits = Limits { connections: Some(2), ..Limits::default() };
        let admit = |ingress: &ObjectName| limiter.admit(&limits, ingress, CLIENT);
        let (first, second) = (admit(&ingress), admit(&ingress));
        assert!(first.is_ok() && second.is_ok());
        assert_eq!(admit(&ingress).err(), Some(Exceeded::Connections));
        assert!(admit(&ObjectName::new("default", "other")).is_ok(), "each Ingress counts for itself");
        drop(first);
        let third = admit(&ingress);
        assert!(third.is_ok());
        drop((second, third));
        assert!(limiter.connections.iter().all(|shard| lock(shard).is_empty()));
    }

    #[test]
    fn a_flood_of_addresses_takes_bounded_memory() {
        let (limiter, ingress) = (Limiter::default(), ObjectName::new("default", "web"));
        let limits = Limits { per_second: Some(1), burst_multiplier: 0, ..Limits::default() };
        for client in 0..300_000_u128 {
            let client = IpAddr::V6(Ipv6Addr::from_bits(0x2001_0db8 << 96 | client));
            assert!(limiter.admit_at(&limits, &ingress, client, 0).is_ok());
        }
        let entry = size_of::<(u128, Buckets)>() + 2 * size_of::<usize>();
        println!("300,000 addresses: {} buckets of {entry} bytes are kept", limiter.len());
        assert!(limiter.len() <= SHARDS * SHARD_BUCKETS);
        let last = IpAddr::V6(Ipv6Addr::from_bits(0x2001_0db8 << 96 | 299_999));
        assert!(limiter.admit_at(&limits, &ingress, last, 0).is_err(), "who came last is still known");
    }
}
