//! An endpoint that speaks HTTP/2 in the clear, as gRPC servers do: echoes with trailers, holds requests, counts streams.

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::{
    HeaderMap, Request, Response,
    body::{Body, Frame, Incoming},
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    net::TcpListener,
    task::{JoinHandle, JoinSet},
};

/// Ends when it is dropped.
pub(crate) struct H2Endpoint {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    connections: AtomicUsize,
    requests: AtomicUsize,
    open: AtomicUsize,
}

impl H2Endpoint {
    /// One that allows so many streams on a connection.
    pub(crate) async fn start(max_streams: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let task = tokio::spawn(accept(listener, max_streams, Arc::clone(&state)));
        Self { address, state, task }
    }

    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    pub(crate) fn requests(&self) -> usize {
        self.state.requests.load(Ordering::SeqCst)
    }

    /// Requests whose answer is not over and not taken back.
    pub(crate) fn open(&self) -> usize {
        self.state.open.load(Ordering::SeqCst)
    }
}

impl Drop for H2Endpoint {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, max_streams: u32, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        state.connections.fetch_add(1, Ordering::SeqCst);
        let state = Arc::clone(&state);
        let service = service_fn(move |request| answer(Arc::clone(&state), request));
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.max_concurrent_streams(max_streams);
        connections.spawn(builder.serve_connection(TokioIo::new(stream), service));
    }
}

/// `/hold` never ends; everything else gives its body back, piece by piece, and ends with trailers.
async fn answer(state: Arc<State>, request: Request<Incoming>) -> Result<Response<Echo>, Infallible> {
    state.requests.fetch_add(1, Ordering::SeqCst);
    let mut response = Response::builder().header("content-type", "application/grpc");
    for (name, seen) in [("te", "x-te"), ("host", "x-host"), ("connection", "x-connection")] {
        if let Some(value) = request.headers().get(name) {
            response = response.header(seen, value);
        }
    }
    response = response.header("x-authority", request.uri().authority().map_or("", |authority| authority.as_str()));
    let hold = request.uri().path() == "/hold";
    Ok(response.body(Echo { incoming: request.into_body(), hold, over: false, _open: Open::new(state) }).unwrap())
}

struct Open(Arc<State>);

impl Open {
    fn new(state: Arc<State>) -> Self {
        state.open.fetch_add(1, Ordering::SeqCst);
        Self(state)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

struct Echo {
    incoming: Incoming,
    hold: bool,
    over: bool,
    _open: Open,
}

impl Body for Echo {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if self.over {
            return Poll::Ready(None);
        }
        match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) if frame.is_data() => Poll::Ready(Some(Ok(frame))),
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error))),
            Poll::Ready(_) if self.hold => Poll::Pending,
            Poll::Ready(_) => {
                self.over = true;
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", "0".parse().unwrap());
                Poll::Ready(Some(Ok(Frame::trailers(trailers))))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}
