//! The source against a server that can fail on command: outages, refusals, lost history, garbage.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod server;
mod writing;

use std::{
    collections::BTreeSet,
    path::Path,
    time::{Duration, Instant},
};

use clap::Parser as _;
use roadstead_model::{ObjectName, References, Snapshot};
use roadstead_sources::{Interest, Source, SourceFlags, start};
use serde_json::{Value, json};
use server::{Lists, Server};

const SERVICES: &str = "/api/v1/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";
const POOLS: &str = "/apis/metallb.io/v1beta1/ipaddresspools";
const DEADLINE: Duration = Duration::from_secs(20);
/// What the data plane promises after an outage.
const CONVERGED: Duration = Duration::from_secs(2);

#[derive(clap::Parser)]
struct Cli {
    #[command(flatten)]
    source: SourceFlags,
}

struct Stage {
    server: Server,
    source: Source,
    folder: tempfile::TempDir,
}

impl Stage {
    fn new(lists: Lists, interest: Interest, prepare: impl FnOnce(&Server)) -> Self {
        let server = Server::start(lists);
        prepare(&server);
        let folder = tempfile::tempdir().unwrap();
        let source = start(&flags(&server, folder.path()), interest).unwrap();
        Self { server, source, folder }
    }

    #[track_caller]
    fn wait(&self, what: &str, within: Duration, holds: impl Fn(&Snapshot) -> bool) {
        let deadline = Instant::now() + within;
        let mut snapshots = self.source.snapshots();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let left = deadline.saturating_duration_since(Instant::now());
        let waited =
            runtime.block_on(async { tokio::time::timeout(left, snapshots.wait_for(|now| holds(now))).await.is_ok() });
        let now = self.source.snapshots().borrow().clone();
        assert!(waited, "{what}: {:?} {:?}", names(&now), now.problems);
    }

    fn now(&self) -> Vec<String> {
        names(&self.source.snapshots().borrow())
    }
}

fn flags(server: &Server, folder: &Path) -> SourceFlags {
    let file = folder.join("kubeconfig");
    std::fs::write(&file, server.kubeconfig()).unwrap();
    Cli::parse_from(["x", "--kubeconfig", file.to_str().unwrap(), "--node-name", "n1"]).source
}

fn names(snapshot: &Snapshot) -> Vec<String> {
    snapshot.services.keys().map(|name| name.name.to_string()).collect()
}

fn service(name: &str) -> Value {
    let number = name.bytes().fold(0, |sum: u32, byte| sum.wrapping_mul(31) + u32::from(byte)) % 60_000;
    let ip = format!("10.96.{}.{}", number / 250, number % 250 + 1);
    json!({
        "kind": "Service", "apiVersion": "v1",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"clusterIP": ip, "clusterIPs": [ip], "ports": [{"port": 80}]},
    })
}

fn slice(service: &str, ip: &str) -> Value {
    json!({
        "metadata": {"name": format!("{service}-1"), "namespace": "shop", "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4", "ports": [{"port": 80}], "endpoints": [{"addresses": [ip]}],
    })
}

fn ten(server: &Server) {
    for number in 0..10 {
        server.put(SERVICES, service(&format!("s{number}")));
    }
}

#[test]
fn lists_are_streamed_or_paged_and_watched() {
    let ways =
        [(Lists::Streams, "sendInitialEvents"), (Lists::RefusesStreams, "limit="), (Lists::BreaksStreams, "limit=")];
    for (lists, way) in ways {
        let stage = Stage::new(lists, Interest::agent(), ten);
        stage.wait("synced", DEADLINE, |now| now.synced);
        assert_eq!(stage.now().len(), 10, "{lists:?}");
        assert!(stage.source.is_current());
        let requests = stage.server.requests();
        assert!(requests.iter().any(|path| path.starts_with(SERVICES) && path.contains(way)), "{requests:?}");
        assert!(!requests.iter().any(|path| path.contains("secrets") || path.contains("configmaps")), "{requests:?}");
        stage.server.put(SLICES, slice("s1", "10.0.0.1"));
        stage.server.put(SERVICES, service("new"));
        stage.server.delete(SERVICES, "s0");
        stage.wait("events", CONVERGED, |now| {
            let s1 = ObjectName::new("shop", "s1");
            !now.slices_of(&s1).is_empty() && names(now).contains(&"new".to_owned()) && now.services.len() == 10
        });
    }
}

#[test]
fn an_outage_withdraws_nothing_and_is_over_within_two_seconds() {
    let stage = Stage::new(Lists::Streams, Interest::agent(), ten);
    stage.wait("synced", DEADLINE, |now| now.synced);
    for round in 0..3 {
        stage.server.go_away();
        stage.server.delete(SERVICES, &format!("s{round}"));
        stage.server.put(SERVICES, service(&format!("t{round}")));
        let snapshots = stage.source.snapshots();
        let end = Instant::now() + Duration::from_secs(2);
        while Instant::now() < end {
            assert_eq!(snapshots.borrow().services.len(), 10, "nothing came, nothing went");
            std::thread::yield_now();
        }
        stage.server.come_back();
        stage.wait("converged", CONVERGED, |now| {
            let names = names(now);
            names.contains(&format!("t{round}")) && !names.contains(&format!("s{round}"))
        });
    }
}

#[test]
fn a_restored_backup_is_noticed_although_its_versions_are_old() {
    let stage = Stage::new(Lists::Streams, Interest::agent(), ten);
    stage.server.put(SERVICES, service("after-the-backup"));
    stage.wait("synced", DEADLINE, |now| now.synced && now.services.len() == 11);
    stage.server.go_away();
    stage.server.delete(SERVICES, "after-the-backup");
    stage.server.rewind(105);
    // The source has to notice that the server is away at all.
    stage.server.wait_for_knocks(2);
    stage.server.come_back();
    stage.wait("restored", CONVERGED, |now| now.services.len() == 10);
}

#[test]
fn broken_connections_and_lost_history_lose_no_change() {
    let stage = Stage::new(Lists::Streams, Interest::agent(), ten);
    stage.wait("synced", DEADLINE, |now| now.synced);
    stage.server.cut();
    stage.server.delete(SERVICES, "s0");
    stage.wait("after a cut", CONVERGED, |now| now.services.len() == 9);
    stage.server.delete(SERVICES, "s1");
    stage.server.compact();
    stage.server.cut();
    stage.wait("after a compaction", CONVERGED, |now| now.services.len() == 8);
}

#[test]
fn what_is_forbidden_is_named_and_withdraws_nothing() {
    let stage = Stage::new(Lists::Streams, Interest::agent(), |server| {
        ten(server);
        server.forbid(SLICES);
    });
    stage.wait("a problem", DEADLINE, |now| {
        now.problems.iter().any(|problem| problem.reason.contains("endpointslices"))
    });
    let problem = stage.source.snapshots().borrow().problems[0].to_string();
    assert!(problem.contains("a role must allow it") && problem.contains("403 Forbidden: User"), "{problem}");
    assert!(!stage.source.snapshots().borrow().synced && !stage.source.is_current());
    stage.server.permit(SLICES);
    stage.wait("synced", DEADLINE, |now| now.synced && now.problems.is_empty());
    stage.server.forbid(SERVICES);
    stage.server.compact();
    stage.server.cut();
    stage.wait("a problem", DEADLINE, |now| now.problems.iter().any(|problem| problem.reason.contains("services")));
    assert_eq!(stage.now().len(), 10, "what is known stays");
}

#[test]
fn kinds_that_are_not_installed_are_none_until_they_are() {
    let stage = Stage::new(Lists::Streams, Interest::speaker("roadstead-system"), |server| {
        ten(server);
        server.forget(POOLS);
        server.forget("/apis/metallb.io/v1beta1/l2advertisements");
    });
    stage.wait("synced", DEADLINE, |now| now.synced);
    assert_eq!(stage.source.snapshots().borrow().problems, []);
    stage.server.learn(POOLS);
    let pool =
        json!({"metadata": {"name": "lan", "namespace": "metallb-system"}, "spec": {"addresses": ["192.0.2.0/24"]}});
    stage.server.put(POOLS, pool);
    stage.wait("a pool", Duration::from_secs(40), |now| now.pools.len() == 1);
}

#[test]
fn garbage_and_endless_lines_are_left_behind() {
    let endless = vec![b'x'; 17 << 20];
    let cases: [&[u8]; 4] = [b"no json\n", b"{\"type\":\"ADDED\",\"object\":{}}\n", b"\x00\xff\n", &endless];
    for garbage in cases {
        let stage = Stage::new(Lists::Streams, Interest::agent(), |server| {
            ten(server);
            server.spoil(SERVICES, garbage);
        });
        stage.wait("synced", DEADLINE, |now| now.synced && now.services.len() == 10);
        stage.server.spoil(SERVICES, garbage);
        stage.server.cut();
        stage.server.delete(SERVICES, "s0");
        stage.wait("a change", DEADLINE, |now| now.services.len() == 9);
    }
}

#[test]
fn secrets_come_when_an_ingress_names_them() {
    let interest = Interest::proxy(|snapshot| {
        let named = |name: &ObjectName| ObjectName::new(&name.namespace, "users");
        References { secrets: snapshot.ingresses.keys().map(named).collect(), config_maps: BTreeSet::new() }
    });
    let secrets = "/api/v1/namespaces/shop/secrets";
    let metadata = "/api/v1/secrets";
    let secret = |value: &str| json!({"metadata": {"name": "users", "namespace": "shop"}, "type": "Opaque", "data": {"auth": value}});
    let stage = Stage::new(Lists::Streams, interest, |server| {
        server.put(secrets, secret("YQ=="));
        server.put(metadata, json!({"metadata": {"name": "users", "namespace": "shop"}}));
    });
    stage.wait("synced", DEADLINE, |now| now.synced);
    assert!(!stage.server.requests().iter().any(|path| path.starts_with(secrets)), "nobody named it");
    let ingress = json!({
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}},
    });
    stage.server.put("/apis/networking.k8s.io/v1/ingresses", ingress);
    let users = ObjectName::new("shop", "users");
    let value = |now: &Snapshot| now.secrets.get(&users).and_then(|secret| secret.data.get("auth").cloned());
    stage.wait("the secret", DEADLINE, |now| value(now).as_deref() == Some(b"a"));
    stage.server.put(secrets, secret("Yg=="));
    stage.server.put(metadata, json!({"metadata": {"name": "users", "namespace": "shop"}}));
    stage.wait("its next version", DEADLINE, |now| value(now).as_deref() == Some(b"b"));
}

#[test]
fn what_all_speakers_announce_is_read_page_by_page() {
    let server = Server::start(Lists::Streams);
    let folder = tempfile::tempdir().unwrap();
    let flags = flags(&server, folder.path());
    let collection = "/apis/metallb.io/v1beta1/servicel2statuses";
    for number in 0..7 {
        let status = json!({"node": format!("n{number}"), "serviceName": "web", "serviceNamespace": "shop"});
        server
            .put(collection, json!({"metadata": {"name": format!("l2-{number}"), "namespace": "m"}, "status": status}));
    }
    let read = || roadstead_sources::read_announcements(&flags).unwrap();
    let nodes: BTreeSet<String> = read().iter().map(|object| object["status"]["node"].to_string()).collect();
    assert_eq!(nodes.len(), 7);
    assert!(read().iter().all(|object| object["kind"] == "ServiceL2Status"));
    // Who may not read them, or has none of the kind, sees none.
    server.forbid(collection);
    assert_eq!(read(), Vec::<Value>::new());
    server.permit(collection);
    server.forget(collection);
    assert_eq!(read(), Vec::<Value>::new());
    server.go_away();
    assert!(roadstead_sources::read_announcements(&flags).is_err());
}

#[test]
fn a_server_that_is_not_there_yet_is_waited_for() {
    let server = Server::start(Lists::Streams);
    ten(&server);
    server.go_away();
    let folder = tempfile::tempdir().unwrap();
    let source = start(&flags(&server, folder.path()), Interest::agent()).unwrap();
    let stage = Stage { server, source, folder };
    assert!(!stage.source.snapshots().borrow().synced);
    stage.server.come_back();
    stage.wait("synced", DEADLINE, |now| now.synced && now.services.len() == 10);
}

#[test]
fn a_configuration_that_is_none_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kubeconfig");
    for text in ["", "kind: [", "clusters: []"] {
        std::fs::write(&file, text).unwrap();
        let flags = Cli::parse_from(["x", "--kubeconfig", file.to_str().unwrap()]).source;
        assert!(start(&flags, Interest::agent()).is_err(), "{text:?}");
    }
    let flags = Cli::parse_from(["x", "--kubeconfig", file.to_str().unwrap(), "--manifests", "."]).source;
    assert_eq!(
        start(&flags, Interest::agent()).unwrap_err().to_string(),
        "give one of --manifests, --kubeconfig and --in-cluster, not several"
    );
}

#[test]
fn one_of_two_writes_and_the_other_takes_over() {
    let server = Server::start(Lists::Streams);
    let namespaced = "/api/v1/namespaces/shop/services/s0/status";
    ten(&server);
    let folder = tempfile::tempdir().unwrap();
    let speaker = |node: &str| {
        let interest = Interest::speaker("system").written_by("roadstead-speaker", "system", node);
        start(&flags(&server, folder.path()), interest).unwrap()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let leads = |source: &Source, within: Duration| {
        let mut leads = source.leads().unwrap();
        runtime.block_on(async { tokio::time::timeout(within, leads.wait_for(|leads| *leads)).await.is_ok() })
    };
    let first = speaker("n1");
    assert!(leads(&first, DEADLINE), "nobody else is there");
    let second = speaker("n2");
    let status = |ip: &str| {
        let ips: Vec<std::net::IpAddr> = vec![ip.parse().unwrap()];
        std::collections::BTreeMap::from([(ObjectName::new("shop", "s0"), roadstead_sources::ServiceStatus::from(ips))])
    };
    let written = |source: &Source, ip: &str| {
        source.status_writer(folder.path()).write_services(&status(ip)).unwrap();
    };
    written(&second, "192.0.2.2");
    written(&first, "192.0.2.1");
    let first_word = server.wait_for_write(namespaced);
    assert_eq!(first_word["status"]["loadBalancer"]["ingress"][0]["ip"], "192.0.2.1", "the one that leads");
    assert!(!leads(&second, Duration::from_millis(100)));
    // The next word is written while the server is away, and sent when it is back.
    server.go_away();
    server.wait_for_knocks(2);
    written(&first, "192.0.2.3");
    server.come_back();
    let next = server.wait_for_write(namespaced);
    assert_eq!(next["status"]["loadBalancer"]["ingress"][0]["ip"], "192.0.2.3");
    // Whoever ends gives the Lease back, and the other need not wait for its end.
    let begun = Instant::now();
    runtime.block_on(first.stop());
    assert!(leads(&second, Duration::from_secs(12)), "after {:?}", begun.elapsed());
    let last = server.wait_for_write(namespaced);
    assert_eq!(last["status"]["loadBalancer"]["ingress"][0]["ip"], "192.0.2.2");
    runtime.block_on(second.stop());
}
