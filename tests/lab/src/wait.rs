//! Waiting for a condition with a deadline, which tests do in place of sleeping.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// The first pause between two looks at the condition; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(1);
/// Short enough that a figure measured by waiting is right to within this much.
const LONGEST_PAUSE: Duration = Duration::from_millis(10);

/// Waits until the condition holds; tells how long that took.
///
/// # Errors
///
/// Where it does not hold within the deadline. The condition is looked at once more at the end, so that a machine that
/// stood still does not fail a test.
pub fn wait_until(deadline: Duration, what: &str, mut condition: impl FnMut() -> bool) -> Result<Duration> {
    let started = Instant::now();
    wait_for(deadline, what, || condition().then_some(()))?;
    Ok(started.elapsed())
}

/// Waits until there is something, and hands it over.
///
/// # Errors
///
/// Where there is nothing within the deadline.
pub fn wait_for<T>(deadline: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> Result<T> {
    let started = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        let late = started.elapsed() >= deadline;
        if let Some(found) = look() {
            return Ok(found);
        }
        if late {
            bail!("{what}: not within {deadline:?}");
        }
        thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_is_waited_for_and_a_deadline_ends_it() {
        let mut looks = 0;
        let counted = wait_until(Duration::from_secs(5), "three looks", || {
            looks += 1;
            looks == 3
        });
        assert!(counted.is_ok() && looks == 3);
        let late = wait_for(Duration::from_millis(5), "nothing", || None::<()>).unwrap_err();
        assert_eq!(late.to_string(), "nothing: not within 5ms");
    }
}
