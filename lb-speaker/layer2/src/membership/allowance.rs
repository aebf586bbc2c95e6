//! How much a peer is handed out: a question is a few bytes, its answer many thousand, and anybody can send it again.

use std::time::Duration;

use super::{INTERVAL, document::PARTS_A_QUESTION};

/// Parts that a peer gets in the time between two heartbeats: 1.4 MB/s.
const PARTS: usize = 4 * PARTS_A_QUESTION;

/// Of one peer and one kind of document.
#[derive(Clone, Debug, Default)]
pub(super) struct Allowance {
    /// Parts that it may still get, of those that it was allowed then.
    left: usize,
    refilled: Option<Duration>,
}

impl Allowance {
    /// The parts, unless the peer had too many of late: then they are not even made.
    pub(super) fn spend(&mut self, now: Duration, parts: impl FnOnce() -> Vec<Vec<u8>>) -> Vec<Vec<u8>> {
        if self.refilled.is_none_or(|at| now >= at + INTERVAL) {
            (self.refilled, self.left) = (Some(now), PARTS);
        }
        if self.left == 0 {
            return Vec::new();
        }
        let parts = parts();
        self.left = self.left.saturating_sub(parts.len());
        parts
    }
}
