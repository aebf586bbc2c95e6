//! The table of paths: a line for each, printed when it is known.

use std::time::Duration;

use anyhow::Result;

/// The widths of the columns; with the gaps, the mark and the margin 100 columns.
const FROM: usize = 7;
const TO: usize = 41;
const ANSWERED: usize = 31;

/// What a path came to.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) answered: String,
    pub(super) took: Duration,
}

/// The rows so far.
#[derive(Debug, Default)]
pub(super) struct Table {
    rows: usize,
    failed: Vec<String>,
}

impl Table {
    /// Prints a heading and what stands under it.
    pub(super) fn section(&self, title: &str) {
        println!("\n{title}");
    }

    /// Makes a check and prints its row.
    pub(super) fn row(&mut self, from: &str, to: &str, check: impl FnOnce() -> Result<Shown>) {
        let shown = check();
        if crate::interrupt::requested() {
            // The lab is being removed under the check.
            crate::interrupt::wait();
        }
        self.rows += 1;
        match shown {
            Ok(Shown { answered, took }) => println!("{}", line(from, to, &answered, &time(took), "ok")),
            Err(error) => {
                println!("{}\n      {error:#}", line(from, to, "", "", "FAILED"));
                self.failed.push(format!("{from} -> {to}: {error:#}"));
            }
        }
    }

    /// Names the rows that do not hold.
    pub(super) fn failed(&self) -> &[String] {
        &self.failed
    }

    /// The last line: how many rows hold, and which do not.
    pub(super) fn summary(&self, took: Duration) -> String {
        let (rows, seconds) = (self.rows, took.as_secs_f64());
        if self.failed.is_empty() {
            return format!("All {rows} rows hold ({seconds:.1} s).");
        }
        let failed = self.failed.join("\n  ");
        format!("{} of {rows} rows do not hold ({seconds:.1} s):\n  {failed}", self.failed.len())
    }
}

fn line(from: &str, to: &str, answered: &str, took: &str, mark: &str) -> String {
    format!("  {from:FROM$} {to:TO$} {answered:ANSWERED$} {took:>8}  {mark}").trim_end().to_owned()
}

/// A time as the table shows it: three digits are enough.
pub(super) fn time(took: Duration) -> String {
    let micros = took.as_secs_f64() * 1e6;
    match micros {
        under if under < 1e3 => format!("{under:.0} us"),
        under if under < 1e5 => format!("{:.1} ms", under / 1e3),
        under if under < 1e6 => format!("{:.0} ms", under / 1e3),
        _ => format!("{:.2} s", micros / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_well() {
        let cases = [(7, "7 us"), (950, "950 us"), (1_234, "1.2 ms"), (123_456, "123 ms"), (1_234_567, "1.23 s")];
        for (micros, expected) in cases {
            assert_eq!(time(Duration::from_micros(micros)), expected);
        }
    }

    #[test]
    fn a_row_fits_a_hundred_columns() {
        let row = line(&"f".repeat(FROM), &"t".repeat(TO), &"a".repeat(ANSWERED), "99.9 ms", "FAILED");
        assert_eq!(row.len(), 100);
    }

    #[test]
    fn a_failed_row_is_named_in_the_summary() {
        let mut table = Table::default();
        table.row("client", "there", || Ok(Shown { answered: "web-1".to_owned(), took: Duration::ZERO }));
        table.row("client", "nowhere", || anyhow::bail!("ECONNREFUSED"));
        assert_eq!(
            table.summary(Duration::from_secs(2)),
            "1 of 2 rows do not hold (2.0 s):\n  client -> nowhere: ECONNREFUSED"
        );
    }
}
