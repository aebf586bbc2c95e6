//! HTTP: whatever is asked is answered with JSON about the request.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

pub(super) async fn serve(listener: TcpListener, name: String) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => drop(tokio::spawn(connection(stream, peer, name.clone()))),
            Err(error) => eprintln!("accept: {error}"),
        }
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, name: String) {
    let Ok(local) = stream.local_addr() else { return };
    let service = service_fn(|request: Request<Incoming>| {
        let body = describe(&request, &name, peer, local);
        async move {
            let mut response = Response::new(Full::new(Bytes::from(format!("{body}\n"))));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            Ok::<_, Infallible>(response)
        }
    });
    // A connection that fails is its client's to notice.
    let _closed = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
}

fn describe(request: &Request<Incoming>, name: &str, peer: SocketAddr, local: SocketAddr) -> Value {
    let mut headers: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (header, value) in request.headers() {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        headers.entry(header.as_str()).or_default().push(value);
    }
    // A header that came once is shown as text, so that answers read well; one that came more often as a list.
    let headers: BTreeMap<&str, Value> = headers
        .into_iter()
        .map(|(header, values)| match values.as_slice() {
            [value] => (header, json!(value)),
            _ => (header, json!(values)),
        })
        .collect();
    // HTTP/2 carries the host in the request's address.
    let told = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    json!({
        "name": name,
        "peer": super::plain(peer),
        "local": super::plain(local),
        "method": request.method().as_str(),
        "path": request.uri().path_and_query().map_or("", |path| path.as_str()),
        "version": format!("{:?}", request.version()),
        "host": told.or(request.uri().authority().map(hyper::http::uri::Authority::as_str)),
        "headers": headers,
    })
}
