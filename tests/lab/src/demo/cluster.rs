//! The demo's cluster: pods with echo servers, and the three daemons on each node. Tests may start from it as well.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{checks, manifests};
use crate::daemon::{Daemon, Program};
use crate::lab::Lab;
use crate::node::Node;
use crate::place::{EchoPorts, Place};
use crate::process::Process;
use crate::wait::{wait_for, wait_until};

/// How long a daemon may take until it is ready.
const READY: Duration = Duration::from_secs(20);
/// How long one look at who answers for an address takes.
const LOOK: Duration = Duration::from_millis(30);

/// The pods and their nodes, in order: each gets the addresses that its manifest names. `web-4` is there from the
/// start, but no manifest names it until the demo adds one.
const PODS: [(&str, &str); 5] =
    [("web-1", "node-a"), ("api-1", "node-a"), ("web-4", "node-a"), ("web-2", "node-b"), ("web-3", "node-b")];

/// A running cluster. It ends with the lab at the latest.
#[derive(Debug)]
pub struct Cluster<'lab> {
    /// The lab that it runs in.
    pub lab: &'lab Lab,
    /// The addresses of the Service `shop/web`, IPv4 first.
    pub web: [IpAddr; 2],
    /// The addresses of the Service `roadstead/ingress`, IPv4 first.
    pub ingress: [IpAddr; 2],
    /// The file of the authority that signed the certificate of `shop.example.com`.
    pub ca: PathBuf,
    pods: Vec<Place>,
    daemons: Mutex<Vec<(String, Daemon)>>,
    _echoes: Vec<Process>,
}

impl<'lab> Cluster<'lab> {
    /// Makes the pods, puts the manifests into the lab's directory, starts the daemons and waits until they are ready
    /// and addresses are assigned.
    ///
    /// # Errors
    ///
    /// Where a daemon does not come up, with the end of its log.
    pub fn start(lab: &'lab Lab) -> Result<Self> {
        let pods = PODS.iter().map(|(pod, node)| lab.node(node).add_pod(pod)).collect::<Result<Vec<_>>>()?;
        let echoes = pods.iter().map(|pod| pod.start_echo(EchoPorts::USUAL)).collect::<Result<_>>()?;
        manifests::apply(lab)?;
        let ca = lab.folder().join("ca.crt");
        std::fs::write(&ca, manifests::CA).context("could not write ca.crt")?;
        let cluster =
            Self { lab, web: UNKNOWN, ingress: UNKNOWN, ca, pods, daemons: Mutex::default(), _echoes: echoes };
        for node in lab.nodes() {
            Program::ALL.into_iter().try_for_each(|program| cluster.start_daemon(node, program))?;
        }
        for (_, daemon) in cluster.daemons().iter() {
            daemon.wait_ready(READY)?;
        }
        let (web, ingress) = (cluster.assigned("shop", "web")?, cluster.assigned("roadstead", "ingress")?);
        for address in web.into_iter().chain(ingress) {
            let what = format!("one node answers for {address}");
            wait_until(READY, &what, || checks::owner(lab, address, LOOK).is_ok())?;
        }
        Ok(Self { web, ingress, ..cluster })
    }

    /// A pod by its name.
    ///
    /// # Errors
    ///
    /// Where there is no such pod.
    pub fn pod(&self, name: &str) -> Result<&Place> {
        self.pods.iter().find(|pod| pod.name() == name).with_context(|| format!("no pod {name}"))
    }

    /// The pods of a node.
    pub fn pods_of<'a>(&'a self, node: &'a Node) -> impl Iterator<Item = &'a Place> {
        let on_node = |name: &str| PODS.iter().any(|(pod, on)| *pod == name && *on == node.name());
        self.pods.iter().filter(move |pod| on_node(pod.name()))
    }

    /// Starts a daemon; with [`kill`](Self::kill), again.
    ///
    /// # Errors
    ///
    /// Where it cannot be started.
    pub fn start_daemon(&self, node: &Node, program: Program) -> Result<()> {
        let mut command = node.command(program)?;
        if program == Program::Ingress {
            command.args(["--publish-service", "roadstead/ingress"]);
        }
        let daemon = node.start_with(program, command)?;
        self.daemons().push((node.name().to_owned(), daemon));
        Ok(())
    }

    /// Starts a daemon and waits until it is ready.
    ///
    /// # Errors
    ///
    /// Where it does not come up.
    pub fn restart(&self, node: &Node, program: Program) -> Result<()> {
        self.start_daemon(node, program)?;
        self.daemons().last().map_or(Ok(()), |(_, daemon)| daemon.wait_ready(READY))
    }

    /// Kills a node's daemon (SIGKILL).
    ///
    /// # Errors
    ///
    /// Where it does not run.
    pub fn kill(&self, node: &Node, program: Program) -> Result<()> {
        let mut daemons = self.daemons();
        let is_meant = |(name, daemon): &(String, Daemon)| name == node.name() && daemon.program() == program;
        let at = daemons.iter().position(is_meant).with_context(|| format!("no {} runs", program.file()))?;
        daemons.remove(at).1.kill()
    }

    /// What a node's daemon tells at a path of its health address: status and text.
    ///
    /// # Errors
    ///
    /// Where it does not run, or does not answer.
    pub fn get(&self, node: &Node, program: Program, path: &str) -> Result<(u16, String)> {
        let daemons = self.daemons();
        let is_meant = |(name, daemon): &&(String, Daemon)| name == node.name() && daemon.program() == program;
        let (_, daemon) = daemons.iter().find(is_meant).with_context(|| format!("no {} runs", program.file()))?;
        daemon.get(path)
    }

    /// Whether the log of every daemon holds this text.
    #[must_use]
    pub fn all_have_logged(&self, text: &str) -> bool {
        self.daemons().iter().all(|(_, daemon)| daemon.log().contains(text))
    }

    /// The address and port of a Service's address: `[IPv4, IPv6]` of `addresses`.
    #[must_use]
    pub fn at(addresses: [IpAddr; 2], port: u16) -> [SocketAddr; 2] {
        addresses.map(|address| SocketAddr::new(address, port))
    }

    fn daemons(&self) -> MutexGuard<'_, Vec<(String, Daemon)>> {
        self.daemons.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for one address of each family in the status that every node's daemons read.
    fn assigned(&self, namespace: &str, name: &str) -> Result<[IpAddr; 2]> {
        let on = |node: &Node| {
            let mut addresses = self.lab.addresses(node, namespace, name).unwrap_or_default();
            addresses.sort_unstable();
            <[IpAddr; 2]>::try_from(addresses).ok()
        };
        let first = self.lab.nodes().first().context("a cluster has nodes")?;
        let found = wait_for(READY, &format!("{namespace}/{name} has an address of each family"), || on(first))?;
        wait_until(READY, &format!("all nodes agree on the addresses of {namespace}/{name}"), || {
            self.lab.nodes().iter().all(|node| on(node) == Some(found))
        })?;
        Ok(found)
    }
}

/// Before the speakers have assigned any.
const UNKNOWN: [IpAddr; 2] = [IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED)];
