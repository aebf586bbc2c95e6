//! Parts of a service's life beside the Deployment: a StatefulSet, an Ingress, and pools as MetalLB has had them.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use rcgen::generate_simple_self_signed;
use roadstead_lab::{Probe, wait_until};

use super::fixture::{Cluster, DONE, deployment, pod_spec, text};
use super::install::{OPTIONS, SYSTEM};
use super::life::{answers_come_from_all, external_ip};
use super::traffic::Traffic;

/// A StatefulSet with a headless Service and one with an address of a pool.
pub(crate) fn stateful_set(cluster: &Cluster) {
    cluster.control.apply(&database()).unwrap();
    cluster.wait("both members are ready", || cluster.ready("default", "db").len() == 2);
    let headless = cluster.control.get("/api/v1/namespaces/default/services/db").unwrap();
    assert_eq!(text(&headless, "/spec/clusterIP"), "None");
    let address = SocketAddr::new(external_ip(cluster, "db-outside"), 9000);
    answers_come_from_all(cluster, cluster.lab.client(), address, "db");
    // A member comes back under its name, at another address.
    let of = |name: &str| {
        let pods = cluster.ready("default", "db");
        pods.iter().find(|pod| text(pod, "/metadata/name") == name).map(|pod| text(pod, "/status/podIP").to_owned())
    };
    let before = of("db-0").unwrap();
    let load = cluster.lab.client().load(address, 50).unwrap();
    cluster.kubectl("delete pod db-0");
    cluster.wait("the member is back", || of("db-0").is_some_and(|ip| ip != before));
    answers_come_from_all(cluster, cluster.lab.client(), address, "db");
    let report = load.finish().unwrap();
    assert!(report.failed == 0 && report.answered > 50, "{report:?}\n{}", cluster.daemon_logs());
    cluster.kubectl("delete statefulset,service -l life=db");
}

fn database() -> String {
    format!(
        "
apiVersion: v1
kind: Service
metadata: {{name: db, labels: {{life: db}}}}
spec: {{clusterIP: None, selector: {{app: db}}, ports: [{{port: 9000}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: db-outside, labels: {{life: db}}}}
spec: {{type: LoadBalancer, selector: {{app: db}}, ports: [{{port: 9000}}]}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: db, labels: {{life: db}}}}
spec:
  serviceName: db
  replicas: 2
  selector: {{matchLabels: {{app: db}}}}
  template:
    metadata: {{labels: {{app: db}}}}
    spec:
{}",
        pod_spec()
    )
}

/// An Ingress of two paths, with TLS, and the Deployments behind them.
pub(crate) struct Shop {
    address: SocketAddr,
    certificate: PathBuf,
}

/// Its host, and which app is behind which path.
pub(crate) const HOST: &str = "shop.example.com";
const PATHS: [(&str, &str); 3] = [("/", "shop"), ("/cart", "shop"), ("/api/orders", "api")];

impl Shop {
    /// Made by kubectl; its address in kubectl's table. Waits until every ready pod answers by its path.
    pub(crate) fn open(cluster: &Cluster) -> Self {
        for app in ["shop", "api"] {
            cluster.control.apply(&deployment(app, 2)).unwrap();
            cluster.kubectl(&format!("expose deployment {app} --port 80 --target-port http"));
            cluster.kubectl(&format!("create poddisruptionbudget {app} --selector app={app} --min-available 1"));
        }
        let pair = generate_simple_self_signed([HOST.to_owned()]).unwrap();
        let folder = cluster.lab.folder();
        let (certificate, key) = (folder.join("shop.crt"), folder.join("shop.key"));
        fs::write(&certificate, pair.cert.pem()).unwrap();
        fs::write(&key, pair.signing_key.serialize_pem()).unwrap();
        cluster.kubectl(&format!("create secret tls shop --cert {} --key {}", certificate.display(), key.display()));
        cluster.kubectl(&format!(
            "create ingress shop --rule {HOST}/*=shop:80,tls=shop --rule {HOST}/api*=api:80,tls=shop"
        ));
        let mut found = None::<IpAddr>;
        cluster.wait("the Ingress has an address", || {
            let table = cluster.kubectl("get ingress shop -o wide --no-headers");
            let mut columns = table.split_whitespace();
            assert_eq!((columns.nth(1), columns.next()), (Some("roadstead"), Some(HOST)), "{table}");
            found = columns.next().and_then(|column| column.split(',').next()?.parse().ok());
            found.is_some()
        });
        let shop = Self { address: SocketAddr::new(found.unwrap(), 443), certificate };
        for (path, app) in PATHS {
            let probe = shop.request(path).count(20);
            let mut seen = BTreeSet::new();
            let waited = wait_until(DONE, path, || {
                let ready = cluster.ready_names(app);
                seen = cluster.lab.client().probe(&probe).unwrap().iter().map(roadstead_lab::Answer::outcome).collect();
                seen == ready && ready.len() == 2
            });
            waited.unwrap_or_else(|error| panic!("{error}: {seen:?}\n{}", cluster.daemon_logs()));
        }
        shop
    }

    /// Where it is served over TLS.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    fn request(&self, path: &str) -> Probe {
        Probe::http(&format!("https://{HOST}{path}")).at(self.address).ca(&self.certificate)
    }

    /// A steady rate of requests to both of its Services, each over a TLS connection of its own.
    pub(crate) fn visit(&self, cluster: &Cluster, traffic: &mut Traffic) {
        for (name, path) in [("https /", "/"), ("https /api", "/api/orders")] {
            traffic.requests(name, cluster.lab.client(), &self.request(path), 20);
        }
    }

    /// What the proxy asks for by name: a Secret of passwords, and the ConfigMap of its options.
    pub(crate) fn named_objects(&self, cluster: &Cluster) {
        let client = cluster.lab.client();
        cluster.kubectl(&format!("create configmap {OPTIONS} -n {SYSTEM} --from-literal hsts-max-age=1234"));
        cluster.wait("the options are followed", || {
            let answer = client.probe_once(&self.request("/")).unwrap();
            answer.headers.get("strict-transport-security").is_some_and(|value| value.contains("1234"))
        });
        // `htpasswd -nbs ann secret`.
        cluster.kubectl("create secret generic users --from-literal auth=ann:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=");
        let annotations = "--annotation nginx.ingress.kubernetes.io/auth-type=basic --annotation nginx.ingress.kubernetes.io/auth-secret=users";
        cluster.kubectl(&format!("create ingress private --rule private.example.com/*=shop:80 {annotations}"));
        let plain = Probe::http("http://private.example.com/").at(SocketAddr::new(self.address.ip(), 80));
        let known = plain.clone().header("Authorization", "Basic YW5uOnNlY3JldA==");
        let status = |probe: &Probe| client.probe_once(probe).unwrap().status;
        cluster
            .wait("a password is asked for and taken", || (status(&plain), status(&known)) == (Some(401), Some(200)));
        cluster.kubectl("delete ingress private");
        cluster.kubectl("delete secret users");
        cluster.kubectl(&format!("delete configmap {OPTIONS} -n {SYSTEM}"));
    }

    /// Takes all of it away.
    pub(crate) fn close(self, cluster: &Cluster) {
        cluster.kubectl("delete ingress,secret shop");
        cluster.kubectl("delete deployment,service,poddisruptionbudget shop api");
    }
}

/// A pool by MetalLB's old ConfigMap, beside one by its objects.
pub(crate) fn old_pools(cluster: &Cluster) {
    cluster.control.apply(OLD_POOL).unwrap();
    let in_old_pool = |ip: IpAddr| matches!(ip, IpAddr::V4(ip) if (210..=219).contains(&ip.octets()[3]));
    let ip = external_ip(cluster, "by-old-pool");
    assert!(in_old_pool(ip), "{ip}");
    cluster.kubectl("delete service by-old-pool");
    cluster.kubectl("delete configmap config -n metallb-system");
}

const OLD_POOL: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: config, namespace: metallb-system}
data:
  config: |
    address-pools:
    - {name: old, protocol: layer2, addresses: [192.168.77.210-192.168.77.219]}
---
apiVersion: v1
kind: Service
metadata:
  name: by-old-pool
  annotations: {metallb.universe.tf/address-pool: old}
spec: {type: LoadBalancer, ports: [{port: 80}]}
";
