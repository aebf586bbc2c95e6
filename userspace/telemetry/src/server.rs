//! A small HTTP server for answers that need no body of the request: metrics, health.
//!
//! It faces a scraper or a load balancer, but it may face anyone: heads are bounded in size and time, connections in number
//! and age. What is answered is the caller's.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};

use crate::Shutdown;

/// A scraper or a checker needs one connection; the rest is for people and load balancers.
pub(crate) const CONNECTIONS: usize = 64;
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Bounds a peer that reads or writes one byte at a time; Prometheus opens a new connection when it is over.
const CONNECTION_AGE: Duration = Duration::from_secs(300);
/// The smallest that hyper accepts.
const BUFFER: usize = 8192;

/// Serves a bound socket until shutdown: to each request by its method and path, whatever `answer` says. Then the socket
/// and all connections are closed.
pub async fn answer_requests<A>(listener: TcpListener, shutdown: Shutdown, answer: A)
where
    A: Fn(&Method, &str) -> Response<String> + Clone + Send + 'static,
{
    let mut connections = JoinSet::new();
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        tokio::select! {
            () = shutdown.wait() => break,
            Some(_) = connections.join_next() => {}
            stream = accept(&listener) => {
                // Over the cap the connection is closed at once: whoever fills it gets no queue either.
                if let Ok(slot) = Arc::clone(&slots).try_acquire_owned() {
                    let answer = answer.clone();
                    connections.spawn(async move {
                        connection(stream, answer).await;
                        drop(slot);
                    });
                }
            }
        }
    }
    drop(listener);
    connections.shutdown().await;
}

/// The next connection; out of file descriptors, it waits for some to come free rather than spin.
async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) => {
                tracing::debug!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, answer: impl Fn(&Method, &str) -> Response<String>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = answer(request.method(), request.uri().path()).map(|body| Full::new(Bytes::from(body)));
        async move { Ok::<_, Infallible>(answer) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(BUFFER).half_close(false);
    match timeout(CONNECTION_AGE, http.serve_connection(TokioIo::new(stream), service)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection failed"),
        Err(_) => tracing::debug!("a connection grew too old"),
    }
}
