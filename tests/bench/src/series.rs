//! Samples of one quantity: median, quantiles, spread.

/// Samples, sorted.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Series(Vec<f64>);

impl From<Vec<f64>> for Series {
    fn from(mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        Self(samples)
    }
}

impl FromIterator<f64> for Series {
    fn from_iter<I: IntoIterator<Item = f64>>(samples: I) -> Self {
        samples.into_iter().collect::<Vec<_>>().into()
    }
}

impl Series {
    /// Whether nothing was measured.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The sample below which this share of all lies, between neighbours by their distance; 0 without samples.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        let last = self.0.len().saturating_sub(1);
        let place = share.clamp(0.0, 1.0) * last as f64;
        let at = |index: f64| self.0.get(index as usize).copied().unwrap_or_default();
        let (low, high) = (at(place.floor()), at(place.ceil()));
        low + (high - low) * place.fract()
    }

    /// The middle.
    pub(crate) fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// The spread that tables show: the quartiles, so that one disturbed round does not hide the others.
    pub(crate) fn quartiles(&self) -> (f64, f64) {
        (self.quantile(0.25), self.quantile(0.75))
    }

    /// Sample by sample.
    pub(crate) fn values(&self) -> &[f64] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_between_neighbours() {
        let series = Series::from(vec![4.0, 1.0, 3.0, 2.0]);
        let cases = [(0.0, 1.0), (0.5, 2.5), (0.25, 1.75), (1.0, 4.0), (2.0, 4.0)];
        for (share, expected) in cases {
            assert!((series.quantile(share) - expected).abs() < 1e-9, "{share}");
        }
        assert!(Series::default().median().abs() < 1e-9 && Series::default().is_empty());
    }
}
