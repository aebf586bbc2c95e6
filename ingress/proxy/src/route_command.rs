//! `roadstead-ingress route`: what would take a request, by what the source says now.

use std::{net::IpAddr, process::ExitCode, sync::OnceLock};

use http::{HeaderValue, Request};
use roadstead_model::Snapshot;
use roadstead_routes::{
    BackendId, Effects, Outcome, Redirect, Route, Scheme, SnippetAnswer, Table, Target, compile, endpoints_of,
    redirect, route as find,
};
use roadstead_sources::read;
use serde::Serialize;

use crate::{
    cli::{Output, RouteFlags},
    fields::Origin,
    handler::RequestFacts,
    run::interest,
};

/// The answer; its fields only ever grow (DESIGN section 1).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// Namespace of the Ingress.
    pub namespace: Option<String>,
    /// Its name.
    pub ingress: Option<String>,
    /// The rule's host; null matches every host.
    pub host: Option<String>,
    /// The path as written; null for a default backend.
    pub path: Option<String>,
    /// Its type.
    pub path_type: Option<String>,
    /// The Service.
    pub service: Option<String>,
    /// Its port, by number or name as the Ingress says.
    pub port: Option<String>,
    /// Where requests go in turn.
    pub endpoints: Vec<String>,
    /// `proxy`, `redirect`, `deny` and `answer` (by a snippet), `unavailable` (503), `not-found` (404) or `bad-request` (400).
    pub action: &'static str,
    /// Of a redirect.
    pub location: Option<String>,
    /// The status of an answer of our own.
    pub status: Option<u16>,
    /// Why, for a person.
    pub reason: String,
}

/// Prints the answer; fails where a client would get an error.
///
/// # Errors
/// The answer could not be written as JSON.
pub fn route(flags: &RouteFlags) -> anyhow::Result<ExitCode> {
    let controller = flags.classes.controller();
    let snapshot = read(&flags.source, interest(&controller, None))?;
    let compiled = compile(&snapshot, &controller);
    for problem in snapshot.problems.iter().chain(&compiled.problems) {
        eprintln!("{problem}");
    }
    let scheme = if flags.https { Scheme::Https } else { Scheme::Http };
    let answer = answer(&snapshot, &compiled.table, scheme, &flags.host, &flags.path);
    match flags.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&answer)?),
        Output::Text => print!("{}", text(&answer)),
    }
    Ok(if matches!(answer.action, "proxy" | "redirect") { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Asks the very functions that the proxy asks.
#[must_use]
pub fn answer(snapshot: &Snapshot, table: &Table, scheme: Scheme, host: &str, path: &str) -> Answer {
    match find(table, scheme, host, path) {
        Outcome::BadPath(bad) => Answer { action: "bad-request", reason: bad.to_string(), ..Answer::default() },
        Outcome::NotFound => Answer {
            action: "not-found",
            reason: "no rule matches and no default backend takes what is left".to_owned(),
            ..Answer::default()
        },
        Outcome::Redirect { route, redirect } => redirected(of_route(snapshot, table, route), redirect),
        Outcome::Unavailable { route } => of_route(snapshot, table, route),
        Outcome::Proxy { route, backend } => {
            let answer = of_route(snapshot, table, route);
            let Some(request) = DryRequest::new(scheme, host, path) else {
                let reason = "host or path cannot stand in a request".to_owned();
                return Answer { action: "bad-request", reason, ..Answer::default() };
            };
            let facts = request.facts(table, route, backend);
            if let Some(answer) = by_snippets(&answer, route, &facts) {
                return answer;
            }
            match redirect(table, route, scheme, &facts) {
                Some(redirect) => redirected(answer, redirect),
                None => with_canary(answer, table, route),
            }
        }
    }
}

fn redirected(answer: Answer, redirect: Redirect) -> Answer {
    let reason = redirect.reason.to_owned();
    Answer { action: "redirect", status: Some(redirect.status), location: Some(redirect.location), reason, ..answer }
}

/// What the snippets of host and Ingress answer; of clients' addresses a dry run knows nothing.
fn by_snippets(answer: &Answer, route: &Route, facts: &RequestFacts<'_>) -> Option<Answer> {
    let told = |action, status, reason: &str| Answer {
        action,
        status: Some(status),
        reason: reason.to_owned(),
        ..answer.clone()
    };
    if route.settings.snippets.close() {
        return Some(told("unavailable", 503, "a snippet of the Ingress is refused, so nobody may pass"));
    }
    let mut effects = Effects::default();
    for program in route.server_snippet.iter().chain(route.settings.snippets.location.set()) {
        if effects.answer.is_none() {
            program.run(facts, IpAddr::from([0, 0, 0, 0]), &mut effects);
        }
    }
    match effects.answer? {
        SnippetAnswer::Redirect(redirect) => Some(redirected(answer.clone(), redirect)),
        SnippetAnswer::Status(status @ 400.., _) => Some(told("deny", status, "a snippet returns that status")),
        SnippetAnswer::Status(status, _) => Some(told("answer", status, "a snippet answers by itself")),
    }
}

/// Adds to the reason that a canary takes some of the requests.
fn with_canary(answer: Answer, table: &Table, route: &Route) -> Answer {
    let Some(canary) = &route.canary else { return answer };
    let service = table.backend(canary.backend).map(|backend| backend.service.to_string()).unwrap_or_default();
    let reason = format!("{}; canary {} takes some requests to service {service}", answer.reason, canary.ingress);
    Answer { reason, ..answer }
}

/// A GET that nobody sent, with no fields but its host, from nowhere.
struct DryRequest {
    origin: Origin,
    host: HeaderValue,
    request: Request<()>,
    request_id: OnceLock<HeaderValue>,
}

impl DryRequest {
    fn new(scheme: Scheme, host: &str, target: &str) -> Option<Self> {
        let port = if scheme == Scheme::Https { 443 } else { 80 };
        let origin = Origin { peer: IpAddr::from([0, 0, 0, 0]), port, scheme };
        let request = Request::get(target).body(()).ok()?;
        Some(Self { origin, host: HeaderValue::from_str(host).ok()?, request, request_id: OnceLock::new() })
    }

    fn facts<'a>(&'a self, table: &'a Table, route: &'a Route, backend: BackendId) -> RequestFacts<'a> {
        RequestFacts {
            origin: &self.origin,
            host: &self.host,
            table,
            route,
            backend,
            made_request_id: &self.request_id,
            method: self.request.method(),
            uri: self.request.uri(),
            version: self.request.version(),
            headers: self.request.headers(),
        }
    }
}

fn of_route(snapshot: &Snapshot, table: &Table, route: &Route) -> Answer {
    let mut answer = Answer {
        namespace: Some(route.ingress.namespace.to_string()).filter(|name| !name.is_empty()),
        ingress: Some(route.ingress.name.to_string()).filter(|name| !name.is_empty()),
        host: route.host.as_ref().map(ToString::to_string),
        path: route.path.as_ref().map(|(_, path)| path.clone()),
        path_type: route.path.as_ref().map(|(path_type, _)| path_type.to_string()),
        action: "unavailable",
        ..Answer::default()
    };
    let backend = match &route.target {
        Target::Backend(id) => table.backend(*id),
        Target::Resource { kind, name } => {
            answer.reason = format!("{kind} {name}: resource backends are not served");
            None
        }
    };
    let Some(backend) = backend else { return answer };
    answer.service = Some(backend.service.name.to_string());
    answer.port = Some(backend.port.to_string());
    match endpoints_of(snapshot, backend, None) {
        Err(error) => answer.reason = error.to_string(),
        Ok(endpoints) if endpoints.usable().is_empty() && endpoints.external.is_none() => {
            answer.reason = format!("service {} has no ready endpoint", backend.service);
        }
        Ok(endpoints) => {
            let external = endpoints.external.iter().map(|(name, port)| format!("{name}:{port}"));
            answer.endpoints = endpoints.usable().iter().map(ToString::to_string).chain(external).collect();
            answer.action = "proxy";
            answer.reason = match &route.path {
                Some((path_type, path)) => format!("{path_type} path {path:?} is the longest that matches"),
                None => "no path matches, the default backend takes it".to_owned(),
            };
        }
    }
    answer
}

fn text(answer: &Answer) -> String {
    let none = || "<none>".to_owned();
    let named = |first: &Option<String>, joint: &str, second: &Option<String>| match (first, second) {
        (Some(first), Some(second)) => format!("{first}{joint}{second}"),
        _ => none(),
    };
    let rows = [
        ("Action", answer.action.to_owned()),
        ("Ingress", named(&answer.namespace, "/", &answer.ingress)),
        ("Host", answer.host.clone().unwrap_or_else(|| "*".to_owned())),
        ("Path", named(&answer.path_type, " ", &answer.path)),
        ("Backend", named(&answer.service, ":", &answer.port)),
        ("Endpoints", if answer.endpoints.is_empty() { none() } else { answer.endpoints.join(", ") }),
        ("Location", answer.location.clone().unwrap_or_else(none)),
        ("Reason", answer.reason.clone()),
    ];
    rows.iter().map(|(name, value)| format!("{:<11}{value}\n", format!("{name}:"))).collect()
}
