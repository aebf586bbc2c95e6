//! The programs' clock: the kernel's count of timer ticks, which only a program can read.

use nix::time::{ClockId, clock_getres};
use roadstead_datapath::conntrack::Clock;

use crate::{load::Programs, testrun::TestRunError};

/// The clock and its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time {
    /// In units of the clock.
    pub now: u32,
    /// What a unit is worth.
    pub clock: Clock,
}

impl Time {
    /// Seconds since an entry was stamped.
    #[must_use]
    pub fn idle(self, last_seen: u32) -> u32 {
        self.clock.idle(last_seen, self.now)
    }
}

/// The rate of the kernel's timer ticks: the coarse clocks advance with them.
#[must_use]
pub fn clock() -> Clock {
    let nanoseconds = clock_getres(ClockId::CLOCK_MONOTONIC_COARSE).map_or(0, |resolution| resolution.tv_nsec());
    // 250 is what distributions build; a clock that is off by a factor only moves expiries.
    let hz = u32::try_from(nanoseconds).ok().and_then(|period| 1_000_000_000_u32.checked_div(period)).unwrap_or(250);
    Clock { hz: hz.clamp(24, 10_000) }
}

impl Programs {
    /// The time by which the programs stamp.
    ///
    /// # Errors
    /// When the kernel refuses to run the program that tells it.
    pub fn time(&self) -> Result<Time, TestRunError> {
        let now = self.run("clock", &[0; 14])?.verdict.cast_unsigned();
        Ok(Time { now, clock: clock() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernels_tick_rate_is_one_that_kernels_have() {
        assert!([100, 250, 300, 1_000].contains(&clock().hz), "{:?}", clock());
    }
}
