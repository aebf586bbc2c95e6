//! Limits by client address: `limit-rps`, `limit-rpm`, `limit-connections`, `limit-rate` and what belongs to them.

use std::time::{Duration, Instant};

use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::{
    client::{exchange, get, read_until, status},
    endpoint::TestEndpoint,
    objects::{annotate, config_map, empty, ingress, service},
    policy::with_options,
    proxy::Proxy,
    wait_until,
};

/// An endpoint, and a proxy with one limited Ingress for `a.example` and an unlimited one for `b.example`.
async fn limited(annotations: &[(&str, &str)], options: &[(&str, &str)]) -> (TestEndpoint, Proxy) {
    let web = TestEndpoint::start("web").await;
    let mut snapshot = empty();
    service(&mut snapshot, "web", &[web.address]);
    ingress(&mut snapshot, "limited", &[("a.example", "/", "web")], &[]);
    ingress(&mut snapshot, "open", &[("b.example", "/", "web")], &[]);
    annotate(&mut snapshot, "limited", annotations);
    config_map(&mut snapshot, "options", options);
    (web, with_options(snapshot))
}

#[tokio::test]
async fn a_client_that_comes_too_often_is_sent_away() {
    // A rate a minute leaks too slowly to matter within the test; its burst decides: one, and five times one more.
    for (annotations, options, admitted, refusal) in [
        (&[("limit-rpm", "1")][..], &[][..], 6, 503),
        (&[("limit-rpm", "1"), ("limit-burst-multiplier", "2")], &[("limit-req-status-code", "429")], 3, 429),
        (&[("limit-rpm", "1"), ("limit-burst-multiplier", "0")], &[], 1, 503),
        (&[("limit-rpm", "1"), ("limit-whitelist", "127.0.0.0/8")], &[], 10, 0),
        (&[("limit-rpm", "1"), ("limit-allowlist", "10.0.0.0/8")], &[], 6, 503),
        (&[("limit-rpm", "1"), ("limit-allowlist", "nonsense")], &[], 6, 503),
        (&[("limit-rpm", "many")], &[], 10, 0),
        (&[("limit-rps", "1000000")], &[], 10, 0),
    ] {
        let (web, proxy) = limited(annotations, options).await;
        for count in 0..10 {
            let answer = exchange(proxy.http, get("a.example", "/")).await;
            let expected = if count < admitted { 200 } else { refusal };
            assert_eq!(status(&answer), expected, "{annotations:?} request {count}: {answer}");
        }
        assert_eq!(web.requests(), admitted, "{annotations:?}");
        assert_eq!(status(&exchange(proxy.http, get("b.example", "/")).await), 200, "{annotations:?}");
        let wrong = annotations.iter().any(|(_, value)| ["nonsense", "many"].contains(value));
        let told = proxy.metric("roadstead_ingress_config_problems{severity=\"warning\"}");
        assert_eq!(told, Some(usize::from(wrong).to_string()), "{annotations:?}");
    }
}

#[tokio::test]
async fn requests_at_the_same_time_are_counted_until_they_are_answered() {
    let (web, proxy) = limited(&[("limit-connections", "2")], &[]).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(proxy.http).await.unwrap();
        stream.write_all(get("a.example", "/gate").as_bytes()).await.unwrap();
        held.push(stream);
    }
    wait_until("both requests are at the endpoint", async || web.requests() == 2).await;
    assert_eq!(status(&exchange(proxy.http, get("a.example", "/")).await), 503);
    assert_eq!(status(&exchange(proxy.http, get("b.example", "/")).await), 200);
    web.open_gate();
    wait_until("one of them is answered", async || status(&exchange(proxy.http, get("a.example", "/")).await) == 200)
        .await;
    // A client that goes away gives its place back too.
    drop(held);
    web.open_gate();
    let mut first = TcpStream::connect(proxy.http).await.unwrap();
    let mut second = TcpStream::connect(proxy.http).await.unwrap();
    wait_until("both places are free", async || {
        for stream in [&mut first, &mut second] {
            let open = "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";
            stream.write_all(open.as_bytes()).await.unwrap();
            if !read_until(stream, "\r\n\r\n").await.contains(" 200 ") {
                return false;
            }
        }
        true
    })
    .await;
}

#[tokio::test]
async fn a_tunnel_keeps_its_place() {
    let (_web, proxy) = limited(&[("limit-connections", "1")], &[("limit-conn-status-code", "429")]).await;
    let upgrade = "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    let mut tunnel = TcpStream::connect(proxy.http).await.unwrap();
    tunnel.write_all(upgrade.as_bytes()).await.unwrap();
    assert_eq!(status(&read_until(&mut tunnel, "\r\n\r\n").await), 101);
    assert_eq!(status(&exchange(proxy.http, get("a.example", "/")).await), 429);
    drop(tunnel);
    wait_until("the place is free", async || status(&exchange(proxy.http, get("a.example", "/")).await) == 200).await;
}

#[tokio::test]
async fn an_answer_is_no_faster_than_it_may_be() {
    let body = "x".repeat(300 << 10);
    let post = format!(
        "POST / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    // The endpoint answers with what it saw: 300 KiB. The first second's worth goes at once, the rest has to wait.
    for (annotations, options, at_least) in [
        (&[("limit-rate", "200")][..], &[][..], 400),
        (&[], &[("limit-rate", "200")], 400),
        (&[("limit-rate", "200"), ("limit-rate-after", "400")], &[], 0),
        (&[("limit-rate", "fast")], &[], 0),
    ] {
        let (_web, proxy) = limited(annotations, options).await;
        let began = Instant::now();
        let answer = exchange(proxy.http, &post).await;
        assert!(answer.contains(&body) && answer.contains("\r\ncontent-length: "), "{annotations:?}");
        assert!(began.elapsed() >= Duration::from_millis(at_least), "{annotations:?}: {:?}", began.elapsed());
    }
}
