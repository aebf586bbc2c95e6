//! The node itself in the maps: its addresses, the networks of its pods and Services, and its own entry.

use std::{collections::BTreeMap, net::IpAddr, ops::RangeInclusive};

use ipnet::IpNet;
use roadstead_abi::{Addr, MAX_SERVICE_NETWORKS, Network, NodeConfig, network, node_address, node_flags};
use roadstead_model::Node;

use crate::{
    addresses::{Prefix, from_map, to_map},
    maps::{MapError, Maps},
    reconcile::{ReconcileError, Reconciler},
};

/// The addresses of this node: the first of each family is its primary one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeAddresses(pub Vec<IpAddr>);

/// What the agent's flags and its surroundings say about the node.
#[derive(Clone, Debug)]
pub struct NodeSettings<'a> {
    /// `SO_NETNS_COOKIE` of the agent's network namespace.
    pub netns_cookie: u64,
    /// All addresses of the node's devices, besides those of its Node object.
    pub own: &'a [IpAddr],
    /// `--node-port-range`.
    pub node_ports: RangeInclusive<u16>,
    /// `--nodeport-addresses`; none means the primary addresses.
    pub node_port_networks: &'a [IpNet],
    /// Networks of pods; none means that pods cannot be told from others.
    pub pods: &'a [IpNet],
    /// Networks of cluster addresses; the first [`MAX_SERVICE_NETWORKS`] count.
    pub services: &'a [IpNet],
    /// Bits of [`node_flags`] that flags set: `KUBE_PROXY`, `MASQUERADE_ALL`.
    pub flags: u32,
}

/// What the maps shall hold about the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeState {
    /// The node's entry.
    pub config: NodeConfig,
    /// Its addresses and what they do ([`node_address`]).
    pub addresses: BTreeMap<Addr, u32>,
    /// Networks and what they are ([`network`]).
    pub networks: BTreeMap<Prefix, u32>,
}

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

    /// Both, as far as there are.
    #[must_use]
    pub fn primary(&self) -> Vec<IpAddr> {
        self.ipv4().into_iter().chain(self.ipv6()).collect()
    }

    /// Everything that the maps shall hold about the node.
    #[must_use]
    pub fn state(&self, settings: &NodeSettings<'_>) -> NodeState {
        let primary = self.primary();
        let serves = |ip: &IpAddr| match settings.node_port_networks {
            [] => primary.contains(ip),
            networks => networks.iter().any(|network| network.contains(ip)),
        };
        let flags = |ip: &IpAddr| if serves(ip) { node_address::SERVES_NODE_PORTS } else { 0 };
        let known = if settings.pods.is_empty() { 0 } else { node_flags::PODS_KNOWN };
        let mut services = [Network::default(); MAX_SERVICE_NETWORKS];
        let mut service_networks = 0;
        for (to, from) in services.iter_mut().zip(settings.services) {
            *to = Prefix::of(from).network();
            service_networks += 1;
        }
        NodeState {
            config: NodeConfig {
                netns_cookie: settings.netns_cookie,
                ipv4: self.ipv4().map_or(Addr::UNSPECIFIED, to_map),
                ipv6: self.ipv6().map_or(Addr::UNSPECIFIED, to_map),
                node_port_first: *settings.node_ports.start(),
                node_port_last: *settings.node_ports.end(),
                flags: settings.flags | known,
                services,
                service_networks,
                reserved: 0,
            },
            addresses: self.0.iter().chain(settings.own).map(|ip| (to_map(*ip), flags(ip))).collect(),
            networks: settings.pods.iter().map(|pods| (Prefix::of(pods), network::POD)).collect(),
        }
    }
}

impl NodeState {
    /// The addresses that serve node ports.
    #[must_use]
    pub fn serving_node_ports(&self) -> Vec<IpAddr> {
        let serves = |flags: &u32| flags & node_address::SERVES_NODE_PORTS != 0;
        self.addresses.iter().filter(|(_, flags)| serves(flags)).map(|(addr, _)| from_map(addr)).collect()
    }
}

/// What the maps hold about the node.
#[derive(Default)]
pub(crate) struct HeldNode {
    /// Unknown until it has been written once.
    config: Option<NodeConfig>,
    pub(crate) addresses: BTreeMap<Addr, u32>,
    networks: BTreeMap<Prefix, u32>,
}

impl HeldNode {
    pub(crate) fn recover(maps: &impl Maps) -> Result<Self, MapError> {
        let addresses = maps.node_addresses()?.into_iter().collect();
        Ok(Self { config: None, addresses, networks: maps.networks()?.into_iter().collect() })
    }
}

impl<M: Maps> Reconciler<M> {
    /// Brings the node's own entry, its addresses and its networks to what they shall be. What is new comes first, then the
    /// entry, which says what is known, then goes what is old.
    ///
    /// # Errors
    /// As [`Reconciler::apply`]; the rest is done the next time.
    pub fn apply_node(&mut self, state: &NodeState) -> Result<(), ReconcileError> {
        let Self { maps, node, filter, .. } = self;
        for addr in state.addresses.keys() {
            filter.add_node(addr);
        }
        filter.write(maps)?;
        for (network, flags) in &state.networks {
            if node.networks.get(network) != Some(flags) {
                maps.put_network(network, *flags)?;
                node.networks.insert(*network, *flags);
            }
        }
        for (addr, flags) in &state.addresses {
            if node.addresses.get(addr) != Some(flags) {
                maps.put_node_address(addr, *flags)?;
                node.addresses.insert(*addr, *flags);
            }
        }
        if node.config != Some(state.config) {
            maps.put_node(&state.config)?;
            node.config = Some(state.config);
        }
        let gone: Vec<_> = node.addresses.keys().filter(|addr| !state.addresses.contains_key(addr)).copied().collect();
        for addr in gone {
            maps.remove_node_address(&addr)?;
            node.addresses.remove(&addr);
        }
        let gone: Vec<_> = node.networks.keys().filter(|net| !state.networks.contains_key(net)).copied().collect();
        for network in gone {
            maps.remove_network(&network)?;
            node.networks.remove(&network);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_ports_are_served_on_primary_addresses_or_inside_networks() {
        let ips = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>();
        let node = NodeAddresses(ips(&["10.0.0.1", "10.0.0.2", "fd00::1", "192.0.2.7"]));
        let networks: Vec<IpNet> = vec!["192.0.2.0/24".parse().unwrap(), "10.0.0.2/32".parse().unwrap()];
        let pods: Vec<IpNet> = vec!["10.244.0.0/16".parse().unwrap()];
        let services: Vec<IpNet> = vec!["10.96.0.0/12".parse().unwrap()];
        let cases: [(&[IpNet], &[&str]); 2] =
            [(&[], &["10.0.0.1", "fd00::1"]), (&networks, &["10.0.0.2", "192.0.2.7", "192.0.2.8"])];
        for (node_port_networks, expected) in cases {
            let own = ips(&["192.0.2.8", "172.17.0.1"]);
            let state = node.state(&NodeSettings {
                netns_cookie: 1,
                own: &own,
                node_ports: 30_000..=32_767,
                node_port_networks,
                pods: &pods,
                services: &services,
                flags: node_flags::KUBE_PROXY,
            });
            let serving: Vec<_> = state.addresses.iter().filter(|(_, flags)| **flags != 0).map(|(a, _)| *a).collect();
            let mut expected: Vec<_> = ips(expected).into_iter().map(to_map).collect();
            expected.sort_unstable();
            assert_eq!((serving, state.addresses.len()), (expected, 6));
            assert_eq!(state.config.flags, node_flags::KUBE_PROXY | node_flags::PODS_KNOWN);
            assert_eq!((state.config.service_networks, state.networks.len()), (1, 1));
        }
    }
}
