//! All objects to one snapshot: doubles, assignment, endpoints, status; what did not change stays the same `Arc`.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::Arc,
};

use roadstead_model::{ObjectName, Problem, Service, SliceOrigin, Snapshot};

use crate::{
    assign::assign,
    findings::Finding,
    flags::LoadOptions,
    object::{Draft, Key, Kind, Object, Parsed, Pod},
    parse::found,
    pods,
    status::Statuses,
};

/// Which file each object was taken from last: it goes on to hold the name when another file claims that too.
pub(crate) type Holders = HashMap<Key, Arc<Path>>;

/// Builds the snapshot that follows the last one; its generation is the last one's, the caller raises it on a change.
pub(crate) fn merge<'a>(
    objects: impl Iterator<Item = &'a Parsed>,
    statuses: &Statuses,
    options: &LoadOptions,
    last: &Snapshot,
    holders: &mut Holders,
) -> Snapshot {
    let mut merge = Merge {
        next: Snapshot { generation: last.generation, synced: last.synced, ..Snapshot::default() },
        last,
        first: HashMap::new(),
        drafts: BTreeMap::new(),
        pods: Vec::new(),
    };
    let objects: Vec<_> = objects.collect();
    merge.choose(&objects, holders);
    for parsed in objects {
        merge.add(parsed, statuses);
    }
    *holders = merge.first.iter().map(|(key, at)| ((*key).clone(), Arc::clone(&at.origin.document.file))).collect();
    merge.services(statuses, options);
    merge.slices();
    merge.pod_slices();
    merge.next.problems.sort_by(|one, other| one.place.cmp(&other.place));
    merge.next
}

/// Whether consumers would see no difference; generations are not compared.
pub(crate) fn is_same(one: &Snapshot, other: &Snapshot) -> bool {
    one.synced == other.synced
        && one.services == other.services
        && one.slices == other.slices
        && one.nodes == other.nodes
        && one.namespaces == other.namespaces
        && one.ingresses == other.ingresses
        && one.ingress_classes == other.ingress_classes
        && one.secrets == other.secrets
        && one.config_maps == other.config_maps
        && one.pools == other.pools
        && one.l2_advertisements == other.l2_advertisements
        && one.problems == other.problems
}

struct Merge<'a> {
    next: Snapshot,
    last: &'a Snapshot,
    /// The object that counts of each name; others are doubles.
    first: HashMap<&'a Key, &'a Parsed>,
    drafts: BTreeMap<ObjectName, &'a Draft>,
    pods: Vec<Arc<Pod>>,
}

impl<'a> Merge<'a> {
    /// The first object of each name counts, unless the file that held the name before still has one.
    fn choose(&mut self, objects: &[&'a Parsed], holders: &Holders) {
        for parsed in objects {
            let holds = |at: &Parsed| holders.get(&at.key) == Some(&at.origin.document.file);
            let first = self.first.entry(&parsed.key).or_insert(parsed);
            if holds(parsed) && !holds(first) {
                *first = parsed;
            }
        }
    }

    fn add(&mut self, parsed: &'a Parsed, statuses: &Statuses) {
        let key = &parsed.key;
        if let Some(first) = self.first.get(key).filter(|first| !std::ptr::eq(**first, parsed)) {
            let place = first.origin.place("");
            let reason = format!("is defined already at {}:{}", place.file.display(), place.line);
            self.report(parsed, "metadata.name", reason);
            return;
        }
        let (name, next, last) = (&key.name, &mut self.next, self.last);
        let plain = || name.name.to_string();
        match &parsed.object {
            Object::Service(draft) => {
                self.drafts.insert(name.clone(), draft);
            }
            Object::Slices(slices) => {
                for slice in slices {
                    next.slices.entry(slice.service.clone()).or_default().push(Arc::clone(slice));
                }
            }
            Object::Pod(pod) => self.pods.push(Arc::clone(pod)),
            Object::Node(node) => keep(&mut next.nodes, &last.nodes, plain(), node),
            Object::Namespace(object) => keep(&mut next.namespaces, &last.namespaces, plain(), object),
            Object::Ingress(ingress) => {
                let mut ingress = Arc::clone(ingress);
                if let Some(entries) = statuses.of(Kind::Ingress, name) {
                    Arc::make_mut(&mut ingress).status = entries.iter().map(|entry| entry.ip).collect();
                }
                keep(&mut next.ingresses, &last.ingresses, name.clone(), &ingress);
            }
            Object::IngressClass(class) => keep(&mut next.ingress_classes, &last.ingress_classes, plain(), class),
            Object::Secret(secret) => keep(&mut next.secrets, &last.secrets, name.clone(), secret),
            Object::ConfigMap(object) => keep(&mut next.config_maps, &last.config_maps, name.clone(), object),
            Object::Pool(pool) => keep(&mut next.pools, &last.pools, name.clone(), pool),
            Object::L2Advertisement(object) => {
                keep(&mut next.l2_advertisements, &last.l2_advertisements, name.clone(), object);
            }
        }
    }

    fn report(&mut self, parsed: &Parsed, field: &str, reason: String) {
        let severity = roadstead_model::Severity::Error;
        let finding = Finding { severity, field: field.to_owned(), reason };
        let problem: Problem = found(&parsed.key, &parsed.origin, &finding);
        self.next.problems.push(problem);
    }

    fn services(&mut self, statuses: &Statuses, options: &LoadOptions) {
        let (services, conflicts) = assign(&self.drafts, options, &self.last.services);
        for conflict in conflicts {
            let key = Key { kind: Kind::Service, name: conflict.service };
            if let Some(parsed) = self.first.get(&key).copied() {
                self.report(parsed, &conflict.field, conflict.reason);
            }
        }
        for (name, mut service) in services {
            if let Some(entries) = statuses.of(Kind::Service, &name) {
                service.status = entries.to_vec();
            }
            keep(&mut self.next.services, &self.last.services, name, &Arc::new(service));
        }
    }

    /// Slices of their own go before the mirrored Endpoints of the same Service, which a dump of a cluster holds as well.
    fn slices(&mut self) {
        for (service, slices) in &mut self.next.slices {
            if slices.iter().any(|slice| slice.origin == SliceOrigin::EndpointSlice) {
                slices.retain(|slice| slice.origin == SliceOrigin::EndpointSlice);
            }
            slices.sort_by(|one, other| one.meta.name.cmp(&other.meta.name));
            let last = self.last.slices_of(service);
            for slice in slices.iter_mut() {
                if let Some(same) = last.iter().find(|old| *old == slice) {
                    *slice = Arc::clone(same);
                }
            }
        }
    }

    fn pod_slices(&mut self) {
        let zones: BTreeMap<_, _> =
            self.next.nodes.iter().filter_map(|(name, node)| Some((name.clone(), node.zone()?.to_owned()))).collect();
        let mut by_namespace: HashMap<&str, Vec<Arc<Pod>>> = HashMap::new();
        for pod in &self.pods {
            by_namespace.entry(&pod.name.namespace).or_default().push(Arc::clone(pod));
        }
        let wanting = |service: &&Arc<Service>| !service.selector.is_empty();
        for service in self.next.services.values().filter(wanting) {
            let name = &service.meta.name;
            let Some(pods) = by_namespace.get(&*name.namespace).filter(|_| !self.next.slices.contains_key(name)) else {
                continue;
            };
            let last = self.last.slices_of(name);
            let slices: Vec<_> = pods::slices(service, pods, &zones)
                .into_iter()
                .map(|slice| last.iter().find(|old| ***old == slice).cloned().unwrap_or_else(|| Arc::new(slice)))
                .collect();
            if !slices.is_empty() {
                self.next.slices.insert(name.clone(), slices);
            }
        }
    }
}

/// Inserts the object, as the last snapshot's `Arc` where it is equal.
fn keep<K: Ord, T: PartialEq>(next: &mut BTreeMap<K, Arc<T>>, last: &BTreeMap<K, Arc<T>>, name: K, object: &Arc<T>) {
    let same = last.get(&name).filter(|old| Arc::ptr_eq(old, object) || *old == object);
    let object = Arc::clone(same.unwrap_or(object));
    next.insert(name, object);
}
