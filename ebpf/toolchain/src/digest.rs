//! SHA-256 in hexadecimal, of parts that cannot run into each other.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

/// Hashes the parts, each with its length before it.
pub fn of_parts<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
