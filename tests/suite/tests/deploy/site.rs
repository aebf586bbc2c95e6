//! What the booted hosts serve: the demo's manifests and pods, read from the folder that the package's own settings name.

use std::net::IpAddr;

use roadstead_lab::{EchoPorts, Lab, Place, Process, demo, wait_for, wait_until, who_has};

use super::machine::{Ground, LATE, Machine, UNITS};

/// One address with a backend on each node.
const PAIR: &str = include_str!("../netns/manifests/pair.yaml");

/// Any key does.
const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n";

/// The pods that the manifests name, in the order in which the nodes number them.
const PODS: [(&str, &str); 5] =
    [("web-1", "node-a"), ("api-1", "node-a"), ("web-4", "node-a"), ("web-2", "node-b"), ("web-3", "node-b")];

/// Makes pods and manifests. What is returned serves until it is dropped.
pub(super) fn furnish(lab: &Lab) -> Vec<(Place, Process)> {
    let pods = PODS.iter().map(|(pod, node)| {
        let pod = lab.node(node).add_pod(pod).unwrap();
        let echo = pod.start_echo(EchoPorts::USUAL).unwrap();
        (pod, echo)
    });
    let pods = pods.collect();
    demo::FILES.iter().for_each(|(file, text)| lab.apply(file, text).unwrap());
    lab.apply("pair.yaml", PAIR).unwrap();
    pods
}

/// Installs the package, writes what an administrator would, and starts the units for now and every boot.
pub(super) fn start(ground: &Ground, machine: &Machine<'_>, peers: &str) {
    ground.install(machine);
    machine.write("/etc/roadstead/key", KEY.as_bytes());
    machine.run(&["chown", "root:roadstead-speaker", "/etc/roadstead/key"]);
    machine.run(&["chmod", "0640", "/etc/roadstead/key"]);
    let metrics = |port: u16| format!("metrics-addr: 127.0.0.1:{port}\n");
    machine.write("/etc/roadstead/agent.yaml", format!("{}device: [eth0]\n", metrics(9471)).as_bytes());
    let speaker = format!("{}interface: [eth0]\npeer: [{peers}]\nkey-file: /etc/roadstead/key\n", metrics(9472));
    machine.write("/etc/roadstead/speaker.yaml", speaker.as_bytes());
    machine.write("/etc/roadstead/ingress.yaml", metrics(9473).as_bytes());
    machine.run(&["systemctl", "enable", "--now", UNITS[0], UNITS[1], UNITS[2]]);
    for unit in UNITS {
        ready(machine, unit);
    }
}

/// Waits until a daemon is ready; tells its process.
#[track_caller]
pub(super) fn ready(machine: &Machine<'_>, unit: &str) -> String {
    let waited = wait_until(LATE, &format!("{unit} is ready"), || machine.is_ready(unit));
    waited.unwrap_or_else(|error| panic!("{error}: {}", machine.journal()));
    machine.property(unit, "MainPID")
}

/// The addresses that the host's status gives a Service of `shop`, once one node answers for each.
pub(super) fn assigned(lab: &Lab, machine: &Machine<'_>, service: &str) -> [IpAddr; 2] {
    let ask = ["roadstead", "get", "services", service, "-n", "shop", "-o", "json"];
    let ask: Vec<&str> = ask.into_iter().chain(["--manifests", "/etc/roadstead/manifests"]).collect();
    let addresses = || {
        let object: serde_json::Value = serde_json::from_str(&machine.output(&ask)).ok()?;
        let all = object.pointer("/status/loadBalancer/ingress")?.as_array()?;
        let mut ips: Vec<IpAddr> = all.iter().filter_map(|one| one.get("ip")?.as_str()?.parse().ok()).collect();
        ips.sort_unstable();
        <[IpAddr; 2]>::try_from(ips).ok().filter(|ips| ips.iter().all(|ip| owner(lab, *ip).is_some()))
    };
    let found = wait_for(LATE, &format!("one node answers for {service}"), addresses);
    found.unwrap_or_else(|error| panic!("{error}: {}", machine.journal()))
}

/// The node that alone answers for an address.
pub(super) fn owner(lab: &Lab, ip: IpAddr) -> Option<String> {
    let answers = who_has(lab.client(), ip, std::time::Duration::from_millis(50)).unwrap();
    let mut nodes = answers.keys().map(|mac| lab.node_of(*mac).unwrap().name().to_owned());
    nodes.next().filter(|_| nodes.next().is_none())
}
