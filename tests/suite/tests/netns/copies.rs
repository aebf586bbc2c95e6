//! Speakers without an API server, each with a copy of the manifests of its own: addresses are assigned once, kept, and taken
//! away by nobody alone, however the copies differ and whoever dies.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use roadstead_lab::{Daemon, Lab, Program, Topology, program, wait_for, wait_until, who_has};
use serde_json::Value;

use super::fixture::{LATE, READY, lab_of, needs_files};
use super::stage::metric;

const ALL: [&str; 3] = ["node-a", "node-b", "node-c"];
/// From when on a difference between two copies is told.
const TOLD: Duration = Duration::from_secs(5);

/// Three nodes, each with its own manifests, and the speakers that run there.
struct Copies {
    speakers: BTreeMap<&'static str, Daemon>,
    key: PathBuf,
    lab: Lab,
}

/// An entry of the map: the number of entries before it, its epoch, its writer and its addresses.
type Entry = (u64, u64, String, Vec<IpAddr>);

impl Copies {
    fn new(name: &str, pool: &str) -> Option<Self> {
        let lab = lab_of(name, Topology { nodes: 3, ..Topology::default() })?;
        let key = lab.folder().join("key");
        fs::write(&key, "5ea".repeat(16)).unwrap();
        let copies = Self { speakers: BTreeMap::new(), key, lab };
        for node in ALL {
            fs::create_dir(copies.folder(node)).unwrap();
        }
        copies.copy(&ALL, "pool", &POOL.replace("ADDRESSES", pool));
        Some(copies)
    }

    fn folder(&self, node: &str) -> PathBuf {
        self.lab.folder().join(format!("manifests-{node}"))
    }

    /// Copies a file to nodes.
    fn copy(&self, nodes: &[&str], file: &str, text: &str) {
        for node in nodes {
            let (hidden, path) = (format!(".{file}.new"), format!("{file}.yaml"));
            let folder = self.folder(node);
            fs::write(folder.join(&hidden), text).unwrap();
            fs::rename(folder.join(hidden), folder.join(path)).unwrap();
        }
    }

    fn delete(&self, node: &str, file: &str) {
        fs::remove_file(self.folder(node).join(format!("{file}.yaml"))).unwrap();
    }

    fn start(&mut self, nodes: &[&'static str]) {
        for node in nodes {
            let usual = self.lab.node(node).command(Program::Speaker).unwrap();
            let mut command = Command::new(usual.get_program());
            let folder = self.folder(node);
            let mut arguments: Vec<_> = usual.get_args().map(std::ffi::OsStr::to_owned).collect();
            let named = arguments.iter().position(|argument| argument == "--manifests").unwrap();
            arguments[named + 1] = folder.into();
            command.args(arguments).arg("--key-file").arg(&self.key);
            let daemon = self.lab.node(node).start_with(Program::Speaker, command).unwrap();
            self.speakers.insert(node, daemon);
        }
        for node in nodes {
            self.speakers[node].wait_ready(READY).unwrap();
        }
    }

    fn kill(&mut self, node: &str) {
        self.speakers.remove(node).unwrap().kill().unwrap();
    }

    /// The map as a node has written it down.
    fn map(&self, node: &str) -> BTreeMap<String, Entry> {
        let path = self.lab.node(node).state_dir().join("speaker-assignments.json");
        let Ok(text) = fs::read_to_string(path) else { return BTreeMap::new() };
        let read: BTreeMap<String, Value> = serde_json::from_str(&text).unwrap();
        let entry = |value: &Value| {
            let ips = value["ips"].as_array().unwrap().iter().map(|ip| ip.as_str().unwrap().parse().unwrap());
            let writer = value["writer"].as_str().unwrap().to_owned();
            (value["number"].as_u64().unwrap(), value["epoch"].as_u64().unwrap(), writer, ips.collect())
        };
        read.iter().map(|(name, value)| (name.clone(), entry(value))).collect()
    }

    /// The addresses of a Service as a node knows them.
    fn ips(&self, node: &str, service: &str) -> Vec<IpAddr> {
        self.map(node).remove(&format!("shop/{service}")).map(|entry| entry.3).unwrap_or_default()
    }

    /// What a node's agent is told of a Service.
    fn status(&self, node: &str, service: &str) -> Option<Vec<IpAddr>> {
        let mut command = Command::new(program("roadstead").unwrap());
        command.args(["get", "services", service, "-n", "shop", "-o", "json", "--manifests"]).arg(self.folder(node));
        let output = command.arg("--state-dir").arg(self.lab.node(node).state_dir()).output().unwrap();
        let object: Value = output.status.success().then(|| serde_json::from_slice(&output.stdout).unwrap())?;
        let ingress = object["status"]["loadBalancer"]["ingress"].as_array()?;
        ingress.iter().map(|entry| entry["ip"].as_str()?.parse().ok()).collect()
    }

    /// Waits until these nodes have written one map in which the Services have addresses, and gives these.
    fn wait_assigned(&self, nodes: &[&str], services: &[&str]) -> Vec<IpAddr> {
        let found = wait_for(LATE, &format!("{nodes:?} have one map with {services:?}"), || {
            let first = self.map(nodes[0]);
            let ips: Vec<IpAddr> = services.iter().flat_map(|service| self.ips(nodes[0], service)).collect();
            let same = nodes.iter().all(|node| self.map(node) == first);
            (same && ips.len() == services.len()).then_some(ips)
        });
        found.unwrap_or_else(|error| panic!("{error}{}", self.evidence()))
    }

    /// The node that alone answers for the address, over a longer window than an election takes.
    fn owner(&self, ip: IpAddr) -> Option<String> {
        self.lab.sole_owner(ip, Duration::from_millis(150)).unwrap()
    }

    fn wait_owner(&self, ip: IpAddr, among: &[&str]) -> String {
        let owner = || self.owner(ip).filter(|owner| among.contains(&owner.as_str()));
        let found = wait_for(LATE, &format!("one of {among:?} answers for {ip}"), owner);
        found.unwrap_or_else(|error| panic!("{error}{}", self.evidence()))
    }

    fn is_silent(&self, ip: IpAddr) -> bool {
        who_has(self.lab.client(), ip, Duration::from_millis(150)).unwrap().is_empty()
    }

    /// Whether a node says that a peer's copy differs.
    fn differs(&self, node: &str, peer: &str) -> bool {
        let series = format!("roadstead_speaker_peer_files_differ{{peer=\"{peer}\"}}");
        metric(&self.speakers[node], &series) == Some(1)
    }

    fn wait_differs(&self, node: &str, peer: &str) {
        let waited = wait_until(LATE, &format!("{node} names {peer}"), || self.differs(node, peer));
        waited.unwrap_or_else(|error| panic!("{error}{}", self.evidence()));
    }

    fn wait_agreed(&self) {
        let differ = || self.speakers.keys().any(|node| ALL.iter().any(|peer| self.differs(node, peer)));
        wait_until(LATE, "nobody differs", || !differ()).unwrap();
    }

    fn explain(&self, node: &str, service: &str) -> String {
        let mut command = Command::new(program("roadstead-speaker").unwrap());
        command.args(["explain", service, "-n", "shop", "--manifests"]).arg(self.folder(node));
        let output = command.arg("--state-dir").arg(self.lab.node(node).state_dir()).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn events(&self, node: &str) -> String {
        fs::read_to_string(self.lab.node(node).state_dir().join("status/events.yaml")).unwrap_or_default()
    }

    fn evidence(&self) -> String {
        let of = |node: &&str| {
            let log = self.speakers.get(*node).map(|daemon| daemon.log_tail(25)).unwrap_or_default();
            format!("\n{node}: {:?}\n{log}", self.map(node))
        };
        ALL.iter().map(of).collect()
    }
}

/// An address of the pool.
fn ip(last: u8) -> IpAddr {
    Ipv4Addr::new(192, 168, 77, last).into()
}

#[test]
fn a_service_is_assigned_once_all_copies_have_it_and_stays_when_who_assigned_it_dies() {
    if needs_files("copies of the files that differ between nodes are the subject") {
        return;
    }
    let Some(mut copies) = Copies::new("copies", "192.168.77.200-192.168.77.209") else { return };
    copies.start(&ALL);
    copies.copy(&ALL, "web", &service("web"));
    assert_eq!(copies.wait_assigned(&ALL, &["web"]), [ip(200)]);
    let owner = copies.wait_owner(ip(200), &ALL);

    copies.copy(&["node-b"], "extra", &service("extra"));
    let copied = Instant::now();
    for (node, peer) in [("node-a", "node-b"), ("node-c", "node-b"), ("node-b", "node-a"), ("node-b", "node-c")] {
        copies.wait_differs(node, peer);
    }
    assert!(copied.elapsed() > TOLD - Duration::from_millis(500), "told after {:.1?}", copied.elapsed());
    assert!(!copies.differs("node-a", "node-c"));
    let said = "its copy of the files differs: only it has shop/extra";
    let named = |node: &str| {
        let explained = copies.explain(node, "web");
        explained.lines().any(|line| line.contains("node-b") && line.contains(said))
    };
    wait_until(LATE, "explain names the node", || named("node-a") && named("node-c")).unwrap();
    let log = copies.speakers["node-a"].log();
    assert!(log.lines().any(|line| line.contains("node-b") && line.contains("only it has shop/extra")), "{log}");
    assert!(ALL.iter().all(|node| copies.ips(node, "extra").is_empty()) && copies.is_silent(ip(201)));
    assert_eq!(copies.status("node-b", "extra").unwrap_or_default(), Vec::<IpAddr>::new());
    assert_eq!(copies.wait_owner(ip(200), &ALL), owner, "who has an address keeps it");

    copies.copy(&["node-a", "node-c"], "extra", &service("extra"));
    assert_eq!(copies.wait_assigned(&ALL, &["web", "extra"]), [ip(200), ip(201)]);
    copies.wait_owner(ip(201), &ALL);
    copies.wait_agreed();
    for node in ALL {
        let told = || copies.status(node, "extra") == Some(vec![ip(201)]);
        wait_until(LATE, "its agent is told", told).unwrap();
    }

    let before = copies.map("node-a");
    let (_, epoch, writer, _) = before["shop/extra"].clone();
    assert!(before.values().all(|entry| entry.2 == writer), "one assigns: {before:?}");
    copies.kill(&writer);
    let left: Vec<&str> = ALL.into_iter().filter(|node| *node != writer).collect();
    [200, 201].iter().for_each(|last| drop(copies.wait_owner(ip(*last), &left)));
    assert!(left.iter().all(|node| copies.map(node) == before), "nothing was assigned anew");
    copies.copy(&ALL, "more", &service("more"));
    assert_eq!(copies.wait_assigned(&left, &["web", "extra", "more"]), [ip(200), ip(201), ip(202)]);
    let (_, later, other, _) = copies.map(left[0])["shop/more"].clone();
    assert!(later > epoch && left.contains(&other.as_str()), "{other} assigned in epoch {later} after {epoch}");

    let back: Vec<&'static str> = ALL.into_iter().filter(|node| *node == writer).collect();
    copies.start(&back);
    assert_eq!(copies.wait_assigned(&ALL, &["web", "extra", "more"]), [ip(200), ip(201), ip(202)]);
    [200, 201, 202].iter().for_each(|last| drop(copies.wait_owner(ip(*last), &ALL)));
}

#[test]
fn an_address_that_two_sides_of_a_partition_gave_away_stays_with_one_service() {
    if needs_files("copies of the files that differ between nodes are the subject") {
        return;
    }
    // One address only, so that both sides must take the same.
    let Some(mut copies) = Copies::new("sides", "192.168.77.200-192.168.77.200") else { return };
    copies.start(&ALL);
    let parts: [&[&str]; 2] = [&["node-a"], &["node-b", "node-c"]];
    copies.lab.split(&parts).unwrap();
    let alive = |node: &str, peer: &str| {
        metric(&copies.speakers[node], &format!("roadstead_speaker_peer_alive{{peer=\"{peer}\"}}")) == Some(1)
    };
    let parted = || {
        let across = [("node-a", "node-b"), ("node-a", "node-c"), ("node-b", "node-a"), ("node-c", "node-a")];
        across.iter().all(|(node, peer)| !alive(node, peer)) && alive("node-b", "node-c") && alive("node-c", "node-b")
    };
    wait_until(LATE, "the sides do not hear each other", parted).unwrap();
    for (name, side) in ["one", "two"].into_iter().zip(parts) {
        copies.copy(side, name, &service(name));
        assert_eq!(copies.wait_assigned(side, &[name]), [ip(200)]);
    }
    // Then everybody has all files, and on each side one Service waits for an address.
    copies.copy(&["node-b", "node-c"], "one", &service("one"));
    copies.copy(&["node-a"], "two", &service("two"));
    let lacks =
        |node: &str, name: &str| copies.events(node).contains(&format!("Failed to allocate IP for shop/{name}"));
    wait_until(LATE, "the others wait", || lacks("node-a", "two") && lacks("node-b", "one")).unwrap();
    // Of two that were assigned in the same epoch, the one with the lower name goes before.
    let rank = |name: &str, node: &str| (copies.map(node)[&format!("shop/{name}")].1, name.to_owned());
    let (one, two) = (rank("one", "node-a"), rank("two", "node-b"));
    let (kept, lost) = if one < two { ("one", "two") } else { ("two", "one") };

    copies.lab.unite(&parts).unwrap();
    let settled = || {
        let first = copies.map("node-a");
        ALL.iter().all(|node| copies.map(node) == first && copies.ips(node, lost).is_empty())
    };
    wait_until(LATE, "one Service keeps the address", settled)
        .unwrap_or_else(|error| panic!("{error}{}", copies.evidence()));
    assert_eq!(copies.wait_assigned(&ALL, &[kept]), [ip(200)]);
    copies.wait_owner(ip(200), &ALL);
    // Every node tells the loser why.
    for node in ALL {
        let told = || {
            let events = copies.events(node);
            events.contains("ClearAssignment") && events.contains(&format!("shop/{kept} was assigned the same address"))
        };
        wait_until(LATE, &format!("{node} tells of it"), told)
            .unwrap_or_else(|error| panic!("{error}:\n{}", copies.events(node)));
    }
    copies.copy(&ALL, "pool", &POOL.replace("ADDRESSES", "192.168.77.200-192.168.77.209"));
    assert_eq!(copies.wait_assigned(&ALL, &[kept, lost]), [ip(200), ip(201)]);
    [200, 201].iter().for_each(|last| drop(copies.wait_owner(ip(*last), &ALL)));
    let told = |node: &str| copies.events(node).contains("Assigned IP [\"192.168.77.201\"]");
    wait_until(LATE, "all tell of the new address", || ALL.iter().all(|node| told(node))).unwrap();
}

#[test]
fn a_copy_that_loses_a_file_takes_nothing_away_before_most_copies_have_lost_it() {
    if needs_files("copies of the files that differ between nodes are the subject") {
        return;
    }
    let Some(mut copies) = Copies::new("losing", "192.168.77.200-192.168.77.209") else { return };
    copies.start(&ALL);
    copies.copy(&ALL, "web", &service("web"));
    assert_eq!(copies.wait_assigned(&ALL, &["web"]), [ip(200)]);
    let owner = copies.wait_owner(ip(200), &ALL);
    let before = copies.map("node-a");

    // The node that answers loses the file: it does not know any longer what to do with the traffic.
    copies.delete(&owner, "web");
    let others: Vec<&str> = ALL.into_iter().filter(|node| *node != owner).collect();
    let next = copies.wait_owner(ip(200), &others);
    others.iter().for_each(|node| copies.wait_differs(node, &owner));
    let log = copies.speakers[others[0]].log();
    assert!(log.lines().any(|line| line.contains(&owner) && line.contains("it lacks shop/web")), "{log}");
    assert!(ALL.iter().all(|node| copies.map(node) == before), "something was released");
    assert_eq!(copies.wait_owner(ip(200), &others), next, "and it stays there");
    // Nobody else gets the address meanwhile.
    copies.copy(&ALL, "api", &service("api"));
    assert_eq!(copies.wait_assigned(&ALL, &["web", "api"]), [ip(200), ip(201)]);

    copies.delete(&next, "web");
    let released = || ALL.iter().all(|node| copies.ips(node, "web").is_empty());
    wait_until(LATE, "most copies have lost it: it is released", released)
        .unwrap_or_else(|error| panic!("{error}{}", copies.evidence()));
    wait_until(LATE, "nobody answers", || copies.is_silent(ip(200))).unwrap();
    let last = others.iter().find(|node| **node != next).unwrap();
    assert_eq!(copies.status(last, "web").unwrap_or_default(), Vec::<IpAddr>::new());
    copies.copy(&[&owner, &next], "web", &service("web"));
    assert_eq!(copies.wait_assigned(&ALL, &["web", "api"]), [ip(200), ip(201)]);
    copies.wait_owner(ip(200), &ALL);
}

#[test]
fn what_was_assigned_outlives_all_speakers_and_one_that_starts_alone_assigns_nothing_for_a_while() {
    if needs_files("copies of the files that differ between nodes are the subject") {
        return;
    }
    let Some(mut copies) = Copies::new("outlives", "192.168.77.200-192.168.77.209") else { return };
    copies.start(&ALL);
    // Not in the order in which names alone would have it.
    for (number, name) in ["zeta", "beta", "alpha"].into_iter().enumerate() {
        copies.copy(&ALL, name, &service(name));
        assert_eq!(copies.wait_assigned(&ALL, &[name]), [ip(200 + number as u8)]);
    }
    let before = copies.map("node-a");
    ALL.into_iter().for_each(|node| copies.kill(node));
    // The map is enough.
    for node in ALL {
        fs::remove_dir_all(copies.lab.node(node).state_dir().join("status")).unwrap();
    }
    copies.copy(&ALL, "aaa", &service("aaa"));

    let started = Instant::now();
    copies.start(&["node-b"]);
    for last in 200..203 {
        copies.wait_owner(ip(last), &["node-b"]);
    }
    assert!(copies.ips("node-b", "aaa").is_empty() || started.elapsed() > Duration::from_secs(3));
    copies.wait_assigned(&["node-b"], &["aaa"]);
    assert!(started.elapsed() > Duration::from_secs(3), "it waited {:.1?} for the others", started.elapsed());
    assert_eq!(copies.ips("node-b", "aaa"), [ip(203)]);

    copies.start(&["node-a", "node-c"]);
    let ips = copies.wait_assigned(&ALL, &["zeta", "beta", "alpha", "aaa"]);
    assert_eq!(ips, [ip(200), ip(201), ip(202), ip(203)]);
    let after = copies.map("node-c");
    assert!(before.iter().all(|(name, entry)| after[name] == *entry), "{before:?} became {after:?}");
    for last in 200..204 {
        copies.wait_owner(ip(last), &ALL);
    }
}

fn service(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {{type: LoadBalancer, ports: [{{port: 80}}]}}\n\
         ---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: {name}-1, namespace: shop, labels: {{kubernetes.io/service-name: {name}}}}}\n\
         addressType: IPv4\nports: [{{port: 80}}]\nendpoints: [{{addresses: [10.244.1.11]}}]\n"
    )
}

const POOL: &str = "
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: segment, namespace: metallb-system}
spec: {addresses: [ADDRESSES]}
---
apiVersion: metallb.io/v1beta1
kind: L2Advertisement
metadata: {name: segment, namespace: metallb-system}
";
