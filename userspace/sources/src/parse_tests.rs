//! What one document becomes: the rules of each kind by example, and arbitrary bytes without a panic.

use roadstead_model::Selection;

use super::*;
use crate::object::Object;

/// Every kind, and most of the fields that are read.
const ALL: &str = include_str!("../tests/all.yaml");

fn problems(text: &str) -> Vec<String> {
    let parsed = parse(&Arc::from(Path::new("f.yaml")), text.as_bytes());
    parsed.problems.iter().map(|problem| problem.to_string().replace("f.yaml:", "")).collect()
}

#[test]
fn every_kind_is_read() {
    let parsed = parse(&Arc::from(Path::new("f.yaml")), ALL.as_bytes());
    assert_eq!(parsed.problems, []);
    let mut kinds: Vec<_> = parsed.objects.iter().map(|object| object.key.kind.as_str()).collect();
    kinds.dedup();
    let all = [
        "Service",
        "EndpointSlice",
        "Endpoints",
        "Pod",
        "Node",
        "Namespace",
        "Ingress",
        "IngressClass",
        "Secret",
        "ConfigMap",
        "IPAddressPool",
        "L2Advertisement",
    ];
    assert_eq!(kinds, all);
}

/// Checks the problems of a Service whose spec is the given flow mapping; the mapping is all on line 4.
fn check_service(spec: &str, expected: &[&str]) {
    let found = problems(&format!("apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec: {{{spec}}}\n"));
    let expected: Vec<_> = expected
        .iter()
        .map(|text| match text.strip_prefix('~') {
            Some(text) => format!("4: warning: Service default/web: spec.{text}"),
            None => format!("4: error: Service default/web: spec.{text}"),
        })
        .collect();
    assert_eq!(found, expected, "{spec}");
}

#[test]
fn services_are_refused_as_by_an_api_server() {
    let ports = "ports: [{port: 80}]";
    let with = |more: &str| format!("{ports}, {more}");
    check_service(ports, &[]);
    check_service("type: ClusterIP", &["ports: must name at least one port"]);
    check_service("clusterIP: None", &[]);
    check_service(
        "type: Cluster",
        &["type: \"Cluster\" is not known, expected ClusterIP, NodePort, LoadBalancer or ExternalName"],
    );
    check_service(
        &with("type: NodePort, clusterIP: None"),
        &["clusterIP: may not be None for a Service of type NodePort"],
    );
    check_service(
        "ports: [{port: 80}, {port: 81, name: a}]",
        &["ports[0].name: is missing, every port of several needs a name"],
    );
    check_service(
        "ports: [{port: 80, name: a}, {port: 80, name: a}]",
        &["ports[1].name: \"a\" names an earlier port too", "ports[1].port: 80/TCP is given twice"],
    );
    check_service("ports: [{port: 80, name: a}, {port: 80, name: b, protocol: UDP}]", &[]);
    check_service("ports: [{port: 80, nodePort: 30000}]", &["ports[0].nodePort: may not be set for type ClusterIP"]);
    check_service(
        "ports: [{port: 80, protocol: tcp}]",
        &["ports[0].protocol: unknown protocol \"tcp\", expected TCP, UDP or SCTP"],
    );
    check_service(
        &with("clusterIPs: [10.96.0.1, 10.96.0.2]"),
        &["clusterIPs[1]: at most one address of each family may be given"],
    );
    check_service(
        &with("clusterIP: 10.96.0.1, ipFamilies: [IPv6]"),
        &["ipFamilies[0]: is IPv6, but 10.96.0.1 is IPv4"],
    );
    check_service(
        &with("externalIPs: [127.0.0.1, 192.0.2.1, 'x']"),
        &["externalIPs[0]: 127.0.0.1 is a loopback address", "externalIPs[2]: \"x\" is no IP address"],
    );
    check_service(
        &with("externalTrafficPolicy: Local"),
        &["externalTrafficPolicy: may only be set for a Service that is reachable from outside"],
    );
    check_service(&with("sessionAffinity: ClientIP"), &[]);
    check_service(&with("trafficDistribution: PreferSameNode"), &[]);
    check_service(
        &with("trafficDistribution: PreferFar"),
        &["trafficDistribution: \"PreferFar\" is not known, expected PreferClose or PreferSameZone or PreferSameNode"],
    );
    check_service("ports: [{port: 80, protocol: SCTP}]", &["~ports[0].protocol: SCTP is not balanced yet"]);
    check_service(
        &with("sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 86401}}"),
        &["sessionAffinityConfig.clientIP.timeoutSeconds: must be 1 to 86400 seconds"],
    );
    check_service(
        &with("loadBalancerSourceRanges: [10.0.0.0/8]"),
        &["loadBalancerSourceRanges: may only be set for type LoadBalancer"],
    );
    check_service(&with("type: LoadBalancer, loadBalancerSourceRanges: [' 10.0.0.0/8', \"2001:db8::/32\\t\"]"), &[]);
    check_service(
        &with("type: LoadBalancer, loadBalancerSourceRanges: [10.0.0.1, ' ', 10.0.0.0/33]"),
        &[
            "loadBalancerSourceRanges[0]: \"10.0.0.1\" is no CIDR such as 192.0.2.0/24",
            "loadBalancerSourceRanges[1]: \" \" is no CIDR such as 192.0.2.0/24",
            "loadBalancerSourceRanges[2]: \"10.0.0.0/33\" is no CIDR such as 192.0.2.0/24",
        ],
    );
    let health = "healthCheckNodePort: may only be set for type LoadBalancer with externalTrafficPolicy Local";
    check_service(&with("type: LoadBalancer, healthCheckNodePort: 30000"), &[health]);
    check_service(&with("type: NodePort, externalTrafficPolicy: Local, healthCheckNodePort: 30000"), &[health]);
    check_service(&with("type: LoadBalancer, externalTrafficPolicy: Local, healthCheckNodePort: 30000"), &[]);
    check_service(
        "type: ExternalName, externalName: A_b",
        &["externalName: \"A_b\" must be a DNS name: labels of a-z, 0-9 and '-' joined by '.', at most 253 characters"],
    );
}

fn objects(text: &str) -> Vec<Object> {
    let parsed = parse(&Arc::from(Path::new("f.yaml")), text.as_bytes());
    assert_eq!(parsed.problems, [], "{text}");
    parsed.objects.into_iter().map(|parsed| parsed.object).collect()
}

#[test]
fn the_selection_of_backends_is_an_annotation() {
    let text = |value: &str| {
        let annotations = format!("annotations: {{roadstead.dev/load-balancing: {value}}}");
        format!(
            "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\n  {annotations}\nspec: {{ports: [{{port: 80}}]}}\n"
        )
    };
    for selection in [Selection::Random, Selection::Maglev] {
        let found = objects(&text(selection.as_str()));
        assert!(matches!(&found[..], [Object::Service(draft)] if draft.service.selection == Some(selection)));
    }
    assert_eq!(
        problems(&text("Maglev")),
        [
            "5: error: Service default/web: metadata.annotations[roadstead.dev/load-balancing]: \"Maglev\" is not known, expected random or maglev"
        ]
    );
}

#[test]
fn nodes_tell_that_they_are_going() {
    let check = |metadata: &str, spec: &str, expected: bool| {
        let text = format!("apiVersion: v1\nkind: Node\nmetadata: {{name: n{metadata}}}\nspec: {{{spec}}}\n");
        assert!(matches!(&objects(&text)[..], [Object::Node(node)] if node.is_going == expected), "{text}");
    };
    check("", "", false);
    check(", deletionTimestamp: 2026-01-01T00:00:00Z", "", true);
    check("", "taints: [{key: ToBeDeletedByClusterAutoscaler, effect: NoSchedule, value: '1700000000'}]", true);
    check("", "taints: [{key: node.kubernetes.io/unschedulable, effect: NoSchedule}]", false);
}

#[test]
fn ingresses_are_refused_as_by_an_api_server() {
    let check = |spec: &str, expected: &[&str]| {
        let head = "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: i}\n";
        let expected: Vec<_> = expected.iter().map(|text| format!("4: error: Ingress default/i: {text}")).collect();
        assert_eq!(problems(&format!("{head}spec: {{{spec}}}\n")), expected, "{spec}");
    };
    let rule = |host: &str, path: &str, rest: &str| {
        format!(
            "rules: [{{host: {host}, http: {{paths: [{{path: {path}, {rest} backend: {{service: {{name: a, port: \
             {{number: 80}}}}}}}}]}}}}]"
        )
    };
    check(&rule("A.example", "/", "pathType: Exact,"), &[]);
    check(&rule("'*.a.example'", "/a", "pathType: Prefix,"), &[]);
    check("tls: []", &["spec: must hold defaultBackend or rules"]);
    let host = "spec.rules[0].host";
    check(
        &rule("'*'", "/", "pathType: Exact,"),
        &[&format!("{host}: \"*\" may have '*' only as its whole first label")],
    );
    check(
        &rule("a.*.b", "/", "pathType: Exact,"),
        &[&format!("{host}: \"a.*.b\" may have '*' only as its whole first label")],
    );
    check(
        &rule("10.0.0.1", "/", "pathType: Exact,"),
        &[&format!("{host}: \"10.0.0.1\" is an IP address, expected a DNS name")],
    );
    let path = "spec.rules[0].http.paths[0]";
    check(
        &rule("a", "/", ""),
        &[&format!("{path}.pathType: is missing, expected Exact or Prefix or ImplementationSpecific")],
    );
    check(&rule("a", "b", "pathType: Prefix,"), &[&format!("{path}.path: \"b\" does not start with '/'")]);
    check(
        &rule("a", "/a//b", "pathType: Prefix,"),
        &[&format!("{path}.path: \"/a//b\" holds \"//\", which is read in several ways")],
    );
    check("defaultBackend: {service: {name: a}}", &["spec.defaultBackend.service.port: must hold name or number"]);
}

#[test]
fn other_kinds_and_versions() {
    let check = |text: &str, expected: &[&str]| assert_eq!(problems(text), expected, "{text}");
    check("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}", &[]);
    check("apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: a}", &[]);
    check("a: b", &["1: error: kind: is missing"]);
    check("- a", &["1: error: this is no Kubernetes object"]);
    check("kind: Service\nmetadata: {name: a}", &["1: error: apiVersion: is missing"]);
    check(
        "apiVersion: v1\nkind: Service\nmetadata:\n  namespace: a",
        &["4: error: metadata.name: is missing, so this Service cannot be told from others"],
    );
    check(
        "apiVersion: networking.k8s.io/v1beta1\nkind: Ingress\nmetadata: {name: a}",
        &[
            "1: warning: Ingress default/a: apiVersion: networking.k8s.io/v1beta1 is not read, only networking.k8s.io/v1 is",
        ],
    );
    check(
        "apiVersion: metallb.io/v1beta2\nkind: BGPPeer\nmetadata: {name: a, namespace: b}",
        &["2: warning: BGPPeer b/a: kind: is not supported yet"],
    );
    check(
        "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ntype: kubernetes.io/tls\ndata:\n  tls.crt: |\n    YW\n    Jj\n",
        &["6: error: Secret default/a: data: tls.key is missing, which type kubernetes.io/tls needs"],
    );
    check(
        "apiVersion: v1\nkind: Service\nkind: Service\nmetadata: {name: a}",
        &["1: error: duplicate entry with key \"kind\""],
    );
    check(
        "kind: List\napiVersion: v1\nitems:\n- apiVersion: v1\n  kind: Service\n  metadata: {name: a}\n  spec:\n    ports:\n    - port: x\n- apiVersion: v1\n  kind: Service\n  metadata: {name: b}\n  spec:\n    ports:\n    - port: 0\n",
        &[
            "9: error: Service default/a: spec.ports[0].port: invalid type: string \"x\", expected i32",
            "15: error: Service default/b: spec.ports[0].port: 0 is no port, expected 1 to 65535",
        ],
    );
    check(
        "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {name: a}\nspec:\n  addresses:\n  - 192.0.2.0/24\n  - 192.0.2.9-192.0.2.4\n  - 192.0.2.1-192.0.2.2\n",
        &[
            "7: error: IPAddressPool default/a: spec.addresses[1]: the first address of a range must not be above the last",
            "8: error: IPAddressPool default/a: spec.addresses[2]: 192.0.2.1-192.0.2.2 overlaps 192.0.2.0-192.0.2.255 of the same pool",
        ],
    );
}

#[test]
fn kinds_that_nobody_knows() {
    let check = |text: &str, expected: &[&str]| assert_eq!(problems(text), expected, "{text}");
    let misspelt = "kind: is no kind of this apiVersion, so the object is not read";
    check(
        "apiVersion: v1\nkind: Servise\nmetadata: {name: a}",
        &[&format!("2: warning: Servise default/a: {misspelt}")],
    );
    check(
        "apiVersion: networking.k8s.io/v1\nkind: Ingres\nmetadata: {name: a}",
        &[&format!("2: warning: Ingres default/a: {misspelt}")],
    );
    for kind in ["ServiceAccount", "Config", "EventList", "PersistentVolumeClaim"] {
        check(&format!("apiVersion: v1\nkind: {kind}\nmetadata: {{name: a}}"), &[]);
    }
    check("apiVersion: example.org/v1\nkind: AllowList\nitems: {a: b}", &[]);
    check("apiVersion: example.org/v1\nkind: AllowList\nitems: [a, b]", &[]);
    check("apiVersion: v1\nkind: ServiceList\nitems: {a: b}", &["3: error: items: is no list"]);
    check(
        "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: List\n  items: []",
        &["5: error: kind: a list inside a list is not read"],
    );
}

#[test]
fn merge_keys_are_followed() {
    let text = "apiVersion: v1\nkind: Service\nmetadata: {name: a, annotations: {b/c.d: [x]}}\nspec: {}\n";
    assert_eq!(
        problems(text),
        ["3: error: Service default/a: metadata.annotations.b/c.d: invalid type: sequence, expected a string"]
    );
    let port = |base: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: a}}\nspec:\n  ports:\n  - &p {{port: 80, name: a}}\n  - <<: {base}\n    name: b\n    port: 0\n"
        )
    };
    assert_eq!(
        problems(&port("*p")),
        ["9: error: Service default/a: spec.ports[1].port: 0 is no port, expected 1 to 65535"]
    );
    assert_eq!(problems(&port("*p").replace("    port: 0\n", "    protocol: UDP\n")), [""; 0]);
    assert!(problems(&port("1"))[0].contains("expected a mapping or list of mappings for merging"));
}

#[test]
fn many_findings_of_one_list_take_one_reading() {
    let item = |index: usize| {
        format!(
            "- apiVersion: v1\n  kind: Service\n  metadata: {{name: s{index}}}\n  spec:\n    ports: [{{port: x}}]\n"
        )
    };
    let text: String = (0..2000).map(item).collect();
    let start = std::time::Instant::now();
    let found = problems(&format!("apiVersion: v1\nkind: List\nitems:\n{text}"));
    assert_eq!(found.len(), 2000);
    assert!(found[1999].starts_with("10003: error: Service default/s1999: spec.ports[0].port"), "{}", found[1999]);
    assert!(start.elapsed() < std::time::Duration::from_secs(10), "{:?}", start.elapsed());
}

#[test]
fn mutations_of_manifests_do_not_panic() {
    // xorshift64*: the same mutations in every run, so that a failure can be repeated.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: usize| {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        usize::try_from(state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33).unwrap() % below
    };
    let spice: [&[u8]; 12] =
        [b"---\n", b"{", b"[", b"- ", b"&a ", b"*a", b"\xff", b"\t", b"!!x ", b"? ", b"99999999999", b"null"];
    let documents: Vec<&str> = ALL.split("---\n").collect();
    for round in 0..3000 {
        let mut bytes = documents[round % documents.len()].as_bytes().to_vec();
        for _ in 0..=random(4) {
            if bytes.is_empty() {
                break;
            }
            let (at, other) = (random(bytes.len()), random(bytes.len()));
            match random(4) {
                0 => bytes[at] = u8::try_from(random(256)).unwrap(),
                1 => drop(bytes.drain(at.min(other)..at.max(other))),
                2 => drop(bytes.splice(at..at, spice[random(spice.len())].iter().copied())),
                _ => bytes.truncate(at),
            }
        }
        fuzz_manifest(&bytes);
    }
    fuzz_manifest(b"");
    fuzz_manifest(&[b'['; 4096]);
}
