//! Whether the API server can be reached: one question for the whole process, so that ten broken watches knock once.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use http::{Request, StatusCode};
use kube::{Client, client::Body};
use tokio::sync::watch;

use super::{
    connect::Access,
    failure::{Failure, Refusal, chain},
    wire,
};

/// How long a request may wait for the head of its answer, and a list for its next bytes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// How long the question whether the server is ready may take.
const PROBE: Duration = Duration::from_secs(2);
/// While it is away, it is asked this often at most, and on average every 0.6 s: what a server of 10,000 nodes that comes back has
/// to refuse then is a connection each, and a change waits for less than a second.
const BETWEEN: Duration = Duration::from_secs(1);

/// The server, as this process sees it.
pub(crate) struct Reach {
    access: Access,
    client: Mutex<Client>,
    state: watch::Sender<State>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    is_open: bool,
    /// How often the server was away, as far as asking it showed.
    outages: u64,
}

impl Reach {
    /// # Errors
    /// The configuration cannot be read or used. Whether the server is there is not asked.
    pub(crate) async fn new(access: Access) -> Result<Self, Failure> {
        let client = Mutex::new(access.client().await?);
        Ok(Self { access, client, state: watch::Sender::new(State { is_open: true, outages: 0 }) })
    }

    /// Waits until the server can be reached as far as is known; how many outages there were.
    pub(crate) async fn open(&self) -> u64 {
        // The sender lives as long as we do.
        self.state.subscribe().wait_for(|state| state.is_open).await.map_or(0, |state| state.outages)
    }

    /// Waits until an outage after that many is over.
    pub(crate) async fn reopened(&self, outages: u64) {
        let _ = self.state.subscribe().wait_for(|state| state.is_open && state.outages > outages).await;
    }

    /// An exchange failed as it does when the server is away.
    pub(crate) fn lost(&self) {
        self.state.send_if_modified(|state| std::mem::replace(&mut state.is_open, false));
    }

    /// The configuration is to be read again before the next exchange.
    pub(crate) async fn renew(&self) {
        match self.access.client().await {
            Ok(client) => *self.client.lock().unwrap_or_else(PoisonError::into_inner) = client,
            Err(error) => tracing::error!(error = chain(&error), "goes on with the configuration from before"),
        }
    }

    /// Asks whether the server is there as long as it is not; never returns.
    pub(crate) async fn probe(self: Arc<Self>) {
        let mut state = self.state.subscribe();
        loop {
            if state.wait_for(|state| !state.is_open).await.is_err() {
                return;
            }
            let since = Instant::now();
            let mut tries = 0_u64;
            self.renew().await;
            while let Err(error) = self.ready().await {
                if tries == 0 {
                    tracing::warn!(error = chain(&error), "the API server is away; what is known goes on to serve");
                    self.state.send_modify(|state| state.outages += 1);
                }
                tries += 1;
                tokio::time::sleep(BETWEEN.mul_f64(0.25 + 0.75 * fastrand::f64())).await;
                self.renew().await;
            }
            if tries > 0 {
                let seconds = since.elapsed().as_secs_f64();
                tracing::info!(seconds, tries, "the API server is back");
            }
            self.state.send_modify(|state| state.is_open = true);
        }
    }

    /// Whether the server says that it is ready; one that does not let us ask is there too.
    async fn ready(&self) -> Result<(), Failure> {
        let request = Request::get("/readyz").body(Body::empty()).map_err(Failure::unreachable)?;
        let exchange = tokio::time::timeout(PROBE, self.exchange(request)).await.map_err(|_| Failure::Silent(PROBE))?;
        match exchange {
            Err(Failure::Refused(refusal)) if refusal.code < 429 => Ok(()),
            other => other.map(drop),
        }
    }

    /// Sends a request and waits for the head of an answer that says yes.
    ///
    /// # Errors
    /// No answer, or one that says no.
    pub(crate) async fn exchange(&self, request: Request<Body>) -> Result<Body, Failure> {
        let client = self.client.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let answer = tokio::time::timeout(PATIENCE, client.send(request)).await;
        let answer = answer.map_err(|_| Failure::Silent(PATIENCE))?.map_err(Failure::unreachable)?;
        let (head, body) = answer.into_parts();
        if head.status.is_success() {
            return Ok(body);
        }
        let mut refusal = Refusal::read(head.status.as_u16(), &wire::beginning(body, PROBE).await);
        if refusal.message.is_empty() {
            refusal.message = head.status.canonical_reason().unwrap_or_default().to_owned();
        }
        if head.status == StatusCode::UNAUTHORIZED {
            self.renew().await;
        }
        Err(Failure::Refused(refusal))
    }
}
