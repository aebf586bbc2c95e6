//! Other names of hosts, and heads that are changed on their way.

use super::{Scene, ask, field, warnings};
use crate::client::{exchange, status};

#[tokio::test]
async fn aliases_lead_where_their_host_leads() {
    let mut scene = Scene::new().await;
    scene.add("nginx", "web", "a.example", &["/app"], &[("server-alias", "b.example, *.c.example,c.example")]);
    scene.add("nginx", "other", "c.example", &["/other"], &[]);
    let proxy = scene.start();
    for (host, target, expected) in [
        ("a.example", "/app", 200),
        ("B.example:81", "/app", 200),
        ("x.c.example", "/app", 200),
        ("x.y.c.example", "/app", 404),
        ("c.example", "/app", 404),
        ("c.example", "/other", 200),
        ("d.example", "/app", 404),
    ] {
        assert_eq!(status(&ask(&proxy, host, target).await), expected, "{host}{target}");
    }
    assert_eq!(warnings(&proxy).as_deref(), Some("1"), "c.example is a host of its own");
}

#[tokio::test]
async fn the_endpoint_is_asked_for_another_host() {
    let mut scene = Scene::new().await;
    let annotations = [("upstream-vhost", "$service_name.internal:8080"), ("connection-proxy-header", "close")];
    scene.add("nginx", "web", "a.example", &["/"], &annotations);
    let proxy = scene.start();
    for _ in 0..2 {
        let answer = ask(&proxy, "a.example", "/").await;
        for line in ["host: web.internal:8080\n", "x-forwarded-host: a.example\n", "connection: close\n"] {
            assert!(answer.contains(line), "{line:?} in {answer}");
        }
    }
    assert_eq!(scene.web.connections(), 2);
}

#[tokio::test]
async fn locations_and_cookies_of_endpoints_are_changed() {
    let mut scene = Scene::new().await;
    let annotations = [
        ("proxy-redirect-from", "http://web.internal/"),
        ("proxy-redirect-to", "https://$host/app/"),
        ("proxy-cookie-domain", "web.internal a.example"),
        ("proxy-cookie-path", "~^/internal/(.*)$ /app/$1"),
    ];
    scene.add("nginx", "web", "a.example", &["/"], &annotations);
    let proxy = scene.start();
    let request = "GET / HTTP/1.1\r\nHost: a.example\r\nX-Answer-Status: 302\r\n\
        X-Answer-Field: location=http://web.internal/x?y\r\nX-Answer-Field: refresh=5; url=http://web.internal/z\r\n\
        X-Answer-Field: set-cookie=a=/internal/; Domain=.Web.Internal; Path=/internal/x; HttpOnly\r\n\
        X-Answer-Field: set-cookie=b=1\r\nConnection: close\r\n\r\n";
    let answer = exchange(proxy.http, request).await;
    assert_eq!(field(&answer, "location"), Some("https://a.example/app/x?y"));
    assert_eq!(field(&answer, "refresh"), Some("5; url=https://a.example/app/z"));
    for line in ["set-cookie: a=/internal/; Domain=.a.example; Path=/app/x; HttpOnly\r\n", "set-cookie: b=1\r\n"] {
        assert!(answer.contains(line), "{line:?} in {answer}");
    }
}

#[tokio::test]
async fn wrong_values_are_counted_and_the_rest_is_served() {
    for (key, value) in [
        ("server-alias", "~^www[0-9]+$"),
        ("upstream-vhost", "$nothing"),
        ("connection-proxy-header", "upgrade"),
        ("proxy-redirect-from", "http://a/"),
        ("proxy-cookie-domain", "one two three"),
        ("proxy-cookie-path", "~( /"),
    ] {
        let mut scene = Scene::new().await;
        scene.add("nginx", "web", "a.example", &["/"], &[(key, value)]);
        let proxy = scene.start();
        assert!(ask(&proxy, "a.example", "/").await.contains("host: a.example\n"), "{key}: {value}");
        assert_eq!(warnings(&proxy).as_deref(), Some("1"), "{key}: {value}");
    }
}
