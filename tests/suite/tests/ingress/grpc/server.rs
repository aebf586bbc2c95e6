//! The gRPC server behind the proxy: `/harbour.Port/` with a method for every kind of call, on hyper and a thread of its own.

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::{Stream, StreamExt as _, wrappers::ReceiverStream};
use tonic::{
    Code, Request, Response, Status, Streaming,
    metadata::MetadataMap,
    server::{ClientStreamingService, Grpc, ServerStreamingService, StreamingService, UnaryService},
};

use super::codec::Text;

type Answer<T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send>>;
type Messages = Pin<Box<dyn Stream<Item = Result<String, Status>> + Send>>;

pub(super) struct Server {
    pub(super) address: SocketAddr,
    left: Arc<AtomicUsize>,
}

impl Server {
    pub(super) fn start(ip: IpAddr) -> Self {
        let listener = std::net::TcpListener::bind((ip, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        let left = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&left);
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(accept(listener, counted));
        });
        Self { address, left }
    }

    /// How many calls of `Wait` were left by their client.
    pub(super) fn left(&self) -> usize {
        self.left.load(Ordering::SeqCst)
    }
}

async fn accept(listener: std::net::TcpListener, left: Arc<AtomicUsize>) {
    let listener = TcpListener::from_std(listener).unwrap();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let left = Arc::clone(&left);
        let service = service_fn(move |request| answer(request, Arc::clone(&left)));
        tokio::spawn(http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service));
    }
}

async fn answer(
    request: http::Request<Incoming>,
    left: Arc<AtomicUsize>,
) -> Result<http::Response<tonic::body::Body>, Infallible> {
    let mut grpc = Grpc::new(Text);
    let method = request.uri().path().strip_prefix("/harbour.Port/").unwrap_or_default().to_owned();
    Ok(match &*method {
        "Echo" => grpc.unary(Echo, request).await,
        "Fail" => grpc.unary(Fail, request).await,
        "Count" => grpc.server_streaming(Count, request).await,
        "Sum" => grpc.client_streaming(Sum, request).await,
        "Chat" => grpc.streaming(Chat, request).await,
        "Wait" => grpc.server_streaming(Wait(left), request).await,
        _ => Status::unimplemented("no such method").into_http(),
    })
}

/// Sends the message back, and what was seen of the request as metadata.
struct Echo;

impl UnaryService<String> for Echo {
    type Response = String;
    type Future = Answer<String>;

    fn call(&mut self, request: Request<String>) -> Answer<String> {
        let (seen, _, message) = request.into_parts();
        let mut response = Response::new(message);
        for (name, told) in [
            ("x-ship", "x-seen-ship"),
            ("grpc-timeout", "x-seen-timeout"),
            ("te", "x-seen-te"),
            ("content-type", "x-seen-content-type"),
            ("x-forwarded-for", "x-seen-forwarded-for"),
        ] {
            // tonic hides what gRPC itself uses from its own accessors.
            if let Some(value) = seen.clone().into_headers().get(name) {
                response.metadata_mut().insert(told, value.to_str().unwrap().parse().unwrap());
            }
        }
        if let Some(value) = seen.get_bin("x-cargo-bin") {
            response.metadata_mut().insert_bin("x-seen-cargo-bin", value.clone());
        }
        Box::pin(async { Ok(response) })
    }
}

/// Fails with the message.
struct Fail;

impl UnaryService<String> for Fail {
    type Response = String;
    type Future = Answer<String>;

    fn call(&mut self, request: Request<String>) -> Answer<String> {
        let mut metadata = MetadataMap::new();
        metadata.insert("x-why", "told".parse().unwrap());
        let details = b"\0\x01details"[..].into();
        let status =
            Status::with_details_and_metadata(Code::ResourceExhausted, request.into_inner(), details, metadata);
        Box::pin(async { Err(status) })
    }
}

/// Counts up to the number in the message; where it ends in `!`, the stream breaks there.
struct Count;

impl ServerStreamingService<String> for Count {
    type Response = String;
    type ResponseStream = Messages;
    type Future = Answer<Messages>;

    fn call(&mut self, request: Request<String>) -> Answer<Messages> {
        let message = request.into_inner();
        let count: usize = message.trim_end_matches('!').parse().unwrap();
        let broken = message.ends_with('!').then(|| Err(Status::data_loss("it broke")));
        let messages = (0..count).map(|number| Ok(number.to_string())).chain(broken);
        Box::pin(async { Ok(Response::new(Box::pin(tokio_stream::iter(messages)) as Messages)) })
    }
}

/// Counts what came.
struct Sum;

impl ClientStreamingService<String> for Sum {
    type Response = String;
    type Future = Answer<String>;

    fn call(&mut self, request: Request<Streaming<String>>) -> Answer<String> {
        Box::pin(async {
            let (mut count, mut bytes, mut messages) = (0, 0, request.into_inner());
            while let Some(message) = messages.message().await? {
                (count, bytes) = (count + 1, bytes + message.len());
            }
            Ok(Response::new(format!("{count} messages, {bytes} bytes")))
        })
    }
}

/// Sends every message back as it comes.
struct Chat;

impl StreamingService<String> for Chat {
    type Response = String;
    type ResponseStream = Streaming<String>;
    type Future = Answer<Streaming<String>>;

    fn call(&mut self, request: Request<Streaming<String>>) -> Answer<Streaming<String>> {
        Box::pin(async { Ok(Response::new(request.into_inner())) })
    }
}

/// Says one word and waits for its client to go.
struct Wait(Arc<AtomicUsize>);

impl ServerStreamingService<String> for Wait {
    type Response = String;
    type ResponseStream = Messages;
    type Future = Answer<Messages>;

    fn call(&mut self, _: Request<String>) -> Answer<Messages> {
        let left = Arc::clone(&self.0);
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            sender.send("waiting".to_owned()).await.unwrap();
            sender.closed().await;
            left.fetch_add(1, Ordering::SeqCst);
        });
        Box::pin(async { Ok(Response::new(Box::pin(ReceiverStream::new(receiver).map(Ok)) as Messages)) })
    }
}
