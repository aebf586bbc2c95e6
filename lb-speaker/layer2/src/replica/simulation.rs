//! Nodes that assign from copies of files which differ, over a network that loses, delays, reorders and is cut: whatever
//! happened, they come to one map, and nothing was taken away on the word of a few.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    council::{Agreement, Council, assigner},
    tests::{self, Random, for_seeds, ip, name},
    *,
};

const SERVICES: u64 = 8;
const ADDRESSES: u64 = 20;

/// A toy of a speaker: a map, files, and what it heard.
#[derive(Clone, Debug)]
struct Node {
    name: &'static str,
    map: Assignments,
    /// On its disk, for the next start.
    record: Assignments,
    view: View,
    heard: BTreeMap<&'static str, Glimpse>,
    /// Its time of assigning, while it does.
    epoch: Option<u64>,
}

impl Node {
    fn documents(&self) -> Documents {
        Documents::new(&self.map, Some(&self.view))
    }

    /// What is assigned as this node sees it; all Services are strangers to each other.
    fn settled(&self) -> Settled {
        self.map.settle(|_, _| false, |_, _, _| false)
    }

    /// Does what the assigning node does among those that it reaches.
    fn assign(&mut self, reached: &[&'static str], members: usize) {
        if assigner(reached.iter().copied()) != Some(self.name) {
            self.epoch = None;
            return;
        }
        let ours = self.documents().index;
        let others = reached.iter().filter(|peer| **peer != self.name);
        let peers = others.map(|peer| (*peer, self.heard.get(peer))).collect();
        let council = Council::new(&self.view, &ours, peers, members);
        let Settled { table, lost } = self.settled();
        let mut taken: BTreeSet<IpAddr> = table.values().flatten().copied().collect();
        let mut written = Vec::new();
        for number in 0..SERVICES {
            let service = name(number);
            let known = self.map.get(&service);
            let has = known.is_some_and(|entry| !entry.ips.is_empty());
            let ips = match council.about(&service) {
                Agreement::Agreed if !has || lost.contains_key(&service) => {
                    let free = (0..ADDRESSES).map(ip).find(|ip| !taken.contains(ip)).unwrap();
                    taken.insert(free);
                    vec![free]
                }
                _ if has && council.is_gone(&service) => Vec::new(),
                _ => continue,
            };
            let epoch = *self.epoch.get_or_insert(self.map.epoch() + 1);
            let number = known.map_or_else(|| self.map.floor(), |entry| entry.number + 1);
            written.push((service, Entry { number, epoch, writer: self.name.to_owned(), ips }));
        }
        for (service, entry) in written {
            assert!(self.map.put(service, entry), "what a node writes goes before what it knew");
        }
        self.record.clone_from(&self.map);
    }

    fn hear(&mut self, from: &'static str, map: Assignments, view: &View) {
        self.map.merge(map);
        self.record.clone_from(&self.map);
        self.heard.insert(from, tests::glimpse(view));
    }
}

struct World {
    nodes: Vec<Node>,
    /// The side of the network that each node is on.
    sides: Vec<u64>,
    /// Under way: to whom, from whom, and what.
    flying: Vec<(usize, &'static str, Assignments, View)>,
}

impl World {
    fn new(count: usize) -> Self {
        let names = ["node-a", "node-b", "node-c", "node-d", "node-e"];
        let (map, view) = (Assignments::default(), View { pools: 1, rest: 1, ..View::default() });
        let node = |name| Node {
            name,
            map: map.clone(),
            record: map.clone(),
            view: view.clone(),
            heard: BTreeMap::new(),
            epoch: None,
        };
        let nodes: Vec<Node> = names.into_iter().take(count).map(node).collect();
        Self { sides: vec![0; nodes.len()], nodes, flying: Vec::new() }
    }

    fn reached(&self, from: usize) -> Vec<&'static str> {
        let near = self.nodes.iter().zip(&self.sides).filter(|(_, side)| **side == self.sides[from]);
        near.map(|(node, _)| node.name).collect()
    }

    /// One node says something to one other, or some of what is under way arrives, in any order, or not.
    fn step(&mut self, random: &mut Random, loss: u64) {
        let count = self.nodes.len() as u64;
        let (from, to) = (random.below(count) as usize, random.below(count) as usize);
        if from != to && self.sides[from] == self.sides[to] {
            let node = &self.nodes[from];
            self.flying.push((to, node.name, node.map.clone(), node.view.clone()));
        }
        while !self.flying.is_empty() && !random.one_in(3) {
            let at = random.below(self.flying.len() as u64) as usize;
            let (to, from, map, view) = self.flying.swap_remove(at);
            if !random.one_in(loss) {
                self.nodes[to].hear(from, map, &view);
            }
        }
        let reached = self.reached(from);
        self.nodes[from].assign(&reached, count as usize);
    }

    /// Copies a Service to a node, in a version, or takes it away.
    fn copy(&mut self, node: usize, service: u64, version: Option<u64>) {
        let services = &mut self.nodes[node].view.services;
        match version {
            Some(version) => drop(services.insert(name(service), version)),
            None => drop(services.remove(&name(service))),
        }
    }

    /// Everybody hears everybody, often enough.
    fn settle(&mut self) {
        for _ in 0..12 {
            for from in 0..self.nodes.len() {
                let (name, map, view) =
                    (self.nodes[from].name, self.nodes[from].map.clone(), self.nodes[from].view.clone());
                for to in (0..self.nodes.len()).filter(|to| *to != from && self.sides[*to] == self.sides[from]) {
                    self.nodes[to].hear(name, map.clone(), &view);
                }
            }
            for from in 0..self.nodes.len() {
                let reached = self.reached(from);
                let members = self.nodes.len();
                self.nodes[from].assign(&reached, members);
            }
        }
    }

    /// All have one map, by which the wanted Services have an address each, alone.
    fn assert_one_map(&self, wanted: &BTreeSet<ObjectName>) {
        for node in &self.nodes {
            assert_eq!(node.map, self.nodes[0].map, "{} differs from {}", node.name, self.nodes[0].name);
        }
        let Settled { table, lost } = self.nodes[0].settled();
        assert!(lost.is_empty(), "{lost:?}");
        assert_eq!(table.keys().cloned().collect::<BTreeSet<_>>(), *wanted);
        let ips: BTreeSet<&IpAddr> = table.values().flatten().collect();
        assert_eq!(ips.len(), table.len(), "an address twice: {table:?}");
    }
}

#[test]
fn whatever_happened_nodes_that_read_the_same_come_to_the_same_map() {
    for_seeds(250, |random| {
        let count = 2 + random.below(4) as usize;
        let mut world = World::new(count);
        let loss = 2 + random.below(8);
        for _ in 0..200 {
            match random.below(12) {
                0 => (0..count).for_each(|node| world.sides[node] = random.below(2)),
                1 => world.sides.fill(0),
                2..=4 => {
                    let version = (!random.one_in(4)).then(|| 1 + random.below(2));
                    world.copy(random.below(count as u64) as usize, random.below(SERVICES), version);
                }
                5 => {
                    // Killed and started again: it has what it wrote down.
                    let node = &mut world.nodes[random.below(count as u64) as usize];
                    *node = Node { map: node.record.clone(), heard: BTreeMap::new(), epoch: None, ..node.clone() };
                }
                _ => world.step(random, loss),
            }
            for node in &world.nodes {
                let table = node.settled().table;
                let ips: BTreeSet<&IpAddr> = table.values().flatten().collect();
                assert_eq!(ips.len(), table.values().flatten().count(), "{} has an address twice", node.name);
            }
        }
        world.sides.fill(0);
        let wanted: BTreeSet<u64> = (0..SERVICES).filter(|_| !random.one_in(4)).collect();
        for (node, service) in (0..count).flat_map(|node| (0..SERVICES).map(move |service| (node, service))) {
            world.copy(node, service, wanted.contains(&service).then_some(1));
        }
        world.settle();
        let wanted = wanted.into_iter().map(name).collect();
        world.assert_one_map(&wanted);
        // Nobody moves without need: more of the same changes nothing, nor does another assigning node.
        let before = world.nodes[0].map.clone();
        world.sides[random.below(count as u64) as usize] = 1;
        world.settle();
        world.sides.fill(0);
        world.settle();
        assert_eq!(world.nodes[0].map, before);
    });
}

#[test]
fn nothing_is_released_as_long_as_half_of_the_copies_have_it() {
    for_seeds(250, |random| {
        let count = 2 + random.below(4) as usize;
        let mut world = World::new(count);
        for (node, service) in (0..count).flat_map(|node| (0..SERVICES).map(move |service| (node, service))) {
            world.copy(node, service, Some(1));
        }
        world.settle();
        let before = world.nodes[0].settled().table;
        assert_eq!(before.len() as u64, SERVICES);
        // Any copies may change, but at any time at least half of them have each Service in some version.
        let mut lacking: BTreeMap<u64, BTreeSet<usize>> = BTreeMap::new();
        for _ in 0..200 {
            match random.below(6) {
                0 => (0..count).for_each(|node| world.sides[node] = random.below(2)),
                1 => {
                    let (node, service) = (random.below(count as u64) as usize, random.below(SERVICES));
                    let lacking = lacking.entry(service).or_default();
                    // A view that is on its way counts too: who lacked it once may be heard so later.
                    if lacking.contains(&node) || (lacking.len() + 1) * 2 <= count {
                        lacking.insert(node);
                        world.copy(node, service, random.one_in(2).then_some(2));
                    }
                }
                _ => world.step(random, 5),
            }
            for node in &world.nodes {
                assert_eq!(node.settled().table, before, "{} moved or released something", node.name);
            }
        }
    });
}

#[test]
fn of_two_sides_that_gave_one_address_to_two_services_one_keeps_it_and_the_other_gets_another() {
    for_seeds(100, |random| {
        let mut world = World::new(3);
        world.sides = vec![0, 1, 1];
        let (mine, theirs) = (random.below(4), 4 + random.below(4));
        world.copy(0, mine, Some(1));
        (1..3).for_each(|node| world.copy(node, theirs, Some(1)));
        world.settle();
        let [one, other] = [(0, mine), (1, theirs)].map(|(node, service)| {
            let (table, entry) =
                (world.nodes[node].settled().table, world.nodes[node].map.get(&name(service)).cloned());
            (table[&name(service)].clone(), entry.unwrap().epoch)
        });
        assert_eq!((&one.0, &other.0), (&vec![ip(0)], &vec![ip(0)]));
        world.sides.fill(0);
        (0..3).for_each(|node| [mine, theirs].into_iter().for_each(|service| world.copy(node, service, Some(1))));
        world.settle();
        let [mine, theirs] = [mine, theirs].map(name);
        world.assert_one_map(&BTreeSet::from([mine.clone(), theirs.clone()]));
        let (kept, moved) = if (one.1, &mine) < (other.1, &theirs) { (mine, theirs) } else { (theirs, mine) };
        let table = world.nodes[2].settled().table;
        assert_eq!((&table[&kept], &table[&moved]), (&vec![ip(0)], &vec![ip(1)]));
    });
}
