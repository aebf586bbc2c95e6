//! Hosts, default backends, conflicts, classes, ports: who takes a request before its path is looked at, and what is
//! answered where nobody does (reference 2.1).

use super::{
    client::{ask, get},
    daemon::{Proxy, wait_until},
    manifests::{ingress, service},
    pod::{Pod, host_address},
};

/// The daemon on Services that are named as their pods, and on these manifests.
fn start(names: &[&str], flags: &[&str], text: &str) -> Option<(Proxy, Vec<Pod>)> {
    let ip = host_address()?;
    let pods: Vec<Pod> = names.iter().map(|name| Pod::start(ip, name)).collect();
    let services: String = names.iter().zip(&pods).map(|(name, pod)| service(name, &[pod])).collect();
    Some((Proxy::with(flags, &[("services.yaml", &services), ("ingress.yaml", text)]), pods))
}

/// Who answers: a pod's name, or a status.
fn answers(proxy: &Proxy, host: &str, target: &str) -> String {
    let answer = ask(proxy.http, get(host, target));
    if answer.status == 200 { answer.seen().pod } else { answer.status.to_string() }
}

const ROOT: &str = "/";

#[test]
fn the_host_is_chosen_before_the_path() {
    let text = [
        ingress("exact", "a.example", &[("Prefix", ROOT, "exact")]),
        ingress("wild", "*.example", &[("Prefix", ROOT, "wild")]),
        ingress("deep", "*.a.example", &[("Prefix", "/deep", "deep")]),
        ingress("any", "", &[("Prefix", "/any", "any")]),
    ]
    .concat();
    let Some((proxy, _pods)) = start(&["exact", "wild", "deep", "any"], &[], &text) else { return };
    for (host, target, expected) in [
        ("a.example", "/", "exact"),
        ("A.EXAMPLE", "/", "exact"),
        ("a.example.", "/", "exact"),
        ("a.example:8080", "/", "exact"),
        ("a.example.:80", "/", "exact"),
        ("b.example", "/", "wild"),
        ("B.Example", "/any", "wild"),
        ("example", "/", "404"),
        ("example", "/any", "any"),
        ("x.b.example", "/", "404"),
        ("x.a.example", "/deep", "deep"),
        // A host that is found is not left for another one: neither for a wider wildcard nor for the rule of all hosts.
        ("x.a.example", "/", "404"),
        ("x.a.example", "/any", "404"),
        ("y.x.a.example", "/deep", "404"),
        ("elsewhere", "/any/x", "any"),
        ("192.0.2.1", "/any", "any"),
        ("[2001:db8::1]", "/any", "any"),
        ("elsewhere", "/", "404"),
    ] {
        assert_eq!(answers(&proxy, host, target), expected, "{host} {target}");
    }
}

const DEFAULTS: &str = r#"
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: { name: rules-and-default }
spec:
  defaultBackend: { service: { name: own-default, port: { number: 8080 } } }
  rules:
  - host: a.example
    http:
      paths:
      - { path: /web, pathType: Prefix, backend: { service: { name: web, port: { name: http } } } }
  - host: empty.example
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: { name: only-default }
spec:
  defaultBackend: { service: { name: all, port: { number: 8080 } } }
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: { name: odd-backends }
spec:
  rules:
  - host: odd.example
    http:
      paths:
      - { path: /resource, pathType: Prefix, backend: { resource: { apiGroup: k8s.example.com, kind: Bucket, name: b } } }
      - { path: /no-service, pathType: Prefix, backend: { service: { name: gone, port: { number: 80 } } } }
      - { path: /no-port, pathType: Prefix, backend: { service: { name: web, port: { number: 81 } } } }
      - { path: /no-name, pathType: Prefix, backend: { service: { name: web, port: { name: https } } } }
      - { path: /empty, pathType: Prefix, backend: { service: { name: empty, port: { number: 8080 } } } }
      - { path: /web, pathType: Prefix, backend: { service: { name: web, port: { number: 8080 } } } }
"#;

#[test]
fn default_backends_take_what_no_rule_takes_and_missing_ones_are_503() {
    let text = [DEFAULTS, &service::<&Pod>("empty", &[])].concat();
    let Some((proxy, _pods)) = start(&["web", "own-default", "all"], &[], &text) else { return };
    for (host, target, expected) in [
        ("a.example", "/web", "web"),
        ("a.example", "/", "own-default"),
        ("empty.example", "/web", "own-default"),
        ("b.example", "/web", "all"),
        ("b.example", "/", "all"),
        ("odd.example", "/resource", "503"),
        ("odd.example", "/no-service", "503"),
        ("odd.example", "/no-port", "503"),
        ("odd.example", "/no-name", "503"),
        ("odd.example", "/empty", "503"),
        ("odd.example", "/web", "web"),
        ("odd.example", "/", "404"),
    ] {
        assert_eq!(answers(&proxy, host, target), expected, "{host} {target}");
    }
    // What cannot be served is told by the object's name and field.
    let log = proxy.log();
    for told in ["default/odd-backends", "Bucket b", "default/gone does not exist", "no TCP port 81"] {
        assert!(log.contains(told), "{told:?} in {log}");
    }
}

/// The same host and path twice: the older Ingress has it, whatever their names; the rest of the younger one serves.
#[test]
fn the_oldest_ingress_wins_a_conflict_and_the_loser_is_told() {
    let dated = |name: &str, date: &str, own: &str| {
        let text = ingress(name, "a.example", &[("Prefix", "/both", name), ("Prefix", own, name)]);
        text.replace(
            &format!("metadata: {{ name: {name},"),
            &format!("metadata: {{ name: {name}, creationTimestamp: {date},"),
        )
    };
    let text =
        [dated("a-young", "\"2026-02-01T00:00:00Z\"", "/young"), dated("z-old", "\"2026-01-01T00:00:00Z\"", "/old")];
    let Some((proxy, _pods)) = start(&["a-young", "z-old"], &[], &text.concat()) else { return };
    for (target, expected) in [("/both", "z-old"), ("/young", "a-young"), ("/old", "z-old")] {
        assert_eq!(answers(&proxy, "a.example", target), expected, "{target}");
    }
    let log = proxy.log();
    let told = "is already served by Ingress default/z-old";
    assert!(log.contains("default/a-young") && log.contains(told), "{log}");
    // The loser's own status says so, though no address is published here; and it ends with the conflict.
    wait_until("the status tells the loser", || proxy.status().contains(told));
    assert!(proxy.status().contains("name: a-young") && !proxy.status().contains("name: z-old"), "{}", proxy.status());
    // Without the older one the younger has it all.
    proxy.write("ingress.yaml", &dated("a-young", "\"2026-02-01T00:00:00Z\"", "/young"));
    wait_until("the younger takes over", || answers(&proxy, "a.example", "/both") == "a-young");
    assert_eq!(answers(&proxy, "a.example", "/old"), "404");
    wait_until("the status forgets it", || !proxy.status().contains("a-young"));
}

fn class(name: &str, controller: &str, is_default: &str) -> String {
    format!(
        r#"---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {{ name: {name}, annotations: {{ ingressclass.kubernetes.io/is-default-class: "{is_default}" }} }}
spec: {{ controller: {controller} }}
"#
    )
}

/// Ingresses of these classes, each for the host `NAME.example`; "none" names no class, "old" names `ours` by annotation.
fn of_classes(names: &[&str]) -> String {
    let one = |name: &&str| {
        let text = ingress(name, &format!("{name}.example"), &[("Prefix", ROOT, "web")]);
        match *name {
            "none" => text,
            "old" => text.replace("annotations: {  }", "annotations: { kubernetes.io/ingress.class: ours }"),
            name => text.replace("spec:\n", &format!("spec:\n  ingressClassName: {name}\n")),
        }
    };
    names.iter().map(one).collect()
}

#[test]
fn classes_say_whose_an_ingress_is() {
    let (ours, nginx) = ("roadstead.dev/ingress", "k8s.io/ingress-nginx");
    let all = ["ours", "nginx", "none", "old", "roadstead", "unknown"];
    let cases: [(&[&str], String, &[&str]); 6] = [
        (&[], String::new(), &["none", "roadstead"]),
        (&[], [class("ours", ours, "false"), class("nginx", nginx, "false")].concat(), &["ours", "old", "roadstead"]),
        (&[], class("ours", ours, "true"), &["ours", "old", "roadstead", "none"]),
        (&[], [class("ours", ours, "false"), class("nginx", nginx, "true")].concat(), &["ours", "old", "roadstead"]),
        (&["--ingress-class", "nginx"], class("nginx", nginx, "true"), &["nginx", "none"]),
        (&["--ingress-class", "nginx", "--ingress-class", "ours"], String::new(), &["nginx", "ours", "old"]),
    ];
    for (flags, classes, served) in cases {
        let text = [&*classes, &of_classes(&all)].concat();
        let Some((proxy, _pods)) = start(&["web"], flags, &text) else { return };
        for name in all {
            let expected = if served.contains(&name) { "web" } else { "404" };
            assert_eq!(
                answers(&proxy, &format!("{name}.example"), "/"),
                expected,
                "{name} with {flags:?} and {classes}"
            );
        }
    }
}
