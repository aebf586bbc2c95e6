//! A lab: nodes and a client on one segment, made in well under a second and taken away when dropped.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::{fs, thread};

use anyhow::{Context as _, Result, anyhow};

use crate::capture::Evidence;
use crate::desired::Desired;
use crate::ground::Ground;
use crate::identity::LabId;
use crate::interrupt;
use crate::ip;
use crate::namespace::Namespace;
use crate::neighbour::{Mac, who_has};
use crate::node::{Node, Source};
use crate::place::{Parts, Place};
use crate::served::Served;
use crate::status;
use crate::topology::{self, Capturing, Topology};

/// A running lab. Dropped on a panicking thread, it leaves logs, captures and dumps in its folder and prints where.
#[derive(Debug)]
pub struct Lab {
    // In this order they go: the places' open namespaces first.
    nodes: Vec<Node>,
    client: Place,
    ground: Ground,
    // Given back when no daemon can write to it any more.
    desired: Desired,
}

impl Lab {
    /// Two nodes and a client.
    ///
    /// # Errors
    ///
    /// Where this host does not let us, see [`lack`](crate::lack).
    pub fn new(name: &str) -> Result<Self> {
        Self::with(name, Topology::default())
    }

    /// A lab of another shape.
    ///
    /// # Errors
    ///
    /// Where this host does not let us, see [`lack`](crate::lack).
    pub fn with(name: &str, topology: Topology) -> Result<Self> {
        Self::make(name, topology, |ground| {
            let folder = ground.folder.join("manifests");
            fs::create_dir(&folder).context("could not make the folder of the manifests")?;
            Ok(Desired::Files(folder))
        })
    }

    /// A lab whose daemons have their objects from an API server, where [`apply`](Self::apply) puts them.
    ///
    /// # Errors
    ///
    /// Where this host does not let us, see [`lack`](crate::cluster::lack).
    pub fn served(name: &str, topology: Topology) -> Result<Self> {
        let lab = Self::make(name, topology, |ground| Ok(Desired::Server(Served::lend(ground.id, &ground.folder)?)))?;
        if let Desired::Server(server) = &lab.desired {
            server.register(&lab.nodes)?;
        }
        Ok(lab)
    }

    fn make(name: &str, topology: Topology, desired: impl FnOnce(&Ground) -> Result<Desired>) -> Result<Self> {
        let mut ground = Ground::new(name)?;
        let id = ground.id;
        let names = topology.stations().map(|(name, _)| name).chain([topology::SEGMENT]);
        let lines: Vec<String> = names.map(|place| format!("netns add {}", id.namespace(place))).collect();
        ip::batch(None, &lines)?;
        set_up(id, topology)?;
        let desired = desired(&ground)?;
        let source = desired.source()?;
        if topology.capture == Capturing::Always {
            let segment = Namespace::open(&id.namespace(topology::SEGMENT))?;
            ground.capture_beside(&segment, topology::SEGMENT_BRIDGE)?;
        }
        let peer = |(name, number): (&str, u16)| format!("{name}={}", topology::number_v4(10 + number));
        let peers: Vec<String> = topology.nodes().map(peer).collect();
        let nodes = topology.nodes().map(|(name, number)| Node::new(&ground, name, number, source, &peers));
        let nodes = nodes.collect::<Result<_>>()?;
        let (name, number) = topology::CLIENT;
        let client = station(&ground, name, number, &ground.cgroup.join(name))?;
        Ok(Self { nodes, client, ground, desired })
    }

    /// The name under which its namespaces, control groups and pins are found.
    #[must_use]
    pub fn id(&self) -> LabId {
        self.ground.id
    }

    /// A node by its name.
    ///
    /// # Panics
    ///
    /// Where the topology has no such node.
    #[must_use]
    #[expect(clippy::panic, reason = "a test that names a node that it did not make cannot go on")]
    pub fn node(&self, name: &str) -> &Node {
        self.nodes.iter().find(|node| node.name() == name).unwrap_or_else(|| panic!("the lab has no node {name}"))
    }

    /// All nodes, in order of their names.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The host on the segment that is no node.
    #[must_use]
    pub fn client(&self) -> &Place {
        &self.client
    }

    /// The directory of manifests that the daemons of all nodes read; empty at first.
    ///
    /// # Panics
    ///
    /// Where they read none.
    #[must_use]
    #[expect(clippy::panic, reason = "a test that needs files cannot go on without")]
    pub fn manifests(&self) -> &Path {
        match &self.desired {
            Desired::Files(folder) => folder,
            Desired::Server(_) => panic!("this lab's objects are in an API server"),
        }
    }

    /// Where the daemons of all nodes have their objects from.
    ///
    /// # Errors
    ///
    /// Where nothing is there any more.
    pub fn source(&self) -> Result<Source<'_>> {
        self.desired.source()
    }

    /// The addresses that a node's agent is told of a Service, as `status.loadBalancer` has them.
    ///
    /// # Errors
    ///
    /// Where the API server, if it is the source, does not answer.
    pub fn addresses(&self, node: &Node, namespace: &str, service: &str) -> Result<Vec<IpAddr>> {
        match &self.desired {
            Desired::Files(_) => Ok(status::addresses(node.state_dir(), namespace, service)),
            Desired::Server(server) => Ok(status::of_object(&server.get("Service", namespace, service)?)),
        }
    }

    /// The folder of logs and state.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.ground.folder
    }

    /// The node that has this hardware address.
    #[must_use]
    pub fn node_of(&self, mac: Mac) -> Option<&Node> {
        self.nodes.iter().find(|node| Mac::of(node.host().v4()) == mac)
    }

    /// The node that alone answers the client's question for an address within so long a time.
    ///
    /// # Errors
    ///
    /// Where the question cannot be sent.
    pub fn sole_owner(&self, address: IpAddr, window: Duration) -> Result<Option<String>> {
        let answers = who_has(self.client(), address, window)?;
        let node = answers.keys().next().and_then(|mac| self.node_of(*mac)).filter(|_| answers.len() == 1);
        Ok(node.map(|node| node.name().to_owned()))
    }

    /// The node that has this address on the segment.
    #[must_use]
    pub fn node_at(&self, address: IpAddr) -> Option<&Node> {
        self.nodes.iter().find(|node| {
            let host = node.host();
            [IpAddr::from(host.v4()), IpAddr::from(host.v6())].contains(&address)
        })
    }

    /// Writes a manifest as editors and ConfigMap mounts do: whole, by a rename. With an API server as source its objects
    /// are put there, and those that the file had before and has no longer are deleted.
    ///
    /// # Errors
    ///
    /// Where it cannot be written.
    pub fn apply(&self, file: &str, text: &str) -> Result<()> {
        self.desired.apply(file, text)
    }

    /// Removes a manifest.
    ///
    /// # Errors
    ///
    /// Where it is not there.
    pub fn delete(&self, file: &str) -> Result<()> {
        self.desired.delete(file)
    }

    /// A manifest as it was applied last.
    #[must_use]
    pub fn text(&self, file: &str) -> Option<String> {
        self.desired.text(file)
    }

    /// Cuts a node's cable: its `eth0` loses its carrier at once, as where a port of the switch is switched off.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses.
    pub fn cut(&self, node: &Node) -> Result<()> {
        self.set_cable(node, "down")
    }

    /// Mends a node's cable, and waits until it carries frames.
    ///
    /// # Errors
    ///
    /// Where it does not.
    pub fn mend(&self, node: &Node) -> Result<()> {
        self.set_cable(node, "up")?;
        // The switch's end too: its port forwards nothing before.
        Namespace::open(&self.ground.id.namespace(topology::SEGMENT))?.wait_running(&[node.name()])?;
        node.host().network().wait_running(&["eth0"])
    }

    /// Splits the segment into sides whose nodes do not hear each other; each node is on one. The client is on all of them.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses.
    pub fn split(&self, sides: &[&[&str]]) -> Result<()> {
        let segment = self.ground.id.namespace(topology::SEGMENT);
        ip::batch(Some(&segment), &topology::split(sides))?;
        let links: Vec<String> = (0..sides.len()).flat_map(topology::side_links).collect();
        Namespace::open(&segment)?.wait_running(&links.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Makes the segment one again, after [`Self::split`] into the same sides.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses.
    pub fn unite(&self, sides: &[&[&str]]) -> Result<()> {
        ip::batch(Some(&self.ground.id.namespace(topology::SEGMENT)), &topology::unite(sides))
    }

    /// Takes a node's `eth0` away and gives it another one with the same addresses.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses.
    pub fn replace_cable(&self, node: &Node) -> Result<()> {
        let (name, [.., last]) = (node.name(), node.host().v4().octets());
        node.host().ip(&["link del eth0"])?;
        let segment = self.ground.id.namespace(topology::SEGMENT);
        ip::batch(None, &[topology::segment_link((name, last.into()), |place| self.ground.id.namespace(place))])?;
        ip::batch(Some(&segment), &[topology::segment_port(name)])?;
        node.host().ip(&topology::station(last.into()))?;
        node.host().network().wait_running(&["eth0"])
    }

    fn set_cable(&self, node: &Node, state: &str) -> Result<()> {
        let line = format!("link set {} {state}", node.name());
        ip::batch(Some(&self.ground.id.namespace(topology::SEGMENT)), &[line])
    }

    /// Adds a host to the segment that is neither a node nor the client: what it asks teaches the client nothing.
    ///
    /// # Errors
    ///
    /// Where it has been made before.
    pub fn add_bystander(&self) -> Result<Place> {
        let (name, number) = topology::BYSTANDER;
        self.add_station(SegmentPort { place: name, number })
    }

    /// Adds a host to the segment.
    pub(crate) fn add_station(&self, port: SegmentPort) -> Result<Place> {
        let namespace = self.ground.id.namespace(port.place);
        ip::batch(None, &[format!("netns add {namespace}")])?;
        Namespace::open(&namespace)?.set_parameters(topology::PARAMETERS)?;
        self.join_segment(port)?;
        Namespace::open(&namespace)?.wait_running(&["eth0"])?;
        station(&self.ground, port.place, port.number, &self.ground.cgroup.join(port.place))
    }

    /// Joins a namespace of the lab to the segment, with the addresses that its number gives.
    pub(crate) fn join_segment(&self, port: SegmentPort) -> Result<()> {
        let id = self.ground.id;
        let segment = id.namespace(topology::SEGMENT);
        ip::batch(None, &[topology::segment_link((port.place, port.number), |place| id.namespace(place))])?;
        ip::batch(Some(&segment), &[topology::segment_port(port.place)])?;
        ip::batch(Some(&id.namespace(port.place)), &topology::station(port.number))?;
        Namespace::open(&segment)?.wait_running(&[port.place])
    }

    pub(crate) fn cgroup(&self) -> &Path {
        &self.ground.cgroup
    }

    pub(crate) fn evidence(&self) -> Arc<Evidence> {
        self.ground.evidence.clone()
    }

    /// Keeps the folder with logs, captures and dumps, for a caller that fails without a panic.
    pub fn keep_evidence(&self) {
        self.ground.fail();
    }

    /// Leaves the lab running until Ctrl-C or SIGTERM, which then end this process with this code.
    pub fn run_until_interrupted(&self, code: u8) -> ! {
        interrupt::exit_with(code);
        interrupt::wait()
    }
}

/// One more place that joins the segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SegmentPort {
    pub(crate) place: &'static str,
    /// Its number on the segment.
    pub(crate) number: u16,
}

/// A place on the segment.
pub(crate) fn station(ground: &Ground, name: &str, number: u16, cgroup: &Path) -> Result<Place> {
    fs::create_dir_all(cgroup).with_context(|| format!("could not make {}", cgroup.display()))?;
    Ok(Place::new(Parts {
        name: name.to_owned(),
        namespace: Namespace::open(&ground.id.namespace(name))?,
        cgroup: cgroup.to_owned(),
        v4: topology::number_v4(number),
        v6: topology::number_v6(number),
        folder: ground.folder.clone(),
        evidence: ground.evidence.clone(),
    }))
}

/// Parameters, links and addresses; namespaces are set up side by side.
fn set_up(id: LabId, topology: Topology) -> Result<()> {
    each_at_once(topology.stations().map(|(name, _)| name).chain([topology::SEGMENT]), |name| {
        let namespace = Namespace::open(&id.namespace(name))?;
        namespace.set_parameters(topology::PARAMETERS)?;
        match name {
            topology::SEGMENT => namespace.set_parameters(topology::SEGMENT_PARAMETERS),
            name if name == topology::CLIENT.0 => Ok(()),
            _ => namespace.set_parameters(topology::NODE_PARAMETERS),
        }
    })?;
    ip::batch(None, &topology.links(|place| id.namespace(place)))?;
    let segment = (topology::SEGMENT, topology.segment());
    let client = (topology::CLIENT.0, topology::station(topology::CLIENT.1));
    let nodes = topology.nodes().map(|(name, number)| (name, topology.node(number)));
    each_at_once([segment, client].into_iter().chain(nodes), |(place, lines)| {
        ip::batch(Some(&id.namespace(place)), &lines)
    })?;
    let ports: Vec<&str> = topology.stations().map(|(name, _)| name).collect();
    Namespace::open(&id.namespace(topology::SEGMENT))?.wait_running(&ports)?;
    each_at_once(ports.into_iter(), |place| Namespace::open(&id.namespace(place))?.wait_running(&["eth0"]))
}

/// Does the work for every item on a thread of its own; the first failure counts.
fn each_at_once<T: Send>(items: impl Iterator<Item = T>, work: impl Fn(T) -> Result<()> + Sync) -> Result<()> {
    thread::scope(|scope| {
        let work = &work;
        let started: Vec<_> = items.map(|item| scope.spawn(move || work(item))).collect();
        started.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow!("the set-up panicked"))?)
    })
}
