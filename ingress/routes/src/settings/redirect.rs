//! Redirects that an Ingress asks for before anything else happens to a request.

use super::Reader;

/// Whether and where requests are sent away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirects {
    /// `ssl-redirect`: plain requests for a TLS host are sent to https.
    pub ssl: bool,
}

impl Default for Redirects {
    fn default() -> Self {
        Self { ssl: true }
    }
}

impl Redirects {
    pub(super) fn read(reader: &mut Reader<'_>, base: &Self) -> Self {
        Self { ssl: reader.either("ssl-redirect").boolean().unwrap_or(base.ssl) }
    }
}
