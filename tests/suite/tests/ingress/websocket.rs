//! WebSocket (RFC 6455) through the proxy, by a library on either side: messages of every kind and size both ways, closes with
//! their reason, in the clear and over TLS, and through edits of the very Ingress that led there.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener},
    thread,
};

use rcgen::generate_simple_self_signed;
use tungstenite::{
    Message, WebSocket, accept_hdr,
    client::{IntoClientRequest as _, client_with_config},
    handshake::server::{Request, Response},
    protocol::{CloseFrame, frame::coding::CloseCode},
};

use super::{
    client::{ask, connect, get, tls},
    daemon::{Proxy, wait_until},
    manifests::{annotated, ingress, secret, service},
    pod::{Pod, host_address},
};

/// A server that takes the first protocol that is offered and sends every message back; `bye` makes it close.
pub(super) fn echo(ip: IpAddr) -> SocketAddr {
    let listener = TcpListener::bind((ip, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || {
                let mut socket = accept_hdr(stream.unwrap(), negotiate).unwrap();
                while let Ok(message) = socket.read() {
                    if message.is_text() && message == Message::text("bye") {
                        let reason = "as you wish".into();
                        let _closing = socket.close(Some(CloseFrame { code: CloseCode::Library(4000), reason }));
                    } else if message.is_text() || message.is_binary() {
                        socket.send(message).unwrap();
                    }
                }
            });
        }
    });
    address
}

#[expect(clippy::result_large_err, reason = "the library's type of callback")]
fn negotiate(
    request: &Request,
    mut response: Response,
) -> Result<Response, tungstenite::handshake::server::ErrorResponse> {
    for (name, value) in [("sec-websocket-protocol", "sec-websocket-protocol"), ("x-forwarded-proto", "x-seen-scheme")]
    {
        if let Some(seen) = request.headers().get(name) {
            response.headers_mut().insert(value, seen.clone());
        }
    }
    Ok(response)
}

fn open<S: Read + Write>(stream: S, scheme: &str) -> WebSocket<S> {
    let mut request = format!("{scheme}://a.example/ws").into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "chat".parse().unwrap());
    let (socket, response) = client_with_config(request, stream, None).map_err(|error| error.to_string()).unwrap();
    assert_eq!(response.status(), 101);
    assert_eq!(response.headers()["sec-websocket-protocol"], "chat", "the protocol of the server's choice");
    let seen = if scheme == "wss" { "https" } else { "http" };
    assert_eq!(response.headers()["x-seen-scheme"], seen);
    socket
}

/// Sends it there and back again.
fn round<S: Read + Write>(socket: &mut WebSocket<S>, message: &Message) {
    socket.send(message.clone()).unwrap();
    assert!(socket.read().unwrap() == *message, "{} bytes came back otherwise", message.len());
}

fn converse<S: Read + Write>(mut socket: WebSocket<S>) {
    for message in [
        Message::text("hello"),
        Message::text(""),
        Message::text("\u{1f6a2}".repeat(100)),
        Message::binary(vec![0, 10, 13, 255]),
        Message::binary(vec![7; 70_000]),
        Message::binary(vec![9; 4 << 20]),
        // It looks like a request, and is none of the proxy's business.
        Message::text("GET / HTTP/1.1\r\nHost: b\r\nHost: c\r\n\r\n"),
    ] {
        round(&mut socket, &message);
    }
    socket.send(Message::Ping(b"there?"[..].into())).unwrap();
    assert_eq!(socket.read().unwrap(), Message::Pong(b"there?"[..].into()), "pings are the server's to answer");
    socket.send(Message::text("bye")).unwrap();
    let Message::Close(Some(close)) = socket.read().unwrap() else { panic!("no close") };
    assert_eq!((u16::from(close.code), close.reason.as_str()), (4000, "as you wish"));
    assert!(matches!(socket.read(), Err(tungstenite::Error::ConnectionClosed)), "both sides have ended");
}

/// The proxy before the echo server at `/ws` and a pod at `/`.
fn start() -> Option<(Proxy, Pod, rcgen::CertifiedKey<rcgen::KeyPair>)> {
    let ip = host_address()?;
    let (pod, echo) = (Pod::start(ip, "web"), echo(ip));
    let pair = generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap();
    let services = [
        service("web", &[&pod]),
        service("echo", &[echo]),
        secret("pair", &pair.cert.pem(), &pair.signing_key.serialize_pem()),
    ];
    let proxy = Proxy::start(&[("services.yaml", &services.concat()), ("ingress.yaml", &edited(0))]);
    Some((proxy, pod, pair))
}

/// The Ingress; each version has a path that says so.
fn edited(version: usize) -> String {
    let path = format!("/version-{version}");
    let paths = [("Prefix", "/ws", "echo"), ("Exact", &path, "web")];
    let no_redirect = [("roadstead.dev/ssl-redirect", "false")];
    [&*annotated("web", "a.example", &paths, &no_redirect), "  tls: [{ hosts: [a.example], secretName: pair }]\n"]
        .concat()
}

#[test]
fn messages_and_closes_pass_both_ways() {
    let Some((proxy, _pod, pair)) = start() else { return };
    converse(open(connect(proxy.http), "ws"));
    converse(open(tls(proxy.https, "a.example", pair.cert.der()).unwrap(), "wss"));
}

/// ingress-nginx #2461, #7115 and many more: a reload cut every WebSocket. Here the Ingress is edited, then gone.
#[test]
fn edits_leave_open_sockets_alone() {
    let Some((proxy, _pod, pair)) = start() else { return };
    let mut plain = open(connect(proxy.http), "ws");
    let mut secure = open(tls(proxy.https, "a.example", pair.cert.der()).unwrap(), "wss");
    for version in 1..=10 {
        proxy.write("ingress.yaml", &edited(version));
        let request = get("a.example", &format!("/version-{version}"));
        wait_until("the edit is served", || ask(proxy.http, &request).status == 200);
        round(&mut plain, &Message::text(version.to_string()));
        round(&mut secure, &Message::text(version.to_string()));
    }
    proxy.write("ingress.yaml", &ingress("other", "b.example", &[("Prefix", "/", "web")]));
    wait_until("the Ingress is gone", || ask(proxy.http, get("a.example", "/version-10")).status == 404);
    converse(plain);
    converse(secure);
}
