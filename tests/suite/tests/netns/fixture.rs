//! What the tests end to end share: the lab or the reason why there is none, addresses as the daemons assigned them,
//! and looks at who answers.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    process::Command,
    time::{Duration, Instant},
};

use roadstead_lab::{
    Lab, LoadReport, Node, Place, Probe, Program, Running, Topology, cluster, demo::Cluster, program, wait_for,
    wait_until,
};

/// How long a daemon may take until it is ready.
pub(crate) const READY: Duration = Duration::from_secs(20);
/// What "follows" means.
pub(crate) const SOON: Duration = Duration::from_secs(1);
/// How long to look on, so that what fails tells how late it was.
pub(crate) const LATE: Duration = Duration::from_secs(10);
/// The pods of the demo's Service `web`.
pub(crate) const WEB: [&str; 3] = ["web-1", "web-2", "web-3"];
/// `shop/pair`: a near and a far backend at one address.
pub(crate) const PAIR: (&str, &str) = ("pair.yaml", include_str!("manifests/pair.yaml"));
/// The host of the demo's Ingress.
pub(crate) const SHOP: &str = "shop.example.com";

/// A lab of two nodes and a client; `None`, with a word on stderr, where this host cannot hold one.
pub(crate) fn lab(name: &str) -> Option<Lab> {
    lab_of(name, Topology::default())
}

/// The same of another shape.
pub(crate) fn lab_of(name: &str, topology: Topology) -> Option<Lab> {
    let (lack, make): (_, fn(&str, Topology) -> _) = match source() {
        Sources::Files => (roadstead_lab::lack(), Lab::with),
        Sources::Server => (cluster::lack().or_else(cluster::lack_of_controllers), Lab::served),
    };
    if let Some(lack) = lack {
        eprintln!("skipped: {lack}");
        return None;
    }
    Some(make(name, topology).unwrap())
}

/// Where all daemons of these tests have their objects from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sources {
    /// A directory of manifests.
    Files,
    /// An API server.
    Server,
}

/// The one switch: `cargo xtask test --source api-server` sets it.
pub(crate) fn source() -> Sources {
    match std::env::var("ROADSTEAD_TEST_SOURCE").as_deref() {
        Err(_) | Ok("" | "files") => Sources::Files,
        Ok("api-server") => Sources::Server,
        Ok(other) => panic!("ROADSTEAD_TEST_SOURCE is \"{other}\", not \"files\" or \"api-server\""),
    }
}

/// Whether a test is left out, because it means nothing where no daemon reads files; the reason is told and counted.
pub(crate) fn needs_files(why: &str) -> bool {
    let left_out = source() == Sources::Server;
    if left_out {
        eprintln!("left out: {why}");
    }
    left_out
}

/// `[IPv4, IPv6]` of a place.
pub(crate) fn ips(place: &Place) -> [IpAddr; 2] {
    [place.v4().into(), place.v6().into()]
}

/// Both addresses of a place with a port.
pub(crate) fn at(place: &Place, port: u16) -> [SocketAddr; 2] {
    ips(place).map(|ip| SocketAddr::new(ip, port))
}

/// `roadstead get service NAME -n shop -o json`, as a node would have it.
pub(crate) fn service(lab: &Lab, node: &Node, name: &str) -> Option<serde_json::Value> {
    let mut command = Command::new(program("roadstead").unwrap());
    let source = lab.source().unwrap();
    let (flag, value) = source.flag();
    command.args(["get", "services", name, "-n", "shop", "-o", "json", flag]).arg(value);
    command.arg("--state-dir").arg(node.state_dir());
    let output = node.host().output(command).unwrap();
    output.status.success().then(|| serde_json::from_slice(&output.stdout).unwrap())
}

/// The addresses of a Service of `shop` once every node has them in its status and one node answers for each.
pub(crate) fn assigned(cluster: &Cluster<'_>, name: &str) -> [IpAddr; 2] {
    let lab = cluster.lab;
    let on = |node: &Node| {
        let object = service(lab, node, name)?;
        let ingress = object.pointer("/status/loadBalancer/ingress")?.as_array()?;
        let mut ips: Vec<IpAddr> = ingress.iter().filter_map(|one| one.get("ip")?.as_str()?.parse().ok()).collect();
        ips.sort_unstable();
        <[IpAddr; 2]>::try_from(ips).ok()
    };
    let found = wait_for(READY, &format!("{name} has an address of each family"), || on(&lab.nodes()[0])).unwrap();
    wait_until(READY, "all nodes agree", || lab.nodes().iter().all(|node| on(node) == Some(found))).unwrap();
    for ip in found {
        wait_until(READY, &format!("one node answers for {ip}"), || owner(lab, ip).is_some()).unwrap();
    }
    found
}

/// Leaves the speaker of node-a alone, so that no address moves under held connections: on a machine that stands still
/// for longer than the speakers bear, they hold each other for dead.
pub(crate) fn settle(cluster: &Cluster<'_>, addresses: &[IpAddr]) {
    cluster.kill(cluster.lab.node("node-b"), Program::Speaker).unwrap();
    let all_moved = || addresses.iter().all(|ip| owner(cluster.lab, *ip).as_deref() == Some("node-a"));
    wait_until(LATE, "node-a answers for all addresses", all_moved).unwrap();
}

/// The node that alone answers for an address.
pub(crate) fn owner(lab: &Lab, ip: IpAddr) -> Option<String> {
    lab.sole_owner(ip, Duration::from_millis(50)).unwrap()
}

/// Everybody of the expected answers, and nobody else.
#[track_caller]
pub(crate) fn assert_answered(place: &Place, probe: &Probe, expected: &[&str]) {
    let expected: BTreeSet<&str> = expected.iter().copied().collect();
    let mut seen = BTreeSet::new();
    // Of three, one is missed by 100 attempts once in 10^17 runs.
    for _ in 0..10 {
        for answer in place.probe(&probe.clone().count(10)).unwrap() {
            assert!(answer.ok, "{}: {probe:?}: {}", place.name(), answer.outcome());
            seen.insert(answer.name().unwrap_or_else(|| panic!("no echo server: {}", answer.outcome())).to_owned());
        }
        if seen.len() == expected.len() {
            break;
        }
    }
    assert_eq!(seen.iter().map(String::as_str).collect::<BTreeSet<_>>(), expected, "{}: {probe:?}", place.name());
}

/// Whether a look finds just these to answer: for conditions that are waited for.
pub(crate) fn answers_are(place: &Place, probe: &Probe, expected: &[&str]) -> bool {
    let answers = place.probe(&probe.clone().count(20)).unwrap();
    answers.iter().all(|answer| answer.ok && answer.name().is_some_and(|name| expected.contains(&name)))
}

/// Makes the edit, and demands that the condition holds within a second.
#[track_caller]
pub(crate) fn followed(what: &str, edit: impl FnOnce(), holds: impl FnMut() -> bool) {
    edit();
    let took = wait_until(LATE, what, holds).unwrap();
    assert!(took < SOON, "{what}, but only after {took:.1?}");
}

/// Traffic for as long as something could go wrong, in place of a sleep: every attempt is answered.
#[track_caller]
pub(crate) fn served_for(time: Duration, place: &Place, probe: &Probe, expected: &[&str]) {
    let started = Instant::now();
    while started.elapsed() < time {
        assert!(answers_are(place, probe, expected), "{}: {probe:?}", place.name());
    }
}

/// The reports of loads that end side by side: each may wait for its last connections.
pub(crate) fn finish_all(running: impl IntoIterator<Item = Running<LoadReport>>) -> Vec<LoadReport> {
    std::thread::scope(|scope| {
        let ends: Vec<_> = running.into_iter().map(|probe| scope.spawn(move || probe.finish().unwrap())).collect();
        ends.into_iter().map(|end| end.join().unwrap()).collect()
    })
}

/// A request to the demo's host at an address of the proxy; the certificate is verified.
pub(crate) fn https(cluster: &Cluster<'_>, path: &str, address: SocketAddr) -> Probe {
    Probe::http(&format!("https://{SHOP}{path}")).at(address).ca(&cluster.ca)
}

/// Changes one text in a manifest, as editors and ConfigMaps do: by a rename.
pub(crate) fn edit(lab: &Lab, file: &str, from: &str, to: &str) {
    let text = lab.text(file).unwrap();
    assert!(text.contains(from), "{file} does not hold {from:?}");
    lab.apply(file, &text.replace(from, to)).unwrap();
}
