//! The test cluster by itself: what the lab's kubelets do is what the real controllers need.

use std::collections::BTreeSet;
use std::time::Duration;

use roadstead_lab::{Probe, wait_until};
use serde_json::Value;

use super::fixture::{Cluster, DONE, deployment, text};

/// The pods' own addresses in the EndpointSlices of a Service, with their condition `ready`.
fn endpoints(cluster: &Cluster, service: &str) -> BTreeSet<(String, bool)> {
    let selector = format!("labelSelector=kubernetes.io%2Fservice-name%3D{service}");
    let slices = cluster.list(&format!("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices?{selector}"));
    let of = |slice: &Value| slice.get("endpoints").and_then(Value::as_array).cloned().unwrap_or_default();
    let all = slices.iter().flat_map(of);
    all.map(|one| (text(&one, "/addresses/0").to_owned(), one.pointer("/conditions/ready") == Some(&true.into())))
        .collect()
}

#[test]
fn controllers_find_what_they_need() {
    let Some(cluster) = Cluster::new("controllers") else { return };
    cluster.control.apply(&deployment("web", 4)).unwrap();
    cluster.kubectl("expose deployment web --port 80 --target-port tcp");
    cluster.wait("four pods are ready", || cluster.ready("default", "web").len() == 4);

    // Both nodes have some, each answers under its own name, and the slice tells their addresses.
    let pods = cluster.ready("default", "web");
    let nodes: BTreeSet<&str> = pods.iter().map(|pod| text(pod, "/spec/nodeName")).collect();
    assert_eq!(nodes, BTreeSet::from(["node-a", "node-b"]));
    let mut expected = BTreeSet::new();
    for pod in &pods {
        let place = cluster.place(pod);
        assert_eq!(text(pod, "/status/podIP"), place.v4().to_string());
        let answer = cluster.lab.node("node-a").host().probe_once(&Probe::tcp((place.v4(), 9000))).unwrap();
        assert_eq!(answer.name(), Some(text(pod, "/metadata/name")), "{answer:?}");
        expected.insert((place.v4().to_string(), true));
    }
    cluster.wait("the slice has the pods", || endpoints(&cluster, "web") == expected);

    // A server that ends is started again; its pod is ready once the probe has succeeded again.
    let first = cluster.place(&pods[0]);
    first.output(kill_all(&first)).unwrap();
    let restarted = |pod: &Value| pod.pointer("/status/containerStatuses/0/restartCount") == Some(&1.into());
    cluster.wait("it is started again", || {
        cluster.ready("default", "web").iter().filter(|pod| restarted(pod)).count() == 1
    });
    cluster.wait("the slice has all pods", || endpoints(&cluster, "web") == expected);

    // Scaling down: the pods go on for as long as their hook sleeps, then their objects and places are gone.
    cluster.kubectl("scale deployment web --replicas 1");
    cluster.wait("one is left", || cluster.list("/api/v1/namespaces/default/pods").len() == 1);
    let running = || cluster.kubelets.iter().map(roadstead_lab::Kubelet::running).sum::<usize>();
    wait_until(DONE, "one place is left", || running() == 1).unwrap();

    // Cordon and drain: the pod moves to the other node.
    let home = text(&cluster.ready("default", "web")[0], "/spec/nodeName").to_owned();
    cluster.kubectl(&format!("drain {home} --ignore-daemonsets --timeout 20s"));
    cluster.wait("the pod is on the other node", || {
        let pods = cluster.ready("default", "web");
        pods.len() == 1 && text(&pods[0], "/spec/nodeName") != home
    });
    cluster.kubectl("delete deployment,service web");
    cluster.wait("nothing is left", || running() == 0 && cluster.list("/api/v1/namespaces/default/pods").is_empty());
}

/// Ends the echo server of a place, but not its place.
fn kill_all(place: &roadstead_lab::Place) -> std::process::Command {
    let mut command = std::process::Command::new("sh");
    let members = place.cgroup().join("cgroup.procs");
    // The shell itself is a member too.
    command.args(["-c", &format!("for p in $(cat {}); do [ $p = $$ ] || kill -9 $p; done", members.display())]);
    command
}

#[test]
fn an_outage_of_the_api_is_survived() {
    let Some(cluster) = Cluster::new("outage") else { return };
    cluster.control.apply(&deployment("web", 2)).unwrap();
    cluster.wait("two pods are ready", || cluster.ready("default", "web").len() == 2);
    let names = || cluster.ready_names("web");
    let (before, backup) = (names(), cluster.control.back_up().unwrap());
    cluster.control.stop_api().unwrap();
    assert!(cluster.control.get("/readyz").is_err());
    cluster.control.start_api().unwrap();
    assert_eq!(names(), before, "pods run through");
    cluster.control.lose_and_restore(&backup).unwrap();
    assert_eq!(names(), before, "pods run through");
    // And all goes on.
    cluster.kubectl("scale deployment web --replicas 3");
    cluster.wait("a third pod is ready", || cluster.ready("default", "web").len() == 3);
}

#[test]
fn tokens_are_of_their_account() {
    let Some(cluster) = Cluster::new("tokens") else { return };
    cluster.kubectl("create namespace roadstead-system");
    cluster.kubectl("create serviceaccount probe -n roadstead-system");
    let account = cluster.control.account("roadstead-system", "probe").unwrap();
    let ask = |resource: &str| {
        let file = account.kubeconfig().display().to_string();
        cluster.control.kubectl(&["--kubeconfig", &file, "get", resource, "-n", "roadstead-system"])
    };
    assert!(ask("secrets").unwrap_err().to_string().contains("Forbidden"));
    let role = "create role probe --verb list --resource configmaps -n roadstead-system";
    cluster.kubectl(role);
    cluster
        .kubectl("create rolebinding probe --role probe --serviceaccount roadstead-system:probe -n roadstead-system");
    wait_until(Duration::from_secs(5), "the role is known", || ask("configmaps").is_ok()).unwrap();
    cluster.control.rotate(&account).unwrap();
    ask("configmaps").unwrap();
    // The audit log tells who was refused what, and by which rule he was not.
    let events = cluster.control.audit().unwrap();
    let of = |resource: &str| {
        let mut found = events.iter().filter(|event| text(event, "/objectRef/resource") == resource);
        found.next_back().unwrap_or_else(|| panic!("no event about {resource}"))
    };
    let decision = "/annotations/authorization.k8s.io~1decision";
    assert_eq!((text(of("secrets"), decision), text(of("configmaps"), decision)), ("forbid", "allow"));
    assert_eq!(text(of("configmaps"), "/user/username"), account.user());
    assert!(text(of("configmaps"), "/annotations/authorization.k8s.io~1reason").contains("Role \"probe\""));
}
