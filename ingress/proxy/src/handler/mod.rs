//! One request's way, from its head to its answer.
//!
//! [`handle`] is what the edge calls. `admit` refuses what no route may see, the table names the route, and `stages` runs what
//! the route's settings ask for, in ingress-nginx's order, on one [`Visit`]. Each stage is a file that can end the request with an
//! answer of its own. `forward` carries what is left to an endpoint and back.

mod access;
mod admit;
mod balance;
mod basic;
mod canary;
mod cors;
mod errors;
mod external;
mod facts;
mod forward;
mod grpc;
mod headers;
mod host_tls;
mod limit;
mod outgoing;
mod passing;
mod redirects;
mod rewrite;
mod snippets;
mod stages;
mod transport;
mod visit;
mod who;

pub use balance::fuzz_session;
pub use basic::fuzz_authorization;
pub(crate) use facts::RequestFacts;
pub(crate) use facts::{first_named, joined};
pub(crate) use visit::{Findings, Visit};

use std::{
    convert::Infallible,
    sync::{Arc, OnceLock},
};

use http::{HeaderValue, Request, Response, StatusCode, Version, header::CONNECTION, uri::PathAndQuery};
use hyper::body::Incoming;
use roadstead_routes::{Outcome, Scheme, route};

use crate::{
    answer::{AnswerBody, plain, redirect},
    control::Live,
    edge::Place,
    fields::{Origin, wants_websocket},
    handler::admit::{Admitted, admit, root_empty_path},
    record::{Record, Taken},
    tunnel::Ledger,
};

/// A client's request on its way through the stages. They share it, so that it is moved as seldom as can be; its body is taken
/// when it goes out.
pub(crate) type ClientRequest = Request<Option<Incoming>>;

/// Answers a request; every failure is an answer too.
///
/// # Errors
/// None.
pub async fn handle(
    live: Arc<Live>,
    origin: Origin,
    place: Arc<Place>,
    mut request: Box<ClientRequest>,
) -> Result<Response<AnswerBody>, Infallible> {
    let mut record = Box::new(Record::begin(&live, &origin, &request));
    let wanted_upgrade = request.version() < Version::HTTP_2 && wants_websocket(request.headers());
    if wanted_upgrade {
        request.extensions_mut().insert(place);
    }
    let is_call = grpc::is_call(&request);
    root_empty_path(request.uri_mut());
    let mut response = match admit(&request) {
        Ok(admitted) => answer(&live, &origin, &mut record, admitted, &mut request).await,
        Err(refusal) => *refusal,
    };
    if wanted_upgrade && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        // The guard stopped judging heads behind a wish to upgrade, so nothing more may be read as a request.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if is_call {
        grpc::translate(&mut response);
    }
    record.answered(&response);
    if let Some(ledger) = response.extensions_mut().remove::<Ledger>() {
        ledger.keep(record);
        return Ok(response);
    }
    Ok(response.map(|body| body.recorded(record)))
}

/// Finds the route, and lets its stages answer.
async fn answer(
    live: &Live,
    origin: &Origin,
    record: &mut Record,
    Admitted { host }: Admitted,
    request: &mut ClientRequest,
) -> Response<AnswerBody> {
    let generation = live.generation.load_full();
    record.keep(&generation.table.options().log, request.headers());
    if headers::is_blocked(&generation.table.options().blocks, origin, request) {
        return plain(StatusCode::FORBIDDEN);
    }
    let mut refusal = host_tls::enforce(&generation, origin, host.to_str().unwrap_or_default(), request).break_value();
    if let Some(refusal) = refusal.take_if(|_| origin.scheme == Scheme::Https) {
        return refusal;
    }
    let target = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
    let authority = host.to_str().unwrap_or_default();
    let (route, backend) = match route(&generation.table, origin.scheme, authority, target) {
        Outcome::BadPath(_) => return plain(StatusCode::BAD_REQUEST),
        Outcome::NotFound => return plain(StatusCode::NOT_FOUND),
        Outcome::Unavailable { .. } => return plain(StatusCode::SERVICE_UNAVAILABLE),
        Outcome::Redirect { redirect: to, .. } => return redirect(&to),
        Outcome::Proxy { route, backend } => (Arc::clone(route), backend),
    };
    let taken = Taken { generation: Arc::clone(&generation), route: Arc::clone(&route), backend };
    record.taken = Some(taken);
    let mut visit = Visit {
        record,
        live,
        origin,
        generation,
        route,
        backend,
        host,
        refusal,
        target: None,
        fell_back: false,
        snippet_target: None,
        changes: Vec::new(),
        upstream_fields: Vec::new(),
        answer_fields: Vec::new(),
        findings: Findings::default(),
        made_request_id: OnceLock::new(),
    };
    stages::run(&mut visit, request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_future<A, B, C, D, F>(_: fn(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    /// What a request needs on its way is moved to the heap as one piece: what hardly any request needs must stand in a box of its
    /// own.
    #[test]
    fn a_request_is_small() {
        let size = size_of_future(handle);
        println!("a request on its way takes {size} bytes");
        assert!(size <= 5 * 1024, "{size}");
    }
}
