//! Health checks for load balancers in front of the cluster: on a Service's `healthCheckNodePort` this node says whether it
//! has ready endpoints of the Service, and how many.
//!
//! The answers are kube-proxy's (pkg/proxy/healthcheck/service_health.go): those of IPv4 and of IPv6 are two, as there
//! two proxies give them. Terminating endpoints are not ready and do not count, though they still serve: the load balancer
//! is to go elsewhere before they end (KEP-1669). Sockets follow snapshots by level: what is wanted and open stays open.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, SocketAddr},
};

use http::{HeaderValue, Response, StatusCode, header};
use roadstead_model::{IpFamily, ObjectName, Service, ServiceKind, Snapshot, TrafficPolicy};
use roadstead_telemetry::{Health, Shutdown, answer_requests};
use tokio::{
    net::TcpListener,
    sync::watch,
    task::{AbortHandle, JoinSet},
};
use tracing::{debug, warn};

/// What is said at one address and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Check {
    service: ObjectName,
    /// Ready endpoints on this node.
    endpoints: usize,
}

/// The health checks of a snapshot: for every Service that has one, at each of the node's addresses of its families.
/// Where two Services claim a port, the older one has it.
pub(crate) fn wanted(snapshot: &Snapshot, node: &str, addresses: &[IpAddr]) -> BTreeMap<SocketAddr, Check> {
    let mut services: Vec<_> = snapshot.services.values().collect();
    services.sort_by_key(|service| service.meta.age_order());
    let mut checks = BTreeMap::new();
    for service in services {
        let Some(port) = port(service) else { continue };
        let families: BTreeSet<_> = service.cluster_ips.iter().map(|ip| IpFamily::of(*ip)).collect();
        for family in families {
            let endpoints = ready_endpoints(snapshot, service, family, node);
            for ip in addresses.iter().filter(|ip| IpFamily::of(**ip) == family) {
                let check = Check { service: service.meta.name.clone(), endpoints };
                let holder = checks.entry(SocketAddr::new(*ip, port)).or_insert_with(|| check.clone());
                if holder.service != check.service {
                    debug!(service = %check.service, holder = %holder.service, port, "a health check port is taken");
                }
            }
        }
    }
    checks
}

/// The port of a Service's health check, if this proxy serves the Service and its policy asks for one.
fn port(service: &Service) -> Option<u16> {
    let is_wanted = service.kind == ServiceKind::LoadBalancer
        && service.external_policy == TrafficPolicy::Local
        && !service.meta.labels.contains_key("service.kubernetes.io/service-proxy-name");
    service.load_balancer.health_check_node_port.filter(|_| is_wanted).map(std::num::NonZero::get)
}

/// How many ready endpoints are on the node; one with several ports counts once.
fn ready_endpoints(snapshot: &Snapshot, service: &Service, family: IpFamily, node: &str) -> usize {
    let slices = snapshot.slices_of(&service.meta.name).iter();
    let serving = slices.filter(|slice| slice.family == family && !slice.ports.is_empty());
    let endpoints = serving.flat_map(|slice| &slice.endpoints);
    let ready = endpoints.filter(|endpoint| endpoint.ready && endpoint.is_on(node));
    ready.map(|endpoint| endpoint.ip).collect::<BTreeSet<_>>().len()
}

/// The sockets and who serves them.
#[derive(Debug)]
pub(crate) struct HealthChecks {
    wanted: BTreeMap<SocketAddr, Check>,
    open: BTreeMap<SocketAddr, Open>,
    /// Those that could not be opened, which was told.
    refused: BTreeSet<SocketAddr>,
    tasks: JoinSet<()>,
    health: Health,
}

/// One socket that is served.
#[derive(Debug)]
struct Open {
    says: watch::Sender<Check>,
    shutdown: Shutdown,
    task: AbortHandle,
}

impl HealthChecks {
    /// None yet; whether the proxy is healthy is asked at every request.
    pub(crate) fn new(health: Health) -> Self {
        Self { wanted: BTreeMap::new(), open: BTreeMap::new(), refused: BTreeSet::new(), tasks: JoinSet::new(), health }
    }

    /// Opens, closes and changes what differs from the wanted; called inside a runtime. What cannot be opened is tried
    /// again by [`HealthChecks::retry`].
    pub(crate) fn follow(&mut self, wanted: BTreeMap<SocketAddr, Check>) {
        self.open.retain(|address, open| {
            let stays = wanted.contains_key(address);
            if !stays {
                open.shutdown.trigger();
            }
            stays
        });
        for (address, check) in &wanted {
            if let Some(open) = self.open.get(address) {
                open.says.send_if_modified(|said| std::mem::replace(said, check.clone()) != *check);
            }
        }
        self.refused.retain(|address| wanted.contains_key(address));
        self.wanted = wanted;
        self.retry();
    }

    /// Opens what is wanted and not open: a port was in use, an address not there yet.
    pub(crate) fn retry(&mut self) {
        while self.tasks.try_join_next().is_some() {}
        // A task that is still wanted ends only by a panic.
        self.open.retain(|_, open| !open.task.is_finished());
        for (address, check) in &self.wanted {
            if self.open.contains_key(address) {
                continue;
            }
            match listen(*address) {
                Ok(listener) => {
                    self.refused.remove(address);
                    let open = serve(&mut self.tasks, listener, check.clone(), self.health.clone());
                    self.open.insert(*address, open);
                }
                // Told once; the next look at the log should show what is new.
                Err(error) if self.refused.insert(*address) => {
                    warn!(%error, service = %check.service, %address, "cannot open a health check port, will be tried again");
                }
                Err(_) => {}
            }
        }
    }

    /// Closes all, and waits until that is done.
    pub(crate) async fn stop(mut self) {
        self.open.values().for_each(|open| open.shutdown.trigger());
        while self.tasks.join_next().await.is_some() {}
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

fn serve(tasks: &mut JoinSet<()>, listener: TcpListener, check: Check, health: Health) -> Open {
    let (says, said) = watch::channel(check);
    let shutdown = Shutdown::new();
    let answering = answer_requests(listener, shutdown.clone(), move |_, _| answer(&said.borrow(), health.is_live()));
    Open { says, shutdown, task: tasks.spawn(answering) }
}

/// 200 if a load balancer should send clients here, else 503; why, for people, byte by byte as kube-proxy puts it.
fn answer(check: &Check, proxy_is_healthy: bool) -> Response<String> {
    let quoted = |text: &str| serde_json::Value::from(text);
    let body = format!(
        "{{\n\t\"service\": {{\n\t\t\"namespace\": {},\n\t\t\"name\": {}\n\t}},\n\t\"localEndpoints\": {},\n\t\"serviceProxyHealthy\": {proxy_is_healthy}\n}}",
        quoted(&check.service.namespace),
        quoted(&check.service.name),
        check.endpoints,
    );
    let mut response = Response::new(body);
    let is_good = check.endpoints != 0 && proxy_is_healthy;
    *response.status_mut() = if is_good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert("x-load-balancing-endpoint-weight", HeaderValue::from(check.endpoints));
    response
}

#[cfg(test)]
#[path = "health_check/tests.rs"]
mod tests;
