//! Requests at a steady rate over every way that clients come: kept and new connections, in the clear and over TLS,
//! HTTP/1.1 and HTTP/2. Every request that is not answered with 200 by a pod is a failure, a closed connection too.

use std::{
    collections::BTreeMap,
    io::{self, BufReader, Read, Write},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustls::ClientConfig;

use super::{
    client::{Answer, connect, tls_with},
    frames::{Frames, Outcome, get},
    pod::Seen,
};

/// Where the requests go: addresses, hosts in turn, whom TLS believes.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) http: SocketAddr,
    pub(super) https: SocketAddr,
    /// Asked for in turn, in the clear.
    pub(super) hosts: Vec<String>,
    /// Asked for over TLS.
    pub(super) tls_host: String,
    pub(super) tls: ClientConfig,
}

/// One way that clients come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// A connection for so many requests.
    Plain(usize),
    Tls(usize),
    /// HTTP/2 in the clear; its window is never opened, so the connection lasts for few answers.
    Http2(u32),
}

const WAYS: [Way; 8] = [
    Way::Plain(usize::MAX),
    Way::Plain(usize::MAX),
    Way::Plain(usize::MAX),
    Way::Plain(20),
    Way::Plain(1),
    Way::Tls(usize::MAX),
    Way::Tls(10),
    Way::Http2(50),
];

/// What the requests came to.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) served: usize,
    pub(super) slowest: Duration,
    pub(super) failures: BTreeMap<String, usize>,
}

impl Report {
    fn add(&mut self, other: Self) {
        self.served += other.served;
        self.slowest = self.slowest.max(other.slowest);
        for (what, count) in other.failures {
            *self.failures.entry(what).or_default() += count;
        }
    }
}

/// Running clients.
pub(super) struct Load {
    over: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Report>>,
}

impl Load {
    /// Starts clients that send so many requests a second together.
    pub(super) fn start(target: &Target, rate: u32) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let turn = Arc::new(AtomicUsize::new(0));
        let count = u32::try_from(WAYS.len()).unwrap();
        let pause = Duration::from_secs(1) * count / rate;
        let clients = WAYS.iter().zip(1..).map(|(way, place)| {
            let (over, turn, target, way) = (Arc::clone(&over), Arc::clone(&turn), target.clone(), *way);
            // The clients' ticks lie between each other.
            let start = Instant::now() + pause * place / count;
            thread::spawn(move || Client { target, way, turn }.run(start, pause, &over))
        });
        let clients = clients.collect();
        Self { over, clients }
    }

    pub(super) fn finish(self) -> Report {
        self.over.store(true, Ordering::SeqCst);
        let mut report = Report::default();
        for client in self.clients {
            report.add(client.join().unwrap());
        }
        report
    }
}

struct Client {
    target: Target,
    way: Way,
    turn: Arc<AtomicUsize>,
}

impl Client {
    fn run(&self, start: Instant, pause: Duration, over: &AtomicBool) -> Report {
        let (mut report, mut next) = (Report::default(), start);
        let mut connection = None;
        while !over.load(Ordering::SeqCst) {
            thread::sleep(next.saturating_duration_since(Instant::now()));
            // A machine that stood still goes on at the rate, not in a burst.
            next = (next + pause).max(Instant::now());
            let begin = Instant::now();
            match self.request(&mut connection) {
                Ok(()) => report.served += 1,
                Err(what) => {
                    connection = None;
                    *report.failures.entry(format!("{:?}: {what}", self.way)).or_default() += 1;
                }
            }
            report.slowest = report.slowest.max(begin.elapsed());
        }
        report
    }

    fn request(&self, connection: &mut Option<Connection>) -> Result<(), String> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let open = match connection {
            Some(open) => open,
            None => connection.insert(self.open().map_err(|error| format!("no connection: {error}"))?),
        };
        let host = match self.way {
            Way::Tls(_) => &self.target.tls_host,
            _ => &self.target.hosts[turn % self.target.hosts.len()],
        };
        let more = open.request(host)?;
        if !more {
            *connection = None;
        }
        Ok(())
    }

    fn open(&self) -> io::Result<Connection> {
        let one = |stream: Box<dyn Stream>, left| Connection::Http1 { stream: BufReader::new(stream), left };
        Ok(match self.way {
            Way::Plain(left) => one(Box::new(connect(self.target.http)), left),
            Way::Tls(left) => {
                let stream = tls_with(self.target.https, &self.target.tls_host, self.target.tls.clone())?;
                one(Box::new(stream), left)
            }
            Way::Http2(left) => Connection::Http2 { frames: Frames::open(self.target.http), stream: 1, left },
        })
    }
}

trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}

enum Connection {
    Http1 { stream: BufReader<Box<dyn Stream>>, left: usize },
    Http2 { frames: Frames, stream: u32, left: u32 },
}

impl Connection {
    /// One request; false where the connection is not for another one.
    fn request(&mut self, host: &str) -> Result<bool, String> {
        match self {
            Self::Http1 { stream, left } => {
                let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
                stream.get_mut().write_all(request.as_bytes()).map_err(|error| format!("not sent: {error}"))?;
                let answer = Answer::read(stream).map_err(|error| format!("no answer: {error}"))?;
                let answer = answer.ok_or("closed without an answer")?;
                if answer.status != 200 || Seen::parse(&answer.body).is_none() {
                    return Err(format!("{} for {host}: {}", answer.status, answer.text()));
                }
                *left -= 1;
                Ok(*left > 0 && answer.field("connection").as_deref() != Some("close"))
            }
            Self::Http2 { frames, stream, left } => {
                frames.write(&get(*stream, "/")).map_err(|error| format!("not sent: {error}"))?;
                match frames.outcome(*stream) {
                    Outcome::Status(200) => {}
                    other => return Err(other.to_string()),
                }
                (*stream, *left) = (*stream + 2, *left - 1);
                Ok(*left > 0)
            }
        }
    }
}
