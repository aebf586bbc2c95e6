//! Several controllers with a copy of the files each, over a network that only this test is: what they tell each other is
//! handed over as it stands.

use std::fs;

use prometheus::Registry;
use roadstead_layer2::replica::{Index, Kept};
use roadstead_sources::{LoadOptions, load};

use super::*;

const NAMES: [&str; 3] = ["node-a", "node-b", "node-c"];
const POOL: &str = "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\n\
    metadata: {name: p, namespace: metallb-system}\nspec: {addresses: [192.0.2.10-192.0.2.20]}\n";

struct Node {
    name: &'static str,
    folder: tempfile::TempDir,
    controller: Controller,
    /// Whom it hears.
    side: u8,
}

struct Cluster(Vec<Node>);

fn start(folder: &Path, name: &str) -> Controller {
    let metrics = Metrics::new(&Registry::new()).unwrap();
    let (status, authority) = (StatusWriter::new(folder), Authority::Files { members: NAMES.len() });
    Controller::new(folder, status, authority, name, Classes::default(), metrics)
}

impl Cluster {
    fn new() -> Self {
        let cluster = Self(
            NAMES
                .into_iter()
                .map(|name| {
                    let folder = tempfile::tempdir().unwrap();
                    fs::create_dir(folder.path().join("m")).unwrap();
                    let controller = start(folder.path(), name);
                    Node { name, folder, controller, side: 0 }
                })
                .collect(),
        );
        cluster.copy(&NAMES, "pool", POOL);
        cluster
    }

    fn copy(&self, nodes: &[&str], file: &str, text: &str) {
        for node in self.0.iter().filter(|node| nodes.contains(&node.name)) {
            fs::write(node.folder.path().join(format!("m/{file}.yaml")), text).unwrap();
        }
    }

    fn delete(&self, nodes: &[&str], file: &str) {
        for node in self.0.iter().filter(|node| nodes.contains(&node.name)) {
            fs::remove_file(node.folder.path().join(format!("m/{file}.yaml"))).unwrap();
        }
    }

    fn split(&mut self, sides: [u8; 3]) {
        self.0.iter_mut().zip(sides).for_each(|(node, side)| node.side = side);
    }

    /// Until nobody has anything new for anybody.
    fn settle(&mut self) {
        for _ in 0..8 {
            for to in 0..self.0.len() {
                let side = self.0[to].side;
                let near = self.0.iter().filter(|node| node.side == side);
                let told: Vec<(String, Documents)> =
                    near.map(|node| (node.name.to_owned(), node.controller.documents().unwrap().clone())).collect();
                let indices = told.iter().filter(|(name, _)| name != self.0[to].name);
                let indices = indices.map(|(name, documents)| (name.clone(), Arc::new(documents.index.clone())));
                let meeting = Meeting {
                    over: true,
                    quorate: true,
                    live: told.iter().map(|(name, _)| name.clone()).collect(),
                    indices: indices.collect(),
                    ..Meeting::default()
                };
                let node = &mut self.0[to];
                for (peer, documents) in told.iter().filter(|(name, _)| name != node.name) {
                    for slot in Index::slots() {
                        let digest = documents.index.digest(slot);
                        let news = digest != node.controller.documents().unwrap().index.digest(slot);
                        if news || slot.kept == Kept::Viewed {
                            let bytes = documents.bytes(slot).to_vec();
                            node.controller.receive(&Arrival { peer: peer.clone(), slot, digest, bytes });
                        }
                    }
                }
                node.controller.hear(&meeting);
                let state_dir = Some(node.folder.path().to_owned());
                let snapshot =
                    load(&[node.folder.path().join("m")], &LoadOptions { state_dir, ..LoadOptions::default() });
                assert!(node.controller.take(&Arc::new(snapshot), &BTreeMap::new()).is_some());
                assert!(node.controller.write());
            }
        }
    }

    fn restart(&mut self) {
        for node in &mut self.0 {
            node.controller = start(node.folder.path(), node.name);
        }
    }

    fn events(&self, node: usize) -> String {
        fs::read_to_string(self.0[node].folder.path().join("status/events.yaml")).unwrap_or_default()
    }

    /// All nodes of the side have these Services with these addresses, by the last number.
    #[track_caller]
    fn check(&self, nodes: &[&str], expected: &[(&str, u8)]) {
        let ip = |last: u8| vec![IpAddr::from([192, 0, 2, last])];
        let expected = expected.iter().map(|(name, last)| (ObjectName::new("default", name), ip(*last)));
        let expected: Table = expected.collect();
        for node in self.0.iter().filter(|node| nodes.contains(&node.name)) {
            assert_eq!(*node.controller.table(), expected, "{}", node.name);
        }
    }
}

fn service(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n\
         spec: {{type: LoadBalancer, ports: [{{port: 80}}]{spec}}}\n"
    )
}

fn shared(name: &str, port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, annotations: {{metallb.io/allow-shared-ip: k}}}}\n\
         spec: {{type: LoadBalancer, ports: [{{port: {port}}}]}}\n"
    )
}

#[test]
fn what_one_node_assigns_all_have_and_a_restart_of_all_keeps_it() {
    let mut cluster = Cluster::new();
    for (name, expected) in [("web", &[("web", 10)][..]), ("api", &[("api", 11), ("web", 10)])] {
        cluster.copy(&NAMES, name, &service(name, ""));
        cluster.settle();
        cluster.check(&NAMES, expected);
    }
    for node in &cluster.0 {
        fs::remove_dir_all(node.folder.path().join("status")).unwrap();
    }
    cluster.restart();
    cluster.settle();
    cluster.check(&NAMES, &[("api", 11), ("web", 10)]);
}

#[test]
fn a_change_of_one_copy_moves_nothing_and_of_all_copies_moves_once() {
    let mut cluster = Cluster::new();
    cluster.copy(&NAMES, "web", &service("web", ""));
    cluster.settle();
    let other_pool = POOL.replace("192.0.2.10-", "192.0.2.15-");
    for (file, text) in [("pool", &other_pool), ("web", &service("web", ", loadBalancerIP: 192.0.2.17"))] {
        for nodes in [&NAMES[..1], &NAMES[1..2], &NAMES[2..]] {
            cluster.copy(nodes, file, text);
            if nodes != &NAMES[2..] {
                cluster.settle();
                let at = if file == "pool" { 10 } else { 15 };
                cluster.check(&NAMES, &[("web", at)]);
            }
        }
        cluster.settle();
        cluster.check(&NAMES, &[("web", if file == "pool" { 15 } else { 17 })]);
    }
    for node in 0..NAMES.len() {
        assert!(cluster.events(node).contains("ClearAssignment"), "{}", cluster.events(node));
    }
}

#[test]
fn who_asks_for_an_address_goes_before_who_got_it_earlier() {
    let mut cluster = Cluster::new();
    cluster.split([0, 1, 1]);
    cluster.copy(&NAMES[..1], "first", &service("first", ""));
    cluster.copy(&NAMES[1..], "zeta", &service("zeta", ", loadBalancerIP: 192.0.2.10"));
    cluster.settle();
    cluster.check(&NAMES[..1], &[("first", 10)]);
    cluster.check(&NAMES[1..], &[("zeta", 10)]);
    cluster.copy(&NAMES[1..], "first", &service("first", ""));
    cluster.copy(&NAMES[..1], "zeta", &service("zeta", ", loadBalancerIP: 192.0.2.10"));
    cluster.split([0; 3]);
    cluster.settle();
    cluster.check(&NAMES, &[("first", 11), ("zeta", 10)]);
    for node in 0..NAMES.len() {
        let events = cluster.events(node);
        let told = "default/zeta was assigned the same address and goes before";
        assert!(events.contains(told) && events.contains("Assigned IP [\"192.0.2.11\"]"), "{events}");
    }
}

#[test]
fn services_that_share_an_address_keep_it_where_one_copy_lacks_one_of_them() {
    let mut cluster = Cluster::new();
    cluster.copy(&NAMES, "one", &shared("one", 80));
    cluster.copy(&NAMES, "two", &shared("two", 81));
    cluster.settle();
    let both = &[("one", 10), ("two", 10)];
    cluster.check(&NAMES, both);
    for lacks in NAMES {
        cluster.delete(&[lacks], "two");
        cluster.settle();
        cluster.check(&NAMES, both);
        cluster.copy(&NAMES, "web", &service("web", ""));
        cluster.settle();
        cluster.check(&NAMES, &[("one", 10), ("two", 10), ("web", 11)]);
        cluster.delete(&NAMES, "web");
        cluster.copy(&[lacks], "two", &shared("two", 81));
        cluster.settle();
        cluster.check(&NAMES, both);
    }
    cluster.delete(&NAMES[1..], "two");
    cluster.settle();
    cluster.check(&NAMES, &[("one", 10)]);
}

#[test]
fn a_copy_that_cannot_be_read_says_nothing_about_what_is_gone() {
    let mut cluster = Cluster::new();
    cluster.copy(&NAMES, "web", &service("web", ""));
    cluster.settle();
    // All start again: two in front of a broken file, in which the Service may be; the third has lost it.
    cluster.restart();
    cluster.copy(&NAMES[..2], "web", "kind: [");
    cluster.delete(&NAMES[2..], "web");
    cluster.settle();
    cluster.check(&NAMES, &[("web", 10)]);
    cluster.delete(&NAMES[..1], "web");
    cluster.settle();
    cluster.check(&NAMES, &[]);
}

#[test]
fn of_two_sides_that_assigned_alike_one_map_is_left() {
    let mut cluster = Cluster::new();
    cluster.copy(&NAMES, "web", &service("web", ""));
    cluster.settle();
    cluster.split([0, 1, 2]);
    for name in ["api", "own"] {
        cluster.copy(&NAMES, name, &service(name, ""));
    }
    cluster.settle();
    cluster.split([0; 3]);
    cluster.settle();
    cluster.check(&NAMES, &[("api", 11), ("own", 12), ("web", 10)]);
    let maps: Vec<_> = cluster.0.iter().map(|node| node.controller.documents().unwrap().index.clone()).collect();
    assert!(maps.iter().all(|map| *map == maps[0]));
}
