//! Times and sizes: how long an endpoint is waited for, and how large its answer's head may be.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    time::{Duration, Instant, timeout},
};

use super::{problems, proxy};
use crate::{
    DEADLINE,
    client::{exchange, get, read_until, status},
    endpoint::TestEndpoint,
    scripted::ScriptedEndpoint,
};

#[tokio::test]
async fn an_endpoint_that_says_nothing_is_given_up() {
    let silent = ScriptedEndpoint::start(|_, mut stream| async move {
        while stream.read(&mut [0; 1024]).await.is_ok_and(|count| count > 0) {}
    })
    .await;
    let proxy = proxy(&[silent.address], &[("proxy-read-timeout", "1")]);
    assert_eq!(status(&exchange(proxy.http, get("a", "/")).await), 504);
    let upload = "PUT / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello";
    assert_eq!(status(&exchange(proxy.http, upload).await), 504);
}

#[tokio::test]
async fn silence_within_an_answer_breaks_it_off_and_a_slow_answer_does_not() {
    let halting = ScriptedEndpoint::start(|number, mut stream| async move {
        read_until(&mut stream, "\r\n\r\n").await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nab").await.unwrap();
        if number == 0 {
            let _ = stream.read(&mut [0]).await;
            return;
        }
        // Longer than the silence in all, never in one.
        for piece in [b"c", b"d", b"e", b"f"] {
            tokio::time::sleep(Duration::from_millis(900)).await;
            stream.write_all(piece).await.unwrap();
        }
    })
    .await;
    let proxy = proxy(&[halting.address], &[("proxy-read-timeout", "3")]);
    let broken = exchange(proxy.http, get("a", "/")).await;
    assert!(status(&broken) == 200 && broken.ends_with("\r\n\r\nab"), "{broken}");
    assert!(exchange(proxy.http, get("a", "/")).await.ends_with("\r\n\r\nabcdef"));
}

#[tokio::test]
async fn an_endpoint_that_takes_nothing_is_given_up() {
    let deaf = ScriptedEndpoint::start(|_, stream| async move {
        let _open = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let proxy = proxy(&[deaf.address], &[("proxy-send-timeout", "1"), ("proxy-body-size", "0")]);
    let length = 256 << 20;
    let head = format!("PUT / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
    let (mut read, mut write) = TcpStream::connect(proxy.http).await.unwrap().into_split();
    let writer = tokio::spawn(async move {
        let _ = write.write_all(head.as_bytes()).await;
        let piece = vec![b'x'; 1 << 20];
        for _ in 0..256 {
            if write.write_all(&piece).await.is_err() {
                break;
            }
        }
        write
    });
    let answer = timeout(DEADLINE, read_until(&mut read, "\r\n\r\n")).await.unwrap();
    assert_eq!(status(&answer), 504, "{answer}");
    writer.abort();
}

/// A listener whose queue is full does not answer any more connections, and does not refuse them either.
#[tokio::test]
async fn an_endpoint_that_accepts_nothing_is_given_up() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener: TcpListener = socket.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queue = Vec::new();
    while let Ok(Ok(stream)) = timeout(Duration::from_secs(1), TcpStream::connect(address)).await {
        queue.push(stream);
        assert!(queue.len() < 64, "the queue fills up");
    }
    let begin = Instant::now();
    let proxy = proxy(&[address], &[("proxy-connect-timeout", "1")]);
    assert_eq!(status(&exchange(proxy.http, get("a", "/")).await), 504);
    assert!(begin.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn a_head_larger_than_its_buffer_is_no_answer() {
    let script = |_, mut stream: TcpStream| async move {
        let request = read_until(&mut stream, "\r\n\r\n").await;
        let length: usize = request.split(['/', ' ']).nth(2).unwrap().parse().unwrap();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Large: {}\r\n\r\n", "x".repeat(length));
        stream.write_all(answer.as_bytes()).await.unwrap();
    };
    let large = ScriptedEndpoint::start(script).await;
    for (annotations, length, expected) in [
        (&[][..], 20_000, 200),
        (&[], 200_000, 502),
        (&[("proxy-buffer-size", "4k")], 3_900, 200),
        (&[("proxy-buffer-size", "4k")], 4_100, 502),
        (&[("proxy-buffer-size", "16k")], 16_000, 200),
        (&[("proxy-buffer-size", "16k")], 20_000, 502),
    ] {
        let proxy = proxy(&[large.address], annotations);
        let answer = exchange(proxy.http, get("a", &format!("/{length}"))).await;
        assert_eq!(status(&answer), expected, "{annotations:?} {length}");
    }
}

#[tokio::test]
async fn wrong_values_are_told_and_the_default_holds() {
    let web = TestEndpoint::start("web").await;
    for (key, value) in [
        ("proxy-connect-timeout", "soon"),
        ("proxy-read-timeout", "0"),
        ("proxy-send-timeout", "-1"),
        ("proxy-buffer-size", "0"),
        ("proxy-buffers-number", "few"),
        ("proxy-buffering", "yes"),
        ("proxy-max-temp-file-size", "1024m"),
        ("proxy-http-version", "2"),
    ] {
        let proxy = proxy(&[web.address], &[(key, value)]);
        assert_eq!(problems(&proxy), "1 warnings, 0 errors", "{key}");
        assert_eq!(status(&exchange(proxy.http, get("a", "/")).await), 200, "{key}");
    }
}
