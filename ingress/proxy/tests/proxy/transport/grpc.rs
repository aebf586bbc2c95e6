//! HTTP/2 to endpoints: gRPC with its trailers, both sides talking in turns, streams that are refused, and our own answers.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::{
    Request, Response,
    body::{Body, Frame, Incoming},
    client::conn::http2::{self, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    task::JoinSet,
    time::timeout,
};

use super::{problems, proxy, snapshot};
use crate::{
    DEADLINE,
    client::{exchange, get, status},
    h2_endpoint::H2Endpoint,
    proxy::Proxy,
    scripted::ScriptedEndpoint,
    wait_until,
};

const GRPC: &[(&str, &str)] = &[("backend-protocol", "GRPC")];

/// A body whose pieces are sent by the test, one at a time.
struct Talk(mpsc::Receiver<&'static str>);

impl Body for Talk {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|piece| piece.map(|piece| Ok(Frame::data(Bytes::from_static(piece.as_bytes())))))
    }
}

async fn client(proxy: &Proxy) -> SendRequest<Talk> {
    let stream = TcpStream::connect(proxy.http).await.unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn call(path: &str) -> (mpsc::Sender<&'static str>, Request<Talk>) {
    let (say, hear) = mpsc::channel(8);
    let request = Request::post(format!("http://a{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Talk(hear));
    (say, request.unwrap())
}

async fn next_piece(answer: &mut Response<Incoming>) -> String {
    let frame = timeout(DEADLINE, answer.frame()).await.expect("in time").unwrap().unwrap();
    String::from_utf8(frame.into_data().expect("data").to_vec()).unwrap()
}

#[tokio::test]
async fn both_sides_talk_in_turns_and_end_with_trailers() {
    let web = H2Endpoint::start(100).await;
    let proxy = proxy(&[web.address], GRPC);
    let mut client = client(&proxy).await;
    let (say, request) = call("/service/method");
    // The head of the answer is there before a byte of the request's body.
    let mut answer = timeout(DEADLINE, client.send_request(request)).await.expect("in time").unwrap();
    assert_eq!((answer.status().as_u16(), &answer.headers()["x-te"]), (200, &"trailers".parse().unwrap()));
    assert_eq!(answer.headers()["x-authority"], "a");
    assert!(!answer.headers().contains_key("x-host") && !answer.headers().contains_key("x-connection"));
    for message in ["one", "two", "three"] {
        say.send(message).await.unwrap();
        assert_eq!(next_piece(&mut answer).await, message);
    }
    drop(say);
    let end = timeout(DEADLINE, answer.frame()).await.expect("in time").unwrap().unwrap();
    assert_eq!(end.into_trailers().unwrap()["grpc-status"], "0");
}

#[tokio::test]
async fn a_call_that_is_taken_back_is_taken_back_from_the_endpoint() {
    let web = H2Endpoint::start(100).await;
    let proxy = proxy(&[web.address], GRPC);
    let mut client = client(&proxy).await;
    let (say, request) = call("/hold");
    let answer = client.send_request(request).await.unwrap();
    assert_eq!(web.open(), 1);
    drop((say, answer));
    wait_until("the endpoint is let go", async || web.open() == 0).await;
    // The connection is as good as before.
    let (say, request) = call("/");
    drop(say);
    assert_eq!(client.send_request(request).await.unwrap().status(), 200);
    assert_eq!(web.connections(), 1);
}

#[tokio::test]
async fn many_calls_share_a_connection_up_to_the_endpoint_s_limit() {
    for (max_streams, connections) in [(100, 1), (4, 5)] {
        let web = H2Endpoint::start(max_streams).await;
        let proxy = proxy(&[web.address], GRPC);
        let client = client(&proxy).await;
        // One call tells the proxy of the limit.
        let (say, request) = call("/");
        drop(say);
        client.clone().send_request(request).await.unwrap().into_body().collect().await.unwrap();
        let mut held = Vec::new();
        for _ in 0..20 {
            let (say, request) = call("/hold");
            let answer = timeout(DEADLINE, client.clone().send_request(request)).await.expect("in time").unwrap();
            held.push((say, answer));
        }
        assert_eq!((web.requests(), web.connections()), (21, connections), "{max_streams} streams");
    }
}

#[tokio::test]
async fn a_burst_of_calls_does_not_open_a_connection_each() {
    let web = H2Endpoint::start(100).await;
    let proxy = proxy(&[web.address], GRPC);
    let client = client(&proxy).await;
    let mut calls = JoinSet::new();
    for _ in 0..50 {
        let (mut client, (say, request)) = (client.clone(), call("/"));
        calls.spawn(async move {
            say.send("hello").await.unwrap();
            drop(say);
            let answer = client.send_request(request).await.unwrap();
            answer.into_body().collect().await.unwrap().to_bytes()
        });
    }
    for bytes in calls.join_all().await {
        assert_eq!(bytes, "hello");
    }
    assert_eq!((web.requests(), web.connections()), (50, 1));
}

/// The first connection refuses what it is asked; the next one answers.
async fn refusing(leave: bool) -> ScriptedEndpoint {
    ScriptedEndpoint::start(move |number, stream: TcpStream| async move {
        if number == 0 && leave {
            return say_goodbye(stream).await;
        }
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let mut refused = number > 0;
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            if refused {
                let mut body = respond.send_response(Response::new(()), false).unwrap();
                body.send_data(Bytes::from_static(b"answered"), true).unwrap();
            } else {
                refused = true;
                respond.send_reset(h2::Reason::REFUSED_STREAM);
            }
        }
    })
    .await
}

/// Reads the preface and a request, and says GOAWAY: no stream was begun (RFC 9113, section 6.8).
async fn say_goodbye(mut stream: TcpStream) {
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let goaway = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    stream.write_all(&settings).await.unwrap();
    let mut seen = Vec::new();
    // A HEADERS frame on stream 1, behind whatever came first.
    while !seen.windows(9).any(|frame: &[u8]| frame[3] == 1 && frame[5..] == [0, 0, 0, 1]) {
        assert_ne!(stream.read_buf(&mut seen).await.unwrap(), 0);
    }
    stream.write_all(&goaway).await.unwrap();
    let _ = stream.read_to_end(&mut seen).await;
}

#[tokio::test]
async fn what_an_endpoint_left_alone_is_sent_again_even_a_post() {
    for leave in [false, true] {
        let web = refusing(leave).await;
        let proxy = proxy(&[web.address], GRPC);
        let mut client = client(&proxy).await;
        for _ in 0..2 {
            let (say, request) = call("/");
            let answer = timeout(DEADLINE, client.send_request(request)).await.expect("in time").unwrap();
            drop(say);
            let (status, body) = (answer.status(), answer.into_body().collect().await.unwrap().to_bytes());
            assert_eq!((status.as_u16(), &body[..]), (200, &b"answered"[..]), "leave {leave}");
        }
    }
}

#[tokio::test]
async fn a_second_endpoint_gets_what_the_first_refused() {
    for leave in [false, true] {
        let (one, other) = (refusing(leave).await, H2Endpoint::start(100).await);
        let proxy = proxy(&[one.address, other.address], GRPC);
        let mut client = client(&proxy).await;
        for _ in 0..3 {
            let (say, request) = call("/");
            drop(say);
            let answer = timeout(DEADLINE, client.send_request(request)).await.expect("in time").unwrap();
            assert_eq!(answer.status(), 200, "leave {leave}");
        }
        assert!(one.connections() > 0);
    }
}

#[tokio::test]
async fn our_own_answers_have_a_grpc_status() {
    let web = H2Endpoint::start(100).await;
    let small = [("backend-protocol", "GRPC"), ("proxy-body-size", "4")];
    for (endpoints, annotations, host, http, grpc) in [
        (&[][..], GRPC, "a", 503, "14"),
        (&["127.0.0.1:1".parse().unwrap()][..], GRPC, "a", 502, "14"),
        (&[web.address], GRPC, "other", 404, "12"),
        (&[web.address], &small, "a", 413, "8"),
    ] {
        let proxy = proxy(endpoints, annotations);
        let mut client = client(&proxy).await;
        let (say, mut request) = call("/hold");
        *request.uri_mut() = format!("http://{host}/").parse().unwrap();
        if http == 413 {
            request.headers_mut().insert("content-length", "5".parse().unwrap());
        }
        let answer = timeout(DEADLINE, client.send_request(request)).await.expect("in time").unwrap();
        drop(say);
        let head = (answer.status().as_u16(), answer.headers()["grpc-status"].to_str().unwrap().to_owned());
        assert_eq!(head, (http, grpc.to_owned()));
        assert_eq!(answer.headers()["content-type"], "application/grpc");
        assert!(answer.into_body().collect().await.unwrap().to_bytes().is_empty());
    }
}

#[tokio::test]
async fn clients_of_http_1_reach_endpoints_of_http_2() {
    let web = H2Endpoint::start(100).await;
    let proxy = proxy(&[web.address], GRPC);
    for request in [
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
        "POST / HTTP/1.0\r\nContent-Length: 5\r\nHost: a\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ] {
        let answer = exchange(proxy.http, request).await;
        assert!(status(&answer) == 200 && answer.contains("hello"), "{answer}");
    }
    assert_eq!(web.connections(), 1);
}

#[tokio::test]
async fn a_service_s_port_may_say_that_it_speaks_http_2() {
    let web = H2Endpoint::start(100).await;
    for (app_protocol, annotations, expected) in [
        (Some("kubernetes.io/h2c"), &[][..], 200),
        // What the Ingress says goes first.
        (Some("kubernetes.io/h2c"), &[("backend-protocol", "HTTP")], 502),
        (None, &[("backend-protocol", "grpc")], 200),
        (None, &[], 502),
    ] {
        let mut snapshot = snapshot(&[web.address], annotations);
        for service in snapshot.services.values_mut() {
            for port in &mut Arc::make_mut(service).ports {
                port.app_protocol = app_protocol.map(str::to_owned);
            }
        }
        let proxy = Proxy::start(snapshot);
        let answer = exchange(proxy.http, get("a", "/")).await;
        assert_eq!(status(&answer), expected, "{app_protocol:?} {annotations:?}: {answer}");
    }
}

#[tokio::test]
async fn protocols_that_are_not_served_are_told() {
    let web = crate::endpoint::TestEndpoint::start("web").await;
    for (value, expected) in [("FCGI", 503), ("AJP", 200), ("HTTP", 200)] {
        let proxy = proxy(&[web.address], &[("backend-protocol", value)]);
        assert_eq!(status(&exchange(proxy.http, get("a", "/")).await), expected, "{value}");
        assert_eq!(problems(&proxy), format!("{} warnings, 0 errors", u32::from(value != "HTTP")), "{value}");
    }
}
