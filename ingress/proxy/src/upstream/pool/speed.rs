//! How fast an endpoint is: ingress-nginx's moving average, weighted by time.
//!
//! A time counts for more the longer the one before it is ago; an endpoint that nobody asked for a while is looked at as
//! faster bit by bit, so that it gets another chance.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// ingress-nginx's decay time, in milliseconds.
const DECAY: f64 = 10_000.0;

/// The average of one endpoint. Two threads that write at once may lose one of two times: that is no loss.
#[derive(Debug, Default)]
pub(super) struct Speed {
    /// The bits of the average in seconds.
    average: AtomicU64,
    /// When it was that; 0 before the first.
    touched: AtomicU64,
}

impl Speed {
    /// The average that stands at this moment: lower is faster.
    pub(super) fn score(&self, now: u64) -> f64 {
        self.average() * self.weight(now)
    }

    /// A request took this long.
    pub(super) fn observe(&self, time: Duration, now: u64) {
        let weight = self.weight(now);
        self.write(self.average() * weight + time.as_secs_f64() * (1.0 - weight), now);
    }

    /// The average as it was last; `None` before the first request.
    pub(super) fn known(&self) -> Option<f64> {
        (self.touched.load(Ordering::Relaxed) != 0).then(|| self.average())
    }

    /// Supposes an average, so that a new endpoint is not flooded for being unknown.
    pub(super) fn write(&self, average: f64, now: u64) {
        self.average.store(average.to_bits(), Ordering::Relaxed);
        self.touched.store(now, Ordering::Relaxed);
    }

    fn average(&self) -> f64 {
        f64::from_bits(self.average.load(Ordering::Relaxed))
    }

    /// What the average counts for by now.
    fn weight(&self, now: u64) -> f64 {
        let touched = self.touched.load(Ordering::Relaxed);
        if touched == 0 {
            return 0.0;
        }
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of a process's life fit")]
        let since = now.saturating_sub(touched) as f64;
        (-since / DECAY).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_average_follows_the_times() {
        let speed = Speed::default();
        assert_eq!((speed.known(), speed.score(5)), (None, 0.0));
        speed.observe(Duration::from_secs(2), 1_000);
        assert_eq!(speed.known(), Some(2.0), "the first is the average");
        speed.observe(Duration::from_secs(100), 1_000);
        assert_eq!(speed.known(), Some(2.0), "no time has passed");
        speed.observe(Duration::from_secs(4), 11_000);
        let expected = 2.0 / std::f64::consts::E + 4.0 * (1.0 - 1.0 / std::f64::consts::E);
        assert!((speed.known().unwrap() - expected).abs() < 1e-9);
        assert!((speed.score(21_000) - expected / std::f64::consts::E).abs() < 1e-9);
        assert!(speed.score(11_000) > speed.score(12_000));
    }
}
