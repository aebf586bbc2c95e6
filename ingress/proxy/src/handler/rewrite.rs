//! The path that the endpoint gets to see, where the Ingress rewrites it; the last stage before the endpoint.

use http::{HeaderName, HeaderValue, Request, uri::PathAndQuery};
use roadstead_routes::rewritten;

use super::{RequestFacts, Visit};

/// Decides the target for the endpoint. The request keeps its own, which later stages and the log still ask for.
pub(super) fn rewrite<B>(visit: &mut Visit<'_>, request: &Request<B>) {
    visit.target = visit.snippet_target.take();
    let settings = &visit.route.settings.rewrite;
    if settings.target.is_none() {
        return;
    }
    let facts = RequestFacts::of(visit, request);
    let Some(target) = rewritten(&visit.route, &facts).and_then(|target| PathAndQuery::try_from(target).ok()) else {
        return;
    };
    let prefix =
        settings.forwarded_prefix.as_ref().and_then(|prefix| HeaderValue::from_bytes(&prefix.render(&facts)).ok());
    visit.target = Some(target);
    if let Some(prefix) = prefix {
        visit.upstream_fields.push((HeaderName::from_static("x-forwarded-prefix"), prefix));
    }
}
