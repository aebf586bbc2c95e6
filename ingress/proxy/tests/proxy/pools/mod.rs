//! Which endpoint takes a request, and what happens when it fails: by the effect on real requests.

mod balance;
mod retries;
mod sessions;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use roadstead_model::{ObjectName, Snapshot};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use crate::{
    client::{exchange, get, read_until},
    objects::{annotate, empty, ingress, service},
    proxy::Proxy,
};

/// What a scripted endpoint does with every request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Script {
    /// Answers with this status.
    Status(u16),
    /// Answers 200 after this time.
    Slow(Duration),
    /// Closes the connection without a word.
    Reset,
    /// Sends what is no HTTP.
    Garbage,
    /// Says nothing, and keeps the connection.
    Silent,
    /// Closes it after this time.
    ResetAfter(Duration),
}

/// An endpoint that keeps to its script, one request a connection; ends when it is dropped.
pub(crate) struct Scripted {
    pub(crate) address: SocketAddr,
    requests: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Scripted {
    pub(crate) async fn start(name: &str, script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(AtomicUsize::new(0));
        let (count, name) = (Arc::clone(&requests), name.to_owned());
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (count, name) = (Arc::clone(&count), name.clone());
                tokio::spawn(async move { act(stream, &name, script, &count).await });
            }
        });
        Self { address, requests, task }
    }

    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn act(mut stream: TcpStream, name: &str, script: Script, count: &AtomicUsize) {
    read_until(&mut stream, "\r\n\r\n").await;
    count.fetch_add(1, Ordering::SeqCst);
    let body = format!("endpoint={name}\n");
    let answer = |status: u16| {
        format!("HTTP/1.1 {status} Scripted\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
    };
    let text = match script {
        Script::Status(status) => answer(status),
        Script::Slow(time) => {
            tokio::time::sleep(time).await;
            answer(200)
        }
        Script::Reset => return,
        Script::Garbage => "SSH-2.0-OpenSSH_9.9\r\n\r\n".to_owned(),
        Script::Silent => return std::future::pending().await,
        Script::ResetAfter(time) => return tokio::time::sleep(time).await,
    };
    stream.write_all(text.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
}

/// An Ingress for host `a` in front of these endpoints, with annotations of ingress-nginx.
pub(crate) fn scene(endpoints: &[SocketAddr], annotations: &[(&str, &str)]) -> Snapshot {
    let mut snapshot = empty();
    service(&mut snapshot, "web", endpoints);
    ingress(&mut snapshot, "web", &[("a", "/", "web")], &[]);
    annotate(&mut snapshot, "web", annotations);
    snapshot
}

/// Makes an endpoint of the Service `web` a terminating one that still serves.
pub(crate) fn drain(snapshot: &mut Snapshot, address: SocketAddr) {
    let slices = snapshot.slices.get_mut(&ObjectName::new("default", "web")).unwrap();
    for slice in slices {
        let slice = Arc::make_mut(slice);
        if slice.ports[0].port.get() == address.port() {
            (slice.endpoints[0].ready, slice.endpoints[0].terminating) = (false, true);
        }
    }
}

/// The name of the endpoint that answered.
pub(crate) fn named(answer: &str) -> &str {
    let name = answer.lines().find_map(|line| line.strip_prefix("endpoint="));
    name.unwrap_or_else(|| panic!("no endpoint answered: {answer}"))
}

/// Asks by GET; the answer as it came.
pub(crate) async fn ask(proxy: &Proxy, path: &str) -> String {
    exchange(proxy.http, get("a", path)).await
}

/// How many warnings about the configuration there are.
pub(crate) fn warnings(proxy: &Proxy) -> String {
    proxy.metric("roadstead_ingress_config_problems{severity=\"warning\"}").unwrap()
}
