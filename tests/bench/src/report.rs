//! Tables for people and figures for programs: what a run prints and writes.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};

use crate::machine::Machine;
use crate::series::Series;

/// A result in the making.
#[derive(Debug)]
pub(crate) struct Report {
    text: String,
    raw: Map<String, Value>,
}

/// Rows and columns with a title above and remarks below.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    pub(crate) title: String,
    pub(crate) head: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
    pub(crate) remarks: Vec<String>,
}

impl Report {
    /// Begins with where and how it was measured.
    pub(crate) fn new(title: &str, command: &str, machine: &Machine) -> Self {
        let text = format!(
            "{title}\n\ncommand:   {command}\nkernel:    Linux {}\nprocessor: {} x {}, load {} at the start\npeers:     {}\n",
            machine.kernel,
            machine.processors,
            machine.processor,
            machine.load,
            machine.versions.join(", "),
        );
        let raw = [("command".to_owned(), json!(command)), ("machine".to_owned(), machine.json())];
        Self { text, raw: raw.into_iter().collect() }
    }

    /// Adds a line to the header.
    pub(crate) fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    /// Adds a table.
    pub(crate) fn table(&mut self, table: &Table) {
        self.text.push('\n');
        self.text.push_str(&table.render());
    }

    /// Adds raw figures.
    pub(crate) fn raw(&mut self, name: &str, value: Value) {
        self.raw.insert(name.to_owned(), value);
    }

    /// Prints the text and writes both forms.
    pub(crate) fn write(&self, folder: &Path, name: &str) -> Result<()> {
        fs::create_dir_all(folder).with_context(|| format!("could not make {}", folder.display()))?;
        let raw = serde_json::to_string_pretty(&self.raw).context("the figures are no JSON")?;
        for (extension, text) in [("txt", &self.text), ("json", &raw)] {
            let file = folder.join(name).with_extension(extension);
            fs::write(&file, text).with_context(|| format!("could not write {}", file.display()))?;
        }
        print!("{}", self.text);
        eprintln!("bench: written to {}", folder.join(format!("{name}.{{txt,json}}")).display());
        Ok(())
    }
}

impl Table {
    /// The first column to the left, all others to the right.
    fn render(&self) -> String {
        let lines = || [&self.head].into_iter().chain(&self.rows);
        let columns = lines().map(Vec::len).max().unwrap_or_default();
        let width = |column: usize| lines().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max();
        let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or_default()).collect();
        let mut text = format!("{}\n", self.title);
        for line in lines() {
            let mut shown = String::new();
            for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
                // Writing to a String cannot fail.
                let _ = match column {
                    0 => write!(shown, "  {cell:<width$}"),
                    _ => write!(shown, "  {cell:>width$}"),
                };
            }
            text.push_str(shown.trim_end());
            text.push('\n');
        }
        self.remarks.iter().for_each(|remark| text.push_str(&format!("  {remark}\n")));
        text
    }
}

/// A time in seconds with three digits and its unit.
pub(crate) fn time(seconds: f64) -> String {
    let (value, unit) = match seconds {
        s if s < 1e-6 => (s * 1e9, "ns"),
        s if s < 1e-3 => (s * 1e6, "us"),
        s if s < 1.0 => (s * 1e3, "ms"),
        s => (s, "s"),
    };
    format!("{} {unit}", number(value))
}

/// A number with three digits.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// A median with the quartiles behind it.
pub(crate) fn spread(series: &Series, show: impl Fn(f64) -> String) -> String {
    if series.is_empty() {
        return "-".to_owned();
    }
    let (low, high) = series.quartiles();
    match series.values().len() {
        1 => show(series.median()),
        _ => format!("{} ({}..{})", show(series.median()), show(low), show(high)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_each_other() {
        let row = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>();
        let table = Table {
            title: "t".to_owned(),
            head: row(&["mode", "us"]),
            rows: vec![row(&["direct", "3"]), row(&["nft", "1234"])],
            remarks: vec!["r".to_owned()],
        };
        assert_eq!(table.render(), "t\n  mode      us\n  direct     3\n  nft     1234\n  r\n");
    }

    #[test]
    fn times_have_their_unit() {
        let cases = [(4.1e-6, "4.10 us"), (0.0375, "37.5 ms"), (121.0, "121 s"), (52e-9, "52.0 ns")];
        for (seconds, expected) in cases {
            assert_eq!(time(seconds), expected);
        }
        assert_eq!(spread(&Series::from(vec![1.0, 2.0, 3.0]), number), "2.00 (1.50..2.50)");
    }
}
