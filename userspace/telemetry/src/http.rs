//! What is said at /metrics, /healthz, /readyz and /livez; nothing but GET and HEAD is answered.

use std::{io, net::SocketAddr};

use hyper::{Method, Response, StatusCode, header};
use tokio::{net::TcpListener, task::JoinHandle};

use crate::{Health, Shutdown, answer_requests};

type Answer = Response<String>;

/// Binds the address and serves it until shutdown; called inside a runtime.
///
/// # Errors
/// When the address cannot be bound.
pub fn serve(addr: SocketAddr, health: Health, shutdown: Shutdown) -> io::Result<JoinHandle<()>> {
    let listener = std::net::TcpListener::bind(addr)?;
    listener.set_nonblocking(true)?;
    Ok(serve_on(TcpListener::from_std(listener)?, health, shutdown))
}

/// Serves a socket that is bound already, until shutdown.
pub fn serve_on(listener: TcpListener, health: Health, shutdown: Shutdown) -> JoinHandle<()> {
    tokio::spawn(answer_requests(listener, shutdown, move |method, path| answer(method, path, &health)))
}

fn answer(method: &Method, path: &str, health: &Health) -> Answer {
    if method != Method::GET && method != Method::HEAD {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        refused.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match path {
        "/metrics" => metrics(health),
        "/livez" => state(health.is_live()),
        "/healthz" => state(health.is_live() && health.is_eligible()),
        "/readyz" => state(health.is_ready()),
        _ => text(StatusCode::NOT_FOUND, "try /metrics, /healthz, /readyz or /livez\n"),
    }
}

fn metrics(health: &Health) -> Answer {
    match health.metrics() {
        Ok(body) => {
            let mut answer = text(StatusCode::OK, body);
            let kind = header::HeaderValue::from_static(prometheus::TEXT_FORMAT);
            answer.headers_mut().insert(header::CONTENT_TYPE, kind);
            answer
        }
        Err(error) => {
            tracing::warn!(%error, "cannot encode the metrics");
            text(StatusCode::INTERNAL_SERVER_ERROR, "cannot encode the metrics\n")
        }
    }
}

fn state(good: bool) -> Answer {
    if good { text(StatusCode::OK, "ok\n") } else { text(StatusCode::SERVICE_UNAVAILABLE, "not now\n") }
}

fn text(status: StatusCode, body: impl Into<String>) -> Answer {
    let mut answer = Response::new(body.into());
    *answer.status_mut() = status;
    let kind = header::HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    answer
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prometheus::{IntCounter, Registry};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
        time::timeout,
    };

    use super::*;
    use crate::server::CONNECTIONS;

    async fn ask(addr: SocketAddr, head: &str) -> String {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(format!("{head} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(Duration::from_secs(10), stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        answer
    }

    #[tokio::test]
    async fn endpoints_follow_the_state() {
        let registry = Registry::new();
        let counter = IntCounter::new("roadstead_test_things_total", "things").unwrap();
        registry.register(Box::new(counter.clone())).unwrap();
        counter.inc();
        let (health, shutdown) = (Health::new(registry), Shutdown::new());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let task = serve_on(listener, health.clone(), shutdown.clone());

        let check = async |head: &str, status: &str, body: &str| {
            let answer = ask(addr, head).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{head}: {answer}");
            assert!(answer.contains(body), "{head}: {answer}");
        };
        check("GET /metrics", "200", "roadstead_test_things_total 1").await;
        check("GET /readyz", "503", "not now").await;
        health.set_ready(true);
        check("GET /readyz", "200", "ok").await;
        check("GET /livez", "200", "ok").await;
        check("GET /healthz", "200", "ok").await;
        health.set_eligible(false);
        check("GET /healthz", "503", "").await;
        check("GET /livez", "200", "ok").await;
        check("GET /readyz", "200", "ok").await;
        health.set_eligible(true);
        check("GET /healthz", "200", "ok").await;
        health.set_live(false);
        check("GET /livez", "503", "").await;
        check("GET /healthz", "503", "").await;
        check("GET /readyz", "503", "").await;
        check("POST /metrics", "405", "allow: GET, HEAD").await;
        check("GET /other", "404", "/metrics").await;
        let head = ask(addr, "HEAD /metrics").await;
        assert!(head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n"), "{head}");

        shutdown.trigger();
        timeout(Duration::from_secs(5), task).await.unwrap().unwrap();
        assert!(TcpStream::connect(addr).await.is_err());
    }

    #[tokio::test]
    async fn connections_over_the_cap_are_closed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let shutdown = Shutdown::new();
        let task = serve_on(listener, Health::new(Registry::new()), shutdown.clone());
        let mut held = Vec::new();
        for _ in 0..CONNECTIONS {
            held.push(TcpStream::connect(addr).await.unwrap());
        }
        let mut over = TcpStream::connect(addr).await.unwrap();
        let read = timeout(Duration::from_secs(4), over.read(&mut [0; 8])).await.unwrap();
        assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
        drop(held);
        shutdown.trigger();
        timeout(Duration::from_secs(5), task).await.unwrap().unwrap();
    }
}
