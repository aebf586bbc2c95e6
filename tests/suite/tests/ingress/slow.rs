//! Clients that are slow, silent, or send without end: each holds a connection and little else, heads have a deadline, and
//! whoever comes meanwhile is served.

use std::{
    io::{BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use super::{
    client::{Answer, ask, connect, get},
    daemon::{DEADLINE, Memory, Proxy, wait_until},
    manifests::{annotated, ingress, service},
    pod::{Pod, host_address},
};

/// Slow clients at once.
const CROWD: usize = 400;
/// How long a head may take (`HEAD_TIMEOUT` of the edge), and what a loaded machine may add.
const HEAD_TIME: Duration = Duration::from_secs(10);
const SLACK: Duration = Duration::from_secs(10);

/// One pod that takes every host and path, and bodies of any length but on the host `small`; and the proxy before it.
fn start() -> Option<(Proxy, Pod)> {
    let pod = Pod::start(host_address()?, "web");
    let paths = [("Prefix", "/", "web")];
    let text = [
        service("web", &[&pod]),
        annotated("web", "", &paths, &[("nginx.ingress.kubernetes.io/proxy-body-size", "0")]),
        ingress("small", "small", &paths),
    ]
    .concat();
    Some((Proxy::start(&[("all.yaml", &text)]), pod))
}

/// Somebody else, who asks for as long as `work` takes: how often, and the longest wait.
fn meanwhile<T>(address: SocketAddr, work: impl FnOnce() -> T) -> (T, usize, Duration) {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            let (mut count, mut longest) = (0, Duration::ZERO);
            while !over.load(Ordering::SeqCst) {
                let begin = Instant::now();
                assert_eq!(ask(address, get("a", "/other")).status, 200, "others are served");
                (count, longest) = (count + 1, longest.max(begin.elapsed()));
                thread::sleep(Duration::from_millis(20));
            }
            (count, longest)
        });
        let done = work();
        over.store(true, Ordering::SeqCst);
        let (count, longest) = other.join().unwrap();
        (done, count, longest)
    })
}

fn each_kib(before: Memory, after: Memory, count: usize) -> u64 {
    after.peak.saturating_sub(before.resident) / count as u64
}

/// Slowloris: a byte now and then, never an empty line. The whole head has one deadline, so dripping does not help.
#[test]
fn heads_that_drip_are_cut_off_in_time() {
    let Some((proxy, pod)) = start() else { return };
    let before = proxy.memory();
    let begin = Instant::now();
    let drip = || {
        let mut crowd: Vec<TcpStream> = (0..CROWD).map(|_| connect(proxy.http)).collect();
        for stream in &mut crowd {
            stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nX: ").unwrap();
            stream.set_nonblocking(true).unwrap();
        }
        let mut answers = Vec::new();
        while !crowd.is_empty() {
            assert!(begin.elapsed() < HEAD_TIME + SLACK, "{} still hang on", crowd.len());
            crowd.retain_mut(|stream| {
                let mut answer = [0; 64];
                match stream.read(&mut answer) {
                    Ok(count) => answers.push(String::from_utf8_lossy(&answer[..count]).into_owned()),
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                        return stream.write_all(b"x").is_ok();
                    }
                    Err(_) => {}
                }
                false
            });
            thread::sleep(Duration::from_millis(100));
        }
        answers
    };
    let (answers, served, longest) = meanwhile(proxy.http, drip);
    assert!(begin.elapsed() >= HEAD_TIME, "nobody was cut off early: {:?}", begin.elapsed());
    let timed_out = answers.iter().filter(|answer| answer.starts_with("HTTP/1.1 408 ")).count();
    assert!(timed_out * 10 >= CROWD * 9, "{timed_out} of {CROWD} were told 408: {:?}", answers.first());
    assert_eq!(pod.requests(), served, "no pod has seen the others");
    let after = proxy.memory();
    println!(
        "{CROWD} dripping heads cut after {:?}; {served} others served, the slowest in {longest:?}; {} KiB each; {after}",
        begin.elapsed(),
        each_kib(before, after, CROWD)
    );
    assert!(each_kib(before, after, CROWD) < 128, "{after}");
}

/// Connections that never say a word, in the clear and before TLS: they end by the same deadline.
#[test]
fn silent_connections_are_closed_in_time() {
    let Some((proxy, _pod)) = start() else { return };
    let begin = Instant::now();
    let wait = || {
        let crowd: Vec<TcpStream> =
            (0..CROWD).map(|index| connect(if index % 2 == 0 { proxy.http } else { proxy.https })).collect();
        for mut stream in crowd {
            let mut answer = Vec::new();
            let _reset_or_end = stream.read_to_end(&mut answer);
            assert_eq!(answer, b"", "there was nothing to answer");
            assert!(begin.elapsed() < HEAD_TIME + SLACK);
        }
    };
    let ((), served, longest) = meanwhile(proxy.http, wait);
    assert!(begin.elapsed() >= HEAD_TIME, "nobody was cut off early: {:?}", begin.elapsed());
    println!(
        "{CROWD} silent connections closed after {:?}; {served} others served, the slowest in {longest:?}; {}",
        begin.elapsed(),
        proxy.memory()
    );
}

/// A slow body is a slow request and no offence, however many there are; it costs a connection on either side.
#[test]
fn bodies_that_drip_hinder_nobody() {
    let Some((proxy, pod)) = start() else { return };
    let before = proxy.memory();
    let drip = || {
        let mut crowd: Vec<TcpStream> = (0..CROWD).map(|_| connect(proxy.http)).collect();
        let begin = "POST /slow HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 20\r\n\r\n";
        for stream in &mut crowd {
            stream.write_all(begin.as_bytes()).unwrap();
        }
        for _ in 0..20 {
            thread::sleep(Duration::from_millis(200));
            for stream in &mut crowd {
                stream.write_all(b"x").unwrap();
            }
        }
        crowd.into_iter().map(|stream| Answer::read(&mut BufReader::new(stream)).unwrap().unwrap()).collect()
    };
    let (answers, served, longest): (Vec<Answer>, usize, Duration) = meanwhile(proxy.http, drip);
    let whole = answers.iter().filter(|answer| answer.status == 200 && answer.seen().length == 20).count();
    assert_eq!(whole, CROWD, "every slow body arrived whole");
    assert_eq!(pod.requests(), CROWD + served);
    let after = proxy.memory();
    println!(
        "{CROWD} dripping bodies arrived; {served} others served, the slowest in {longest:?}; {} KiB each; {after}",
        each_kib(before, after, CROWD)
    );
    assert!(each_kib(before, after, CROWD) < 192, "{after}");
}

/// Sends a body of this many bytes until it is through or refused; returns the answer, and how many mebibytes were taken.
fn upload(address: SocketAddr, head: &str, total: usize, chunked: bool) -> (Option<Answer>, usize) {
    let stream = connect(address);
    // Nothing comes back before the last byte has gone, which on a loaded machine takes its time.
    stream.set_read_timeout(Some(DEADLINE * 8)).unwrap();
    let mut writing = stream.try_clone().unwrap();
    let head = head.to_owned();
    let writer = thread::spawn(move || {
        let body = vec![b'x'; 1 << 20];
        let piece = if chunked { [b"100000\r\n", &*body, b"\r\n"].concat() } else { body };
        let mut taken = 0;
        if writing.write_all(head.as_bytes()).is_ok() {
            taken = (0..total >> 20).take_while(|_| writing.write_all(&piece).is_ok()).count();
        }
        let _end_or_refused = writing.write_all(if chunked { b"0\r\n\r\n" } else { b"" });
        taken
    });
    let answer = Answer::read(&mut BufReader::new(stream)).ok().flatten();
    (answer, writer.join().unwrap())
}

/// A gigabyte each way, by length and in chunks: it streams through, and memory does not follow.
#[test]
fn a_gigabyte_streams_through_bounded_memory() {
    const TOTAL: usize = 1 << 30;
    let Some((proxy, _pod)) = start() else { return };
    let before = proxy.memory();
    for (what, framing, chunked) in [
        ("by length", format!("Content-Length: {TOTAL}"), false),
        ("in chunks", "Transfer-Encoding: chunked".to_owned(), true),
    ] {
        let head = format!("PUT /big HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{framing}\r\n\r\n");
        let ((answer, _), served, longest) = meanwhile(proxy.http, || upload(proxy.http, &head, TOTAL, chunked));
        let answer = answer.expect("an answer");
        assert_eq!((answer.status, answer.seen().length), (200, TOTAL), "{what}");
        println!("1 GiB {what}: through; {served} others served, the slowest in {longest:?}; {}", proxy.memory());
    }
    let download = || {
        let mut stream = connect(proxy.http);
        stream.write_all(get("a", &format!("/?bytes={TOTAL}")).as_bytes()).unwrap();
        std::io::copy(&mut stream, &mut std::io::sink()).unwrap()
    };
    let (count, served, longest) = meanwhile(proxy.http, download);
    assert!(count > TOTAL as u64, "{count} bytes came");
    let after = proxy.memory();
    println!("1 GiB back: through; {served} others served, the slowest in {longest:?}; {after}");
    assert!(after.peak < before.resident + 32 * 1024, "{after}");
}

/// One mebibyte unless the Ingress says otherwise (nginx's default): by length before anything of it is read, in chunks as soon
/// as it is passed. The client is told, although it still sends.
#[test]
fn bodies_beyond_the_limit_are_413() {
    const LIMIT: usize = 1 << 20;
    let Some((proxy, pod)) = start() else { return };
    let before = proxy.memory();
    for (what, total, chunked, status) in [
        ("the limit by length", LIMIT, false, 200),
        ("the limit in chunks", LIMIT, true, 200),
        ("twice the limit by length", 2 * LIMIT, false, 413),
        ("twice the limit in chunks", 2 * LIMIT, true, 413),
        ("a gigabyte by length", 1 << 30, false, 413),
        ("a gigabyte in chunks", 1 << 30, true, 413),
    ] {
        let framing =
            if chunked { "Transfer-Encoding: chunked".to_owned() } else { format!("Content-Length: {total}") };
        let head = format!("PUT /{chunked} HTTP/1.1\r\nHost: small\r\nConnection: close\r\n{framing}\r\n\r\n");
        let ((answer, taken), served, _) = meanwhile(proxy.http, || upload(proxy.http, &head, total, chunked));
        let told = answer.map(|answer| answer.status);
        // Who sends a gigabyte on and on may be reset before it has read the answer.
        assert!(told == Some(status) || told.is_none() && total > 2 * LIMIT, "{what}: {told:?}");
        println!("{what}: {told:?} after {taken} MiB; {served} others served; {}", proxy.memory());
    }
    assert!(pod.last_body("/false").is_some_and(|body| !body.is_empty()), "what is within the limit arrived");
    let after = proxy.memory();
    assert!(after.peak < before.resident + 32 * 1024, "{after}");
    // One byte more than the limit.
    let over = format!("PUT / HTTP/1.1\r\nHost: small\r\nContent-Length: {}\r\n\r\n", LIMIT + 1);
    assert_eq!(ask(proxy.http, over).status, 413, "the length alone is enough");
}

/// The pod reads nothing, so the client is made to wait; the client reads nothing, so the pod is.
#[test]
fn a_side_that_takes_nothing_makes_the_other_wait() {
    let Some((proxy, pod)) = start() else { return };
    let before = proxy.memory();
    let mut open = Vec::new();
    for _ in 0..10 {
        let mut stream = connect(proxy.http);
        stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
        stream.write_all(b"PUT /?stall HTTP/1.1\r\nHost: a\r\nContent-Length: 1073741824\r\n\r\n").unwrap();
        let piece = vec![b'x'; 1 << 20];
        let taken = (0..1 << 10).take_while(|_| stream.write_all(&piece).is_ok()).count();
        assert!(taken < 256, "{taken} MiB were taken from a client while the pod took none");
        open.push(stream);
        let mut stream = connect(proxy.http);
        stream.write_all(get("a", "/?bytes=1073741824").as_bytes()).unwrap();
        open.push(stream);
    }
    wait_until("the pod has them all", || pod.requests() >= 20);
    assert_eq!(ask(proxy.http, get("a", "/")).status, 200, "others are served");
    let after = proxy.memory();
    println!("20 GiB waiting in 20 connections; {after}");
    assert!(after.peak < before.resident + 64 * 1024, "{after}");
}
