//! Explaining on manifests alone: the maps that an agent with the same flags would write, and the routes of a node whose
//! pods are behind devices of its own and everything else beyond its uplink.

use std::{collections::BTreeSet, net::IpAddr};

use clap::Args;
use ipnet::IpNet;
use roadstead_abi::{Addr, DropReason, node_flags};
use roadstead_dataplane::{
    addresses::from_map,
    explain::{MemoryView, Place, Routes, ViewError},
    frontends::NodeView,
    node::{NodeAddresses, NodeSettings, NodeState},
};
use roadstead_model::Snapshot;
use roadstead_sources::Interest;

use super::{ExplainFlags, Node, Question, answer::Answer, is_on};
use crate::{
    desired::Desired,
    flags::{LoadBalancing, Masquerade, NodePortAddresses, Switch, network},
};

/// The flags of `run` that decide about verdicts; the live maps know them.
#[derive(Args, Debug)]
#[command(next_help_heading = "Without live maps, as in run")]
pub(crate) struct NodeFlags {
    /// Translate at connect and sendmsg
    #[arg(long, env = "ROADSTEAD_SOCKET_LB", value_enum, default_value_t = Switch::On)]
    socket_lb: Switch,
    /// Node addresses that serve node ports
    #[arg(
        long,
        env = "ROADSTEAD_NODEPORT_ADDRESSES",
        value_name = "primary|CIDR",
        value_delimiter = ',',
        default_value = "primary"
    )]
    nodeport_addresses: Vec<NodePortAddresses>,
    /// Whether pods see their clients
    #[arg(long, env = "ROADSTEAD_MASQUERADE", value_name = "MODE", value_enum, default_value_t = Masquerade::Preserve)]
    masquerade: Masquerade,
    /// Masquerade all traffic to cluster IPs
    #[arg(long, env = "ROADSTEAD_MASQUERADE_ALL")]
    masquerade_all: bool,
    /// Network of pods (repeatable; default: the podCIDRs of all Nodes)
    #[arg(long = "pod-cidr", env = "ROADSTEAD_POD_CIDR", value_name = "CIDR", value_delimiter = ',', value_parser = network)]
    pod_cidrs: Vec<IpNet>,
    /// How a new flow gets its endpoint, where a Service does not say
    #[arg(long, env = "ROADSTEAD_LOAD_BALANCING", value_name = "WAY", value_enum, default_value_t = LoadBalancing::Random)]
    load_balancing: LoadBalancing,
}

/// Numbers for devices that are only thought of.
const UPLINK: u32 = 2;
const PODS: u32 = 3;

/// Answers by the manifests of the flags.
pub(super) fn answer(flags: &ExplainFlags, question: Question) -> anyhow::Result<Answer> {
    let snapshot = roadstead_sources::read(&flags.from, Interest::agent())?;
    let name = flags.from.node_name()?;
    let world = World::of(&snapshot, &name, flags);
    let own: Vec<IpAddr> = world.own.iter().copied().collect();
    let seen = NodeView { name: &name, addresses: &own, primary: &world.addresses.primary() };
    let desired = Desired::of(&snapshot, seen, flags.node.load_balancing.selection());
    let view = world.view(&desired);
    let node = Node { view: &view, routes: &world, sockets: is_on(flags.node.socket_lb), uplink: UPLINK };
    let (explained, met) = node.explain(question)?;
    let names = desired.names(view.services.iter().map(|(key, value)| (*key, value)));
    Ok(Answer::new(&explained, met, names.get(&explained.service).cloned()))
}

/// What the manifests and flags say of the node and its surroundings.
struct World<'a> {
    flags: &'a ExplainFlags,
    addresses: NodeAddresses,
    /// Everything that the node has, primary or not.
    own: BTreeSet<IpAddr>,
    pod_cidrs: Vec<IpNet>,
    /// The pods of this node: their networks, and endpoints outside them.
    here: Vec<IpNet>,
    endpoints_here: BTreeSet<IpAddr>,
}

impl<'a> World<'a> {
    fn of(snapshot: &Snapshot, name: &str, flags: &'a ExplainFlags) -> Self {
        let node = snapshot.nodes.get(name).map(AsRef::as_ref);
        let addresses = NodeAddresses::choose(node, &[]);
        let external = node.map(|node| node.external_ips.clone()).unwrap_or_default();
        let own: BTreeSet<IpAddr> = addresses.0.iter().copied().chain(external).collect();
        let all = snapshot.nodes.values().flat_map(|node| node.pod_cidrs.iter().copied());
        let told = &flags.node.pod_cidrs;
        let endpoints = snapshot.slices.values().flatten().flat_map(|slice| &slice.endpoints);
        let endpoints_here = endpoints.filter(|endpoint| endpoint.is_on(name)).map(|endpoint| endpoint.ip);
        Self {
            flags,
            endpoints_here: endpoints_here.filter(|ip| !own.contains(ip)).collect(),
            addresses,
            own,
            pod_cidrs: if told.is_empty() { all.collect() } else { told.clone() },
            here: node.map(|node| node.pod_cidrs.clone()).unwrap_or_default(),
        }
    }

    fn view(&self, desired: &Desired<'_>) -> MemoryView {
        let mut view = MemoryView::default();
        desired.each(|row| view.add_frontend(row));
        view.vips = desired.vips().collect();
        view.set_node(&self.node());
        view.fill_filter();
        view
    }

    fn node(&self) -> NodeState {
        let flags = &self.flags.node;
        let own: Vec<IpAddr> = self.own.iter().copied().collect();
        let networks: Vec<IpNet> = flags.nodeport_addresses.iter().filter_map(NodePortAddresses::network).collect();
        let range = self.flags.from.node_port_range;
        let flag = |on: bool, flag| if on { flag } else { 0 };
        self.addresses.state(&NodeSettings {
            netns_cookie: 0,
            own: &own,
            node_ports: range.first().get()..=range.last().get(),
            node_port_networks: &networks,
            pods: &self.pod_cidrs,
            services: &self.flags.from.service_cidrs,
            flags: flag(flags.masquerade == Masquerade::KubeProxy, node_flags::KUBE_PROXY)
                | flag(flags.masquerade_all, node_flags::MASQUERADE_ALL),
        })
    }
}

impl Routes for World<'_> {
    fn place(&self, _: &Addr, destination: &Addr) -> Result<Result<(Place, u32), DropReason>, ViewError> {
        let ip = from_map(destination);
        if destination.is_loopback() || self.own.contains(&ip) {
            return Ok(Ok((Place::Here, 0)));
        }
        let behind = self.endpoints_here.contains(&ip) || self.here.iter().any(|network| network.contains(&ip));
        Ok(Ok(if behind { (Place::Behind, PODS) } else { (Place::Beyond, UPLINK) }))
    }
}
