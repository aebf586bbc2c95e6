//! The map and the views on their way, over the same network.

use std::net::IpAddr;

use roadstead_model::ObjectName;

use super::*;
use crate::{
    membership::message::Question,
    replica::{Assignments, Documents, Entry, Kept, View},
};

fn entry(writer: &str, last: u8) -> Entry {
    Entry { number: 0, epoch: 1, writer: writer.to_owned(), ips: vec![IpAddr::from([192, 0, 2, last])] }
}

fn service(name: &str) -> ObjectName {
    ObjectName::new("default", name)
}

/// Nodes with their maps; what arrives is merged as the daemon does it.
struct Cluster {
    world: World,
    maps: BTreeMap<&'static str, Assignments>,
    views: BTreeMap<&'static str, View>,
    viewed: usize,
}

impl Cluster {
    fn new(world: World) -> Self {
        let mut cluster = Self { world, maps: BTreeMap::new(), views: BTreeMap::new(), viewed: 0 };
        for name in NAMES {
            cluster.maps.insert(name, Assignments::default());
            cluster.views.insert(name, View { pools: 1, rest: 1, ..View::default() });
        }
        cluster
    }

    fn publish(&mut self, name: &'static str) {
        let documents = Documents::new(&self.maps[name], Some(&self.views[name]));
        let now = Duration::from_millis(self.world.now);
        let Some(node) = self.world.nodes.get_mut(name) else { return };
        let standing = Standing { files: documents.files, ..Default::default() };
        node.set_standing(now, standing);
        node.set_documents(now, documents);
    }

    fn run(&mut self, millis: u64) {
        for _ in 0..millis {
            self.world.run(1);
            for name in NAMES {
                let Some(node) = self.world.nodes.get_mut(name) else { continue };
                let mut changed = false;
                while let Some(arrival) = node.take_arrival() {
                    match arrival.slot.kept {
                        Kept::Viewed => self.viewed += 1,
                        Kept::Assigned => {
                            let read = Assignments::read(arrival.slot.bucket, &arrival.bytes).unwrap();
                            changed |= self.maps.get_mut(name).unwrap().merge(read);
                        }
                    }
                }
                if changed {
                    self.publish(name);
                }
            }
        }
    }

    fn agree(&self) -> bool {
        self.maps.values().all(|map| *map == self.maps["a"])
    }

    fn behind(&self, name: &str) -> bool {
        self.world.nodes[name].is_behind(Duration::from_millis(self.world.now))
    }

    fn disagreeing(&self, name: &str) -> Vec<String> {
        self.world.nodes[name].disagreeing(Duration::from_millis(self.world.now)).map(str::to_owned).collect()
    }
}

#[test]
fn maps_of_thousands_of_services_come_together_over_losses() {
    for (services, lose, bound) in [(3, 0, 50), (3, 4, 1_500), (6_000, 0, 1_500), (6_000, 7, 8_000)] {
        let mut cluster = Cluster::new(started());
        (cluster.world.lose, cluster.world.latency) = (lose, 1);
        for number in 0..services {
            let (writer, name) = (NAMES[number % 3], service(&format!("service-{number}")));
            cluster.maps.get_mut(writer).unwrap().put(name, entry(writer, (number % 250) as u8));
        }
        NAMES.into_iter().for_each(|name| cluster.publish(name));
        let mut took = 0;
        while !cluster.agree() {
            cluster.run(1);
            took += 1;
            assert!(took <= bound, "{services} services, every {lose}th lost: not in {bound} ms");
            // None of it delays what is timely.
            NAMES.iter().for_each(|name| cluster.world.check(name, &NAMES));
        }
        assert_eq!(cluster.maps["b"].iter().count(), services);
        cluster.run(100);
        let sent = cluster.world.sent;
        cluster.run(400);
        assert!(cluster.world.sent - sent <= 6 * 11, "in agreement nothing but heartbeats is sent");
    }
}

#[test]
fn who_joins_is_behind_until_it_has_what_the_others_know() {
    let mut cluster = Cluster::new(started());
    for (name, last) in [("a", 1), ("b", 2)] {
        cluster.maps.get_mut(name).unwrap().put(service(name), entry(name, last));
        cluster.publish(name);
    }
    cluster.run(100);
    let now = Duration::from_millis(cluster.world.now);
    let fresh = Membership::new("c", 2, NAMES.map(str::to_owned), Some(Key::new(b"k")), now);
    cluster.world.nodes.insert("c", fresh);
    cluster.maps.insert("c", Assignments::default());
    assert!(!cluster.world.nodes["c"].has_heard(now) && cluster.world.nodes["c"].is_cold(now));
    let mut was_behind = false;
    while !cluster.agree() {
        cluster.run(1);
        was_behind |= cluster.behind("c");
        assert!(cluster.world.now < 1_000);
    }
    assert!(was_behind && !cluster.behind("c"));
    let now = Duration::from_millis(cluster.world.now);
    assert!(cluster.world.nodes["c"].has_heard(now) && !cluster.world.nodes["c"].is_cold(now));
}

#[test]
fn a_node_alone_waits_three_seconds_for_peers_that_it_has_never_heard() {
    let mut world = World::new();
    world.start("a", 1);
    let at = |world: &World| Duration::from_millis(world.now);
    world.run(319);
    assert!(!world.nodes["a"].has_heard(at(&world)));
    world.run(1);
    assert!(world.nodes["a"].has_heard(at(&world)) && world.nodes["a"].is_cold(at(&world)));
    world.run(2_679);
    assert!(world.nodes["a"].is_cold(at(&world)));
    world.run(1);
    assert!(!world.nodes["a"].is_cold(at(&world)));
    // Who has no peers waits for nobody.
    let alone = Membership::new("a", 1, [], None, Duration::ZERO);
    assert!(alone.has_heard(Duration::ZERO) && !alone.is_cold(Duration::ZERO));
}

#[test]
fn a_peer_that_hands_out_nothing_is_waited_for_two_seconds() {
    let mut cluster = Cluster::new(started());
    cluster.maps.get_mut("a").unwrap().put(service("a"), entry("a", 1));
    cluster.publish("a");
    // Its heartbeats come, its parts do not.
    let (mut said, mut since) = (0, None);
    for _ in 0..2_500 {
        let now = Duration::from_millis(cluster.world.now + 1);
        cluster.world.now += 1;
        for (_, datagram) in cluster.world.nodes.get_mut("a").map(|a| (a.tick(now), a.take_outgoing())).unwrap().1 {
            let _for_another = cluster.world.nodes.get_mut("b").unwrap().receive(now, &datagram, |_| true);
        }
        said += cluster.world.nodes.get_mut("b").map(|b| (b.tick(now), b.take_parts().len())).unwrap().1;
        cluster.world.nodes.values_mut().for_each(|node| drop(node.take_outgoing()));
        since = since.or((said > 0).then_some(now));
        assert_eq!(cluster.behind("b"), since.is_some_and(|since| now < since + Duration::from_secs(2)), "{now:?}");
    }
    assert!((5..15).contains(&said), "asked {said} times");
}

#[test]
fn files_that_differ_are_told_only_when_nobody_is_copying_them() {
    let mut cluster = Cluster::new(started());
    let set = |cluster: &mut Cluster, name: &'static str, version: u64| {
        cluster.views.get_mut(name).unwrap().services.insert(service("web"), version);
        cluster.publish(name);
    };
    NAMES.into_iter().for_each(|name| set(&mut cluster, name, 1));
    cluster.run(6_000);
    assert!(NAMES.iter().all(|name| cluster.disagreeing(name).is_empty()));
    // One node after the other gets many files.
    for version in 2..6 {
        for name in NAMES {
            cluster.run(1_400);
            set(&mut cluster, name, version);
            assert!(NAMES.iter().all(|name| cluster.disagreeing(name).is_empty()), "{name} {version}");
        }
    }
    set(&mut cluster, "c", 9);
    cluster.run(4_900);
    assert!(cluster.disagreeing("a").is_empty() && cluster.disagreeing("c").is_empty());
    cluster.run(200);
    assert_eq!(cluster.disagreeing("a"), ["c"]);
    assert_eq!(cluster.disagreeing("c"), ["a", "b"]);
    assert!(cluster.viewed > 0, "who differs is asked in what");
    // Changes do not hide a difference for ever.
    set(&mut cluster, "c", 5);
    cluster.run(100);
    assert!(cluster.disagreeing("a").is_empty());
    for version in 10..30 {
        set(&mut cluster, "c", version);
        cluster.run(2_000);
    }
    assert_eq!(cluster.disagreeing("b"), ["c"]);
}

#[test]
fn a_bucket_that_becomes_empty_is_told_too() {
    let mut cluster = Cluster::new(started());
    for name in NAMES {
        cluster.views.get_mut(name).unwrap().services.insert(service("web"), 1);
        cluster.maps.get_mut(name).unwrap().put(service("web"), entry("a", 1));
        cluster.publish(name);
    }
    cluster.run(100);
    assert_eq!(cluster.viewed, 0);
    cluster.views.get_mut("c").unwrap().services.clear();
    cluster.publish("c");
    cluster.run(50);
    // `c` asks two peers for their bucket, and each of them asks `c`.
    assert_eq!(cluster.viewed, 4);
}

#[test]
fn a_question_that_is_sent_again_and_again_gets_no_more_than_its_allowance() {
    let mut cluster = Cluster::new(started());
    for number in 0..20_000 {
        cluster.maps.get_mut("a").unwrap().put(service(&format!("service-{number}")), entry("a", 1));
    }
    cluster.publish("a");
    let now = Duration::from_millis(cluster.world.now);
    let a = cluster.world.nodes.get_mut("a").unwrap();
    let digest = a.exchange.documents().index.digest(crate::replica::Slot { kept: Kept::Assigned, bucket: 0 });
    let question = Question { digest, first: 1, name: "b" }.encode(Some(&Key::new(b"k")));
    for _ in 0..1_000 {
        assert_eq!(a.receive(now, &question, |_| true), Ok(Change::Nothing));
    }
    assert_eq!(a.take_parts().len(), 64);
    assert_eq!(a.receive(now + INTERVAL, &question, |_| true), Ok(Change::Nothing));
    assert_eq!(a.take_parts().len(), 16);
}

#[test]
fn a_question_for_a_standing_has_an_allowance_of_its_own() {
    let mut world = started();
    let now = Duration::from_millis(world.now);
    let a = world.nodes.get_mut("a").unwrap();
    let claim = Claim { held: true, quorate: true, term: 1 };
    let claims = (0..10_000_u32).map(|number| (IpAddr::from(number.to_be_bytes()), claim)).collect();
    a.set_standing(now, Standing { claims, ..Standing::default() });
    a.tick(now);
    a.take_outgoing();
    let ask = |digest, first| Question { digest, first, name: "b" }.encode(Some(&Key::new(b"k")));
    let standing = ask(a.backing.digest(), 1);
    for _ in 0..1_000 {
        assert_eq!(a.receive(now, &standing, |_| true), Ok(Change::Nothing));
    }
    assert_eq!(a.take_outgoing().len(), 64);
    // Who asks for documents without end does not keep a peer from its standing, which is timely.
    let index = ask(a.exchange.documents().encoded.digest, 1);
    for _ in 0..1_000 {
        assert_eq!(a.receive(now + INTERVAL, &index, |_| true), Ok(Change::Nothing));
    }
    assert_eq!(a.take_parts().len(), 64);
    assert_eq!(a.receive(now + INTERVAL, &standing, |_| true), Ok(Change::Nothing));
    assert_eq!(a.take_outgoing().len(), 16);
}
