//! What the owner of an Ingress is told: events as `kubectl describe` shows them, by the proxy that leads, each thing once.

use std::collections::BTreeSet;

use serde_json::Value;

use super::fixture::{Cluster, text};

const WRONG: &str = "create ingress wrong --rule wrong.example.com/*=gone:80,tls=gone \
                     --annotation nginx.ingress.kubernetes.io/proxy-read-timeout=soon";

/// An Ingress with whatever can be wrong, and a younger one that wants the same path.
pub(crate) fn of_ingresses(cluster: &Cluster) {
    cluster.kubectl(WRONG);
    // Made in the same second, the name decides which is the younger.
    cluster.kubectl("create ingress wrong-too --rule wrong.example.com/*=gone:80");
    described(cluster, "wrong", &["Sync", "BackendNotFound", "InvalidCertificateRef", "InvalidAnnotation"]);
    described(cluster, "wrong-too", &["Sync", "Conflicted", "already served by Ingress default/wrong"]);
    let told = cluster.kubectl("get events --field-selector involvedObject.name=wrong,type=Warning");
    assert!(told.contains("ingress/wrong") && told.contains("secret default/gone does not exist"), "{told}");
    // What is said again is counted.
    cluster.kubectl("annotate ingress wrong team=shop");
    cluster.wait("the Ingress is taken for another time", || {
        let counts: Vec<u64> =
            of(cluster, "wrong", "Sync").iter().filter_map(|event| event["count"].as_u64()).collect();
        counts == [2]
    });
    let told: Vec<Value> = [of(cluster, "wrong", ""), of(cluster, "wrong-too", "")].concat();
    let by: BTreeSet<(&str, &str)> =
        told.iter().map(|event| (text(event, "/source/component"), text(event, "/source/host"))).collect();
    assert!(by.len() == 1 && by.iter().all(|(component, _)| *component == "roadstead-ingress"), "{by:?}");
    // Another one of the same name has events of its own.
    cluster.kubectl("delete ingress wrong wrong-too");
    cluster.kubectl(WRONG);
    described(cluster, "wrong", &["Sync", "BackendNotFound"]);
    cluster.kubectl("delete ingress wrong");
    assert_eq!(of(cluster, "wrong-too", "Sync").len(), 1, "of what is gone nothing is said");
}

/// Waits until kubectl shows these words among the events of an Ingress.
#[track_caller]
fn described(cluster: &Cluster, name: &str, words: &[&str]) {
    let shown = || cluster.kubectl(&format!("describe ingress {name}"));
    cluster.wait(&format!("the events of Ingress {name}: {words:?}"), || {
        let shown = shown();
        let events = shown.split_once("Events:").map_or("", |(_, events)| events);
        words.iter().all(|word| events.contains(word))
    });
}

/// The events about an Ingress, of one reason or all.
fn of(cluster: &Cluster, name: &str, reason: &str) -> Vec<Value> {
    let events = cluster.list("/api/v1/namespaces/default/events");
    let about = |event: &Value| {
        (text(event, "/involvedObject/kind"), text(event, "/involvedObject/name")) == ("Ingress", name)
            && (reason.is_empty() || text(event, "/reason") == reason)
    };
    events.into_iter().filter(about).collect()
}
