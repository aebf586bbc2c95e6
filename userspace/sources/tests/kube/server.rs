//! A list and watch server in one file: what of the API's protocol a source asks for, and the ways in which it can go wrong.
//!
//! It shares no code with the source. The real API server is what `tests/cluster` runs; this one can fail on command.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use serde_json::{Value, json};

/// How the server behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Lists {
    #[default]
    Streams,
    /// It says that it does not know them.
    RefusesStreams,
    /// It takes the request and fails it by a line of the stream, as over an etcd without progress requests.
    BreaksStreams,
}

#[derive(Default)]
struct State {
    /// By collection and name.
    objects: BTreeMap<String, BTreeMap<String, Value>>,
    events: Vec<(u64, String, &'static str, Value)>,
    version: u64,
    /// Watches from before this version are told that it is gone.
    compacted: u64,
    lists: Lists,
    /// Collections that nobody may read.
    forbidden: BTreeSet<String>,
    /// Collections that do not exist.
    unknown: BTreeSet<String>,
    /// The next watch of this collection sends these bytes first.
    garbage: BTreeMap<String, Vec<u8>>,
    requests: Vec<String>,
    /// Connections of this number and below are over.
    epoch: u64,
    connections: Vec<TcpStream>,
    is_away: bool,
    /// How often somebody came while it was away.
    knocks: usize,
    /// What was patched, by path, the oldest first.
    writes: BTreeMap<String, VecDeque<Value>>,
    /// What the next writes to a path are answered with, before one is taken.
    faults: BTreeMap<String, VecDeque<u16>>,
    /// Requests whose paths hold one of these wait.
    held: BTreeSet<&'static str>,
}

/// The server; it ends with the test's process.
#[derive(Clone)]
pub(crate) struct Server {
    state: Arc<(Mutex<State>, Condvar)>,
    address: SocketAddr,
}

impl Server {
    pub(crate) fn start(lists: Lists) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = State { lists, version: 100, ..State::default() };
        let server = Self { state: Arc::new((Mutex::new(state), Condvar::new())), address };
        let own = server.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let own = own.clone();
                thread::spawn(move || own.serve(stream));
            }
        });
        server
    }

    pub(crate) fn kubeconfig(&self) -> String {
        let address = self.address;
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
             clusters: [{{name: c, cluster: {{server: 'http://{address}'}}}}]\n\
             contexts: [{{name: c, context: {{cluster: c, user: u}}}}]\nusers: [{{name: u, user: {{}}}}]\n"
        )
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let changed = change(&mut self.lock());
        self.state.1.notify_all();
        changed
    }

    /// Adds an object or changes it; the collection is a path such as `/api/v1/services`.
    pub(crate) fn put(&self, collection: &str, mut object: Value) {
        self.change(|state| {
            state.version += 1;
            object["metadata"]["resourceVersion"] = json!(state.version.to_string());
            let name = object["metadata"]["name"].as_str().unwrap().to_owned();
            let old = state.objects.entry(collection.to_owned()).or_default().insert(name, object.clone());
            let kind = if old.is_some() { "MODIFIED" } else { "ADDED" };
            state.events.push((state.version, collection.to_owned(), kind, object));
        });
    }

    pub(crate) fn delete(&self, collection: &str, name: &str) {
        self.change(|state| {
            state.version += 1;
            let object = state.objects.get_mut(collection).unwrap().remove(name).unwrap();
            state.events.push((state.version, collection.to_owned(), "DELETED", object));
        });
    }

    /// Forgets the events up to now.
    pub(crate) fn compact(&self) {
        self.change(|state| {
            state.compacted = state.version;
            state.events.clear();
        });
    }

    /// Puts the version back, as a backup of etcd does, and makes this the history.
    pub(crate) fn rewind(&self, version: u64) {
        self.change(|state| {
            state.version = version;
            state.events.clear();
        });
    }

    pub(crate) fn forbid(&self, collection: &str) {
        self.change(|state| state.forbidden.insert(collection.to_owned()));
    }

    pub(crate) fn permit(&self, collection: &str) {
        self.change(|state| state.forbidden.remove(collection));
    }

    pub(crate) fn forget(&self, collection: &str) {
        self.change(|state| state.unknown.insert(collection.to_owned()));
    }

    pub(crate) fn learn(&self, collection: &str) {
        self.change(|state| state.unknown.remove(collection));
    }

    pub(crate) fn spoil(&self, collection: &str, bytes: &[u8]) {
        self.change(|state| state.garbage.insert(collection.to_owned(), bytes.to_owned()));
    }

    /// Ends every connection.
    pub(crate) fn cut(&self) {
        self.change(|state| {
            state.epoch += 1;
            for stream in state.connections.drain(..) {
                let _ = stream.shutdown(Shutdown::Both);
            }
        });
    }

    /// Ends every connection and takes no other.
    pub(crate) fn go_away(&self) {
        self.change(|state| (state.is_away, state.knocks) = (true, 0));
        self.cut();
    }

    pub(crate) fn come_back(&self) {
        self.change(|state| state.is_away = false);
    }

    /// Waits until somebody came that often while it was away.
    pub(crate) fn wait_for_knocks(&self, number: usize) {
        let waited = self.state.1.wait_while(self.lock(), |state| state.knocks < number);
        drop(waited);
    }

    /// Waits for a patch of that path that nobody waited for yet.
    pub(crate) fn wait_for_write(&self, path: &str) -> Value {
        let nothing = |state: &mut State| state.writes.get(path).is_none_or(VecDeque::is_empty);
        let deadline = Duration::from_secs(20);
        let (mut state, late) =
            self.state.1.wait_timeout_while(self.lock(), deadline, nothing).unwrap_or_else(PoisonError::into_inner);
        assert!(!late.timed_out(), "nobody patched {path}: {:?}", state.requests);
        state.writes.get_mut(path).and_then(VecDeque::pop_front).unwrap()
    }

    /// Answers the next writes to a path with these codes.
    pub(crate) fn fail_writes(&self, path: &str, codes: &[u16]) {
        self.change(|state| state.faults.entry(path.to_owned()).or_default().extend(codes));
    }

    /// How many of those codes are left.
    pub(crate) fn faults_left(&self, path: &str) -> usize {
        self.lock().faults.get(path).map_or(0, VecDeque::len)
    }

    /// Lets requests wait whose paths hold this.
    pub(crate) fn hold(&self, part: &'static str) {
        self.change(|state| state.held.insert(part));
    }

    pub(crate) fn release(&self, part: &'static str) {
        self.change(|state| state.held.remove(part));
    }

    /// Waits until that many requests came whose paths hold this.
    pub(crate) fn wait_for_requests(&self, part: &str, number: usize) {
        let too_few = |state: &mut State| state.requests.iter().filter(|path| path.contains(part)).count() < number;
        let deadline = Duration::from_secs(20);
        let (state, late) =
            self.state.1.wait_timeout_while(self.lock(), deadline, too_few).unwrap_or_else(PoisonError::into_inner);
        assert!(!late.timed_out(), "not {number} requests for {part}: {:?}", state.requests);
    }

    /// What was asked for, paths with queries.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.lock().requests.clone()
    }

    fn serve(&self, stream: TcpStream) {
        let epoch = {
            let mut state = self.lock();
            if state.is_away {
                state.knocks += 1;
                self.state.1.notify_all();
                return;
            }
            state.connections.push(stream.try_clone().unwrap());
            state.epoch
        };
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut stream = stream;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).is_ok_and(|length| length > 0) {
                let (mut header, mut length) = (String::new(), 0);
                while reader.read_line(&mut header).is_ok_and(|length| length > 2) {
                    if let Some(value) = header.to_ascii_lowercase().strip_prefix("content-length:") {
                        length = value.trim().parse().unwrap();
                    }
                    header.clear();
                }
                let mut body = vec![0; length];
                if reader.read_exact(&mut body).is_err() {
                    return;
                }
                let mut words = line.split(' ');
                let (method, path) = (words.next().unwrap().to_owned(), words.next().unwrap().to_owned());
                self.change(|state| state.requests.push(path.clone()));
                let waits =
                    |state: &mut State| state.epoch == epoch && state.held.iter().any(|part| path.contains(part));
                drop(self.state.1.wait_while(self.lock(), waits));
                let answered = match &*method {
                    "GET" => self.answer(&mut stream, &path, epoch),
                    _ => self.write(&mut stream, &method, &path, &body),
                };
                if answered.is_some() {
                    continue;
                }
            }
            let _ = stream.shutdown(Shutdown::Both);
            return;
        }
    }

    /// Answers one request; nothing when the connection is over.
    fn answer(&self, stream: &mut TcpStream, path: &str, epoch: u64) -> Option<()> {
        let (collection, query) = path.split_once('?').unwrap_or((path, ""));
        let query: Query<'_> = query.split('&').filter_map(|pair| pair.split_once('=')).collect();
        if collection == "/readyz" {
            return reply(stream, 200, "ok");
        }
        let state = self.lock();
        if state.unknown.contains(collection) {
            return reply(stream, 404, "404 page not found");
        }
        if state.forbidden.contains(collection) {
            let message = format!("User \"agent\" cannot list resource at {collection}");
            return reply(stream, 403, &status(403, "Forbidden", &message));
        }
        if query.contains_key("watch") {
            let is_list = query.contains_key("sendInitialEvents");
            let (refuses, breaks) = (state.lists == Lists::RefusesStreams, state.lists == Lists::BreaksStreams);
            let from: u64 = query.get("resourceVersion").and_then(|text| text.parse().ok()).unwrap_or(0);
            if refuses && is_list {
                let message = "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled";
                return reply(stream, 422, &status(422, "Invalid", message));
            }
            if breaks && is_list {
                let message = "a watch stream was requested by the client but the required storage feature \
                     RequestWatchProgress is disabled";
                let object: Value = serde_json::from_str(&status(500, "InternalError", message)).unwrap();
                return reply(stream, 200, &format!("{}\n", json!({"type": "ERROR", "object": object})));
            }
            drop(state);
            return self.watch(stream, collection, from, &query, epoch);
        }
        if let Some((parent, name)) = collection.rsplit_once('/')
            && let Some(object) = state.objects.get(parent).and_then(|objects| objects.get(name))
        {
            let object = object.to_string();
            drop(state);
            return reply(stream, 200, &object);
        }
        if collection.rsplit_once('/').is_some_and(|(parent, _)| parent.ends_with("/leases")) {
            return reply(stream, 404, &status(404, "NotFound", "there is no such Lease"));
        }
        let page = page(&state, collection, &query);
        drop(state);
        reply(stream, 200, &page)
    }

    /// Takes a write: Leases as objects, with their versions; of all else it is noted that it came.
    fn write(&self, stream: &mut TcpStream, method: &str, path: &str, body: &[u8]) -> Option<()> {
        let path = path.split('?').next()?;
        let mut body: Value = serde_json::from_slice(body).ok()?;
        if let Some(code) = self.change(|state| state.faults.get_mut(path).and_then(VecDeque::pop_front)) {
            return reply(stream, code, &status(code, "Failed", "as the test wants it"));
        }
        if !path.contains("/leases") {
            self.change(|state| state.writes.entry(path.to_owned()).or_default().push_back(body));
            return reply(stream, 200, "{}");
        }
        let name = body["metadata"]["name"].as_str()?.to_owned();
        let collection = path.trim_end_matches(&format!("/{name}")).to_owned();
        let accepted = self.change(|state| {
            let leases = state.objects.entry(collection).or_default();
            let known = leases.get(&name).map(|lease| lease["metadata"]["resourceVersion"].clone());
            let own = body["metadata"]["resourceVersion"].clone();
            let fits = if method == "POST" { known.is_none() } else { known == Some(own) };
            if fits {
                state.version += 1;
                body["metadata"]["resourceVersion"] = json!(state.version.to_string());
                leases.insert(name, body.clone());
            }
            fits
        });
        if accepted {
            return reply(stream, 200, &body.to_string());
        }
        reply(stream, 409, &status(409, "Conflict", "the object has been modified"))
    }

    fn watch(&self, stream: &mut TcpStream, collection: &str, from: u64, query: &Query<'_>, epoch: u64) -> Option<()> {
        let mut sent = from;
        let mut out = Vec::new();
        {
            let mut state = self.lock();
            if let Some(garbage) = state.garbage.remove(collection) {
                out.extend(garbage);
            }
            if query.contains_key("sendInitialEvents") {
                let objects = state.objects.get(collection).into_iter().flat_map(BTreeMap::values);
                objects.filter(|object| selects(query, object)).for_each(|object| event(&mut out, "ADDED", object));
                sent = state.version;
                let annotations = json!({"k8s.io/initial-events-end": "true"});
                let metadata = json!({"resourceVersion": sent.to_string(), "annotations": annotations});
                event(&mut out, "BOOKMARK", &json!({"metadata": metadata}));
            } else if from < state.compacted {
                let gone = json!({"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"});
                event(&mut out, "ERROR", &gone);
            }
        }
        write!(stream, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").ok()?;
        loop {
            if !out.is_empty() {
                write!(stream, "{:x}\r\n", out.len()).ok()?;
                stream.write_all(&out).ok()?;
                write!(stream, "\r\n").ok()?;
                out.clear();
            }
            let state = self.lock();
            let is_quiet = |state: &mut State| {
                state.epoch == epoch && state.events.last().is_none_or(|(version, ..)| *version <= sent)
            };
            let state = self.state.1.wait_while(state, is_quiet).unwrap_or_else(PoisonError::into_inner);
            if state.epoch != epoch {
                return None;
            }
            for (version, at, kind, object) in &state.events {
                if *version > sent && at == collection && selects(query, object) {
                    event(&mut out, kind, object);
                }
            }
            sent = state.events.last().map_or(sent, |(version, ..)| sent.max(*version));
        }
    }
}

type Query<'a> = BTreeMap<&'a str, &'a str>;

/// Whether the field selector takes the object; only those about Secrets' types are known.
fn selects(query: &Query<'_>, object: &Value) -> bool {
    let is_certificate = object.get("type").is_some_and(|kind| kind == "kubernetes.io/tls");
    match query.get("fieldSelector") {
        Some(selector) if selector.starts_with("type%3D") => is_certificate,
        Some(selector) if selector.starts_with("type%21%3D") => !is_certificate,
        _ => true,
    }
}

fn page(state: &State, collection: &str, query: &Query<'_>) -> String {
    let objects = state.objects.get(collection).into_iter().flat_map(BTreeMap::values);
    let objects: Vec<&Value> = objects.filter(|object| selects(query, object)).collect();
    // Smaller pages than asked for, so that there are several.
    let limit = 3;
    let start = query.get("continue").and_then(|text| text.parse::<usize>().ok()).unwrap_or(0);
    let end = (start + limit).min(objects.len());
    let token = if end < objects.len() { end.to_string() } else { String::new() };
    let metadata = json!({"resourceVersion": state.version.to_string(), "continue": token});
    json!({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": objects[start..end]}).to_string()
}

fn event(out: &mut Vec<u8>, kind: &str, object: &Value) {
    out.extend(json!({"type": kind, "object": object}).to_string().as_bytes());
    out.push(b'\n');
}

fn status(code: u16, reason: &str, message: &str) -> String {
    json!({"kind": "Status", "apiVersion": "v1", "code": code, "reason": reason, "message": message}).to_string()
}

fn reply(stream: &mut TcpStream, code: u16, body: &str) -> Option<()> {
    write!(stream, "HTTP/1.1 {code} X\r\ncontent-length: {}\r\n\r\n{body}", body.len()).ok()
}
