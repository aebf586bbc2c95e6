//! The place of the measurement: a control plane, a node for each contestant, and a pod that answers.
//!
//! The contestants stand on nodes of their own, so that what comes to a node is one contestant's, and none meets another's
//! rules. Clients are pods: on the node of whoever balances, away from the pod that they reach.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use roadstead_lab::{Capturing, ControlPlane, Kubelet, Lab, Node, Place, Process, Topology, wait_until};

use super::fill;
use super::objects;
use super::plan::Contestant;
use crate::clock;
use crate::stage::{Watcher, own};
use crate::state::{FLIP, PORT, Side, State, TARGET_PORT};
use crate::worker::serve;

/// Further addresses of the pod that answers.
const MORE_ADDRESSES: [&str; 4] = ["10.244.5.101", "10.244.5.102", "10.244.5.103", "10.244.5.104"];
/// The node of the pod that answers, and of nobody else.
const ANSWERING: &str = "node-e";
/// How long a node may take to register, and a server to listen.
const START: Duration = Duration::from_secs(30);
/// Milliseconds between two tries of a client: it is to notice soon, and not to take a processor from whom it waits for.
const PAUSE: &str = "2";
/// Milliseconds after which a client gives up a connection that nobody led anywhere.
const PATIENCE: &str = "50";

impl Contestant {
    /// The node that it stands on.
    pub(super) fn node(self) -> &'static str {
        match self {
            Self::Agent => "node-a",
            Self::KubeProxy => "node-b",
            Self::Ingress => "node-c",
            Self::Speaker => "node-d",
        }
    }
}

/// Everything that stands still.
pub(crate) struct Site {
    // In this order they go.
    _server: Process,
    callers: BTreeMap<Contestant, Place>,
    _kubelets: Vec<Kubelet>,
    pub(crate) control: ControlPlane,
    pub(crate) lab: Lab,
    state: State,
}

impl Site {
    /// Starts the cluster and fills it.
    pub(crate) fn build(services: u32) -> Result<Self> {
        let lab = Lab::with("bench-cluster", Topology { nodes: 5, capture: Capturing::Never })?;
        let control = ControlPlane::start(&lab)?;
        let kubelets = lab.nodes().iter().map(|node| Kubelet::start(&control, node)).collect::<Result<Vec<_>>>()?;
        wait_until(START, "all nodes are registered", || lab.nodes().iter().all(|node| is_registered(&control, node)))?;
        let web = lab.node(ANSWERING).add_pod("web")?;
        web.ip(&MORE_ADDRESSES.map(|address| format!("addr add {address}/32 dev eth0")))?;
        let server = web.spawn("serve", own(&["serve", "--port", &TARGET_PORT.to_string()])?)?;
        wait_until(START, "the server listens", || server.log().contains(serve::LISTENING))?;
        let mut callers = BTreeMap::new();
        for contestant in Contestant::ALL.into_iter().filter(|one| one.balances()) {
            let node = lab.node(contestant.node());
            callers.insert(contestant, node.add_pod(&format!("{}-caller", node.name()))?);
        }
        let more = MORE_ADDRESSES.iter().filter_map(|address| address.parse().ok());
        let state = State { count: services, pod: [web.v4()].into_iter().chain(more).collect() };
        fill::fill(&control, &objects::services(&state), ANSWERING)?;
        Ok(Self { _server: server, callers, _kubelets: kubelets, control, lab, state })
    }

    /// The node of a contestant.
    pub(crate) fn node(&self, contestant: Contestant) -> &Node {
        self.lab.node(contestant.node())
    }

    /// A client that asks for the last of all Services until it is answered.
    pub(crate) fn watch_last(&self, contestant: Contestant) -> Result<Watcher> {
        let to = SocketAddr::from((self.state.target(), PORT)).to_string();
        self.watcher(contestant, &["watch", "--to", &to, "--pause-millis", PAUSE, "--patience-millis", PATIENCE])
    }

    /// A client that asks for the Service whose slice changes, until this side's endpoint answers.
    pub(crate) fn watch_change(&self, contestant: Contestant, side: Side) -> Result<Watcher> {
        let (to, until) = (SocketAddr::from((FLIP, PORT)).to_string(), self.state.flip_endpoint(side).to_string());
        self.watcher(contestant, &["watch", "--to", &to, "--until", &until, "--pause-millis", PAUSE])
    }

    /// Exchanges the endpoint of the slice that changes; the moment at which the API server has said that it is done.
    pub(crate) fn change(&self, side: Side) -> Result<Duration> {
        let service = self.state.flip(side);
        self.control.patch(&objects::slice_path(&service), &objects::exchange(&service, ANSWERING))?;
        clock::monotonic()
    }

    /// Connects to the last Service some times, from where a contestant's clients are; whether each got its answer.
    pub(crate) fn is_served(&self, contestant: Contestant) -> Result<bool> {
        let to = SocketAddr::from((self.state.target(), PORT)).to_string();
        let connect = own(&["connect", "--to", &to, "--warm-up", "0", "--count", "20"])?;
        // A connection that nobody leads anywhere would wait for minutes.
        let mut command = Command::new("timeout");
        command.arg("5").arg(connect.get_program()).args(connect.get_args());
        Ok(self.caller(contestant)?.output(command)?.status.success())
    }

    /// Waits until nobody leads connections to the last Service any more: the kernel detaches programs a moment later.
    pub(crate) fn wait_unserved(&self, contestant: Contestant) -> Result<()> {
        let is_unserved = || matches!(self.is_served(contestant), Ok(false));
        wait_until(START, "the last Service is not served", is_unserved).map(drop)
    }

    fn watcher(&self, contestant: Contestant, arguments: &[&str]) -> Result<Watcher> {
        self.caller(contestant)?.spawn("watch", own(arguments)?).map(Watcher::new)
    }

    fn caller(&self, contestant: Contestant) -> Result<&Place> {
        self.callers.get(&contestant).context("nobody asks where nothing is balanced")
    }
}

fn is_registered(control: &ControlPlane, node: &Node) -> bool {
    let object = control.get(&format!("/api/v1/nodes/{}", node.name()));
    object.is_ok_and(|object| object.pointer("/status/addresses/0").is_some())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn nobody_shares_a_node() {
        let nodes: BTreeSet<_> = Contestant::ALL.map(Contestant::node).into_iter().chain([ANSWERING]).collect();
        assert_eq!(nodes.len(), Contestant::ALL.len() + 1);
        assert!(MORE_ADDRESSES.iter().all(|address| address.parse::<Ipv4Addr>().is_ok()));
    }
}
