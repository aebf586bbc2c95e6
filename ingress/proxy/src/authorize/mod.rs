//! Asking an authentication service whether a request may come (nginx's auth_request).
//!
//! A stage makes the question; here it is answered from what is kept, or by the service: `hosts` and the Services of the snapshot
//! tell where it is, `connection` talks to it, `cache` keeps what may be kept. A service over TLS is verified against the
//! host's own roots. Every failure is the caller's 500: a service that cannot be asked lets nobody in.

mod cache;
mod connection;
mod hosts;

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwap;
use http::{
    HeaderMap, HeaderName, Method, StatusCode, Uri,
    header::{SET_COOKIE, WWW_AUTHENTICATE},
    uri::PathAndQuery,
};
use roadstead_model::{ObjectName, ObjectRef, Problem, Severity, Snapshot};
use roadstead_routes::{AuthCache, AuthKeepalive, Backend, Endpoints, endpoints_of};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;

use crate::tls;
use cache::Verdicts;
use connection::{Head, Peer, exchange};
use hosts::Hosts;

pub use connection::sweep_idle;

/// Endpoints of a service that are tried for one question.
const MAX_TRIES: usize = 3;

/// What a service said.
pub(crate) struct Verdict {
    pub(crate) status: StatusCode,
    /// The fields that anybody asked for, besides cookies and the challenge.
    pub(crate) headers: HeaderMap,
}

/// What a service is asked.
pub(crate) struct Question<'a> {
    pub(crate) method: Method,
    /// Absolute.
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    /// The Service of the cluster that the URL names.
    pub(crate) service: Option<&'a Backend>,
    pub(crate) keepalive: AuthKeepalive,
    /// Fields of the answer that somebody will want.
    pub(crate) wanted: &'a [String],
    /// How the answer is kept, and by which parts of the request.
    pub(crate) cache: Option<(&'a AuthCache, Vec<Vec<u8>>)>,
}

/// Asks; shared by all threads.
#[derive(Default)]
pub struct Authorizer {
    services: ArcSwap<HashMap<Backend, Vec<SocketAddr>>>,
    hosts: Hosts,
    verdicts: Verdicts,
    tls: OnceLock<Option<Arc<ClientConfig>>>,
    turn: AtomicUsize,
}

impl Authorizer {
    /// Takes the endpoints of the Services that are asked. One that is not there is left to the resolver.
    pub fn update<'t>(
        &self,
        services: impl Iterator<Item = (&'t ObjectName, &'t Backend)>,
        snapshot: &Snapshot,
        problems: &mut Vec<Problem>,
    ) {
        let mut found = HashMap::new();
        for (ingress, service) in services {
            if found.contains_key(service) {
                continue;
            }
            match endpoints_of(snapshot, service, None) {
                // What is only another name is the resolver's matter.
                Ok(endpoints) if endpoints.external.is_some() => {}
                Ok(Endpoints { ready, draining, .. }) => {
                    found.insert(service.clone(), if ready.is_empty() { draining } else { ready });
                }
                Err(error) => {
                    let object = Some(ObjectRef { kind: "Ingress".to_owned(), name: ingress.clone() });
                    let field = Some("metadata.annotations[nginx.ingress.kubernetes.io/auth-url]".to_owned());
                    let reason = format!("{error}; its name is looked up by DNS");
                    problems.push(Problem { severity: Severity::Warning, place: None, object, field, reason });
                }
            }
        }
        if **self.services.load() != found {
            self.services.store(Arc::new(found));
        }
    }

    /// The service's answer, or one that is kept.
    pub(crate) async fn ask(&self, question: Question<'_>) -> io::Result<Arc<Verdict>> {
        let key = question
            .cache
            .as_ref()
            .map(|(cache, parts)| (*cache, self.verdicts.key(&parts.iter().map(Vec::as_slice).collect::<Vec<_>>())));
        if let Some(kept) = key.and_then(|(_, key)| self.verdicts.find(key)) {
            return Ok(kept);
        }
        let answer = self.ask_service(&question).await?;
        let mut headers = HeaderMap::new();
        let wanted = question.wanted.iter().filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok());
        for name in wanted.chain([SET_COOKIE, WWW_AUTHENTICATE]) {
            if !headers.contains_key(&name) {
                for value in answer.headers.get_all(&name) {
                    headers.append(name.clone(), value.clone());
                }
            }
        }
        let verdict = Arc::new(Verdict { status: answer.status, headers });
        if let Some((cache, key)) = key {
            self.verdicts.keep(key, &verdict, &answer.headers, cache);
        }
        Ok(verdict)
    }

    async fn ask_service(&self, question: &Question<'_>) -> io::Result<http::response::Parts> {
        let secure = question.uri.scheme() == Some(&http::uri::Scheme::HTTPS);
        let host = question.uri.host().ok_or_else(|| io::Error::other("the URL has no host"))?;
        let name = secure.then(|| ServerName::try_from(host.to_owned())).transpose().map_err(io::Error::other)?;
        let port = question.uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let addresses = self.addresses(question.service, host, port).await?;
        let target = question.uri.path_and_query().map_or("/", PathAndQuery::as_str);
        let head = Head {
            method: question.method.clone(),
            uri: target.parse().map_err(io::Error::other)?,
            headers: question.headers.clone(),
        };
        let tls = name.as_ref().and_then(|_| self.tls());
        let start = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut failure = io::Error::other("the service has no endpoint");
        for step in 0..addresses.len().min(MAX_TRIES) {
            let Some(address) = addresses.get((start.wrapping_add(step)) % addresses.len()) else { break };
            let peer = Peer { address: *address, tls: name.clone() };
            match exchange(&peer, tls, &head, question.keepalive).await {
                Ok(answer) => return Ok(answer),
                // It has waited long enough.
                Err(error) if error.kind() == io::ErrorKind::TimedOut => return Err(error),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    async fn addresses(&self, service: Option<&Backend>, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let known = service.and_then(|service| self.services.load().get(service).cloned());
        match known {
            Some(endpoints) => Ok(endpoints),
            None => self.hosts.resolve(host, port).await,
        }
    }

    /// Made when it is first needed: most installations ask nobody over TLS.
    fn tls(&self) -> Option<&Arc<ClientConfig>> {
        let made = self.tls.get_or_init(|| {
            let mut roots = RootCertStore::empty();
            let native = rustls_native_certs::load_native_certs();
            let (added, refused) = roots.add_parsable_certificates(native.certs);
            if added == 0 {
                tracing::error!(refused, "this host has no trusted roots, no auth-url over https can be asked");
                return None;
            }
            let builder = ClientConfig::builder_with_provider(tls::provider()).with_safe_default_protocol_versions();
            let config = builder.ok()?.with_root_certificates(roots).with_no_client_auth();
            Some(Arc::new(config))
        });
        made.as_ref()
    }
}
