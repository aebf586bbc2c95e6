//! Redirects over the wire: status, Location, and that no endpoint sees the request.

use super::{Scene, ask, field, warnings};
use crate::client::status;

/// `status location`, or `200`.
async fn answer(scene: &Scene, host: &str, target: &str) -> String {
    let proxy = scene.start();
    let answer = ask(&proxy, host, target).await;
    assert_eq!(answer.contains("endpoint=web"), status(&answer) == 200, "{answer}");
    match field(&answer, "location") {
        Some(location) => format!("{} {location}", status(&answer)),
        None => status(&answer).to_string(),
    }
}

async fn check(class: &str, annotations: &[(&str, &str)], rows: &[(&str, &str, &str)]) {
    let mut scene = Scene::new().await;
    scene.add(class, "web", "a.example", &["/app"], annotations);
    for (host, target, expected) in rows {
        assert_eq!(answer(&scene, host, target).await, *expected, "{class} {annotations:?} {host}{target}");
    }
    if !rows.iter().all(|(_, _, expected)| expected.starts_with("200")) {
        assert_eq!(warnings(&scene.start()).as_deref(), Some("0"), "{annotations:?}");
    }
}

#[tokio::test]
async fn annotations_send_requests_away() {
    for class in ["nginx", "roadstead"] {
        let force = [("force-ssl-redirect", "true")];
        check(class, &force, &[("a.example:80", "/app?x=1", "308 https://a.example/app?x=1")]).await;
        let moved = [("permanent-redirect", "https://b.example$request_uri?via=$host&s=$scheme&m=$request_method")];
        let location = "301 https://b.example/app/x?via=a.example&s=http&m=GET";
        check(class, &moved, &[("A.example:81", "/app/x", location)]).await;
        let moved = [("temporal-redirect", "http://$namespace.$ingress_name.$service_name:$service_port/$arg_q")];
        check(class, &moved, &[("a.example", "/app?q=z", "302 http://default.web.web:80/z")]).await;
        let root = [("app-root", "/app/home")];
        check(class, &root, &[("a.example:81", "/", "302 http://a.example:81/app/home")]).await;
        let www = [("from-to-www-redirect", "true")];
        check(class, &www, &[("www.a.example:81", "/x?y", "308 http://a.example:81/x?y")]).await;
    }
    let slash = [("force-ssl-redirect", "true"), ("preserve-trailing-slash", "true")];
    check("nginx", &slash[..1], &[("a.example", "/app/", "308 https://a.example/app")]).await;
    check("nginx", &slash, &[("a.example", "/app/", "308 https://a.example/app/")]).await;
    check("roadstead", &slash[..1], &[("a.example", "/app/", "308 https://a.example/app/")]).await;
}

#[tokio::test]
async fn class_nginx_sends_to_the_path_with_a_slash() {
    for (class, expected) in [("nginx", "301 http://a.example/app/?x"), ("roadstead", "200")] {
        let mut scene = Scene::new().await;
        scene.add(class, "web", "a.example", &["/app/"], &[]);
        assert_eq!(answer(&scene, "a.example", "/app?x").await, expected, "{class}");
    }
    let mut scene = Scene::new().await;
    scene.add("nginx", "web", "a.example", &["/app/"], &[("relative-redirects", "true")]);
    assert_eq!(answer(&scene, "a.example", "/app").await, "301 /app/");
}

#[tokio::test]
async fn wrong_redirects_are_counted_and_the_rest_is_served() {
    for (key, value) in [
        ("force-ssl-redirect", "yes"),
        ("ssl-redirect", "no"),
        ("preserve-trailing-slash", "2"),
        ("permanent-redirect", "//b.example"),
        ("permanent-redirect", "https://b.example/$nothing"),
        ("temporal-redirect", "javascript:alert(1)"),
        ("permanent-redirect-code", "99"),
        ("temporal-redirect-code", "x"),
        ("app-root", "home"),
        ("from-to-www-redirect", "x"),
        ("relative-redirects", "x"),
    ] {
        let mut scene = Scene::new().await;
        scene.add("nginx", "web", "a.example", &["/app"], &[(key, value)]);
        assert_eq!(answer(&scene, "a.example", "/app").await, "200", "{key}: {value}");
        assert_eq!(warnings(&scene.start()).as_deref(), Some("1"), "{key}: {value}");
    }
}

/// What a client puts into the request never ends the field that it is put into.
#[tokio::test]
async fn no_request_splits_the_answer() {
    let mut scene = Scene::new().await;
    let annotations = [("temporal-redirect", "https://b.example/$arg_a?$http_x_y&$cookie_c#$uri")];
    scene.add("roadstead", "web", "a.example", &["/app"], &annotations);
    let proxy = scene.start();
    let request = "GET /app/%0d%0aSet-Cookie:%20a?a=%0d%0aX:1 HTTP/1.1\r\nHost: a.example\r\nX-Y: a\tb \"<\r\n\
        Cookie: c=d\x01\r\nConnection: close\r\n\r\n";
    assert_eq!(status(&crate::client::exchange(proxy.http, request).await), 400, "a control in a field");
    let answer = crate::client::exchange(proxy.http, request.replace('\u{1}', "")).await;
    let location = field(&answer, "location").unwrap();
    assert_eq!(location, "https://b.example/%0d%0aX:1?a%09b%20%22%3C&d#/app/Set-Cookie:%20a");
    assert!(!answer.to_lowercase().contains("\nset-cookie"), "{answer}");
}
