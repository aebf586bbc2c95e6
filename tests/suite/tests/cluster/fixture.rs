//! What the tests on a real cluster share: the cluster or the reason why there is none, manifests, looks at objects.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use roadstead_lab::{ControlPlane, Kubelet, Lab, Place, Topology, cluster, wait_until, who_has};
use serde_json::Value;

use super::install;

/// How long anything may take that controllers, scheduler and kubelets do together.
pub(crate) const DONE: Duration = Duration::from_secs(30);

/// How long to hear answers to the question who has an address.
const ANSWERED: Duration = Duration::from_millis(50);

/// A control plane, and a kubelet on each node. No daemon of ours runs yet.
pub(crate) struct Cluster {
    // In this order they go.
    pub(crate) kubelets: Vec<Kubelet>,
    pub(crate) control: ControlPlane,
    pub(crate) lab: Lab,
    _alone: MutexGuard<'static, ()>,
}

impl Cluster {
    /// Two nodes and a client. `None`, with a word on stderr, where this host cannot hold it.
    pub(crate) fn new(name: &str) -> Option<Self> {
        Self::with(name, |_| None)
    }

    /// The same with our daemons, as the installer installs them.
    pub(crate) fn with_daemons(name: &str) -> Option<Self> {
        let cluster = Self::with(name, |lab| Some(install::image(lab.folder())))?;
        cluster.install();
        Some(cluster)
    }

    /// The same with the programs of images, which may be given to pods.
    pub(crate) fn with_images(name: &str, images: impl Fn(&Path) -> PathBuf) -> Option<Self> {
        Self::with(name, |lab| Some(images(lab.folder())))
    }

    fn with(name: &str, images: impl Fn(&Lab) -> Option<PathBuf>) -> Option<Self> {
        static ALONE: Mutex<()> = Mutex::new(());
        if let Some(lack) = cluster::lack().or_else(cluster::lack_of_controllers) {
            eprintln!("skipped: {lack}");
            return None;
        }
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let lab = Lab::with(name, Topology::default()).unwrap();
        let control = ControlPlane::start(&lab).unwrap();
        let images = images(&lab);
        let kubelet = |node| Kubelet::start_with(&control, node, images.as_deref()).unwrap();
        let kubelets: Vec<Kubelet> = lab.nodes().iter().map(kubelet).collect();
        let cluster = Self { kubelets, control, lab, _alone: alone };
        cluster.wait("both nodes are ready", || {
            let nodes = cluster.list("/api/v1/nodes");
            nodes.len() == 2
                && nodes.iter().all(|node| is_true(node, "Ready") && node.pointer("/spec/taints").is_none())
        });
        Some(cluster)
    }

    /// Runs kubectl, which must succeed; its words are separated by blanks.
    #[track_caller]
    pub(crate) fn kubectl(&self, command: &str) -> String {
        let arguments: Vec<&str> = command.split(' ').collect();
        self.control.kubectl(&arguments).unwrap()
    }

    /// The objects of a list.
    #[track_caller]
    pub(crate) fn list(&self, path: &str) -> Vec<Value> {
        let list = self.control.get(path).unwrap();
        list.get("items").and_then(Value::as_array).unwrap().clone()
    }

    /// Waits for what the cluster does by itself.
    #[track_caller]
    pub(crate) fn wait(&self, what: &str, condition: impl FnMut() -> bool) -> Duration {
        let waited = wait_until(DONE, what, condition);
        waited.unwrap_or_else(|error| panic!("{error}\n{}", self.seen()))
    }

    /// What a human would look at first.
    fn seen(&self) -> String {
        let looks = ["get pods -A -o wide", "get events -A", "get nodes"];
        let shown = looks.map(|look| self.control.kubectl(&look.split(' ').collect::<Vec<_>>()).unwrap_or_default());
        shown.join("\n")
    }

    /// The pods of a namespace with this label `app` that are ready and not to end.
    #[track_caller]
    pub(crate) fn ready(&self, namespace: &str, app: &str) -> Vec<Value> {
        let pods = self.list(&format!("/api/v1/namespaces/{namespace}/pods?labelSelector=app%3D{app}"));
        let lives = |pod: &Value| pod.pointer("/metadata/deletionTimestamp").is_none() && is_true(pod, "Ready");
        pods.into_iter().filter(lives).collect()
    }

    /// The names of those pods, in the default namespace.
    #[track_caller]
    pub(crate) fn ready_names(&self, app: &str) -> BTreeSet<String> {
        self.ready("default", app).iter().map(|pod| text(pod, "/metadata/name").to_owned()).collect()
    }

    /// The node that alone answers for an address.
    #[track_caller]
    pub(crate) fn owner(&self, ip: IpAddr) -> Option<String> {
        self.lab.sole_owner(ip, ANSWERED).unwrap()
    }

    /// Nobody answers for an address.
    #[track_caller]
    pub(crate) fn is_silent(&self, ip: IpAddr) -> bool {
        who_has(self.lab.client(), ip, ANSWERED).unwrap().is_empty()
    }

    /// How many pods of a DaemonSet are ready, and how many shall run.
    #[track_caller]
    pub(crate) fn of_set(&self, namespace: &str, set: &str) -> (u64, u64) {
        let set = self.control.get(&format!("/apis/apps/v1/namespaces/{namespace}/daemonsets/{set}")).unwrap();
        let number = |field: &str| set.pointer(&format!("/status/{field}")).and_then(Value::as_u64).unwrap_or_default();
        (number("numberReady"), number("desiredNumberScheduled"))
    }

    /// A pod's place, on whichever node it runs.
    #[track_caller]
    pub(crate) fn place(&self, pod: &Value) -> Place {
        let (namespace, name) = (text(pod, "/metadata/namespace"), text(pod, "/metadata/name"));
        let found = self.kubelets.iter().find_map(|kubelet| kubelet.pod(namespace, name));
        found.unwrap_or_else(|| panic!("{namespace}/{name} runs nowhere"))
    }
}

/// A text within an object.
pub(crate) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Whether a condition holds.
pub(crate) fn is_true(object: &Value, condition: &str) -> bool {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    conditions.into_iter().any(|one| text(one, "/type") == condition && text(one, "/status") == "True")
}

/// A Deployment as the tutorials have it, of the lab's echo server: a readiness probe, and pods that go on for two seconds
/// after they were told to end, as whoever wants no failed request has them.
pub(crate) fn deployment(name: &str, replicas: u32) -> String {
    format!(
        "
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  strategy: {{rollingUpdate: {{maxUnavailable: 0, maxSurge: 2}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
{}",
        pod_spec()
    )
}

/// The spec of a pod, two levels in.
pub(crate) fn pod_spec() -> &'static str {
    "      terminationGracePeriodSeconds: 10
      containers:
      - name: echo
        image: echo:1
        ports:
        - {name: http, containerPort: 8080}
        - {name: tcp, containerPort: 9000}
        - {name: udp, containerPort: 5353, protocol: UDP}
        readinessProbe: {tcpSocket: {port: tcp}, periodSeconds: 1}
        lifecycle: {preStop: {sleep: {seconds: 2}}}
"
}
