//! Answers that are read ahead of a client that is slow to take them.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
    time::timeout,
};

use super::proxy;
use crate::{
    DEADLINE,
    client::{exchange, get, read_until},
    scripted::ScriptedEndpoint,
    wait_until,
};

/// More than the kernel's buffers of the two connections hold together.
const LARGE: usize = 24 << 20;

/// Whether the endpoint has been rid of its whole answer while the client took nothing but the head.
async fn check(annotations: &[(&str, &str)], field: &'static str, expected: bool) {
    let (done, mut is_done) = tokio::sync::watch::channel(false);
    let web = ScriptedEndpoint::start(move |_, mut stream| {
        let done = done.clone();
        async move {
            read_until(&mut stream, "\r\n\r\n").await;
            let head = format!("HTTP/1.1 200 OK\r\n{field}Content-Length: {LARGE}\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            if stream.write_all(&vec![b'x'; LARGE]).await.is_ok() {
                let _ = done.send(true);
            }
            let _ = stream.read(&mut [0]).await;
        }
    })
    .await;
    let proxy = proxy(&[web.address], annotations);
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut client = socket.connect(proxy.http).await.unwrap();
    client.write_all(get("a", "/").as_bytes()).await.unwrap();
    let mut head = [0; 16];
    client.read_exact(&mut head).await.unwrap();
    let patience = if expected { DEADLINE } else { std::time::Duration::from_secs(1) };
    let free = timeout(patience, is_done.wait_for(|done| *done)).await.is_ok();
    assert_eq!(free, expected, "{annotations:?} {field}");
    // And nothing of it is lost.
    let mut rest = Vec::new();
    timeout(DEADLINE, client.read_to_end(&mut rest)).await.expect("in time").unwrap();
    let (_, body) = rest.split_at(rest.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4);
    assert_eq!(body.len(), LARGE);
    assert!(!String::from_utf8_lossy(&rest[..400]).contains("x-accel"));
}

#[tokio::test]
async fn an_answer_is_read_ahead_as_far_as_the_buffers_go() {
    let on: &[(&str, &str)] = &[("proxy-buffering", "on"), ("proxy-buffer-size", "1m")];
    let large = [on, &[("proxy-buffers-number", "32")]].concat();
    // Off, as ingress-nginx has it.
    check(&[], "", false).await;
    check(&[on, &[("proxy-buffers-number", "2")]].concat(), "", false).await;
    check(&large, "", true).await;
    // An application knows better.
    check(&large, "X-Accel-Buffering: no\r\n", false).await;
}

#[tokio::test]
async fn a_client_that_leaves_lets_the_endpoint_go() {
    let (left, has_left) = tokio::sync::watch::channel(false);
    let web = ScriptedEndpoint::start(move |_, mut stream| {
        let left = left.clone();
        async move {
            read_until(&mut stream, "\r\n\r\n").await;
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nbegin").await.unwrap();
            let _ = stream.read(&mut [0]).await;
            let _ = left.send(true);
        }
    })
    .await;
    let proxy = proxy(&[web.address], &[("proxy-buffering", "on")]);
    let mut client = tokio::net::TcpStream::connect(proxy.http).await.unwrap();
    client.write_all(get("a", "/").as_bytes()).await.unwrap();
    read_until(&mut client, "begin").await;
    drop(client);
    wait_until("the endpoint's connection is closed", async || *has_left.borrow()).await;
}

#[tokio::test]
async fn a_broken_answer_stays_broken() {
    let web = ScriptedEndpoint::start(|_, mut stream| async move {
        read_until(&mut stream, "\r\n\r\n").await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n").await.unwrap();
    })
    .await;
    let proxy = proxy(&[web.address], &[("proxy-buffering", "on")]);
    let answer = exchange(proxy.http, get("a", "/")).await;
    assert!(answer.contains("half") && !answer.contains("\r\n0\r\n\r\n"), "{answer}");
}
