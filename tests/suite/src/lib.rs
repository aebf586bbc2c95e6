//! What the tests of this crate share. The tests themselves are in `tests/`: one file a question.
//!
//! It stands beside the house, not in it: nothing outside `tests/` depends on it.

#![forbid(unsafe_code)]

pub mod tidy;
