//! One Linux host as the README tells: a directory of YAML and three processes with their least flags.

use std::{net::SocketAddr, process::Command};

use roadstead_lab::{EchoPorts, Lab, Probe, Process, demo, program, wait_until};

use super::fixture::{READY, answers_are, assert_answered, at, followed, lab, needs_files, owner};

const MANIFESTS: &str = include_str!("manifests/host.yaml");
/// A web server on the host itself, and one elsewhere in its network.
const BOTH: [&str; 2] = ["web-1", "node-b"];

#[test]
fn one_host_serves_from_a_directory_of_yaml() {
    if needs_files("a host without an API server is the subject") {
        return;
    }
    let Some(lab) = lab("host") else { return };
    let pod = lab.node("node-a").add_pod("web-1").unwrap();
    let _servers = [&pod, lab.node("node-b").host()].map(|place| place.start_echo(EchoPorts::USUAL).unwrap());
    let secret = demo::FILES.iter().find(|(file, _)| *file == "shop-tls.yaml").unwrap();
    lab.apply(secret.0, secret.1).unwrap();
    lab.apply("web.yaml", MANIFESTS).unwrap();
    let daemons = start(&lab);
    let (host, client) = (lab.node("node-a").host(), lab.client());

    let [node_port, _] = at(host, 30080);
    let at_port = Probe::http(&format!("http://{node_port}/"));
    wait_until(READY, "the node port is served", || answers_are(client, &at_port, &BOTH)).unwrap();
    assert_answered(client, &at_port, &BOTH);

    let address: SocketAddr = "192.168.77.200:80".parse().unwrap();
    wait_until(READY, "the address is announced", || owner(&lab, address.ip()).is_some()).unwrap();
    let at_address = Probe::http(&format!("http://{address}/"));
    wait_until(READY, "the address is served", || answers_are(client, &at_address, &BOTH)).unwrap();
    assert_answered(client, &at_address, &BOTH);

    let ca = lab.folder().join("ca.crt");
    std::fs::write(&ca, demo::CA).unwrap();
    let [secure, _] = at(host, 443);
    let at_ingress = Probe::http("https://shop.example.com/").at(secure).ca(&ca);
    wait_until(READY, "the Ingress is served", || answers_are(client, &at_ingress, &BOTH)).unwrap();
    assert_answered(client, &at_ingress, &BOTH);

    let cells = table_row(&lab);
    assert_eq!(cells[1], "LoadBalancer");
    assert_eq!(cells[3..5], ["192.168.77.200", "80:30080/TCP"]);
    // On the host itself the cluster address serves too.
    assert_answered(host, &Probe::http(&format!("http://{}/", cells[2])), &BOTH);

    let fewer = MANIFESTS.replace("  - addresses: [192.168.77.12]\n", "");
    followed(
        "the server that was taken out is left alone",
        || lab.apply("web.yaml", &fewer).unwrap(),
        || [&at_port, &at_address, &at_ingress].into_iter().all(|probe| answers_are(client, probe, &["web-1"])),
    );
    assert!(daemons.iter().all(Process::is_running));
}

/// The three daemons with the README's flags, and those that keep labs apart.
fn start(lab: &Lab) -> Vec<Process> {
    let node = lab.node("node-a");
    let daemon = |name: &str, flags: &[&std::ffi::OsStr]| {
        let mut command = Command::new(program(name).unwrap());
        command.arg("run").arg("--manifests").arg(lab.manifests()).args(["--node-name", "rack-1"]);
        command.arg("--state-dir").arg(node.state_dir()).args(flags);
        node.host().spawn(name, command).unwrap()
    };
    let apart =
        ["--cgroup-root".as_ref(), node.cgroup_root().as_os_str(), "--bpffs".as_ref(), node.bpffs().as_os_str()];
    vec![daemon("roadstead", &apart), daemon("roadstead-speaker", &[]), daemon("roadstead-ingress", &[])]
}

/// The Service's line of `roadstead get services`.
fn table_row(lab: &Lab) -> Vec<String> {
    let mut command = Command::new(program("roadstead").unwrap());
    command.args(["get", "services", "-n", "shop", "--manifests"]).arg(lab.manifests());
    let output = command.arg("--state-dir").arg(lab.node("node-a").state_dir()).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let line = said.lines().find(|line| line.starts_with("web ")).unwrap_or_else(|| panic!("no web in\n{said}"));
    line.split_whitespace().map(str::to_owned).collect()
}
