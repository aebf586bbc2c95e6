//! README's guide "From kube-proxy", step by step on a cluster whose nodes run the real one, with traffic flowing; and back.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use roadstead_lab::cluster::{ProxyMode, host_program, kube_proxy, lack_of_kube_proxy};
use roadstead_lab::{Node, Program, program};
use serde_json::Value;

use super::fixture::{Cluster, deployment, is_true, text};
use super::install::{self, SYSTEM, deploy};
use super::life::answers_come_from_all;
use super::traffic::Traffic;

/// The agent's DaemonSet goes to nodes with this label, one after the other.
const TAKEN: &str = "roadstead.dev/taken=yes";

#[test]
fn kube_proxy_by_nftables_is_replaced_and_comes_back() {
    follow(ProxyMode::Nftables);
}

#[test]
fn kube_proxy_by_iptables_is_replaced_and_comes_back() {
    follow(ProxyMode::Iptables);
}

fn follow(mode: ProxyMode) {
    if let Some(lack) = lack_of_kube_proxy(mode) {
        eprintln!("skipped: {lack}");
        return;
    }
    let name = format!("kp-{}", mode.name());
    let Some(cluster) = Cluster::with_images(&name, |folder| images(folder, mode)) else { return };
    let site = Site::with_kube_proxy(cluster, mode);
    let [a, b] = [0, 1].map(|at| site.cluster.lab.nodes()[at].clone());

    // 1. The ConfigMap, then the agent, one drained node after the other.
    site.cluster.prepare(&[]);
    site.apply_agent();
    for (taken, other) in [(&a, &b), (&b, &a)] {
        site.drained(taken, other, || {
            site.cluster.kubectl(&format!("label node {} {TAKEN}", taken.name()));
            let ready = || site.agents().iter().any(|pod| is_on(pod, taken) && is_true(pod, "Ready"));
            site.cluster.wait("the agent is ready", ready);
        });
        site.assert_served_by(taken);
    }
    assert!(site.doctor(&a).1.contains("kube-proxy runs"), "{:?}", site.doctor(&a));

    // 2. and 3. kube-proxy goes, and takes its rules away, while everything is in use.
    let traffic = site.traffic(&[&a, &b]);
    site.select_kube_proxy(r#""true""#);
    site.cluster.wait("no kube-proxy runs", || site.cluster.of_set("kube-system", "kube-proxy") == (0, 0));
    for node in [&a, &b] {
        assert!(site.doctor(node).1.contains("kube-proxy has left"), "{:?}", site.doctor(node));
        site.cluster.wait("kube-proxy's rules are gone", || {
            site.cluster.control.clean_up_kube_proxy(node).unwrap();
            site.doctor(node) == ("ok".to_owned(), "no kube-proxy, and no rules of one".to_owned())
        });
    }
    site.scale(5);
    site.scale(3);
    traffic.finish(&site.cluster);

    // And back: kube-proxy first, then one drained node after the other loses its agent and what that has left.
    let traffic = site.traffic(&[&a, &b]);
    site.select_kube_proxy("null");
    for node in [&a, &b] {
        site.cluster.wait("kube-proxy's rules are back", || site.doctor(node).1.contains(", with "));
    }
    site.scale(4);
    site.scale(3);
    traffic.finish(&site.cluster);
    for (left, other) in [(&a, &b), (&b, &a)] {
        site.drained(left, other, || {
            site.cluster.kubectl(&format!("label node {} {}-", left.name(), TAKEN.split_once('=').unwrap().0));
            site.cluster.wait("the agent is gone", || !site.agents().iter().any(|pod| is_on(pod, left)));
            roadstead(left, &["cleanup"]);
        });
        site.assert_served_by(left);
    }
    site.cluster.kubectl(&format!("-n {SYSTEM} delete daemonset roadstead-agent"));
    let traffic = site.traffic(&[&a, &b]);
    site.scale(5);
    site.scale(3);
    traffic.finish(&site.cluster);
}

/// The daemons' programs, and an image of kube-proxy with what it calls.
fn images(folder: &Path, mode: ProxyMode) -> PathBuf {
    let images = install::image(folder);
    let own = images.join("kube-proxy");
    fs::create_dir_all(&own).unwrap();
    symlink(kube_proxy().unwrap(), own.join("kube-proxy")).unwrap();
    for program in mode.programs() {
        symlink(host_program(program).unwrap(), own.join(program)).unwrap();
    }
    images
}

fn is_on(pod: &Value, node: &Node) -> bool {
    text(pod, "/spec/nodeName") == node.name()
}

/// Runs a command of ours on a node that has its pins where the agent's pod has them; it must succeed.
#[track_caller]
fn roadstead(node: &Node, words: &[&str]) {
    let output = run(node, words);
    assert!(output.status.success(), "{words:?}: {output:?}");
}

fn run(node: &Node, words: &[&str]) -> std::process::Output {
    let mut command = Command::new(program(Program::Agent.file()).unwrap());
    command.args(words).arg("--bpffs").arg(node.bpffs().join("roadstead"));
    node.host().output(command).unwrap()
}

/// The cluster, with a Service that is asked by a node's port and by its cluster address.
struct Site {
    cluster: Cluster,
    node_port: u16,
    inside: SocketAddr,
}

impl Site {
    /// kube-proxy on all nodes as kubeadm installs it, and a Service of three pods that it serves.
    fn with_kube_proxy(cluster: Cluster, mode: ProxyMode) -> Self {
        for node in cluster.lab.nodes() {
            // Addresses of Services need some route, as everywhere; the rules send packets elsewhere.
            node.host().ip(&[format!("route add default via {}", cluster.lab.client().v4())]).unwrap();
        }
        let authority = fs::read_to_string(cluster.control.authority()).unwrap();
        let server = cluster.control.address();
        cluster.control.apply(&kubeadms(mode, server, &authority)).unwrap();
        cluster.wait("kube-proxy runs", || cluster.of_set("kube-system", "kube-proxy") == (2, 2));
        cluster.control.apply(&deployment("web", 3)).unwrap();
        cluster.kubectl("expose deployment web --port 9000 --type NodePort");
        cluster.kubectl("create poddisruptionbudget web --selector app=web --min-available 2");
        cluster.wait("the pods are ready", || cluster.ready("default", "web").len() == 3);
        let web = cluster.control.get("/api/v1/namespaces/default/services/web").unwrap();
        let node_port = web.pointer("/spec/ports/0/nodePort").and_then(Value::as_u64).unwrap();
        let inside = SocketAddr::new(text(&web, "/spec/clusterIP").parse().unwrap(), 9000);
        let site = Self { cluster, node_port: u16::try_from(node_port).unwrap(), inside };
        site.cluster.lab.nodes().iter().for_each(|node| site.assert_served_by(node));
        site
    }

    /// `deploy/agent.yaml` with a nodeSelector that takes one node after the other.
    fn apply_agent(&self) {
        let control = &self.cluster.control;
        control.kubectl(&["apply", "-f", &deploy().join("agent.yaml").display().to_string()]).unwrap();
        let (name, value) = TAKEN.split_once('=').unwrap();
        let selector = format!(r#"{{"spec":{{"template":{{"spec":{{"nodeSelector":{{"{name}":"{value}"}}}}}}}}}}"#);
        control.kubectl(&["-n", SYSTEM, "patch", "ds", "roadstead-agent", "-p", &selector]).unwrap();
        self.cluster.wait("no node is taken yet", || self.cluster.of_set(SYSTEM, "roadstead-agent") == (0, 0));
    }

    /// The guide's own command, with its value.
    fn select_kube_proxy(&self, value: &str) {
        let patch = format!(r#"{{"spec":{{"template":{{"spec":{{"nodeSelector":{{"no-kube-proxy":{value}}}}}}}}}}}"#);
        self.cluster.control.kubectl(&["-n", "kube-system", "patch", "ds", "kube-proxy", "-p", &patch]).unwrap();
    }

    /// New connections by the ports of these nodes, and from them to the cluster address.
    fn traffic(&self, nodes: &[&Node]) -> Traffic {
        let mut traffic = Traffic::none();
        for node in nodes {
            traffic.connections("node port", self.cluster.lab.client(), self.port_of(node), 50);
            traffic.connections("cluster address", node.host(), self.inside, 50);
        }
        traffic
    }

    fn agents(&self) -> Vec<Value> {
        self.cluster.list(&format!("/api/v1/namespaces/{SYSTEM}/pods"))
    }

    fn port_of(&self, node: &Node) -> SocketAddr {
        SocketAddr::new(node.host().v4().into(), self.node_port)
    }

    /// Does the work on a node from which pods and clients were led away, while the other node serves them.
    fn drained(&self, node: &Node, other: &Node, work: impl FnOnce()) {
        let traffic = self.traffic(&[other]);
        self.cluster.kubectl(&format!("drain {} --ignore-daemonsets --timeout 60s", node.name()));
        work();
        self.cluster.kubectl(&format!("uncordon {}", node.name()));
        traffic.finish(&self.cluster);
    }

    /// Every pod answers by the node's port, and from it at the cluster address.
    #[track_caller]
    fn assert_served_by(&self, node: &Node) {
        answers_come_from_all(&self.cluster, self.cluster.lab.client(), self.port_of(node), "web");
        answers_come_from_all(&self.cluster, node.host(), self.inside, "web");
    }

    /// Another number of pods, and all of them answer at every node.
    fn scale(&self, replicas: usize) {
        self.cluster.kubectl(&format!("scale deployment web --replicas {replicas}"));
        self.cluster.wait("all replicas are ready", || self.cluster.ready("default", "web").len() == replicas);
        self.cluster.lab.nodes().iter().for_each(|node| self.assert_served_by(node));
    }

    /// What doctor says about kube-proxy on a node: status and finding.
    fn doctor(&self, node: &Node) -> (String, String) {
        let output = run(node, &["doctor", "-o", "json", "--daemon", "agent", "--device", "eth0"]);
        let findings: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        let found = findings.iter().find(|finding| text(finding, "/check") == "kube-proxy").unwrap();
        (text(found, "/status").to_owned(), text(found, "/found").to_owned())
    }
}

/// What kubeadm installs, in short: the account, the configuration and the DaemonSet. The kernel's limits of connections are
/// the machine's, so they stay.
fn kubeadms(mode: ProxyMode, server: SocketAddr, authority: &str) -> String {
    let authority: String = authority.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "
apiVersion: v1
kind: ServiceAccount
metadata: {{name: kube-proxy, namespace: kube-system}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {{name: kubeadm:node-proxier}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: 'system:node-proxier'}}
subjects: [{{kind: ServiceAccount, name: kube-proxy, namespace: kube-system}}]
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: kube-proxy, namespace: kube-system}}
data:
  config.conf: |
    apiVersion: kubeproxy.config.k8s.io/v1alpha1
    kind: KubeProxyConfiguration
    mode: {mode}
    clusterCIDR: 10.244.0.0/16,fd00:10:244::/56
    clientConnection: {{kubeconfig: /var/lib/kube-proxy/kubeconfig.conf}}
    conntrack: {{maxPerCore: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}}
  kubeconfig.conf: |
    apiVersion: v1
    kind: Config
    clusters: [{{name: default, cluster: {{server: 'https://{server}', certificate-authority: /var/lib/kube-proxy/ca.crt}}}}]
    contexts: [{{name: default, context: {{cluster: default, user: default}}}}]
    current-context: default
    users: [{{name: default, user: {{tokenFile: /var/run/secrets/kubernetes.io/serviceaccount/token}}}}]
  ca.crt: |
{authority}---
apiVersion: apps/v1
kind: DaemonSet
metadata: {{name: kube-proxy, namespace: kube-system, labels: {{k8s-app: kube-proxy}}}}
spec:
  selector: {{matchLabels: {{k8s-app: kube-proxy}}}}
  template:
    metadata: {{labels: {{k8s-app: kube-proxy}}}}
    spec:
      serviceAccountName: kube-proxy
      hostNetwork: true
      priorityClassName: system-node-critical
      nodeSelector: {{kubernetes.io/os: linux}}
      tolerations: [{{operator: Exists}}]
      containers:
      - name: kube-proxy
        image: registry.k8s.io/kube-proxy:v1.36.3
        command: [/usr/local/bin/kube-proxy, --config=/var/lib/kube-proxy/config.conf, --hostname-override=$(NODE_NAME)]
        env: [{{name: NODE_NAME, valueFrom: {{fieldRef: {{fieldPath: spec.nodeName}}}}}}]
        securityContext: {{privileged: true}}
        volumeMounts:
        - {{name: kube-proxy, mountPath: /var/lib/kube-proxy}}
        - {{name: xtables-lock, mountPath: /run/xtables.lock}}
      volumes:
      - {{name: kube-proxy, configMap: {{name: kube-proxy}}}}
      - {{name: xtables-lock, hostPath: {{path: /run/xtables.lock, type: FileOrCreate}}}}
",
        mode = mode.name()
    )
}
