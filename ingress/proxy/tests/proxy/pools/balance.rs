//! Policies, keys, Services by their own address, endpoints that come and go.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use roadstead_model::{ObjectName, Snapshot};
use roadstead_routes::Controller;
use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::{Script, Scripted, ask, named, scene, warnings};
use crate::{
    client::{exchange, read_until, status},
    endpoint::TestEndpoint,
    objects::edit,
    proxy::Proxy,
    wait_until,
};

#[tokio::test]
async fn the_endpoint_with_fewest_requests_gets_the_next() {
    let (first, second) = (TestEndpoint::start("first").await, TestEndpoint::start("second").await);
    let proxy = Proxy::start(scene(&[first.address, second.address], &[("load-balance", "least_conn")]));
    let mut busy = TcpStream::connect(proxy.http).await.unwrap();
    busy.write_all(b"GET /gate HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    wait_until("the request is at an endpoint", async || first.requests() + second.requests() == 1).await;
    let (held, free) = if first.requests() == 1 { (&first, "second") } else { (&second, "first") };
    for _ in 0..6 {
        assert_eq!(named(&ask(&proxy, "/").await), free);
    }
    held.open_gate();
    read_until(&mut busy, "body=").await;
    let mut seen = BTreeSet::new();
    wait_until("both take requests again", async || {
        seen.insert(named(&ask(&proxy, "/").await).to_owned());
        seen.len() == 2
    })
    .await;
}

/// Hints are for the proxy's own node, and leave out nobody once one endpoint has none.
#[tokio::test]
async fn endpoints_that_are_meant_for_the_proxys_node_get_its_requests() {
    let (near, far) = (TestEndpoint::start("near").await, TestEndpoint::start("far").await);
    let mut snapshot = scene(&[near.address, far.address], &[]);
    let hint = |snapshot: &mut Snapshot, place: usize, node: Option<&str>| {
        let slices = snapshot.slices.get_mut(&ObjectName::new("default", "web")).unwrap();
        Arc::make_mut(&mut slices[place]).endpoints[0].node_hints = node.map(str::to_owned).into_iter().collect();
    };
    hint(&mut snapshot, 0, Some("node-a"));
    hint(&mut snapshot, 1, Some("node-b"));
    let controller = Controller { node: Some("node-a".to_owned()), ..Controller::default() };
    let mut proxy = Proxy::controlled(snapshot.clone(), controller, 100);
    for _ in 0..6 {
        assert_eq!(named(&ask(&proxy, "/").await), "near");
    }
    hint(&mut snapshot, 1, None);
    proxy.apply(&snapshot);
    let mut seen = BTreeSet::new();
    for _ in 0..4 {
        seen.insert(named(&ask(&proxy, "/").await).to_owned());
    }
    assert_eq!(seen.len(), 2);
}

/// A tunnel is a request under way for as long as it is open, though its answer's head came long ago.
#[tokio::test]
async fn tunnels_count_as_requests_under_way() {
    let (first, second) = (TestEndpoint::start("first").await, TestEndpoint::start("second").await);
    let proxy = Proxy::start(scene(&[first.address, second.address], &[("load-balance", "least_conn")]));
    let upgrade =
        "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n";
    let mut tunnel = TcpStream::connect(proxy.http).await.unwrap();
    tunnel.write_all(upgrade.as_bytes()).await.unwrap();
    assert_eq!(status(&read_until(&mut tunnel, "\r\n\r\n").await), 101);
    let free = if first.requests() == 1 { "second" } else { "first" };
    for _ in 0..6 {
        assert_eq!(named(&ask(&proxy, "/").await), free);
    }
}

#[tokio::test]
async fn the_faster_endpoint_gets_most_requests() {
    let slow = Scripted::start("slow", Script::Slow(Duration::from_millis(50))).await;
    let fast = Scripted::start("fast", Script::Status(200)).await;
    let proxy = Proxy::start(scene(&[slow.address, fast.address], &[("load-balance", "ewma")]));
    for _ in 0..60 {
        assert_eq!(status(&ask(&proxy, "/").await), 200);
    }
    assert!(slow.requests() * 4 < fast.requests(), "{} and {}", slow.requests(), fast.requests());
}

async fn pods(count: usize) -> Vec<TestEndpoint> {
    let mut pods = Vec::new();
    for index in 0..count {
        pods.push(TestEndpoint::start(&format!("pod-{index}")).await);
    }
    pods
}

#[tokio::test]
async fn a_key_of_variables_leads_to_one_endpoint() {
    let pods = pods(4).await;
    let addresses: Vec<_> = pods.iter().map(|pod| pod.address).collect();
    let proxy = Proxy::start(scene(&addresses, &[("upstream-hash-by", "$arg_user-$host")]));
    let mut homes = BTreeMap::new();
    for round in 0..3 {
        for user in 0..24 {
            let answer = ask(&proxy, &format!("/{round}?x=1&user={user}")).await;
            let home = homes.entry(user).or_insert_with(|| named(&answer).to_owned());
            assert_eq!(named(&answer), home, "user {user}");
        }
    }
    assert!(homes.values().collect::<BTreeSet<_>>().len() > 2, "{homes:?}");
}

#[tokio::test]
async fn a_key_may_lead_to_a_set_of_endpoints() {
    let pods = pods(4).await;
    let addresses: Vec<_> = pods.iter().map(|pod| pod.address).collect();
    let annotations =
        [("upstream-hash-by", "$arg_user"), ("upstream-hash-by-subset", "true"), ("upstream-hash-by-subset-size", "2")];
    let proxy = Proxy::start(scene(&addresses, &annotations));
    let mut seen = BTreeSet::new();
    wait_until("both of the set were seen", async || {
        seen.insert(named(&ask(&proxy, "/?user=7").await).to_owned());
        seen.len() == 2
    })
    .await;
    for _ in 0..20 {
        assert!(seen.contains(named(&ask(&proxy, "/?user=7").await)), "{seen:?}");
    }
}

#[tokio::test]
async fn wrong_values_are_reported_and_change_nothing() {
    let pods = pods(2).await;
    let addresses: Vec<_> = pods.iter().map(|pod| pod.address).collect();
    for (key, value) in [
        ("load-balance", "fastest"),
        ("upstream-hash-by", "$nonsense"),
        ("service-upstream", "yes"),
        ("upstream-max-fails", "-1"),
        ("upstream-fail-timeout", "soon"),
    ] {
        let proxy = Proxy::start(scene(&addresses, &[(key, value)]));
        assert_eq!(warnings(&proxy), "1", "{key}");
        let (first, second) = (ask(&proxy, "/").await, ask(&proxy, "/").await);
        assert_ne!(named(&first), named(&second), "{key}: in turn");
    }
}

#[tokio::test]
async fn a_service_may_be_reached_by_its_own_address() {
    let (pod, vip) = (TestEndpoint::start("pod").await, TestEndpoint::start("vip").await);
    let mut snapshot = scene(&[pod.address], &[("service-upstream", "true")]);
    let service = snapshot.services.values_mut().next().unwrap();
    let service = Arc::make_mut(service);
    service.cluster_ips = vec![vip.address.ip()];
    service.ports[0].port = vip.address.port().try_into().unwrap();
    edit(&mut snapshot, "web", |object| {
        if let roadstead_model::IngressBackend::Service { port, .. } = &mut object.rules[0].paths[0].backend {
            *port = roadstead_model::BackendPort::Number(vip.address.port().try_into().unwrap());
        }
    });
    let mut proxy = Proxy::start(snapshot.clone());
    for _ in 0..3 {
        assert_eq!(named(&ask(&proxy, "/").await), "vip");
    }
    crate::objects::annotate(&mut snapshot, "web", &[("service-upstream", "false")]);
    proxy.apply(&snapshot);
    assert_eq!(named(&ask(&proxy, "/").await), "pod");
}

/// Requests go on while endpoints come and go; those that go are asked to no more before they stop, as Kubernetes does it.
#[tokio::test]
async fn no_request_fails_while_endpoints_come_and_go() {
    for (policy, extra) in [
        ("round_robin", None),
        ("ewma", None),
        ("least_conn", None),
        ("round_robin", Some(("upstream-hash-by", "$uri"))),
    ] {
        let mut pods = pods(3).await;
        let annotations: Vec<_> = [("load-balance", policy)].into_iter().chain(extra).collect();
        let addresses = |pods: &[TestEndpoint]| pods.iter().map(|pod| pod.address).collect::<Vec<_>>();
        let mut proxy = Proxy::start(scene(&addresses(&pods), &annotations));
        let (http, stop) = (proxy.http, tokio_stop());
        let clients: Vec<_> = (0..4)
            .map(|client| {
                let stop = stop.clone();
                tokio::spawn(async move {
                    let mut count = 0;
                    while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                        let answer = exchange(http, crate::client::get("a", &format!("/{client}/{count}"))).await;
                        assert_eq!(status(&answer), 200, "{answer}");
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        for round in 0..20 {
            pods.push(TestEndpoint::start(&format!("pod-{}", round + 3)).await);
            proxy.apply(&scene(&addresses(&pods), &annotations));
            let gone = pods.remove(0);
            proxy.apply(&scene(&addresses(&pods), &annotations));
            let before = gone.requests();
            let others = |pods: &[TestEndpoint]| pods.iter().map(TestEndpoint::requests).sum::<usize>();
            let seen = others(&pods);
            wait_until("the others take requests", async || others(&pods) > seen + 8).await;
            assert!(gone.requests() <= before + 4, "no more than those that were on their way");
            drop(gone);
        }
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
        for client in clients {
            assert!(client.await.unwrap() > 0);
        }
    }
}

fn tokio_stop() -> Arc<std::sync::atomic::AtomicBool> {
    Arc::default()
}
