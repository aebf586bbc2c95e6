//! HTTP/1 heads as raw bytes, looked at before hyper sees them.
//!
//! On the packet's way this stands between the (decrypted) stream and hyper. hyper accepts heads that two parsers may read
//! in two ways: Content-Length beside Transfer-Encoding, bare line feeds, several Hosts. `check` judges one head, `chunked`
//! follows the one body framing that has a grammar of its own, and `guard` keeps both at the message boundaries of a
//! stream. HTTP/2 passes untouched: its heads have no such ambiguity.

mod check;
mod chunked;
mod guard;

pub(crate) use check::is_authority;
pub use check::{Framing, Length, Refusal, check_head, end_of_head};
pub use chunked::Chunked;
pub use guard::{Guard, Hello, Limits, refused_status};

/// The largest head unless configuration says otherwise: request line, fields and the empty line.
pub const MAX_HEAD_BYTES: usize = 32 * 1024;

/// The most fields of a head.
pub const MAX_HEADERS: usize = 100;

/// Judges whatever bytes come, as the guard would; for fuzzing. An accepted head has gone through every check.
#[must_use]
pub fn fuzz_head(bytes: &[u8]) -> Option<Framing> {
    let end = end_of_head(bytes, 0).ok()??;
    check_head(bytes.get(..end)?).ok()
}
