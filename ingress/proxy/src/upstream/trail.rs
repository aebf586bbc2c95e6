//! What became of each attempt to get an endpoint's answer: for the access log, the metrics and the retries.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use http::StatusCode;

/// The attempts of one request, in order. The first needs no allocation, for most requests have no second.
#[derive(Clone, Debug, Default)]
pub struct Trail {
    first: Option<Step>,
    more: Vec<Step>,
}

/// One attempt at one endpoint.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// The endpoint.
    pub endpoint: SocketAddr,
    /// When it was chosen.
    pub began: Instant,
    /// How long it took to have a connection, none where one was waiting; `None`: there never was one.
    pub connected: Option<Duration>,
    /// From the choice to the end of the answer's head; `None`: none came.
    pub head: Option<Duration>,
    /// From the choice to the end of the answer's body or of the attempt.
    pub whole: Option<Duration>,
    /// The answer's status.
    pub status: Option<StatusCode>,
}

impl Trail {
    /// An endpoint has been chosen.
    pub fn begin(&mut self, endpoint: SocketAddr) {
        let began = Instant::now();
        self.end(began);
        let step = Step { endpoint, began, connected: None, head: None, whole: None, status: None };
        match self.first {
            None => self.first = Some(step),
            Some(_) => self.more.push(step),
        }
    }

    /// There is a connection to it.
    pub fn connected(&mut self) {
        if let Some(step) = self.last_mut() {
            step.connected = Some(step.began.elapsed());
        }
    }

    /// There was a connection to it already.
    pub fn connected_before(&mut self) {
        if let Some(step) = self.last_mut() {
            step.connected = Some(Duration::ZERO);
        }
    }

    /// When the request was sent.
    #[must_use]
    pub fn sent(&self) -> Option<Instant> {
        self.last().and_then(|step| Some(step.began + step.connected?))
    }

    /// The head of its answer is there.
    pub fn answered(&mut self, status: StatusCode) {
        if let Some(step) = self.last_mut() {
            step.head = Some(step.began.elapsed());
            step.status = Some(status);
        }
    }

    /// The attempt is over, whatever it came to.
    pub fn end(&mut self, now: Instant) {
        if let Some(step) = self.last_mut().filter(|step| step.whole.is_none()) {
            step.whole = Some(now.saturating_duration_since(step.began));
        }
    }

    /// All attempts in order.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.first.iter().chain(&self.more)
    }

    /// The last attempt.
    #[must_use]
    pub fn last(&self) -> Option<&Step> {
        self.more.last().or(self.first.as_ref())
    }

    fn last_mut(&mut self) -> Option<&mut Step> {
        self.more.last_mut().or(self.first.as_mut())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_are_kept_in_order() {
        let mut trail = Trail::default();
        assert!(trail.last().is_none());
        for port in 1..=3 {
            trail.begin(([127, 0, 0, 1], port).into());
        }
        trail.connected();
        trail.answered(StatusCode::OK);
        trail.end(Instant::now());
        let seen: Vec<_> =
            trail.steps().map(|step| (step.endpoint.port(), step.status, step.whole.is_some())).collect();
        assert_eq!(seen, [(1, None, true), (2, None, true), (3, Some(StatusCode::OK), true)]);
        let last = trail.last().unwrap();
        assert!(last.connected <= last.head && last.head <= last.whole);
    }
}
