//! Requests as raw bytes that two parsers would read in two ways (reference 2.5, and the raw table of
//! reference/performance.md): each is refused with a status, the connection ends, and no pod has seen anything of it.

use super::{
    client::{ask, exchange, get},
    daemon::Proxy,
    manifests::{ingress, service},
    pod::{Pod, host_address},
};

/// `H` stands for a head's first two lines, `G` for a whole second request, which must never be answered.
type Row = (u16, &'static str, &'static str);

/// Where a message ends: RFC 9112, section 6.
const FRAMING: &[Row] = &[
    (
        400,
        "CL beside TE",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG",
    ),
    (
        400,
        "TE beside CL",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\nG",
    ),
    (501, "TE gzip, chunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\nG"),
    (501, "TE chunked, gzip", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\nG"),
    (501, "TE chunked, chunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\nG"),
    (
        501,
        "TE chunked, identity",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\nG",
    ),
    (501, "TE identity", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\nG"),
    (501, "TE xchunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\nG"),
    (501, "TE with a parameter", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\nG"),
    (501, "TE in quotes", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\nG"),
    (501, "TE empty", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n0\r\n\r\nG"),
    (400, "TE behind a form feed", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0cchunked\r\n\r\n0\r\n\r\nG"),
    (400, "CL before a form feed", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\x0c\r\n\r\nabcdG"),
    (400, "TE behind a vertical tab", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\nG"),
    (
        400,
        "TE twice",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG",
    ),
    (
        501,
        "TE chunked, then another",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: cow\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG",
    ),
    (
        400,
        "TE with a space before the colon",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\nG",
    ),
    (400, "TE behind a space", "POST / HTTP/1.1\r\nHost: a\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nG"),
    (400, "TE in HTTP/1.0", "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG"),
    (400, "CL twice, differing", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcdG"),
    (400, "CL twice, the same", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\nabcdG"),
    (400, "CL 2, 2", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2, 2\r\n\r\nabG"),
    (400, "CL empty", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\nG"),
    (400, "CL +4", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +4\r\n\r\nabcdG"),
    (400, "CL -1", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\nG"),
    (400, "CL 0x4", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x4\r\n\r\nabcdG"),
    (400, "CL 4 4", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4 4\r\n\r\nabcdG"),
    (400, "CL 4.0", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4.0\r\n\r\nabcdG"),
    (400, "CL beyond 2^64", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551620\r\n\r\nabcdG"),
    (400, "CL with a space before the colon", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 4\r\n\r\nabcdG"),
];

/// Chunks: the head is good, so the pod may see it, but never a whole body.
const CHUNKS: &[(&str, &str)] = &[
    ("size 0x2", "0x2\r\nab\r\n0\r\n\r\nG"),
    ("size empty", "\r\nab\r\n0\r\n\r\nG"),
    ("size -2", "-2\r\nab\r\n0\r\n\r\nG"),
    ("size +2", "+2\r\nab\r\n0\r\n\r\nG"),
    ("size behind a space", " 2\r\nab\r\n0\r\n\r\nG"),
    ("size before a space", "2 \r\nab\r\n0\r\n\r\nG"),
    ("size beyond 2^64", "10000000000000002\r\nab\r\n0\r\n\r\nG"),
    ("size ends in a bare line feed", "2\nab\r\n0\r\n\r\nG"),
    ("size ends in a bare carriage return", "2\rab\r\n0\r\n\r\nG"),
    ("extension with a bare line feed", "2;a\nb\r\nab\r\n0\r\n\r\nG"),
    ("extension with a NUL", "2;a\0b\r\nab\r\n0\r\n\r\nG"),
    ("data ends in a bare line feed", "2\r\nab\n0\r\n\r\nG"),
    ("data longer than its size", "2\r\nabXX0\r\n\r\nG"),
    ("last chunk ends in a bare line feed", "2\r\nab\r\n0\n\r\nG"),
    ("trailer with a bare line feed", "2\r\nab\r\n0\r\nX: y\n\r\nG"),
];

/// Lines, names and values: RFC 9112, sections 2.2 and 5.
const LINES: &[Row] = &[
    (400, "bare line feeds", "GET / HTTP/1.1\nHost: a\n\nG"),
    (400, "a bare line feed behind the request line", "GET / HTTP/1.1\nHost: a\r\n\r\nG"),
    (400, "a bare line feed behind a field", "GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\nG"),
    (400, "a bare line feed at the end", "GET / HTTP/1.1\r\nHost: a\r\n\nG"),
    (400, "a bare carriage return in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\nG"),
    (400, "a bare carriage return in the request line", "GET /\r HTTP/1.1\r\nHost: a\r\n\r\nG"),
    (400, "two carriage returns", "GET / HTTP/1.1\r\r\nHost: a\r\n\r\nG"),
    (400, "NUL in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\nG"),
    (400, "NUL in a name", "GET / HTTP/1.1\r\nHost: a\r\nX\0: b\r\n\r\nG"),
    (400, "DEL in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: a\x7fb\r\n\r\nG"),
    (400, "obs-fold", "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\nG"),
    (400, "obs-fold with a tab", "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n\tb\r\n\r\nG"),
    (400, "obs-fold behind the request line", "GET / HTTP/1.1\r\n Host: a\r\nHost: a\r\n\r\nG"),
    (400, "a field without a colon", "GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\nG"),
    (400, "a field without a name", "GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\nG"),
    (400, "a space in a name", "GET / HTTP/1.1\r\nHost: a\r\nX Y: z\r\n\r\nG"),
    (400, "a space before a colon", "GET / HTTP/1.1\r\nHost: a\r\nX : z\r\n\r\nG"),
    (400, "letters beyond ASCII in a name", "GET / HTTP/1.1\r\nHost: a\r\n\u{e9}: z\r\n\r\nG"),
    (400, "parentheses in a name", "GET / HTTP/1.1\r\nHost: a\r\n(x): z\r\n\r\nG"),
];

/// Whom a request is for: RFC 9112, sections 3.2 and 3.2.2.
const HOSTS: &[Row] = &[
    (400, "no Host", "GET / HTTP/1.1\r\n\r\nG"),
    (400, "an empty Host", "GET / HTTP/1.1\r\nHost:\r\n\r\nG"),
    (400, "two Hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\nG"),
    (400, "two Hosts, the same", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\nG"),
    (400, "a list of Hosts", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\nG"),
    (400, "Host with a space before its colon", "GET / HTTP/1.1\r\nHost : a\r\n\r\nG"),
    (400, "Host with a path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\nG"),
    (400, "Host with a user", "GET / HTTP/1.1\r\nHost: b@a\r\n\r\nG"),
    (400, "Host with a space", "GET / HTTP/1.1\r\nHost: a b\r\n\r\nG"),
    (400, "Host with a port that is none", "GET / HTTP/1.1\r\nHost: a:b\r\n\r\nG"),
    (400, "Host with a port too large", "GET / HTTP/1.1\r\nHost: a:65536\r\n\r\nG"),
    (400, "Host with two ports", "GET / HTTP/1.1\r\nHost: a:80:81\r\n\r\nG"),
    (400, "Host with an open bracket", "GET / HTTP/1.1\r\nHost: [::1\r\n\r\nG"),
    (400, "Host with a percent escape", "GET / HTTP/1.1\r\nHost: %61\r\n\r\nG"),
    (400, "absolute form, another Host", "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\nG"),
    (400, "absolute form, another port", "GET http://a:81/ HTTP/1.1\r\nHost: a\r\n\r\nG"),
    (400, "absolute form, no Host", "GET http://a/ HTTP/1.1\r\n\r\nG"),
    (400, "absolute form with a user", "GET http://b@a/ HTTP/1.1\r\nHost: a\r\n\r\nG"),
    (400, "absolute form without a host", "GET http:/// HTTP/1.1\r\nHost: a\r\n\r\nG"),
    (400, "absolute form of another scheme", "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\nG"),
];

/// The request line: RFC 9112, section 3.
const REQUEST_LINES: &[Row] = &[
    (400, "a space in the path", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\nG"),
    (400, "two spaces", "GET  / HTTP/1.1\r\nHost: a\r\n\r\nG"),
    (400, "two spaces before the version", "GET /  HTTP/1.1\r\nHost: a\r\n\r\nG"),
    (400, "a space at the end", "GET / HTTP/1.1 \r\nHost: a\r\n\r\nG"),
    (400, "a space at the start", " GET / HTTP/1.1\r\nHost: a\r\n\r\nG"),
    (400, "tabs for spaces", "GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\nG"),
    (400, "a tab in the path", "GET /a\tb HTTP/1.1\r\nHost: a\r\n\r\nG"),
    (400, "NUL in the path", "GET /a\0b HTTP/1.1\r\nHost: a\r\n\r\nG"),
    (400, "DEL in the path", "GET /a\x7fb HTTP/1.1\r\nHost: a\r\n\r\nG"),
    (400, "< in the path", "GET /a<b HTTP/1.1\r\nHost: a\r\n\r\nG"),
    (400, "> in the path", "GET /a>b HTTP/1.1\r\nHost: a\r\n\r\nG"),
    (400, "a quote in the path", "GET /a\"b HTTP/1.1\r\nHost: a\r\n\r\nG"),
    (400, "a fragment", "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\nG"),
    (400, "a path without a slash", "GET a HTTP/1.1\r\nHost: a\r\n\r\nG"),
    (400, "a query for a path", "GET ?a HTTP/1.1\r\nHost: a\r\n\r\nG"),
    (400, "* with GET", "GET * HTTP/1.1\r\nHost: a\r\n\r\nG"),
    (400, "HTTP/0.9", "GET /\r\n\r\nG"),
    (400, "no target", "GET HTTP/1.1\r\nHost: a\r\n\r\nG"),
    (400, "a method that is no token", "G@T / HTTP/1.1\r\nHost: a\r\n\r\nG"),
    (505, "HTTP/2.0 without its preface", "GET / HTTP/2.0\r\nHost: a\r\n\r\nG"),
    (505, "HTTP/1.2", "GET / HTTP/1.2\r\nHost: a\r\n\r\nG"),
    (505, "http/1.1", "GET / http/1.1\r\nHost: a\r\n\r\nG"),
    (505, "HTTP/1.1x", "GET / HTTP/1.1x\r\nHost: a\r\n\r\nG"),
    (405, "CONNECT", "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\nG"),
    (405, "CONNECT in origin form", "CONNECT / HTTP/1.1\r\nHost: a\r\n\r\nG"),
    (405, "TRACE", "TRACE / HTTP/1.1\r\nHost: a\r\n\r\nG"),
];

/// One pod that takes every host and path, and the proxy before it.
fn start() -> Option<(Proxy, Pod)> {
    let pod = Pod::start(host_address()?, "web");
    let text = [service("web", &[&pod]), ingress("web", "", &[("Prefix", "/", "web")])].concat();
    Some((Proxy::start(&[("all.yaml", &text)]), pod))
}

/// The second request of a vector; answered, it would have been smuggled.
fn bytes(vector: &str) -> Vec<u8> {
    let vector = vector.strip_suffix('G').expect("every vector goes on with a request");
    format!("{vector}{}", get("a", "/smuggled")).into_bytes()
}

#[test]
fn ambiguous_requests_are_refused_and_end_their_connection() {
    let Some((proxy, pod)) = start() else { return };
    let tables = [FRAMING, LINES, HOSTS, REQUEST_LINES];
    let mut count = 0;
    for (status, what, vector) in tables.into_iter().flatten() {
        let outcome = exchange(proxy.http, &bytes(vector));
        let statuses: Vec<u16> = outcome.answers.iter().map(|answer| answer.status).collect();
        assert_eq!((&*statuses, outcome.closed), (&[*status][..], true), "{what}: {vector:?}");
        assert_eq!(outcome.answers[0].field("connection").as_deref(), Some("close"), "{what}");
        count += 1;
    }
    assert_eq!(pod.requests(), 0, "no pod has seen any of them");
    assert_eq!(ask(proxy.http, get("a", "/")).status, 200, "others are served");
    println!("{count} vectors refused; {}", proxy.memory());
}

#[test]
fn broken_chunks_fail_their_request_and_end_their_connection() {
    let Some((proxy, pod)) = start() else { return };
    for (what, body) in CHUNKS {
        let vector = format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        let outcome = exchange(proxy.http, &bytes(&vector));
        let statuses: Vec<u16> = outcome.answers.iter().map(|answer| answer.status).collect();
        assert_eq!((&*statuses, outcome.closed), (&[400][..], true), "{what}: {vector:?}");
    }
    assert!(!pod.has_seen("/smuggled"));
    let good = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \tChunked \r\nConnection: close\r\n\r\n002;x=\"y\"\r\nab\r\n0\r\nX: y\r\n\r\n";
    let answer = ask(proxy.http, good);
    assert_eq!((answer.status, &*answer.seen().body), (200, "ab"), "the strict coding lets good chunks through");
    println!("{} vectors refused; {}", CHUNKS.len(), proxy.memory());
}

/// The wish for WebSocket is not granted, for the pod answers 200: what came behind it must not become a request. (Pingora's
/// CVE-2026-2833 took it for one.)
#[test]
fn nothing_behind_a_wish_to_upgrade_is_a_request() {
    let Some((proxy, pod)) = start() else { return };
    let mut sent = 0;
    for (what, fields, answers) in [
        ("websocket", "Connection: Upgrade\r\nUpgrade: websocket\r\n", 1),
        ("WebSocket in capitals", "Connection: upgrade\r\nUpgrade: WebSocket\r\n", 1),
        ("without Connection", "Upgrade: websocket\r\n", 1),
        // What is not granted in any case is no reason to lose a good request.
        ("h2c", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n", 2),
        ("another protocol", "Connection: Upgrade\r\nUpgrade: foo\r\nContent-Length: 0\r\n", 2),
    ] {
        let head = format!("GET /first HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let outcome = exchange(proxy.http, format!("{head}{}", get("a", "/second")).as_bytes());
        let targets: Vec<String> = outcome.answers.iter().map(|answer| answer.seen().target).collect();
        assert_eq!(targets, ["/first", "/second"][..answers], "{what}");
        assert!(outcome.closed, "{what}");
        sent += answers;
        assert_eq!(pod.requests(), sent, "{what}");
    }
}

/// Limits of a head: bytes, fields, the length of the target. The answer comes although the client still sends.
#[test]
fn heads_beyond_the_limits_are_431() {
    let Some((proxy, pod)) = start() else { return };
    let line = |fields: &str| format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    for (what, request) in [
        ("a field of 40,000 bytes", line(&format!("X: {}\r\n", "x".repeat(40_000)))),
        ("a field of 900,000 bytes", line(&format!("X: {}\r\n", "x".repeat(900_000)))),
        ("a target of 40,000 bytes", format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(40_000))),
        ("101 fields", line(&"X: y\r\n".repeat(100))),
        ("200 fields", line(&"X: y\r\n".repeat(200))),
        ("100,000 fields", line(&"X: y\r\n".repeat(100_000))),
        ("a name of 40,000 bytes", line(&format!("{}: x\r\n", "x".repeat(40_000)))),
        ("no end in a megabyte", format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(1 << 20))),
    ] {
        let outcome = exchange(proxy.http, request.as_bytes());
        let statuses: Vec<u16> = outcome.answers.iter().map(|answer| answer.status).collect();
        // A client that writes on and on may be reset before it has read the answer.
        let reset = statuses.is_empty() && request.len() > 300_000;
        assert!(statuses == [431] || reset, "{what}: {statuses:?}");
        assert!(outcome.closed, "{what}");
    }
    assert_eq!(pod.requests(), 0);
    let many = line(&"X: y\r\n".repeat(90)).replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    assert_eq!(ask(proxy.http, many).status, 200, "92 fields are within the limit");
    println!("8 heads refused; {}", proxy.memory());
}
