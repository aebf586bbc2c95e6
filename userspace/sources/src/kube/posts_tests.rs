//! What is observed and what is wanted, and what is sent.

use std::{collections::BTreeMap, sync::Arc};

use super::*;
use crate::{LoadOptions, load};

/// A Service of type LoadBalancer and an Ingress with these statuses and annotations.
fn snapshot(service: &str, ingress: &str) -> Snapshot {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.yaml");
    let text = format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\n  namespace: shop\n{service}\n\
         spec: {{type: LoadBalancer, ports: [{{port: 80}}]}}\n---\n\
         apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: web\n  namespace: shop\n{ingress}\n\
         spec: {{defaultBackend: {{service: {{name: web, port: {{number: 80}}}}}}}}\n"
    );
    std::fs::write(&path, text).unwrap();
    let snapshot = load(&[path], &LoadOptions::default());
    assert_eq!(snapshot.problems, []);
    snapshot
}

fn web() -> ObjectName {
    ObjectName::new("shop", "web")
}

fn of_service(status: ServiceStatus) -> Letters {
    Letters { services: Arc::new(BTreeMap::from([(web(), status)])), ..Letters::default() }
}

fn of_ingress(addresses: &[&str], conflicts: &[&str]) -> Letters {
    let addresses = addresses.iter().map(|ip| ip.parse().unwrap()).collect();
    let conflicts = conflicts.iter().map(|text| (*text).to_owned()).collect();
    let status = IngressStatus { addresses, conflicts };
    Letters { ingresses: Arc::new(BTreeMap::from([(web(), status)])), ..Letters::default() }
}

fn assigned(ip: &str, pool: Option<&str>) -> ServiceStatus {
    ServiceStatus { ips: vec![ip.parse().unwrap()], pool: pool.map(str::to_owned), pending: None }
}

#[test]
fn a_service_is_written_where_it_shows_something_else() {
    let shown =
        "  annotations: {metallb.io/ip-allocated-from-pool: lan}\nstatus: {loadBalancer: {ingress: [{ip: 192.0.2.1}]}}";
    let pending =
        ServiceStatus { pending: Some(("AllocationFailed".to_owned(), "full".to_owned())), ..ServiceStatus::default() };
    let cases = [
        ("", assigned("192.0.2.1", Some("lan")), 1),
        (shown, assigned("192.0.2.1", Some("lan")), 0),
        (shown, assigned("192.0.2.2", Some("lan")), 1),
        (shown, assigned("192.0.2.1", Some("wan")), 1),
        (shown, assigned("192.0.2.1", None), 1),
        (shown, ServiceStatus::default(), 1),
        ("", ServiceStatus::default(), 0),
        ("", pending, 1),
        ("status: {loadBalancer: {ingress: [{ip: 192.0.2.1, ipMode: Proxy}]}}", assigned("192.0.2.1", None), 1),
    ];
    for (service, status, expected) in cases {
        let posts = Memory::default().of_leader(
            &of_service(status.clone()),
            &snapshot(service, ""),
            &Uids::default(),
            Instant::now(),
        );
        assert_eq!(posts.len(), expected, "{service} {status:?}");
    }
}

#[test]
fn a_services_status_is_patched_with_its_pool_and_condition() {
    let now = Instant::now();
    let mut memory = Memory::default();
    let letters = of_service(assigned("192.0.2.1", Some("lan")));
    let none = snapshot("", "");
    let posts = memory.of_leader(&letters, &none, &Uids::default(), now);
    let post = &posts[0];
    assert_eq!((post.verb, &*post.address), (Verb::Strategic, "/api/v1/namespaces/shop/services/web/status"));
    assert_eq!(post.body["metadata"]["annotations"]["metallb.io/ip-allocated-from-pool"], "lan");
    assert_eq!(post.body["status"]["loadBalancer"]["ingress"], json!([{"ip": "192.0.2.1", "ipMode": "VIP"}]));
    let condition = &post.body["status"]["conditions"][0];
    assert_eq!((condition["status"].as_str(), condition["reason"].as_str()), (Some("True"), Some("IPAllocated")));
    assert!(condition["lastTransitionTime"].as_str().unwrap().ends_with('Z'));
    // One that lacks a second address alone has one.
    let pending = Some(("AdditionalAssignFailed".to_owned(), "no pool of IPv6".to_owned()));
    let one = of_service(ServiceStatus { pending, ..assigned("192.0.2.1", Some("lan")) });
    let condition =
        Memory::default().of_leader(&one, &none, &Uids::default(), now)[0].body["status"]["conditions"][0].clone();
    assert_eq!((&condition["status"], &condition["reason"]), (&json!("True"), &json!("AdditionalAssignFailed")));
    // Until the server's word has come back it is not sent again; if that does not come, it is.
    memory.note(&post.key, &letters, now);
    assert_eq!(memory.of_leader(&letters, &none, &Uids::default(), now), []);
    assert_eq!(memory.patience(now), Some(ECHO), "then it is to be looked at again");
    assert_eq!(memory.of_leader(&letters, &none, &Uids::default(), now + ECHO).len(), 1);
    assert_eq!(memory.patience(now), None);
    // Another word is sent at once; the address is taken back with its pool, and other conditions stay.
    let gone = of_service(ServiceStatus {
        pending: Some(("AllocationFailed".to_owned(), "full".to_owned())),
        ..ServiceStatus::default()
    });
    let shown = snapshot(
        "  annotations: {metallb.io/ip-allocated-from-pool: lan}\nstatus: {loadBalancer: {ingress: [{ip: 192.0.2.1}]}}",
        "",
    );
    let posts = memory.of_leader(&gone, &shown, &Uids::default(), now);
    assert_eq!(posts[0].body["metadata"]["annotations"]["metallb.io/ip-allocated-from-pool"], Value::Null);
    assert_eq!(posts[0].body["status"]["loadBalancer"]["ingress"], json!([]));
    assert_eq!(posts[0].body["status"]["conditions"][0]["message"], "full");
    memory.note(&posts[0].key, &gone, now);
    assert_eq!(memory.of_leader(&gone, &none, &Uids::default(), now), []);
}

#[test]
fn an_ingress_is_written_and_taken_back_by_who_wrote_it() {
    let now = Instant::now();
    let mut memory = Memory::default();
    let letters = of_ingress(&["192.0.2.1", "2001:db8::1"], &["spec.rules[0]: lost"]);
    let posts = memory.of_leader(&letters, &snapshot("", ""), &Uids::default(), now);
    let entries = posts[0].body["status"]["loadBalancer"]["ingress"].as_array().unwrap();
    assert_eq!((entries.len(), entries[0]["ports"][1]["error"].as_str()), (2, Some("roadstead.dev/Conflict")));
    assert_eq!(posts[0].body["metadata"]["annotations"]["roadstead.dev/conflicts"], "spec.rules[0]: lost");
    memory.note(&posts[0].key, &letters, now);
    let shown = snapshot(
        "",
        "  annotations: {roadstead.dev/conflicts: 'spec.rules[0]: lost'}\n\
         status: {loadBalancer: {ingress: [{ip: 192.0.2.1}, {ip: 2001:db8::1}]}}",
    );
    assert_eq!(memory.of_leader(&letters, &shown, &Uids::default(), now), []);
    // Nobody says anything of it any more.
    let posts = memory.of_leader(&Letters::default(), &shown, &Uids::default(), now);
    assert_eq!(posts[0].body["status"]["loadBalancer"]["ingress"], json!([]));
    // Another process knows nothing of who wrote it.
    assert_eq!(Memory::default().of_leader(&Letters::default(), &shown, &Uids::default(), now), []);
}

#[test]
fn events_are_made_once_and_counted_after_that() {
    let event = |count: u64| {
        json!({
            "apiVersion": "v1", "kind": "Event", "metadata": {"namespace": "shop", "name": "web.1"},
            "involvedObject": {"kind": "Service", "namespace": "shop", "name": "web"},
            "count": count, "lastTimestamp": "2026-01-01T00:00:00Z", "source": {"component": "c", "host": "n1"},
        })
    };
    let letters = |count| {
        let mut letters = Letters::default();
        letters.objects.insert(EVENTS[0].to_owned(), Arc::new(vec![event(count)]));
        letters
    };
    let uids = Uids::default();
    uids.put(Kind::Service, web(), "u1-1");
    let mut memory = Memory::default();
    let posts = memory.events(&letters(1), &uids, "r1");
    assert_eq!((posts[0].verb, &*posts[0].address), (Verb::Create, "/api/v1/namespaces/shop/events"));
    assert_eq!(posts[0].body["metadata"]["name"], "web.1-r1-u1");
    assert_eq!(posts[0].body["involvedObject"]["uid"], "u1-1");
    assert_eq!(posts[0].body["reportingInstance"], "n1");
    memory.note(&posts[0].key, &letters(1), Instant::now());
    assert_eq!(memory.events(&letters(1), &uids, "r1"), []);
    let posts = memory.events(&letters(3), &uids, "r1");
    assert_eq!((posts[0].verb, &*posts[0].address), (Verb::Merge, "/api/v1/namespaces/shop/events/web.1-r1-u1"));
    assert_eq!(posts[0].body, json!({"count": 3, "lastTimestamp": "2026-01-01T00:00:00Z"}));
    // The Service goes: what was told of it is not told again of none.
    memory.note(&posts[0].key, &letters(3), Instant::now());
    uids.remove(Kind::Service, web());
    assert_eq!(memory.events(&letters(3), &uids, "r1"), []);
    uids.put(Kind::Service, web(), "u1-1");
    // It was there for an hour, then the server forgot it.
    memory.event_is_gone(&ObjectName::new("shop", "web.1"));
    assert_eq!(memory.events(&letters(3), &uids, "r1")[0].verb, Verb::Create);
    // Another Service of the same name: what was said of the former one is not shown with it.
    memory.note(&posts[0].key, &letters(3), Instant::now());
    uids.put(Kind::Service, web(), "u2-1");
    let posts = memory.events(&letters(3), &uids, "r1");
    assert_eq!((posts[0].verb, &posts[0].body["metadata"]["name"]), (Verb::Create, &json!("web.1-r1-u2")));
}

#[test]
fn warnings_are_told_before_other_events() {
    let event = |name: &str, kind: &str| {
        json!({
            "metadata": {"namespace": "shop", "name": name}, "type": kind,
            "involvedObject": {"kind": "Ingress", "namespace": "shop", "name": "web"},
        })
    };
    let events = vec![event("a", "Normal"), event("b", "Warning"), event("c", "Normal"), event("d", "Warning")];
    let mut letters = Letters::default();
    letters.objects.insert(EVENTS[1].to_owned(), Arc::new(events));
    let posts = Memory::default().events(&letters, &Uids::default(), "r");
    let names: Vec<&str> = posts.iter().map(|post| post.body["metadata"]["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["b-r", "d-r", "a-r", "c-r"]);
}

#[test]
fn pools_are_counted_where_they_are_objects() {
    let pool =
        |assigned: u64| json!({"metadata": {"namespace": "m", "name": "lan"}, "status": {"assignedIPv4": assigned}});
    let letters = |assigned| {
        let mut letters = Letters::default();
        letters.objects.insert(POOLS.to_owned(), Arc::new(vec![pool(assigned)]));
        letters
    };
    let (uids, now) = (Uids::default(), Instant::now());
    let mut memory = Memory::default();
    assert_eq!(memory.of_leader(&letters(1), &Snapshot::default(), &uids, now), []);
    uids.put(Kind::IpAddressPool, ObjectName::new("m", "lan"), "u");
    let posts = memory.of_leader(&letters(1), &Snapshot::default(), &uids, now);
    assert_eq!(posts[0].body, json!({"status": {"assignedIPv4": 1}}));
    memory.note(&posts[0].key, &letters(1), now);
    assert_eq!(memory.of_leader(&letters(1), &Snapshot::default(), &uids, now), []);
    assert_eq!(memory.of_leader(&letters(2), &Snapshot::default(), &uids, now).len(), 1);
}
