//! The clock that all processes of a run share.

use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::time::{ClockId, clock_gettime};

/// Nanoseconds of the monotonic clock, the same in every process and namespace of the host.
pub(crate) fn monotonic() -> Result<Duration> {
    Ok(Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).context("no monotonic clock")?))
}
