//! Streams through the guard: what hyper would read, however the stream is cut.

use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use super::*;
use crate::head::MAX_HEAD_BYTES;

const SHORT: Duration = Duration::from_millis(30);
const LONG: Duration = Duration::from_secs(10);
const PATIENT: Limits = Limits { head_bytes: MAX_HEAD_BYTES, head: LONG, body: LONG, write: LONG, http2: true };
const GOOD: &str = "GET /a HTTP/1.1\r\nHost: a\r\n\r\n";

/// What comes out when `input` goes in, cut into pieces of `step` bytes; read in pieces of `size`. The mark of a refusal
/// is written `<status>`, and nothing may follow it.
async fn through(input: &[u8], step: usize, size: usize) -> String {
    let (mut client, server) = duplex(64);
    let input = input.to_vec();
    let writer = tokio::spawn(async move {
        for piece in input.chunks(step) {
            if client.write_all(piece).await.is_err() {
                return;
            }
        }
    });
    let mut guard = Guard::new(server, PATIENT);
    let mut out = Vec::new();
    let mut piece = vec![0; size];
    loop {
        match guard.read(&mut piece).await {
            Ok(0) => break,
            Ok(count) => out.extend_from_slice(&piece[..count]),
            Err(_) => {
                out.extend_from_slice(b"<broken>");
                break;
            }
        }
        if out.ends_with(b"connection: close\r\n\r\n") {
            let text = String::from_utf8_lossy(&out).into_owned();
            let (before, marked) = text.split_once("GET / HTTP/1.1\r\nhost: refused").expect("a head of our own");
            let status = marked.split_once(&format!("{}-", *NONCE)).expect("the mark").1.get(..3).expect("a status");
            drop(guard);
            writer.await.expect("the writer");
            return format!("{before}<{status}>");
        }
    }
    drop(guard);
    writer.await.expect("the writer");
    String::from_utf8(out).expect("text")
}

async fn check(input: &str, expected: &str) {
    for step in [1, 3, 64, input.len().max(1)] {
        for size in [1, 24, 4096] {
            assert_eq!(through(input.as_bytes(), step, size).await, expected, "{input:?} by {step} into {size}");
        }
    }
}

#[tokio::test]
async fn every_head_of_a_stream_is_judged() {
    let bad = "GET /b HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n";
    check(GOOD, GOOD).await;
    check(&format!("\r\n{GOOD}"), GOOD).await;
    check(&format!("{GOOD}{GOOD}"), &format!("{GOOD}{GOOD}")).await;
    check(bad, "<400>").await;
    check(&format!("{GOOD}{bad}{GOOD}"), &format!("{GOOD}<400>")).await;
    check("GET / HTTP/1.1\nHost: a\n\n", "<400>").await;
}

#[tokio::test]
async fn heads_behind_bodies_are_judged() {
    let sized = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\nGET / HTTP\n\n";
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n\n\n\n\r\n0\r\n\r\n";
    for body in [sized, chunked] {
        check(body, body).await;
        check(&format!("{body}{GOOD}"), &format!("{body}{GOOD}")).await;
        check(&format!("{body}G@T\n{GOOD}"), &format!("{body}<400>")).await;
    }
}

#[tokio::test]
async fn smuggled_requests_never_come_out() {
    let both = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    check(&format!("{both}{GOOD}"), "<400>").await;
    let broken = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n";
    let seen = through(format!("{broken}{GOOD}").as_bytes(), 4096, 4096).await;
    assert!(seen.ends_with("<broken>") && !seen.contains("/a"), "{seen}");
}

#[tokio::test]
async fn http2_and_upgrades_pass() {
    let h2 = format!("{}\n\0anything\n", String::from_utf8_lossy(PREFACE));
    check(&h2, &h2).await;
    let upgrade = "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n\n\nframes";
    check(upgrade, upgrade).await;
    check("PRI / HTTP/1.1\r\nHost: a\r\n\r\n", "PRI / HTTP/1.1\r\nHost: a\r\n\r\n").await;
}

#[tokio::test]
async fn http2_can_be_refused() {
    let (mut client, server) = duplex(64);
    let mut guard = Guard::new(server, Limits { http2: false, ..PATIENT });
    client.write_all(PREFACE).await.unwrap();
    let mut out = vec![0; 4096];
    let count = guard.read(&mut out).await.unwrap();
    assert!(String::from_utf8_lossy(&out[..count]).contains("-505\r\n"));
}

#[tokio::test]
async fn too_large_a_head_is_refused_before_it_ends() {
    let endless = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(MAX_HEAD_BYTES * 2));
    assert_eq!(through(endless.as_bytes(), 4096, 4096).await, "<431>");
    let whole = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(MAX_HEAD_BYTES));
    assert_eq!(through(whole.as_bytes(), 64 * 1024, 4096).await, "<431>");
}

#[tokio::test]
async fn a_body_that_stays_away_is_given_up() {
    let sized = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nsome";
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nsome\r\n";
    for start in [sized, chunked] {
        let (mut client, server) = duplex(1024);
        let mut guard = Guard::new(server, Limits { body: SHORT, ..PATIENT });
        client.write_all(start.as_bytes()).await.unwrap();
        let mut seen = Vec::new();
        let ended = tokio::time::timeout(LONG, guard.read_to_end(&mut seen)).await.expect("in time");
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::TimedOut, "{start}");
        assert!(seen.ends_with(b"some") || seen.ends_with(b"some\r\n"), "{start}");
    }
    // Between two messages nobody waits for a body.
    let (mut client, server) = duplex(1024);
    let mut guard = Guard::new(server, Limits { body: SHORT, ..PATIENT });
    client.write_all(GOOD.as_bytes()).await.unwrap();
    let mut seen = vec![0; 1024];
    assert_eq!(guard.read(&mut seen).await.unwrap(), GOOD.len());
    assert!(tokio::time::timeout(SHORT * 4, guard.read(&mut seen)).await.is_err(), "it waits on");
}

#[tokio::test]
async fn a_head_has_a_deadline_from_its_first_byte() {
    let (mut client, server) = duplex(64);
    let mut guard = Guard::new(server, Limits { head: SHORT, ..PATIENT });
    let mut out = vec![0; 4096];
    client.write_all(b"GET / HT").await.unwrap();
    let count = guard.read(&mut out).await.unwrap();
    assert!(String::from_utf8_lossy(&out[..count]).contains("-408\r\n"));

    let (_silent, server) = duplex(64);
    let mut guard = Guard::new(server, Limits { head: SHORT, ..PATIENT });
    assert_eq!(guard.read(&mut out).await.unwrap(), 0, "a silent client is told nothing");
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_given_up() {
    let (mut client, server) = duplex(64);
    let mut guard = Guard::new(server, Limits { write: SHORT, ..PATIENT });
    guard.write_all(&[0; 64]).await.unwrap();
    let stalled = tokio::time::timeout(PATIENT.write, guard.write_all(&[0; 64])).await.expect("in time");
    assert_eq!(stalled.unwrap_err().kind(), io::ErrorKind::TimedOut);
    // One that reads, however little, is served.
    client.read_exact(&mut [0; 64]).await.unwrap();
    let mut guard = Guard::new(guard.stream, Limits { write: SHORT, ..PATIENT });
    guard.write_all(&[0; 64]).await.unwrap();
    let reader = async { client.read_exact(&mut [0; 64]).await.unwrap() };
    let (written, _) = tokio::join!(guard.write_all(&[0; 64]), reader);
    written.unwrap();
}

#[tokio::test]
async fn the_mark_cannot_be_forged() {
    let mut headers = HeaderMap::new();
    headers.insert(MARK, "00000000000000000000000000000000-400".parse().unwrap());
    assert_eq!(refused_status(&headers), None);
    headers.insert(MARK, format!("{}-431", *NONCE).parse().unwrap());
    assert_eq!(refused_status(&headers), Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE));
}
