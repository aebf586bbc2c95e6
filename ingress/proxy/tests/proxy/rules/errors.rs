//! Custom errors and default backends over the wire.

use roadstead_model::ObjectName;
use roadstead_routes::Controller;

use super::{Scene, controller, field, warnings};
use crate::{
    client::{exchange, status},
    endpoint::TestEndpoint,
    objects::service,
    proxy::Proxy,
};

/// A scene with an endpoint of a Service `pages` that answers for errors.
async fn scene() -> (Scene, TestEndpoint) {
    let mut scene = Scene::new().await;
    let pages = TestEndpoint::start("pages").await;
    service(&mut scene.snapshot, "pages", &[pages.address]);
    service(&mut scene.snapshot, "none", &[]);
    (scene, pages)
}

/// The answer to a GET with these fields.
async fn ask(proxy: &Proxy, target: &str, fields: &str) -> String {
    let head =
        format!("GET {target} HTTP/1.1\r\nHost: a.example\r\nAccept: text/html\r\n{fields}Connection: close\r\n\r\n");
    exchange(proxy.http, head).await
}

const CODES: (&str, &str) = ("custom-http-errors", "404,503");
const PAGES: (&str, &str) = ("default-backend", "pages");

#[tokio::test]
async fn intercepted_codes_are_answered_by_the_default_backend() {
    let (mut scene, _pages) = scene().await;
    scene.add("nginx", "web", "a.example", &["/"], &[CODES, PAGES]);
    let proxy = scene.start();
    let answer = ask(&proxy, "/x/y?q=1", "X-Answer-Status: 404\r\nX-Request-ID: id-7\r\n").await;
    for line in [
        "endpoint=pages\n",
        "GET /?q=1\n",
        "x-code: 404\n",
        "x-format: text/html\n",
        "x-original-uri: /x/y?q=1\n",
        "x-namespace: default\n",
        "x-ingress-name: web\n",
        "x-service-name: web\n",
        "x-service-port: 80\n",
        "x-request-id: id-7\n",
        "host: a.example\n",
    ] {
        assert!(answer.contains(line), "{line:?} in {answer}");
    }
    assert_eq!(status(&answer), 200, "the default backend chooses its own status, as with ingress-nginx");
    let answer = ask(&proxy, "/", "X-Answer-Status: 418\r\n").await;
    assert_eq!((status(&answer), answer.contains("endpoint=web")), (418, true));
}

#[tokio::test]
async fn endpoints_keep_their_answers_where_they_are_not_to_be_intercepted() {
    let (mut scene, _pages) = scene().await;
    scene.add("nginx", "web", "a.example", &["/"], &[CODES, PAGES, ("disable-proxy-intercept-errors", "true")]);
    let answer = ask(&scene.start(), "/", "X-Answer-Status: 404\r\n").await;
    assert_eq!((status(&answer), answer.contains("endpoint=web")), (404, true));
}

#[tokio::test]
async fn a_backend_without_endpoints_leaves_requests_to_the_default_one() {
    let (mut scene, _pages) = scene().await;
    service(&mut scene.snapshot, "web", &[]);
    scene.add("nginx", "web", "a.example", &["/"], &[PAGES]);
    let answer = ask(&scene.start(), "/x?y", "").await;
    for line in ["endpoint=pages\n", "GET /x?y\n", "x-code: 503\n", "x-service-name: web\n"] {
        assert!(answer.contains(line), "{line:?} in {answer}");
    }
}

/// The default backend has no endpoint either, or answers with an intercepted code itself: the client gets one answer.
#[tokio::test]
async fn no_error_leads_to_another_round() {
    let (mut scene, pages) = scene().await;
    service(&mut scene.snapshot, "web", &[]);
    service(&mut scene.snapshot, "pages", &[]);
    scene.add("nginx", "web", "a.example", &["/"], &[CODES, PAGES]);
    assert_eq!(status(&ask(&scene.start(), "/", "").await), 503);
    service(&mut scene.snapshot, "web", &[scene.web.address]);
    let answer = ask(&scene.start(), "/", "X-Answer-Status: 404\r\n").await;
    assert_eq!((status(&answer), answer.contains("endpoint=web")), (404, true), "{answer}");
    service(&mut scene.snapshot, "pages", &[scene.web.address]);
    let answer = ask(&scene.start(), "/", "X-Answer-Status: 404\r\n").await;
    assert!(answer.contains("x-code: 404"), "{answer}");
    assert_eq!((scene.web.requests(), pages.requests()), (3, 0));
}

#[tokio::test]
async fn the_controller_s_default_backend_takes_what_nobody_takes() {
    let (mut scene, _pages) = scene().await;
    scene.add("nginx", "web", "a.example", &["/app"], &[("custom-http-errors", "404")]);
    let default_backend = Some(ObjectName::new("default", "pages"));
    let proxy = Proxy::controlled(scene.snapshot.clone(), Controller { default_backend, ..controller() }, 100);
    assert!(ask(&proxy, "/elsewhere", "").await.contains("endpoint=pages"));
    let answer = ask(&proxy, "/app", "X-Answer-Status: 404\r\n").await;
    assert!(answer.contains("endpoint=pages") && answer.contains("x-code: 404"), "{answer}");
    assert_eq!(status(&ask(&scene.start(), "/elsewhere", "").await), 404);
}

#[tokio::test]
async fn wrong_values_are_counted_and_the_rest_is_served() {
    for (key, value) in [
        ("custom-http-errors", "four"),
        ("custom-http-errors", "404,99"),
        ("disable-proxy-intercept-errors", "x"),
        ("default-backend", "other/pages"),
    ] {
        let mut scene = Scene::new().await;
        scene.add("nginx", "web", "a.example", &["/"], &[(key, value)]);
        let proxy = scene.start();
        let answer = ask(&proxy, "/", "X-Answer-Status: 404\r\n").await;
        assert_eq!((status(&answer), field(&answer, "server")), (404, Some("roadstead")));
        assert_eq!(warnings(&proxy).as_deref(), Some("1"), "{key}: {value}");
    }
}
