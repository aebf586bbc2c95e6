//! Under steady requests 200 Ingresses are edited, certificates replaced, pods come, go and crash, and one Ingress is broken on
//! purpose: no request fails, and every edit is served.
//!
//! In a run of all tests at a rate that a shared machine bears. `ROADSTEAD_SUITE_RATE=2000 ROADSTEAD_SUITE_SECONDS=60` make it the full
//! minute.

use std::{
    collections::VecDeque,
    env,
    net::IpAddr,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use rustls::{ClientConfig, RootCertStore, crypto::ring};

use super::{
    client::{ask, get},
    daemon::{Proxy, wait_until},
    load::{Load, Report, Target},
    manifests::{annotated, ingress, secret, service},
    pod::{Pod, host_address},
};

const EDITS: u32 = 200;
const INGRESSES: u32 = 20;
/// After the manifests have lost a pod it serves for this long, as a pod that terminates does.
const GRACE: Duration = Duration::from_secs(1);

fn setting(name: &str, usual: u32) -> u32 {
    env::var(name).ok().map_or(usual, |value| value.parse().unwrap())
}

/// The Ingress of one host: `/` stays, the path of the version leads elsewhere.
fn edited(place: u32, version: u32) -> String {
    let path = format!("/version-{version}");
    let paths = [("Prefix", "/", "web"), ("Exact", &*path, "version")];
    let redirect = if version.is_multiple_of(2) { "true" } else { "false" };
    annotated(&format!("edited-{place}"), &host(place), &paths, &[("roadstead.dev/ssl-redirect", redirect)])
}

fn host(place: u32) -> String {
    format!("edited-{place}.example")
}

/// What is wrong with the Ingress that is broken on purpose: it is no YAML, no Ingress, or it leads nowhere.
fn broken(turn: u32) -> String {
    match turn % 3 {
        0 => "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: { name: broken\n".to_owned(),
        1 => ingress("broken", "edited-1.example", &[("Nonsense", "no-slash", "web")]),
        _ => ingress("broken", "edited-2.example", &[("Prefix", "/", "web"), ("Prefix", "/gone", "gone")]),
    }
}

/// The pods of the Service, the oldest first, and those that serve on for their last moments.
struct Pods {
    ip: IpAddr,
    serving: VecDeque<Pod>,
    leaving: VecDeque<(Instant, Pod)>,
    started: u32,
}

impl Pods {
    fn start(ip: IpAddr) -> Self {
        let mut pods = Self { ip, serving: VecDeque::new(), leaving: VecDeque::new(), started: 0 };
        for _ in 0..4 {
            pods.add();
        }
        pods
    }

    fn add(&mut self) {
        self.started += 1;
        self.serving.push_back(Pod::start(self.ip, &format!("web-{}", self.started)));
    }

    fn manifest(&self) -> String {
        service("web", &self.serving.iter().collect::<Vec<_>>())
    }

    /// The oldest leaves, in order or, every third time, by a crash that the manifests learn of later.
    fn replace(&mut self, proxy: &Proxy) {
        self.add();
        let oldest = self.serving.pop_front().unwrap();
        if self.started.is_multiple_of(3) {
            drop(oldest);
            thread::sleep(Duration::from_millis(20));
        } else {
            self.leaving.push_back((Instant::now(), oldest));
        }
        proxy.write("pods.yaml", &self.manifest());
        while self.leaving.front().is_some_and(|(since, _)| since.elapsed() > GRACE) {
            self.leaving.pop_front();
        }
    }
}

struct Certificates(Vec<CertifiedKey<KeyPair>>);

impl Certificates {
    fn new() -> Self {
        Self((0..4).map(|_| generate_simple_self_signed(vec!["tls.example".to_owned()]).unwrap()).collect())
    }

    fn manifest(&self, turn: u32) -> String {
        let pair = &self.0[turn as usize % self.0.len()];
        secret("pair", &pair.cert.pem(), &pair.signing_key.serialize_pem())
    }

    /// Believes any of them.
    fn client(&self) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        self.0.iter().for_each(|pair| roots.add(pair.cert.der().clone()).unwrap());
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        builder.with_root_certificates(roots).with_no_client_auth()
    }
}

#[test]
fn edits_certificates_and_pods_come_and_go_and_no_request_fails() {
    let Some(ip) = host_address() else { return };
    let (rate, seconds) = (setting("ROADSTEAD_SUITE_RATE", 500), setting("ROADSTEAD_SUITE_SECONDS", 20));
    let (mut pods, certificates) = (Pods::start(ip), Certificates::new());
    let ingresses: Vec<(String, String)> =
        (0..INGRESSES).map(|place| (format!("edited-{place}.yaml"), edited(place, 0))).collect();
    let version = Pod::start(ip, "version");
    let fixed = [
        service("version", &[&version]),
        ingress("plain", "a", &[("Prefix", "/", "web")]),
        ingress("tls", "tls.example", &[("Prefix", "/", "web")]),
        "  tls: [{ hosts: [tls.example], secretName: pair }]\n".to_owned(),
    ]
    .concat();
    let (first_pods, first_pair) = (pods.manifest(), certificates.manifest(0));
    let mut files = vec![("fixed.yaml", &*fixed), ("pods.yaml", &first_pods), ("secret.yaml", &first_pair)];
    files.extend(ingresses.iter().map(|(name, text)| (&**name, &**text)));
    let proxy = Proxy::start(&files);
    let target = Target {
        http: proxy.http,
        https: proxy.https,
        hosts: (0..INGRESSES).map(host).chain(["a".to_owned()]).collect(),
        tls_host: "tls.example".to_owned(),
        tls: certificates.client(),
    };
    let load = Load::start(&target, rate);
    let pause = Duration::from_secs(seconds.into()) / EDITS;
    let (start, mut served_after) = (Instant::now(), Vec::new());
    for edit in 1..=EDITS {
        let place = edit % INGRESSES;
        let written = Instant::now();
        proxy.write(&format!("edited-{place}.yaml"), &edited(place, edit));
        let version = get(&host(place), &format!("/version-{edit}"));
        wait_until("the edit is served", || ask(proxy.http, &version).seen().pod == "version");
        served_after.push(written.elapsed());
        match edit % 4 {
            0 => proxy.write("secret.yaml", &certificates.manifest(edit / 4)),
            1 => pods.replace(&proxy),
            2 => proxy.write("broken.yaml", &broken(edit / 4)),
            _ => {}
        }
        thread::sleep((start + pause * edit).saturating_duration_since(Instant::now()));
    }
    let report = load.finish();
    show(&report, start.elapsed(), served_after, &proxy);
    assert!(report.failures.is_empty(), "{:#?}", report.failures);
    assert!(report.served > 1_000, "{report:?}");
    assert!(proxy.log().contains("broken"), "the broken Ingress is told of");
}

fn show(report: &Report, took: Duration, mut served_after: Vec<Duration>, proxy: &Proxy) {
    served_after.sort();
    let failed: usize = report.failures.values().sum();
    println!(
        "{} requests in {took:.1?} ({:.0}/s), {failed} failed, the slowest in {:.1?}; {EDITS} edits served after {:.1?} (median), {:.1?} at most; {}",
        report.served,
        report.served as f64 / took.as_secs_f64(),
        report.slowest,
        served_after[served_after.len() / 2],
        served_after[served_after.len() - 1],
        proxy.memory()
    );
}
