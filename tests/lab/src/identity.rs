//! The name under which everything of one lab is found: its namespaces, cgroups and pins.
//!
//! The process that made a lab is part of the name, so that labs of several processes and threads stand beside each
//! other, and so that a lab whose process is gone can be told from a living one.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::atomic::{AtomicU32, Ordering};

/// What every name begins with.
const PREFIX: &str = "roadstead-lab-";

/// One lab of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LabId {
    process: u32,
    number: u32,
}

impl LabId {
    /// A name that no other lab on this host has.
    pub(crate) fn unused() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        Self { process: std::process::id(), number: NUMBER.fetch_add(1, Ordering::Relaxed) }
    }

    /// Whether the process that made the lab is there. A process that got the number of a dead one keeps that one's
    /// leftovers in place; the next sweep takes them.
    pub(crate) fn is_alive(self) -> bool {
        Path::new("/proc").join(self.process.to_string()).exists()
    }

    /// Whether this very process made the lab.
    pub(crate) fn is_ours(self) -> bool {
        self.process == std::process::id()
    }

    /// The namespace of a place. The dot ends the lab's own name.
    pub(crate) fn namespace(self, place: &str) -> String {
        format!("{self}.{place}")
    }
}

impl fmt::Display for LabId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}-{}", self.process, self.number)
    }
}

impl FromStr for LabId {
    type Err = ();

    /// Reads the name of a lab, or of a namespace of a lab.
    fn from_str(text: &str) -> Result<Self, ()> {
        let lab = text.split_once('.').map_or(text, |(lab, _)| lab);
        let (process, number) = lab.strip_prefix(PREFIX).and_then(|rest| rest.split_once('-')).ok_or(())?;
        Ok(Self { process: process.parse().map_err(|_| ())?, number: number.parse().map_err(|_| ())? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        let id = LabId { process: 812, number: 3 };
        let cases = [
            (id.to_string(), Some(id)),
            (id.namespace("node-a"), Some(id)),
            ("roadstead-lab-812-3".to_owned(), Some(id)),
            ("roadstead-lab-812".to_owned(), None),
            ("roadstead-lab-x-3".to_owned(), None),
            ("roadstead".to_owned(), None),
            ("cni-812-3".to_owned(), None),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse().ok(), expected, "{text}");
        }
    }

    #[test]
    fn two_labs_of_a_process_differ() {
        assert_ne!(LabId::unused(), LabId::unused());
        assert!(LabId::unused().is_alive() && LabId::unused().is_ours());
    }
}
