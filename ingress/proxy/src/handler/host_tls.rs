//! What a host asks of a connection before any of its routes may be seen: that the client's certificate is good, and that the
//! connection was made for this host.
//!
//! A connection is judged by the host that its ClientHello named, so where either that host or the request's asks for
//! certificates the two must be one: else 421 (RFC 9110, section 15.5.20), and the client makes a connection of its own for
//! the host. This also ends the reuse of an HTTP/2 connection for another host of the same certificate. What endpoints are
//! told of a certificate they are told by this file alone. A client in the clear is refused too, but may first be sent to https.

use std::{ops::ControlFlow, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header::LOCATION, uri::PathAndQuery};
use roadstead_routes::{Redirect, Scheme, request_host};

use super::stages::Stage;
use crate::{
    answer::{plain, redirect},
    control::Generation,
    fields::Origin,
    tls::{ClientVerdict, ClientVerifier, Sentence, Session, Standing},
};

static VERIFY: HeaderName = HeaderName::from_static("ssl-client-verify");
static SUBJECT: HeaderName = HeaderName::from_static("ssl-client-subject-dn");
static ISSUER: HeaderName = HeaderName::from_static("ssl-client-issuer-dn");
static CERTIFICATE: HeaderName = HeaderName::from_static("ssl-client-cert");

/// Lets a request on to the routes of its host, or answers it.
pub(super) fn enforce<B>(generation: &Generation, origin: &Origin, authority: &str, request: &mut Request<B>) -> Stage {
    for name in [&VERIFY, &SUBJECT, &ISSUER, &CERTIFICATE] {
        request.headers_mut().remove(name);
    }
    let table = &generation.table;
    if table.tls_hosts().is_empty() {
        return ControlFlow::Continue(());
    }
    let host = request_host(authority);
    let wanted = table.tls_host(Some(&host));
    if wanted.and_then(|index| table.tls_hosts().get(index)).is_some_and(|host| host.passthrough.is_some()) {
        // Its endpoints speak TLS themselves; who ends TLS here asked for it under another name.
        let target = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
        return ControlFlow::Break(match origin.scheme {
            Scheme::Http => redirect(&Redirect {
                status: 308,
                location: format!("https://{host}{target}"),
                reason: "the host is passed through to an endpoint that speaks TLS",
            }),
            Scheme::Https => plain(StatusCode::MISDIRECTED_REQUEST),
        });
    }
    let session = request.extensions_mut().remove::<Arc<Session>>();
    let made_for = session.as_ref().map_or(wanted, |session| table.tls_host(session.name()));
    let verifier = |index: Option<usize>| generation.profiles.of(index?)?.client_auth.as_ref();
    let (judge, judge_of_connection) = (verifier(wanted), verifier(made_for));
    if judge.is_none() && judge_of_connection.is_none() {
        return ControlFlow::Continue(());
    }
    let named = session.as_ref().and_then(|session| session.name());
    let same_host = session.is_none() || named == Some(&*host) || (named.is_none() && !table.names(&host));
    let Some(judge) = judge.filter(|_| wanted == made_for && same_host) else {
        return ControlFlow::Break(plain(StatusCode::MISDIRECTED_REQUEST));
    };
    let verdict = match &session {
        Some(session) => session.verdict(judge),
        None => Some(Arc::new(ClientVerdict::absent())),
    };
    // The connection is older than the wish for a certificate: a new one will be asked.
    let Some(verdict) = verdict else { return ControlFlow::Break(plain(StatusCode::MISDIRECTED_REQUEST)) };
    carry_out(judge, &verdict, request.headers_mut())
}

fn carry_out(judge: &ClientVerifier, verdict: &ClientVerdict, headers: &mut HeaderMap) -> Stage {
    match judge.sentence(verdict) {
        Sentence::Admit => {
            tell(judge, verdict, headers);
            ControlFlow::Continue(())
        }
        Sentence::Forbid => ControlFlow::Break(plain(StatusCode::FORBIDDEN)),
        Sentence::Refuse { error_page: None } => ControlFlow::Break(plain(StatusCode::BAD_REQUEST)),
        Sentence::Refuse { error_page: Some(page) } => {
            let mut response = plain(StatusCode::FOUND);
            if let Ok(page) = HeaderValue::from_str(page) {
                response.headers_mut().insert(LOCATION, page);
            }
            ControlFlow::Break(response)
        }
    }
}

/// ingress-nginx's fields; without a certificate the names are empty, and are left out.
fn tell(judge: &ClientVerifier, verdict: &ClientVerdict, headers: &mut HeaderMap) {
    let standing = match &verdict.standing {
        Standing::Absent => "NONE".to_owned(),
        Standing::Good => "SUCCESS".to_owned(),
        Standing::Unverified(reason) | Standing::Bad(reason) => format!("FAILED:{reason}"),
    };
    let certificate = if judge.passes_certificate() { verdict.escaped_pem.as_str() } else { "" };
    for (name, value) in [
        (&VERIFY, standing.as_str()),
        (&SUBJECT, &verdict.subject),
        (&ISSUER, &verdict.issuer),
        (&CERTIFICATE, certificate),
    ] {
        if !value.is_empty()
            && let Ok(value) = HeaderValue::from_str(value)
        {
            headers.insert(name.clone(), value);
        }
    }
}
