//! What is written back, against a server that refuses, fails or hangs, and a Lease that goes to another.

use std::{collections::BTreeMap, net::IpAddr};

use roadstead_model::IngressStatus;
use roadstead_sources::ServiceStatus;
use tokio::runtime::{Builder, Runtime};

use super::*;

const INGRESSES: &str = "/apis/networking.k8s.io/v1/ingresses";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/system/leases";
/// A leader that could not renew for so long leads no more.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// Waits until the source leads, or leads no more.
#[track_caller]
fn wait_for_lead(source: &Source, wanted: bool) {
    let mut leads = source.leads().unwrap();
    let waited = runtime()
        .block_on(async { tokio::time::timeout(DEADLINE, leads.wait_for(|leads| *leads == wanted)).await.is_ok() });
    assert!(waited, "leads: {}", !wanted);
}

fn speaker(prepare: impl FnOnce(&Server)) -> Stage {
    let interest = Interest::speaker("system").written_by("roadstead-speaker", "system", "n1");
    let stage = Stage::new(Lists::Streams, interest, prepare);
    stage.wait("synced", DEADLINE, |now| now.synced);
    wait_for_lead(&stage.source, true);
    stage
}

fn has(names: impl IntoIterator<Item = String>, ip: &str) -> BTreeMap<ObjectName, ServiceStatus> {
    let ips: Vec<IpAddr> = vec![ip.parse().unwrap()];
    names.into_iter().map(|name| (ObjectName::new("shop", &name), ServiceStatus::from(ips.clone()))).collect()
}

fn write(stage: &Stage, statuses: &BTreeMap<ObjectName, ServiceStatus>) {
    stage.source.status_writer(stage.folder.path()).write_services(statuses).unwrap();
}

fn status_of(service: &str) -> String {
    format!("/api/v1/namespaces/shop/services/{service}/status")
}

#[test]
fn a_status_that_somebody_undoes_is_mended_when_its_echo_is_over() {
    let stage = speaker(|server| server.put(SERVICES, service("s0")));
    write(&stage, &has(["s0".to_owned()], "192.0.2.1"));
    stage.server.wait_for_write(&status_of("s0"));
    // The server's own word about the write, and somebody who takes it back at once.
    let mut shown = service("s0");
    shown["spec"]["type"] = json!("LoadBalancer");
    shown["status"] = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1", "ipMode": "VIP"}]}});
    stage.server.put(SERVICES, shown);
    stage.wait("shown", DEADLINE, |now| now.services.values().any(|service| !service.status.is_empty()));
    stage.server.put(SERVICES, service("s0"));
    // Within twenty seconds: what is looked at every half minute would come too late.
    stage.server.wait_for_write(&status_of("s0"));
}

#[test]
fn an_ingress_is_written_in_the_end_whatever_the_server_answers() {
    let interest = Interest::proxy(|_| References { secrets: BTreeSet::new(), config_maps: BTreeSet::new() });
    let stage = Stage::new(Lists::Streams, interest.written_by("roadstead-ingress", "system", "n1"), |server| {
        server.put(
            INGRESSES,
            json!({
                "metadata": {"name": "web", "namespace": "shop"},
                "spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}},
            }),
        );
    });
    stage.wait("synced", DEADLINE, |now| now.synced);
    wait_for_lead(&stage.source, true);
    let path = "/apis/networking.k8s.io/v1/namespaces/shop/ingresses/web/status";
    // A conflict within the server, one that fails, one that is too busy, a role that lacks and one that then does not.
    for codes in [&[409, 409][..], &[500, 503], &[429], &[403], &[422]] {
        stage.server.fail_writes(path, codes);
        let address = format!("192.0.2.{}", codes[0] % 250);
        let status = IngressStatus { addresses: vec![address.parse().unwrap()], conflicts: Vec::new() };
        let statuses = BTreeMap::from([(ObjectName::new("shop", "web"), status)]);
        stage.source.status_writer(stage.folder.path()).write_ingresses(&statuses).unwrap();
        // What does not show is written again after a while: the former one may come in between.
        let is_it = |_: &u32| {
            stage.server.wait_for_write(path)["status"]["loadBalancer"]["ingress"] == json!([{"ip": address}])
        };
        assert!((0..5).any(|round| is_it(&round)), "{codes:?}");
        assert_eq!(stage.server.faults_left(path), 0, "{codes:?}");
    }
    // None of that was about the connection.
    assert!(!stage.server.requests().iter().any(|path| path.starts_with("/readyz")));
}

#[test]
fn one_object_that_fails_does_not_hold_up_the_others() {
    let stage = speaker(ten);
    stage.server.fail_writes(&status_of("s0"), &[500; 1000]);
    write(&stage, &has((0..10).map(|number| format!("s{number}")), "192.0.2.1"));
    for number in 1..10 {
        stage.server.wait_for_write(&status_of(&format!("s{number}")));
    }
    // The server is there: what is read from it goes on.
    stage.server.put(SERVICES, service("new"));
    stage.wait("a new Service", CONVERGED, |now| names(now).contains(&"new".to_owned()));
    assert!(!stage.server.requests().iter().any(|path| path.starts_with("/readyz")));
    assert!(stage.server.faults_left(&status_of("s0")) > 0);
}

#[test]
fn a_round_of_writes_ends_when_another_leads() {
    let stage = speaker(|server| {
        for number in 0..100 {
            server.put(SERVICES, service(&format!("s{number}")));
        }
    });
    stage.server.hold("/status");
    write(&stage, &has((0..100).map(|number| format!("s{number}")), "192.0.2.1"));
    stage.server.wait_for_requests("/status", 8);
    let lease = json!({
        "metadata": {"name": "roadstead-speaker", "namespace": "system"},
        "spec": {"holderIdentity": "another", "leaseDurationSeconds": 600, "renewTime": "2026-01-01T00:00:00.000000Z"},
    });
    stage.server.put(LEASES, lease);
    wait_for_lead(&stage.source, false);
    stage.server.release("/status");
    let server = stage.server.clone();
    runtime().block_on(stage.source.stop());
    let sent = server.requests().iter().filter(|path| path.contains("/status")).count();
    assert!(sent < 30, "{sent} writes, of which eight were on their way when the Lease was lost");
}

#[test]
fn who_cannot_look_at_the_lease_leads_no_more_in_time() {
    let stage = speaker(ten);
    let looks = stage.server.requests().iter().filter(|path| path.contains("/leases")).count();
    // The next renewal: from then on nothing is heard of the Lease.
    stage.server.wait_for_requests("/leases", looks + 2);
    stage.server.hold("/leases");
    let begun = Instant::now();
    wait_for_lead(&stage.source, false);
    // A request may take four seconds and a look has two; neither may outlast the deadline.
    assert!(begun.elapsed() < RENEW_DEADLINE + Duration::from_millis(1300), "{:?}", begun.elapsed());
    stage.server.release("/leases");
    wait_for_lead(&stage.source, true);
}
