//! The proxy with real sockets on loopback: clients on one side, endpoints on the other, snapshots made by hand between.
//!
//! What needs network namespaces or the other daemons is in `tests/suite`.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod binary;
mod client;
mod client_auth;
mod edge_options;
mod endpoint;
mod h2_endpoint;
mod hardening;
mod objects;
mod passthrough;
mod peers;
mod policy;
mod pools;
mod proxy;
mod routing;
mod rules;
mod scripted;
mod streams;
mod telling;
mod tls;
mod transport;

use std::time::Duration;

/// Longer than anything here should take on a loaded machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Polls a condition until it holds.
pub(crate) async fn wait_until<F: AsyncFnMut() -> bool>(what: &str, mut condition: F) {
    let holds = async {
        while !condition().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, holds).await.unwrap_or_else(|_| panic!("{what}: not within {DEADLINE:?}"));
}
