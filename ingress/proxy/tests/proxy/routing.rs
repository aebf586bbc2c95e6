//! Hosts, paths, endpoints: who answers, and what is answered when nobody does.

use std::{collections::BTreeSet, net::SocketAddr};

use roadstead_proxy::route_command::answer;
use roadstead_routes::{Controller, Scheme, compile};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::{
    client::{exchange, get, read_until, status},
    endpoint::TestEndpoint,
    objects::{annotate, empty, ingress, service},
    proxy::Proxy,
    wait_until,
};

#[tokio::test]
async fn hosts_and_paths_lead_to_their_services() {
    let (web, api) = (TestEndpoint::start("web").await, TestEndpoint::start("api").await);
    let mut snapshot = empty();
    service(&mut snapshot, "web", &[web.address]);
    service(&mut snapshot, "api", &[api.address]);
    service(&mut snapshot, "none", &[]);
    let paths = [
        ("a.example", "/", "web"),
        ("a.example", "/api", "api"),
        ("*.b.example", "/", "api"),
        ("a.example", "/none", "none"),
        ("a.example", "/gone", "gone"),
        ("a.example", "/only/here", "web"),
    ];
    ingress(&mut snapshot, "all", &paths, &[]);
    let proxy = Proxy::start(snapshot);
    for (host, path, expected) in [
        ("a.example", "/", "endpoint=web"),
        ("a.example", "/api/v1?q=1", "endpoint=api"),
        ("A.Example.:8080", "/api", "endpoint=api"),
        ("a.example", "/x/../api", "endpoint=api"),
        ("a.example", "/apix", "endpoint=web"),
        ("www.b.example", "/", "endpoint=api"),
        ("b.example", "/", "HTTP/1.1 404"),
        ("unknown.example", "/", "HTTP/1.1 404"),
        ("a.example", "/none", "HTTP/1.1 503"),
        ("a.example", "/gone", "HTTP/1.1 503"),
        ("a.example", "/..", "HTTP/1.1 400"),
    ] {
        let answer = exchange(proxy.http, get(host, path)).await;
        assert!(answer.contains(expected), "{host}{path}: {answer}");
        for field in ["\r\nserver: roadstead\r\n", "\r\ndate: ", "\r\ncontent-length: "] {
            assert!(answer.contains(field), "{field:?} of {host}{path}: {answer}");
        }
    }
    let refused = async || proxy.metric("roadstead_ingress_requests_total{status=\"4xx\"}").as_deref() == Some("3");
    wait_until("three are refused", refused).await;
    assert_eq!(proxy.metric("roadstead_ingress_upstream_errors_total{cause=\"no_endpoint\"}").as_deref(), Some("2"));
    assert_eq!(proxy.metric("roadstead_ingress_config_problems{severity=\"warning\"}").as_deref(), Some("1"));
}

#[test]
fn the_offline_answer_names_rule_backend_and_endpoints() {
    let mut snapshot = empty();
    service(&mut snapshot, "web", &["10.0.0.2:8080".parse().unwrap(), "10.0.0.1:8080".parse().unwrap()]);
    service(&mut snapshot, "none", &[]);
    let paths = [("a.example", "/", "web"), ("b.example", "/none", "none")];
    ingress(&mut snapshot, "all", &paths, &[("a.example", "missing")]);
    let table = compile(&snapshot, &Controller::default()).table;
    let ask = |scheme, host, path| serde_json::to_value(answer(&snapshot, &table, scheme, host, path)).unwrap();
    let found = ask(Scheme::Https, "a.example", "/x");
    let expected = serde_json::json!({
        "namespace": "default", "ingress": "all", "host": "a.example", "path": "/", "pathType": "Prefix",
        "service": "web", "port": "80", "endpoints": ["10.0.0.1:8080", "10.0.0.2:8080"], "action": "proxy",
        "location": null, "status": null, "reason": "Prefix path \"/\" is the longest that matches",
    });
    assert_eq!(found, expected);
    for (scheme, host, path, field, expected) in [
        (Scheme::Http, "a.example", "/x", "action", "redirect"),
        (Scheme::Http, "a.example", "/x", "reason", "the host is a TLS host and ssl-redirect is on"),
        (Scheme::Http, "a.example", "/x", "location", "https://a.example/x"),
        (Scheme::Http, "b.example", "/none", "action", "unavailable"),
        (Scheme::Http, "b.example", "/none", "reason", "service default/none has no ready endpoint"),
        (Scheme::Http, "c.example", "/", "action", "not-found"),
        (Scheme::Http, "a.example", "/..", "action", "bad-request"),
    ] {
        assert_eq!(ask(scheme, host, path)[field], expected, "{scheme:?} {host}{path}");
    }
}

#[test]
fn the_offline_answer_knows_snippets_and_canaries() {
    let mut snapshot = empty();
    service(&mut snapshot, "web", &["10.0.0.2:8080".parse().unwrap()]);
    for (name, host, annotation) in [
        ("denied", "a.example", ("configuration-snippet", "if ($uri = /no) { return 403; }")),
        ("refused", "b.example", ("configuration-snippet", "proxy_pass http://x;")),
        ("main", "c.example", ("ssl-redirect", "false")),
        ("canary", "c.example", ("canary", "true")),
    ] {
        let service = if name == "canary" { "next" } else { "web" };
        ingress(&mut snapshot, name, &[(host, "/", service)], &[]);
        annotate(&mut snapshot, name, &[annotation]);
    }
    let table = compile(&snapshot, &Controller::default()).table;
    let ask = |host, path| {
        let answer = answer(&snapshot, &table, Scheme::Http, host, path);
        format!("{} {:?} {}", answer.action, answer.status, answer.reason)
    };
    assert_eq!(ask("a.example", "/no"), "deny Some(403) a snippet returns that status");
    assert!(ask("a.example", "/yes").starts_with("proxy None"));
    assert!(ask("b.example", "/").starts_with("unavailable Some(503) a snippet of the Ingress is refused"));
    assert!(ask("c.example", "/").ends_with("canary default/canary takes some requests to service default/next"));
}

#[tokio::test]
async fn the_endpoint_sees_the_request_as_it_was_and_the_client_as_we_saw_it() {
    let web = TestEndpoint::start("web").await;
    let mut snapshot = empty();
    service(&mut snapshot, "web", &[web.address]);
    ingress(&mut snapshot, "web", &[("a.example", "/", "web")], &[]);
    let proxy = Proxy::start(snapshot);
    let request = "POST http://a.example:81/x//y/%2e?q=%20 HTTP/1.1\r\nHost: a.example:81\r\nX-Forwarded-For: 1.1.1.1\r\n\
        Connection: close, X-Drop\r\nX-Drop: 1\r\nProxy: evil\r\nTransfer-Encoding: chunked\r\n\r\n\
        3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n";
    let answer = exchange(proxy.http, request).await;
    let port = proxy.http.port();
    for line in [
        "POST /x//y/%2e?q=%20\n",
        "host: a.example:81\n",
        "x-forwarded-for: 127.0.0.1\n",
        "x-original-forwarded-for: 1.1.1.1\n",
        "x-real-ip: 127.0.0.1\n",
        "x-forwarded-proto: http\n",
        "x-forwarded-host: a.example:81\n",
        &format!("x-forwarded-port: {port}\n"),
        "x-request-id: ",
        "body=abcde\n",
    ] {
        assert!(answer.contains(line), "{line:?} in {answer}");
    }
    for absent in ["x-drop:", "proxy:", "test-endpoint", "strict-transport-security"] {
        assert!(!answer.contains(absent), "{absent:?} in {answer}");
    }
}

#[tokio::test]
async fn requests_take_all_endpoints_in_turn_and_follow_their_changes() {
    let mut endpoints = Vec::new();
    for index in 0..10 {
        endpoints.push(TestEndpoint::start(&format!("pod-{index}")).await);
    }
    let addresses: Vec<SocketAddr> = endpoints.iter().map(|endpoint| endpoint.address).collect();
    let mut snapshot = empty();
    service(&mut snapshot, "web", &addresses);
    ingress(&mut snapshot, "web", &[("a.example", "/", "web")], &[]);
    let mut proxy = Proxy::start(snapshot.clone());
    let ask = async |proxy: &Proxy, times: usize| {
        let mut seen = BTreeSet::new();
        for _ in 0..times {
            let answer = exchange(proxy.http, get("a.example", "/")).await;
            assert_eq!(status(&answer), 200, "{answer}");
            seen.insert(answer.lines().find(|line| line.starts_with("endpoint=")).unwrap().to_owned());
        }
        seen
    };
    assert_eq!(ask(&proxy, 10).await.len(), 10);

    service(&mut snapshot, "web", &addresses[..1]);
    proxy.apply(&snapshot);
    assert_eq!(ask(&proxy, 3).await, BTreeSet::from(["endpoint=pod-0".to_owned()]));
    service(&mut snapshot, "web", &[]);
    proxy.apply(&snapshot);
    assert_eq!(status(&exchange(proxy.http, get("a.example", "/")).await), 503);
    service(&mut snapshot, "web", &addresses[1..2]);
    proxy.apply(&snapshot);
    assert_eq!(ask(&proxy, 2).await, BTreeSet::from(["endpoint=pod-1".to_owned()]));
    assert_eq!(proxy.metric("roadstead_ingress_config_generation").as_deref(), Some("1"), "no route was touched");
}

#[tokio::test]
async fn a_changed_path_moves_requests_of_an_open_connection() {
    let (web, api) = (TestEndpoint::start("web").await, TestEndpoint::start("api").await);
    let mut snapshot = empty();
    service(&mut snapshot, "web", &[web.address]);
    service(&mut snapshot, "api", &[api.address]);
    ingress(&mut snapshot, "all", &[("a.example", "/old", "web")], &[]);
    let mut proxy = Proxy::start(snapshot.clone());
    let mut stream = TcpStream::connect(proxy.http).await.unwrap();
    let request = "GET /new HTTP/1.1\r\nHost: a.example\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    assert_eq!(status(&read_until(&mut stream, "Not Found\n").await), 404);
    ingress(&mut snapshot, "all", &[("a.example", "/new", "api")], &[]);
    proxy.apply(&snapshot);
    stream.write_all(request.as_bytes()).await.unwrap();
    assert!(read_until(&mut stream, "body=").await.contains("endpoint=api"));
}

#[tokio::test]
async fn upstream_connections_are_used_again() {
    let web = TestEndpoint::start("web").await;
    let mut snapshot = empty();
    service(&mut snapshot, "web", &[web.address]);
    ingress(&mut snapshot, "web", &[("a.example", "/", "web")], &[]);
    let proxy = Proxy::start(snapshot);
    for _ in 0..20 {
        assert_eq!(status(&exchange(proxy.http, get("a.example", "/")).await), 200);
    }
    assert_eq!((web.requests(), web.connections()), (20, 1));
}

#[tokio::test]
async fn dead_endpoints_are_passed_over() {
    let web = TestEndpoint::start("web").await;
    let dead = dead_address().await;
    let mut snapshot = empty();
    service(&mut snapshot, "web", &[dead, web.address]);
    service(&mut snapshot, "dead", &[dead]);
    ingress(&mut snapshot, "web", &[("a.example", "/", "web"), ("a.example", "/dead", "dead")], &[]);
    let proxy = Proxy::start(snapshot);
    for _ in 0..4 {
        let post = "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody";
        assert!(exchange(proxy.http, post).await.contains("body=body"));
    }
    assert_eq!(status(&exchange(proxy.http, get("a.example", "/dead")).await), 502);
}

/// An address that refuses connections.
async fn dead_address() -> SocketAddr {
    tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn a_connection_that_died_while_idle_costs_no_request() {
    let (first, mut snapshot) = (TestEndpoint::start("web").await, empty());
    service(&mut snapshot, "web", &[first.address]);
    ingress(&mut snapshot, "web", &[("a.example", "/", "web")], &[]);
    let proxy = Proxy::start(snapshot);
    assert_eq!(status(&exchange(proxy.http, get("a.example", "/")).await), 200);
    let address = first.address;
    drop(first);
    // The port is free once the endpoint's task is gone; a restarted pod comes back at it.
    let mut listener = None;
    wait_until("the port is free", async || {
        listener = tokio::net::TcpListener::bind(address).await.ok();
        listener.is_some()
    })
    .await;
    let answering = tokio::spawn(async move {
        let (mut stream, _) = listener.unwrap().accept().await.unwrap();
        read_until(&mut stream, "\r\n\r\n").await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nagain").await.unwrap();
        stream
    });
    assert!(exchange(proxy.http, get("a.example", "/")).await.ends_with("again"));
    answering.await.unwrap();
}

/// The first endpoint takes connections and requests, and closes without a word.
#[tokio::test]
async fn a_request_lost_on_a_new_connection_goes_to_the_next_endpoint_if_it_may() {
    let web = TestEndpoint::start("web").await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let broken = listener.local_addr().unwrap();
    let endpoint = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_until(&mut stream, "\r\n\r\n").await;
        }
    });
    let mut snapshot = empty();
    service(&mut snapshot, "web", &[broken, web.address]);
    ingress(&mut snapshot, "web", &[("a.example", "/", "web")], &[]);
    let proxy = Proxy::start(snapshot);
    // Fewer than it takes for the endpoint to be left alone.
    for _ in 0..2 {
        assert_eq!(status(&exchange(proxy.http, get("a.example", "/")).await), 200);
    }
    let post = get("a.example", "/").replace("GET", "POST");
    let mut statuses = BTreeSet::new();
    for _ in 0..2 {
        statuses.insert(status(&exchange(proxy.http, &post).await));
    }
    assert!(statuses.contains(&502), "it may have been acted on: {statuses:?}");
    assert!(!endpoint.is_finished());
    endpoint.abort();
}

/// The endpoint takes the second request of each connection and closes without a word, as one that is restarted does.
#[tokio::test]
async fn a_request_lost_on_a_reused_connection_is_repeated_only_if_it_may_be() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let endpoint = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_until(&mut stream, "\r\n\r\n").await;
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
            read_until(&mut stream, "\r\n\r\n").await;
        }
    });
    let mut snapshot = empty();
    service(&mut snapshot, "web", &[address]);
    ingress(&mut snapshot, "web", &[("a.example", "/", "web")], &[]);
    let proxy = Proxy::start(snapshot);
    for _ in 0..3 {
        assert_eq!(status(&exchange(proxy.http, get("a.example", "/")).await), 200);
    }
    let post = get("a.example", "/").replace("GET", "POST");
    assert_eq!(status(&exchange(proxy.http, post).await), 502, "it may have been acted on");
    assert!(!endpoint.is_finished());
    endpoint.abort();
}
