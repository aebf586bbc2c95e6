//! All objects to one snapshot: doubles, assignment, endpoints, status.
//!
//! What was merged is kept by name, and a change of files touches only the names in them: one endpoint among thousands of
//! Services costs what that endpoint costs. What comes out depends on the files alone, not on the order of changes, but for
//! the rules by which a newcomer throws nothing out; a test compares both ways.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use roadstead_model::{EndpointSlice, ObjectName, ObjectRef, Place, Problem, Service, Severity, Snapshot};

use crate::{
    assign::{Assigned, Conflict, as_written, assign},
    claims::{Claims, FileId},
    findings::Finding,
    flags::{Filling, LoadOptions},
    object::{Draft, Key, Kind, Object, Parsed},
    overlaps::{Overlap, overlaps},
    parse::{ParsedFile, found},
    pods::{self, Label, Pods},
    slices::slices,
    status::Statuses,
};

/// A file that was read anew, came or went.
pub(crate) struct Change {
    pub(crate) file: FileId,
    pub(crate) old: Option<Arc<ParsedFile>>,
    pub(crate) new: Option<Arc<ParsedFile>>,
}

/// All objects, by name and by what they belong to.
#[derive(Default)]
pub(crate) struct Merge {
    names: HashMap<Key, Claims>,
    /// Names that several objects claim.
    doubles: BTreeSet<Key>,
    drafts: BTreeMap<ObjectName, Arc<Draft>>,
    /// Slices by the Service that they name and the object that they stand in.
    slices: HashMap<ObjectName, Vec<(Key, Arc<EndpointSlice>)>>,
    pods: Pods,
    statuses: Statuses,
    conflicts: Vec<Conflict>,
}

/// One update on its way: the next snapshot, and what is to be looked at again.
struct Pass {
    next: Snapshot,
    changed: bool,
    /// Services whose draft is another one.
    edited: BTreeSet<ObjectName>,
    /// Services to assign anew, for a draft or a status is another one.
    assign: bool,
    /// Services whose slices are to be made anew.
    stale: BTreeSet<ObjectName>,
    /// Labels of Pods that came, went or are others.
    labels: HashSet<Label>,
    /// Zones of nodes may be others.
    zones: bool,
}

impl Merge {
    /// Takes in what changed; the snapshot that follows the last one, with the problems between objects, and whether its
    /// objects differ. The caller raises the generation.
    pub(crate) fn update(
        &mut self,
        changes: &[Change],
        statuses: Option<Statuses>,
        options: &LoadOptions,
        last: &Snapshot,
    ) -> (Snapshot, bool) {
        let mut pass = Pass {
            next: Snapshot { problems: Vec::new(), ..last.clone() },
            changed: false,
            edited: BTreeSet::new(),
            assign: false,
            stale: BTreeSet::new(),
            labels: HashSet::new(),
            zones: false,
        };
        self.claim(changes, &mut pass);
        if let Some(statuses) = statuses.filter(|statuses| *statuses != self.statuses) {
            self.statuses = statuses;
            pass.assign = true;
            self.ingress_statuses(&mut pass);
        }
        if pass.assign {
            self.services(options, &mut pass);
        }
        self.endpoints(options.filling, &mut pass);
        let overlaps = overlaps(&pass.next.pools);
        self.problems(&overlaps, &mut pass.next.problems);
        (pass.next, pass.changed)
    }

    fn claim(&mut self, changes: &[Change], pass: &mut Pass) {
        let mut touched = HashSet::new();
        for Change { file, old, new } in changes {
            for parsed in old.iter().flat_map(|file| &file.objects) {
                touched.insert(&parsed.key);
                if let Some(claims) = self.names.get_mut(&parsed.key) {
                    claims.remove(file);
                }
            }
            for parsed in new.iter().flat_map(|file| &file.objects) {
                touched.insert(&parsed.key);
                match self.names.get_mut(&parsed.key) {
                    Some(claims) => claims.add(file, parsed),
                    None => self.names.entry(parsed.key.clone()).or_default().add(file, parsed),
                }
            }
        }
        for key in touched {
            self.settle(key, pass);
        }
    }

    fn settle(&mut self, key: &Key, pass: &mut Pass) {
        let Some(claims) = self.names.get_mut(key) else { return };
        let settled = claims.settle();
        if claims.are_many() {
            self.doubles.insert(key.clone());
        } else {
            self.doubles.remove(key);
        }
        if claims.is_empty() {
            self.names.remove(key);
        }
        let Some((old, new)) = settled else { return };
        pass.changed |= !matches!(key.kind, Kind::Service | Kind::EndpointSlice | Kind::Endpoints | Kind::Pod);
        if let Some(old) = &old {
            self.withdraw(key, old, pass);
        }
        if let Some(new) = &new {
            self.insert(key, new, pass);
        }
    }

    fn withdraw(&mut self, key: &Key, object: &Object, pass: &mut Pass) {
        let (name, next) = (&key.name, &mut pass.next);
        let plain = &*name.name;
        match object {
            Object::Service(_) => {
                self.drafts.remove(name);
                pass.edited.insert(name.clone());
                pass.assign = true;
            }
            Object::Slices(slices) => {
                for slice in slices {
                    if let Some(named) = self.slices.get_mut(&slice.service) {
                        named.retain(|(other, _)| other != key);
                        if named.is_empty() {
                            self.slices.remove(&slice.service);
                        }
                    }
                    pass.stale.insert(slice.service.clone());
                }
            }
            Object::Pod(pod) => {
                self.pods.remove(pod);
                pass.labels.extend(pods::labels(&name.namespace, &pod.labels));
            }
            Object::Node(node) => {
                pass.zones |= node.zone().is_some();
                next.nodes.remove(plain);
            }
            Object::Namespace(_) => drop(next.namespaces.remove(plain)),
            Object::Ingress(_) => drop(next.ingresses.remove(name)),
            Object::IngressClass(_) => drop(next.ingress_classes.remove(plain)),
            Object::Secret(_) => drop(next.secrets.remove(name)),
            Object::ConfigMap(_) => drop(next.config_maps.remove(name)),
            Object::Pool(_) => drop(next.pools.remove(name)),
            Object::L2Advertisement(_) => drop(next.l2_advertisements.remove(name)),
            Object::L2Exclusion(_) => drop(next.l2_exclusions.remove(name)),
        }
    }

    fn insert(&mut self, key: &Key, object: &Object, pass: &mut Pass) {
        let (name, next) = (key.name.clone(), &mut pass.next);
        let plain = name.name.to_string();
        match object {
            Object::Service(draft) => {
                self.drafts.insert(name.clone(), Arc::clone(draft));
                pass.edited.insert(name);
                pass.assign = true;
            }
            Object::Slices(slices) => {
                for slice in slices {
                    let entry = (key.clone(), Arc::clone(slice));
                    match self.slices.get_mut(&slice.service) {
                        Some(named) => named.push(entry),
                        // Most Services have one, and get no room for more.
                        None => drop(self.slices.insert(slice.service.clone(), vec![entry])),
                    }
                    pass.stale.insert(slice.service.clone());
                }
            }
            Object::Pod(pod) => {
                self.pods.insert(pod);
                pass.labels.extend(pods::labels(&name.namespace, &pod.labels));
            }
            Object::Node(node) => {
                pass.zones |= node.zone().is_some();
                next.nodes.insert(plain, Arc::clone(node));
            }
            Object::Namespace(object) => drop(next.namespaces.insert(plain, Arc::clone(object))),
            Object::Ingress(ingress) => {
                let ingress = self.statuses.ingress(&name, ingress);
                next.ingresses.insert(name, ingress);
            }
            Object::IngressClass(class) => drop(next.ingress_classes.insert(plain, Arc::clone(class))),
            Object::Secret(secret) => drop(next.secrets.insert(name, Arc::clone(secret))),
            Object::ConfigMap(object) => drop(next.config_maps.insert(name, Arc::clone(object))),
            Object::Pool(pool) => drop(next.pools.insert(name, Arc::clone(pool))),
            Object::L2Advertisement(object) => drop(next.l2_advertisements.insert(name, Arc::clone(object))),
            Object::L2Exclusion(object) => drop(next.l2_exclusions.insert(name, Arc::clone(object))),
        }
    }

    fn ingress_statuses(&self, pass: &mut Pass) {
        for (name, running) in &mut pass.next.ingresses {
            let claims = self.names.get(&Key { kind: Kind::Ingress, name: name.clone() });
            let Some(Object::Ingress(object)) = claims.and_then(Claims::used) else { continue };
            let ingress = self.statuses.ingress(name, object);
            if *running != ingress {
                *running = ingress;
                pass.changed = true;
            }
        }
    }

    fn services(&mut self, options: &LoadOptions, pass: &mut Pass) {
        let last = std::mem::take(&mut pass.next.services);
        let (assigned, conflicts) = match options.filling {
            Filling::Here => assign(&self.drafts, options, &last),
            Filling::Server => (as_written(&self.drafts), Vec::new()),
        };
        self.conflicts = conflicts;
        let mut services = Vec::with_capacity(assigned.len());
        let mut known = 0;
        for (name, assigned) in assigned {
            let Some(draft) = self.drafts.get(&name) else { continue };
            let running = last.get(&name);
            known += usize::from(running.is_some());
            let kept = running.filter(|_| !pass.edited.contains(&name));
            let service = self.service(draft, assigned, running, kept);
            if running.is_none_or(|running| !Arc::ptr_eq(running, &service)) {
                pass.changed = true;
                pass.stale.insert(name.clone());
            }
            services.push((name, service));
        }
        // In order of names already: nothing is sorted.
        pass.next.services = services.into_iter().collect();
        if known < last.len() {
            pass.changed = true;
            pass.stale.extend(last.into_keys().filter(|name| !pass.next.services.contains_key(name)));
        }
    }

    /// The Service as it is now: the running one where that says the same, which needs no look at all of it where the draft is
    /// the one that it was made from (`kept`).
    fn service(
        &self,
        draft: &Draft,
        assigned: Assigned,
        running: Option<&Arc<Service>>,
        kept: Option<&Arc<Service>>,
    ) -> Arc<Service> {
        let status = self.statuses.of(Kind::Service, &draft.service.meta.name).unwrap_or(&draft.service.status);
        let annotations = self.statuses.annotations(&draft.service.meta.name, &draft.service.meta.annotations);
        let same = |kept: &&Arc<Service>| kept.status == status && kept.meta.annotations == annotations;
        if let Some(kept) = kept.filter(|kept| assigned.are_those_of(kept)).filter(same) {
            return Arc::clone(kept);
        }
        let own = &draft.service;
        let service = if assigned.are_those_of(own) && own.status == status && own.meta.annotations == annotations {
            Arc::clone(own)
        } else {
            let mut service = Service { status: status.to_vec(), ..assigned.complete(draft) };
            service.meta.annotations = annotations;
            Arc::new(service)
        };
        match running.filter(|running| **running == service) {
            Some(running) => Arc::clone(running),
            None => service,
        }
    }

    /// Services whose slices depend on the Pods or the zones of nodes that changed.
    fn concerned<'a>(&'a self, pass: &'a Pass) -> impl Iterator<Item = &'a ObjectName> {
        let none = !pass.zones && pass.labels.is_empty();
        let services = Some(&pass.next.services).filter(|_| !none);
        let concerned = |(name, service): &(&ObjectName, &Arc<Service>)| {
            let named = self.slices.contains_key(*name);
            let zones = pass.zones && (service.traffic_distribution.is_some() || !named);
            let mut selector = pods::labels(&name.namespace, &service.selector);
            zones || !named && !service.selector.is_empty() && selector.all(|label| pass.labels.contains(&label))
        };
        services.into_iter().flatten().filter(concerned).map(|(name, _)| name)
    }

    fn endpoints(&self, filling: Filling, pass: &mut Pass) {
        if filling == Filling::Here {
            let concerned: Vec<_> = self.concerned(pass).cloned().collect();
            pass.stale.extend(concerned);
        }
        let next = &mut pass.next;
        for name in &pass.stale {
            let named = self.slices.get(name).into_iter().flatten().map(|(_, slice)| slice);
            let last = next.slices_of(name);
            // Without a Service there is nothing to fill in either.
            let service = next.services.get(name).filter(|_| filling == Filling::Here);
            let slices = slices(service.map(|service| &**service), named, &self.pods, &next.nodes, last);
            if last.len() == slices.len() && last.iter().zip(&slices).all(|(old, new)| Arc::ptr_eq(old, new)) {
                continue;
            }
            pass.changed = true;
            if slices.is_empty() {
                next.slices.remove(name);
            } else {
                next.slices.insert(name.clone(), slices);
            }
        }
    }

    /// Where a field of an object stands.
    pub(crate) fn place(&self, object: &ObjectRef, field: &str) -> Option<Place> {
        let (kind, _) = Kind::named(&object.kind)?;
        let claims = self.names.get(&Key { kind, name: object.name.clone() })?;
        claims.chosen()?.origin.place(field)
    }

    /// The problems that objects have with each other.
    fn problems(&self, overlaps: &[Overlap], problems: &mut Vec<Problem>) {
        for claims in self.doubles.iter().filter_map(|key| self.names.get(key)) {
            let Some(first) = claims.chosen() else { continue };
            let earlier = match first.origin.place("") {
                Some(place) => format!("is defined already at {}:{}", place.file.display(), place.line),
                // Two objects of a server stand for one: MetalLB's old ConfigMaps may name the same pool.
                None => "is defined by another object too".to_owned(),
            };
            for parsed in claims.others() {
                let reason = earlier.clone();
                problems.push(problem(Severity::Error, parsed, "metadata.name", reason));
            }
        }
        for overlap in overlaps {
            let key = Key { kind: Kind::IpAddressPool, name: overlap.pool.clone() };
            if let Some(parsed) = self.names.get(&key).and_then(Claims::chosen) {
                problems.push(problem(Severity::Warning, parsed, &overlap.field, overlap.reason.clone()));
            }
        }
        for conflict in &self.conflicts {
            let key = Key { kind: Kind::Service, name: conflict.service.clone() };
            if let Some(parsed) = self.names.get(&key).and_then(Claims::chosen) {
                problems.push(problem(Severity::Error, parsed, &conflict.field, conflict.reason.clone()));
            }
        }
    }
}

fn problem(severity: Severity, parsed: &Parsed, field: &str, reason: String) -> Problem {
    let finding = Finding { severity, field: field.to_owned(), reason };
    found(&parsed.key, &parsed.origin, &finding)
}

#[cfg(test)]
#[path = "merge_tests.rs"]
mod tests;
