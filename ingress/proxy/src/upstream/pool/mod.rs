//! The endpoints of one backend, and which of them takes a request. A pool outlives generations of routes: pods come and go
//! without touching a route.
//!
//! Control sets a pool's endpoints; every request of every thread asks it through a [`Selection`]. There are no locks: the
//! endpoints of the moment are one [`Members`], swapped whole, and what changes with each request are atomic counters of an
//! [`Endpoint`], which stays the same object for as long as it is in the pool. pingora-load-balancing was looked at: it knows
//! neither least connections nor moving averages, and copies an endpoint out for each choice; its ring (pingora-ketama) is used.
//!
//! Kubernetes gives endpoints no weights, so that nginx's smooth weighted round robin is one turn after the other here.

mod endpoint;
mod health;
mod members;
mod policy;
mod ring;
mod selection;
mod session;
mod speed;

use std::{
    sync::{Arc, LazyLock},
    time::Instant,
};

use arc_swap::ArcSwap;
use md5::{Digest, Md5};
use roadstead_routes::{Backend, Endpoints};

pub(crate) use endpoint::InUse;
use members::Members;
pub(crate) use selection::{Outcome, Selection};
pub(crate) use session::Session;

/// The endpoints of one backend.
#[derive(Debug)]
pub struct Pool {
    /// As ingress-nginx names its upstreams: a cookie that it set means the same endpoint here.
    name: String,
    /// What a cookie says of the backend that it is for.
    backend_key: String,
    members: ArcSwap<Members>,
}

/// What routes need of a pool beside its endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Needs {
    /// Nothing.
    #[default]
    Nothing,
    /// The ring of hashes: it is better made here than while the first request waits.
    Ring,
}

/// How a pool stands, for the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Endpoints that take any request.
    pub ready: usize,
    /// Endpoints that only finish what they have.
    pub draining: usize,
    /// Those of the ready ones that are left alone because connections to them failed.
    pub ejected: usize,
    /// Requests under way.
    pub in_flight: usize,
}

impl Pool {
    /// Without endpoints.
    #[must_use]
    pub fn new(backend: &Backend) -> Self {
        let name = format!("{}-{}-{}", backend.service.namespace, backend.service.name, backend.port);
        let backend_key = md5_hex(&[md5_hex(&[&name]).as_str(), &name]);
        Self { name, backend_key, members: ArcSwap::default() }
    }

    /// Replaces the endpoints. Those that stay keep what is known of them; requests on their way keep the one that they have.
    pub fn set(&self, endpoints: &Endpoints, needs: Needs) {
        let before = self.members.load();
        let next = if before.are(endpoints) { None } else { Some(Members::new(endpoints, &before, &self.name)) };
        if needs == Needs::Ring {
            next.as_ref().unwrap_or(&before).ring();
        }
        if let Some(next) = next {
            self.members.store(Arc::new(next));
        }
    }

    /// How it stands.
    #[must_use]
    pub fn census(&self) -> Census {
        self.members.load().census()
    }

    /// Whether an endpoint takes any request.
    #[must_use]
    pub fn has_ready(&self) -> bool {
        !self.members.load().ready.is_empty()
    }

    /// Whether no endpoint takes a request, not even one that is bound to it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let members = self.members.load();
        members.ready.is_empty() && members.draining.is_empty()
    }

    /// What a session's cookie says of this backend.
    #[must_use]
    pub(crate) fn backend_key(&self) -> &str {
        &self.backend_key
    }
}

/// In milliseconds, since some moment of this process that was before: never 0.
fn now() -> u64 {
    static BEGINNING: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(BEGINNING.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
}

/// MD5 (RFC 1321) because ingress-nginx's cookies have it; it protects nothing.
fn md5(parts: &[&str]) -> u128 {
    let mut hasher = Md5::new();
    for part in parts {
        hasher.update(part);
    }
    u128::from_be_bytes(hasher.finalize().into())
}

fn md5_hex(parts: &[&str]) -> String {
    format!("{:032x}", md5(parts))
}

#[cfg(test)]
mod tests;
