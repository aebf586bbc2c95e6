//! The stage of the matrix and the verdicts: an agent on node-a with the flags that a test asks for, a pod there (P), the
//! node's host (N), the client (X), and endpoints on both nodes. No speaker: routes lead the client to node-a.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Command;
use std::time::{Duration, Instant};

use roadstead_lab::{Daemon, EchoPorts, Lab, Place, Process, Program, program, wait_for, wait_until};

use super::fixture::{LATE, READY, Sources, ips, lab, source};
use super::services::{Endpoint, Service};

/// For how long nothing comes any more after the last object of a manifest.
const CALM: Duration = Duration::from_millis(300);
/// When a change that nothing came of has been undone by the next one.
const UNDONE: Duration = Duration::from_millis(500);

/// The way that in-cluster traffic takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Path {
    /// Translated when the system call is made.
    Socket,
    /// Translated packet by packet, as for what bypasses sockets.
    Packet,
}

impl Path {
    pub(crate) const BOTH: [Self; 2] = [Self::Socket, Self::Packet];

    /// The agent's flags.
    pub(crate) fn flags(self) -> [&'static str; 2] {
        match self {
            Self::Socket => ["--socket-lb", "on"],
            Self::Packet => ["--socket-lb", "off"],
        }
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    /// P, a pod of node-a.
    Pod,
    /// N, node-a itself.
    Node,
    /// X, a client outside the cluster.
    External,
}

/// A running stage.
pub(crate) struct Stage {
    agent: Option<Daemon>,
    servers: Vec<(Place, String)>,
    pod: Place,
    /// In the order of the servers.
    echoes: Vec<Process>,
    pub(crate) lab: Lab,
}

impl Stage {
    /// Endpoints by their names on node-a and on node-b. No agent runs yet. `None` where this host cannot hold a lab.
    pub(crate) fn new(name: &str, near: &[&str], far: &[&str]) -> Option<Self> {
        let lab = lab(name)?;
        let pod = lab.node("node-a").add_pod("pod").unwrap();
        let (mut servers, mut echoes) = (Vec::new(), Vec::new());
        for (name, node) in near.iter().map(|name| (name, "node-a")).chain(far.iter().map(|name| (name, "node-b"))) {
            let place = lab.node(node).add_pod(name).unwrap();
            echoes.push(place.start_echo(EchoPorts::USUAL).unwrap());
            servers.push((place, node.to_owned()));
        }
        let stage = Self { agent: None, servers, pod, echoes, lab };
        stage.lead();
        stage.nodes(Detector::PodCidrs);
        Some(stage)
    }

    /// The routes of a network that sends what is for the cluster to node-a.
    fn lead(&self) {
        let [near, far] = ["node-a", "node-b"].map(|node| self.lab.node(node).host());
        let client = self.lab.client();
        let own = |ip: IpAddr, device: &str| {
            let (length, nodad) = if ip.is_ipv4() { (32, "") } else { (128, " nodad") };
            format!("addr add {ip}/{length} dev {device}{nodad}")
        };
        near.ip(&SECONDARY.map(|ip| own(ip, "eth0"))).unwrap();
        let strangers = (1..=8).flat_map(stranger).chain(BLOCKED).map(|ip| own(ip, "lo"));
        client.ip(&strangers.collect::<Vec<_>>()).unwrap();
        for (family, (networks, via)) in NETWORKS.iter().zip(ips(near)).enumerate() {
            let routes = networks.iter().map(|network| format!("route add {network} via {via}"));
            client.ip(&routes.collect::<Vec<_>>()).unwrap();
            // By the node's default route, what nobody translates would leave; and node-b answers strangers by node-a,
            // as the cluster's own network would, where their addresses are kept.
            let stranger = ips(client)[family];
            near.ip(&[format!("route add default via {stranger}")]).unwrap();
            let length = if stranger.is_ipv4() { 32 } else { 128 };
            far.ip(&[format!("route add {stranger}/{length} via {via}"), format!("route add default via {via}")])
                .unwrap();
        }
    }

    /// Who asks, as a place.
    pub(crate) fn place(&self, from: From) -> &Place {
        match from {
            From::Pod => &self.pod,
            From::Node => self.node(),
            From::External => self.lab.client(),
        }
    }

    /// The host of node-a.
    pub(crate) fn node(&self) -> &Place {
        self.lab.node("node-a").host()
    }

    /// Every address of node-a.
    pub(crate) fn node_addresses(&self) -> Vec<IpAddr> {
        let bridge = ["10.244.1.1", "fd00:10:244:1::1"].map(|ip| ip.parse().unwrap());
        ips(self.node()).into_iter().chain(bridge).chain(SECONDARY).collect()
    }

    /// An endpoint's pod.
    pub(crate) fn server(&self, name: &str) -> &Place {
        &self.servers.iter().find(|(place, _)| place.name() == name).unwrap().0
    }

    /// An endpoint's echo server.
    pub(crate) fn echo(&self, name: &str) -> &Process {
        let mut both = self.servers.iter().zip(&self.echoes);
        both.find(|((place, _), _)| place.name() == name).unwrap().1
    }

    /// Whether an endpoint is on node-a.
    pub(crate) fn is_near(&self, name: &str) -> bool {
        self.servers.iter().any(|(place, node)| place.name() == name && node == "node-a")
    }

    /// A ready endpoint.
    pub(crate) fn endpoint(&self, name: &str) -> Endpoint {
        let (place, node) = self.servers.iter().find(|(place, _)| place.name() == name).unwrap();
        Endpoint::new(place, node)
    }

    /// Ready endpoints.
    pub(crate) fn ready(&self, names: &[&str]) -> Vec<Endpoint> {
        names.iter().map(|name| self.endpoint(name)).collect()
    }

    /// The Node objects, with or without what tells a pod from a stranger, both in one zone each.
    pub(crate) fn nodes(&self, detector: Detector) {
        let node = |name: &str, zone: &str, number: u16| {
            let cidrs = format!("spec: {{podCIDRs: [10.244.{number}.0/24, \"fd00:10:244:{number}::/64\"]}}\n");
            let cidrs = if detector == Detector::PodCidrs { cidrs } else { String::new() };
            let labels = format!("{{topology.kubernetes.io/zone: {zone}}}");
            let address = |ip: &str| format!("{{type: InternalIP, address: {ip:?}}}");
            let addresses = [format!("192.168.77.1{number}"), format!("fd77::1{number}")].map(|ip| address(&ip));
            format!(
                "apiVersion: v1\nkind: Node\nmetadata: {{name: {name}, labels: {labels}}}\n{cidrs}status: {{addresses: [{}]}}\n",
                addresses.join(", ")
            )
        };
        self.apply("nodes.yaml", &format!("{}---\n{}", node("node-a", "one", 1), node("node-b", "two", 2)));
    }

    /// Starts the agent on node-a, in the place of one that runs, and waits until it serves.
    pub(crate) fn start(&mut self, flags: &[&str]) {
        let command = self.lab.node("node-a").command(Program::Agent).unwrap();
        self.start_by(command, flags);
    }

    /// The same where nothing of an earlier agent is left. Flows are never judged again, so a look at new verdicts must
    /// not meet the flows of the last one, of which a client may choose a port again.
    pub(crate) fn start_afresh(&mut self, flags: &[&str]) {
        self.stop();
        let mut cleanup = Command::new(program("roadstead").unwrap());
        let status = cleanup.arg("cleanup").arg("--bpffs").arg(self.lab.node("node-a").bpffs()).status();
        assert!(status.unwrap().success(), "{cleanup:?}");
        self.start(flags);
    }

    /// The same with another build of it.
    pub(crate) fn start_program(&mut self, program: &std::path::Path, flags: &[&str]) {
        let usual = self.lab.node("node-a").command(Program::Agent).unwrap();
        let mut command = Command::new(program);
        command.args(usual.get_args());
        self.start_by(command, flags);
    }

    fn start_by(&mut self, mut command: Command, flags: &[&str]) {
        self.stop();
        let node = self.lab.node("node-a");
        command.args(flags);
        let agent = node.start_with(Program::Agent, command).unwrap();
        agent.wait_ready(READY).unwrap();
        assert!(!agent.log().contains("is not used"), "a manifest is wrong:\n{}", agent.log());
        self.agent = Some(agent);
    }

    /// Ends the agent; what it attached stays at work.
    pub(crate) fn stop(&mut self) {
        if let Some(agent) = self.agent.take() {
            agent.terminate(READY).unwrap();
        }
    }

    /// Kills the agent.
    pub(crate) fn kill(&mut self) {
        self.agent.take().unwrap().kill().unwrap();
    }

    /// The running agent.
    pub(crate) fn agent(&self) -> &Daemon {
        self.agent.as_ref().unwrap()
    }

    /// Writes the Service, and waits until the maps hold it where an agent runs.
    pub(crate) fn serve(&self, service: &Service) {
        self.apply(&format!("{}.yaml", service.name), &service.yaml());
    }

    /// Writes a manifest, and waits until the maps hold it where an agent runs.
    pub(crate) fn apply(&self, file: &str, text: &str) {
        let Some(before) = self.write(file, text) else { return };
        self.wait_programmed(file, || self.generation() > before);
        // A file is read whole; an API server tells of each object by itself.
        if source() == Sources::Server {
            let mut last = (self.generation(), Instant::now());
            self.wait_programmed(file, || {
                let now = self.generation();
                if now != last.0 {
                    last = (now, Instant::now());
                }
                last.1.elapsed() > CALM
            });
        }
    }

    /// Writes a manifest while an agent runs, and waits until the maps hold something new; whether they do. From an API
    /// server this may be the rest of an earlier change, and two changes may have undone each other before anybody looks.
    pub(crate) fn change(&self, file: &str, text: &str) -> bool {
        let Some(before) = self.write(file, text) else { return false };
        let written = Instant::now();
        let undone = || source() == Sources::Server && written.elapsed() > UNDONE;
        self.wait_programmed(file, || self.generation() > before || undone());
        self.generation() > before
    }

    /// Writes a manifest; the generation before, where an agent is to notice.
    fn write(&self, file: &str, text: &str) -> Option<Option<u64>> {
        let unchanged = self.lab.text(file).is_some_and(|old| old == text);
        let before = self.generation();
        self.lab.apply(file, text).unwrap();
        (!unchanged && before.is_some()).then_some(before)
    }

    fn wait_programmed(&self, file: &str, holds: impl FnMut() -> bool) {
        wait_until(LATE, &format!("the maps hold {file}"), holds)
            .unwrap_or_else(|error| panic!("{error}; the end of the log:\n{}", self.agent().log_tail(20)));
    }

    /// The generation of the snapshot that the maps hold.
    fn generation(&self) -> Option<u64> {
        self.agent.as_ref().map(|agent| metric(agent, "roadstead_agent_generation").unwrap())
    }
}

/// Whether the agent knows which addresses are pods'.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Detector {
    PodCidrs,
    None,
}

/// More addresses of node-a.
pub(crate) const SECONDARY: [IpAddr; 2] = pair([192, 168, 77, 21], [0xfd77, 0x21]);
/// More addresses of the client: two networks, of which tests let in the first.
pub(crate) const ALLOWED: [IpAddr; 2] = stranger(1);
pub(crate) const BLOCKED: [IpAddr; 2] = pair([203, 0, 113, 129], [0xfd99, 0x8000]);

/// One of the client's addresses in the first of these networks; there are eight.
pub(crate) const fn stranger(number: u8) -> [IpAddr; 2] {
    pair([203, 0, 113, number], [0xfd99, number as u16])
}

const fn pair([a, b, c, d]: [u8; 4], [first, last]: [u16; 2]) -> [IpAddr; 2] {
    let v6 = Ipv6Addr::new(first, 0, 0, 0, 0, 0, if last == 0x8000 { 1 } else { 0 }, last);
    [IpAddr::V4(Ipv4Addr::new(a, b, c, d)), IpAddr::V6(v6)]
}

/// What the client sends to node-a: cluster addresses and balancer addresses.
const NETWORKS: [[&str; 2]; 2] = [["10.96.0.0/12", "198.51.100.0/24"], ["fd00:10:96::/112", "fd51::/64"]];

/// The value of a metric without labels, or of the first series of this beginning.
pub(crate) fn metric(agent: &Daemon, series: &str) -> Option<u64> {
    // The answer may be cut where the agent ends; a look a moment later tells.
    let text =
        wait_for(LATE, "the metrics", || agent.get("/metrics").ok().filter(|(status, _)| *status == 200)).unwrap().1;
    let line = text.lines().find(|line| line.starts_with(series))?;
    line.rsplit(' ').next()?.parse::<f64>().ok().map(|value| value as u64)
}
