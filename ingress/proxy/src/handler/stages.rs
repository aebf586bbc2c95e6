//! The order of the stages. It is ingress-nginx's: redirects, how often, who may come, where to, how much, and only then an
//! endpoint.
//!
//! A stage before the endpoint is `fn(&mut Visit, &mut Request) -> ControlFlow<Response>`: it breaks with an answer of its own,
//! or lets the request go on. A stage behind it changes the answer. Both cost a request whose route does not use them one look
//! at a setting.

use std::ops::ControlFlow;

use http::Response;

use super::{
    ClientRequest, Visit, canary::choose_canary, cors, errors, external, forward::forward, headers, limit::limit,
    passing, redirects::redirects, rewrite::rewrite, snippets, who::who,
};

use crate::answer::AnswerBody;

/// Whether the request goes on, or is answered here.
pub(super) type Stage = ControlFlow<Response<AnswerBody>>;

/// Takes a request through all stages.
pub(super) async fn run(visit: &mut Visit<'_>, request: &mut ClientRequest) -> Response<AnswerBody> {
    let settings = visit.settings();
    let changes = settings.passing.changes_answers();
    let kept = (changes || visit.route.fallback.is_some()).then(|| Box::new(errors::head_of(request)));
    let mut response = match before(visit, request).await {
        ControlFlow::Break(response) => response,
        ControlFlow::Continue(()) => forward(visit, request).await,
    };
    if let Some(kept) = kept {
        if changes {
            passing::change_answer(visit, &kept, &mut response);
        }
        if !visit.fell_back {
            // Seldom, and as large as all the rest.
            response = Box::pin(errors::answered_by_default(visit, &kept, response)).await;
        }
    }
    after(visit, &mut response);
    response
}

/// What happens to a request before an endpoint gets it.
async fn before(visit: &mut Visit<'_>, request: &mut ClientRequest) -> Stage {
    headers::prepare(visit, request)?;
    // 1. CORS preflights: a browser sends them without credentials, and follows no redirect of one.
    cors::preflight(visit, request)?;
    // 2. Snippets, then redirects of the Ingress.
    snippets::run(visit, request)?;
    redirects(visit, request)?;
    if let Some(refusal) = visit.refusal.take() {
        return ControlFlow::Break(refusal);
    }
    // 3. How often: limits, before the work of finding out who it is, as in nginx.
    limit(visit)?;
    // 4. Who may come: source ranges, authentication.
    who(visit, request).await?;
    // 5. Where to: canaries.
    choose_canary(visit, request);
    errors::fall_back(visit, request);
    // 6. How much: the size of the body.
    // 7. As what: the rewritten path.
    rewrite(visit, request);
    passing::set_upstream_fields(visit, request);
    ControlFlow::Continue(())
}

/// What happens to an answer before the client gets it, an endpoint's or one of our own.
fn after(visit: &Visit<'_>, response: &mut Response<AnswerBody>) {
    let limits = &visit.settings().limits;
    if limits.rate > 0 {
        response.body_mut().slow_down(limits.rate, limits.rate_after);
    }
    external::set_cookies(visit, response);
    cors::share(visit, response);
    headers::set_on_answer(visit, response);
    snippets::change_answer(visit, response);
    for (name, value) in &visit.answer_fields {
        response.headers_mut().append(name.clone(), value.clone());
    }
}
