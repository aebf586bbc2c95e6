//! Claims by cases, in a network that loses nothing and takes no time; the simulation covers the rest.

use super::*;
use crate::election::{Candidate, Nobody};

const NAMES: [&str; 3] = ["a", "b", "c"];

struct Cluster {
    nodes: BTreeMap<&'static str, Ownership>,
    now: Duration,
    /// The candidates for each address beside being alive, by the last number of the address, best first.
    order: BTreeMap<u8, Vec<&'static str>>,
    nobody: Option<Nobody>,
    generation: u64,
}

fn ip(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

impl Cluster {
    fn new(election: Election, partition: Partition, order: &[(u8, &[&'static str])]) -> Self {
        let order = order.iter().map(|(last, names)| (*last, names.to_vec())).collect();
        let mut cluster = Self { nodes: BTreeMap::new(), now: Duration::ZERO, order, nobody: None, generation: 1 };
        NAMES.into_iter().for_each(|name| cluster.start(name, Rules { election, partition }, 1));
        cluster.run(400);
        cluster
    }

    fn start(&mut self, name: &'static str, rules: Rules, boot: u64) {
        let mut member = Membership::new(name, boot, NAMES.map(str::to_owned), None, self.now);
        member.set_configured();
        let mut node = Ownership::new(member, rules, BTreeMap::new());
        node.set_interfaces(self.now, BTreeSet::from(["eth0".to_owned()]));
        self.nodes.insert(name, node);
    }

    fn fields(&self, live: &BTreeSet<String>) -> Vec<Field> {
        let field = |(last, names): (&u8, &Vec<&str>)| {
            let live = names.iter().zip(0..).filter(|(name, _)| live.contains(**name));
            let candidates =
                live.map(|(name, place)| Candidate { distance: 0, hash: [place; 32], node: (*name).to_owned() });
            Field { ip: ip(*last), hashed: ip(*last), nobody: self.nobody, candidates: candidates.collect() }
        };
        self.order.iter().map(field).collect()
    }

    fn run(&mut self, millis: u64) {
        for _ in 0..millis {
            self.now += Duration::from_millis(1);
            for _ in 0..3 {
                NAMES.into_iter().for_each(|name| self.turn(name));
            }
        }
    }

    fn turn(&mut self, name: &'static str) {
        let live = self.nodes.get(name).map(|node| node.membership.live()).unwrap_or_default();
        let fields = self.fields(&live);
        let Some(node) = self.nodes.get_mut(name) else { return };
        node.tick(self.now);
        node.decide(self.now, self.generation, &fields);
        node.membership.beat(self.now);
        for (to, bytes) in node.membership.take_outgoing() {
            if let Some(to) = self.nodes.get_mut(to.as_str()) {
                let _late_or_not = to.receive(self.now, &bytes, |from| from == name);
            }
        }
    }

    fn owners(&self, last: u8) -> Vec<&str> {
        let owns = |node: &Ownership| node.may_answer(self.now, ip(last));
        self.nodes.iter().filter(|(_, node)| owns(node)).map(|(name, _)| *name).collect()
    }
}

const ALL: &[&str] = &NAMES;

#[test]
fn metallb_goes_by_the_order_and_sticky_deals_out_by_load() {
    let order: Vec<(u8, &[&'static str])> = (1..=6).map(|last| (last, ALL)).collect();
    let cluster = Cluster::new(Election::Metallb, Partition::Availability, &order);
    assert!((1..=6).all(|last| cluster.owners(last) == ["a"]));
    let cluster = Cluster::new(Election::Sticky, Partition::Availability, &order);
    for name in NAMES {
        let has = (1..=6).filter(|last| cluster.owners(*last) == [name]).count();
        assert_eq!(has, 2, "{name}");
    }
}

#[test]
fn a_former_owner_is_named_where_it_lives_and_not_where_it_died() {
    let mut cluster = Cluster::new(Election::Metallb, Partition::Availability, &[(1, &["a", "b", "c"])]);
    cluster.order.insert(1, vec!["b", "c"]);
    cluster.generation += 1;
    cluster.run(2);
    assert_eq!(cluster.owners(1), ["b"]);
    assert_eq!(cluster.nodes["b"].answered().collect::<Vec<_>>(), [(ip(1), Some("a"))]);
    cluster.nodes.remove("b");
    cluster.run(200);
    assert_eq!(cluster.nodes["c"].answered().collect::<Vec<_>>(), [(ip(1), None)]);
}

#[test]
fn an_owner_that_may_no_longer_announce_waits_for_the_next_but_not_for_ever() {
    let mut cluster = Cluster::new(Election::Metallb, Partition::Availability, &[(1, &["a", "b", "c"])]);
    // `a` reads that it is out, `b` has not read anything yet.
    let only = |cluster: &mut Cluster, names: Vec<&'static str>| {
        cluster.order.insert(1, names);
        cluster.turn("a");
    };
    only(&mut cluster, vec!["b"]);
    assert_eq!(cluster.owners(1), ["a"]);
    let mut held = 0;
    while cluster.owners(1) == ["a"] {
        cluster.now += Duration::from_millis(1);
        cluster.turn("a");
        cluster.nodes.get_mut("b").unwrap().membership.beat(cluster.now);
        cluster.nodes.get_mut("b").unwrap().membership.take_outgoing().into_iter().for_each(|(to, bytes)| {
            if to == "a" {
                cluster.nodes.get_mut("a").unwrap().receive(cluster.now, &bytes, |_| true).unwrap();
            }
        });
        held += 1;
        assert!(held <= HAND_OVER.as_millis(), "for ever");
    }
    assert_eq!(held, HAND_OVER.as_millis());
    // And what nobody may announce is silent at once.
    let mut cluster = Cluster::new(Election::Metallb, Partition::Availability, &[(1, &["a", "b", "c"])]);
    cluster.nobody = Some(Nobody::NoEndpoint);
    cluster.turn("a");
    assert!(cluster.owners(1).is_empty());
}

#[test]
fn nodes_whose_files_differ_have_one_owner_all_the_time() {
    let mut cluster = Cluster::new(Election::Metallb, Partition::Availability, &[(1, &["a", "b", "c"])]);
    for _ in 0..2_000 {
        cluster.now += Duration::from_millis(1);
        for name in NAMES {
            // Everybody believes that the address is its own.
            cluster.order.insert(1, vec![name]);
            cluster.turn(name);
            assert_eq!(cluster.owners(1), ["a"], "who has it keeps it");
        }
    }
    let terms: Vec<u64> = cluster.nodes.values().flat_map(|node| node.claims().map(|(_, claim)| claim.term)).collect();
    assert!(terms.iter().all(|term| *term < 10), "they fought: {terms:?}");
    cluster.nodes.remove("a");
    cluster.run(200);
    assert_eq!(cluster.owners(1).len(), 1);
}

#[test]
fn in_a_planned_move_one_goes_silent_before_the_other_answers() {
    for election in [Election::Metallb, Election::Sticky] {
        let mut cluster = Cluster::new(election, Partition::Availability, &[(1, &["a", "b", "c"])]);
        cluster.order.insert(1, vec!["b", "c"]);
        cluster.generation += 1;
        let mut seen: Vec<Vec<String>> = Vec::new();
        for turn in 0..20 {
            cluster.now += Duration::from_millis(u64::from(turn % 3 == 0));
            for name in NAMES {
                cluster.turn(name);
                let owners = cluster.owners(1).into_iter().map(str::to_owned).collect();
                if seen.last() != Some(&owners) {
                    seen.push(owners);
                }
            }
        }
        let [a, none, b] = seen.as_slice() else { panic!("{seen:?}") };
        assert_eq!((&**a, &**none, &**b), (&["a".to_owned()][..], &[][..], &["b".to_owned()][..]), "{election:?}");
    }
}

#[test]
fn who_answers_is_waited_for_until_it_says_otherwise_or_is_dead() {
    for (word, dies) in [(true, false), (false, false), (false, true)] {
        let mut cluster = Cluster::new(Election::Metallb, Partition::Availability, &[(1, &["a", "b", "c"])]);
        cluster.order.insert(1, vec!["b", "c"]);
        // It still reads the old files, and is heard or not.
        let since = cluster.now;
        let old = |cluster: &mut Cluster, names: &[&'static str]| {
            cluster.order.insert(1, names.to_vec());
            cluster.turn("a");
            cluster.order.insert(1, vec!["b", "c"]);
        };
        if dies {
            cluster.nodes.remove("a");
        }
        while cluster.now < since + Duration::from_millis(1_500) && cluster.owners(1) != ["b"] {
            cluster.now += Duration::from_millis(1);
            let late = word && cluster.now > since + Duration::from_millis(700);
            old(&mut cluster, if late { &["b", "c"] } else { &["a"] });
            cluster.turn("b");
            cluster.turn("c");
            assert!(cluster.owners(1).len() <= 1);
        }
        let took = (cluster.now - since).as_millis();
        match (word, dies) {
            (_, true) => assert!((120..170).contains(&took), "{took}"),
            (true, _) => assert!((700..705).contains(&took), "{took}"),
            _ => assert_eq!(cluster.owners(1), ["a"], "{took}"),
        }
    }
}

#[test]
fn without_a_majority_a_strict_node_answers_for_nothing() {
    for (partition, expected) in [(Partition::Availability, vec!["a"]), (Partition::Strict, vec![])] {
        let mut cluster = Cluster::new(Election::Sticky, partition, &[(1, &["a", "b", "c"])]);
        assert_eq!(cluster.owners(1), ["a"]);
        cluster.nodes.remove("b");
        cluster.run(500);
        assert_eq!(cluster.owners(1), ["a"], "two of three");
        cluster.nodes.remove("c");
        cluster.run(121);
        assert_eq!(cluster.owners(1), expected, "{partition:?}");
    }
}

#[test]
fn a_node_with_other_files_than_most_keeps_what_it_has_and_gets_nothing() {
    for election in [Election::Metallb, Election::Sticky] {
        let mut cluster = Cluster::new(election, Partition::Availability, &[(1, &["a", "b", "c"])]);
        let set = |cluster: &mut Cluster, name: &str, files: u64| {
            let now = cluster.now;
            cluster.nodes.get_mut(name).unwrap().set_files(now, files);
        };
        NAMES.into_iter().for_each(|name| set(&mut cluster, name, 7));
        cluster.run(10);
        let first = cluster.owners(1)[0].to_owned();
        assert_eq!(first, "a");
        set(&mut cluster, "a", 8);
        cluster.order.insert(2, vec!["a", "b", "c"]);
        cluster.generation += 1;
        cluster.run(50);
        assert_eq!((cluster.owners(1), cluster.owners(2)), (vec!["a"], vec!["b"]), "{election:?}");
        // Where nobody else may, it gets the address all the same.
        cluster.order.insert(3, vec!["a"]);
        cluster.generation += 1;
        cluster.run(50);
        assert_eq!(cluster.owners(3), ["a"], "{election:?}");
        // Of two halves that of the lowest name counts.
        set(&mut cluster, "b", 9);
        cluster.order.insert(4, vec!["c", "b", "a"]);
        cluster.generation += 1;
        cluster.run(50);
        assert_eq!(cluster.owners(4), ["a"], "{election:?}");
        NAMES.into_iter().for_each(|name| set(&mut cluster, name, 10));
        cluster.generation += 1;
        cluster.run(50);
        let expected = if election == Election::Metallb { [["a"], ["c"]] } else { [["b"], ["a"]] };
        assert_eq!([cluster.owners(2), cluster.owners(4)], expected, "{election:?}");
    }
}
