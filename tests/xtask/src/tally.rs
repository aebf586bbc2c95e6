//! Reads what test programs print and counts, over all of them, what passed, failed and was skipped.
//!
//! The harness knows no skipping: a test that cannot run here says `skipped: why` on standard error and returns. One that
//! means nothing in this run, wherever it runs, says `left out: why` in the same way. With `--show-output` the harness
//! repeats what a passing test wrote; of that only such lines are shown.

use std::collections::BTreeMap;
use std::fmt;

/// The counts so far.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Tests that failed.
    pub(crate) failed: usize,
    /// Tests that said that this host lacks something.
    pub(crate) said_skipped: usize,
    /// The names of the tests that failed.
    pub(crate) failures: Vec<String>,
    /// Closing lines seen: one a test program.
    pub(crate) results: usize,
    /// How many tests left themselves out, by the reason.
    pub(crate) left_out: BTreeMap<String, usize>,
    /// Tests the harness calls passed; it counts skipped ones and those left out among them.
    passed: usize,
    ignored: usize,
    part: Part,
}

/// The part of a test program's output that a line is in.
#[derive(Debug, Default, PartialEq, Eq)]
enum Part {
    #[default]
    Running,
    /// Repeated output of tests that passed; the flag is set where the present one has said why it did not run.
    Successes { told: bool },
}

impl Tally {
    /// All that did not run: what a test declined, and what the harness ignored.
    pub(crate) fn skipped(&self) -> usize {
        self.said_skipped + self.ignored
    }

    /// Takes in the counts of another run.
    pub(crate) fn add(&mut self, other: Self) {
        self.failed += other.failed;
        self.said_skipped += other.said_skipped;
        self.failures.extend(other.failures);
        self.results += other.results;
        self.passed += other.passed;
        self.ignored += other.ignored;
        for (why, tests) in other.left_out {
            *self.left_out.entry(why).or_default() += tests;
        }
    }

    /// The same counts of a run whose tests have run before in another way, which their names tell from now on.
    pub(crate) fn named(mut self, way: &str) -> Self {
        self.failures.iter_mut().for_each(|name| *name += way);
        self
    }

    /// Takes in a line of standard output; tells whether to show it.
    pub(crate) fn take(&mut self, line: &str) -> bool {
        if let Some(result) = line.strip_prefix("test result: ") {
            self.part = Part::Running;
            self.results += 1;
            self.passed += number_before(result, " passed");
            self.failed += number_before(result, " failed");
            self.ignored += number_before(result, " ignored");
            return true;
        }
        match (&mut self.part, line) {
            (part, "successes:") => {
                *part = Part::Successes { told: false };
                false
            }
            (part, "failures:") => {
                *part = Part::Running;
                true
            }
            (Part::Running, _) => {
                let name = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED"));
                self.failures.extend(name.map(str::to_owned));
                true
            }
            (Part::Successes { told }, _) => {
                if line.starts_with("---- ") {
                    *told = false;
                }
                let (skip, left_out) = (is_skip(line), line.strip_prefix("left out: "));
                if !*told {
                    self.said_skipped += usize::from(skip);
                    if let Some(why) = left_out {
                        *self.left_out.entry(why.to_owned()).or_default() += 1;
                    }
                }
                *told |= skip || left_out.is_some();
                // Those that are left out are told in the end, together.
                skip
            }
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let left_out: usize = self.left_out.values().sum();
        let passed = self.passed.saturating_sub(self.said_skipped + left_out);
        write!(f, "{passed} passed, {} failed, {} skipped", self.failed, self.skipped())
    }
}

/// Whether a test says with this line that it cannot run here.
pub(crate) fn is_skip(line: &str) -> bool {
    line.starts_with("skipped:")
}

fn number_before(text: &str, unit: &str) -> usize {
    let before = text.split_once(unit).map_or("", |(before, _)| before);
    before.rsplit(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO_PROGRAMS: &str = "
running 3 tests
test a ... ok
test b ... ok
test c ... FAILED

successes:

---- a stdout ----
something a says
skipped: no kernel 6.6
skipped: said twice

---- b stdout ----
b says that a was skipped: no


successes:
    a
    b

failures:

---- c stdout ----
skipped: a failing test is no skipped one

failures:
    c

test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s

running 2 tests
test d ... ok
test e ... ignored

successes:

successes:
    d

test result: ok. 1 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 1.50s
";

    #[test]
    fn results_are_summed_and_skips_counted_once_a_test() {
        let mut tally = Tally::default();
        let shown: Vec<&str> = TWO_PROGRAMS.lines().filter(|line| tally.take(line)).collect();
        assert_eq!(tally.to_string(), "2 passed, 1 failed, 2 skipped");
        assert_eq!((tally.results, tally.failures.as_slice()), (2, ["c".to_owned()].as_slice()));
        for line in ["test a ... ok", "skipped: no kernel 6.6", "    c", "test e ... ignored"] {
            assert!(shown.contains(&line), "{line} in {shown:?}");
        }
        for line in ["something a says", "successes:", "    d", "b says that a was skipped: no"] {
            assert!(!shown.contains(&line), "{line} in {shown:?}");
        }
    }

    #[test]
    fn tests_that_leave_themselves_out_are_no_passed_ones() {
        const RUN: &str = "
successes:

---- a stdout ----
left out: files are its subject

---- b stdout ----
left out: files are its subject

---- c stdout ----
nothing was left out: all is well

test result: ok. 4 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
";
        let mut tally = Tally::default();
        assert_eq!(RUN.lines().filter(|line| tally.take(line)).count(), 2, "the first line and the last");
        assert_eq!(tally.to_string(), "2 passed, 0 failed, 0 skipped");
        assert_eq!(tally.left_out, BTreeMap::from([("files are its subject".to_owned(), 2)]));
        let mut both = Tally::default();
        both.add(tally);
        assert_eq!(both.left_out.values().sum::<usize>(), 2);
    }

    #[test]
    fn counts_of_two_runs_are_added() {
        let run = || {
            let mut tally = Tally::default();
            assert!(TWO_PROGRAMS.lines().filter(|line| tally.take(line)).count() > 0);
            tally
        };
        let mut both = run();
        both.add(run());
        assert_eq!((both.to_string().as_str(), both.failures.len()), ("4 passed, 2 failed, 4 skipped", 2));
    }

    #[test]
    fn nothing_is_nothing() {
        assert_eq!(Tally::default().to_string(), "0 passed, 0 failed, 0 skipped");
    }
}
