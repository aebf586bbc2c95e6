//! `enable-cors` and the `cors-*` annotations.

use crate::{
    client::{exchange, get, status},
    endpoint::TestEndpoint,
    objects::{annotate, empty, ingress, service},
    proxy::Proxy,
};

fn from_origin(method: &str, origin: &str) -> String {
    get("a.example", "/").replace("GET", method).replace("Connection", &format!("Origin: {origin}\r\nConnection"))
}

/// Method, origin, status, fields that must and fields that must not be there.
type Row<'a> = (&'a str, &'a str, u16, &'a [&'a str], &'a [&'a str]);

/// Annotations, then for each method and origin the status and fields that must and must not be there.
async fn check(annotations: &[(&str, &str)], rows: &[Row<'_>]) {
    let web = TestEndpoint::start("web").await;
    let mut snapshot = empty();
    service(&mut snapshot, "web", &[web.address]);
    ingress(&mut snapshot, "web", &[("a.example", "/", "web")], &[]);
    annotate(&mut snapshot, "web", annotations);
    let proxy = Proxy::start(snapshot);
    for (method, origin, expected, present, absent) in rows {
        let answer = exchange(proxy.http, from_origin(method, origin)).await;
        let head = answer.split_once("\r\n\r\n").unwrap().0.to_owned() + "\r\n";
        assert_eq!(status(&answer), *expected, "{annotations:?} {method} {origin}: {answer}");
        for field in *present {
            assert!(head.contains(&format!("\r\n{field}\r\n")), "{field} for {method} {origin}: {head}");
        }
        for field in *absent {
            assert!(!head.contains(field), "{field} for {method} {origin}: {head}");
        }
    }
}

const ALLOW: &str = "access-control-allow-";

#[tokio::test]
async fn other_origins_are_answered_as_ingress_nginx_does() {
    let any = [
        "access-control-allow-origin: *",
        "access-control-allow-credentials: true",
        "access-control-allow-methods: GET, PUT, POST, DELETE, PATCH, OPTIONS",
        "access-control-allow-headers: DNT,Keep-Alive,User-Agent,X-Requested-With,If-Modified-Since,Cache-Control,\
            Content-Type,Range,Authorization",
        "access-control-max-age: 1728000",
    ];
    let preflight = [&any[..], &["content-type: text/plain charset=UTF-8"]].concat();
    let rows: [Row<'_>; 2] = [
        ("GET", "https://anywhere.example", 200, &any, &["vary"]),
        ("OPTIONS", "https://anywhere.example", 204, &preflight, &["vary", "endpoint="]),
    ];
    check(&[("enable-cors", "true")], &rows).await;

    let listed = [
        ("enable-cors", "true"),
        ("cors-allow-origin", "https://a.example, https://*.b.example:8443"),
        ("cors-allow-methods", "GET, POST"),
        ("cors-allow-headers", "X-One"),
        ("cors-expose-headers", "X-Two"),
        ("cors-allow-credentials", "false"),
        ("cors-max-age", "60"),
    ];
    let own = [
        "access-control-allow-origin: https://x.b.example:8443",
        "access-control-allow-methods: GET, POST",
        "access-control-allow-headers: X-One",
        "access-control-expose-headers: X-Two",
        "access-control-max-age: 60",
        "vary: Origin",
    ];
    let credentials = "access-control-allow-credentials";
    let rows: [Row<'_>; 4] = [
        ("GET", "https://x.b.example:8443", 200, &own, &[credentials]),
        ("OPTIONS", "https://x.b.example:8443", 204, &own, &[credentials]),
        ("GET", "https://evil.example", 200, &["vary: Origin"], &[ALLOW]),
        ("OPTIONS", "https://evil.example", 200, &["vary: Origin"], &[ALLOW]),
    ];
    check(&listed, &rows).await;
}

#[tokio::test]
async fn refusals_can_be_read_by_the_page_too_and_preflights_need_no_leave() {
    let closed = [("enable-cors", "true"), ("whitelist-source-range", "10.0.0.0/8")];
    let any = ["access-control-allow-origin: *"];
    let origin = "https://anywhere.example";
    let rows: [Row<'_>; 2] = [("GET", origin, 403, &any, &[]), ("OPTIONS", origin, 204, &any, &[])];
    check(&closed, &rows).await;
}

#[tokio::test]
async fn redirects_can_be_followed_by_the_page_and_preflights_are_none() {
    let moved = [("enable-cors", "true"), ("permanent-redirect", "https://elsewhere.example/")];
    let any = ["access-control-allow-origin: *"];
    let origin = "https://anywhere.example";
    let rows: [Row<'_>; 2] = [("GET", origin, 301, &any, &[]), ("OPTIONS", origin, 204, &any, &["location"])];
    check(&moved, &rows).await;
}

#[tokio::test]
async fn wrong_values_open_nothing() {
    let origin = "https://anywhere.example";
    let rows: [Row<'_>; 2] = [("GET", origin, 200, &[], &[ALLOW]), ("OPTIONS", origin, 200, &[], &[ALLOW])];
    check(&[], &rows).await;
    check(&[("enable-cors", "yes")], &rows).await;
    check(&[("cors-allow-origin", "*")], &rows).await;
    check(&[("enable-cors", "true"), ("cors-allow-origin", "anywhere.example")], &rows).await;
}
