//! Bodies of requests: their limit, how they are read ahead, and clients that are slow or wait to be told to continue.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{problems, proxy, snapshot};
use crate::{
    DEADLINE,
    client::{exchange, get, read_until, status},
    endpoint::TestEndpoint,
    objects::{annotate, controller},
    proxy::Proxy,
    scripted::ScriptedEndpoint,
    wait_until,
};

/// A PUT with this much of `x`, its length told or in chunks.
fn put(length: usize, chunked: bool) -> String {
    let body = "x".repeat(length);
    let head = "PUT / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n";
    if chunked {
        return format!("{head}Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n");
    }
    format!("{head}Content-Length: {length}\r\n\r\n{body}")
}

#[tokio::test]
async fn bodies_have_a_limit() {
    let web = TestEndpoint::start("web").await;
    let (one, two) = (1 << 20, 2 << 20);
    for (annotations, length, expected) in [
        (&[][..], one, 200),
        (&[], one + 1, 413),
        (&[("proxy-body-size", "2m")], two, 200),
        (&[("proxy-body-size", "2m")], two + 1, 413),
        (&[("proxy-body-size", "0")], two + 1, 200),
        (&[("proxy-body-size", "10"), ("proxy-request-buffering", "off")], 11, 413),
        (&[("proxy-body-size", "10")], 11, 413),
        (&[("proxy-body-size", "large")], one + 1, 413),
    ] {
        let proxy = proxy(&[web.address], annotations);
        for chunked in [false, true] {
            let answer = exchange(proxy.http, put(length, chunked)).await;
            assert_eq!(status(&answer), expected, "{annotations:?} {length} {chunked}");
            assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
        }
        let wrong = annotations.contains(&("proxy-body-size", "large"));
        assert_eq!(problems(&proxy), format!("{} warnings, 0 errors", u32::from(wrong)));
    }
}

#[tokio::test]
async fn a_refused_upload_is_answered_although_the_client_goes_on_writing() {
    let web = TestEndpoint::start("web").await;
    let proxy = proxy(&[web.address], &[]);
    // More than the kernel's buffers hold: without somebody to read it, the client would be stuck or reset.
    let answer = exchange(proxy.http, put(24 << 20, false)).await;
    assert_eq!(status(&answer), 413);
    assert_eq!(web.requests(), 0);
}

#[tokio::test]
async fn the_option_of_the_config_map_holds_for_those_that_say_nothing() {
    let web = TestEndpoint::start("web").await;
    let mut snapshot = snapshot(&[web.address], &[]);
    let controller = controller(&mut snapshot, &[("proxy-body-size", "10"), ("client-body-timeout", "1")]);
    let mut proxy = Proxy::controlled(snapshot.clone(), controller, 100);
    assert_eq!(status(&exchange(proxy.http, put(11, false)).await), 413);
    annotate(&mut snapshot, "web", &[("proxy-body-size", "11")]);
    proxy.apply(&snapshot);
    assert_eq!(status(&exchange(proxy.http, put(11, false)).await), 200);
    let stalled = "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx";
    let answer = exchange(proxy.http, stalled).await;
    assert_eq!(status(&answer), 408, "{answer}");
    assert_eq!(problems(&proxy), "0 warnings, 0 errors");
}

#[tokio::test]
async fn a_slow_upload_holds_no_endpoint_unless_it_is_to_stream() {
    for (annotations, seen_early) in [
        (&[][..], false),
        (&[("proxy-request-buffering", "on")], false),
        (&[("proxy-request-buffering", "off")], true),
        (&[("client-body-buffer-size", "2")], true),
    ] {
        let web = TestEndpoint::start("web").await;
        let proxy = proxy(&[web.address], annotations);
        let mut stream = TcpStream::connect(proxy.http).await.unwrap();
        stream.write_all(b"PUT /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab").await.unwrap();
        if seen_early {
            wait_until("the endpoint has the request", async || web.requests() == 1).await;
        } else {
            // Another request goes all the way meanwhile.
            assert_eq!(status(&exchange(proxy.http, get("a", "/other")).await), 200);
            assert_eq!(web.requests(), 1, "{annotations:?}");
        }
        stream.write_all(b"cd").await.unwrap();
        assert!(read_until(&mut stream, "body=abcd").await.contains("content-length: 4"), "{annotations:?}");
    }
}

#[tokio::test]
async fn a_body_that_was_kept_is_sent_again() {
    let script = |number, mut stream: TcpStream| async move {
        let request = read_until(&mut stream, "hello").await;
        if number == 0 {
            return;
        }
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{request}", request.len());
        stream.write_all(answer.as_bytes()).await.unwrap();
        let _ = stream.read(&mut [0]).await;
    };
    let request = |method: &str| {
        format!(
            "{method} / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
        )
    };
    for (method, buffering, expected) in [("PUT", "on", 200), ("PUT", "off", 502), ("POST", "on", 502)] {
        let (one, other) = (ScriptedEndpoint::start(script).await, ScriptedEndpoint::start(script).await);
        // The first connection of each breaks off, so both are asked and the third time one of them answers.
        let proxy = proxy(&[one.address, other.address], &[("proxy-request-buffering", buffering)]);
        let first = exchange(proxy.http, request(method)).await;
        assert_eq!(status(&first), 502, "{method} {buffering}");
        let asked = if expected == 200 { 2 } else { 1 };
        assert_eq!(one.connections() + other.connections(), asked, "{method} {buffering}");
    }
    let good = TestEndpoint::start("good").await;
    let bad = ScriptedEndpoint::start(script).await;
    let proxy = proxy(&[bad.address, good.address], &[]);
    for _ in 0..2 {
        let answer = exchange(proxy.http, request("PUT")).await;
        assert!(status(&answer) == 200 && answer.contains("hello"), "{answer}");
    }
    assert!(bad.connections() > 0, "it was asked, and broke off");
}

#[tokio::test]
async fn a_client_that_waits_is_told_to_continue_or_refused() {
    let web = TestEndpoint::start("web").await;
    let proxy = proxy(&[web.address], &[("proxy-body-size", "10")]);
    let ask = |length: usize| {
        format!("PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n")
    };
    let mut stream = TcpStream::connect(proxy.http).await.unwrap();
    stream.write_all(ask(5).as_bytes()).await.unwrap();
    assert_eq!(status(&read_until(&mut stream, "\r\n\r\n").await), 100);
    stream.write_all(b"hello").await.unwrap();
    let answer = read_until(&mut stream, "body=hello").await;
    assert!(status(&answer) == 200 && !answer.contains("expect:"), "{answer}");

    let mut stream = TcpStream::connect(proxy.http).await.unwrap();
    stream.write_all(ask(11).as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(DEADLINE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert_eq!(status(&answer), 413, "{answer}");
    assert!(!answer.contains("HTTP/1.1 100"), "{answer}");
}

#[tokio::test]
async fn wrong_values_are_told_and_the_default_holds() {
    let web = TestEndpoint::start("web").await;
    for key in ["proxy-request-buffering", "client-body-buffer-size"] {
        let proxy = proxy(&[web.address], &[(key, "nonsense")]);
        assert_eq!(problems(&proxy), "1 warnings, 0 errors", "{key}");
        assert_eq!(status(&exchange(proxy.http, put(100, false)).await), 200, "{key}");
    }
}
