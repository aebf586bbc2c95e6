//! An endpoint: answers what it saw, upgrades, or holds an answer back until it is let go.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{io::copy, net::TcpListener, sync::Notify, task::JoinHandle};

/// Ends when it is dropped.
pub(crate) struct TestEndpoint {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    name: String,
    connections: AtomicUsize,
    requests: AtomicUsize,
    gate: Notify,
}

impl TestEndpoint {
    pub(crate) async fn start(name: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State { name: name.to_owned(), ..State::default() });
        let task = tokio::spawn(accept(listener, Arc::clone(&state)));
        Self { address, state, task }
    }

    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    pub(crate) fn requests(&self) -> usize {
        self.state.requests.load(Ordering::SeqCst)
    }

    /// Lets one request to `/gate` go on.
    pub(crate) fn open_gate(&self) {
        self.state.gate.notify_one();
    }
}

impl Drop for TestEndpoint {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        state.connections.fetch_add(1, Ordering::SeqCst);
        let state = Arc::clone(&state);
        let service = service_fn(move |request| answer(Arc::clone(&state), request));
        connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades());
    }
}

async fn answer(state: Arc<State>, mut request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    state.requests.fetch_add(1, Ordering::SeqCst);
    if request.headers().contains_key("upgrade") {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let (mut read, mut write) = tokio::io::split(TokioIo::new(upgrade.await.unwrap()));
            copy(&mut read, &mut write).await
        });
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response.headers_mut().insert("upgrade", "websocket".parse().unwrap());
        response.headers_mut().insert("connection", "upgrade".parse().unwrap());
        return Ok(response);
    }
    if request.uri().path() == "/gate" {
        state.gate.notified().await;
    }
    let wanted = Wanted::of(&request);
    let mut seen = format!("endpoint={}\n{} {}\n", state.name, request.method(), request.uri());
    for (name, value) in request.headers() {
        seen.push_str(&format!("{name}: {}\n", value.to_str().unwrap()));
    }
    if let Ok(body) = request.into_body().collect().await {
        seen.push_str(&format!("body={}\n", String::from_utf8_lossy(&body.to_bytes())));
    }
    let mut response = Response::new(Full::from(seen));
    response.headers_mut().insert("server", "test-endpoint".parse().unwrap());
    wanted.give(&mut response);
    Ok(response)
}

/// What the client wants the answer to be like: `x-answer-status: 404`, `x-answer-field: name=value`. One that answers for
/// errors (it is told an `x-code`) is its own master.
struct Wanted {
    status: Option<StatusCode>,
    fields: Vec<(HeaderName, HeaderValue)>,
}

impl Wanted {
    fn of(request: &Request<Incoming>) -> Self {
        let headers = request.headers();
        let status = headers.get("x-answer-status").filter(|_| !headers.contains_key("x-code"));
        let fields = headers.get_all("x-answer-field").iter().map(|field| {
            let (name, value) = field.to_str().unwrap().split_once('=').unwrap();
            (name.parse().unwrap(), value.parse().unwrap())
        });
        Self { status: status.map(|status| status.to_str().unwrap().parse().unwrap()), fields: fields.collect() }
    }

    fn give(self, response: &mut Response<Full<Bytes>>) {
        *response.status_mut() = self.status.unwrap_or_default();
        for (name, value) in self.fields {
            response.headers_mut().append(name, value);
        }
    }
}
