//! Updates in, snapshots out: lists as a whole, last good versions, references.

use std::collections::BTreeSet;

use super::*;
use crate::kube::wire::Line;

struct World {
    objects: Objects,
    feeds: Vec<Feed>,
}

impl World {
    fn new(interest: Interest) -> Self {
        let feeds = Feed::of_interest(&interest, Some("n1"));
        let standing = Standing::new(feeds.iter().map(ToString::to_string)).unwrap();
        Self { objects: Objects::new(feeds.clone(), interest, standing), feeds }
    }

    fn index(&self, kind: Kind, purpose: Purpose) -> usize {
        self.feeds.iter().position(|feed| feed.kind == kind && feed.purpose == purpose).unwrap()
    }

    fn news(&mut self, feed: usize, news: News) {
        self.objects.take(Update { feed, news });
    }

    /// A complete list.
    fn list(&mut self, feed: usize, items: &[Item]) {
        self.news(feed, News::Begins);
        items.iter().for_each(|item| self.news(feed, News::Put(again(item))));
        self.news(feed, News::Listed);
    }

    fn list_the_rest(&mut self) {
        for feed in 0..self.feeds.len() {
            if !self.objects.feeds[feed].is_listed {
                self.list(feed, &[]);
            }
        }
    }

    fn services(&mut self) -> Vec<String> {
        self.objects.merge();
        let services = self.objects.snapshot().services.values();
        services.map(|service| format!("{}:{}", service.meta.name.name, service.ports[0].port)).collect()
    }
}

fn item(json: &str) -> Item {
    match Line::read(format!(r#"{{"type":"ADDED","object":{json}}}"#).as_bytes()) {
        Ok(Line::Put(item)) => item,
        other => panic!("{other:?}"),
    }
}

fn again(item: &Item) -> Item {
    Item::read(item.tree.clone()).unwrap()
}

fn service(name: &str, port: i32) -> Item {
    item(&format!(
        r#"{{"metadata":{{"name":"{name}","namespace":"shop","resourceVersion":"1"}},
        "spec":{{"clusterIP":"10.96.0.7","clusterIPs":["10.96.0.7"],"ports":[{{"port":{port}}}]}}}}"#
    ))
}

#[test]
fn a_list_counts_when_it_is_complete() {
    let mut world = World::new(Interest::agent());
    let services = world.index(Kind::Service, Purpose::Objects);
    world.news(services, News::Begins);
    world.news(services, News::Put(service("a", 1)));
    assert_eq!(world.services(), [""; 0], "half a list is none");
    world.news(services, News::Put(service("b", 2)));
    world.news(services, News::Listed);
    assert_eq!(world.services(), ["a:1", "b:2"]);
    assert!(!world.objects.snapshot().synced, "two kinds are missing");
    world.list_the_rest();
    world.services();
    assert!(world.objects.snapshot().synced);
    // A relist that breaks off leaves everything; one that ends takes away what it lacks.
    world.news(services, News::Begins);
    world.news(services, News::Put(service("b", 3)));
    assert_eq!(world.services(), ["a:1", "b:2"]);
    world.news(services, News::Begins);
    world.news(services, News::Put(service("c", 4)));
    world.news(services, News::Put(service("b", 5)));
    world.news(services, News::Gone(service("c", 4)));
    world.news(services, News::Listed);
    assert_eq!(world.services(), ["b:5"]);
    assert!(world.objects.snapshot().synced);
}

#[test]
fn events_change_one_object_and_equal_ones_make_no_snapshot() {
    let mut world = World::new(Interest::agent());
    let services = world.index(Kind::Service, Purpose::Objects);
    world.list(services, &[service("a", 1)]);
    world.list_the_rest();
    assert_eq!(world.services(), ["a:1"]);
    let generation = world.objects.snapshot().generation;
    world.news(services, News::Put(service("a", 1)));
    assert!(!world.objects.merge().0);
    assert_eq!(world.objects.snapshot().generation, generation);
    world.news(services, News::Put(service("a", 2)));
    world.news(services, News::Put(service("b", 3)));
    world.news(services, News::Gone(service("a", 2)));
    assert_eq!(world.services(), ["b:3"]);
}

#[test]
fn what_is_known_is_kept_once() {
    let mut world = World::new(Interest::agent());
    let services = world.index(Kind::Service, Purpose::Objects);
    let name = ObjectName::new("shop", "a");
    let kept = |world: &World| Arc::clone(&world.objects.feeds[services].objects[&name].parsed);
    world.list(services, &[service("a", 1)]);
    assert_eq!(world.services(), ["a:1"]);
    let first = kept(&world);
    let Object::Service(draft) = &first.objects[0].object else { panic!("no Service") };
    // Nothing is added to what the server says.
    assert!(Arc::ptr_eq(&draft.service, &world.objects.snapshot().services[&name]));
    world.list(services, &[service("a", 1)]);
    assert!(world.objects.changes.is_empty(), "a list that comes anew says nothing new");
    assert!(Arc::ptr_eq(&first, &kept(&world)));
    world.list(services, &[service("a", 2)]);
    assert_eq!(world.services(), ["a:2"]);
    assert!(!Arc::ptr_eq(&first, &kept(&world)));
}

#[test]
fn labels_of_services_are_kept_where_they_are_read() {
    let text = r#"{"metadata":{"name":"a","namespace":"shop","annotations":{"example.com/a":"b"},
        "labels":{"app":"a","service.kubernetes.io/service-proxy-name":"other"}},
        "spec":{"clusterIP":"10.96.0.7","clusterIPs":["10.96.0.7"],"ports":[{"port":1}],"selector":{"app":"a"}}}"#;
    // Labels, annotations and labels of the selector.
    let cases = [
        (Interest::agent(), ["service.kubernetes.io/service-proxy-name"].as_slice(), 0, 0),
        (Interest::speaker("metallb-system"), &["app", "service.kubernetes.io/service-proxy-name"], 1, 1),
        (Interest::overview(), &["app", "service.kubernetes.io/service-proxy-name"], 1, 1),
    ];
    for (interest, labels, annotations, selector) in cases {
        let mut world = World::new(interest);
        let services = world.index(Kind::Service, Purpose::Objects);
        world.list(services, &[item(text)]);
        assert_eq!(world.services(), ["a:1"]);
        let found = &world.objects.snapshot().services[&ObjectName::new("shop", "a")];
        assert_eq!(found.meta.labels.keys().collect::<Vec<_>>(), labels);
        assert_eq!((found.meta.annotations.len(), found.selector.len()), (annotations, selector));
    }
}

#[test]
fn nothing_is_filled_in() {
    let mut world = World::new(Interest::agent());
    let services = world.index(Kind::Service, Purpose::Objects);
    let text = r#"{"metadata":{"name":"a","namespace":"shop"},"spec":{"type":"LoadBalancer","ports":[{"port":80}],
        "trafficDistribution":"PreferClose"}}"#;
    let outside = r#"{"metadata":{"name":"b","namespace":"shop"},"spec":{"type":"NodePort","clusterIP":"192.0.2.1",
        "clusterIPs":["192.0.2.1"],"ports":[{"port":80,"nodePort":8}]}}"#;
    world.list(services, &[item(text), item(outside)]);
    let slices = world.index(Kind::EndpointSlice, Purpose::Objects);
    let slice = r#"{"metadata":{"name":"a-1","namespace":"shop","labels":{"kubernetes.io/service-name":"a"}},
        "addressType":"IPv4","ports":[{"port":80}],"endpoints":[{"addresses":["10.0.0.1"],"zone":"z"}]}"#;
    world.list(slices, &[item(slice)]);
    assert_eq!(world.services(), ["a:80", "b:80"]);
    let snapshot = world.objects.snapshot();
    let found = |name: &str| Arc::clone(&snapshot.services[&ObjectName::new("shop", name)]);
    assert!(found("a").cluster_ips.is_empty() && found("a").ports[0].node_port.is_none());
    // The server's ranges are its own.
    assert_eq!(found("b").ports[0].node_port.map(u16::from), Some(8));
    let slices = snapshot.slices_of(&ObjectName::new("shop", "a"));
    assert!(slices[0].endpoints[0].zone_hints.is_empty() && slices[0].meta.labels.is_empty());
    assert_eq!(snapshot.problems, []);
}

#[test]
fn a_bad_object_keeps_its_last_good_version_and_is_named() {
    let mut world = World::new(Interest::agent());
    let services = world.index(Kind::Service, Purpose::Objects);
    world.list(services, &[service("a", 1), service("b", 2)]);
    world.list_the_rest();
    assert_eq!(world.services(), ["a:1", "b:2"]);
    world.news(services, News::Put(service("a", 99_999)));
    assert_eq!(world.services(), ["a:1", "b:2"]);
    let problems: Vec<_> = world.objects.snapshot().problems.iter().map(ToString::to_string).collect();
    assert_eq!(problems, ["error: Service shop/a: spec.ports[0].port: 99999 is no port, expected 1 to 65535"]);
    let wrong = item(r#"{"metadata":{"name":"b","namespace":"shop"},"spec":{"ports":"none"}}"#);
    world.news(services, News::Put(wrong));
    world.news(services, News::Put(service("a", 3)));
    assert_eq!(world.services(), ["a:3", "b:2"]);
    let problems: Vec<_> = world.objects.snapshot().problems.iter().map(ToString::to_string).collect();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].starts_with("error: Service shop/b: spec.ports: "), "{problems:?}");
}

#[test]
fn a_refusal_is_a_problem_until_it_is_over() {
    let mut world = World::new(Interest::agent());
    world.news(1, News::Trouble(Some("cannot list".to_owned())));
    assert!(world.objects.merge().0);
    assert_eq!(world.objects.snapshot().problems[0].to_string(), "error: cannot list");
    world.news(1, News::Trouble(None));
    assert!(world.objects.merge().0);
    assert_eq!(world.objects.snapshot().problems, []);
}

fn secret(version: &str, users: &str) -> Item {
    item(&format!(
        r#"{{"metadata":{{"name":"users","namespace":"shop","resourceVersion":"{version}"}},"type":"Opaque",
        "data":{{"auth":"{users}"}}}}"#
    ))
}

/// What the metadata of the same Secret is.
fn metadata(version: &str) -> Item {
    item(&format!(r#"{{"metadata":{{"name":"users","namespace":"shop","resourceVersion":"{version}"}}}}"#))
}

#[test]
fn secrets_are_fetched_when_they_are_named_and_forgotten_when_not() {
    let name = ObjectName::new("shop", "users");
    let named = name.clone();
    let interest = Interest::proxy(move |snapshot| {
        let secrets =
            if snapshot.ingress_classes.is_empty() { BTreeSet::new() } else { BTreeSet::from([named.clone()]) };
        References { secrets, config_maps: BTreeSet::new() }
    });
    let mut world = World::new(interest);
    let feed = world.index(Kind::Secret, Purpose::References);
    let classes = world.index(Kind::IngressClass, Purpose::Objects);
    let class = item(r#"{"metadata":{"name":"c"},"spec":{"controller":"x.dev/y"}}"#);
    world.list(feed, &[metadata("1")]);
    world.list_the_rest();
    assert_eq!(world.objects.merge().1, [], "nobody names it");
    assert!(world.objects.snapshot().synced);

    world.news(classes, News::Put(again(&class)));
    assert_eq!(world.objects.merge().1, [Errand::Fetch(feed, name.clone(), "1".to_owned())]);
    let fetched = |version: &str, outcome| Fetched { feed, name: name.clone(), version: version.to_owned(), outcome };
    world.objects.take_fetched(fetched("1", Ok(Some(secret("1", "YQ==")))));
    world.objects.merge();
    let value = |world: &World| world.objects.snapshot().secrets.get(&name).map(|secret| secret.data["auth"].clone());
    assert_eq!(value(&world), Some(b"a".to_vec()));

    // Another version: the old one serves until it has come, and an answer that is too late is none.
    world.news(feed, News::Put(metadata("2")));
    assert_eq!(world.objects.merge().1, [Errand::Fetch(feed, name.clone(), "2".to_owned())]);
    assert_eq!(value(&world), Some(b"a".to_vec()));
    world.objects.take_fetched(fetched("1", Ok(None)));
    world.objects.merge();
    assert_eq!(value(&world), Some(b"a".to_vec()));
    world.objects.take_fetched(fetched("2", Ok(Some(secret("2", "Yg==")))));
    world.objects.merge();
    assert_eq!(value(&world), Some(b"b".to_vec()));

    // Gone, back, and no longer named.
    world.news(feed, News::Gone(metadata("2")));
    assert_eq!(world.objects.merge().1, [Errand::Forget(feed, name.clone())]);
    assert_eq!(value(&world), None);
    world.news(feed, News::Put(metadata("3")));
    assert_eq!(world.objects.merge().1, [Errand::Fetch(feed, name.clone(), "3".to_owned())]);
    world.objects.take_fetched(fetched("3", Err("cannot get".to_owned())));
    world.objects.merge();
    assert_eq!(world.objects.snapshot().problems[0].to_string(), "error: cannot get");
    // What cannot be had is of no concern once nobody names it; what is wrong with the list stays.
    world.news(feed, News::Trouble(Some("cannot watch".to_owned())));
    world.news(classes, News::Gone(again(&class)));
    world.objects.merge();
    let problems =
        |world: &World| world.objects.snapshot().problems.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(problems(&world), ["error: cannot watch"]);
    world.news(classes, News::Put(again(&class)));
    world.objects.merge();
    world.objects.take_fetched(fetched("3", Ok(Some(secret("3", "Yw==")))));
    world.objects.merge();
    assert_eq!(problems(&world), ["error: cannot watch"]);
    world.news(feed, News::Trouble(None));
    world.objects.merge();
    assert_eq!((value(&world), world.objects.snapshot().problems.len()), (Some(b"c".to_vec()), 0));
    world.news(classes, News::Gone(class));
    assert_eq!(world.objects.merge().1, [Errand::Forget(feed, name.clone())]);
    assert_eq!(value(&world), None);
}

#[test]
fn what_is_named_at_first_is_waited_for() {
    let name = ObjectName::new("shop", "users");
    let named = name.clone();
    let interest = Interest::proxy(move |_| References {
        secrets: BTreeSet::from([named.clone()]),
        config_maps: BTreeSet::from([ObjectName::new("shop", "missing")]),
    });
    let mut world = World::new(interest);
    let feed = world.index(Kind::Secret, Purpose::References);
    world.list(feed, &[metadata("1")]);
    world.list_the_rest();
    world.objects.merge();
    assert!(!world.objects.snapshot().synced, "a route would ask for users whom nobody knows yet");
    let fetched = Fetched { feed, name, version: "1".to_owned(), outcome: Ok(Some(secret("1", "YQ=="))) };
    world.objects.take_fetched(fetched);
    world.objects.merge();
    assert!(world.objects.snapshot().synced);
}
