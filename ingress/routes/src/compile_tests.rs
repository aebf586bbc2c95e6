//! What compiling reports and which of two Ingresses wins.

use roadstead_model::IngressTls;

use super::*;
use crate::{CertificateRef, Outcome, Scheme, fixture, route};

fn problems(snapshot: &Snapshot) -> Vec<String> {
    compile(snapshot, &Controller::default()).problems.iter().map(ToString::to_string).collect()
}

fn owner(snapshot: &Snapshot, host: &str, path: &str) -> String {
    let table = compile(snapshot, &Controller::default()).table;
    match route(&table, Scheme::Https, host, path) {
        Outcome::Proxy { route, .. } => route.ingress.to_string(),
        other => format!("{other:?}"),
    }
}

fn tls(hosts: &[&str], secret: &str) -> IngressTls {
    let hosts = hosts.iter().map(|host| fixture::host(host)).collect();
    IngressTls { hosts, secret: Some(ObjectName::new("default", secret)) }
}

#[test]
fn the_oldest_ingress_wins_and_the_loser_is_reported() {
    let mut snapshot = Snapshot::default();
    for (name, created) in [("default/young", 20), ("default/old", 10)] {
        let mut ingress = fixture::ingress(name);
        ingress.meta.created = Some(created);
        ingress.rules.push(fixture::rule(Some("foo.example"), &["P /foo web", "E /only web"]));
        fixture::add(&mut snapshot, ingress);
    }
    assert_eq!(owner(&snapshot, "foo.example", "/foo"), "default/old");
    let lost = "is already served by Ingress default/old";
    assert_eq!(
        problems(&snapshot),
        [
            format!(
                "warning: Ingress default/young: spec.rules[0].http.paths[0]: Prefix path \"/foo\" of host foo.example {lost}"
            ),
            format!(
                "warning: Ingress default/young: spec.rules[0].http.paths[1]: Exact path \"/only\" of host foo.example {lost}"
            ),
        ]
    );
}

#[test]
fn a_conflict_leaves_the_other_paths_of_the_loser() {
    let mut snapshot = Snapshot::default();
    for (name, paths) in [("default/a", &["P / web"][..]), ("default/b", &["P / api", "P /api api", "P /api api"])] {
        let mut ingress = fixture::ingress(name);
        ingress.rules.push(fixture::rule(None, paths));
        fixture::add(&mut snapshot, ingress);
    }
    assert_eq!(owner(&snapshot, "any.example", "/"), "default/a");
    assert_eq!(owner(&snapshot, "any.example", "/api/v1"), "default/b");
    let found = problems(&snapshot);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[1].ends_with("is given twice, the first one serves"), "{found:?}");
    let lost = "spec.rules[0].http.paths[0]: Prefix path \"/\" of any host is already served by Ingress default/a";
    let told = BTreeMap::from([(fixture::name("default/b"), vec![lost.to_owned()])]);
    assert_eq!(compile(&snapshot, &Controller::default()).conflicts, told, "what an Ingress does to itself is none");
}

#[test]
fn parts_that_cannot_be_served_are_reported() {
    let mut snapshot = Snapshot::default();
    fixture::add(&mut snapshot, fixture::ingress("default/empty"));
    let mut resource = fixture::ingress("default/resource");
    resource.default_backend =
        Some(IngressBackend::Resource { kind: "StorageBucket".to_owned(), name: "assets".to_owned() });
    fixture::add(&mut snapshot, resource);
    let mut doubled = fixture::ingress("default/slashes");
    doubled.rules.push(fixture::rule(None, &["P /a//b web"]));
    fixture::add(&mut snapshot, doubled);
    let found = problems(&snapshot).join("\n");
    assert!(found.contains("default/empty: spec.defaultBackend: is not set"), "{found}");
    assert!(found.contains("default/resource: spec.defaultBackend.resource: StorageBucket assets"), "{found}");
    assert!(found.contains("default/slashes: spec.rules[0].http.paths[0].path: \"/a//b\""), "{found}");
}

#[test]
fn certificates_belong_to_the_ingress_that_serves_the_host() {
    let mut snapshot = Snapshot::default();
    let mut thief = fixture::ingress("default/a-thief");
    thief.tls.push(tls(&["bank.example"], "stolen"));
    thief.rules.push(fixture::rule(Some("other.example"), &["P / web"]));
    fixture::add(&mut snapshot, thief);
    let mut bank = fixture::ingress("default/bank");
    bank.tls.push(tls(&["bank.example", "*.bank.example"], "bank"));
    bank.rules.push(fixture::rule(Some("bank.example"), &["P / web"]));
    fixture::add(&mut snapshot, bank);
    let compiled = compile(&snapshot, &Controller::default());
    let secret = |host: &str| {
        compiled.table.certificates().lookup(host).and_then(|entry| entry.secret.as_ref()).map(ToString::to_string)
    };
    assert_eq!(secret("bank.example").as_deref(), Some("default/bank"));
    assert_eq!(secret("www.bank.example").as_deref(), Some("default/bank"));
    assert_eq!(secret("a.b.bank.example"), None);
    assert_eq!(secret("other.example"), None);
    let conflicts = &compiled.conflicts[&fixture::name("default/a-thief")];
    assert!(conflicts.len() == 1 && conflicts[0].contains("already chosen by Ingress default/bank"), "{conflicts:?}");
}

#[test]
fn tls_without_hosts_means_the_hosts_of_the_rules_or_every_other() {
    let mut snapshot = Snapshot::default();
    let mut named = fixture::ingress("default/named");
    named.tls.push(tls(&[], "named"));
    named.rules.push(fixture::rule(Some("foo.example"), &["P / web"]));
    fixture::add(&mut snapshot, named);
    let mut hostless = fixture::ingress("default/hostless");
    hostless.tls.push(tls(&[], "fallback"));
    hostless.default_backend = Some(fixture::backend("web"));
    fixture::add(&mut snapshot, hostless);
    let table = compile(&snapshot, &Controller::default()).table;
    let secret = |entry: Option<&CertificateRef>| entry.and_then(|entry| entry.secret.clone());
    assert_eq!(secret(table.certificates().lookup("foo.example")), Some(ObjectName::new("default", "named")));
    assert_eq!(secret(table.certificates().default_certificate()), Some(ObjectName::new("default", "fallback")));
}

#[test]
fn endpoints_and_services_are_no_input_of_the_table() {
    let mut snapshot = Snapshot::default();
    fixture::add(&mut snapshot, fixture::ingress("default/web"));
    let mut after = snapshot.clone();
    fixture::service(&mut after, "default/web", "http", 80);
    assert!(same_inputs(&snapshot, &after));
    fixture::class(&mut after, "edge", "roadstead.dev/ingress", false);
    assert!(!same_inputs(&snapshot, &after));
    let replaced = |edit: fn(&mut Ingress)| {
        let mut replaced = snapshot.clone();
        let mut ingress = fixture::ingress("default/web");
        edit(&mut ingress);
        fixture::add(&mut replaced, ingress);
        same_inputs(&snapshot, &replaced)
    };
    assert!(
        replaced(|ingress| ingress.status.addresses.push("192.0.2.1".parse().unwrap())),
        "a status is what we write"
    );
    assert!(!replaced(|ingress| ingress.class = Some("edge".to_owned())));
    assert!(!replaced(|ingress| ingress.rules.push(fixture::rule(None, &["P / web"]))));
}

/// What an Ingress's annotations ask of TLS, host by host.
#[test]
fn the_oldest_ingress_that_asks_decides_about_tls_of_a_host() {
    let mut snapshot = Snapshot::default();
    let secret = "nginx.ingress.kubernetes.io/auth-tls-secret";
    for (name, created, key, value) in [
        ("default/plain", 10, "example.com/none", ""),
        ("default/first", 20, secret, "ca"),
        ("default/second", 30, secret, "other"),
        ("default/third", 40, "roadstead.dev/ssl-protocols", "TLSv1.3"),
    ] {
        let mut ingress = fixture::ingress(name);
        ingress.meta.created = Some(created);
        ingress.meta.annotations.insert(key.to_owned(), value.to_owned());
        ingress.rules.push(fixture::rule(Some("a.example"), &[&format!("P /{created} web")]));
        fixture::add(&mut snapshot, ingress);
    }
    let mut other = fixture::ingress("default/other");
    other.rules.push(fixture::rule(Some("b.example"), &["P / web"]));
    fixture::add(&mut snapshot, other);
    let table = compile(&snapshot, &Controller::default()).table;
    let [host] = table.tls_hosts() else { panic!("{:?}", table.tls_hosts()) };
    assert_eq!(host.auth_ingress, Some(ObjectName::new("default", "first")));
    assert_eq!(host.versions, crate::Versions::Only13);
    assert!(table.has_client_auth());
    assert_eq!(table.tls_host(Some("a.example")), Some(0));
    assert_eq!((table.tls_host(Some("b.example")), table.tls_host(None)), (None, None));
    let found = problems(&snapshot);
    let lost = "client certificates of host a.example are already asked for by Ingress default/first";
    assert!(found.iter().any(|text| text.contains("default/second") && text.ends_with(lost)), "{found:?}");
}

#[test]
fn hosts_without_a_name_of_their_own_can_ask_for_certificates_too() {
    let mut snapshot = Snapshot::default();
    let mut ingress = fixture::ingress("default/all");
    ingress.default_backend = Some(fixture::backend("web"));
    ingress.meta.annotations.insert("nginx.ingress.kubernetes.io/auth-tls-secret".to_owned(), "ca".to_owned());
    fixture::add(&mut snapshot, ingress);
    let mut named = fixture::ingress("default/named");
    named.rules.push(fixture::rule(Some("*.a.example"), &["P / web"]));
    fixture::add(&mut snapshot, named);
    let table = compile(&snapshot, &Controller::default()).table;
    assert_eq!((table.tls_host(None), table.tls_host(Some("unknown.example"))), (Some(0), Some(0)));
    assert_eq!(table.tls_host(Some("x.a.example")), None);
}

#[test]
fn passthrough_goes_where_the_root_goes_and_voids_the_rest() {
    let mut snapshot = Snapshot::default();
    for (name, created, path) in
        [("default/old", 10, "P /api web"), ("default/pass", 20, "P / tls"), ("default/late", 30, "P / x")]
    {
        let mut ingress = fixture::ingress(name);
        ingress.meta.created = Some(created);
        if created > 10 {
            let annotations = &mut ingress.meta.annotations;
            annotations.insert("nginx.ingress.kubernetes.io/ssl-passthrough".to_owned(), "true".to_owned());
            annotations.insert("nginx.ingress.kubernetes.io/ssl-redirect".to_owned(), "false".to_owned());
            annotations.insert("nginx.ingress.kubernetes.io/auth-tls-secret".to_owned(), "ca".to_owned());
        }
        ingress.rules.push(fixture::rule(Some("a.example"), &[path]));
        fixture::add(&mut snapshot, ingress);
    }
    let table = compile(&snapshot, &Controller::default()).table;
    let [host] = table.tls_hosts() else { panic!("{:?}", table.tls_hosts()) };
    let backend = host.passthrough.and_then(|id| table.backend(id)).expect("a backend");
    assert_eq!((backend.service.name.to_string().as_str(), &host.client_auth), ("tls", &None));
    let found = problems(&snapshot);
    let voids =
        "metadata.annotations[nginx.ingress.kubernetes.io/ssl-passthrough]: voids all other annotations of the Ingress";
    assert!(found.iter().any(|text| text.contains("default/pass") && text.ends_with(voids)), "{found:?}");
    let lost = "needs a Service at path / of host a.example that no older Ingress serves; not passed through";
    assert!(found.iter().any(|text| text.contains("default/late") && text.ends_with(lost)), "{found:?}");
}
