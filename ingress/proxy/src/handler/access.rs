//! Who may come by address: the deny list first, then the allow list, as in ingress-nginx.
//!
//! It goes by the address that the edge believes to be the client's.

use std::net::IpAddr;

use http::StatusCode;
use roadstead_routes::{Access, Guard};

/// Whether a client may come.
///
/// # Errors
/// The status that it is sent away with: 403, or 503 where a list that guards the Ingress cannot be read.
pub(super) fn admit_address(access: &Access, client: IpAddr) -> Result<(), StatusCode> {
    match (&access.deny, &access.allow) {
        (Guard::Wrong, _) | (_, Guard::Wrong) => Err(StatusCode::SERVICE_UNAVAILABLE),
        (Guard::Set(denied), _) if denied.contains(client) => Err(StatusCode::FORBIDDEN),
        (_, Guard::Set(allowed)) if !allowed.contains(client) => Err(StatusCode::FORBIDDEN),
        _ => Ok(()),
    }
}
