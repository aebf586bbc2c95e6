//! The order of the stages. It is ingress-nginx's: redirects, who may come, how often, where to, how much, and only then an
//! endpoint.
//!
//! A stage before the endpoint is `fn(&mut Visit, &mut Request) -> ControlFlow<Response>`: it breaks with an answer of its own,
//! or lets the request go on. A stage behind it changes the answer. Both cost a request whose route does not use them one look
//! at a setting.

use std::ops::ControlFlow;

use http::{Request, Response};
use hyper::body::Incoming;

use super::{Visit, access::admit_address, forward::forward, redirects::redirects, rewrite::rewrite};
use crate::answer::{AnswerBody, plain};

/// Whether the request goes on, or is answered here.
pub(super) type Stage = ControlFlow<Response<AnswerBody>>;

/// Takes a request through all stages.
pub(super) async fn run(mut visit: Visit<'_>, mut request: Request<Incoming>) -> Response<AnswerBody> {
    let mut response = match before(&mut visit, &mut request).await {
        ControlFlow::Break(response) => response,
        ControlFlow::Continue(()) => forward(&mut visit, request).await,
    };
    after(&visit, &mut response).await;
    response
}

/// What happens to a request before an endpoint gets it.
async fn before(visit: &mut Visit<'_>, request: &mut Request<Incoming>) -> Stage {
    // 1. Redirects of the Ingress.
    redirects(visit, request)?;
    if let Some(refusal) = visit.refusal.take() {
        return ControlFlow::Break(refusal);
    }
    // 2. Who may come: source ranges, authentication.
    who(visit)?;
    // 3. How often: limits.
    // 4. CORS preflight.
    // 5. Where to: canaries.
    // 6. How much: the size of the body.
    // 7. As what: the rewritten path.
    rewrite(visit, request);
    ControlFlow::Continue(())
}

/// Lets those on who may come.
fn who(visit: &Visit<'_>) -> Stage {
    let access = &visit.settings().access;
    if access.is_open() {
        return ControlFlow::Continue(());
    }
    match admit_address(access, visit.origin.peer) {
        Ok(()) => ControlFlow::Continue(()),
        Err(status) => ControlFlow::Break(plain(status)),
    }
}

/// What happens to an answer before the client gets it, an endpoint's or one of our own.
async fn after(visit: &Visit<'_>, response: &mut Response<AnswerBody>) {
    for (name, value) in &visit.answer_fields {
        response.headers_mut().append(name.clone(), value.clone());
    }
}
