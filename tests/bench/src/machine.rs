//! The machine that a run was made on: what figures mean nothing without.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

/// What the header of every result says.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) kernel: String,
    pub(crate) processor: String,
    pub(crate) processors: usize,
    pub(crate) load: String,
    pub(crate) versions: Vec<String>,
}

impl Machine {
    /// Looks at this one, and asks programs for their versions, each by its flag.
    pub(crate) fn look(programs: &[(String, &str)]) -> Self {
        let cpuinfo = read("/proc/cpuinfo");
        let field = |name: &str| {
            let line = cpuinfo.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(": ")).map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        let model = format!("{} (family {} model {})", field("model name"), field("cpu family"), field("model\t"));
        Self {
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            processor: model,
            processors: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            load: read("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" "),
            versions: programs.iter().filter_map(|(program, flag)| version(program, flag)).collect(),
        }
    }

    /// The CPU that client and server share: the last one, which gets the fewest interrupts.
    pub(crate) fn measuring_cpu(&self) -> usize {
        self.processors.saturating_sub(1)
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "kernel": self.kernel,
            "processor": self.processor,
            "processors": self.processors,
            "load_at_start": self.load,
            "versions": self.versions,
        })
    }
}

/// The program's name and the number in the first line that it says.
fn version(program: &str, flag: &str) -> Option<String> {
    let output = Command::new(program).arg(flag).output().ok()?;
    let said = [output.stdout, output.stderr].concat();
    let number = number(&String::from_utf8_lossy(&said))?;
    Some(format!("{} {number}", Path::new(program).file_name()?.display()))
}

fn number(text: &str) -> Option<String> {
    let line = text.lines().find(|line| !line.trim().is_empty())?;
    let words = line.split([' ', '/']).map(|word| word.trim_start_matches('v'));
    let mut numbers = words.filter(|word| word.starts_with(|first: char| first.is_ascii_digit()) && word.contains('.'));
    numbers.next().map(str::to_owned)
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_in_what_programs_say() {
        let cases = [
            ("nftables v1.0.6 (Lester Gooch #5)\n", "1.0.6"),
            ("nginx version: nginx/1.22.1\n", "1.22.1"),
            ("HAProxy version 2.6.12-1+deb12u4 2026/10/17 - https://haproxy.org/\n", "2.6.12-1+deb12u4"),
            ("wrk debian/4.1.0-3+b2 [epoll] Copyright\n", "4.1.0-3+b2"),
            ("\nenvoy  version: 9e55809337/1.40.0/Clean/RELEASE/BoringSSL\n", "1.40.0"),
        ];
        for (text, expected) in cases {
            assert_eq!(number(text).as_deref(), Some(expected));
        }
        assert_eq!(number("nothing"), None);
    }
}
