//! The Service that is asked: two addresses, one port, a pod on every node, each node serving its own
//! (externalTrafficPolicy Local), so that an answer tells the node.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::Result;
use roadstead_lab::{Lab, Node};

/// The addresses that move.
pub(crate) const VIP_V4: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 200);
pub(crate) const VIP_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0x200);
/// Where the echo servers listen.
pub(crate) const PORT: u16 = 5353;

/// Both addresses, IPv4 first.
pub(crate) const VIPS: [IpAddr; 2] = [IpAddr::V4(VIP_V4), IpAddr::V6(VIP_V6)];

/// Where the client sends.
pub(crate) fn targets() -> [SocketAddr; 2] {
    VIPS.map(|ip| SocketAddr::new(ip, PORT))
}

/// Writes the manifests that speakers and agents of all nodes read.
pub(crate) fn apply(lab: &Lab) -> Result<()> {
    for node in lab.nodes() {
        lab.apply(&format!("{}.yaml", node.name()), &node_object(node))?;
    }
    lab.apply("pool.yaml", &pool())?;
    lab.apply("service.yaml", &service(lab.nodes()))
}

fn node_object(node: &Node) -> String {
    let (name, host) = (node.name(), node.host());
    let [v4, v6] = node.pod_cidrs();
    format!(
        "apiVersion: v1\nkind: Node\nmetadata: {{name: {name}, labels: {{kubernetes.io/hostname: {name}}}}}\nspec: {{podCIDRs: \
         [\"{v4}\", \"{v6}\"]}}\nstatus:\n  addresses:\n  - {{type: InternalIP, address: \"{}\"}}\n  - {{type: InternalIP, \
         address: \"{}\"}}\n",
        host.v4(),
        host.v6()
    )
}

fn pool() -> String {
    format!(
        "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {{name: segment, namespace: metallb-system}}\nspec:\n  \
         addresses: [\"{VIP_V4}/32\", \"{VIP_V6}/128\"]\n---\napiVersion: metallb.io/v1beta1\nkind: L2Advertisement\nmetadata: \
         {{name: segment, namespace: metallb-system}}\n"
    )
}

fn service(nodes: &[Node]) -> String {
    let head = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: echo, namespace: bench}}\nspec:\n  type: LoadBalancer\n  \
         ipFamilyPolicy: RequireDualStack\n  clusterIP: 10.96.0.10\n  clusterIPs: [10.96.0.10, \"fd00:10:96::10\"]\n  \
         externalTrafficPolicy: Local\n  healthCheckNodePort: 30400\n  ports: [{{name: udp, protocol: UDP, port: {PORT}, \
         targetPort: {PORT}, nodePort: 30053}}]\n"
    );
    let slices = ["IPv4", "IPv6"].map(|family| {
        let endpoints: String = nodes
            .iter()
            .map(|node| {
                let [v4, v6] = pod_addresses(node);
                let address = if family == "IPv4" { v4 } else { v6 };
                format!("- {{addresses: [\"{address}\"], nodeName: {}, conditions: {{ready: true}}}}\n", node.name())
            })
            .collect();
        format!(
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: echo-{}\n  namespace: bench\n  labels: \
             {{kubernetes.io/service-name: echo}}\naddressType: {family}\nports: [{{name: udp, protocol: UDP, port: {PORT}}}]\n\
             endpoints:\n{endpoints}",
            family.to_lowercase()
        )
    });
    [head, slices.concat()].concat()
}

/// The addresses of a node's first pod: the eleventh of its networks.
fn pod_addresses(node: &Node) -> [String; 2] {
    let [v4, v6] = node.pod_cidrs();
    [v4.replace(".0/24", ".11"), v6.replace("::/64", "::11")]
}
