//! The ServiceL2Status objects of this node: made, brought up to date, and removed with those of nodes that are gone.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use roadstead_model::Snapshot;
use serde_json::{Value, json};

use super::{
    outbox::Letters,
    posts::{ANNOUNCEMENTS, Key, Post, Verb, named, status_of},
};
use crate::hash::fnv1a;

/// How often to look what there is: somebody may have removed one, or a node.
const SWEEP: Duration = Duration::from_secs(600);
/// How often where the kind is not installed.
const ABSENT: Duration = Duration::from_secs(60);
/// Longest value of a label.
const LABEL: usize = 63;
/// Longest name of an object.
const NAME: usize = 253;
const NODE: &str = "metallb.io/node";

/// What is known of the objects in the speakers' namespace.
#[derive(Debug)]
pub(crate) struct Announcements {
    namespace: String,
    node: String,
    /// By name; nothing before the first look.
    known: Option<BTreeMap<String, Known>>,
    looks_at: Instant,
}

#[derive(Clone, Debug, PartialEq)]
struct Known {
    node: String,
    status: Value,
}

impl Announcements {
    pub(crate) fn new(namespace: &str, node: &str) -> Self {
        let looks_at = Instant::now();
        Self { namespace: namespace.to_owned(), node: node.to_owned(), known: None, looks_at }
    }

    fn collection(&self) -> String {
        format!("/apis/metallb.io/v1beta1/namespaces/{}/servicel2statuses", self.namespace)
    }

    /// The address of a list, if one is due: a leader looks at those of all nodes.
    pub(crate) fn look(&self, leads: bool, now: Instant) -> Option<String> {
        let selector = format!("?labelSelector=metallb.io%2Fnode%3D{}", label(&self.node));
        (now >= self.looks_at).then(|| self.collection() + if leads { "" } else { &selector })
    }

    /// What the server knows is to be looked at again.
    pub(crate) fn forget(&mut self) {
        self.looks_at = Instant::now();
    }

    /// Takes a list in.
    pub(crate) fn take(&mut self, list: &Value, now: Instant) {
        let items = list.get("items").and_then(Value::as_array).into_iter().flatten();
        let known = items.filter_map(|item| {
            let node = item.pointer("/metadata/labels").and_then(|labels| labels.get(NODE)).and_then(Value::as_str);
            let name = item.pointer("/metadata/name").and_then(Value::as_str)?;
            let node = node.unwrap_or_default().to_owned();
            Some((name.to_owned(), Known { node, status: status_of(item) }))
        });
        self.known = Some(known.collect());
        self.looks_at = now + SWEEP;
    }

    /// The kind is not installed.
    pub(crate) fn absent(&mut self, now: Instant) {
        self.known = None;
        self.looks_at = now + ABSENT;
    }

    /// What is to be sent: nothing before the first look.
    pub(crate) fn posts(&self, letters: &Letters, snapshot: &Snapshot, leads: bool) -> Vec<Post> {
        let Some(known) = &self.known else { return Vec::new() };
        let objects = letters.objects.get(ANNOUNCEMENTS).map(|objects| objects.as_slice()).unwrap_or_default();
        let wanted: BTreeMap<String, &Value> =
            objects.iter().filter_map(|object| Some((name(object)?, object))).collect();
        let mut posts = Vec::new();
        for (name, object) in &wanted {
            let found = known.get(name);
            if found.is_none_or(|found| found.status != status_of(object)) {
                posts.push(self.post(name, object, found.is_none()));
            }
        }
        let own = label(&self.node);
        let nodes: Option<BTreeSet<_>> =
            (leads && snapshot.synced).then(|| snapshot.nodes.keys().map(|node| label(node)).collect());
        for (name, found) in known {
            let is_left = found.node == own && !wanted.contains_key(name);
            // One without a label is nobody's.
            let is_orphan = nodes.as_ref().is_some_and(|nodes| !found.node.is_empty() && !nodes.contains(&found.node));
            if is_left || is_orphan {
                let (key, address) = (Key::Announcement(name.clone()), format!("{}/{name}", self.collection()));
                posts.push(Post { key, verb: Verb::Delete, address, body: Value::Null, then: None });
            }
        }
        posts
    }

    /// The object, and then its status: where the status is a part of its own, what is made has none.
    fn post(&self, name: &str, object: &Value, is_new: bool) -> Post {
        let key = Key::Announcement(name.to_owned());
        let address = format!("{}/{name}/status", self.collection());
        let body = json!({"status": status_of(object)});
        let status = Post { key: key.clone(), verb: Verb::Merge, address, body, then: None };
        if !is_new {
            return status;
        }
        let text = |field: &str| object.pointer(field).and_then(Value::as_str).unwrap_or_default();
        let labels = json!({
            NODE: label(&self.node),
            "metallb.io/service-name": label(text("/status/serviceName")),
            "metallb.io/service-namespace": label(text("/status/serviceNamespace")),
        });
        let body = json!({
            "apiVersion": "metallb.io/v1beta1",
            "kind": "ServiceL2Status",
            "metadata": {"namespace": self.namespace, "name": name, "labels": labels},
            "spec": {},
        });
        let then = Some(Box::new(status));
        Post { key, verb: Verb::Create, address: self.collection(), body, then }
    }

    /// A post has been taken.
    pub(crate) fn note(&mut self, name: &str, letters: &Letters) {
        let node = label(&self.node);
        let objects = letters.objects.get(ANNOUNCEMENTS).map(|objects| objects.as_slice()).unwrap_or_default();
        let wanted = objects.iter().find(|object| self::name(object).as_deref() == Some(name));
        let Some(known) = &mut self.known else { return };
        match wanted {
            Some(object) => drop(known.insert(name.to_owned(), Known { node, status: status_of(object) })),
            None => drop(known.remove(name)),
        }
    }
}

/// The object's name, which a long name of node and Service may not be.
fn name(object: &Value) -> Option<String> {
    Some(shortened(&named(object)?.name, NAME))
}

/// As a label's value.
fn label(text: &str) -> String {
    shortened(text, LABEL)
}

/// The text, or its beginning and a hash of all of it. Names are ASCII.
fn shortened(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let hash = fnv1a(text.bytes());
    format!("{}-{hash:016x}", text.get(..most - 17).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn object(service: &str, node: &str, interface: &str) -> Value {
        json!({
            "metadata": {"namespace": "metallb-system", "name": format!("l2-shop-{service}-{node}")},
            "status": {"node": node, "serviceName": service, "serviceNamespace": "shop", "interfaces": [{"name": interface}]},
        })
    }

    fn letters(objects: &[Value]) -> Letters {
        let mut letters = Letters::default();
        letters.objects.insert(ANNOUNCEMENTS.to_owned(), Arc::new(objects.to_vec()));
        letters
    }

    fn snapshot(nodes: &[&str]) -> Snapshot {
        let mut snapshot = Snapshot { synced: true, ..Snapshot::default() };
        for name in nodes {
            let meta = roadstead_model::Metadata {
                name: roadstead_model::ObjectName::new("", name),
                labels: roadstead_model::Labels::new(),
                annotations: roadstead_model::Labels::new(),
                created: None,
            };
            let node = roadstead_model::Node {
                meta,
                internal_ips: Vec::new(),
                external_ips: Vec::new(),
                pod_cidrs: Vec::new(),
                network_unavailable: false,
                is_going: false,
            };
            snapshot.nodes.insert((*name).to_owned(), Arc::new(node));
        }
        snapshot
    }

    fn told(posts: &[Post]) -> Vec<String> {
        posts
            .iter()
            .map(|post| format!("{:?} {}", post.verb, post.address.rsplit("servicel2statuses").next().unwrap()))
            .collect()
    }

    #[test]
    fn objects_are_made_changed_and_removed_by_level() {
        let now = Instant::now();
        let mut announcements = Announcements::new("roadstead-system", "n1");
        let cluster = snapshot(&["n1", "n2"]);
        let web = letters(&[object("web", "n1", "eth0")]);
        assert_eq!(announcements.posts(&web, &cluster, false), [], "before it is known what there is");
        let list = "/apis/metallb.io/v1beta1/namespaces/roadstead-system/servicel2statuses?labelSelector=metallb.io%2Fnode%3Dn1";
        assert_eq!(announcements.look(false, now + ABSENT).as_deref(), Some(list));
        let left = json!({"metadata": {"name": "l2-shop-old-n1", "labels": {NODE: "n1"}}, "status": {}});
        let theirs = json!({"metadata": {"name": "l2-shop-old-n2", "labels": {NODE: "n2"}}});
        announcements.take(&json!({"items": [left, theirs]}), now);
        let posts = announcements.posts(&web, &cluster, false);
        assert_eq!(told(&posts), ["Create ", "Delete /l2-shop-old-n1"]);
        let status = posts[0].then.as_ref().unwrap();
        assert_eq!(status.address.rsplit('/').next(), Some("status"));
        assert_eq!(status.body.pointer("/status/interfaces/0/name"), Some(&json!("eth0")));
        announcements.note("l2-shop-web-n1", &web);
        announcements.note("l2-shop-old-n1", &web);
        assert_eq!(announcements.posts(&web, &cluster, false), []);
        let moved = letters(&[object("web", "n1", "eth1")]);
        assert_eq!(told(&announcements.posts(&moved, &cluster, false)), ["Merge /l2-shop-web-n1/status"]);
        // A leader removes what nodes have left that are gone.
        assert_eq!(announcements.posts(&web, &cluster, true), []);
        let alone = snapshot(&["n1"]);
        assert_eq!(told(&announcements.posts(&web, &alone, true)), ["Delete /l2-shop-old-n2"]);
        assert_eq!(announcements.look(false, now), None);
        announcements.absent(now);
        assert!(announcements.look(false, now + ABSENT).is_some());
    }

    #[test]
    fn long_names_become_names() {
        let node = "n".repeat(200);
        let object = object(&"s".repeat(63), &node, "eth0");
        assert_eq!(name(&object).unwrap().len(), NAME);
        assert_eq!(label(&node).len(), LABEL);
        assert_ne!(label(&node), label(&"n".repeat(201)));
        assert_eq!(label("n1"), "n1");
    }
}
