//! From manifests to the events that their owners get.

use std::sync::Arc;

use prometheus::Registry;
use roadstead_routes::Controller;
use roadstead_sources::{LoadOptions, load};

use super::*;
use crate::{
    control::Control,
    metrics::{Metrics, MetricsOptions},
    tls,
};

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {ports: [{port: 80}]}
---";

/// A proxy's control side on manifests, and what it tells.
struct Stage {
    folder: tempfile::TempDir,
    control: Control,
    told: Told,
}

impl Stage {
    fn new() -> Self {
        let metrics = Metrics::new(&Registry::new(), &MetricsOptions::default()).unwrap();
        let control = Control::new(Controller::default(), metrics, tls::provider()).unwrap();
        Self { folder: tempfile::tempdir().unwrap(), control, told: Told::new("node-a", &[], None) }
    }

    /// Applies this manifest behind the Service.
    fn apply(&mut self, manifest: &str, now: i64) {
        let path = self.folder.path().join("a.yaml");
        std::fs::write(&path, format!("{SERVICE}\n{manifest}")).unwrap();
        let snapshot = Arc::new(load(&[path], &LoadOptions::default()));
        assert_eq!(snapshot.problems, []);
        self.control.apply(&snapshot);
        let (news, snapshot) = self.control.take_news().unwrap();
        self.told.take(news, &snapshot, now);
    }

    /// Each event as `Kind/name type reason count`, sorted.
    fn shown(&self) -> Vec<String> {
        let text = |object: &Value| {
            let paths = ["/involvedObject/name", "/type", "/reason", "/count"];
            let words = paths.map(|path| object.pointer(path).unwrap().to_string().replace('"', ""));
            format!("{}/{}", object.pointer("/involvedObject/kind").unwrap().as_str().unwrap(), words.join(" "))
        };
        let mut shown: Vec<String> = self.told.objects().iter().map(text).collect();
        shown.sort();
        shown
    }

    fn messages(&self, reason: &str) -> Vec<String> {
        let objects = self.told.objects();
        let of_reason = objects.iter().filter(|object| object.get("reason").unwrap() == reason);
        of_reason.map(|object| object.get("message").unwrap().as_str().unwrap().to_owned()).collect()
    }
}

fn ingress(name: &str, more: &str, host: &str, service: &str) -> String {
    format!(
        "
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{name: {name}, namespace: shop, creationTimestamp: '2026-01-0{}T00:00:00Z'{more}}}
spec:
  ingressClassName: roadstead
  tls: [{{hosts: [{host}], secretName: {name}}}]
  rules:
  - host: {host}
    http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: {service}, port: {{number: 80}}}}}}}}]}}
---",
        name.len()
    )
}

fn secret(name: &str, more: &str) -> String {
    format!(
        "\napiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: shop}}\n\
         type: kubernetes.io/tls\nstringData: {{tls.crt: none, tls.key: none{more}}}\n---"
    )
}

#[test]
fn every_kind_of_fault_has_an_event_with_its_reason() {
    let mut stage = Stage::new();
    let annotations = ", annotations: {roadstead.dev/rewrite-target: '$', nginx.ingress.kubernetes.io/nothing: x, \
                       nginx.ingress.kubernetes.io/proxy-read-timeout: soon, \
                       nginx.ingress.kubernetes.io/server-snippet: 'lua_code_cache off;'}";
    let manifest = [
        ingress("a", "", "a.example", "gone"),
        ingress("bb", annotations, "b.example", "web"),
        ingress("ccc", "", "a.example", "web"),
        secret("bb", ""),
    ];
    stage.apply(&manifest.concat(), 100);
    assert!(stage.told.tell(100));
    assert_eq!(stage.shown(), ["Ingress/a Normal Sync 1", "Ingress/bb Normal Sync 1", "Ingress/ccc Normal Sync 1"]);
    assert!(!stage.told.tell(101), "what is wrong may be on its way to be right");
    assert!(stage.told.tell(102));
    let shown = stage.shown();
    for expected in [
        "Ingress/a Warning BackendNotFound 1",
        "Ingress/a Warning InvalidCertificateRef 1",
        "Ingress/bb Warning InvalidAnnotation 1",
        "Ingress/bb Warning InvalidSecretRef 1",
        "Ingress/bb Warning SnippetRefused 1",
        "Ingress/ccc Warning Conflicted 1",
        "Secret/bb Warning InvalidSecret 1",
    ] {
        assert!(shown.iter().any(|event| event == expected), "{expected} is not in {shown:#?}");
    }
    let conflict =
        "spec.rules[0].http.paths[0]: Prefix path \"/\" of host a.example is already served by Ingress shop/a";
    assert!(
        stage.messages("Conflicted").iter().any(|message| message == conflict),
        "{:?}",
        stage.messages("Conflicted")
    );
    assert_eq!(stage.messages("BackendNotFound"), ["service shop/gone does not exist; requests get 503"]);
    let of_secret = stage.messages("InvalidSecretRef");
    assert!(of_secret[0].starts_with("secret shop/bb: "), "{of_secret:?}");
    let annotations = stage.messages("InvalidAnnotation").join("\n");
    for key in ["nothing]: is not honoured", "proxy-read-timeout]: must be"] {
        assert!(annotations.contains(key), "{annotations}");
    }
}

#[test]
fn what_lasts_is_told_again_and_what_is_over_is_not() {
    let mut stage = Stage::new();
    let wrong = ingress("a", "", "a.example", "gone");
    stage.apply(&wrong, 0);
    stage.told.tell(5);
    let count = |stage: &Stage, reason: &str| {
        stage
            .shown()
            .iter()
            .filter(|event| event.contains(reason))
            .map(|event| event.rsplit(' ').next().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(count(&stage, "BackendNotFound"), ["1"]);
    // The same again is nothing new, but it is told again before a server forgets it.
    stage.apply(&wrong, 10);
    assert!(!stage.told.tell(20) && !stage.told.tell(AGAIN));
    assert!(stage.told.tell(AGAIN + 5));
    assert_eq!((count(&stage, "BackendNotFound"), count(&stage, "Sync")), (vec!["2".to_owned()], vec!["1".to_owned()]));
    // Another version is taken, and right.
    stage.apply(&ingress("a", "", "a.example", "web"), AGAIN + 10);
    assert!(stage.told.tell(AGAIN + 20));
    stage.told.tell(10 * AGAIN);
    assert_eq!(count(&stage, "BackendNotFound"), ["2"]);
    assert_eq!(count(&stage, "Sync"), ["2"]);
    // The same fault for another time is counted; with the Ingress its events go.
    stage.apply(&wrong, 11 * AGAIN);
    stage.told.tell(11 * AGAIN + 5);
    assert_eq!(count(&stage, "BackendNotFound"), ["3"]);
    stage.apply("", 12 * AGAIN);
    assert_eq!(stage.shown(), Vec::<String>::new());
}

#[test]
fn who_does_not_lead_tells_nothing_until_it_does() {
    let mut stage = Stage::new();
    stage.apply(&ingress("a", "", "a.example", "gone"), 0);
    stage.told.wait(1);
    assert_eq!(stage.shown(), Vec::<String>::new());
    // The former leader has told of the first one; the second came while nobody led.
    stage.apply(&[ingress("a", "", "a.example", "gone"), ingress("bb", "", "b.example", "web")].concat(), 100);
    stage.told.wait(100 + MISSED - 1);
    assert!(stage.told.tell(100 + MISSED));
    let shown = stage.shown();
    assert!(shown.contains(&"Ingress/bb Normal Sync 1".to_owned()), "{shown:?}");
    assert!(!shown.contains(&"Ingress/a Normal Sync 1".to_owned()), "{shown:?}");
    assert!(shown.contains(&"Ingress/a Warning BackendNotFound 1".to_owned()), "{shown:?}");
    // Another has led meanwhile.
    stage.told.wait(200);
    assert!(stage.told.tell(201));
    assert!(stage.shown().contains(&"Ingress/a Warning BackendNotFound 2".to_owned()), "{:?}", stage.shown());
}

#[test]
fn one_object_cannot_fill_the_events() {
    let mut stage = Stage::new();
    let many: Vec<String> = (0..100).map(|n| format!("nginx.ingress.kubernetes.io/x{n}: y")).collect();
    let more = format!(", annotations: {{{}}}", many.join(", "));
    stage.apply(&ingress("a", &more, "a.example", "web"), 0);
    stage.told.tell(5);
    let shown = stage.shown();
    assert_eq!(shown.len(), 12, "{shown:#?}");
    assert!(shown.contains(&"Ingress/a Warning TooManyProblems 1".to_owned()), "{shown:#?}");
    // Words of any length and any kind end where the API takes them.
    let long = format!(", annotations: {{nginx.ingress.kubernetes.io/proxy-read-timeout: '{}'}}", "é".repeat(2000));
    stage.apply(&ingress("a", &long, "a.example", "web"), 10);
    stage.told.tell(15);
    let messages = stage.messages("InvalidAnnotation");
    assert!(messages.iter().any(|message| (1000..=1024).contains(&message.len())), "{messages:?}");
}
