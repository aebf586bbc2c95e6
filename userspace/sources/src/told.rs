//! What was logged of snapshots, so that each problem is logged once, and its end.

use roadstead_model::{Problem, Severity, Snapshot};

/// The problems that were told last.
#[derive(Default)]
pub(crate) struct Told(Vec<Problem>);

impl Told {
    /// Tells of a snapshot.
    pub(crate) fn tell(&mut self, snapshot: &Snapshot) {
        tracing::info!(
            generation = snapshot.generation,
            services = snapshot.services.len(),
            slices = snapshot.slices.values().map(Vec::len).sum::<usize>(),
            ingresses = snapshot.ingresses.len(),
            nodes = snapshot.nodes.len(),
            pools = snapshot.pools.len(),
            problems = snapshot.problems.len(),
            "desired state changed"
        );
        self.tell_problems(snapshot);
    }

    /// Tells of the problems that came and went.
    pub(crate) fn tell_problems(&mut self, snapshot: &Snapshot) {
        for problem in snapshot.problems.iter().filter(|problem| !self.0.contains(problem)) {
            match problem.severity {
                Severity::Error => tracing::error!(%problem, "a part of the configuration is not used"),
                Severity::Warning => tracing::warn!(%problem, "a part of the configuration is not honoured"),
            }
        }
        for problem in self.0.iter().filter(|problem| !snapshot.problems.contains(problem)) {
            tracing::info!(%problem, "a problem of the configuration is over");
        }
        self.0.clone_from(&snapshot.problems);
    }
}
