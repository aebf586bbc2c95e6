//! Services and their endpoints as the matrix and the verdicts need them: built in one place, applied as YAML of both
//! families, and known by their addresses.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use roadstead_lab::Place;

use super::fixture::ips;

/// Where the Services' ports lead to: the echo servers'.
const TARGETS: [(&str, &str, u16, u16); 2] = [("tcp", "TCP", TCP, 9000), ("udp", "UDP", UDP, 5353)];
/// The ports of every Service.
pub(crate) const TCP: u16 = 80;
pub(crate) const UDP: u16 = 53;
/// Node ports: this and the Service's number.
const NODE_PORTS: [u16; 2] = [30_000, 30_200];
/// The port of health checks: this and the Service's number.
const HEALTH_PORT: u16 = 30_400;

/// A Service with the addresses and ports that follow from its number.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    pub(crate) name: &'static str,
    number: u16,
    /// More lines of `spec`.
    spec: Vec<String>,
    endpoints: Vec<Endpoint>,
}

/// One endpoint of both families.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    ips: [IpAddr; 2],
    node: String,
    conditions: &'static str,
    hints: String,
}

impl Endpoint {
    /// A ready one.
    pub(crate) fn new(place: &Place, node: &str) -> Self {
        Self { ips: ips(place), node: node.to_owned(), conditions: "ready: true", hints: String::new() }
    }

    /// One that ends, and serves meanwhile.
    pub(crate) fn terminating(self) -> Self {
        Self { conditions: "ready: false, serving: true, terminating: true", ..self }
    }

    /// One that ends, and does not serve any more.
    pub(crate) fn ended(self) -> Self {
        Self { conditions: "ready: false, serving: false, terminating: true", ..self }
    }

    /// Meant for these zones or nodes: `forZones: [{name: a}]`.
    pub(crate) fn hints(self, hints: &str) -> Self {
        Self { hints: format!(", hints: {{{hints}}}"), ..self }
    }
}

impl Service {
    /// Type LoadBalancer, with an address of each family; numbers go from 1 to 199.
    pub(crate) fn new(name: &'static str, number: u16) -> Self {
        assert!((1..200).contains(&number), "the addresses and ports of {name} would be another's");
        Self { name, number, spec: Vec::new(), endpoints: Vec::new() }
    }

    /// One more line of `spec`.
    pub(crate) fn spec(mut self, line: &str) -> Self {
        self.spec.push(line.to_owned());
        self
    }

    /// `externalTrafficPolicy: Local`, with its port for health checks.
    pub(crate) fn external_local(self) -> Self {
        let health = format!("healthCheckNodePort: {}", self.health_port());
        self.spec("externalTrafficPolicy: Local").spec(&health)
    }

    /// These endpoints, in place of all others.
    pub(crate) fn endpoints(self, endpoints: impl IntoIterator<Item = Endpoint>) -> Self {
        Self { endpoints: endpoints.into_iter().collect(), ..self }
    }

    /// `10.96.1.NUMBER`, `fd00:10:96::1NUMBER` (in hexadecimal digits).
    pub(crate) fn cluster(&self) -> [IpAddr; 2] {
        let last = 0x100 + self.number;
        [Ipv4Addr::new(10, 96, 1, self.low()).into(), Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, last).into()]
    }

    /// `198.51.100.NUMBER`, `fd51::NUMBER`: an address of no host.
    pub(crate) fn balancer(&self) -> [IpAddr; 2] {
        [Ipv4Addr::new(198, 51, 100, self.low()).into(), Ipv6Addr::new(0xfd51, 0, 0, 0, 0, 0, 0, self.number).into()]
    }

    /// The node ports of TCP and UDP.
    pub(crate) fn node_ports(&self) -> [u16; 2] {
        NODE_PORTS.map(|base| base + self.number)
    }

    /// The node port of health checks.
    pub(crate) fn health_port(&self) -> u16 {
        HEALTH_PORT + self.number
    }

    fn low(&self) -> u8 {
        u8::try_from(self.number).unwrap()
    }

    /// The Service and its slices.
    pub(crate) fn yaml(&self) -> String {
        let mut text = self.object();
        for (family, at) in [("IPv4", 0), ("IPv6", 1)] {
            text += &self.slice(family, at);
        }
        text
    }

    /// The Service alone, as after its slices have been deleted.
    pub(crate) fn object(&self) -> String {
        let (name, [v4, v6]) = (self.name, self.cluster());
        let mut text = format!("apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\n  namespace: shop\n");
        text += "spec:\n  type: LoadBalancer\n  ipFamilyPolicy: RequireDualStack\n";
        writeln!(text, "  clusterIP: {v4}\n  clusterIPs: [{v4}, \"{v6}\"]").unwrap();
        self.spec.iter().for_each(|line| writeln!(text, "  {line}").unwrap());
        text += "  ports:\n";
        for ((name, protocol, port, target), node_port) in TARGETS.into_iter().zip(self.node_ports()) {
            let line = format!("name: {name}, protocol: {protocol}, port: {port}, targetPort: {target}");
            writeln!(text, "    - {{{line}, nodePort: {node_port}}}").unwrap();
        }
        let [v4, v6] = self.balancer();
        writeln!(text, "status: {{loadBalancer: {{ingress: [{{ip: {v4}}}, {{ip: \"{v6}\"}}]}}}}").unwrap();
        text
    }

    fn slice(&self, family: &str, at: usize) -> String {
        let name = self.name;
        let mut text = format!(
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {name}-{}\n  namespace: shop\n  \
             labels: {{kubernetes.io/service-name: {name}}}\naddressType: {family}\nports:\n",
            family.to_lowercase()
        );
        for (port, protocol, _, target) in TARGETS {
            writeln!(text, "  - {{name: {port}, protocol: {protocol}, port: {target}}}").unwrap();
        }
        if self.endpoints.is_empty() {
            return text + "endpoints: []\n";
        }
        text += "endpoints:\n";
        for Endpoint { ips, node, conditions, hints } in &self.endpoints {
            let ip = ips[at];
            writeln!(text, "  - {{addresses: [\"{ip}\"], nodeName: {node}, conditions: {{{conditions}}}{hints}}}")
                .unwrap();
        }
        text
    }
}

/// Where a client asks for a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Via {
    ClusterIp,
    NodePort,
    Balancer,
}

impl Service {
    /// The address of a family (0 is IPv4) by which TCP clients reach it; node ports are those of this node.
    pub(crate) fn tcp(&self, via: Via, node: &Place, family: usize) -> SocketAddr {
        self.address(via, node, family, (TCP, self.node_ports()[0]))
    }

    /// The same for UDP.
    pub(crate) fn udp(&self, via: Via, node: &Place, family: usize) -> SocketAddr {
        self.address(via, node, family, (UDP, self.node_ports()[1]))
    }

    fn address(&self, via: Via, node: &Place, family: usize, (port, node_port): (u16, u16)) -> SocketAddr {
        match via {
            Via::ClusterIp => SocketAddr::new(self.cluster()[family], port),
            Via::NodePort => SocketAddr::new(ips(node)[family], node_port),
            Via::Balancer => SocketAddr::new(self.balancer()[family], port),
        }
    }
}
