//! The whole life of a service, as a Kubernetes tutorial tells it: kubectl in one hand, two hundred new connections a
//! second in the other, and not one of them may fail.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use roadstead_lab::{Place, Probe, wait_for, wait_until};
use serde_json::Value;

use super::fixture::{Cluster, DONE, deployment, text};
use super::leftovers::Traces;
use super::traffic::Traffic;
use super::{audit, events, rights, sections};

/// The pool of the objects, and that of the old ConfigMap.
pub(crate) const POOL: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: metallb-system}
---
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: segment, namespace: metallb-system}
spec: {addresses: [192.168.77.200-192.168.77.209, 'fd77::200-fd77::209']}
---
apiVersion: metallb.io/v1beta1
kind: L2Advertisement
metadata: {name: segment, namespace: metallb-system}
";

/// A Service by kubectl's own table: its `EXTERNAL-IP` once there is one.
pub(crate) fn external_ip(cluster: &Cluster, name: &str) -> IpAddr {
    let mut found = None;
    cluster.wait(&format!("{name} has an EXTERNAL-IP"), || {
        let table = cluster.kubectl(&format!("get service {name} -o wide --no-headers"));
        found = table.split_whitespace().nth(3).and_then(|column| column.parse().ok());
        found.is_some()
    });
    found.unwrap()
}

/// Every ready pod of the app answers at the address, and nobody else.
#[track_caller]
pub(crate) fn answers_come_from_all(cluster: &Cluster, place: &Place, address: SocketAddr, app: &str) {
    let mut seen = (BTreeSet::new(), BTreeSet::new());
    let waited = wait_until(DONE, "every ready pod answers", || {
        let ready = cluster.ready_names(app);
        let answers = place.probe(&Probe::tcp(address).count(20 + 15 * u32::try_from(ready.len()).unwrap())).unwrap();
        seen = (ready, answers.iter().map(roadstead_lab::Answer::outcome).collect());
        seen.0 == seen.1
    });
    waited.unwrap_or_else(|error| panic!("{error}: {seen:?}\n{}", cluster.daemon_logs()));
}

#[test]
fn a_service_lives_its_life() {
    let Some(cluster) = Cluster::with_daemons("life") else { return };
    rights::assert_exact_rights(&cluster);
    cluster.control.apply(POOL).unwrap();

    // Created, and exposed in the three ways.
    cluster.control.apply(&deployment("web", 1)).unwrap();
    cluster.wait("a pod is ready", || cluster.ready("default", "web").len() == 1);
    cluster.kubectl("create poddisruptionbudget web --selector app=web --min-available 2");
    cluster.kubectl("expose deployment web --name web-inside --port 9000");
    cluster.kubectl("expose deployment web --name web-node --port 9000 --type NodePort");
    cluster.kubectl("expose deployment web --port 9000 --type LoadBalancer");
    let service = |name: &str| cluster.control.get(&format!("/api/v1/namespaces/default/services/{name}")).unwrap();
    let node_port = service("web-node").pointer("/spec/ports/0/nodePort").and_then(Value::as_u64).unwrap();
    assert!((30_000..=32_767).contains(&node_port), "{node_port}");
    let node_port = u16::try_from(node_port).unwrap();
    let inside = SocketAddr::new(text(&service("web-inside"), "/spec/clusterIP").parse().unwrap(), 9000);
    let balancer = SocketAddr::new(external_ip(&cluster, "web"), 9000);
    cluster.wait("one node answers for the address", || cluster.owner(balancer.ip()).is_some());
    let (client, node_b) = (cluster.lab.client(), cluster.lab.node("node-b").host());
    for (place, address) in [(client, balancer), (node_b, inside), (node_b, balancer)] {
        answers_come_from_all(&cluster, place, address, "web");
    }

    // Scaled by hand and by the HorizontalPodAutoscaler.
    let shop = sections::Shop::open(&cluster);
    let mut traffic = Traffic::start(&cluster, balancer, node_port, inside);
    shop.visit(&cluster, &mut traffic);
    for replicas in [10, 3] {
        cluster.kubectl(&format!("scale deployment web --replicas {replicas}"));
        cluster.wait("all replicas are ready", || cluster.ready("default", "web").len() == replicas);
        answers_come_from_all(&cluster, client, balancer, "web");
    }
    let metric = cluster.control.serve_metric().unwrap();
    metric.set(60);
    cluster.control.apply(AUTOSCALER).unwrap();
    cluster.wait("the autoscaler asks for 6", || cluster.ready("default", "web").len() == 6);
    answers_come_from_all(&cluster, node_b, inside, "web");
    metric.set(30);
    cluster.wait("the autoscaler asks for 3", || cluster.ready("default", "web").len() == 3);
    cluster.kubectl("delete hpa web");

    // A rolling update, and back.
    for change in ["set env deployment/web VERSION=2", "rollout undo deployment/web"] {
        cluster.kubectl(&change.replace("web", "shop"));
        let before = cluster.ready_names("web");
        cluster.kubectl(change);
        cluster.kubectl("rollout status deployment/web --timeout 60s");
        cluster.kubectl("rollout status deployment/shop --timeout 60s");
        assert!(cluster.ready_names("web").is_disjoint(&before), "{change}");
        answers_come_from_all(&cluster, client, balancer, "web");
    }

    // A node goes: its pods and its addresses move.
    // On a machine that stands still, speakers may hold each other for dead for a moment.
    let home = wait_for(DONE, "one node answers", || cluster.owner(balancer.ip())).unwrap();
    cluster.kubectl(&format!("cordon {home}"));
    cluster.kubectl(&format!("label node {home} node.kubernetes.io/exclude-from-external-load-balancers="));
    cluster.kubectl(&format!("drain {home} --ignore-daemonsets --delete-emptydir-data --timeout 60s"));
    cluster.wait("another node answers for the address", || {
        cluster.owner(balancer.ip()).is_some_and(|owner| owner != home)
    });
    cluster.wait("all pods are elsewhere", || {
        let pods = cluster.ready("default", "web");
        pods.len() == 3 && pods.iter().all(|pod| text(pod, "/spec/nodeName") != home)
    });
    answers_come_from_all(&cluster, client, balancer, "web");
    cluster.kubectl(&format!("label node {home} node.kubernetes.io/exclude-from-external-load-balancers-"));
    cluster.kubectl(&format!("uncordon {home}"));

    sections::stateful_set(&cluster);
    sections::old_pools(&cluster);
    traffic.finish(&cluster);
    shop.named_objects(&cluster);
    events::of_ingresses(&cluster);

    audit::assert_nobody_refused(&cluster);

    // An API server as older ones are, which streams no lists.
    cluster.control.stop_api().unwrap();
    cluster.control.forget_streaming_lists();
    cluster.control.start_api().unwrap();
    answers_come_from_all(&cluster, client, balancer, "web");

    // Deleted: nothing is left behind.
    let traces = Traces::of(&cluster, &["web", "web-inside", "web-node"], sections::HOST, shop.address());
    shop.close(&cluster);
    cluster.kubectl("delete deployment web --cascade=foreground --timeout 60s");
    cluster.kubectl("delete service web web-inside web-node");
    cluster.kubectl("delete poddisruptionbudget web");
    traces.assert_none_left(&cluster);
    audit::assert_all_rights_used(&cluster);
}

const AUTOSCALER: &str = "
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: web}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  minReplicas: 1
  maxReplicas: 10
  metrics:
  - type: External
    external: {metric: {name: requests}, target: {type: AverageValue, averageValue: '10'}}
";
