//! Addresses of the standard library in the form of the maps and back, and the node's own addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use roadstead_abi::{Addr, Be16, NodeConfig};
use roadstead_model::{Node, Port};

/// The form of the maps: IPv4 is mapped into IPv6.
#[must_use]
pub fn to_map(ip: IpAddr) -> Addr {
    match ip {
        IpAddr::V4(ip) => Addr::v4(ip.octets()),
        IpAddr::V6(ip) => Addr::v6(ip.octets()),
    }
}

/// The form of the standard library.
#[must_use]
pub fn from_map(addr: &Addr) -> IpAddr {
    let octets = addr.octets();
    if addr.is_v4() {
        return IpAddr::V4(Ipv4Addr::new(octets[12], octets[13], octets[14], octets[15]));
    }
    IpAddr::V6(Ipv6Addr::from(octets))
}

/// A port in the form of the maps.
#[must_use]
pub fn port(port: Port) -> Be16 {
    Be16::new(port.get())
}

/// The addresses of this node: the first of each family is its primary one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeAddresses(pub Vec<IpAddr>);

impl NodeAddresses {
    /// What the Node object says, else what was found on the devices.
    #[must_use]
    pub fn choose(node: Option<&Node>, found: &[IpAddr]) -> Self {
        let told = node.map(|node| node.internal_ips.clone()).unwrap_or_default();
        Self(if told.is_empty() { found.to_vec() } else { told })
    }

    /// The primary IPv4 address.
    #[must_use]
    pub fn ipv4(&self) -> Option<IpAddr> {
        self.0.iter().copied().find(IpAddr::is_ipv4)
    }

    /// The primary IPv6 address.
    #[must_use]
    pub fn ipv6(&self) -> Option<IpAddr> {
        self.0.iter().copied().find(IpAddr::is_ipv6)
    }

    /// Addresses that serve node ports: the primary ones, or all inside the given networks (`--nodeport-addresses`).
    #[must_use]
    pub fn serving_node_ports(&self, networks: &[IpNet]) -> Vec<IpAddr> {
        if networks.is_empty() {
            return self.ipv4().into_iter().chain(self.ipv6()).collect();
        }
        self.0.iter().copied().filter(|ip| networks.iter().any(|network| network.contains(ip))).collect()
    }

    /// The node's entry for the programs.
    #[must_use]
    pub fn config(&self, netns_cookie: u64, node_ports: &std::ops::RangeInclusive<u16>) -> NodeConfig {
        NodeConfig {
            netns_cookie,
            ipv4: self.ipv4().map_or(Addr::UNSPECIFIED, to_map),
            ipv6: self.ipv6().map_or(Addr::UNSPECIFIED, to_map),
            node_port_first: *node_ports.start(),
            node_port_last: *node_ports.end(),
            ..NodeConfig::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_way_into_the_maps_and_back() {
        for text in ["192.0.2.1", "2001:db8::1", "::1", "0.0.0.0"] {
            let ip: IpAddr = text.parse().unwrap();
            assert_eq!(from_map(&to_map(ip)), ip);
        }
    }

    #[test]
    fn node_ports_are_served_on_primary_addresses_or_inside_networks() {
        let ips = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>();
        let node = NodeAddresses(ips(&["10.0.0.1", "10.0.0.2", "fd00::1", "192.0.2.7"]));
        let networks: Vec<IpNet> = vec!["192.0.2.0/24".parse().unwrap(), "10.0.0.2/32".parse().unwrap()];
        assert_eq!(node.serving_node_ports(&[]), ips(&["10.0.0.1", "fd00::1"]));
        assert_eq!(node.serving_node_ports(&networks), ips(&["10.0.0.2", "192.0.2.7"]));
    }
}
