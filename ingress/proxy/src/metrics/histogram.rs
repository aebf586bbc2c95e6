//! A histogram in 13 words: as small as one can be, for there are six of them for each route, method and status.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use prometheus::proto;

/// How many bounds a histogram has; Prometheus adds the one without a limit.
const BOUNDS: usize = 11;

/// Seconds: Prometheus' default, which ingress-nginx keeps.
pub(super) const SECONDS: Bounds = Bounds([0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]);

/// Bytes. ingress-nginx ends at 100, which tells nothing of today's messages; sums and counts are the same.
pub(super) const BYTES: Bounds = Bounds([1e2, 3e2, 1e3, 3e3, 1e4, 3e4, 1e5, 3e5, 1e6, 1e7, 1e8]);

/// The upper bounds of the buckets, ascending.
pub(super) struct Bounds([f64; BOUNDS]);

/// Counts of values by size. Values are kept as whole numbers, microseconds or bytes.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    /// Values within a bound and beyond the one before; the last of all is beyond every bound.
    buckets: [AtomicU64; BOUNDS + 1],
    sum: AtomicU64,
}

impl Histogram {
    pub(super) fn observe_time(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.observe(&SECONDS, time.as_secs_f64(), micros);
    }

    pub(super) fn observe_bytes(&self, bytes: u64) {
        self.observe(&BYTES, bytes as f64, bytes);
    }

    fn observe(&self, bounds: &Bounds, value: f64, whole: u64) {
        let place = bounds.0.partition_point(|bound| *bound < value);
        if let Some(bucket) = self.buckets.get(place) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(whole, Ordering::Relaxed);
    }

    /// As Prometheus takes it; `unit` is one of the kept numbers in the metric's own unit.
    pub(super) fn told(&self, bounds: &Bounds, unit: f64) -> proto::Histogram {
        let mut count = 0;
        let mut buckets = Vec::with_capacity(BOUNDS);
        let mut all = self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed));
        for (bound, inside) in bounds.0.iter().zip(&mut all) {
            count += inside;
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(count);
            buckets.push(bucket);
        }
        count += all.next().unwrap_or(0);
        let mut histogram = proto::Histogram::default();
        histogram.set_bucket(buckets);
        histogram.set_sample_count(count);
        histogram.set_sample_sum(self.sum.load(Ordering::Relaxed) as f64 * unit);
        histogram
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_fall_into_their_buckets() {
        let histogram = Histogram::default();
        for millis in [1, 5, 6, 20_000] {
            histogram.observe_time(Duration::from_millis(millis));
        }
        let told = histogram.told(&SECONDS, 1e-6);
        let counts: Vec<_> = told.get_bucket().iter().map(proto::Bucket::cumulative_count).collect();
        assert_eq!(counts, [2, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3], "a bound is inside its bucket");
        assert_eq!(told.get_sample_count(), 4);
        assert!((told.get_sample_sum() - 20.012).abs() < 1e-9);
    }
}
