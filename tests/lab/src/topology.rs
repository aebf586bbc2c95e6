//! The shape of a lab in numbers and commands: which place has which addresses, and the `ip` commands that make it.
//! Pure: it runs nothing.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::neighbour::Mac;

/// The name of the segment's namespace, of the bridge in it and of the pods' bridge on each node.
pub(crate) const SEGMENT: &str = "segment";
/// The bridge that is the segment.
pub(crate) const SEGMENT_BRIDGE: &str = "br0";
/// The client's name, and its number on the segment.
pub(crate) const CLIENT: (&str, u16) = ("client", 100);
/// A second host that is no node, where a test adds one.
pub(crate) const BYSTANDER: (&str, u16) = ("bystander", 110);
/// The host of a Kubernetes control plane, where a test adds one.
pub(crate) const CONTROL: (&str, u16) = ("control", 90);
/// The number of the first pod of each node.
pub(crate) const FIRST_POD: u16 = 11;

const NODES: [&str; 5] = ["node-a", "node-b", "node-c", "node-d", "node-e"];

/// Nodes on one segment, with a client that has no route beyond it.
#[derive(Clone, Copy, Debug)]
pub struct Topology {
    /// How many nodes, up to 5.
    pub nodes: usize,
    /// Whether the segment is captured, for what a failing test leaves. It costs time where much is sent.
    pub capture: Capturing,
}

/// Whether the segment is captured all the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capturing {
    /// For tests.
    Always,
    /// For measurements.
    Never,
}

impl Default for Topology {
    /// Two nodes and a client.
    fn default() -> Self {
        Self { nodes: 2, capture: Capturing::Always }
    }
}

impl Topology {
    /// The nodes' names and numbers, counted from 1.
    pub(crate) fn nodes(self) -> impl Iterator<Item = (&'static str, u16)> {
        NODES.into_iter().zip(1..).take(self.nodes)
    }

    /// The client and every node, with their numbers on the segment.
    pub(crate) fn stations(self) -> impl Iterator<Item = (&'static str, u16)> {
        self.nodes().map(|(name, node)| (name, 10 + node)).chain([CLIENT])
    }

    /// Makes each station's `eth0` and its end in the segment. Run on the host.
    pub(crate) fn links(self, namespace: impl Fn(&str) -> String) -> Vec<String> {
        self.stations().map(|station| segment_link(station, &namespace)).collect()
    }

    /// Run in the segment. In promiscuous mode the bridge itself sees every frame once, which is where captures look;
    /// without multicast snooping it is the plain switch that a small network has.
    pub(crate) fn segment(self) -> Vec<String> {
        let bridge = format!("link add {SEGMENT_BRIDGE} type bridge mcast_snooping 0 stp_state 0");
        let up = format!("link set {SEGMENT_BRIDGE} promisc on up");
        let ports = self.stations().map(|(name, _)| segment_port(name));
        [bridge, up].into_iter().chain(ports).collect()
    }

    /// Run in a node: its address on the segment, the bridge of its pods, and a route to every other node's pods.
    pub(crate) fn node(self, node: u16) -> Vec<String> {
        let mut lines = station(10 + node);
        lines.push("link add cni0 type bridge mcast_snooping 0 stp_state 0".to_owned());
        lines.push("link set cni0 up".to_owned());
        lines.push(format!("addr add {}/24 dev cni0", pod_v4(node, 1)));
        lines.push(format!("addr add {}/64 dev cni0 nodad", pod_v6(node, 1)));
        for (_, other) in self.nodes().filter(|(_, other)| *other != node) {
            let [v4, v6] = pod_cidrs(other);
            lines.push(format!("route add {v4} via {}", number_v4(10 + other)));
            lines.push(format!("route add {v6} via {}", number_v6(10 + other)));
        }
        lines
    }
}

/// Makes a station's `eth0` and its end in the segment. Run on the host.
pub(crate) fn segment_link((name, number): (&str, u16), namespace: impl Fn(&str) -> String) -> String {
    // The kernel puts off word of a veth's link going up or down by up to a second where both ends have the same number, as
    // the first ones of two fresh namespaces do (`linkwatch_urgent_event`): each end gets a number of its own. Without one for
    // the near end, `ip` forgets that of the other.
    let line = veth(number_v4(number), &namespace(name), name, &namespace(SEGMENT));
    format!("{line} index {}", 1000 + number).replacen("eth0", &format!("eth0 index {}", 900 + number), 1)
}

/// Makes a station's end a port of the bridge. Run in the segment.
pub(crate) fn segment_port(name: &str) -> String {
    format!("link set {name} master {SEGMENT_BRIDGE} up")
}

/// Splits the segment: each side gets a bridge of its own, from which frames reach the client and no other side. Run in
/// the segment.
pub(crate) fn split(sides: &[&[&str]]) -> Vec<String> {
    let mut lines = Vec::new();
    for (number, side) in sides.iter().enumerate() {
        let [bridge, near, far] = side_links(number);
        lines.push(format!("link add {bridge} type bridge mcast_snooping 0 stp_state 0"));
        lines.push(format!("link set {bridge} up"));
        lines.push(format!("link add {near} type veth peer name {far}"));
        lines.push(format!("link set {near} master {SEGMENT_BRIDGE}"));
        // Such ports hear all others, but not each other.
        lines.push(format!("link set {near} type bridge_slave isolated on"));
        lines.push(format!("link set {near} up"));
        lines.push(format!("link set {far} master {bridge} up"));
        lines.extend(side.iter().map(|node| format!("link set {node} master {bridge}")));
    }
    lines
}

/// Undoes [`split`].
pub(crate) fn unite(sides: &[&[&str]]) -> Vec<String> {
    let nodes = sides.iter().flat_map(|side| side.iter()).map(|node| segment_port(node));
    let links = (0..sides.len()).map(side_links).flat_map(|[bridge, near, _]| [near, bridge]);
    nodes.chain(links.map(|link| format!("link del {link}"))).collect()
}

/// A side's bridge, and the link between that and the segment's.
pub(crate) fn side_links(number: usize) -> [String; 3] {
    ["side", "near", "far"].map(|name| format!("{name}{number}"))
}

/// Run in a station: its address on the segment.
pub(crate) fn station(number: u16) -> Vec<String> {
    vec![
        "link set lo up".to_owned(),
        "link set eth0 up".to_owned(),
        format!("addr add {}/24 dev eth0", number_v4(number)),
        format!("addr add {}/64 dev eth0 nodad", number_v6(number)),
    ]
}

/// Makes a pod's `eth0` and its end in the node. Run on the host.
pub(crate) fn pod_link(node: u16, pod: u16, inside: &str, port: &str, host: &str) -> String {
    veth(pod_v4(node, pod), inside, port, host)
}

/// Run in a pod.
pub(crate) fn pod(node: u16, pod: u16) -> Vec<String> {
    vec![
        "link set lo up".to_owned(),
        "link set eth0 up".to_owned(),
        format!("addr add {}/24 dev eth0", pod_v4(node, pod)),
        format!("addr add {}/64 dev eth0 nodad", pod_v6(node, pod)),
        format!("route add default via {}", pod_v4(node, 1)),
        format!("route add default via {}", pod_v6(node, 1)),
    ]
}

fn veth(address: Ipv4Addr, inside: &str, port: &str, outside: &str) -> String {
    let mac = Mac::of(address);
    format!("link add eth0 address {mac} netns {inside} type veth peer name {port} netns {outside}")
}

/// `192.168.77.N`.
pub(crate) fn number_v4(number: u16) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 77, low(number))
}

/// `fd77::N`, with the digits of the IPv4 address.
pub(crate) fn number_v6(number: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, digits(number))
}

/// The networks of a node's pods.
pub(crate) fn pod_cidrs(node: u16) -> [String; 2] {
    [format!("{}/24", pod_v4(node, 0)), format!("{}/64", pod_v6(node, 0))]
}

/// `10.244.NODE.POD`.
pub(crate) fn pod_v4(node: u16, pod: u16) -> Ipv4Addr {
    Ipv4Addr::new(10, 244, low(node), low(pod))
}

/// `fd00:10:244:NODE::POD`, with the digits of the IPv4 address.
pub(crate) fn pod_v6(node: u16, pod: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0x10, 0x244, digits(node), 0, 0, 0, digits(pod))
}

fn low(number: u16) -> u8 {
    u8::try_from(number).unwrap_or(u8::MAX)
}

/// The number whose hexadecimal digits are these decimal ones.
fn digits(number: u16) -> u16 {
    if number < 10 { number } else { digits(number / 10) * 16 + number % 10 }
}

/// The kernel's parameters in every namespace: addresses that work at once, and nothing learnt from routers.
pub(crate) const PARAMETERS: &[(&str, &str)] = &[
    ("ipv6/conf/all/accept_dad", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/all/accept_ra", "0"),
    ("ipv6/conf/default/accept_ra", "0"),
    // Loose, as distributions set it for hosts with several paths.
    ("ipv4/conf/all/rp_filter", "2"),
    ("ipv4/conf/default/rp_filter", "2"),
    // Where the module is loaded, bridged frames would pass the host's firewall.
    ("bridge/bridge-nf-call-arptables", "0"),
    ("bridge/bridge-nf-call-iptables", "0"),
    ("bridge/bridge-nf-call-ip6tables", "0"),
];

/// Also on nodes.
pub(crate) const NODE_PARAMETERS: &[(&str, &str)] =
    &[("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1"), ("ipv6/conf/default/forwarding", "1")];

/// Also in the segment, which is a switch and has no address.
pub(crate) const SEGMENT_PARAMETERS: &[(&str, &str)] =
    &[("ipv6/conf/all/disable_ipv6", "1"), ("ipv6/conf/default/disable_ipv6", "1")];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_show_the_same_digits() {
        let cases = [(11, "192.168.77.11", "fd77::11"), (100, "192.168.77.100", "fd77::100")];
        for (number, v4, v6) in cases {
            assert_eq!((number_v4(number).to_string(), number_v6(number).to_string()), (v4.into(), v6.into()));
        }
        assert_eq!(pod_v6(2, 12).to_string(), "fd00:10:244:2::12");
        assert_eq!(pod_cidrs(1), ["10.244.1.0/24".to_owned(), "fd00:10:244:1::/64".to_owned()]);
    }

    #[test]
    fn nodes_know_the_way_to_the_pods_of_all_others() {
        let topology = Topology { nodes: 3, ..Topology::default() };
        let routes: Vec<String> = topology.node(2).into_iter().filter(|line| line.starts_with("route")).collect();
        let expected = [
            "route add 10.244.1.0/24 via 192.168.77.11",
            "route add fd00:10:244:1::/64 via fd77::11",
            "route add 10.244.3.0/24 via 192.168.77.13",
            "route add fd00:10:244:3::/64 via fd77::13",
        ];
        assert_eq!(routes, expected);
        assert_eq!(topology.links(str::to_owned).len(), 4, "three nodes and the client");
    }
}
