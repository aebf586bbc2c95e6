//! The owner of two addresses goes in each way that there is, and comes back. A client sends a datagram a millisecond to
//! both meanwhile, and a bystander asks every 10 ms who has them: two nodes may not answer, and a planned move may cost no
//! datagram. How long an unplanned one takes is `cargo xtask bench failover`'s to say.
//!
//! Both nodes serve the addresses all the time, as they do where agents balance: a route of type local stands in.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use roadstead_lab::{Daemon, EchoPorts, Lab, Node, Process, Program, Review, Vigil, can_hurry, wait_until};

use super::fixture::{LATE, READY, lab};

const MANIFEST: &str = include_str!("manifests/moving.yaml");
const VIPS: [&str; 2] = ["192.168.77.200", "fd77::200"];
/// For how long one node must have had everything before something is done to it, and afterwards.
const STEADY: Duration = Duration::from_millis(300);
const ROUNDS: usize = 4;

/// Two speakers and what is seen of them.
struct Segment {
    // In this order they go.
    datagrams: Vec<Vigil>,
    neighbours: Vec<Vigil>,
    speakers: BTreeMap<String, Daemon>,
    echoes: BTreeMap<String, Process>,
    lab: Lab,
}

impl Segment {
    fn start(name: &str) -> Option<Self> {
        let lab = lab(name)?;
        lab.apply("moving.yaml", MANIFEST).unwrap();
        lab.nodes().iter().for_each(serve_locally);
        let (client, bystander) = (lab.client(), lab.add_bystander().unwrap());
        let vips: Vec<IpAddr> = VIPS.iter().map(|ip| ip.parse().unwrap()).collect();
        let datagrams = vips.iter().map(|ip| Vigil::datagrams(client, SocketAddr::new(*ip, 5353)).unwrap()).collect();
        let neighbours = vips.iter().map(|ip| Vigil::neighbours(&lab, &bystander, *ip).unwrap()).collect();
        let (speakers, echoes) = (BTreeMap::new(), BTreeMap::new());
        let mut segment = Self { datagrams, neighbours, speakers, echoes, lab };
        for node in ["node-a", "node-b"] {
            segment.boot(node);
        }
        Some(segment)
    }

    /// Starts what runs on a node.
    fn boot(&mut self, node: &str) {
        let echo = self.lab.node(node).host().start_urgent_echo(node, EchoPorts::USUAL).unwrap();
        self.echoes.insert(node.to_owned(), echo);
        self.start_speaker(node);
    }

    /// On a busy machine an ordinary thread waits for longer than the peers do, and two nodes would take each other for
    /// dead: what is tested here is not the scheduler.
    fn start_speaker(&mut self, node: &str) {
        let node = self.lab.node(node);
        let mut command = node.command(Program::Speaker).unwrap();
        if can_hurry() {
            command.args(["--realtime-priority", "10"]);
        }
        let daemon = node.start_with(Program::Speaker, command).unwrap();
        self.speakers.insert(node.name().to_owned(), daemon);
    }

    fn vigils(&self) -> impl Iterator<Item = &Vigil> {
        self.datagrams.iter().chain(&self.neighbours)
    }

    /// Waits until this node, or any one, alone has had everything for a while, and all know each other.
    fn settled(&self, wanted: Option<&str>) -> String {
        let mut owner = None;
        let waited = wait_until(READY, "one node alone has everything", || {
            let owners: Vec<_> = self.vigils().map(|vigil| vigil.steady(STEADY)).collect();
            owner = owners[0].clone().filter(|first| owners.iter().all(|other| other.as_ref() == Some(first)));
            owner.as_deref().is_some_and(|owner| wanted.is_none_or(|wanted| owner == wanted)) && self.all_hear()
        });
        waited.unwrap_or_else(|error| panic!("{error}: {:#?}", self.reviews(Instant::now() - STEADY)));
        owner.unwrap().to_string()
    }

    fn all_hear(&self) -> bool {
        let hears = |daemon: &Daemon| {
            let (_, text) = daemon.get("/metrics").unwrap_or_default();
            text.lines().any(|line| line.starts_with("roadstead_speaker_peer_alive{") && line.ends_with(" 1"))
        };
        self.speakers.values().all(hears)
    }

    /// Waits until the other node alone has the client's datagrams, and answers the bystander.
    fn moved_from(&self, owner: &str, since: Instant) {
        let other = self.lab.nodes().iter().map(Node::name).find(|name| *name != owner).unwrap();
        let answers = |vigil: &Vigil| vigil.look(|log| log.first_answer(other, since)).is_some();
        let has = |vigil: &Vigil| vigil.steady(STEADY).as_deref() == Some(other);
        let waited = wait_until(LATE, "the other node has the addresses", || {
            self.datagrams.iter().all(has) && self.neighbours.iter().all(answers)
        });
        waited.unwrap_or_else(|error| panic!("{error}: {:#?}", self.reviews(since)));
    }

    fn reviews(&self, since: Instant) -> Vec<Review> {
        let now = Instant::now();
        self.vigils().map(|vigil| vigil.review(since, now)).collect()
    }

    /// No question of either kind has two answers.
    #[track_caller]
    fn assert_no_doubles(&self, since: Instant, what: &str) {
        for review in self.reviews(since) {
            assert_eq!(review.doubles, 0, "{what}: {review:#?}");
        }
    }

    #[track_caller]
    fn assert_nothing_lost(&self, since: Instant, what: &str) {
        for vigil in &self.datagrams {
            let review = vigil.review(since, Instant::now());
            assert_eq!(review.lost, 0, "{what}: {review:#?}");
        }
    }
}

/// ARP is not answered by the kernel for such addresses: no device has them.
fn serve_locally(node: &Node) {
    let host = node.host();
    host.run(|| std::fs::write("/proc/sys/net/ipv4/conf/all/arp_ignore", "1")).unwrap().unwrap();
    let [v4, v6] = VIPS;
    host.ip(&[format!("route add local {v4}/32 dev lo"), format!("route add local {v6}/128 dev lo")]).unwrap();
}

#[test]
fn a_stopped_speaker_hands_over_without_a_lost_datagram_and_takes_back_so() {
    let Some(mut segment) = Segment::start("drain") else { return };
    let home = segment.settled(None);
    for round in 0..ROUNDS {
        let since = Instant::now();
        segment.speakers.remove(&home).unwrap().terminate(LATE).unwrap();
        segment.moved_from(&home, since);
        segment.assert_nothing_lost(since, &format!("round {round}, the owner stops"));
        segment.assert_no_doubles(since, &format!("round {round}, the owner stops"));
        let since = Instant::now();
        segment.start_speaker(&home);
        segment.settled(Some(&home));
        segment.assert_nothing_lost(since, &format!("round {round}, the owner returns"));
        segment.assert_no_doubles(since, &format!("round {round}, the owner returns"));
    }
}

#[test]
fn addresses_of_a_killed_speaker_are_asked_for_in_vain_and_then_another_nodes() {
    let Some(mut segment) = Segment::start("killed") else { return };
    let home = segment.settled(None);
    for round in 0..ROUNDS {
        let since = Instant::now();
        segment.speakers.remove(&home).unwrap().kill().unwrap();
        segment.moved_from(&home, since);
        // Who knows the node already is served by it all the time.
        segment.assert_nothing_lost(since, &format!("round {round}"));
        segment.assert_no_doubles(since, &format!("round {round}"));
        segment.start_speaker(&home);
        segment.settled(Some(&home));
    }
}

#[test]
fn a_cut_cable_moves_the_addresses_and_one_node_has_them_when_it_is_mended() {
    let Some(segment) = Segment::start("cable") else { return };
    let home = segment.settled(None);
    for round in 0..ROUNDS {
        let since = Instant::now();
        segment.lab.cut(segment.lab.node(&home)).unwrap();
        segment.moved_from(&home, since);
        segment.assert_no_doubles(since, &format!("round {round}"));
        segment.lab.mend(segment.lab.node(&home)).unwrap();
        segment.settled(Some(&home));
    }
}

#[test]
fn a_dead_nodes_addresses_move() {
    let Some(mut segment) = Segment::start("dead") else { return };
    let home = segment.settled(None);
    for round in 0..ROUNDS {
        let since = Instant::now();
        segment.lab.node(&home).kill_all().unwrap();
        segment.lab.cut(segment.lab.node(&home)).unwrap();
        segment.moved_from(&home, since);
        segment.assert_no_doubles(since, &format!("round {round}"));
        segment.speakers.remove(&home);
        segment.echoes.remove(&home);
        let since = Instant::now();
        segment.lab.mend(segment.lab.node(&home)).unwrap();
        segment.boot(&home);
        segment.settled(Some(&home));
        segment.assert_no_doubles(since, &format!("round {round}, the node returns"));
    }
}
