//! A proxy under test: the library with one thread, fed with snapshots.

use std::{collections::BTreeMap, net::SocketAddr, path::Path, sync::Arc};

use prometheus::{Encoder, Registry, TextEncoder};
use roadstead_model::{IngressStatus, ObjectName, Snapshot};
use roadstead_proxy::{
    control::{Control, Publish},
    edge::EdgeFlags,
    metrics::{Metrics, MetricsOptions},
    record::log::{AccessLog, LineStyle, LogTarget, LogWriter},
    server::{Server, ServerOptions},
    tls,
};
use roadstead_routes::Controller;
use roadstead_telemetry::Shutdown;

/// Stopped and joined when it is dropped.
pub(crate) struct Proxy {
    pub(crate) http: SocketAddr,
    pub(crate) https: SocketAddr,
    pub(crate) shutdown: Shutdown,
    control: Control,
    registry: Registry,
    server: Option<Server>,
}

/// What a proxy is started with.
pub(crate) struct Setup {
    pub(crate) controller: Controller,
    pub(crate) edge: EdgeFlags,
    pub(crate) max_connections: usize,
    pub(crate) max_connections_per_client: u32,
}

impl Default for Setup {
    fn default() -> Self {
        // The objects of the tests hold no such ConfigMap unless a test is about options.
        let config_map = Some(ObjectName::new("default", "options"));
        let controller = Controller { config_map, ..Controller::default() };
        let (max_connections, max_connections_per_client) = (100, 4096);
        Self { controller, edge: EdgeFlags::default(), max_connections, max_connections_per_client }
    }
}

impl Proxy {
    pub(crate) fn start(snapshot: Snapshot) -> Self {
        Self::with(snapshot, Setup::default())
    }

    /// One that takes this many connections at once.
    pub(crate) fn limited(snapshot: Snapshot, max_connections: usize) -> Self {
        Self::with(snapshot, Setup { max_connections, ..Setup::default() })
    }

    /// One that was told more on its command line.
    pub(crate) fn controlled(snapshot: Snapshot, controller: Controller, max_connections: usize) -> Self {
        Self::with(snapshot, Setup { controller, max_connections, ..Setup::default() })
    }

    pub(crate) fn with(snapshot: Snapshot, setup: Setup) -> Self {
        let Setup { controller, edge, max_connections, max_connections_per_client } = setup;
        let registry = Registry::new();
        let metrics = Metrics::new(&registry, &MetricsOptions::default()).unwrap();
        let mut control = Control::new(controller, metrics, tls::provider()).unwrap().with_edge(edge);
        control.apply(&Arc::new(snapshot));
        let any = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
        let options =
            ServerOptions { http: any.clone(), https: any, threads: 1, max_connections, max_connections_per_client };
        let shutdown = Shutdown::new();
        let server = Server::start(&options, &control.live(), &shutdown).unwrap();
        let (http, https) = (server.http[0], server.https[0]);
        Self { http, https, shutdown, control, registry, server: Some(server) }
    }

    /// Tells requests from now on in this file.
    pub(crate) fn log_to(&self, path: &Path, style: LineStyle) {
        let live = self.control.live();
        let target = LogTarget::File(path.to_owned());
        let writer = LogWriter::start(&target, live.metrics.log_lines_lost.clone()).unwrap().unwrap();
        assert!(live.log.set(AccessLog::new(writer, style)).is_ok(), "there is a log already");
    }

    /// What is to be written to the status of Ingresses.
    pub(crate) fn status(&self, publish: &Publish) -> BTreeMap<ObjectName, IngressStatus> {
        self.control.status(publish)
    }

    pub(crate) fn apply(&mut self, snapshot: &Snapshot) {
        self.control.apply(&Arc::new(snapshot.clone()));
    }

    /// A line of the metrics page that begins with this.
    pub(crate) fn metric(&self, start: &str) -> Option<String> {
        let mut page = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut page).unwrap();
        String::from_utf8(page)
            .unwrap()
            .lines()
            .find_map(|line| line.strip_prefix(start))
            .map(|rest| rest.trim().to_owned())
    }

    /// Waits for the drain to end, away from the runtime's threads.
    pub(crate) async fn join(mut self) {
        let server = self.server.take().unwrap();
        tokio::task::spawn_blocking(move || server.join()).await.unwrap();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shutdown.trigger();
    }
}
