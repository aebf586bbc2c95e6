//! `roadstead doctor` on a node of the lab: what is planted there it names, and nothing of that on the node beside it.

use std::{net::UdpSocket, process::Command};

use roadstead_lab::{Node, program};
use serde_json::Value;

use super::fixture::{lab, needs_files};

/// kube-proxy's tables in nftables mode, as far as they matter: a table of its own with a chain of its own.
const NFTABLES: &str = "add table ip kube-proxy; add chain ip kube-proxy services";
/// Its chains in iptables mode, where iptables writes to nftables.
const IPTABLES: &str = "add table ip nat; add chain ip nat KUBE-SERVICES";

#[test]
fn doctor_names_what_kube_proxy_and_others_have_left() {
    if needs_files("the test starts no daemon") {
        return;
    }
    let Some(lab) = lab("doctor") else { return };
    let [sick, sound] = ["node-a", "node-b"].map(|name| lab.node(name));
    for node in [sick, sound] {
        let found = Findings::of(node);
        assert_eq!(found.status("kube-proxy"), Some("ok"), "{found:?}");
        assert_eq!(found.status("ports"), Some("ok"), "{found:?}");
        assert!(found.code == Some(0), "{found:?}");
    }

    let Some(()) = nft(sick, NFTABLES) else { return };
    let found = Findings::of(sick);
    assert!(found.says("kube-proxy", "warn", "table ip kube-proxy of nftables"), "{found:?}");
    nft(sick, "delete table ip kube-proxy").unwrap();
    assert_eq!(Findings::of(sick).status("kube-proxy"), Some("ok"));

    nft(sick, IPTABLES).unwrap();
    let found = Findings::of(sick);
    assert!(found.says("kube-proxy", "warn", "chain KUBE-SERVICES in table ip nat of nftables"), "{found:?}");
    assert_eq!(found.code, Some(0), "what can be lived with is no failure: {found:?}");

    // Its type is dummy there, which not every kernel has; the name tells.
    sick.host().ip(&["link add kube-ipvs0 type bridge"]).unwrap();
    let found = Findings::of(sick);
    assert!(found.says("ipvs", "fail", "answers ARP"), "{found:?}");
    assert_eq!(found.code, Some(1), "{found:?}");

    let held = sick.host().run(|| UdpSocket::bind("0.0.0.0:7946").unwrap()).unwrap();
    assert!(Findings::of(sick).says("membership", "fail", "UDP port 7946"));
    drop(held);

    let found = Findings::of(sound);
    assert_eq!(
        (found.status("kube-proxy"), found.status("ipvs"), found.code),
        (Some("ok"), None, Some(0)),
        "{found:?}"
    );
}

/// What doctor says of a node.
#[derive(Debug)]
struct Findings {
    list: Vec<Value>,
    code: Option<i32>,
}

impl Findings {
    fn of(node: &Node) -> Self {
        let mut command = Command::new(program("roadstead").unwrap());
        command.args(["doctor", "-o", "json", "--device", "eth0", "--bpffs"]).arg(node.bpffs());
        let output = node.host().output(command).unwrap();
        let list = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
        Self { list, code: output.status.code() }
    }

    fn find(&self, check: &str) -> Option<&Value> {
        self.list.iter().find(|finding| finding["check"] == check)
    }

    fn status(&self, check: &str) -> Option<&str> {
        self.find(check)?["status"].as_str()
    }

    fn says(&self, check: &str, status: &str, part: &str) -> bool {
        let found = self.find(check);
        found.is_some_and(|found| found["status"] == status && found["found"].as_str().unwrap().contains(part))
    }
}

/// `None`, with a word on stderr, where there is no nft.
fn nft(node: &Node, commands: &str) -> Option<()> {
    let mut command = Command::new("nft");
    command.arg(commands);
    match node.host().output(command) {
        Ok(output) => {
            assert!(output.status.success(), "{commands}: {output:?}");
            Some(())
        }
        Err(error) => {
            eprintln!("skipped: {error:#}");
            None
        }
    }
}
