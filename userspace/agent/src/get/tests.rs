//! What `get` prints for a small directory.

use std::collections::BTreeMap;

use clap::Parser as _;
use roadstead_model::{IngressStatus, ObjectName};
use roadstead_sources::StatusWriter;

use super::*;

const MANIFESTS: &str = r"
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: LoadBalancer
  clusterIP: 10.96.0.9
  selector: {app: web}
  ports: [{name: http, port: 80, nodePort: 30080}, {name: dns, port: 53, protocol: UDP, nodePort: 30053}]
---
apiVersion: v1
kind: Service
metadata: {name: alias, namespace: other}
spec: {type: ExternalName, externalName: example.org}
---
apiVersion: v1
kind: Pod
metadata: {name: web-1, labels: {app: web}}
status: {podIP: 10.1.0.5}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: shop}
spec:
  ingressClassName: roadstead
  tls: [{hosts: [shop.example], secretName: shop}]
  rules:
  - host: shop.example
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {name: http}}}}]}
---
apiVersion: v1
kind: Node
metadata: {name: n1}
spec: {podCIDR: 10.1.0.0/24}
status: {addresses: [{type: InternalIP, address: 192.0.2.11}]}
---
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: lan, namespace: default}
spec: {addresses: [192.0.2.100-192.0.2.110]}
";

#[derive(clap::Parser)]
struct Cli {
    #[command(flatten)]
    get: GetFlags,
}

fn get(arguments: &str) -> String {
    get_with(arguments, |_| {})
}

/// Output and warnings, with more in the folder, which is the state's too.
fn get_with(arguments: &str, add: impl FnOnce(&std::path::Path)) -> String {
    let folder = tempfile::tempdir().unwrap();
    add(folder.path());
    std::fs::write(folder.path().join("a.yaml"), MANIFESTS).unwrap();
    let flags = ["--manifests", folder.path().to_str().unwrap(), "--state-dir", folder.path().to_str().unwrap()];
    let flags = Cli::try_parse_from(["get"].into_iter().chain(arguments.split(' ')).chain(flags)).unwrap().get;
    let snapshot = roadstead_sources::load(&flags.source.manifests, &flags.source.options());
    assert_eq!(snapshot.problems, []);
    let mut out = Vec::new();
    let mut warnings = Vec::new();
    let told = speaker::Told::new(&roadstead_sources::status_objects(&flags.source.state_dir));
    print(&flags, rows::all(flags.kind, &snapshot, &told, 0), &mut out, &mut warnings).unwrap();
    String::from_utf8([out, warnings].concat()).unwrap()
}

#[test]
fn tables_are_those_of_kubectl() {
    let cases = [
        (
            "svc",
            "NAME   TYPE           CLUSTER-IP   EXTERNAL-IP   PORT(S)                     AGE\n\
             web    LoadBalancer   10.96.0.9    <pending>     80:30080/TCP,53:30053/UDP   <unknown>\n",
        ),
        (
            "services -n other",
            "NAME    TYPE           CLUSTER-IP   EXTERNAL-IP   PORT(S)   AGE\n\
             alias   ExternalName   <none>       example.org   <none>    <unknown>\n",
        ),
        (
            "endpoints -A -o wide",
            "NAMESPACE   NAME   ENDPOINTS                   AGE         SLICES            NODES\n\
             default     web    10.1.0.5:53,10.1.0.5:80   <unknown>   web-pods-ipv4-1   <none>\n",
        ),
        (
            "ingress",
            "NAME   CLASS       HOSTS          ADDRESS   PORTS     AGE\n\
             shop   roadstead   shop.example             80, 443   <unknown>\n",
        ),
        ("nodes n1", "NAME   INTERNAL-IP   EXTERNAL-IP   AGE\nn1     192.0.2.11    <none>        <unknown>\n"),
        (
            "pools lan",
            "NAME   AUTO ASSIGN   AVOID BUGGY IPS   ADDRESSES\n\
             lan    true          false             [\"192.0.2.100-192.0.2.110\"]\n",
        ),
    ];
    for (arguments, expected) in cases {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let found = get(arguments);
        if arguments.starts_with("endpoints") {
            let mut found = words(&found);
            for cell in &mut found {
                let mut parts: Vec<_> = cell.split(',').map(str::to_owned).collect();
                parts.sort();
                *cell = parts.join(",");
            }
            assert_eq!(found, words(expected), "{arguments}");
        } else {
            assert_eq!(found, expected, "{arguments}");
        }
    }
}

#[test]
fn objects_are_those_of_the_api() {
    let service: Value = serde_json::from_str(&get("svc web -o json")).unwrap();
    assert_eq!(service["kind"], "Service");
    assert_eq!(service["spec"]["ports"][0]["targetPort"], 80);
    assert_eq!(service["spec"]["clusterIPs"], json!(["10.96.0.9"]));
    assert_eq!(service["status"], json!({"loadBalancer": {}}));
    let list: Value = serde_json::from_str(&get("svc -A -o json")).unwrap();
    assert_eq!(list["items"].as_array().unwrap().len(), 2);
    let none: Value = serde_json::from_str(&get("svc -n empty -o json")).unwrap();
    assert_eq!(none["items"], json!([]));
    assert!(
        get("ing shop -o yaml").contains("- host: shop.example\n    http:\n      paths:\n      - pathType: Prefix\n")
    );
}

#[test]
fn an_ingress_shows_its_address_and_what_another_one_has() {
    let (name, lost) = (ObjectName::new("default", "shop"), "spec.rules[0].http.paths[0]: is served by another");
    let status = IngressStatus { addresses: vec!["192.0.2.10".parse().unwrap()], conflicts: vec![lost.to_owned()] };
    let get = |arguments: &str| {
        get_with(arguments, |folder| {
            StatusWriter::new(folder).write_ingresses(&BTreeMap::from([(name.clone(), status.clone())])).unwrap();
        })
    };
    let table = get("ingress");
    assert!(table.contains("shop.example   192.0.2.10   80, 443"), "{table}");
    assert!(table.ends_with(&format!("Warning: Ingress default/shop: {lost}\n")), "{table}");
    assert!(get("ingress -o wide").contains(&format!("shop      {lost}\n")));
    let object: Value = serde_json::from_str(&get("ingress shop -o json")).unwrap();
    assert_eq!(object["metadata"]["annotations"]["roadstead.dev/conflicts"], lost);
    assert_eq!(object["status"]["loadBalancer"]["ingress"][0]["ip"], "192.0.2.10");
}

#[test]
fn ages_are_kubectls() {
    let cases = [
        (5, "5s"),
        (119, "119s"),
        (120, "2m"),
        (125, "2m5s"),
        (3600, "60m"),
        (3 * 3600, "3h"),
        (3 * 3600 + 300, "3h5m"),
        (47 * 3600, "47h"),
        (49 * 3600, "2d1h"),
        (10 * 86_400, "10d"),
        (800 * 86_400, "2y70d"),
        (4000 * 86_400, "10y"),
    ];
    for (seconds, expected) in cases {
        assert_eq!(rows::age(Some(1000), 1000 + seconds), expected, "{seconds}");
    }
    assert_eq!(rows::age(None, 0), "<unknown>");
    assert_eq!(rows::age(Some(10), 0), "0s");
}

#[test]
fn what_the_speaker_tells_is_shown() {
    let prepare = |folder: &std::path::Path| {
        let writer = StatusWriter::new(folder);
        let name = ObjectName::new("default", "web");
        let status = roadstead_sources::ServiceStatus {
            ips: vec!["192.0.2.100".parse().unwrap()],
            pool: Some("lan".to_owned()),
            pending: Some(("AdditionalAssignFailed".to_owned(), "no IPv6 range in pool lan".to_owned())),
        };
        writer.write_services(&BTreeMap::from([(name, status)])).unwrap();
        let pool = json!({
            "kind": "IPAddressPool", "apiVersion": "metallb.io/v1beta1", "metadata": {"namespace": "default", "name": "lan"},
            "status": {"assignedIPv4": 1, "availableIPv4": 10, "assignedIPv6": 0, "availableIPv6": i64::MAX},
        });
        let announced = json!({
            "kind": "ServiceL2Status", "metadata": {"namespace": "metallb-system", "name": "l2-x"},
            "apiVersion": "metallb.io/v1beta1",
            "status": {"node": "n1", "serviceName": "web", "serviceNamespace": "default", "interfaces": [{"name": "eth0"}]},
        });
        writer.write_objects("pools.yaml", &[pool]).unwrap();
        writer.write_objects("l2.yaml", &[announced]).unwrap();
    };
    let services = get_with("svc web -o wide", prepare);
    let row = services.lines().nth(1).unwrap();
    assert!(row.ends_with("lan    n1             no IPv6 range in pool lan"), "{services}");
    let pools = get_with("pools lan -o wide", prepare);
    assert!(pools.contains("1 IPv4, 0 IPv6   10 IPv4, endless IPv6"), "{pools}");
    let pool: Value = serde_json::from_str(&get_with("pools lan -o json", prepare)).unwrap();
    assert_eq!(pool["status"]["assignedIPv4"], 1);
    let service: Value = serde_json::from_str(&get_with("svc web -o json", prepare)).unwrap();
    assert_eq!(service["metadata"]["annotations"]["metallb.io/ip-allocated-from-pool"], "lan");
}
