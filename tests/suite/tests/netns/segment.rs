//! Speakers alone on the nodes of a lab: addresses are assigned and announced, and nobody forwards. What the tests of ARP
//! and NDP start from, with Linux's own tools as judges.

use std::{
    net::IpAddr,
    process::{Command, Output},
    time::{Duration, Instant},
};

use roadstead_lab::{Daemon, Lab, Mac, Place, Program, Topology, wait_for, wait_until};

use super::fixture::{LATE, READY, lab, lab_of};
use super::stage::metric;

/// The first addresses of the pool: what the Service gets where nobody else has them.
pub(crate) const FIRST: [IpAddr; 2] = [address4(200), address6(0x200)];
/// The ones after them.
pub(crate) const SECOND: [IpAddr; 2] = [address4(201), address6(0x201)];

const fn address4(last: u8) -> IpAddr {
    IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 77, last))
}

const fn address6(last: u16) -> IpAddr {
    IpAddr::V6(std::net::Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, last))
}

/// A lab with speakers.
pub(crate) struct Segment {
    speakers: Vec<(String, Daemon)>,
    pub(crate) lab: Lab,
}

impl Segment {
    /// Two nodes and a client; no speaker runs yet. `None` where this host cannot hold a lab.
    pub(crate) fn new(name: &str) -> Option<Self> {
        let segment = Self { lab: lab(name)?, speakers: Vec::new() };
        segment.lab.apply("web.yaml", WEB).unwrap();
        segment.advertise("");
        Some(segment)
    }

    /// As [`Self::new`], with one node.
    pub(crate) fn alone(name: &str) -> Option<Self> {
        Self::of(name, 1)
    }

    /// As [`Self::new`], with so many nodes.
    pub(crate) fn of(name: &str, nodes: usize) -> Option<Self> {
        let lab = lab_of(name, Topology { nodes, ..Topology::default() })?;
        lab.apply("web.yaml", WEB).unwrap();
        let segment = Self { lab, speakers: Vec::new() };
        segment.advertise("");
        Some(segment)
    }

    /// Writes the L2Advertisement with this spec.
    pub(crate) fn advertise(&self, spec: &str) {
        let text = format!(
            "apiVersion: metallb.io/v1beta1\nkind: L2Advertisement\n\
             metadata: {{name: segment, namespace: metallb-system}}\nspec: {{{spec}}}\n"
        );
        self.lab.apply("advertisement.yaml", &text).unwrap();
    }

    /// Starts a node's speaker on these interfaces, with more flags, and waits until it is ready.
    pub(crate) fn start(&mut self, node: &str, flags: &[&str]) {
        let mut command = self.lab.node(node).command(Program::Speaker).unwrap();
        command.args(flags);
        let daemon = self.lab.node(node).start_with(Program::Speaker, command).unwrap();
        daemon.wait_ready(READY).unwrap();
        self.speakers.push((node.to_owned(), daemon));
    }

    /// As [`Self::start`], on no interface by name.
    pub(crate) fn start_anywhere(&mut self, node: &str, flags: &[&str]) {
        let usual = self.lab.node(node).command(Program::Speaker).unwrap();
        let mut command = Command::new(usual.get_program());
        let arguments: Vec<_> = usual.get_args().collect();
        let named = arguments.iter().position(|argument| *argument == "--interface").unwrap();
        command
            .args(arguments.iter().enumerate().filter(|(at, _)| *at != named && *at != named + 1).map(|(_, one)| one));
        command.args(flags);
        let daemon = self.lab.node(node).start_with(Program::Speaker, command).unwrap();
        daemon.wait_ready(READY).unwrap();
        self.speakers.push((node.to_owned(), daemon));
    }

    /// Starts all nodes' speakers and waits until one node answers for each of the first addresses.
    pub(crate) fn start_all(&mut self) {
        let names: Vec<String> = self.lab.nodes().iter().map(|node| node.name().to_owned()).collect();
        names.iter().for_each(|node| self.start(node, &[]));
        self.wait_owned(FIRST);
    }

    pub(crate) fn wait_owned(&self, addresses: [IpAddr; 2]) {
        for ip in addresses {
            wait_until(LATE, &format!("one node answers for {ip}"), || self.owner(ip).is_some())
                .unwrap_or_else(|error| panic!("{error}; the logs:\n{}", self.logs()));
        }
    }

    /// Waits until what comes with a new address, 3.3 seconds long, is over on nodes that announce no more after it.
    pub(crate) fn wait_quiet(&self) {
        let sent = || {
            let of = |(_, daemon): &(String, Daemon)| daemon.get("/metrics").unwrap().1;
            let all: String = self.speakers.iter().map(of).collect();
            all.lines().filter(|line| line.contains("gratuitous_sent{")).map(str::to_owned).collect::<Vec<_>>()
        };
        let mut last = (sent(), Instant::now());
        wait_until(LATE * 2, "nobody announces", || {
            let now = sent();
            if now != last.0 {
                last = (now, Instant::now());
            }
            // Longer than any pause within it.
            last.1.elapsed() > Duration::from_millis(1_300)
        })
        .unwrap();
    }

    /// Whether each speaker counts every other as alive.
    pub(crate) fn all_hear(&self) -> bool {
        const PEER: &str = "roadstead_speaker_peer_alive{";
        self.speakers.iter().all(|(_, daemon)| {
            let (_, text) = daemon.get("/metrics").unwrap_or_default();
            let alive = text.lines().filter(|line| line.starts_with(PEER) && line.ends_with(" 1"));
            alive.count() + 1 == self.lab.nodes().len()
        })
    }

    fn logs(&self) -> String {
        self.speakers.iter().map(|(node, daemon)| format!("{node}:\n{}\n", daemon.log_tail(20))).collect()
    }

    pub(crate) fn speaker(&self, node: &str) -> &Daemon {
        &self.speakers.iter().find(|(name, _)| name == node).unwrap().1
    }

    /// Takes a speaker out, for its end.
    pub(crate) fn take(&mut self, node: &str) -> Daemon {
        let at = self.speakers.iter().position(|(name, _)| name == node).unwrap();
        self.speakers.remove(at).1
    }

    /// The node that alone answers for an address.
    pub(crate) fn owner(&self, ip: IpAddr) -> Option<String> {
        self.lab.sole_owner(ip, Duration::from_millis(50)).unwrap()
    }

    /// The same once there is one: on a machine that stands still, speakers may hold each other for dead for a moment.
    pub(crate) fn wait_owner(&self, ip: IpAddr) -> String {
        wait_for(LATE, &format!("one node answers for {ip}"), || self.owner(ip)).unwrap()
    }

    /// The other one of two nodes.
    pub(crate) fn other(&self, node: &str) -> String {
        self.lab.nodes().iter().find(|other| other.name() != node).unwrap().name().to_owned()
    }

    /// A counter of a speaker, 0 before it has counted anything.
    pub(crate) fn counter(&self, node: &str, series: &str) -> u64 {
        metric(self.speaker(node), series).unwrap_or(0)
    }
}

/// The hardware address of a node's or host's `eth0`, as Linux prints it.
pub(crate) fn mac_of(place: &Place) -> String {
    Mac::of(place.v4()).to_string()
}

/// Runs a tool in a place.
pub(crate) fn run(place: &Place, program: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.args(arguments);
    place.output(command).unwrap()
}

/// What a tool prints in a place.
pub(crate) fn text(place: &Place, program: &str, arguments: &[&str]) -> String {
    let output = run(place, program, arguments);
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// The entry of a place's kernel for an address on `eth0`: hardware address and state.
pub(crate) fn neighbour(place: &Place, ip: IpAddr) -> Option<(String, String)> {
    let shown = text(place, "ip", &["neigh", "show", "to", &ip.to_string(), "dev", "eth0"]);
    let words: Vec<&str> = shown.split_whitespace().collect();
    let mac = words.iter().position(|word| *word == "lladdr").and_then(|at| words.get(at + 1))?;
    Some(((*mac).to_owned(), (*words.last()?).to_owned()))
}

/// Makes a place's kernel ask for the address, and waits for its entry.
pub(crate) fn learn(place: &Place, ip: IpAddr) -> String {
    wait_for(LATE, &format!("{} learns {ip}", place.name()), || {
        knock(place, ip);
        neighbour(place, ip).filter(|(_, state)| state != "FAILED").map(|(mac, _)| mac)
    })
    .unwrap()
}

/// Sends a datagram that nobody takes: the kernel needs a neighbour for it.
pub(crate) fn knock(place: &Place, ip: IpAddr) {
    let any = if ip.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let sent = place.run(|| std::net::UdpSocket::bind(any).and_then(|socket| socket.send_to(b"knock", (ip, 9))));
    // While the address fails to resolve, the kernel says so here.
    let _unreachable = sent.unwrap();
}

/// The tools of Debian that these tests call; none is missing after the set-up.
const TOOLS: [&str; 3] = ["arping", "ndisc6", "tshark"];

/// Whether this host lacks one of them; says so.
pub(crate) fn lacks_tools() -> bool {
    let missing = |tool: &&str| Command::new(tool).arg("-h").output().is_err();
    let missing: Vec<&str> = TOOLS.into_iter().filter(|tool| missing(tool)).collect();
    if !missing.is_empty() {
        eprintln!("skipped: there is no {}", missing.join(" and no "));
    }
    !missing.is_empty()
}

const WEB: &str = "
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: segment, namespace: metallb-system}
spec: {addresses: [192.168.77.200-192.168.77.209, 'fd77::200-fd77::209']}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: front}
spec:
  type: LoadBalancer
  ipFamilyPolicy: RequireDualStack
  ipFamilies: [IPv4, IPv6]
  clusterIP: 10.96.0.10
  clusterIPs: [10.96.0.10, 'fd00:10:96::10']
  ports: [{port: 80}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-4, namespace: front, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{port: 80}]
endpoints: [{addresses: [10.244.1.11]}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-6, namespace: front, labels: {kubernetes.io/service-name: web}}
addressType: IPv6
ports: [{port: 80}]
endpoints: [{addresses: ['fd00:10:244:1::11']}]
";
