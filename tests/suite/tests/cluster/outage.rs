//! The API server stopped for a while, and etcd lost and restored, while all is in use: no request fails, and what changed
//! meanwhile is followed as soon as the API server is back.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use roadstead_lab::{Probe, wait_until};

use super::fixture::{Cluster, deployment, text};
use super::life::{POOL, answers_come_from_all, external_ip};
use super::rights::tokens_in_use;
use super::traffic::Traffic;

/// How soon what changed is followed, counted from the API server's own word that it is ready.
const CONVERGED: Duration = Duration::from_secs(2);
/// How old a token that a client has read may become, and something to spare.
const REREAD: Duration = Duration::from_secs(62);
/// How long to look on, so that what fails tells how late it was.
const LATE: Duration = Duration::from_secs(60);

/// How long the API server is away: `ROADSTEAD_OUTAGE_SECONDS`, by default long enough for every connection to notice.
fn outage() -> Duration {
    let named = std::env::var("ROADSTEAD_OUTAGE_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(named.unwrap_or(20))
}

/// Two node ports that a test adds and takes away by hand, with one pod behind them.
fn by_hand(name: &str, node_port: u16, pod: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{type: NodePort, ports: [{{port: 9000, nodePort: {node_port}}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
ports: [{{port: 9000}}]
endpoints: [{{addresses: [{pod}], conditions: {{ready: true}}}}]
"
    )
}

#[test]
fn an_outage_of_the_control_plane_is_not_noticed() {
    let Some(cluster) = Cluster::with_daemons("away") else { return };
    let control = &cluster.control;
    control.apply(POOL).unwrap();
    control.apply(&deployment("web", 3)).unwrap();
    cluster.wait("the pods are ready", || cluster.ready("default", "web").len() == 3);
    cluster.kubectl("expose deployment web --port 9000 --type LoadBalancer");
    let web = control.get("/api/v1/namespaces/default/services/web").unwrap();
    let node_port = web.pointer("/spec/ports/0/nodePort").and_then(serde_json::Value::as_u64).unwrap();
    let inside = SocketAddr::new(text(&web, "/spec/clusterIP").parse().unwrap(), 9000);
    let balancer = SocketAddr::new(external_ip(&cluster, "web"), 9000);
    cluster.wait("one node answers for the address", || cluster.owner(balancer.ip()).is_some());
    answers_come_from_all(&cluster, cluster.lab.client(), balancer, "web");
    let pod = text(&cluster.ready("default", "web")[0], "/status/podIP").to_owned();
    control.apply(&by_hand("early", 30_911, &pod)).unwrap();
    let node = cluster.lab.node("node-a").host().v4();
    let answers = |port: u16| cluster.lab.client().probe_once(&Probe::tcp((node, port))).unwrap().ok;
    cluster.wait("the early port answers", || answers(30_911));

    let tokens = tokens_in_use(&cluster);
    assert_eq!(tokens.len(), 6, "{tokens:?}");
    cluster.kubelets.iter().for_each(roadstead_lab::Kubelet::rotate_tokens);
    let rotated = Instant::now();
    let traffic = Traffic::start(&cluster, balancer, u16::try_from(node_port).unwrap(), inside);
    control.stop_api().unwrap();
    let (stopped, mut looks) = (Instant::now(), 0);
    wait_until(outage() + LATE, "the outage has lasted for long enough", || {
        assert!(answers(30_911), "after {:?}", stopped.elapsed());
        looks += 1;
        stopped.elapsed() >= outage()
    })
    .unwrap();
    assert!(looks > 10);
    let hidden = control.hidden().unwrap();
    hidden.kubectl(&["apply", "-f", "-"], &by_hand("late", 30_912, &pod)).unwrap();
    hidden.kubectl(&["delete", "service,endpointslice", "early"], "").unwrap();
    hidden.stop().unwrap();
    assert!(answers(30_911) && !answers(30_912), "somebody knows what nobody told");
    follows_within(&cluster, "the outage", || answers(30_912) && !answers(30_911), || control.start_api().unwrap());
    answers_come_from_all(&cluster, cluster.lab.client(), balancer, "web");

    // All of etcd is lost, and what it held before is restored: a Service that was deleted since is back.
    let backup = control.back_up().unwrap();
    cluster.kubectl("delete service,endpointslice late");
    cluster.wait("the late port is closed", || !answers(30_912));
    let restore = || control.lose_and_restore(&backup).unwrap();
    follows_within(&cluster, "the restoration", || answers(30_912), restore);
    answers_come_from_all(&cluster, cluster.lab.client(), balancer, "web");

    // Whoever connects a minute after the tokens were replaced uses the new ones.
    wait_until(REREAD + LATE, "tokens are read again", || {
        assert!(answers(30_912));
        rotated.elapsed() >= REREAD
    })
    .unwrap();
    control.stop_api().unwrap();
    control.start_api().unwrap();
    cluster.wait("all pods use their new tokens", || {
        let now = tokens_in_use(&cluster);
        tokens.iter().all(|(pod, token)| now.get(pod).is_some_and(|now| now != token))
    });
    traffic.finish(&cluster);
}

/// Does the work beside, and demands that the condition holds soon after the API server is ready.
#[track_caller]
fn follows_within(cluster: &Cluster, what: &str, holds: impl Fn() -> bool, work: impl FnOnce() + Send) {
    thread::scope(|scope| {
        let work = scope.spawn(work);
        let gone = || cluster.control.get("/readyz").is_err();
        wait_until(LATE, "the API server is away", gone).unwrap();
        wait_until(LATE, "the API server is ready", || !gone()).unwrap();
        let ready = Instant::now();
        let waited = wait_until(LATE, &format!("what changed before the end of {what} is followed"), holds);
        let took = ready.elapsed();
        waited.unwrap_or_else(|error| panic!("{error}\n{}", cluster.daemon_logs()));
        println!("{what} is over: followed after {took:.2?}");
        assert!(took < CONVERGED, "{what} is followed only after {took:.1?}\n{}", cluster.daemon_logs());
        work.join().unwrap();
    });
}
