//! What the tests of this crate share. The tests themselves are in `tests/`: one file a question.
//!
//! It stands beside the house, not in it: nothing outside `tests/` depends on it.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

pub mod tidy;

/// The top of the checkout that this crate was built from.
#[must_use]
pub fn top() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_owned()
}
