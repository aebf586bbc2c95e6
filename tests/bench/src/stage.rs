//! The place of one mode: a lab of its own with a node, a pod that answers, a pod and a client that ask.
//!
//! Every mode has the same links, addresses and routes, so that a round can go from one to the next at once. Pods reach
//! each other through the node's routing, as with the common network plugins: on a bridge that delivered between them
//! by itself, the peers' translation would miss the answers.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use roadstead_lab::{Capturing, Lab, Node, Place, Process, Topology, wait_until};
use serde_json::Value;

use crate::state::{SINK_NODE_PORT, SINK_PORT, State, TARGET_NODE_PORT, TARGET_PORT};
use crate::worker::{serve, watch};

/// Further addresses of the pod that answers.
const MORE_ADDRESSES: [&str; 4] = ["10.244.1.101", "10.244.1.102", "10.244.1.103", "10.244.1.104"];
/// The node's address on its pods' bridge.
const GATEWAY: &str = "10.244.1.1";
const START: Duration = Duration::from_secs(10);

/// What stands between the client and the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mode {
    /// Nothing: the client asks the pod's own address.
    Direct,
    /// The agent.
    Roadstead,
    /// kube-proxy's rules for nftables.
    Nftables,
    /// kube-proxy's rules for iptables, by the nf_tables backend.
    IptablesNft,
    /// The same by the old backend.
    IptablesLegacy,
}

impl Mode {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Roadstead => "roadstead",
            Self::Nftables => "nftables",
            Self::IptablesNft => "iptables-nft",
            Self::IptablesLegacy => "iptables-legacy",
        }
    }
}

/// From where to where a connection goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// A pod asks the cluster address.
    PodToCluster,
    /// A process of the node asks the cluster address.
    HostToCluster,
    /// A client beside the node asks the node port.
    ClientToNodePort,
}

impl Way {
    pub(crate) const ALL: [Self; 3] = [Self::PodToCluster, Self::HostToCluster, Self::ClientToNodePort];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::PodToCluster => "pod to cluster address",
            Self::HostToCluster => "host to cluster address",
            Self::ClientToNodePort => "client to node port",
        }
    }
}

/// Times of one run of connections: medians and 99th percentiles in microseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Connections {
    pub(crate) connect_p50: f64,
    pub(crate) connect_p99: f64,
    pub(crate) whole_p50: f64,
    pub(crate) per_second: f64,
}

/// A mode's lab with its server running.
pub(crate) struct Stage {
    // In this order they go.
    _servers: Vec<Process>,
    web: Place,
    caller: Place,
    lab: Lab,
    cpu: usize,
    pub(crate) mode: Mode,
}

impl Stage {
    pub(crate) fn build(mode: Mode, cpu: usize) -> Result<Self> {
        let lab = Lab::with(&format!("bench-{}", mode.name()), Topology { nodes: 1, capture: Capturing::Never })?;
        let node = lab.node("node-a");
        let (web, caller) = (node.add_pod("web")?, node.add_pod("caller")?);
        for pod in [&web, &caller] {
            route_through_gateway(pod)?;
        }
        for address in MORE_ADDRESSES {
            ip(&web, &format!("addr add {address}/32 dev eth0"))?;
        }
        ip(lab.client(), &format!("route add 10.244.0.0/16 via {}", node.host().v4()))?;
        // A host without a route to a cluster address cannot ask it: its rules are met behind the routing.
        ip(node.host(), &format!("route add default via {}", lab.client().v4()))?;
        // The way back out of the same bridge is meant; no pod shall be told a shorter one.
        for device in ["all", "default", "cni0"] {
            let file = format!("/proc/sys/net/ipv4/conf/{device}/send_redirects");
            node.host().run(|| fs::write(&file, "0"))?.with_context(|| format!("could not write {file}"))?;
        }
        let mut stage = Self { _servers: Vec::new(), web, caller, lab, cpu, mode };
        stage._servers = vec![
            stage.start_server("serve", stage.urgent(&["serve", "--port", &TARGET_PORT.to_string()])?)?,
            stage.start_server("sink", stage.pinned(&["serve", "--sink", &SINK_PORT.to_string()])?)?,
        ];
        Ok(stage)
    }

    pub(crate) fn node(&self) -> &Node {
        self.lab.node("node-a")
    }

    pub(crate) fn lab(&self) -> &Lab {
        &self.lab
    }

    /// The Services of this mode: their answering endpoints are this lab's pod.
    pub(crate) fn state(&self, count: u32) -> State {
        let more = MORE_ADDRESSES.iter().filter_map(|address| address.parse().ok());
        State { count, pod: [self.web.v4()].into_iter().chain(more).collect() }
    }

    /// Runs connections one after the other on a way.
    pub(crate) fn connect(&self, way: Way, state: &State, count: usize) -> Result<Connections> {
        let (from, to) = match way {
            Way::PodToCluster => (&self.caller, (state.target(), 80)),
            Way::HostToCluster => (self.node().host(), (state.target(), 80)),
            Way::ClientToNodePort => (self.lab.client(), (self.node().host().v4(), TARGET_NODE_PORT)),
        };
        let to = if self.mode == Mode::Direct { (self.web.v4(), TARGET_PORT) } else { to };
        let arguments = ["connect", "--to", &SocketAddr::from(to).to_string(), "--count", &count.to_string()];
        let answer = self.ask(from, self.urgent(&arguments)?)?;
        let number = |name: &str| answer.get(name).and_then(Value::as_f64).with_context(|| format!("no {name}"));
        Ok(Connections {
            connect_p50: number("connect_p50")?,
            connect_p99: number("connect_p99")?,
            whole_p50: number("whole_p50")?,
            per_second: number("per_second")?,
        })
    }

    /// Runs this program on the node for a line of JSON.
    pub(crate) fn ask_on_node(&self, arguments: &[&str]) -> Result<Value> {
        self.ask(self.node().host(), self.urgent(arguments)?)
    }

    /// One stream from the client to the sink's node port, in gigabits a second.
    pub(crate) fn stream(&self, millis: u64) -> Result<f64> {
        let node_port = (self.node().host().v4(), SINK_NODE_PORT);
        let to = if self.mode == Mode::Direct { (self.web.v4(), SINK_PORT) } else { node_port };
        let arguments = ["send", "--to", &SocketAddr::from(to).to_string(), "--millis", &millis.to_string()];
        let answer = self.ask(self.lab.client(), self.pinned(&arguments)?)?;
        answer.get("gigabits").and_then(Value::as_f64).context("no gigabits")
    }

    /// A client in a pod that asks a cluster address until a certain server answers; it has begun when this returns.
    pub(crate) fn watch(&self, vip: Ipv4Addr, until: Ipv4Addr) -> Result<Watcher> {
        let to = SocketAddr::from((vip, 80)).to_string();
        let process = self.caller.spawn("watch", own(&["watch", "--to", &to, "--until", &until.to_string()])?)?;
        let watcher = Watcher::new(process);
        watcher.wait_watching().with_context(|| format!("in {}", self.mode.name()))?;
        Ok(watcher)
    }

    /// Runs a program on the node to its end.
    pub(crate) fn on_node(&self, program: &str, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(program);
        command.args(arguments);
        self.node().host().output(command)
    }

    fn start_server(&self, log: &str, command: Command) -> Result<Process> {
        let process = self.web.spawn(log, command)?;
        wait_until(START, "the server listens", || process.log().contains(serve::LISTENING) || !process.is_running())?;
        ensure!(process.is_running(), "the server ended: {}", process.log_tail(3));
        Ok(process)
    }

    fn ask(&self, from: &Place, command: Command) -> Result<Value> {
        let output = from.output(command)?;
        if !output.status.success() {
            bail!("{} from {}: {}", self.mode.name(), from.name(), String::from_utf8_lossy(&output.stderr).trim());
        }
        let text = String::from_utf8_lossy(&output.stdout);
        serde_json::from_str(&text).with_context(|| format!("\"{text}\" is no answer of a worker"))
    }

    /// This program on the measuring CPU, before everything that is not urgent too: `chrt` and `taskset` are
    /// util-linux's.
    fn urgent(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new("chrt");
        command.args(["--fifo", "50", "taskset", "--cpu-list", &self.cpu.to_string()]);
        command.arg(own_path()?).args(arguments);
        Ok(command)
    }

    /// This program on the measuring CPU at ordinary priority: a stream would keep the CPU for itself.
    fn pinned(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new("taskset");
        command.args(["--cpu-list", &self.cpu.to_string()]).arg(own_path()?).args(arguments);
        Ok(command)
    }
}

/// A running watcher.
pub(crate) struct Watcher(Process);

impl Watcher {
    /// A process of `watch`.
    pub(crate) fn new(process: Process) -> Self {
        Self(process)
    }

    /// Waits until it has got an answer, of another server than it waits for.
    pub(crate) fn wait_watching(&self) -> Result<()> {
        let Self(process) = self;
        wait_until(START, "the watcher gets answers", || {
            process.log().contains(watch::WATCHING) || !process.is_running()
        })?;
        ensure!(process.is_running(), "the watcher ended: {}", process.log_tail(3));
        Ok(())
    }

    /// Waits for the change; tells its time on the monotonic clock.
    pub(crate) fn seen(self) -> Result<Duration> {
        let status = self.0.wait(watch::DEADLINE + Duration::from_secs(30))?;
        ensure!(status.success(), "the watcher: {}", self.0.log_tail(3));
        let line = self.0.log_tail(1);
        let answer: Value = serde_json::from_str(&line).with_context(|| format!("\"{line}\" is no time"))?;
        Ok(Duration::from_nanos(answer.get("nanoseconds").and_then(Value::as_u64).context("no time")?))
    }
}

/// A pod with a route to its gateway alone.
fn route_through_gateway(pod: &Place) -> Result<()> {
    ip(pod, &format!("route add {GATEWAY}/32 dev eth0 scope link src {}", pod.v4()))?;
    ip(pod, "route del 10.244.1.0/24 dev eth0")
}

fn ip(place: &Place, arguments: &str) -> Result<()> {
    let mut command = Command::new("ip");
    command.args(arguments.split(' '));
    let output = place.output(command)?;
    if !output.status.success() {
        bail!("ip {arguments} in {}: {}", place.name(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// This program with arguments.
pub(crate) fn own(arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(own_path()?);
    command.args(arguments);
    Ok(command)
}

fn own_path() -> Result<std::path::PathBuf> {
    std::env::current_exe().context("this program does not know where it is")
}

/// The peak of a process's memory in MiB so far.
pub(crate) fn peak_memory(process: u32) -> Option<f64> {
    memory_field(process, "VmHWM:")
}

/// A process's memory now, in MiB.
pub(crate) fn memory(process: u32) -> Option<f64> {
    memory_field(process, "VmRSS:")
}

fn memory_field(process: u32, field: &str) -> Option<f64> {
    let status = fs::read_to_string(Path::new("/proc").join(process.to_string()).join("status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kilobytes: f64 = line.trim().trim_end_matches(" kB").trim().parse().ok()?;
    Some(kilobytes / 1024.0)
}
