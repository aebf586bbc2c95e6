//! README's guide "From MetalLB", step by step on a cluster that runs the real one, with traffic flowing; and back.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use roadstead_lab::cluster;
use serde_json::{Value, json};

use super::fixture::{Cluster, deployment, text};
use super::install::{self, SYSTEM, deploy};
use super::life::{POOL, answers_come_from_all, external_ip};
use super::traffic::Traffic;

/// Of the guide's first step: what the speaker's environment has beside MetalLB.
const BESIDE: [(&str, &str); 2] =
    [("ROADSTEAD_LB_CLASS", "roadstead.dev/trial"), ("ROADSTEAD_LISTEN_MEMBERSHIP", "[::]:7947")];

/// A pool that nobody takes from by himself, for what is tried beside.
const TRIAL_POOL: &str = "
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: trial, namespace: metallb-system}
spec: {addresses: [192.168.77.220-192.168.77.229], autoAssign: false}
---
apiVersion: v1
kind: Service
metadata: {name: trial, annotations: {metallb.io/address-pool: trial}}
spec:
  type: LoadBalancer
  loadBalancerClass: roadstead.dev/speaker
  selector: {app: web}
  ports: [{port: 9000}]
";

#[test]
fn metallb_is_replaced_and_comes_back() {
    let Some(metallb) = cluster::metallb() else {
        eprintln!("skipped: there is no MetalLB: \"cargo xtask setup --cluster\" builds it");
        return;
    };
    let Some(cluster) = Cluster::with_images("metallb", |folder| images(folder, &metallb)) else { return };
    let site = Site::with_metallb(cluster, &metallb);
    let (cluster, before) = (&site.cluster, site.configuration());
    let addresses = BTreeMap::from([("web", site.web.ip())]);
    let mut traffic = Traffic::none();
    traffic.connections("balancer", cluster.lab.client(), site.web, 100);

    // 1. Beside it: only Services of our class are ours, all others are MetalLB's.
    cluster.prepare(&BESIDE);
    let refused = cluster.control.kubectl(&["create", "-k", &deploy().join("crds").display().to_string()]).unwrap_err();
    assert_eq!(format!("{refused:#}").matches("AlreadyExists").count(), 3, "{refused:#}");
    cluster.apply_installer();
    cluster.control.apply(TRIAL_POOL).unwrap();
    let trial = SocketAddr::new(external_ip(cluster, "trial"), 9000);
    cluster.wait("one node answers for the address on trial", || cluster.owner(trial.ip()).is_some());
    answers_come_from_all(cluster, cluster.lab.client(), trial, "web");
    assert_eq!(site.assigned_by("trial"), "roadstead-speaker");
    cluster.kubectl("expose deployment web --name second --port 9000 --type LoadBalancer");
    let second = external_ip(cluster, "second");
    assert_eq!(site.assigned_by("second"), "metallb-controller");
    cluster.wait("one node answers for the second", || cluster.owner(second).is_some());

    // 2. MetalLB stops, and ours takes everything over.
    site.stop_metallb();
    cluster.prepare(&[]);
    site.restart_speakers();
    let addresses: BTreeMap<&str, IpAddr> = addresses.into_iter().chain([("second", second)]).collect();
    site.assert_kept(&addresses);
    cluster.kubectl("expose deployment web --name third --port 9000 --type LoadBalancer");
    let third = external_ip(cluster, "third");
    assert_eq!(site.assigned_by("third"), "roadstead-speaker");
    cluster.wait("one node answers for the third", || cluster.owner(third).is_some());

    // 3. And back.
    cluster.prepare(&BESIDE);
    site.restart_speakers();
    site.start_metallb();
    let addresses: BTreeMap<&str, IpAddr> = addresses.into_iter().chain([("third", third)]).collect();
    site.assert_kept(&addresses);
    cluster.kubectl("expose deployment web --name fourth --port 9000 --type LoadBalancer");
    let fourth = external_ip(cluster, "fourth");
    assert_eq!(site.assigned_by("fourth"), "metallb-controller");
    cluster.wait("one node answers for the fourth", || cluster.owner(fourth).is_some());
    traffic.finish(cluster);
    assert_eq!(site.configuration(), before, "pools and advertisements are as they were");
}

/// The daemons' programs, and images of MetalLB's two.
fn images(folder: &Path, metallb: &Path) -> PathBuf {
    let images = install::image(folder);
    for name in ["controller", "speaker"] {
        fs::create_dir_all(images.join(name)).unwrap();
        symlink(metallb.join(name), images.join(name).join(name)).unwrap();
    }
    images
}

/// A cluster whose Services our agents serve, and to which MetalLB gives addresses.
struct Site {
    cluster: Cluster,
    web: SocketAddr,
}

impl Site {
    fn with_metallb(cluster: Cluster, metallb: &Path) -> Self {
        cluster.prepare(&[]);
        cluster
            .control
            .kubectl(&["apply", "--server-side", "-f", &deploy().join("agent.yaml").display().to_string()])
            .unwrap();
        cluster.wait("the agents are ready", || cluster.of_set(SYSTEM, "roadstead-agent") == (2, 2));
        let manifest = fs::read_to_string(metallb.join("manifest.yaml")).unwrap();
        cluster.control.apply(&manifest).unwrap();
        // The webhook's certificate is put into a running pod's volume, which the lab's kubelet does not do.
        cluster.kubectl("delete validatingwebhookconfiguration metallb-webhook-configuration");
        let patch = json!([{"op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": "--webhook-mode=disabled"}]);
        let patch = patch.to_string();
        let deployment_patch = ["-n", "metallb-system", "patch", "deploy", "controller", "--type=json", "-p", &patch];
        cluster.control.kubectl(&deployment_patch).unwrap();
        let site = Self { cluster, web: SocketAddr::from(([0, 0, 0, 0], 9000)) };
        site.wait_for_metallb();
        let cluster = site.cluster;
        cluster.control.apply(&POOL.replace(NAMESPACE, "")).unwrap();
        cluster.control.apply(&deployment("web", 3)).unwrap();
        cluster.wait("the pods are ready", || cluster.ready("default", "web").len() == 3);
        cluster.kubectl("expose deployment web --port 9000 --type LoadBalancer");
        let web = SocketAddr::new(external_ip(&cluster, "web"), 9000);
        cluster.wait("one node answers for the address", || cluster.owner(web.ip()).is_some());
        answers_come_from_all(&cluster, cluster.lab.client(), web, "web");
        let site = Self { cluster, web };
        assert_eq!(site.assigned_by("web"), "metallb-controller");
        site
    }

    fn wait_for_metallb(&self) {
        self.cluster
            .wait("MetalLB's speakers are ready", || self.cluster.of_set("metallb-system", "speaker") == (2, 2));
        self.cluster.wait("MetalLB's controller is ready", || {
            let path = "/apis/apps/v1/namespaces/metallb-system/deployments/controller";
            let controller = self.cluster.control.get(path).unwrap();
            controller.pointer("/status/readyReplicas") == Some(&json!(1))
                && controller.pointer("/status/replicas") == Some(&json!(1))
        });
    }

    /// Who told that he has assigned a Service's address, by the event's source.
    fn assigned_by(&self, service: &str) -> String {
        let mut found = String::new();
        self.cluster.wait("somebody tells that he has assigned the address", || {
            let events = self.cluster.list("/api/v1/namespaces/default/events");
            let of = |event: &&Value| {
                text(event, "/involvedObject/name") == service && text(event, "/reason") == "IPAllocated"
            };
            let event = events.iter().find(of);
            found = event.map(|event| text(event, "/source/component").to_owned()).unwrap_or_default();
            event.is_some()
        });
        found
    }

    /// The guide's commands of step 2.
    fn stop_metallb(&self) {
        self.cluster.kubectl("-n metallb-system scale deploy controller --replicas=0");
        self.select_speakers(r#""true""#);
        self.cluster.wait("no speaker of MetalLB runs", || self.cluster.of_set("metallb-system", "speaker") == (0, 0));
        self.cluster
            .wait("nothing of MetalLB runs", || self.cluster.list("/api/v1/namespaces/metallb-system/pods").is_empty());
    }

    fn start_metallb(&self) {
        self.cluster.kubectl("-n metallb-system scale deploy controller --replicas=1");
        self.select_speakers("null");
        self.wait_for_metallb();
    }

    fn select_speakers(&self, value: &str) {
        let patch = format!(r#"{{"spec":{{"template":{{"spec":{{"nodeSelector":{{"no-metallb":{value}}}}}}}}}}}"#);
        self.cluster.control.kubectl(&["-n", "metallb-system", "patch", "ds", "speaker", "-p", &patch]).unwrap();
    }

    fn restart_speakers(&self) {
        self.cluster.kubectl(&format!("-n {SYSTEM} rollout restart ds roadstead-speaker"));
        self.cluster.kubectl(&format!("-n {SYSTEM} rollout status ds roadstead-speaker --timeout 60s"));
    }

    /// Every Service has the address that it had, and one node answers for it.
    fn assert_kept(&self, addresses: &BTreeMap<&str, IpAddr>) {
        for (service, ip) in addresses {
            self.cluster.wait("one node answers for the address", || self.cluster.owner(*ip).is_some());
            assert_eq!(external_ip(&self.cluster, service), *ip, "{service}");
        }
    }

    /// The specs of pools and advertisements, with how often each was changed.
    fn configuration(&self) -> BTreeMap<String, Value> {
        let kinds = ["ipaddresspools", "l2advertisements"];
        let all = kinds.iter().flat_map(|kind| self.cluster.list(&format!("/apis/metallb.io/v1beta1/{kind}")));
        let all = all.filter(|object| text(object, "/metadata/name") != "trial");
        all.map(|object| {
            let name = format!("{}/{}", text(&object, "/kind"), text(&object, "/metadata/name"));
            (name, json!([object.get("spec"), object.pointer("/metadata/generation")]))
        })
        .collect()
    }
}

/// MetalLB's manifest has brought it, with labels of its own.
const NAMESPACE: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: metallb-system}
---";
