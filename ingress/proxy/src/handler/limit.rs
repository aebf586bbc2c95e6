//! How often a client may come to an Ingress; who comes too often is told so (nginx's preaccess phase).

use std::ops::ControlFlow;

use http::StatusCode;

use super::{Visit, stages::Stage};
use crate::{answer::plain, limiter::Exceeded};

/// Counts the request. Its place among those of its client is kept until its answer, or its tunnel, is at its end.
pub(super) fn limit(visit: &mut Visit<'_>) -> Stage {
    let limits = &visit.route.settings.limits;
    if !limits.counts() {
        return ControlFlow::Continue(());
    }
    match visit.live.policy.limiter.admit(limits, &visit.route.ingress, visit.origin.peer) {
        Ok(held) => {
            visit.record.held = held;
            ControlFlow::Continue(())
        }
        Err(exceeded) => {
            let status = match exceeded {
                Exceeded::Rate => limits.request_status,
                Exceeded::Connections => limits.connection_status,
            };
            ControlFlow::Break(plain(StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE)))
        }
    }
}
