//! Answers that are not the plain case: early ones, ones without a length or a body, trailers, and HTTP/1.0 on either side.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::proxy;
use crate::{
    client::{exchange, get, read_until, status},
    scripted::ScriptedEndpoint,
};

/// Writes these bytes for each head that comes, and then closes or waits for the next.
async fn say(mut stream: TcpStream, answer: &str, close: bool) {
    let mut read = Vec::new();
    while stream.read_buf(&mut read).await.is_ok_and(|count| count > 0) {
        if read.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
            read.clear();
            if stream.write_all(answer.as_bytes()).await.is_err() || close {
                return;
            }
        }
    }
}

#[tokio::test]
async fn odd_answers_arrive_whole() {
    for (request, answer, close, expected) in [
        // 1xx before the answer are this hop's own matter.
        (
            "GET",
            "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            false,
            "ok",
        ),
        ("GET", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", false, "ok"),
        ("GET", "HTTP/1.1 200 OK\r\n\r\nuntil the end", true, "until the end"),
        ("GET", "HTTP/1.0 200 OK\r\n\r\nuntil the end", true, "until the end"),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n", false, ""),
        ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\nETag: x\r\n\r\n", false, ""),
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n", false, ""),
        ("GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", false, "ok"),
    ] {
        let web = ScriptedEndpoint::start(move |_, stream| say(stream, answer, close)).await;
        let proxy = proxy(&[web.address], &[]);
        // To a client of HTTP/1.0 the end of the connection is the end of the answer.
        let head = format!("{request} / HTTP/1.0\r\nHost: a\r\n\r\n");
        let seen = exchange(proxy.http, head).await;
        let last = answer.rfind("HTTP/1").unwrap();
        assert_eq!(status(&seen), status(&answer[last..]), "{answer:?}: {seen}");
        assert!(seen.ends_with(&format!("\r\n\r\n{expected}")), "{answer:?}: {seen}");
        let seen = exchange(proxy.http, get("a", "/").replace("GET", request)).await;
        assert_eq!(status(&seen), status(&answer[last..]), "{answer:?}: {seen}");
        assert!(seen.contains(expected) && !seen.contains("Early"), "{answer:?}: {seen}");
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_not_passed_for_a_whole_one() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ] {
        let web = ScriptedEndpoint::start(move |_, stream| say(stream, answer, true)).await;
        let proxy = proxy(&[web.address], &[]);
        let seen = exchange(proxy.http, get("a", "/")).await;
        assert!(seen.contains("half") && !seen.contains("\r\n0\r\n\r\n"), "{seen}");
    }
    for nonsense in ["", "nonsense\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"] {
        let web = ScriptedEndpoint::start(move |_, stream| say(stream, nonsense, true)).await;
        let proxy = proxy(&[web.address], &[]);
        assert_eq!(status(&exchange(proxy.http, get("a", "/")).await), 502, "{nonsense:?}");
    }
}

#[tokio::test]
async fn an_answer_may_come_before_the_request_is_over() {
    let refusal = "HTTP/1.1 413 Payload Too Large\r\nContent-Length: 4\r\nConnection: close\r\n\r\nnope";
    for close in [true, false] {
        let web = ScriptedEndpoint::start(move |_, stream| say(stream, refusal, close)).await;
        let proxy = proxy(&[web.address], &[("proxy-request-buffering", "off")]);
        let mut stream = TcpStream::connect(proxy.http).await.unwrap();
        stream.write_all(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nbegin").await.unwrap();
        let seen = read_until(&mut stream, "nope").await;
        assert!(status(&seen) == 413 && seen.contains("nope"), "{seen}");
        // The rest is taken off the client's hands, and the connection is good for another request.
        stream.write_all(&[b'x'; 100_000 - 5]).await.unwrap();
        stream.write_all(get("a", "/").as_bytes()).await.unwrap();
        assert_eq!(status(&read_until(&mut stream, "nope").await), 413, "close {close}");
    }
}

#[tokio::test]
async fn trailers_reach_a_client_that_takes_them() {
    let answer =
        "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n";
    let web = ScriptedEndpoint::start(move |_, stream| say(stream, answer, false)).await;
    let proxy = proxy(&[web.address], &[]);
    let takes = get("a", "/").replace("Connection: close", "TE: trailers\r\nConnection: TE, close");
    let seen = exchange(proxy.http, takes).await;
    assert!(seen.ends_with("0\r\nx-sum: 7\r\n\r\n"), "{seen}");
    let seen = exchange(proxy.http, get("a", "/")).await;
    assert!(seen.ends_with("2\r\nok\r\n0\r\n\r\n"), "{seen}");
}

#[tokio::test]
async fn trailers_of_a_request_reach_the_endpoint() {
    for buffering in ["on", "off"] {
        let script = |_, mut stream: TcpStream| async move {
            let seen = read_until(&mut stream, "x-sum: 7\r\n\r\n").await;
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{seen}", seen.len());
            stream.write_all(answer.as_bytes()).await.unwrap();
        };
        let web = ScriptedEndpoint::start(script).await;
        let proxy = proxy(&[web.address], &[("proxy-request-buffering", buffering)]);
        let request = "PUT / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n\
            2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n";
        let seen = exchange(proxy.http, request).await;
        assert!(status(&seen) == 200 && seen.contains("2\r\nok\r\n0\r\n"), "{buffering}: {seen}");
    }
}

#[tokio::test]
async fn http_1_0_is_spoken_to_endpoints_that_want_it() {
    let script = |_, mut stream: TcpStream| async move {
        let mut seen = read_until(&mut stream, "\r\n\r\n").await;
        if seen.to_ascii_lowercase().contains("content-length: 5") && !seen.ends_with("hello") {
            seen += &read_until(&mut stream, "hello").await;
        }
        stream.write_all(format!("HTTP/1.0 200 OK\r\n\r\n{seen}").as_bytes()).await.unwrap();
    };
    let web = ScriptedEndpoint::start(script).await;
    let proxy = proxy(&[web.address], &[("proxy-http-version", "1.0")]);
    let chunked =
        "PUT / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    for request in [get("a", "/"), chunked.to_owned()] {
        let seen = exchange(proxy.http, request).await;
        assert!(seen.contains(" / HTTP/1.0\r\n") && !seen.contains("\r\nchunked"), "{seen}");
    }
    assert_eq!(web.connections(), 2);
    let endless =
        format!("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2800\r\n{}", "x".repeat(0x2800));
    let mut stream = TcpStream::connect(proxy.http).await.unwrap();
    stream.write_all(endless.as_bytes()).await.unwrap();
    assert_eq!(status(&read_until(&mut stream, "\r\n\r\n").await), 411);
}
