//! One request's choice of endpoints: the first, and the next when that one fails.

use std::sync::Arc;

use roadstead_routes::{Policy, SameSite, Settings};

use super::{
    Pool,
    endpoint::{Endpoint, InUse, Timing},
    health::Limits,
    now,
    session::Session,
};

/// What a request came to at an endpoint, as far as it tells something of the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It answered.
    Answered,
    /// There was no connection, or it broke before an answer.
    Unreachable,
    /// Neither: it was slow, or the client gave up.
    Unknown,
}

/// The endpoints for one request, chosen one at a time; none twice.
#[derive(Debug)]
pub(crate) struct Selection {
    pool: Arc<Pool>,
    settings: Arc<Settings>,
    /// The key of `upstream-hash-by`, rendered for the request.
    key: Option<Vec<u8>>,
    /// The session, where the route has affinity.
    session: Option<Session>,
    /// Those that failed; empty for most requests, which costs no allocation.
    tried: Vec<Arc<Endpoint>>,
}

impl Selection {
    pub(crate) fn new(pool: Arc<Pool>, settings: Arc<Settings>) -> Self {
        Self { pool, settings, key: None, session: None, tried: Vec::new() }
    }

    /// Chooses by a key.
    pub(crate) fn with_key(mut self, key: Option<Vec<u8>>) -> Self {
        self.key = key;
        self
    }

    /// Chooses by a session.
    pub(crate) fn with_session(mut self, session: Option<Session>) -> Self {
        self.session = session;
        self
    }

    /// The settings that it chooses by.
    pub(crate) fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    /// The cookie's value and its `SameSite` that binds the client to the endpoint that was chosen last, where it is not bound to it already.
    pub(crate) fn session_cookie(&self) -> Option<(String, Option<SameSite>)> {
        let (endpoint, same_site) = self.session.as_ref()?.drawn()?;
        Some((format!("{endpoint}|{}", self.pool.backend_key()), same_site))
    }

    /// The next endpoint, and with it one more request that it has.
    pub(crate) fn next(&mut self) -> Option<InUse> {
        let members = self.pool.members.load();
        let balance = &self.settings.balance;
        let chosen = match (&mut self.session, &self.settings.affinity, &self.key) {
            (Some(session), Some(affinity), _) => session.choose(&members, affinity, balance.policy, &self.tried),
            (_, _, Some(key)) => {
                let subset = balance.hash_by.as_ref().and_then(|hash_by| hash_by.subset);
                let bound = match subset {
                    Some(size) => members.by_set(key, size.get(), &self.tried),
                    None => members.by_key(key, &self.tried),
                };
                bound.or_else(|| members.by_policy(balance.policy, &self.tried))
            }
            _ => members.by_policy(balance.policy, &self.tried),
        };
        let timing = if balance.policy == Policy::Ewma { Timing::Counts } else { Timing::Ignored };
        chosen.map(|endpoint| InUse::new(Arc::clone(endpoint), timing))
    }

    /// An endpoint is done with, or answers from now on; it is not chosen again.
    pub(crate) fn note(&mut self, in_use: &mut InUse, outcome: Outcome) {
        let endpoint = &in_use.endpoint;
        match outcome {
            Outcome::Answered => endpoint.health.succeed(),
            Outcome::Unreachable => {
                let limits =
                    Limits { fails: self.settings.balance.max_fails, time: self.settings.balance.fail_timeout };
                if endpoint.health.fail(now(), limits, || self.pool.members.load().may_eject()) {
                    tracing::info!(endpoint = %endpoint.address, "connections fail, the endpoint is left alone for a while");
                }
            }
            Outcome::Unknown => {}
        }
        if outcome == Outcome::Answered {
            in_use.answered();
        }
    }

    /// Never chooses this endpoint again.
    pub(crate) fn leave(&mut self, in_use: &InUse) {
        self.tried.push(Arc::clone(&in_use.endpoint));
    }
}
