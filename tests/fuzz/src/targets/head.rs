//! HTTP/1 heads and chunked bodies: what the checks let through, other parsers read in the same one way.

use httparse::{EMPTY_HEADER, Request, Status};
use roadstead_proxy::head::{
    Chunked, Framing, Length, MAX_HEAD_BYTES, MAX_HEADERS, check_head, end_of_head, fuzz_head,
};

use super::{Target, owned, way};

/// Judging one head.
pub(super) const HEAD: Target = Target {
    name: "head",
    what: "HTTP/1 request heads, judged before hyper sees them",
    seeds: || owned(&SEEDS),
    words: WORDS,
    longest: 40_000,
    run: head,
};

/// Following the chunked coding.
pub(super) const CHUNKED: Target = Target {
    name: "chunked",
    what: "the chunked coding of request bodies",
    seeds: || {
        owned(&[
            b"0\r\n\r\n",
            b"5\r\nhello\r\n0\r\n\r\nGET / HTTP/1.1\r\n",
            b"A;x=y\r\n0123456789\r\n00\r\nX: y\r\n\r\n",
            b"fffffffffffffff\r\n",
        ])
    },
    words: &[b"\r\n", b"0\r\n\r\n", b"1\r\nx\r\n", b";x=\"y\"", b"ffffffffffffffff", b"0x", b"\n", b"\r"],
    longest: 20_000,
    run: chunked,
};

pub(super) const SEEDS: [&[u8]; 7] = [
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /x?y=z HTTP/1.1\r\nHost: a.example:80\r\nContent-Length: 5\r\nX: y\r\n\r\nhello",
    b"PUT http://a/x HTTP/1.1\r\nhost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
    b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"GET / HTTP/1.0\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: \x0cy\r\n\r\n",
];

pub(super) const WORDS: &[&[u8]] = &[
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b"\r",
    b"Host: b\r\n",
    b"Host : b\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: 5, 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n",
    b"Upgrade: websocket\r\n",
    b" HTTP/1.1\r\n",
    b" HTTP/1.0\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"http://b/",
    b" folded\r\n",
    b"X: y\r\n",
    b"0\r\n\r\n",
    b"\xc3\xa9",
    b"%2e%2e/",
];

fn head(bytes: &[u8]) -> u64 {
    let judged = end_of_head(bytes, 0).map(|end| {
        let head = bytes.get(..end?)?;
        Some((head, check_head(head)))
    });
    let framing = fuzz_head(bytes);
    match judged {
        Err(refusal) => way(refusal.reason),
        Ok(None) => way("incomplete"),
        Ok(Some((_, Err(refusal)))) => {
            assert_eq!(framing, None);
            assert!((400..600).contains(&refusal.status), "{refusal:?}");
            way(refusal.reason)
        }
        Ok(Some((head, Ok(judged)))) => {
            assert_eq!(framing, Some(judged));
            agrees(head, judged);
            way((format!("{judged:?}").len(), head.len() / 64))
        }
    }
}

/// A parser that shares no code with ours finds the same end, one host and one length.
fn agrees(head: &[u8], judged: Framing) {
    assert!(head.len() <= MAX_HEAD_BYTES);
    let mut fields = [EMPTY_HEADER; MAX_HEADERS];
    let mut request = Request::new(&mut fields);
    assert_eq!(request.parse(head), Ok(Status::Complete(head.len())), "another parser sees another end");
    let values = |name: &str| -> Vec<&[u8]> {
        request.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value).collect()
    };
    let hosts = values("host");
    assert!(hosts.len() <= 1 && (request.version == Some(0) || hosts.len() == 1), "{hosts:?}");
    let (lengths, codings) = (values("content-length"), values("transfer-encoding"));
    match judged.length {
        Length::Chunked => assert!(lengths.is_empty() && codings.len() == 1 && request.version == Some(1)),
        Length::Bytes(length) => {
            assert!(codings.is_empty() && lengths.len() <= 1);
            let told = lengths.first().map_or(Some(0), |told| std::str::from_utf8(told).ok()?.trim().parse().ok());
            assert_eq!(told, Some(length), "another parser sees another length");
        }
    }
    assert!(!judged.upgrade || judged.length == Length::Bytes(0), "an upgrade with a body");
}

fn chunked(bytes: &[u8]) -> u64 {
    let mut whole = Chunked::default();
    let all = whole.advance(bytes);
    // In pieces it must come to the same, however they are cut.
    let mut pieces = Chunked::default();
    let (mut used, mut failed) = (0, None);
    for (index, piece) in bytes.chunks(1 + bytes.len() % 7).enumerate() {
        match pieces.advance(piece) {
            Ok(count) => {
                used += count;
                if count < piece.len() {
                    assert!(pieces.is_done(), "it stopped in piece {index} before the end");
                    break;
                }
            }
            Err(refusal) => {
                failed = Some(refusal);
                break;
            }
        }
    }
    match all {
        Ok(count) => {
            assert_eq!((failed, used, pieces.is_done()), (None, count, whole.is_done()), "cutting changes the end");
            assert!(count == bytes.len() || whole.is_done());
            if whole.is_done() {
                assert!(bytes.get(..count).is_some_and(|body| body.ends_with(b"\r\n")), "a body ends with its line");
            }
            way((count.min(64), whole.is_done()))
        }
        Err(refusal) => {
            assert_eq!(failed, Some(refusal), "cutting changes the refusal");
            way(refusal.reason)
        }
    }
}
