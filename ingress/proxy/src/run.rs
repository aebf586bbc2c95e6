//! `roadstead-ingress run`: source, control, server and status wired together.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use prometheus::Registry;
use roadstead_model::Snapshot;
use roadstead_routes::Controller;
use roadstead_sources::{StatusWriter, start};
use roadstead_telemetry::{Health, Shutdown, init_logging, serve};
use tokio::{runtime, sync::watch};

use crate::{
    cli::RunFlags,
    control::{Control, Publish},
    metrics::Metrics,
    server::Server,
    tls,
    upstream::keep_resolved,
};

/// How long to wait for the first full snapshot before listening all the same: a request would get 404 until then.
const FIRST_SYNC: Duration = Duration::from_secs(10);

/// Between two tries to write the status.
const STATUS_RETRY: Duration = Duration::from_secs(1);

/// Serves until SIGTERM or SIGINT, then drains.
///
/// # Errors
/// What keeps it from starting.
pub fn run(flags: &RunFlags) -> anyhow::Result<()> {
    init_logging(&flags.telemetry);
    let runtime = runtime::Builder::new_current_thread().enable_all().build().context("cannot make a runtime")?;
    let server = runtime.block_on(supervise(flags))?;
    server.join();
    // A name that DNS does not answer for must not hold up the end.
    runtime.shutdown_background();
    Ok(())
}

/// Runs the control side until the shutdown; the server's threads drain meanwhile.
async fn supervise(flags: &RunFlags) -> anyhow::Result<Server> {
    let shutdown = Shutdown::on_signals().context("cannot watch for signals")?;
    let registry = Registry::new();
    let metrics = Metrics::new(&registry, &flags.metrics()).context("cannot register metrics")?;
    let health = Health::new(registry);
    health.set_live(true);
    if let Some(address) = flags.telemetry.metrics_addr {
        serve(address, health.clone(), shutdown.clone())
            .with_context(|| format!("cannot serve metrics on {address}"))?;
    }
    let controller = Controller { node: flags.source.node_name().ok(), ..flags.classes.controller() };
    let mut control = Control::new(controller, metrics, tls::provider())?.with_edge(flags.edge.flags());
    let resolving = tokio::spawn(keep_resolved(control.names()));
    let source = start(&flags.source).context("cannot read the manifests")?;
    let mut snapshots = source.snapshots();
    let synced = snapshots.wait_for(|snapshot| snapshot.synced);
    if !matches!(tokio::time::timeout(FIRST_SYNC, synced).await, Ok(Ok(_))) {
        tracing::warn!("the manifests are not read in full yet, serving what there is");
    }
    let first = snapshots.borrow_and_update().clone();
    let mut status =
        Status { writer: StatusWriter::new(&flags.source.state_dir), publish: flags.publish(), failed: false };
    step(&mut control, &mut status, &first);
    if let Some(log) = flags.access_log(control.live().metrics.log_lines_lost.clone())? {
        let _ = control.live().log.set(log);
    }
    let server = Server::start(&flags.server(), &control.live(), &shutdown)?;
    tracing::info!(http = ?server.http, https = ?server.https, "serving");
    health.set_ready(true);
    follow(&mut control, &mut status, &mut snapshots, &shutdown).await;
    health.set_ready(false);
    resolving.abort();
    source.stop().await;
    Ok(server)
}

/// Applies every snapshot until the shutdown.
async fn follow(
    control: &mut Control,
    status: &mut Status,
    snapshots: &mut watch::Receiver<Arc<Snapshot>>,
    shutdown: &Shutdown,
) {
    loop {
        tokio::select! {
            () = shutdown.wait() => return,
            () = tokio::time::sleep(STATUS_RETRY), if status.failed => {
                status.write(control);
                continue;
            }
            changed = snapshots.changed() => {
                if changed.is_err() {
                    tracing::error!("the source ended, serving what is known");
                    return shutdown.wait().await;
                }
            }
        }
        let snapshot = snapshots.borrow_and_update().clone();
        step(control, status, &snapshot);
    }
}

struct Status {
    writer: StatusWriter,
    publish: Publish,
    /// The last try came to nothing, so another one is due.
    failed: bool,
}

impl Status {
    fn write(&mut self, control: &Control) {
        let written = self.writer.write_ingresses(&control.status(&self.publish));
        if let Err(error) = &written
            && !self.failed
        {
            tracing::warn!(%error, "cannot write the status of ingresses, trying again");
        }
        self.failed = written.is_err();
    }
}

fn step(control: &mut Control, status: &mut Status, snapshot: &Arc<Snapshot>) {
    control.apply(snapshot);
    status.write(control);
}
