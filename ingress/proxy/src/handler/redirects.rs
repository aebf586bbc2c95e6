//! Requests that the route's Ingress sends elsewhere; the first stage of all.

use std::ops::ControlFlow;

use http::Request;
use roadstead_routes::redirect;

use super::{RequestFacts, Visit, stages::Stage};
use crate::answer;

/// Answers with a redirect where the Ingress asks for one.
pub(super) fn redirects<B>(visit: &Visit<'_>, request: &Request<B>) -> Stage {
    let facts = RequestFacts::of(visit, request);
    match redirect(&visit.generation.table, &visit.route, visit.origin.scheme, &facts) {
        Some(to) => ControlFlow::Break(answer::redirect(&to)),
        None => ControlFlow::Continue(()),
    }
}
