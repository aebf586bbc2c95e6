//! Pods: servers that answer with what they saw, byte for byte, and in words that tests can hold against a table.
//!
//! A target may ask for more: `?bytes=N` for a body of N bytes, `?hold` for an answer
//! that waits until the pod lets go, `?stall` for a body that it does not read before.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, BufReader, Read, Write},
    net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use nix::{ifaddrs::getifaddrs, net::if_::InterfaceFlags};
use serde_json::{Value, json};

/// An address of this host that a manifest may name. Every test of this file asks first, and says so where there is none.
pub(super) fn host_address() -> Option<IpAddr> {
    let found = getifaddrs().unwrap().find_map(|interface| {
        let address = interface.address?.as_sockaddr_in()?.ip();
        let up = interface.flags.contains(InterfaceFlags::IFF_UP);
        (up && !address.is_loopback() && !address.is_link_local()).then_some(IpAddr::V4(address))
    });
    if found.is_none() {
        eprintln!("skipped: this host has no IPv4 address but loopback, and no endpoint may be there");
    }
    found
}

/// So much of a body is kept.
const BEGINNING: usize = 1_000;

/// What a pod serves at a path in place of what it saw.
pub(super) struct Page {
    pub(super) path: &'static str,
    /// Its Content-Type.
    pub(super) kind: &'static str,
    pub(super) body: &'static str,
}

/// A server; it answers no more when it is dropped.
pub(super) struct Pod {
    pub(super) address: SocketAddr,
    state: Arc<State>,
}

struct State {
    name: String,
    pages: &'static [Page],
    requests: AtomicUsize,
    /// The beginning of the last body for each target.
    bodies: Mutex<BTreeMap<String, String>>,
    gone: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
    held: Mutex<bool>,
    let_go: Condvar,
}

impl State {
    fn wait(&self) {
        let held = self.held.lock().unwrap();
        drop(self.let_go.wait_while(held, |held| *held).unwrap());
    }
}

impl Pod {
    pub(super) fn start(ip: IpAddr, name: &str) -> Self {
        Self::site(ip, name, &[])
    }

    /// One that serves these pages.
    pub(super) fn site(ip: IpAddr, name: &str, pages: &'static [Page]) -> Self {
        let listener = TcpListener::bind((ip, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            name: name.to_owned(),
            pages,
            requests: AtomicUsize::new(0),
            bodies: Mutex::default(),
            gone: AtomicBool::new(false),
            open: Mutex::default(),
            held: Mutex::new(true),
            let_go: Condvar::new(),
        });
        let accepting = Arc::clone(&state);
        thread::spawn(move || accept(&listener, &accepting));
        Self { address, state }
    }

    /// How many requests have come, the unanswered ones too.
    pub(super) fn requests(&self) -> usize {
        self.state.requests.load(Ordering::SeqCst)
    }

    /// Whether a request for this target has come.
    pub(super) fn has_seen(&self, target: &str) -> bool {
        self.last_body(target).is_some()
    }

    /// The beginning of the last body that came for this target.
    pub(super) fn last_body(&self, target: &str) -> Option<String> {
        self.state.bodies.lock().unwrap().get(target).cloned()
    }

    /// Answers what was held.
    pub(super) fn let_go(&self) {
        *self.state.held.lock().unwrap() = false;
        self.state.let_go.notify_all();
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.state.gone.store(true, Ordering::SeqCst);
        self.let_go();
        for stream in self.state.open.lock().unwrap().drain(..) {
            let _closed = stream.shutdown(Shutdown::Both);
        }
        // Wakes the thread that accepts.
        let _woken = TcpStream::connect(self.address);
    }
}

fn accept(listener: &TcpListener, state: &Arc<State>) {
    for stream in listener.incoming() {
        if state.gone.load(Ordering::SeqCst) {
            return;
        }
        let Ok(stream) = stream else { continue };
        let mut open = state.open.lock().unwrap();
        open.retain(|stream| stream.peer_addr().is_ok());
        open.extend(stream.try_clone());
        drop(open);
        let state = Arc::clone(state);
        thread::spawn(move || {
            let _ended = serve(&stream, &state);
            // The copy of it above must not keep it open.
            let _closed = stream.shutdown(Shutdown::Both);
        });
    }
}

fn serve(stream: &TcpStream, state: &State) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    while let Some(mut seen) = read_head(&mut reader)? {
        state.requests.fetch_add(1, Ordering::SeqCst);
        seen.pod.clone_from(&state.name);
        state.bodies.lock().unwrap().insert(seen.target.clone(), String::new());
        let query = seen.target.split_once('?').map_or(String::new(), |(_, query)| query.to_owned());
        if query == "stall" {
            state.wait();
        }
        read_body(&mut reader, &mut seen)?;
        state.bodies.lock().unwrap().insert(seen.target.clone(), seen.body.clone());
        if query == "hold" {
            state.wait();
        }
        answer(stream, state, &seen, &query)?;
    }
    Ok(())
}

fn answer(mut stream: &TcpStream, state: &State, seen: &Seen, query: &str) -> io::Result<()> {
    let head = |kind: &str, length: u64| {
        format!(
            "HTTP/1.1 200 OK\r\nServer: pod\r\nDate: Wed, 25 Nov 2026 00:00:00 GMT\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
        )
    };
    if let Some(count) = query.strip_prefix("bytes=") {
        let count = count.parse().map_err(io::Error::other)?;
        stream.write_all(head("text/plain", count).as_bytes())?;
        return io::copy(&mut io::repeat(b'x').take(if seen.method == "HEAD" { 0 } else { count }), &mut stream)
            .map(drop);
    }
    let page = state.pages.iter().find(|page| page.path == seen.target);
    let told = seen.to_json().to_string();
    let (kind, body) = page.map_or(("application/json", &*told), |page| (page.kind, page.body));
    stream.write_all(format!("{}{body}", head(kind, body.len() as u64)).as_bytes())
}

/// One request as a pod saw it.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    pub(super) pod: String,
    pub(super) method: String,
    pub(super) target: String,
    pub(super) version: String,
    /// In the order in which they came, names in lower case.
    pub(super) fields: Vec<(String, String)>,
    /// How long the body was.
    pub(super) length: usize,
    /// Its beginning.
    pub(super) body: String,
}

impl Seen {
    fn to_json(&self) -> Value {
        json!({
            "pod": self.pod, "method": self.method, "target": self.target, "version": self.version,
            "fields": self.fields, "length": self.length, "body": self.body,
        })
    }

    /// From a pod's answer.
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(body).ok()?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let fields = value["fields"].as_array()?.iter();
        Some(Self {
            pod: text(&value["pod"])?,
            method: text(&value["method"])?,
            target: text(&value["target"])?,
            version: text(&value["version"])?,
            fields: fields.map(|field| Some((text(&field[0])?, text(&field[1])?))).collect::<Option<_>>()?,
            length: usize::try_from(value["length"].as_u64()?).ok()?,
            body: text(&value["body"])?,
        })
    }

    /// The value of a field; several are joined.
    pub(super) fn field(&self, name: &str) -> Option<String> {
        let values: Vec<&str> = self.fields.iter().filter(|(own, _)| own == name).map(|(_, value)| &**value).collect();
        (!values.is_empty()).then(|| values.join(" | "))
    }
}

fn read_head(reader: &mut impl BufRead) -> io::Result<Option<Seen>> {
    let Some(line) = read_line(reader)? else { return Ok(None) };
    let mut words = line.split(' ');
    let mut word = || words.next().unwrap_or_default().to_owned();
    let mut seen = Seen { method: word(), target: word(), version: word(), ..Seen::default() };
    while let Some(line) = read_line(reader)?.filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(": ").or(line.split_once(':')).unwrap_or((&line, ""));
        seen.fields.push((name.to_ascii_lowercase(), value.to_owned()));
    }
    Ok(Some(seen))
}

fn read_line(reader: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    if reader.read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    let line = line.strip_suffix(b"\r\n").ok_or(io::ErrorKind::InvalidData)?;
    Ok(Some(String::from_utf8_lossy(line).into_owned()))
}

/// Reads the body as it is framed, and keeps its beginning.
fn read_body(reader: &mut impl BufRead, seen: &mut Seen) -> io::Result<()> {
    if seen.field("transfer-encoding").is_none() {
        let length = seen.field("content-length").map_or(Ok(0), |length| length.parse());
        return read_piece(reader, seen, length.map_err(io::Error::other)?);
    }
    loop {
        let size = read_line(reader)?.unwrap_or_default();
        let size = usize::from_str_radix(&size, 16).map_err(io::Error::other)?;
        read_piece(reader, seen, size)?;
        read_line(reader)?;
        if size == 0 {
            return Ok(());
        }
    }
}

fn read_piece(reader: &mut impl BufRead, seen: &mut Seen, mut left: usize) -> io::Result<()> {
    let mut buffer = [0; 64 * 1024];
    while left > 0 {
        let space = left.min(buffer.len());
        let count = reader.read(&mut buffer[..space])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let keep = count.min(BEGINNING.saturating_sub(seen.body.len()));
        seen.body.push_str(&String::from_utf8_lossy(&buffer[..keep]));
        seen.length += count;
        left -= count;
    }
    Ok(())
}
