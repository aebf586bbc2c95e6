//! Bytes that two parsers would read in two ways: refused, in order, and never seen by an endpoint.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{
    Request,
    body::{Body, Frame},
    client::conn::http2,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::{
    client::{exchange, get, status},
    endpoint::TestEndpoint,
    objects::{empty, ingress, service},
    proxy::Proxy,
    wait_until,
};

async fn start() -> (TestEndpoint, Proxy) {
    let web = TestEndpoint::start("web").await;
    let mut snapshot = empty();
    service(&mut snapshot, "web", &[web.address]);
    ingress(&mut snapshot, "web", &[("a", "/", "web")], &[]);
    let proxy = Proxy::start(snapshot);
    (web, proxy)
}

#[tokio::test]
async fn ambiguous_requests_are_refused_before_any_endpoint() {
    let (web, proxy) = start().await;
    let large = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(40_000));
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(200));
    for (expected, request) in [
        (400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        (400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\nabcd"),
        (501, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        (400, "GET / HTTP/1.1\nHost: a\n\n"),
        (400, "GET / HTTP/1.1\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        (400, "GET http://b?q HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\n folded: x\r\n\r\n"),
        (405, "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n"),
        (405, "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (505, "GET / HTTP/3.0\r\nHost: a\r\n\r\n"),
        (431, &large),
        (431, &many),
    ] {
        let answer = exchange(proxy.http, request).await;
        assert_eq!(status(&answer), expected, "{request:?}: {answer}");
        assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
    }
    assert_eq!(web.requests(), 0);
}

#[tokio::test]
async fn a_refused_head_is_answered_behind_the_requests_before_it() {
    let (web, proxy) = start().await;
    let good = "GET /one HTTP/1.1\r\nHost: a\r\n\r\n";
    let bad = "GET /two HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n";
    let answer = exchange(proxy.http, format!("{good}{good}{bad}{good}")).await;
    let statuses: Vec<_> = answer.match_indices("HTTP/1.1 ").map(|(at, _)| status(&answer[at..])).collect();
    assert_eq!(statuses, [200, 200, 400], "{answer}");
    assert_eq!(web.requests(), 2);
}

#[tokio::test]
async fn nothing_behind_a_body_is_smuggled() {
    let (web, proxy) = start().await;
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let sized = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{smuggled}",
        smuggled.len()
    );
    let answer = exchange(proxy.http, sized).await;
    assert!(answer.contains("body=GET /smuggled HTTP/1.1"), "it is a body: {answer}");
    assert_eq!(web.requests(), 1);
    let refused = format!(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nContent-Length: 1\r\nUpgrade: websocket\r\n\r\n{smuggled}"
    );
    let answer = exchange(proxy.http, refused).await;
    assert!(!answer.contains("/smuggled"), "{answer}");
    let broken =
        format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloXX0\r\n\r\n{smuggled}");
    let answer = exchange(proxy.http, broken).await;
    assert_eq!(status(&answer), 400, "{answer}");
}

#[tokio::test]
async fn a_wish_to_upgrade_that_is_not_granted_ends_the_connection() {
    let (_web, proxy) = start().await;
    // The host has no route, so the answer is 404; the bytes behind it must not become a request.
    let request = "GET / HTTP/1.1\r\nHost: b\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let answer = exchange(proxy.http, request).await;
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    assert_eq!(status(&answer), 404);
}

/// An endpoint that speaks HTTP/2 in the clear must not be reached past the routes.
#[tokio::test]
async fn no_protocol_but_websocket_is_upgraded_to() {
    let (web, proxy) = start().await;
    for protocol in ["h2c", "h2c, websocket", "TLS/1.0", ""] {
        let wish = format!(
            "GET /one HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: {protocol}\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"
        );
        let answer = exchange(proxy.http, format!("{wish}{}", get("a", "/two"))).await;
        assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 2, "{protocol}: {answer}");
        assert!(answer.contains("GET /two") && !answer.contains("http2-settings"), "{answer}");
    }
    assert_eq!(web.requests(), 8);
}

#[tokio::test]
async fn the_body_of_a_get_is_not_lost() {
    let (_web, proxy) = start().await;
    for method in ["GET", "DELETE"] {
        let request = format!(
            "{method} / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n4\r\nbody\r\n0\r\n\r\n"
        );
        let answer = exchange(proxy.http, request).await;
        assert!(answer.contains("body=body"), "{answer}");
        // All of it was there before an endpoint was chosen, so its length is known.
        assert!(answer.contains("content-length: 4"), "{answer}");
    }
    let stream = TcpStream::connect(proxy.http).await.unwrap();
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let driver = tokio::spawn(connection);
    let body = Pieces(vec!["dy", "bo"]);
    let response = sender.send_request(Request::get("http://a/").body(body).unwrap()).await.unwrap();
    let answer = response.into_body().collect().await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&answer).contains("body=body"), "{answer:?}");
    drop(sender);
    driver.await.unwrap().unwrap();
}

/// A body of pieces, the last one first, whose length is not told.
struct Pieces(Vec<&'static str>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop().map(|piece| Ok(Frame::data(Bytes::from_static(piece.as_bytes())))))
    }
}

/// Whatever byte a target holds, the answer is this proxy's, not the HTTP library's.
#[tokio::test]
async fn odd_targets_get_an_answer_of_ours() {
    let (_web, proxy) = start().await;
    let bytes = (0x21..=0xff).filter(|byte| *byte != 0x7f).map(|byte| vec![byte]);
    for odd in bytes.chain([b"\xff\xfe".to_vec(), "\u{e9}".as_bytes().to_vec()]) {
        for start in ["/", "/x?y="] {
            let request = [b"GET ", start.as_bytes(), &odd, b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"];
            let answer = exchange(proxy.http, request.concat()).await;
            assert!(answer.contains("\r\nserver: roadstead\r\n"), "{start} {odd:?}: {answer}");
            assert!([200, 400].contains(&status(&answer)), "{start} {odd:?}: {answer}");
        }
    }
    let answer = exchange(proxy.http, "GET http://a?q HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(answer.contains("GET /?q\n"), "{answer}");
}

/// Resets paced one at a time pass every limit of the HTTP/2 library; each costs the endpoint a request.
#[tokio::test]
async fn paced_resets_end_the_connection() {
    let (web, proxy) = start().await;
    let stream = TcpStream::connect(proxy.http).await.unwrap();
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let driver = tokio::spawn(connection);
    let mut taken_back = 0;
    while taken_back < 1000 && sender.ready().await.is_ok() {
        let before = web.requests();
        let request = Request::get("http://a/gate").body(Empty::<Bytes>::new()).unwrap();
        let mut answer = Box::pin(sender.send_request(request));
        let seen = wait_until("the endpoint sees it", async || web.requests() > before || driver.is_finished());
        tokio::select! {
            _ = &mut answer => break,
            () = seen => {}
        }
        taken_back += 1;
    }
    assert!((100..110).contains(&taken_back), "{taken_back} requests were taken back");
}

#[tokio::test]
async fn many_requests_and_a_few_resets_are_no_offence() {
    let (_web, proxy) = start().await;
    let stream = TcpStream::connect(proxy.http).await.unwrap();
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let driver = tokio::spawn(connection);
    for index in 0..300 {
        let request = Request::get(format!("http://a/{index}")).body(Empty::<Bytes>::new()).unwrap();
        assert_eq!(sender.send_request(request).await.unwrap().status(), 200, "{index}");
    }
    drop(sender);
    driver.await.unwrap().unwrap();
}
