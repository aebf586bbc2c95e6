//! What a Service and an Ingress could leave behind when they are deleted, looked for everywhere: in the nodes' maps, at the
//! speakers, in the proxies' routes, in the pools and in the API.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use roadstead_dataplane::addresses::from_map;
use roadstead_dataplane::dump::{self, DumpedFrontend};
use roadstead_dataplane::maps::KernelMaps;
use roadstead_dataplane::pins::Pins;
use roadstead_lab::{Node, Probe};
use serde_json::Value;

use super::fixture::{Cluster, text};
use super::install::SYSTEM;

/// Where the speakers and proxies serve their metrics.
const METRICS: [u16; 2] = [9472, 9473];

/// What is told of some Services of the default namespace and of an Ingress while they live.
pub(crate) struct Traces {
    services: BTreeSet<String>,
    /// Cluster addresses, and those of pools.
    addresses: BTreeSet<IpAddr>,
    balancers: BTreeSet<IpAddr>,
    node_ports: BTreeSet<u16>,
    /// The host of the Ingress at the proxies' address.
    host: &'static str,
    proxies: SocketAddr,
}

impl Traces {
    /// Looks at the Services, and at the nodes, where all of it must be.
    #[track_caller]
    pub(crate) fn of(cluster: &Cluster, services: &[&str], host: &'static str, proxies: SocketAddr) -> Self {
        let (services, none) = (services.iter().map(|name| (*name).to_owned()).collect(), BTreeSet::new);
        let mut traces =
            Self { services, addresses: none(), balancers: none(), node_ports: BTreeSet::new(), host, proxies };
        for name in traces.services.clone() {
            traces.take(&cluster.control.get(&format!("/api/v1/namespaces/default/services/{name}")).unwrap());
        }
        let counts = (traces.addresses.len(), traces.balancers.len(), traces.node_ports.len());
        assert!(counts.0 >= 3 && counts.1 >= 1 && counts.2 >= 2, "{counts:?}");
        for node in cluster.lab.nodes() {
            assert!(!traces.in_maps(node).is_empty(), "{} serves nothing of it", node.name());
        }
        assert!(!traces.in_metrics(cluster).is_empty(), "no speaker and no proxy tells of it");
        assert!(traces.is_routed(cluster), "the proxies do not route it");
        assert!(!traces.in_statuses(cluster).is_empty(), "no ServiceL2Status tells of it");
        traces
    }

    fn take(&mut self, service: &Value) {
        let list = |pointer: &str| service.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default();
        let ip = |value: &Value| value.as_str().and_then(|text| text.parse::<IpAddr>().ok());
        self.addresses.extend(list("/spec/clusterIPs").iter().filter_map(ip));
        self.balancers.extend(list("/status/loadBalancer/ingress").iter().filter_map(|one| ip(one.get("ip")?)));
        let ports = list("/spec/ports");
        let ports = ports.iter().filter_map(|port| port.get("nodePort")?.as_u64());
        self.node_ports.extend(ports.filter_map(|port| u16::try_from(port).ok()));
    }

    /// Everything was deleted: waits until nothing of it is anywhere.
    #[track_caller]
    pub(crate) fn assert_none_left(&self, cluster: &Cluster) {
        cluster.wait("nobody answers for its addresses", || self.balancers.iter().all(|ip| cluster.is_silent(*ip)));
        for node in cluster.lab.nodes() {
            cluster.wait("no map has it", || self.in_maps(node).is_empty());
        }
        cluster.wait("speakers and proxies tell nothing of it", || self.in_metrics(cluster).is_empty());
        cluster.wait("the proxies have no route", || !self.is_routed(cluster));
        cluster.wait("no ServiceL2Status is left", || self.in_statuses(cluster).is_empty());
        self.assert_objects_are_gone(cluster);
        self.assert_all_is_free(cluster);
    }

    /// What a node's maps hold of it: at its addresses, or at its node ports.
    fn in_maps(&self, node: &Node) -> Vec<DumpedFrontend> {
        // The agent's pod pins below a folder of its own.
        let (maps, _) = KernelMaps::open(&Pins::at(&node.bpffs().join("roadstead"))).unwrap();
        let mut frontends = dump::frontends(&maps).unwrap();
        frontends.retain(|frontend| {
            let ip = from_map(&frontend.key.addr);
            let at_address = self.addresses.contains(&ip) || self.balancers.contains(&ip);
            at_address || ip.is_unspecified() && self.node_ports.contains(&frontend.key.port.get())
        });
        frontends
    }

    /// Lines of speakers' and proxies' metrics that name one of the Services, or the Ingress's host.
    fn in_metrics(&self, cluster: &Cluster) -> Vec<String> {
        let mut lines = Vec::new();
        for node in cluster.lab.nodes() {
            for port in METRICS {
                let address = SocketAddr::new(node.host().v4().into(), port);
                let answer = node.host().probe_once(&Probe::http(&format!("http://{address}/metrics"))).unwrap();
                let page = answer.answer.as_str().unwrap_or_default();
                assert!(page.contains("# TYPE"), "{} serves no metrics at {port}: {answer:?}", node.name());
                lines.extend(page.lines().filter(|line| self.is_of_speaker(line)).map(str::to_owned));
            }
        }
        lines
    }

    /// Counters are history and stay; what is announced, and which certificates there are, is the present.
    fn is_of_speaker(&self, line: &str) -> bool {
        let announced = |name: &String| line.contains(&format!("service=\"default/{name}\""));
        let is_announced = line.starts_with("metallb_speaker_announced") && self.services.iter().any(announced);
        is_announced || line.starts_with("nginx_ingress_controller_ssl_expire") && line.contains(self.host)
    }

    /// Whether a proxy of any node answers the Ingress's host with anything but 404.
    fn is_routed(&self, cluster: &Cluster) -> bool {
        let own = cluster.lab.nodes().iter().map(|node| SocketAddr::new(node.host().v4().into(), self.proxies.port()));
        own.chain([self.proxies]).any(|address| {
            let request = Probe::http(&format!("https://{}/", self.host)).at(address).insecure();
            cluster.lab.client().probe_once(&request).unwrap().status != Some(404)
        })
    }

    /// The ServiceL2Status objects of the Services.
    fn in_statuses(&self, cluster: &Cluster) -> Vec<Value> {
        let mut statuses = cluster.list("/apis/metallb.io/v1beta1/servicel2statuses");
        statuses.retain(|one| self.services.contains(text(one, "/status/serviceName")));
        statuses
    }

    /// Nothing in the API is called after it or waits for somebody's finalizer. Events are history, and the API server
    /// forgets them after an hour; but nobody is to tell a new one about what is gone.
    #[track_caller]
    fn assert_objects_are_gone(&self, cluster: &Cluster) {
        let named = |object: &Value| {
            let name = text(object, "/metadata/name");
            self.services.iter().any(|service| name == service || name.starts_with(&format!("{service}-")))
        };
        for kind in ["api/v1/services", "discovery.k8s.io/v1/endpointslices", "coordination.k8s.io/v1/leases"] {
            let path = if kind.starts_with("api/") { format!("/{kind}") } else { format!("/apis/{kind}") };
            cluster.wait("no object is called after it", || !cluster.list(&path).iter().any(named));
        }
        let kinds = ["services", "endpointslices", "ingresses", "secrets", "configmaps", "leases", "ipaddresspools"];
        let all = cluster.kubectl(&format!("get {} -A -o json", kinds.join(",")));
        let all: Value = serde_json::from_str(&all).unwrap();
        let held = |object: &Value| {
            object.pointer("/metadata/finalizers").is_some() || object.pointer("/metadata/deletionTimestamp").is_some()
        };
        let held: Vec<&Value> = all["items"].as_array().unwrap().iter().filter(|object| held(object)).collect();
        assert!(held.is_empty(), "held by finalizers: {held:#?}");
    }

    /// The addresses are free in the pool, and another Service gets them and the node ports.
    #[track_caller]
    fn assert_all_is_free(&self, cluster: &Cluster) {
        let used = |service: &Value| service.pointer("/status/loadBalancer/ingress/0").is_some();
        cluster.wait("the pool counts no address of it", || {
            let left = cluster.list("/api/v1/services").iter().filter(|service| used(service)).count();
            let pool = cluster.control.get("/apis/metallb.io/v1beta1/namespaces/metallb-system/ipaddresspools/segment");
            pool.unwrap().pointer("/status/assignedIPv4").and_then(Value::as_u64) == u64::try_from(left).ok()
        });
        let ip = self.balancers.iter().find(|ip| ip.is_ipv4()).unwrap();
        let ports: Vec<String> =
            self.node_ports.iter().map(|port| format!("{{name: p{port}, port: {port}, nodePort: {port}}}")).collect();
        let manifest = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: heir, annotations: {{metallb.io/loadBalancerIPs: {ip}}}}}\n\
             spec: {{type: LoadBalancer, ports: [{}]}}\n",
            ports.join(", ")
        );
        cluster.control.apply(&manifest).unwrap();
        cluster.wait("another Service gets the address", || {
            let heir = cluster.control.get("/api/v1/namespaces/default/services/heir").unwrap();
            text(&heir, "/status/loadBalancer/ingress/0/ip") == ip.to_string()
        });
        self.assert_no_new_event(cluster);
        cluster.kubectl("delete service heir");
        cluster.wait("nobody answers for the address", || cluster.is_silent(*ip));
    }

    /// The last event about one of the Services is older than the first about the one that came after them.
    #[track_caller]
    fn assert_no_new_event(&self, cluster: &Cluster) {
        let events = cluster.list("/api/v1/namespaces/default/events");
        let about = |event: &&Value, service: &str| {
            let object = |field: &str| text(event, &format!("/involvedObject/{field}"));
            (object("kind"), object("name")) == ("Service", service)
        };
        let time = |event: &Value| text(event, "/lastTimestamp").to_owned();
        let since = events.iter().filter(|event| about(event, "heir")).map(time).min();
        let Some(since) = since else { return };
        let mut old = events.iter().filter(|event| self.services.iter().any(|service| about(event, service)));
        assert!(old.all(|event| time(event) <= since), "{events:#?}");
        assert!(!cluster.list(&format!("/apis/coordination.k8s.io/v1/namespaces/{SYSTEM}/leases")).is_empty());
    }
}
