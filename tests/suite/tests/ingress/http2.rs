//! HTTP/2 as an attacker speaks it: requests that are none, streams taken back in bursts and one at a time, heads without
//! end, floods that nobody reads. The connection ends, the pod is spared, memory is bounded, others are served.

use std::thread;

use super::{
    client::{ask, get as get1},
    daemon::{Proxy, wait_until},
    frames::{
        CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, HEADERS, Outcome, PING, RST_STREAM, SETTINGS,
        WINDOW_UPDATE, block, frame, get,
    },
    manifests::{ingress, service},
    pod::{Pod, host_address},
};

/// One pod that takes every host and path, and the proxy before it.
fn start() -> Option<(Proxy, Pod)> {
    let pod = Pod::start(host_address()?, "web");
    let text = [service("web", &[&pod]), ingress("web", "", &[("Prefix", "/", "web")])].concat();
    Some((Proxy::start(&[("all.yaml", &text)]), pod))
}

type Fields = &'static [(&'static str, &'static str)];

const PROTOCOL_ERROR: u32 = 1;
/// How many requests one connection may have at once.
const STREAMS: u32 = 128;

/// What is wrong, and the fields. The rest of a good request is added where the name does not begin with a colon.
const WRONG: &[(&str, Outcome, Fields)] = &[
    ("a name in capitals", Outcome::GoAway(PROTOCOL_ERROR), &[("X-Up", "y")]),
    ("connection", Outcome::Reset(PROTOCOL_ERROR), &[("connection", "close")]),
    ("keep-alive", Outcome::Reset(PROTOCOL_ERROR), &[("keep-alive", "timeout=5")]),
    ("proxy-connection", Outcome::Reset(PROTOCOL_ERROR), &[("proxy-connection", "close")]),
    ("transfer-encoding", Outcome::Reset(PROTOCOL_ERROR), &[("transfer-encoding", "chunked")]),
    ("upgrade", Outcome::Reset(PROTOCOL_ERROR), &[("upgrade", "websocket")]),
    ("te other than trailers", Outcome::Reset(PROTOCOL_ERROR), &[("te", "gzip")]),
    ("CR LF in a value", Outcome::GoAway(PROTOCOL_ERROR), &[("x", "a\r\nevil: b")]),
    ("LF in a value", Outcome::GoAway(PROTOCOL_ERROR), &[("x", "a\nb")]),
    ("NUL in a value", Outcome::GoAway(PROTOCOL_ERROR), &[("x", "a\0b")]),
    ("CR LF in a name", Outcome::GoAway(PROTOCOL_ERROR), &[("x\r\nevil", "b")]),
    ("a space in a name", Outcome::GoAway(PROTOCOL_ERROR), &[("x y", "b")]),
    ("a colon in a name", Outcome::GoAway(PROTOCOL_ERROR), &[("x:y", "b")]),
    ("an empty name", Outcome::GoAway(PROTOCOL_ERROR), &[("", "b")]),
    ("content-length that is none", Outcome::Reset(PROTOCOL_ERROR), &[("content-length", "2, 2")]),
    ("content-length twice", Outcome::Reset(PROTOCOL_ERROR), &[("content-length", "0"), ("content-length", "1")]),
    ("content-length without a body", Outcome::Reset(PROTOCOL_ERROR), &[("content-length", "5")]),
    ("another host", Outcome::Status(400), &[("host", "b")]),
    ("two hosts", Outcome::Status(400), &[("host", "a"), ("host", "a")]),
    ("no method", Outcome::Reset(PROTOCOL_ERROR), &[(":scheme", "http"), (":authority", "a"), (":path", "/")]),
    ("no path", Outcome::Reset(PROTOCOL_ERROR), &[(":method", "GET"), (":scheme", "http"), (":authority", "a")]),
    ("no scheme", Outcome::Reset(PROTOCOL_ERROR), &[(":method", "GET"), (":authority", "a"), (":path", "/")]),
    ("no authority", Outcome::Status(400), &[(":method", "GET"), (":scheme", "http"), (":path", "/")]),
    (
        "two paths",
        Outcome::Reset(PROTOCOL_ERROR),
        &[(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/"), (":path", "/b")],
    ),
    (
        "an unknown pseudo-field",
        Outcome::GoAway(PROTOCOL_ERROR),
        &[(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/"), (":x", "y")],
    ),
    (
        "a pseudo-field behind a field",
        Outcome::Reset(PROTOCOL_ERROR),
        &[(":method", "GET"), (":scheme", "http"), (":authority", "a"), ("x", "y"), (":path", "/")],
    ),
    (
        "an empty path",
        Outcome::Reset(PROTOCOL_ERROR),
        &[(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "")],
    ),
    (
        "a path without a slash",
        Outcome::Reset(PROTOCOL_ERROR),
        &[(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "a")],
    ),
    (
        "a space in the path",
        Outcome::Reset(PROTOCOL_ERROR),
        &[(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/a HTTP/1.1")],
    ),
    (
        "CR LF in the path",
        Outcome::Reset(PROTOCOL_ERROR),
        &[(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/a\r\nx: y")],
    ),
    (
        "a path above the root",
        Outcome::Status(400),
        &[(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/..")],
    ),
    (
        "a space in the method",
        Outcome::GoAway(PROTOCOL_ERROR),
        &[(":method", "GET /x"), (":scheme", "http"), (":authority", "a"), (":path", "/")],
    ),
    (
        "a user in the authority",
        Outcome::Status(400),
        &[(":method", "GET"), (":scheme", "http"), (":authority", "b@a"), (":path", "/")],
    ),
    (
        "a path in the authority",
        Outcome::Reset(PROTOCOL_ERROR),
        &[(":method", "GET"), (":scheme", "http"), (":authority", "a/b"), (":path", "/")],
    ),
    ("CONNECT", Outcome::Status(405), &[(":method", "CONNECT"), (":authority", "a:80")]),
    (
        "CONNECT for a protocol",
        Outcome::Reset(PROTOCOL_ERROR),
        &[(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":authority", "a"), (":path", "/")],
    ),
    ("TRACE", Outcome::Status(405), &[(":method", "TRACE"), (":scheme", "http"), (":authority", "a"), (":path", "/")]),
];

#[test]
fn requests_that_are_none_reach_no_pod() {
    let Some((proxy, pod)) = start() else { return };
    let mut others = Vec::new();
    for (what, expected, fields) in WRONG {
        let mut all = vec![(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")];
        if fields[0].0.starts_with(':') {
            all.clear();
        }
        all.extend_from_slice(fields);
        let mut frames = Frames::open(proxy.http);
        frames.write(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &block(&all))).unwrap();
        let outcome = frames.outcome(1);
        if outcome != *expected {
            others.push(format!("{what}: {outcome}, not {expected}"));
        }
    }
    assert!(others.is_empty(), "{}", others.join("\n"));
    assert_eq!(pod.requests(), 0, "no pod has seen any of them");
    println!("{} requests refused; {}", WRONG.len(), proxy.memory());
}

/// CVE-2023-44487: every burst opens a hundred streams and takes them back at once.
#[test]
fn resets_in_bursts_end_the_connection() {
    let Some((proxy, pod)) = start() else { return };
    let mut connections = 0;
    for _ in 0..20 {
        let mut frames = Frames::open(proxy.http);
        let mut sent = 0;
        for stream in (1..200_000).step_by(2) {
            let cancel = frame(RST_STREAM, 0, stream, &8u32.to_be_bytes());
            if frames.write(&[get(stream, "/hold?hold"), cancel].concat()).is_err() {
                break;
            }
            sent += 1;
        }
        assert!(sent < 100_000, "the connection ended before all were sent");
        connections += 1;
    }
    assert!(pod.requests() < 200 * connections, "{} requests reached the pod", pod.requests());
    assert_eq!(ask(proxy.http, get1("a", "/")).status, 200, "others are served");
    println!("{connections} connections, {} requests at the pod; {}", pod.requests(), proxy.memory());
}

/// CVE-2025-8671, "MadeYouReset": the client makes the server reset the streams by what it sends behind each request.
#[test]
fn resets_that_the_proxy_is_made_to_send_end_the_connection() {
    let Some((proxy, pod)) = start() else { return };
    let unfinished = |stream, length| {
        let fields =
            [(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/"), ("content-length", length)];
        frame(HEADERS, END_HEADERS, stream, &block(&fields))
    };
    let behind = |stream, kind, payload: &[u8]| [get(stream, "/hold?hold"), frame(kind, 0, stream, payload)].concat();
    type Way<'a> = (&'a str, &'a (dyn Fn(u32) -> Vec<u8> + Sync));
    let ways: [Way<'_>; 6] = [
        ("a window that grows by nothing", &|stream| behind(stream, WINDOW_UPDATE, &[0; 4])),
        ("a window that overflows", &|stream| behind(stream, WINDOW_UPDATE, &0x7fff_ffffu32.to_be_bytes())),
        ("data behind the end", &|stream| behind(stream, DATA, b"x")),
        ("a second head behind the end", &|stream| behind(stream, HEADERS, &block(&[("x", "y")]))),
        ("more data than was told", &|stream| [unfinished(stream, "1"), frame(DATA, 0, stream, b"xyz")].concat()),
        ("less data than was told", &|stream| {
            [unfinished(stream, "9"), frame(DATA, END_STREAM, stream, b"x")].concat()
        }),
    ];
    for (what, wrong) in ways {
        let before = pod.requests();
        let mut frames = Frames::open(proxy.http);
        let mut reader = frames.reader();
        let (sent, end) = thread::scope(|scope| {
            let writer = scope
                .spawn(|| (1..40_000).step_by(2).take_while(|stream| frames.write(&wrong(*stream)).is_ok()).count());
            let end = reader.end();
            (writer.join().unwrap(), end)
        });
        let reached = pod.requests() - before;
        println!("{what}: {end}, {reached} requests at the pod; {}", proxy.memory());
        assert!(sent < 20_000 && end != Outcome::GoAway(0), "{what}: {sent} sent, {end}");
        assert!(reached < 1_000, "{what}: {reached} requests reached the pod");
    }
    assert_eq!(ask(proxy.http, get1("a", "/")).status, 200, "others are served");
}

/// Resets paced one at a time pass every limit of the HTTP/2 library; each costs the pod a request.
#[test]
fn paced_resets_end_the_connection() {
    let Some((proxy, pod)) = start() else { return };
    let mut frames = Frames::open(proxy.http);
    let mut reader = frames.reader();
    let ended = thread::spawn(move || reader.end());
    let mut taken_back = 0;
    for stream in (1..4_000).step_by(2) {
        let before = pod.requests();
        if frames.write(&get(stream, "/hold?hold")).is_err() {
            break;
        }
        wait_until("the pod sees it or it is over", || pod.requests() > before || ended.is_finished());
        if ended.is_finished() || frames.write(&frame(RST_STREAM, 0, stream, &8u32.to_be_bytes())).is_err() {
            break;
        }
        taken_back += 1;
    }
    assert!((100..110).contains(&taken_back), "{taken_back} requests were taken back");
    assert_eq!(ask(proxy.http, get1("a", "/")).status, 200, "others are served");
    println!("{taken_back} requests taken back; {}", proxy.memory());
}

/// CVE-2024-27316 and its kin: a head that never ends, a head of 100,000 fields, a head that HPACK blows up.
#[test]
fn heads_without_end_are_refused_within_bounds() {
    let Some((proxy, pod)) = start() else { return };
    let begin = block(&[(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")]);
    let fields = block(&[("x", "y")]);
    // 16 KiB are the largest frame that is allowed.
    let many = fields.repeat(16_384 / fields.len());
    let mut frames = Frames::open(proxy.http);
    frames.write(&frame(HEADERS, END_STREAM, 1, &begin)).unwrap();
    let mut reader = frames.reader();
    let ended = thread::spawn(move || reader.end());
    let sent = (0..10_000).take_while(|_| frames.write(&frame(CONTINUATION, 0, 1, &many)).is_ok()).count();
    let endless = ended.join().unwrap();
    assert!(sent < 10_000, "a head of {sent} frames was read");

    let mut frames = Frames::open(proxy.http);
    let hundred_thousand = [&begin, &*fields.repeat(100_000)].concat();
    let pieces: Vec<&[u8]> = hundred_thousand.chunks(16_384).collect();
    let (first, rest) = pieces.split_first().unwrap();
    let mut bytes = frame(HEADERS, END_STREAM, 1, first);
    for (index, piece) in rest.iter().enumerate() {
        let flags = if index + 1 == rest.len() { END_HEADERS } else { 0 };
        bytes.extend(frame(CONTINUATION, flags, 1, piece));
    }
    let _ended_meanwhile = frames.write(&bytes);
    let large = frames.outcome(1);

    // One field of 4,000 bytes goes into the dynamic table, and 16,000 single bytes stand for it: 64 MB of head.
    let mut frames = Frames::open(proxy.http);
    let mut bomb = begin.clone();
    bomb.extend([0x40, 1, b'x', 0x7f, 0xa1, 0x1e]);
    bomb.extend([b'y'; 4_000]);
    bomb.resize(16_000, 0x80 | 62);
    frames.write(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &bomb)).unwrap();
    let blown_up = frames.outcome(1);
    for (what, outcome) in [("endless", endless), ("100,000 fields", large), ("blown up by HPACK", blown_up)] {
        println!("head {what}: {outcome}");
        assert_ne!(outcome, Outcome::Status(200), "{what}");
    }
    assert_eq!(pod.requests(), 0);
    assert_eq!(ask(proxy.http, get1("a", "/")).status, 200, "others are served");
    let memory = proxy.memory();
    println!("{memory}");
    assert!(memory.peak < 128 * 1024, "{memory}");
}

/// Frames that cost an answer each, from a client that reads none: what waits to be written is bounded.
#[test]
fn floods_that_nobody_reads_do_not_pile_up() {
    let Some((proxy, _pod)) = start() else { return };
    for (what, bytes) in [("pings", frame(PING, 0, 0, &[0; 8])), ("settings", frame(SETTINGS, 0, 0, &[]))] {
        let frames = Frames::open(proxy.http);
        let bytes = bytes.repeat(1_000);
        let flood = thread::spawn(move || {
            let mut frames = frames;
            // A write that waits for longer than this has met the bound.
            frames.set_patience(std::time::Duration::from_secs(2));
            (0..2_000).take_while(|_| frames.write(&bytes).is_ok()).count()
        });
        while !flood.is_finished() {
            assert_eq!(ask(proxy.http, get1("a", "/")).status, 200, "others are served during {what}");
        }
        println!("{what}: {},000 taken; {}", flood.join().unwrap(), proxy.memory());
    }
    let memory = proxy.memory();
    assert!(memory.peak < 128 * 1024, "{memory}");
}

/// 128 requests at once, as in ingress-nginx; those beyond are refused in a way that says that they may be sent again.
#[test]
fn streams_beyond_the_limit_are_refused() {
    const SENT: u32 = 200;
    const REFUSED_STREAM: u32 = 7;
    let Some((proxy, pod)) = start() else { return };
    let mut frames = Frames::open(proxy.http);
    for stream in (1..2 * SENT).step_by(2) {
        frames.write(&get(stream, "/hold?hold")).unwrap();
    }
    for stream in (2 * STREAMS + 1..2 * SENT).step_by(2) {
        assert_eq!(frames.outcome(stream), Outcome::Reset(REFUSED_STREAM), "stream {stream}");
    }
    wait_until("the pod has the others", || pod.requests() == STREAMS as usize);
    pod.let_go();
    let mut answered = 0;
    while answered < STREAMS {
        let frame = frames.read().expect("the connection stays");
        answered += u32::from(frame.kind == HEADERS);
    }
    println!("{STREAMS} of {SENT} streams served; {}", proxy.memory());
}

/// A hundred streams ask for a gigabyte together, and the client opens no window.
#[test]
fn answers_wait_at_the_pod_while_the_client_takes_nothing() {
    let Some((proxy, _pod)) = start() else { return };
    let mut open = Vec::new();
    for _ in 0..4 {
        let mut frames = Frames::open(proxy.http);
        for stream in (1..200).step_by(2) {
            frames.write(&get(stream, "/?bytes=10000000")).unwrap();
        }
        assert_eq!(frames.outcome(1), Outcome::Status(200));
        open.push(frames);
    }
    for _ in 0..50 {
        assert_eq!(ask(proxy.http, get1("a", "/")).status, 200, "others are served");
    }
    let memory = proxy.memory();
    println!("400 answers of 10 MB not taken; {memory}");
    assert!(memory.peak < 256 * 1024, "{memory}");
}
