//! What the stages keep between requests that decide who may come and how often.

use arc_swap::ArcSwap;

use crate::{authorize::Authorizer, limiter::Limiter, passwords::Passwords};

/// Shared by all threads and generations.
#[derive(Default)]
pub struct Policy {
    /// The users of Secrets.
    pub passwords: ArcSwap<Passwords>,
    /// Services that are asked who may come.
    pub authorizer: Authorizer,
    /// Counts of requests by client.
    pub limiter: Limiter,
}
