//! Snippets at work: what they answer, whom they keep out, and which fields they change.

use std::ops::ControlFlow;

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, uri::PathAndQuery};
use roadstead_routes::{Change, Effects, SnippetAnswer};

use super::{RequestFacts, Visit, stages::Stage};
use crate::answer::{self, AnswerBody, plain};

/// The statuses of nginx's `add_header` without `always`.
const ADDED_TO: [u16; 10] = [200, 201, 204, 206, 301, 302, 303, 304, 307, 308];

/// Runs the snippets of the host and of the Ingress: the first of all stages, as in nginx.
pub(super) fn run<B>(visit: &mut Visit<'_>, request: &Request<B>) -> Stage {
    let snippets = &visit.route.settings.snippets;
    if snippets.close() {
        return ControlFlow::Break(plain(StatusCode::SERVICE_UNAVAILABLE));
    }
    let (server, location) = (visit.route.server_snippet.as_ref(), snippets.location.set());
    if server.is_none() && location.is_none() {
        return ControlFlow::Continue(());
    }
    let facts = RequestFacts::of(visit, request);
    let mut effects = Effects::default();
    for program in server.into_iter().chain(location) {
        if effects.answer.is_none() {
            program.run(&facts, visit.origin.peer, &mut effects);
        }
    }
    let Effects { answer, admitted, target, upstream, changes } = effects;
    visit.snippet_target = target.and_then(|target| PathAndQuery::try_from(target).ok());
    visit.upstream_fields.extend(upstream.into_iter().filter_map(|(name, value)| field(&name, &value)));
    visit.changes = changes;
    match (answer, admitted) {
        (Some(answer), _) => ControlFlow::Break(own(answer)),
        (None, Some(false)) => ControlFlow::Break(plain(StatusCode::FORBIDDEN)),
        (None, _) => ControlFlow::Continue(()),
    }
}

fn own(answer: SnippetAnswer) -> Response<AnswerBody> {
    match answer {
        SnippetAnswer::Redirect(to) => answer::redirect(&to),
        SnippetAnswer::Status(status, text) => {
            // nginx closes the connection at 444; a client that may see nothing of it is told that it may not.
            let status = StatusCode::from_u16(status).ok().filter(|status| status.as_u16() != 444);
            answer::text(status.unwrap_or(StatusCode::FORBIDDEN), text)
        }
    }
}

/// Changes the fields of an answer, an endpoint's or one of our own.
pub(super) fn change_answer(visit: &Visit<'_>, response: &mut Response<AnswerBody>) {
    let status = response.status().as_u16();
    let headers = response.headers_mut();
    for (name, change) in &visit.changes {
        match change {
            Change::Add(value) if ADDED_TO.contains(&status) => add(headers, name, value),
            Change::Add(_) => {}
            Change::AddAlways(value) => add(headers, name, value),
            Change::Set(value) if value.is_empty() => drop(headers.remove(&**name)),
            Change::Set(value) => drop(field(name, value).map(|(name, value)| headers.insert(name, value))),
            Change::Clear => drop(headers.remove(&**name)),
            Change::ClearAll => {
                let named: Vec<_> = headers.keys().filter(|key| key.as_str().starts_with(&**name)).cloned().collect();
                for name in named {
                    headers.remove(name);
                }
            }
        }
    }
}

fn add(headers: &mut HeaderMap, name: &str, value: &[u8]) {
    if let Some((name, value)) = field(name, value).filter(|(_, value)| !value.is_empty()) {
        headers.append(name, value);
    }
}

fn field(name: &str, value: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    Some((HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_bytes(value).ok()?))
}
