//! How long connections to endpoints, and tunnels, are kept.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Duration, Instant, sleep, timeout},
};

use super::{problems, snapshot};
use crate::{
    DEADLINE,
    client::{exchange, get, read_until, status},
    endpoint::TestEndpoint,
    h2_endpoint::H2Endpoint,
    objects::{annotate, controller},
    proxy::Proxy,
};

#[tokio::test]
async fn connections_are_kept_as_the_options_say() {
    for (options, pause, connections) in [
        (&[][..], 0, 1),
        (&[("upstream-keepalive-connections", "0")], 0, 3),
        (&[("upstream-keepalive-requests", "1")], 0, 3),
        (&[("upstream-keepalive-requests", "2")], 0, 2),
        (&[("upstream-keepalive-timeout", "200ms")], 300, 3),
        (&[("upstream-keepalive-time", "200ms")], 300, 3),
    ] {
        for protocol in ["HTTP", "GRPC"] {
            let (one, two) = (TestEndpoint::start("web").await, H2Endpoint::start(100).await);
            let address = if protocol == "HTTP" { one.address } else { two.address };
            let mut snapshot = snapshot(&[address], &[("backend-protocol", protocol)]);
            let controller = controller(&mut snapshot, options);
            let proxy = Proxy::controlled(snapshot, controller, 100);
            for _ in 0..3 {
                assert_eq!(status(&exchange(proxy.http, get("a", "/")).await), 200);
                // The time itself is what is looked at.
                sleep(Duration::from_millis(pause)).await;
            }
            let seen = one.connections() + two.connections();
            assert_eq!(seen, connections, "{options:?} {protocol}");
            assert_eq!(problems(&proxy), "0 warnings, 0 errors");
        }
    }
}

#[tokio::test]
async fn wrong_options_are_told() {
    let web = TestEndpoint::start("web").await;
    for (key, value) in [
        ("upstream-keepalive-connections", "many"),
        ("upstream-keepalive-requests", "0"),
        ("upstream-keepalive-timeout", "never"),
        ("upstream-keepalive-time", "0"),
    ] {
        let mut snapshot = snapshot(&[web.address], &[]);
        let controller = controller(&mut snapshot, &[(key, value)]);
        let proxy = Proxy::controlled(snapshot, controller, 100);
        assert_eq!(problems(&proxy), "1 warnings, 0 errors", "{key}");
        assert_eq!(status(&exchange(proxy.http, get("a", "/")).await), 200);
    }
}

#[tokio::test]
async fn a_silent_tunnel_ends_with_the_read_timeout() {
    let web = TestEndpoint::start("web").await;
    let mut snapshot = snapshot(&[web.address], &[("proxy-read-timeout", "2")]);
    annotate(&mut snapshot, "web", &[("proxy-send-timeout", "3600")]);
    let proxy = Proxy::start(snapshot);
    let mut stream = TcpStream::connect(proxy.http).await.unwrap();
    let upgrade = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    stream.write_all(upgrade.as_bytes()).await.unwrap();
    assert_eq!(status(&read_until(&mut stream, "\r\n\r\n").await), 101);
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(3) {
        stream.write_all(b"x").await.unwrap();
        read_until(&mut stream, "x").await;
        sleep(Duration::from_millis(200)).await;
    }
    let count = timeout(DEADLINE, stream.read(&mut [0; 8])).await.expect("it ends in time");
    assert_eq!(count.unwrap_or(0), 0);
}
