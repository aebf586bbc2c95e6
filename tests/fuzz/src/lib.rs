//! Fuzzing the parsers of foreign bytes: a target each, with what must hold for every input, and one driver.
//!
//! The driver needs no instrumented build: it is a seeded mutation of a corpus that grows by what the target tells of its
//! input, so it runs on stable Rust, gives the same bytes for the same seed everywhere, and runs briefly as plain tests. The binary
//! `roadstead-fuzz` runs a target for long and replays a finding.

#![forbid(unsafe_code)]

mod drive;
mod mutate;
mod random;
pub mod targets;

pub use drive::{Finding, Report, drive, run_one};
pub use targets::{TARGETS, Target};
