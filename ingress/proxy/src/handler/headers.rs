//! Fields that the configuration sets on requests and answers, or hides; and whom the whole controller answers 403.

use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode,
    header::{REFERER, USER_AGENT},
};
use roadstead_routes::{Blocks, Guard, TextPattern};

use super::{RequestFacts, Visit, external::set_fields, stages::Stage};
use crate::{
    answer::{AnswerBody, plain},
    fields::Origin,
};

/// Whether the controller's options let nobody like this client in.
pub(super) fn is_blocked<B>(blocks: &Blocks, origin: &Origin, request: &Request<B>) -> bool {
    if blocks.is_empty() {
        return false;
    }
    let matches = |patterns: &[TextPattern], name: HeaderName| {
        let value = request.headers().get(name).map_or(&b""[..], HeaderValue::as_bytes);
        patterns.iter().any(|pattern| pattern.matches(value))
    };
    blocks.networks.contains(origin.peer)
        || matches(&blocks.user_agents, USER_AGENT)
        || matches(&blocks.referers, REFERER)
}

/// Works out the fields that the endpoint gets and that answers get, while the request is as the client sent it.
pub(super) fn prepare<B>(visit: &mut Visit<'_>, request: &Request<B>) -> Stage {
    if visit.settings().headers.custom == Guard::Wrong {
        return Stage::Break(plain(StatusCode::SERVICE_UNAVAILABLE));
    }
    let add = &visit.generation.table.options().add_headers;
    if !visit.settings().headers.to_upstream.is_empty() {
        let facts = RequestFacts::of(visit, request);
        visit.upstream_fields = visit
            .settings()
            .headers
            .to_upstream
            .iter()
            .filter_map(|(name, template)| {
                let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
                Some((name, HeaderValue::from_bytes(&template.render(&facts)).ok()?))
            })
            .collect();
    }
    if !add.is_empty() {
        let mut fields = HeaderMap::new();
        set_fields(&mut fields, add, &RequestFacts::of(visit, request));
        visit.findings.added_fields = fields;
    }
    Stage::Continue(())
}

/// Takes fields out of an endpoint's answer.
pub(super) fn hide(visit: &Visit<'_>, headers: &mut HeaderMap) {
    for name in &visit.settings().headers.hidden {
        headers.remove(name.as_str());
    }
}

/// Sets the controller's fields on an answer, and the Ingress's over them.
pub(super) fn set_on_answer(visit: &Visit<'_>, response: &mut Response<AnswerBody>) {
    let headers = response.headers_mut();
    for (name, value) in &visit.findings.added_fields {
        headers.insert(name.clone(), value.clone());
    }
    for (name, value) in visit.settings().headers.custom.set().into_iter().flatten() {
        let field = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value));
        if let (Ok(name), Ok(value)) = field {
            headers.insert(name, value);
        }
    }
}
