//! From snapshot to snapshot: what of the frontends has changed.
//!
//! The compiler keeps every Service as it was compiled last. Objects that have not changed are the same `Arc` in the next
//! snapshot, so a walk that compares pointers finds the few Services to compile anew; nothing else is proportional to
//! their number. What comes out is the same as if the last snapshot had been the only one, but for tombstones.

use std::{cmp::Ordering, collections::btree_map, iter::Peekable, net::IpAddr, sync::Arc, time::Instant};

use roadstead_abi::{Addr, SvcKey, kind, proto};
use roadstead_model::{EndpointSlice, IpFamily, Node, ObjectName, Service, Snapshot};

use crate::{
    claims::{Claim, Claims},
    frontends::{Compiled, Delta, EndpointAddress, Frontend, NodeFacts, NodeView, Options, Port, ServicePortName},
    hash::{Map, Set},
    tombstones::{Tombstone, Tombstones},
};

/// All Services as they were compiled last.
#[derive(Debug)]
pub struct Compiler {
    options: Options,
    node: NodeFacts,
    nodes: Vec<Arc<Node>>,
    own: Vec<IpAddr>,
    /// In the order of the snapshot.
    entries: Vec<Entry>,
    claims: Claims,
    vips: Vips,
    /// Endpoints that answer, by address: how many Services have one there.
    live: Map<Addr, u32>,
    tombstones: Tombstones,
}

/// Small, because every snapshot walks over all of them.
#[derive(Debug)]
struct Entry {
    service: Arc<Service>,
    slices: Slices,
    compiled: Box<Compiled>,
}

/// The slices of a Service; most have one, which is compared in place.
#[derive(Debug, Default)]
struct Slices {
    first: Option<Arc<EndpointSlice>>,
    rest: Vec<Arc<EndpointSlice>>,
}

impl Slices {
    fn of(slices: &[Arc<EndpointSlice>]) -> Self {
        let mut slices = slices.iter().cloned();
        Self { first: slices.next(), rest: slices.collect() }
    }

    fn are(&self, slices: &[Arc<EndpointSlice>]) -> bool {
        let same = |(old, new): (&Arc<EndpointSlice>, &Arc<EndpointSlice>)| Arc::ptr_eq(old, new);
        match (&self.first, slices) {
            (Some(first), [new, rest @ ..]) => {
                Arc::ptr_eq(first, new) && self.rest.len() == rest.len() && self.rest.iter().zip(rest).all(same)
            }
            (first, slices) => first.is_none() && slices.is_empty(),
        }
    }
}

/// A UDP endpoint that answers no more.
type Gone = (EndpointAddress, Arc<Port>);

impl Compiler {
    /// A compiler that has seen nothing yet.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self {
            options,
            node: NodeFacts::default(),
            nodes: Vec::new(),
            own: Vec::new(),
            entries: Vec::new(),
            claims: Claims::default(),
            vips: Vips::default(),
            live: Map::default(),
            tombstones: Tombstones::default(),
        }
    }

    /// Takes a snapshot; what has changed since the one before. The same one again brings down tombstones in time.
    pub fn update(&mut self, snapshot: &Snapshot, node: NodeView<'_>, now: Instant) -> Delta {
        if self.entries.is_empty() {
            self.claims.reserve(snapshot.services.len() * 4);
            self.live.reserve(snapshot.services.len() * 4);
        }
        let is_moved = self.learn_node(snapshot, node);
        let changes = self.compare(snapshot, is_moved);
        let (mut gone, mut touched) = (Vec::new(), Vec::new());
        let is_in_place = changes.iter().all(|change| matches!(change, Change::Replace { .. }));
        let fresh: Vec<_> = changes.into_iter().map(|change| self.enter(change, &mut gone, &mut touched)).collect();
        self.keep(fresh, is_in_place);
        self.bury(&gone, &touched, now);
        Delta { frontends: self.claims.changes(), vips: self.vips.changes(), conflicts: self.claims.problems() }
    }

    /// Whether any endpoint that is gone is a frontend still.
    #[must_use]
    pub fn has_tombstones(&self) -> bool {
        !self.tombstones.is_empty()
    }

    /// When the next tombstone falls: [`Compiler::update`] is due then, even without a new snapshot.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.tombstones.next_fall()
    }

    /// All frontends as they are now.
    pub fn frontends(&self) -> impl Iterator<Item = (&SvcKey, &Frontend)> {
        self.claims.winners()
    }

    /// All addresses that belong to Services alone, with their kinds.
    pub fn vips(&self) -> impl Iterator<Item = (&Addr, u8)> {
        self.vips.0.iter().filter_map(|(addr, counts)| Some((addr, counts.kind()?)))
    }

    /// Everything as one delta, for a reconciler that begins anew.
    #[must_use]
    pub fn everything(&self) -> Delta {
        Delta {
            frontends: self.frontends().map(|(key, frontend)| (*key, Some(frontend.clone()))).collect(),
            vips: self.vips().map(|(addr, kind)| (*addr, Some(kind))).collect(),
            conflicts: self.claims.problems(),
        }
    }

    /// Whether what counts of the nodes has changed.
    fn learn_node(&mut self, snapshot: &Snapshot, view: NodeView<'_>) -> bool {
        let same_nodes = self.nodes.len() == snapshot.nodes.len()
            && self.nodes.iter().zip(snapshot.nodes.values()).all(|(old, new)| Arc::ptr_eq(old, new));
        let same_self = self.node.name == view.name && self.node.primary == view.primary && self.own == view.addresses;
        if same_nodes && same_self {
            return false;
        }
        let ips = snapshot.nodes.values().flat_map(|node| node.internal_ips.iter().chain(&node.external_ips));
        let facts = NodeFacts {
            name: view.name.to_owned(),
            zone: snapshot.nodes.get(view.name).and_then(|node| node.zone()).map(str::to_owned),
            hosts: ips.chain(view.addresses).copied().collect(),
            primary: view.primary.to_vec(),
        };
        self.nodes = snapshot.nodes.values().cloned().collect();
        self.own = view.addresses.to_vec();
        let is_moved = self.node != facts;
        self.node = facts;
        is_moved
    }

    /// What to do to the entries to bring them to the snapshot, in their order.
    fn compare<'a>(&self, snapshot: &'a Snapshot, all: bool) -> Vec<Change<'a>> {
        let mut changes = Vec::new();
        let mut slices = SliceWalk(snapshot.slices.iter().peekable());
        let mut at = 0;
        for (name, service) in &snapshot.services {
            let old = loop {
                let Some(old) = self.entries.get(at) else { break None };
                if Arc::ptr_eq(&old.service, service) {
                    break Some(old);
                }
                match old.service.meta.name.cmp(name) {
                    Ordering::Less => changes.push(Change::Remove { at }),
                    Ordering::Equal => break Some(old),
                    Ordering::Greater => break None,
                }
                at += 1;
            };
            let slices = slices.of(name, old.map(|old| &old.slices));
            match old {
                Some(old) if !all && Arc::ptr_eq(&old.service, service) && old.slices.are(slices) => {}
                Some(_) => changes.push(Change::Replace { at, service, slices }),
                None => changes.push(Change::Insert { at, service, slices }),
            }
            at += usize::from(old.is_some());
        }
        changes.extend((at..self.entries.len()).map(|at| Change::Remove { at }));
        changes
    }

    /// Compiles what a change brings, and counts the difference. The entries stay as they are until all are compiled.
    fn enter(&mut self, change: Change<'_>, gone: &mut Vec<Gone>, touched: &mut Vec<ObjectName>) -> Edit {
        let none = Compiled::default();
        let (at, new) = match change {
            Change::Replace { at, service, slices } | Change::Insert { at, service, slices } => {
                (at, Some((service, slices)))
            }
            Change::Remove { at } => (at, None),
        };
        let old = if matches!(change, Change::Insert { .. }) { None } else { self.entries.get(at) };
        let before = old.map_or(&none, |old| &*old.compiled);
        let entry = new.map(|(service, slices)| Entry {
            compiled: Box::new(Compiled::of(service, slices, &self.node, self.options, before)),
            service: Arc::clone(service),
            slices: Slices::of(slices),
        });
        let after = entry.as_ref().map_or(&none, |entry| &*entry.compiled);
        count(&mut self.live, &before.live, &after.live);
        self.vips.exchange(&before.vips, &after.vips);
        let age = new.map_or(0, |(service, _)| service.meta.age_order().0);
        exchange_claims(&mut self.claims, &before.claims, &after.claims, age);
        find_gone(before, after, gone);
        touched.extend(old.map(|old| old.service.meta.name.clone()));
        Edit { at, replaces: old.is_some(), entry }
    }

    fn keep(&mut self, edits: Vec<Edit>, is_in_place: bool) {
        if is_in_place {
            for edit in edits {
                if let (Some(kept), Some(entry)) = (self.entries.get_mut(edit.at), edit.entry) {
                    *kept = entry;
                }
            }
            return;
        }
        let mut old = std::mem::take(&mut self.entries).into_iter().enumerate().peekable();
        self.entries.reserve(old.len() + edits.len());
        for edit in edits {
            while let Some((_, entry)) = old.next_if(|(index, _)| *index < edit.at) {
                self.entries.push(entry);
            }
            if edit.replaces {
                old.next();
            }
            self.entries.extend(edit.entry);
        }
        self.entries.extend(old.map(|(_, entry)| entry));
    }

    /// Puts tombstones up for what is gone, takes down what has to fall, and keeps the others like their Services.
    fn bury(&mut self, gone: &[Gone], touched: &[ObjectName], now: Instant) {
        for (endpoint, port) in gone {
            self.tombstones.add(*endpoint, &port.name, port.family, now);
        }
        if self.tombstones.is_empty() {
            return;
        }
        let touched: Set<&ObjectName> = touched.iter().collect();
        for fallen in self.tombstones.take_fallen(now, |addr| self.live.contains_key(addr)) {
            self.forget(&fallen);
        }
        let changed: Vec<Tombstone> =
            self.tombstones.iter().filter(|stone| touched.contains(&stone.port.service)).cloned().collect();
        for stone in changed {
            if let Some(port) = self.port(&stone.port, stone.family).cloned() {
                let frontend = Frontend { kind: kind::TOMBSTONE, port };
                self.claims.put(stone.key(), Claim { age: i64::MAX, frontend });
            } else {
                self.tombstones.remove(&stone);
                self.forget(&stone);
            }
        }
    }

    fn forget(&mut self, stone: &Tombstone) {
        self.claims.remove(stone.key(), kind::TOMBSTONE, &stone.port);
    }

    fn port(&self, name: &ServicePortName, family: IpFamily) -> Option<&Arc<Port>> {
        let at = self.entries.binary_search_by(|entry| entry.service.meta.name.cmp(&name.service)).ok()?;
        let ports = &self.entries.get(at)?.compiled.ports;
        ports.iter().find(|port| port.family == family && port.name == *name)
    }
}

/// A step from the entries to a snapshot.
#[derive(Clone, Copy)]
enum Change<'a> {
    /// The entry is of another version.
    Replace { at: usize, service: &'a Arc<Service>, slices: &'a [Arc<EndpointSlice>] },
    /// A new Service stands before the entry.
    Insert { at: usize, service: &'a Arc<Service>, slices: &'a [Arc<EndpointSlice>] },
    /// The entry's Service is gone.
    Remove { at: usize },
}

/// A change, compiled.
struct Edit {
    at: usize,
    replaces: bool,
    entry: Option<Entry>,
}

/// The slices of one Service after the other, in the order of the Services.
struct SliceWalk<'a>(Peekable<btree_map::Iter<'a, ObjectName, Vec<Arc<EndpointSlice>>>>);

impl<'a> SliceWalk<'a> {
    fn of(&mut self, name: &ObjectName, old: Option<&Slices>) -> &'a [Arc<EndpointSlice>] {
        // The same slices are the same Service's: no name is compared for what has not changed.
        let old = old.filter(|old| old.first.is_some());
        if let Some((_, same)) = self.0.next_if(|(_, slices)| old.is_some_and(|old| old.are(slices))) {
            return same;
        }
        while self.0.next_if(|(service, _)| *service < name).is_some() {}
        self.0.next_if(|(service, _)| *service == name).map_or(&[], |(_, slices)| slices)
    }
}

/// Counts sorted addresses up and down.
fn count(live: &mut Map<Addr, u32>, before: &[Addr], after: &[Addr]) {
    for addr in after.iter().filter(|addr| before.binary_search(addr).is_err()) {
        *live.entry(*addr).or_default() += 1;
    }
    for addr in before.iter().filter(|addr| after.binary_search(addr).is_err()) {
        if let Some(count) = live.get_mut(addr) {
            *count -= 1;
            if *count == 0 {
                live.remove(addr);
            }
        }
    }
}

fn exchange_claims(claims: &mut Claims, before: &[(SvcKey, Frontend)], after: &[(SvcKey, Frontend)], age: i64) {
    let same_keys = before.len() == after.len() && before.iter().zip(after).all(|(old, new)| is_same_claim(old, new));
    if !same_keys {
        let kept: Set<(SvcKey, &ServicePortName)> =
            after.iter().map(|(key, frontend)| (*key, &frontend.port.name)).collect();
        for (key, frontend) in before.iter().filter(|(key, old)| !kept.contains(&(*key, &old.port.name))) {
            claims.remove(*key, frontend.kind, &frontend.port.name);
        }
    }
    for (key, frontend) in after {
        claims.put(*key, Claim { age, frontend: frontend.clone() });
    }
}

fn is_same_claim((old_key, old): &(SvcKey, Frontend), (new_key, new): &(SvcKey, Frontend)) -> bool {
    old_key == new_key && old.port.name == new.port.name
}

/// UDP endpoints that answered before and do not now, of ports that are still there.
fn find_gone(before: &Compiled, after: &Compiled, gone: &mut Vec<Gone>) {
    for old in before.ports.iter().filter(|port| port.protocol.number() == proto::UDP) {
        let is_same =
            |new: &&Arc<Port>| new.family == old.family && new.protocol == old.protocol && new.name == old.name;
        let Some(new) = after.ports.iter().find(is_same).filter(|new| !Arc::ptr_eq(old, new)) else { continue };
        let lost = old.sets.serving.iter().filter(|endpoint| new.sets.serving.binary_search(endpoint).is_err());
        gone.extend(lost.map(|endpoint| (*endpoint, Arc::clone(new))));
    }
}

/// Addresses that belong to Services alone, with the number of claims of either kind.
#[derive(Debug, Default)]
struct Vips(Map<Addr, VipCounts>, Vec<Addr>);

#[derive(Clone, Copy, Debug, Default)]
struct VipCounts {
    cluster: u32,
    balancer: u32,
    /// The kind before the first change since the last look.
    was: Option<u8>,
    touched: bool,
}

impl VipCounts {
    fn kind(self) -> Option<u8> {
        if self.cluster > 0 {
            return Some(kind::CLUSTER_IP);
        }
        (self.balancer > 0).then_some(kind::LOAD_BALANCER)
    }
}

impl Vips {
    fn exchange(&mut self, before: &[(Addr, u8)], after: &[(Addr, u8)]) {
        if before == after {
            return;
        }
        for (addr, kind) in after {
            *self.count(*addr, *kind) += 1;
        }
        for (addr, kind) in before {
            *self.count(*addr, *kind) -= 1;
        }
    }

    fn count(&mut self, addr: Addr, kind: u8) -> &mut u32 {
        let counts = self.0.entry(addr).or_default();
        if !counts.touched {
            counts.touched = true;
            counts.was = counts.kind();
            self.1.push(addr);
        }
        if kind == kind::CLUSTER_IP { &mut counts.cluster } else { &mut counts.balancer }
    }

    fn changes(&mut self) -> Vec<(Addr, Option<u8>)> {
        let mut changes = Vec::new();
        for addr in self.1.drain(..) {
            let Some(counts) = self.0.get_mut(&addr) else { continue };
            counts.touched = false;
            let (was, is) = (counts.was, counts.kind());
            if is.is_none() {
                self.0.remove(&addr);
            }
            if was != is {
                changes.push((addr, is));
            }
        }
        changes
    }
}

#[cfg(test)]
#[path = "compiler_tests.rs"]
mod tests;
