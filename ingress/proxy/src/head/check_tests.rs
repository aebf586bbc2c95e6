//! Heads that are judged, and mutations of them that must never be let through in two meanings.

use super::*;
use crate::head::fuzz_head;

/// Status of the refusal, 0 for an accepted head.
fn status(head: &str) -> u16 {
    let judged = end_of_head(head.as_bytes(), 0)
        .and_then(|end| check_head(head.as_bytes().get(..end.expect("complete")).expect("inside")));
    judged.map_or_else(|refusal| refusal.status, |_| 0)
}

fn check(expected: u16, heads: &[&str]) {
    assert!(!heads.is_empty());
    for head in heads {
        assert_eq!(status(head), expected, "{head:?}");
    }
}

#[test]
fn ordinary_heads_pass() {
    check(
        0,
        &[
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a?b=c HTTP/1.1\r\nhost: a.example:8080\r\nAccept: */*\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: [2001:db8::1]:80\r\n\r\n",
            "GET / HTTP/1.0\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http://A.example/x HTTP/1.1\r\nHost: a.example\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:  5 \r\n\r\n",
            "GET /{x}|y HTTP/1.1\r\nHost: a\r\nX-Tab: a\tb\r\n\r\n",
        ],
    );
}

#[test]
fn ambiguous_framing_is_refused() {
    check(
        400,
        &[
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999999999999999\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n",
        ],
    );
    check(
        501,
        &[
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n",
        ],
    );
}

#[test]
fn hosts_must_be_one_and_agree() {
    check(
        400,
        &[
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost:\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: user@a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: [::zz]\r\n\r\n",
            "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http://user@a/ HTTP/1.0\r\n\r\n",
        ],
    );
}

#[test]
fn lines_are_strict() {
    check(
        400,
        &[
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: a\x0bb\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX:\x0cb\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0cchunked\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\x0c\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n: empty\r\n\r\n",
            "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
            "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a\tb HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /<a> HTTP/1.1\r\nHost: a\r\n\r\n",
            "G(T / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /\r\nHost: a\r\n\r\n",
        ],
    );
    let status = |head: &[u8]| check_head(head).map_err(|refusal| refusal.status).err();
    assert_eq!(status(b"GET /\xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n"), Some(400));
    assert_eq!(status("GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n".as_bytes()), None);
    check(405, &["CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n"]);
    check(505, &["GET / HTTP/2.0\r\nHost: a\r\n\r\n", "GET / http/1.1\r\nHost: a\r\n\r\n"]);
}

#[test]
fn the_number_of_fields_is_bounded() {
    let many = "X: y\r\n".repeat(MAX_HEADERS);
    check(431, &[&format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n")]);
}

#[test]
fn the_framing_is_what_the_head_says() {
    let framing = |fields: &str| fuzz_head(format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n").as_bytes()).unwrap();
    assert_eq!(framing("").length, Length::Bytes(0));
    assert_eq!(framing("Content-Length: 7\r\n").length, Length::Bytes(7));
    assert_eq!(framing("Transfer-Encoding: chunked\r\n").length, Length::Chunked);
    assert!(framing("Upgrade: websocket\r\nConnection: upgrade\r\n").upgrade);
    assert!(framing("Upgrade: h2c\r\nUpgrade: WebSocket \r\n").upgrade);
    assert!(!framing("Upgrade: websocket\r\nContent-Length: 7\r\n").upgrade);
    assert!(!framing("Upgrade: h2c\r\nConnection: upgrade\r\n").upgrade);
}

#[test]
fn a_head_is_found_where_it_ends() {
    let bytes = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nrest";
    assert_eq!(end_of_head(bytes, 0), Ok(Some(27)));
    for cut in 0..27 {
        let part = &bytes[..cut];
        assert_eq!(end_of_head(part, 0), Ok(None), "{cut}");
        assert_eq!(end_of_head(bytes, cut.saturating_sub(3)), Ok(Some(27)), "{cut}");
    }
}

/// Mutates good heads with a seeded generator; whatever is accepted must hold the invariants when read a second way.
#[test]
fn accepted_mutations_are_unambiguous() {
    let seeds: [&[u8]; 3] = [
        b"POST /a HTTP/1.1\r\nHost: a.example\r\nContent-Length: 12\r\nX-A: b\r\n\r\n",
        b"POST http://a/b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    ];
    let pieces: [&[u8]; 10] = [
        b"\r",
        b"\n",
        b"\r\n",
        b"\0",
        b" ",
        b":",
        b"Host: b\r\n",
        b"Content-Length: 3\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"\t",
    ];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    };
    let mut accepted = 0;
    for round in 0..200_000 {
        let mut bytes = seeds[round % seeds.len()].to_vec();
        for _ in 0..=next(3) {
            let place = next(bytes.len());
            match next(3) {
                0 => bytes[place] = u8::try_from(next(256)).unwrap(),
                1 => drop(bytes.remove(place)),
                _ => drop(bytes.splice(place..place, pieces[next(pieces.len())].iter().copied())),
            }
        }
        if fuzz_head(&bytes).is_some() {
            accepted += 1;
            assert_unambiguous(&bytes);
        }
    }
    assert!(accepted > 1000, "the generator makes too little that is accepted: {accepted}");
}

fn assert_unambiguous(bytes: &[u8]) {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("an end") + 4;
    let text = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    // Every way of splitting lines gives the same lines.
    assert_eq!(text.matches('\n').count(), text.matches("\r\n").count(), "{text:?}");
    assert_eq!(text.matches('\r').count(), text.matches("\r\n").count(), "{text:?}");
    let count = |name: &str| text.lines().filter(|line| line.split(':').next().unwrap().trim() == name).count();
    assert!(count("host") <= 1, "{text:?}");
    assert!(count("content-length") + count("transfer-encoding") <= 1, "{text:?}");
    assert!(!text.contains('\0'), "{text:?}");
}
