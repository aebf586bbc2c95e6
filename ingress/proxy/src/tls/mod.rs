//! TLS as it ends here: TLS 1.2 and 1.3 by rustls on ring, HTTP/2 by ALPN, certificates by SNI, clients' certificates by host.
//!
//! On the configuration's way `store` makes what the table says of hosts into `profile`s; on the packet's way a handshake takes
//! one of them, and `client_auth` judges the certificate that came with it. Certificates of hosts are in `certificates`.

mod client_auth;
mod name;
mod profile;
mod session;
mod store;
mod version1;

pub use client_auth::{ClientVerdict, ClientVerifier, Sentence, Standing};
pub use profile::{HostProfile, TlsChoice};
pub use session::Session;
pub use store::{TlsProfiles, TlsStore};

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};

/// The only provider of cryptography in this program.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}
