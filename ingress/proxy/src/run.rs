//! `roadstead-ingress run`: source, control, server and status wired together.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use prometheus::Registry;
use roadstead_model::{ObjectName, Snapshot};
use roadstead_routes::{Controller, references};
use roadstead_sources::{Interest, Source, StatusWriter, start, status_objects};
use roadstead_telemetry::{Health, Shutdown, init_logging, serve};
use tokio::{runtime, sync::watch};

use crate::{
    cli::RunFlags,
    control::{Control, Publish},
    events::Told,
    metrics::Metrics,
    server::Server,
    tls,
    upstream::keep_resolved,
};

/// How long to wait for the first full snapshot before listening all the same: a request would get 404 until then.
const FIRST_SYNC: Duration = Duration::from_secs(10);

/// Name of the Lease by which one proxy writes the status of Ingresses, and of the field manager.
const LEASE: &str = "roadstead-ingress";

/// File of this daemon's events; the speaker has one of its own in the same folder.
const EVENTS: &str = "ingress-events.yaml";

/// Most events in that file, which is written anew with each.
const FILED: usize = 200;

/// How often to look how old the configuration is, what is to be told, and to try again to write what could not be written.
const LOOK: Duration = Duration::from_secs(1);

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
    let health = Health::new(registry.clone());
    health.set_live(true);
    if let Some(address) = flags.telemetry.metrics_addr {
        serve(address, health.clone(), shutdown.clone())
            .with_context(|| format!("cannot serve metrics on {address}"))?;
    }
    let controller = Controller { node: flags.source.node_name().ok(), ..flags.classes.controller() };
    let node = flags.source.node_name().context("cannot read the hostname; --node-name says which node this is")?;
    let interest = interest(&controller, flags.edge.flags().default_certificate).written_by(
        LEASE,
        &flags.namespace.resolve(),
        &node,
    );
    let mut control = Control::new(controller, metrics, tls::provider())?.with_edge(flags.edge.flags());
    let resolving = tokio::spawn(keep_resolved(control.names()));
    let source = start(&flags.source, interest).context("cannot start the source")?;
    source.register(&registry).context("cannot register the source's metrics")?;
    let mut snapshots = source.snapshots();
    let synced = snapshots.wait_for(|snapshot| snapshot.synced);
    if !matches!(tokio::time::timeout(FIRST_SYNC, synced).await, Ok(Ok(_))) {
        tracing::warn!("the configuration is not read in full yet, serving what there is");
    }
    let first = snapshots.borrow_and_update().clone();
    let mut status = Status {
        writer: source.status_writer(&flags.source.state_dir),
        publish: flags.publish(),
        failed: false,
        leads: source.leads(),
        told: Told::new(&node, &status_objects(&flags.source.state_dir), (!source.is_of_server()).then_some(FILED)),
        untold: false,
    };
    step(&mut control, &mut status, &first);
    if let Some(log) = flags.access_log(control.live().metrics.log_lines_lost.clone())? {
        let _ = control.live().log.set(log);
    }
    let server = Server::start(&flags.server(), &control.live(), &shutdown)?;
    tracing::info!(http = ?server.http, https = ?server.https, "serving");
    follow(&mut control, &mut status, &source, &health, &shutdown).await;
    health.set_ready(false);
    resolving.abort();
    source.stop().await;
    Ok(server)
}

/// What is asked of an API server: the Ingresses, what they lead to, and the Secrets and ConfigMaps that they or the flags name.
pub(crate) fn interest(controller: &Controller, default_certificate: Option<ObjectName>) -> Interest {
    let controller = controller.clone();
    Interest::proxy(move |snapshot| {
        let mut references = references(snapshot, &controller);
        references.secrets.extend(default_certificate.clone());
        references
    })
}

/// Applies every snapshot until the shutdown.
async fn follow(control: &mut Control, status: &mut Status, source: &Source, health: &Health, shutdown: &Shutdown) {
    let mut snapshots = source.snapshots();
    let mut look = tokio::time::interval(LOOK);
    // Files that cannot be read make nobody unready; what an API server has not told in full, or not confirmed for long, does.
    let mut synced = !source.is_of_server() || snapshots.borrow().synced;
    loop {
        health.set_ready(synced && source.is_current());
        tokio::select! {
            () = shutdown.wait() => return,
            _ = look.tick() => {
                if status.failed {
                    status.write(control);
                }
                status.tell();
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
        synced |= snapshot.synced;
        step(control, status, &snapshot);
    }
}

struct Status {
    writer: StatusWriter,
    publish: Publish,
    /// The last try came to nothing, so another one is due.
    failed: bool,
    /// Whether this proxy writes; nothing where each has files of its own.
    leads: Option<watch::Receiver<bool>>,
    told: Told,
    /// There are events that could not be written.
    untold: bool,
}

impl Status {
    /// Tells in events what is due.
    fn tell(&mut self) {
        let now = now();
        if self.leads.as_ref().is_some_and(|leads| !*leads.borrow()) {
            return self.told.wait(now);
        }
        if self.told.tell(now) || self.untold {
            let written = self.writer.write_objects(EVENTS, &self.told.objects());
            if let Err(error) = &written
                && !self.untold
            {
                tracing::warn!(%error, "cannot write events, trying again");
            }
            self.untold = written.is_err();
        }
    }

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
    if let Some((news, snapshot)) = control.take_news() {
        status.told.take(news, &snapshot, now());
    }
}

/// Seconds since the epoch.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
