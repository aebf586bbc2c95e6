//! Sessions: a client's cookie binds its requests to an endpoint, as ingress-nginx's two modes of affinity do.
//!
//! *Balanced*: the cookie holds a random key, and the ring of hashes says which endpoint that is for. *Persistent*: the cookie
//! holds the key of an endpoint. In both an endpoint that drains keeps its clients to its end and gets no new ones.
//!
//! Unless `session-cookie-change-on-failure` says otherwise, a client whose endpoint fails is not sent to another one: that
//! one does not know its session, and might end it. Such a client does not see ejections either.

use std::{net::SocketAddr, sync::Arc};

use roadstead_routes::{Affinity, AffinityMode, Endpoints, Policy, SameSite};

use super::{endpoint::Endpoint, members::Members, policy::is_among};

/// A key is drawn anew this often for each endpoint until it leads to one that may get new clients: with half of them
/// draining, not even one in a million draws a key in vain.
const DRAWS: usize = 20;

/// What is known of a request's session.
#[derive(Debug)]
pub(crate) struct Session {
    /// What the cookie that came says of the endpoint.
    known: Option<Vec<u8>>,
    /// What the next one has to say.
    drawn: Option<String>,
    /// The `SameSite` of the next one, which depends on the browser too.
    same_site: Option<SameSite>,
}

impl Session {
    /// Begins with the value of the client's cookie: `endpoint|backend`.
    pub(crate) fn new(cookie: Option<&[u8]>, same_site: Option<SameSite>) -> Self {
        let endpoint = cookie.and_then(|value| value.split(|byte| *byte == b'|').next());
        Self { known: endpoint.filter(|key| !key.is_empty()).map(<[u8]>::to_vec), drawn: None, same_site }
    }

    /// Whether a session that begins with this cookie has an endpoint, of two that there are; for fuzzing.
    pub(crate) fn finds_endpoint(cookie: Option<&[u8]>, mode: AffinityMode) -> bool {
        let addresses = [80, 81].map(|port| SocketAddr::from(([192, 0, 2, 1], port)));
        let endpoints = Endpoints { ready: addresses.to_vec(), ..Endpoints::default() };
        let members = Members::new(&endpoints, &Members::default(), "pool");
        let mut session = Self::new(cookie, None);
        session.bound(&members, mode).is_some() || session.begin(&members, mode, Policy::RoundRobin, &[]).is_some()
    }

    /// What the cookie has to say of the endpoint, where it has to be set.
    pub(super) fn drawn(&self) -> Option<(&str, Option<SameSite>)> {
        Some((self.drawn.as_deref()?, self.same_site))
    }

    /// The endpoint of the session, or one to begin a new session with.
    pub(super) fn choose<'m>(
        &mut self,
        members: &'m Members,
        affinity: &Affinity,
        policy: Policy,
        tried: &[Arc<Endpoint>],
    ) -> Option<&'m Arc<Endpoint>> {
        if let Some(bound) = self.bound(members, affinity.mode) {
            let failed = is_among(tried, bound);
            if !affinity.change_on_failure {
                return Some(bound).filter(|_| !failed);
            }
            if !failed && !members.is_out(bound) {
                return Some(bound);
            }
        }
        self.begin(members, affinity.mode, policy, tried)
    }

    fn begin<'m>(
        &mut self,
        members: &'m Members,
        mode: AffinityMode,
        policy: Policy,
        tried: &[Arc<Endpoint>],
    ) -> Option<&'m Arc<Endpoint>> {
        match mode {
            AffinityMode::Balanced => self.draw(members, tried),
            AffinityMode::Persistent => {
                let chosen = members.by_policy(policy, tried)?;
                self.drawn = Some(format!("{:032x}", chosen.key));
                Some(chosen)
            }
        }
    }

    fn bound<'m>(&self, members: &'m Members, mode: AffinityMode) -> Option<&'m Arc<Endpoint>> {
        let known = self.known.as_deref()?;
        match mode {
            AffinityMode::Balanced => members.ring().walk(known).find_map(|address| members.at(address)),
            AffinityMode::Persistent => {
                let key = std::str::from_utf8(known).ok().filter(|text| text.len() == 32)?;
                members.with_key(u128::from_str_radix(key, 16).ok()?)
            }
        }
    }

    /// Draws keys until one leads to an endpoint that may get new clients. Where none may, one is taken all the same and
    /// nobody is bound to it.
    fn draw<'m>(&mut self, members: &'m Members, tried: &[Arc<Endpoint>]) -> Option<&'m Arc<Endpoint>> {
        let all = members.ready.len() + members.draining.len();
        for _ in 0..DRAWS * all {
            let key = format!("{:016x}", fastrand::u64(..));
            let first = members.ring().walk(key.as_bytes()).next().and_then(|address| members.ready_at(address));
            if let Some(first) = first.filter(|first| !is_among(tried, first) && !members.is_out(first)) {
                self.drawn = Some(key);
                return Some(first);
            }
        }
        let other = members.by_policy(Policy::RoundRobin, tried)?;
        self.drawn = None;
        Some(other)
    }
}
