//! Streams that last: WebSocket, bodies in both directions, and the drain at the end.

use std::time::Duration;

use roadstead_proxy::record::log::LineStyle;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    DEADLINE,
    client::{exchange, get, read_until, status},
    endpoint::TestEndpoint,
    objects::{annotate, empty, ingress, service},
    proxy::Proxy,
    wait_until,
};

const UPGRADE: &str =
    "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n";

async fn start() -> (TestEndpoint, Proxy) {
    start_limited(100).await
}

async fn start_limited(max_connections: usize) -> (TestEndpoint, Proxy) {
    let web = TestEndpoint::start("web").await;
    let mut snapshot = empty();
    service(&mut snapshot, "web", &[web.address]);
    ingress(&mut snapshot, "web", &[("a", "/", "web")], &[]);
    let proxy = Proxy::limited(snapshot, max_connections);
    (web, proxy)
}

#[tokio::test]
async fn websockets_are_tunnelled() {
    let (_web, proxy) = start().await;
    let mut stream = TcpStream::connect(proxy.http).await.unwrap();
    stream.write_all(UPGRADE.as_bytes()).await.unwrap();
    let head = read_until(&mut stream, "\r\n\r\n").await.to_ascii_lowercase();
    assert_eq!(status(&head), 101);
    assert!(head.contains("upgrade: websocket") && head.contains("connection: upgrade"), "{head}");
    for message in ["\x01\n\n\x02frame", "GET / HTTP/1.1\n\n", "end"] {
        stream.write_all(message.as_bytes()).await.unwrap();
        assert_eq!(read_until(&mut stream, message).await, message);
    }
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    timeout(DEADLINE, stream.read_to_end(&mut rest)).await.unwrap().unwrap();
    assert!(rest.is_empty());
}

#[tokio::test]
async fn a_tunnel_is_told_when_it_ends_with_what_it_carried() {
    let (_web, proxy) = start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    proxy.log_to(&path, LineStyle::Json);
    let mut stream = TcpStream::connect(proxy.http).await.unwrap();
    stream.write_all(UPGRADE.as_bytes()).await.unwrap();
    read_until(&mut stream, "\r\n\r\n").await;
    let message = "x".repeat(1000);
    stream.write_all(message.as_bytes()).await.unwrap();
    read_until(&mut stream, &message).await;
    // Another request's line is written meanwhile, and the tunnel's is not there.
    exchange(proxy.http, get("a", "/other")).await;
    let lines = || std::fs::read_to_string(&path).unwrap_or_default();
    wait_until("the other request is told", async || lines().contains("/other")).await;
    assert!(!lines().contains("/ws"), "{}", lines());
    drop(stream);
    wait_until("the tunnel is told", async || lines().contains("/ws")).await;
    let lines = lines();
    let line = lines.lines().find(|line| line.contains("/ws")).unwrap();
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    let (sent, received) = (line["body_bytes_sent"].as_u64().unwrap(), line["request_length"].as_u64().unwrap());
    assert_eq!((line["status"].as_u64(), sent), (Some(101), 1000), "{line}");
    assert_eq!(received, UPGRADE.len() as u64 + 1000, "{line}");
}

/// hyper's part of an idle connection is dropped after a moment, which nobody may notice.
#[tokio::test]
async fn a_connection_that_was_idle_goes_on() {
    let (web, proxy) = start().await;
    let mut stream = TcpStream::connect(proxy.http).await.unwrap();
    for round in 1..=3 {
        // In one piece and in two, the first of which ends within the head.
        for pieces in [vec!["GET / HTTP/1.1\r\nHost: a\r\n\r\n"], vec!["GET / HT", "TP/1.1\r\nHost: a\r\n\r\n"]] {
            for piece in pieces {
                stream.write_all(piece.as_bytes()).await.unwrap();
            }
            assert_eq!(status(&read_until(&mut stream, "body=").await), 200);
            let silent = timeout(Duration::from_millis(300), stream.readable()).await;
            assert!(silent.is_err(), "round {round}: it stays open and says nothing");
        }
    }
    assert_eq!(web.requests(), 6);
    proxy.shutdown.trigger();
    let mut rest = Vec::new();
    timeout(DEADLINE, stream.read_to_end(&mut rest)).await.expect("it is closed at once").unwrap();
}

#[tokio::test]
async fn tunnels_keep_their_place_among_the_connections() {
    let (_web, proxy) = start_limited(2).await;
    let mut tunnels = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(proxy.http).await.unwrap();
        stream.write_all(UPGRADE.as_bytes()).await.unwrap();
        assert_eq!(status(&read_until(&mut stream, "\r\n\r\n").await), 101);
        stream.write_all(b"echo").await.unwrap();
        read_until(&mut stream, "echo").await;
        tunnels.push(stream);
    }
    assert_eq!(proxy.metric("roadstead_ingress_client_connections ").as_deref(), Some("2"));
    let mut waiting = TcpStream::connect(proxy.http).await.unwrap();
    waiting.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let early = timeout(Duration::from_millis(200), waiting.readable()).await;
    assert!(early.is_err(), "there is no place for it");
    drop(tunnels.pop());
    assert_eq!(status(&read_until(&mut waiting, "body=").await), 200);
    drop((tunnels, waiting));
    wait_until("every place is free", async || {
        proxy.metric("roadstead_ingress_client_connections ").as_deref() == Some("0")
    })
    .await;
}

#[tokio::test]
async fn large_bodies_stream_both_ways() {
    let web = TestEndpoint::start("web").await;
    let mut snapshot = empty();
    service(&mut snapshot, "web", &[web.address]);
    ingress(&mut snapshot, "web", &[("a", "/", "web")], &[]);
    annotate(&mut snapshot, "web", &[("proxy-body-size", "0")]);
    let proxy = Proxy::start(snapshot);
    let body = "0123456789abcdef".repeat(256 * 1024);
    let head = format!("PUT / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    let (mut read, mut write) = TcpStream::connect(proxy.http).await.unwrap().into_split();
    let sent = body.clone();
    let writer = tokio::spawn(async move {
        write.write_all(head.as_bytes()).await.unwrap();
        write.write_all(sent.as_bytes()).await.unwrap();
        write
    });
    let mut answer = String::new();
    timeout(DEADLINE, read.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.trim_end().ends_with(&body[body.len() - 4096..]), "the end of the body comes back");
    assert!(answer.len() > body.len());
    drop(writer.await.unwrap());
}

#[tokio::test]
async fn the_drain_ends_requests_and_takes_no_new_ones() {
    let (web, proxy) = start().await;
    let (address, shutdown) = (proxy.http, proxy.shutdown.clone());
    let mut busy = TcpStream::connect(address).await.unwrap();
    busy.write_all(b"GET /gate HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut idle = TcpStream::connect(address).await.unwrap();
    idle.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    read_until(&mut idle, "body=").await;
    wait_until("the request is at the endpoint", async || web.requests() == 2).await;
    shutdown.trigger();
    let mut rest = Vec::new();
    timeout(DEADLINE, idle.read_to_end(&mut rest)).await.expect("an idle connection is closed at once").unwrap();
    wait_until("no new connection is taken", async || TcpStream::connect(address).await.is_err()).await;
    web.open_gate();
    let answer = read_until(&mut busy, "body=").await;
    assert_eq!(status(&answer), 200, "the request under way is answered");
    assert!(answer.to_ascii_lowercase().contains("connection: close"), "{answer}");
    timeout(DEADLINE, proxy.join()).await.expect("the drain ends with the last request");
}
