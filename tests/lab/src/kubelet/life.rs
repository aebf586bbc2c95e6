//! The life of one pod, from its binding to the end of its object.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Result;
use hyper::Method;
use serde_json::json;
use tokio::sync::watch::Receiver;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::readiness::{self, Readiness};
use super::sandbox::Sandbox;
use super::spec::Pod;
use super::status::Report;
use super::{Shared, moment};
use crate::cluster::{JSON, STRATEGIC_MERGE, refused};

/// How often a pod is looked after: its process, its probes, a report that the API server did not take.
const LOOK: Duration = Duration::from_millis(100);
/// After a pod could not be started, or its server ended.
const START_AGAIN: Duration = Duration::from_millis(500);
/// So often a start may fail without a word: the API server grants a node what its pods need a moment after they are bound.
const SILENT: u32 = 4;

/// Lives the pod's life. The channel tells every state of its object; `None` when it is gone.
pub(super) async fn live(shared: Arc<Shared>, mut object: Receiver<Option<Pod>>) {
    let Some(pod) = object.borrow_and_update().clone() else { return };
    if pod.grace().is_some() {
        // It ended before it began here.
        return delete(&shared, &pod).await;
    }
    let Some(sandbox) = start(&shared, &pod, &mut object).await else { return };
    let name = format!("{}/{}", pod.namespace(), pod.name());
    shared.places().insert(name.clone(), sandbox.place().clone());
    let mut running = Running::new(&shared, pod, sandbox);
    let end = running.serve(&mut object).await;
    let Running { pod, sandbox, .. } = running;
    if let Some(grace) = end {
        wind_down(&pod, &sandbox, grace, &mut object).await;
    }
    let removed = tokio::task::spawn_blocking(move || sandbox.remove()).await;
    if let Ok(Err(error)) = removed {
        eprintln!("lab: the network of {name} stays: {error:#}");
    }
    shared.places().remove(&name);
    if end.is_some() {
        delete(&shared, &pod).await;
    }
}

/// Starts the pod, again and again where it fails. `None` where its object is gone or to end before.
async fn start(shared: &Arc<Shared>, pod: &Pod, object: &mut Receiver<Option<Pod>>) -> Option<Sandbox> {
    let mut failures = 0;
    loop {
        match Sandbox::start(shared, pod).await {
            Ok(sandbox) => return Some(sandbox),
            Err(error) => {
                failures += 1;
                if failures == SILENT {
                    eprintln!("lab: {} cannot start {}: {error:#}", shared.node.name(), pod.name());
                }
            }
        }
        sleep(START_AGAIN).await;
        let now = object.borrow_and_update().clone()?;
        if now.grace().is_some() {
            delete(shared, &now).await;
            return None;
        }
    }
}

/// A pod that runs.
struct Running {
    shared: Arc<Shared>,
    pod: Pod,
    sandbox: Sandbox,
    probes: Vec<Readiness>,
    report: Report,
    /// What the API server has taken.
    reported: Option<Report>,
    /// How often tokens were replaced.
    rotations: u64,
    restart: Instant,
}

impl Running {
    fn new(shared: &Arc<Shared>, pod: Pod, sandbox: Sandbox) -> Self {
        let probes = probes(&pod);
        let (host, rotations) = (shared.node.host(), shared.rotations.load(Ordering::Relaxed));
        let report = Report {
            host: vec![host.v4().into(), host.v6().into()],
            ips: sandbox.ips(),
            ready: probes.is_empty(),
            restarts: 0,
            started: moment::now(),
            turned: moment::now(),
        };
        Self {
            shared: Arc::clone(shared),
            pod,
            sandbox,
            probes,
            report,
            reported: None,
            rotations,
            restart: Instant::now(),
        }
    }

    /// Serves until the object is to end, and tells the grace period; `None` where the object is gone.
    async fn serve(&mut self, object: &mut Receiver<Option<Pod>>) -> Option<Duration> {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                changed = object.changed() => {
                    changed.ok()?;
                    self.pod = object.borrow_and_update().clone()?;
                    if let Some(grace) = self.pod.grace() {
                        return Some(grace);
                    }
                }
                _ = looks.tick() => {}
            }
            self.look_after().await;
        }
    }

    async fn look_after(&mut self) {
        if !self.sandbox.is_running() && self.restart <= Instant::now() {
            self.probes = probes(&self.pod);
            self.report.restarts += 1;
            self.restart = Instant::now() + START_AGAIN;
            if let Err(error) = self.sandbox.restart().await {
                eprintln!("lab: {} could not restart {}: {error:#}", self.shared.node.name(), self.pod.name());
            }
        }
        let rotations = self.shared.rotations.load(Ordering::Relaxed);
        if rotations != self.rotations && self.sandbox.renew_tokens(&self.pod).await.is_ok() {
            self.rotations = rotations;
        }
        self.probe().await;
        self.report.turn(self.sandbox.is_running() && self.probes.iter().all(Readiness::is_ready));
        if self.reported.as_ref() != Some(&self.report) {
            // What fails is tried again at the next look.
            if self.send_report().await.is_ok() {
                self.reported = Some(self.report.clone());
            }
        }
    }

    async fn probe(&mut self) {
        let now = Instant::now();
        let Some(ip) = self.report.ips.first().copied() else { return };
        for readiness in &mut self.probes {
            let Some(probe) = readiness.due(now) else { continue };
            let host = self.shared.node.host().clone();
            let asked = tokio::task::spawn_blocking(move || readiness::ask(&host, ip, &probe)).await;
            readiness.take(asked.unwrap_or(false));
        }
    }

    async fn send_report(&self) -> Result<()> {
        let path = format!("{}/status", self.pod.path());
        let patch = self.report.patch(&self.pod);
        match self.shared.api.call(Method::PATCH, &path, STRATEGIC_MERGE, Some(&patch)).await {
            // The object is gone, or another one's: its task will hear of it.
            Err(error) if matches!(refused(&error), Some(404 | 409)) => Ok(()),
            sent => sent.map(drop),
        }
    }
}

/// The pod's probes from the start of its containers on.
fn probes(pod: &Pod) -> Vec<Readiness> {
    let now = Instant::now();
    pod.readiness().into_iter().map(|probe| Readiness::new(probe, now)).collect()
}

/// What the kubelet grants a pod that ends: its `preStop` hook, then SIGTERM, and what is left of the grace period.
async fn wind_down(pod: &Pod, sandbox: &Sandbox, grace: Duration, object: &mut Receiver<Option<Pod>>) {
    let deadline = Instant::now() + grace;
    tokio::select! {
        () = sleep(pod.pre_stop().min(grace)) => {}
        // Deleted by force: there is nothing left to wait for.
        () = gone(object) => return,
    }
    sandbox.terminate();
    while sandbox.is_running() && Instant::now() < deadline {
        sleep(LOOK).await;
    }
}

/// Waits until the object is gone.
async fn gone(object: &mut Receiver<Option<Pod>>) {
    while object.borrow_and_update().is_some() && object.changed().await.is_ok() {}
}

/// Deletes the object of a pod that is no more.
async fn delete(shared: &Shared, pod: &Pod) {
    let options = json!({
        "apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0, "preconditions": {"uid": pod.uid()},
    });
    loop {
        match shared.api.call(Method::DELETE, &pod.path(), JSON, Some(&options)).await {
            Ok(_) => return,
            Err(error) if matches!(refused(&error), Some(404 | 409)) => return,
            Err(_) => sleep(LOOK).await,
        }
    }
}
