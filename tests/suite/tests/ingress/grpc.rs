//! gRPC through the proxy, by tonic on either side: every kind of call, metadata both ways, trailers, errors in the middle of a
//! stream, calls in lock-step that no buffer may hold back, in the clear and over TLS.
//!
//! The messages are plain text, with a codec of their own, so that nothing needs a compiler of protocols; on the wire it is gRPC.

mod codec;
mod server;

use std::time::Duration;

use http::uri::PathAndQuery;
use rcgen::generate_simple_self_signed;
use tokio::{runtime::Runtime, sync::mpsc, time::timeout};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::{
    Code, Request, Status,
    client::Grpc,
    metadata::{MetadataMap, MetadataValue},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};

use self::{codec::Text, server::Server};
use super::{
    daemon::{DEADLINE, Proxy},
    manifests::{annotated, secret, service},
    pod::host_address,
};

struct Ground {
    proxy: Proxy,
    server: Server,
    certificate: String,
    runtime: Runtime,
}

/// `grpc.example` leads to the gRPC server, `empty.example` to no pod.
fn start() -> Option<Ground> {
    let server = Server::start(host_address()?);
    let pair = generate_simple_self_signed(vec!["grpc.example".to_owned()]).unwrap();
    let settings = [
        ("nginx.ingress.kubernetes.io/backend-protocol", "GRPC"),
        ("nginx.ingress.kubernetes.io/proxy-body-size", "0"),
        ("nginx.ingress.kubernetes.io/ssl-redirect", "false"),
    ];
    let text = [
        service("grpc", &[server.address]),
        service::<std::net::SocketAddr>("empty", &[]),
        annotated("grpc", "grpc.example", &[("Prefix", "/", "grpc")], &settings),
        "  tls: [{ hosts: [grpc.example], secretName: pair }]\n".to_owned(),
        annotated("empty", "empty.example", &[("Prefix", "/", "empty")], &settings),
        secret("pair", &pair.cert.pem(), &pair.signing_key.serialize_pem()),
    ];
    let proxy = Proxy::start(&[("all.yaml", &text.concat())]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    Some(Ground { proxy, server, certificate: pair.cert.pem(), runtime })
}

impl Ground {
    /// A client for the host, in the clear.
    async fn plain(&self, host: &str) -> Client {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.proxy.http)).unwrap();
        Client::connect(endpoint.origin(format!("http://{host}").parse().unwrap())).await
    }

    /// A client for `grpc.example` over TLS that believes its certificate alone.
    async fn secure(&self) -> Client {
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&self.certificate));
        let endpoint = Endpoint::from_shared(format!("https://{}", self.proxy.https)).unwrap();
        let endpoint = endpoint.origin("https://grpc.example".parse().unwrap());
        Client::connect(endpoint.tls_config(tls.domain_name("grpc.example")).unwrap()).await
    }

    /// Runs the same over both, with a deadline.
    fn both(&self, work: impl AsyncFn(Client)) {
        self.runtime.block_on(async {
            for client in [self.plain("grpc.example").await, self.secure().await] {
                timeout(DEADLINE, work(client)).await.expect("in time");
            }
        });
    }
}

struct Client(Grpc<Channel>);

impl Client {
    async fn connect(endpoint: Endpoint) -> Self {
        Self(Grpc::new(endpoint.connect().await.unwrap()))
    }

    async fn unary(
        &mut self,
        method: &'static str,
        request: Request<String>,
    ) -> Result<tonic::Response<String>, Status> {
        self.0.ready().await.unwrap();
        self.0.unary(request, PathAndQuery::from_static(method), Text).await
    }
}

fn text(metadata: &MetadataMap, name: &str) -> String {
    metadata.get(name).map_or(String::new(), |value| value.to_str().unwrap().to_owned())
}

#[test]
fn unary_calls_carry_metadata_both_ways_and_trailers() {
    let Some(ground) = start() else { return };
    ground.both(async |mut client| {
        let mut request = Request::new("ahoy".to_owned());
        request.metadata_mut().insert("x-ship", "heron".parse().unwrap());
        request.metadata_mut().insert_bin("x-cargo-bin", MetadataValue::from_bytes(&[0, 255, 10]));
        request.set_timeout(Duration::from_secs(20));
        let response = client.unary("/harbour.Port/Echo", request).await.unwrap();
        let metadata = response.metadata();
        assert_eq!(text(metadata, "x-seen-ship"), "heron");
        assert_eq!(metadata.get_bin("x-seen-cargo-bin").unwrap().to_bytes().unwrap().as_ref(), [0, 255, 10]);
        assert!(text(metadata, "x-seen-timeout").ends_with(['u', 'm', 'S']), "grpc-timeout is the server's to read");
        assert_eq!(text(metadata, "x-seen-te"), "trailers", "gRPC's own libraries ask for it");
        assert_eq!(text(metadata, "x-seen-content-type"), "application/grpc");
        assert!(text(metadata, "x-seen-forwarded-for").starts_with("127.0.0.1"));
        assert_eq!(text(metadata, "grpc-status"), "0", "the status came in the trailers");
        assert_eq!(response.get_ref(), "ahoy");
        // Three megabytes each way; tonic itself refuses more than four.
        let large = "x".repeat(3_000_000);
        let response = client.unary("/harbour.Port/Echo", Request::new(large.clone())).await.unwrap();
        assert!(*response.get_ref() == large, "the large message came back whole");
    });
}

#[test]
fn errors_come_with_code_message_and_details() {
    let Some(ground) = start() else { return };
    ground.both(async |mut client| {
        let error = client.unary("/harbour.Port/Fail", Request::new("reef \u{1f6a2}".to_owned())).await.unwrap_err();
        assert_eq!((error.code(), error.message()), (Code::ResourceExhausted, "reef \u{1f6a2}"));
        assert_eq!((error.details(), &*text(error.metadata(), "x-why")), (&b"\0\x01details"[..], "told"));
        let error = client.unary("/harbour.Port/Nothing", Request::new(String::new())).await.unwrap_err();
        assert_eq!((error.code(), error.message()), (Code::Unimplemented, "no such method"), "the server's own answer");
    });
    // What the proxy answers itself is translated as gRPC asks for: 503 is unavailable, 404 unimplemented.
    ground.runtime.block_on(async {
        for (host, code) in [("empty.example", Code::Unavailable), ("other.example", Code::Unimplemented)] {
            let mut client = ground.plain(host).await;
            let error = client.unary("/harbour.Port/Echo", Request::new(String::new())).await.unwrap_err();
            assert_eq!(error.code(), code, "{host}: {error}");
        }
    });
}

#[test]
fn server_streams_arrive_whole_and_end_with_their_status() {
    let Some(ground) = start() else { return };
    ground.both(async |mut client| {
        for (count, ends) in [("1000", None), ("7!", Some(Code::DataLoss))] {
            client.0.ready().await.unwrap();
            let path = PathAndQuery::from_static("/harbour.Port/Count");
            let response = client.0.server_streaming(Request::new(count.to_owned()), path, Text).await.unwrap();
            let (mut stream, mut received) = (response.into_inner(), 0);
            let end = loop {
                match stream.message().await {
                    Ok(Some(message)) => assert_eq!(message, received.to_string()),
                    Ok(None) => break None,
                    Err(status) => break Some(status.code()),
                }
                received += 1;
            };
            assert_eq!((received.to_string(), end), (count.trim_end_matches('!').to_owned(), ends));
        }
    });
}

#[test]
fn client_streams_arrive_whole() {
    let Some(ground) = start() else { return };
    ground.both(async |mut client| {
        client.0.ready().await.unwrap();
        let messages = tokio_stream::iter((0..200).map(|_| "x".repeat(100_000)));
        let path = PathAndQuery::from_static("/harbour.Port/Sum");
        let response = client.0.client_streaming(Request::new(messages), path, Text).await.unwrap();
        assert_eq!(response.get_ref(), "200 messages, 20000000 bytes");
    });
}

/// Each message is sent only when the one before has come back: whoever holds one back stops the conversation.
#[test]
fn both_sides_stream_in_lock_step() {
    let Some(ground) = start() else { return };
    ground.both(async |mut client| {
        client.0.ready().await.unwrap();
        let (sender, receiver) = mpsc::channel(1);
        let path = PathAndQuery::from_static("/harbour.Port/Chat");
        sender.send("first".to_owned()).await.unwrap();
        let outgoing = Request::new(ReceiverStream::new(receiver));
        let mut incoming = client.0.streaming(outgoing, path, Text).await.unwrap().into_inner();
        assert_eq!(incoming.next().await.unwrap().unwrap(), "first");
        for turn in 0..200 {
            sender.send(turn.to_string()).await.unwrap();
            assert_eq!(incoming.next().await.unwrap().unwrap(), turn.to_string());
        }
        drop(sender);
        assert!(incoming.next().await.is_none(), "the server ends when the client has");
    });
}

/// A client that goes away in the middle of a stream takes the server's work with it.
#[test]
fn a_client_that_leaves_ends_the_call_at_the_server() {
    let Some(ground) = start() else { return };
    ground.both(async |mut client| {
        client.0.ready().await.unwrap();
        let path = PathAndQuery::from_static("/harbour.Port/Wait");
        let response = client.0.server_streaming(Request::new(String::new()), path, Text).await.unwrap();
        let mut stream = response.into_inner();
        assert_eq!(stream.message().await.unwrap().unwrap(), "waiting");
        let before = ground.server.left();
        drop(stream);
        let left = async {
            while ground.server.left() == before {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(DEADLINE, left).await.expect("the server notices");
    });
}
