//! What is known of a request on its way through the stages.

use std::sync::{Arc, OnceLock};

use http::{HeaderMap, HeaderName, HeaderValue, Response, uri::PathAndQuery};
use roadstead_routes::{BackendId, Change, Route, Settings};

use crate::{
    answer::AnswerBody,
    control::{Generation, Live},
    fields::Origin,
    record::Record,
    upstream::Pool,
};

/// One request and what has been decided about it. Stages read it, and write what later ones go by.
pub(crate) struct Visit<'a> {
    /// What the log and the metrics will tell of it.
    pub(crate) record: &'a mut Record,
    /// What is served.
    pub(crate) live: &'a Live,
    /// Where the request came from.
    pub(crate) origin: &'a Origin,
    /// The generation of routes that it was judged by; kept to its end.
    pub(crate) generation: Arc<Generation>,
    /// The route that takes it.
    pub(crate) route: Arc<Route>,
    /// Where it goes; the route's own backend until a stage chooses another.
    pub(crate) backend: BackendId,
    /// The authority that it is for, as the client wrote it.
    pub(crate) host: HeaderValue,
    /// What a client in the clear gets in place of an answer, unless the Ingress sends it to https.
    pub(crate) refusal: Option<Response<AnswerBody>>,
    /// It goes to the Ingress's default backend, because its own has no endpoint.
    pub(crate) fell_back: bool,
    /// The target that a snippet chose, unless the Ingress rewrites it anyway.
    pub(crate) snippet_target: Option<PathAndQuery>,
    /// What snippets do to the fields of whatever answer the client gets.
    pub(crate) changes: Vec<(Box<str>, Change<Vec<u8>>)>,
    /// The target that the endpoint gets, where it is not the client's own.
    pub(crate) target: Option<PathAndQuery>,
    /// Fields that the endpoint gets instead of the client's, once all others are decided; an empty one is left out.
    pub(crate) upstream_fields: Vec<(HeaderName, HeaderValue)>,
    /// Fields that stages add to whatever answer the client gets.
    pub(crate) answer_fields: Vec<(HeaderName, HeaderValue)>,
    /// What the stages for who may come found out.
    pub(crate) findings: Findings,
    /// Made for a request that brings none, once somebody asks.
    pub(crate) made_request_id: OnceLock<HeaderValue>,
}

/// What the stages for who may come hand to later ones.
#[derive(Default)]
pub(crate) struct Findings {
    /// Fields of the controller's own on the answer.
    pub(crate) added_fields: HeaderMap,
    /// Cookies of the authentication service.
    pub(crate) auth_cookies: Vec<HeaderValue>,
    /// Access-Control-Allow-Origin, where the request's origin may ask.
    pub(crate) cors_origin: Option<HeaderValue>,
}

impl Visit<'_> {
    /// The settings of the route's Ingress.
    pub(crate) fn settings(&self) -> &Settings {
        &self.route.settings
    }

    /// The endpoints that the request goes to.
    pub(crate) fn pool(&self) -> Option<&Arc<Pool>> {
        self.generation.pool(self.backend)
    }

    /// The authority as text; it was checked to be one.
    pub(crate) fn authority(&self) -> &str {
        self.host.to_str().unwrap_or_default()
    }
}
