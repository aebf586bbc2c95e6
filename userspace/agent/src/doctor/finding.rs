//! One finding, and how findings are shown. The JSON fields are an interface and only ever grow.

use std::io::{self, Write};

use serde_json::json;

/// What was found, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// What was looked at, one word.
    pub(super) check: &'static str,
    pub(super) level: Level,
    pub(super) found: String,
    /// What to do; empty where nothing is to be done.
    pub(super) advice: String,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// As it should be.
    Ok,
    /// The daemons work, but not all of it or not well; or it could not be seen.
    Warn,
    /// A daemon cannot do its work.
    Fail,
}

impl Level {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

impl Finding {
    pub(super) fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, level: Level::Ok, found: found.into(), advice: String::new() }
    }

    pub(super) fn warn(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check, level: Level::Warn, found: found.into(), advice: advice.into() }
    }

    pub(super) fn fail(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check, level: Level::Fail, found: found.into(), advice: advice.into() }
    }
}

/// A line for each, and below it what to do.
pub(super) fn print(findings: &[Finding], out: &mut impl Write) -> io::Result<()> {
    let width = findings.iter().map(|finding| finding.check.len()).max().unwrap_or(0);
    for finding in findings {
        writeln!(out, "{:<4}   {:<width$}   {}", finding.level.as_str(), finding.check, finding.found)?;
        if !finding.advice.is_empty() {
            writeln!(out, "{:<4}   {:<width$}   -> {}", "", "", finding.advice)?;
        }
    }
    let of = |level| findings.iter().filter(|finding| finding.level == level).count();
    writeln!(out, "{} ok, {} to look at, {} in the way", of(Level::Ok), of(Level::Warn), of(Level::Fail))
}

/// One list.
pub(super) fn print_json(findings: &[Finding], out: &mut impl Write) -> io::Result<()> {
    let list: Vec<_> = findings
        .iter()
        .map(|finding| {
            json!({
                "check": finding.check,
                "status": finding.level.as_str(),
                "found": finding.found,
                "advice": Some(&finding.advice).filter(|advice| !advice.is_empty()),
            })
        })
        .collect();
    writeln!(out, "{:#}", serde_json::Value::Array(list))
}
