//! Rewriting over the wire: what the endpoint sees.

use super::{Scene, ask, field, warnings};
use crate::{client::status, objects::service};

/// The request line's method and target as the endpoint saw them.
fn seen(answer: &str) -> &str {
    answer.lines().find(|line| line.starts_with("GET ")).unwrap_or_else(|| panic!("no request seen: {answer}"))
}

#[tokio::test]
async fn the_endpoint_sees_the_rewritten_path() {
    for class in ["nginx", "roadstead"] {
        let mut scene = Scene::new().await;
        let annotations = [("rewrite-target", "/$2"), ("x-forwarded-prefix", "/api-of-$host")];
        scene.add(class, "web", "a.example", &["/api(/|$)(.*)"], &annotations);
        scene.raw_paths("web");
        let proxy = scene.start();
        for (target, expected) in [
            ("/api/v1/users?page=2", "GET /v1/users?page=2"),
            ("/api", "GET /"),
            ("/x/../api//a%20b%3Fc", "GET /a%20b%3Fc"),
            ("/api/%0d%0aX:1", "GET /%0D"),
        ] {
            let answer = ask(&proxy, "a.example", target).await;
            assert_eq!(seen(&answer), expected, "{class} {target}");
            assert!(answer.contains("\nx-forwarded-prefix: /api-of-a.example\n"), "{answer}");
        }
        assert_eq!(status(&ask(&proxy, "a.example", "/apix").await), 404);
        let upper = ask(&proxy, "a.example", "/API/x").await;
        assert_eq!(status(&upper), if class == "nginx" { 200 } else { 404 }, "{class}");
        assert_eq!(warnings(&proxy).as_deref(), Some("0"));
    }
}

#[tokio::test]
async fn without_a_rewrite_the_path_is_the_client_s() {
    let mut scene = Scene::new().await;
    scene.add("nginx", "web", "a.example", &["/x"], &[("use-regex", "true")]);
    let proxy = scene.start();
    for target in ["/x//y/./%41?q=%20", "/%78/y", "/X"] {
        assert_eq!(seen(&ask(&proxy, "a.example", target).await), format!("GET {target}"));
    }
}

#[tokio::test]
async fn a_rewrite_to_another_host_is_a_redirect() {
    let mut scene = Scene::new().await;
    scene.add("nginx", "web", "a.example", &["/old/(.*)"], &[("rewrite-target", "https://b.example/new/$1")]);
    let answer = ask(&scene.start(), "a.example", "/old/x?y=z").await;
    assert_eq!((status(&answer), field(&answer, "location")), (302, Some("https://b.example/new/x?y=z")));
}

#[tokio::test]
async fn the_regexes_of_one_ingress_are_those_of_its_host() {
    let mut scene = Scene::new().await;
    service(&mut scene.snapshot, "api", &[scene.web.address]);
    scene.add("nginx", "web", "a.example", &["/Plain"], &[]);
    scene.add("nginx", "other", "b.example", &["/Plain"], &[]);
    let proxy = scene.start();
    assert_eq!(status(&ask(&proxy, "a.example", "/plainer").await), 404);
    scene.add("nginx", "regex", "a.example", &["/api/v[0-9]+"], &[("use-regex", "true")]);
    let proxy = scene.start();
    for (host, target, expected) in
        [("a.example", "/plainer", 200), ("a.example", "/API/v10", 200), ("b.example", "/plainer", 404)]
    {
        assert_eq!(status(&ask(&proxy, host, target).await), expected, "{host}{target}");
    }
}

#[tokio::test]
async fn wrong_rewrites_are_counted_and_the_rest_is_served() {
    for (key, value, path, expected) in [
        ("rewrite-target", "/$nothing", "/x", 200),
        ("rewrite-target", "x", "/x", 200),
        ("use-regex", "y", "/x", 200),
        ("x-forwarded-prefix", "/p", "/x", 200),
        ("use-regex", "true", "/x(?=y)", 404),
        ("rewrite-target", "/$1", "/x", 200),
    ] {
        let mut scene = Scene::new().await;
        scene.add("nginx", "web", "a.example", &[path], &[(key, value)]);
        scene.raw_paths("web");
        scene.add("nginx", "good", "c.example", &["/"], &[]);
        let proxy = scene.start();
        assert_eq!(status(&ask(&proxy, "a.example", "/x").await), expected, "{key}: {value}");
        assert_eq!(status(&ask(&proxy, "c.example", "/").await), 200, "{key}: {value}");
        assert_eq!(warnings(&proxy).as_deref(), Some("1"), "{key}: {value}");
    }
}
