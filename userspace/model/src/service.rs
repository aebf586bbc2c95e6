//! Services: what clients address.
//!
//! Source of the fields' meaning: <https://kubernetes.io/docs/reference/kubernetes-api/service-resources/service-v1/>.

use std::{fmt, net::IpAddr, str::FromStr};

use ipnet::IpNet;

use crate::{IpFamily, Labels, Metadata, Port, Protocol};

/// One Service, defaults filled in, addresses assigned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Name, labels, annotations, age.
    pub meta: Metadata,
    /// `spec.type`.
    pub kind: ServiceKind,
    /// `spec.selector`; empty when endpoints come from slices written by hand.
    pub selector: Labels,
    /// `spec.clusterIPs`, at most one a family; empty for a headless or `ExternalName` Service.
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.ipFamilies`, one or two, the first is the primary one.
    pub ip_families: Vec<IpFamily>,
    /// `spec.ipFamilyPolicy`.
    pub family_policy: FamilyPolicy,
    /// `spec.ports`, names and (protocol, port) pairs unique.
    pub ports: Vec<ServicePort>,
    /// `spec.externalIPs`.
    pub external_ips: Vec<IpAddr>,
    /// `spec.externalTrafficPolicy`: which endpoints traffic to node ports, LoadBalancer and external addresses may use.
    pub external_policy: TrafficPolicy,
    /// `spec.internalTrafficPolicy`: which endpoints traffic to cluster addresses may use.
    pub internal_policy: TrafficPolicy,
    /// `spec.sessionAffinity: ClientIP` and its timeout in seconds; `None` is `sessionAffinity: None`.
    pub affinity_seconds: Option<u32>,
    /// `spec.publishNotReadyAddresses`.
    pub publish_not_ready: bool,
    /// `spec.trafficDistribution` as written; the hints of the Service's slices are what it comes to.
    pub traffic_distribution: Option<String>,
    /// The annotation `roadstead.dev/load-balancing`; `None` leaves the choice to the node's flag.
    pub selection: Option<Selection>,
    /// What only Services of type LoadBalancer carry; for other types its defaults.
    pub load_balancer: LoadBalancerSpec,
    /// `status.loadBalancer.ingress`: the addresses that the speaker assigned.
    pub status: Vec<LoadBalancerIngress>,
}

impl Service {
    /// A Service that has no address of its own: clients resolve its endpoints or another name by DNS.
    #[must_use]
    pub fn is_headless(&self) -> bool {
        self.cluster_ips.is_empty()
    }

    /// The addresses of `status.loadBalancer` that this node must capture: those without an address are host names,
    /// those with `ipMode: Proxy` are served by somebody else's box (KEP-1860).
    pub fn captured_ips(&self) -> impl Iterator<Item = IpAddr> {
        let balanced = self.kind == ServiceKind::LoadBalancer;
        self.status.iter().filter(move |entry| balanced && entry.mode == IngressIpMode::Vip).map(|entry| entry.ip)
    }

    /// The port with this number, or by this name.
    #[must_use]
    pub fn port_named(&self, name: &str) -> Option<&ServicePort> {
        self.ports.iter().find(|port| port.name == name)
    }
}

/// `spec.type` of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceKind {
    /// Reachable at its cluster address only.
    ClusterIp,
    /// Also at a port of every node.
    NodePort,
    /// Also at addresses from a pool.
    LoadBalancer,
    /// A DNS alias; nothing is programmed for it.
    ExternalName(String),
}

impl ServiceKind {
    /// The word in `spec.type`.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::ClusterIp => "ClusterIP",
            Self::NodePort => "NodePort",
            Self::LoadBalancer => "LoadBalancer",
            Self::ExternalName(_) => "ExternalName",
        }
    }
}

/// `spec.ipFamilyPolicy`: whether one family will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum FamilyPolicy {
    /// One family.
    #[default]
    SingleStack,
    /// Both where both can be had.
    PreferDualStack,
    /// Both or nothing.
    RequireDualStack,
}

/// One entry of `spec.ports`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Empty where the Service has a single unnamed port.
    pub name: String,
    /// Transport protocol.
    pub protocol: Protocol,
    /// The port on the Service's addresses.
    pub port: Port,
    /// The port of the endpoints; a slice's own port number goes before it.
    pub target: TargetPort,
    /// The port on every node; `None` for cluster-internal Services and where allocation is switched off.
    pub node_port: Option<Port>,
    /// `appProtocol`, such as `kubernetes.io/h2c`.
    pub app_protocol: Option<String>,
}

/// `targetPort`: a number, or the name of a container's port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPort {
    /// By number.
    Number(Port),
    /// By the name of a pod's container port.
    Name(String),
}

/// Which endpoints a kind of traffic may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum TrafficPolicy {
    /// All of them.
    #[default]
    Cluster,
    /// Those on the node that handles the packet.
    Local,
}

/// How a backend is selected for a new flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Selection {
    /// By chance, each backend as likely as the others, as kube-proxy does.
    #[default]
    Random,
    /// By a Maglev table (Eisenbud et al., NSDI 2016): every node selects the same backend for the same flow.
    Maglev,
}

impl Selection {
    /// The word in the annotation and in the flag.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Maglev => "maglev",
        }
    }
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text was neither random nor maglev.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not known, expected random or maglev")]
pub struct UnknownSelection(pub String);

impl FromStr for Selection {
    type Err = UnknownSelection;

    fn from_str(text: &str) -> Result<Self, UnknownSelection> {
        match text {
            "random" => Ok(Self::Random),
            "maglev" => Ok(Self::Maglev),
            other => Err(UnknownSelection(other.to_owned())),
        }
    }
}

/// The part of the spec for Services of type LoadBalancer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadBalancerSpec {
    /// `loadBalancerClass`; a class that is not ours leaves the Service to another speaker.
    pub class: Option<String>,
    /// Addresses asked for by `loadBalancerIP` or the annotations `metallb.io/loadBalancerIPs`,
    /// `metallb.universe.tf/loadBalancerIPs`, `roadstead.dev/loadBalancerIPs`.
    pub requested_ips: Vec<IpAddr>,
    /// Why the request for addresses cannot be read: it is none, and no address will do.
    pub request_error: Option<String>,
    /// The pool asked for by an annotation `…/address-pool`.
    pub requested_pool: Option<String>,
    /// The annotation `…/allow-shared-ip`: Services with the same key may share an address.
    pub sharing_key: Option<String>,
    /// `loadBalancerSourceRanges`; empty allows every source.
    pub source_ranges: Vec<IpNet>,
    /// `healthCheckNodePort`: where nodes tell whether they have local endpoints; set, by the manifest or by assignment,
    /// exactly for type LoadBalancer with external policy Local.
    pub health_check_node_port: Option<Port>,
}

/// One address of `status.loadBalancer.ingress`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadBalancerIngress {
    /// The address.
    pub ip: IpAddr,
    /// Whether nodes capture it.
    pub mode: IngressIpMode,
}

/// `ipMode` (KEP-1860).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum IngressIpMode {
    /// Nodes answer for the address themselves.
    #[default]
    Vip,
    /// A proxy in front of the cluster answers; nodes leave it alone.
    Proxy,
}
