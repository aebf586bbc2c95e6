//! Whether a request goes to the canary of its route: by the endpoint that its session is bound to, else as the canary's rules say.

use http::Request;
use roadstead_routes::Reach;

use super::{RequestFacts, Visit, balance::cookie_named};

/// Sends a request to the canary where it has to go there. One without endpoints takes none, as in ingress-nginx.
pub(super) fn choose_canary<B>(visit: &mut Visit<'_>, request: &Request<B>) {
    let Some(canary) = &visit.route.canary else { return };
    let backend = canary.backend;
    if visit.generation.pool(backend).is_none_or(|pool| !pool.has_ready()) {
        return;
    }
    let taken = bound_to_canary(visit, request)
        .unwrap_or_else(|| canary.takes(&RequestFacts::of(visit, request), |total| fastrand::u32(..total)));
    if taken {
        visit.backend = backend;
        if let Some(taken) = &mut visit.record.taken {
            taken.backend = backend;
        }
    }
}

/// What the cookie of the session says: clients stay with the backend that they have begun with, unless
/// `affinity-canary-behavior` is `legacy`.
fn bound_to_canary<B>(visit: &Visit<'_>, request: &Request<B>) -> Option<bool> {
    let settings = visit.settings();
    let affinity = settings.affinity.as_ref().filter(|_| settings.balance.reach == Reach::Endpoints)?;
    if affinity.ignores_canaries {
        return None;
    }
    let cookie = cookie_named(request.headers(), &affinity.cookie.name)?;
    let bound = std::str::from_utf8(cookie.split(|byte| *byte == b'|').nth(1)?).ok()?;
    let is = |id| visit.generation.pool(id).is_some_and(|pool| pool.backend_key() == bound);
    match &visit.route.canary {
        Some(canary) if is(canary.backend) => Some(true),
        _ => is(visit.backend).then_some(false),
    }
}
