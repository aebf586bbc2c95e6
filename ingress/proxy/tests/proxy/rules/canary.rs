//! Canaries over the wire: who answers.

use super::{Scene, ask, field, warnings};
use crate::{
    client::{exchange, status},
    endpoint::TestEndpoint,
    objects::{annotate, edit, ingress, service},
    proxy::Proxy,
};

/// A main Ingress with its endpoint `web`, and an endpoint for a canary of it.
struct Pair {
    scene: Scene,
    _canary: TestEndpoint,
}

impl Pair {
    async fn new(main: &[(&str, &str)], rules: &[(&str, &str)]) -> Self {
        let mut scene = Scene::new().await;
        let canary = TestEndpoint::start("canary").await;
        service(&mut scene.snapshot, "canary", &[canary.address]);
        scene.add("nginx", "web", "a.example", &["/", "/other"], main);
        let mut pair = Self { scene, _canary: canary };
        pair.add_canary("canary", rules);
        pair
    }

    fn add_canary(&mut self, name: &str, rules: &[(&str, &str)]) {
        let snapshot = &mut self.scene.snapshot;
        ingress(snapshot, name, &[("a.example", "/", "canary")], &[]);
        annotate(snapshot, name, &[("canary", "true")]);
        annotate(snapshot, name, rules);
        edit(snapshot, name, |object| object.class = Some("nginx".to_owned()));
    }
}

/// Who answers a request with these fields.
async fn who(proxy: &Proxy, target: &str, fields: &str) -> String {
    let request = format!("GET {target} HTTP/1.1\r\nHost: a.example\r\n{fields}Connection: close\r\n\r\n");
    let answer = exchange(proxy.http, request).await;
    let line = answer.lines().find_map(|line| line.strip_prefix("endpoint="));
    line.map_or_else(|| status(&answer).to_string(), str::to_owned)
}

async fn check(rules: &[(&str, &str)], rows: &[(&str, &str)]) {
    let pair = Pair::new(&[], rules).await;
    let proxy = pair.scene.start();
    for (fields, expected) in rows {
        assert_eq!(who(&proxy, "/x", fields).await, *expected, "{rules:?} {fields:?}");
        assert_eq!(who(&proxy, "/other", fields).await, "web", "another path of the host has no canary");
    }
    assert_eq!(warnings(&proxy).as_deref(), Some("0"), "{rules:?}");
}

#[tokio::test]
async fn headers_cookies_and_weights_choose_the_canary() {
    let header = ("canary-by-header", "X-Canary");
    let cookie = ("canary-by-cookie", "beta");
    let (all, none) = (("canary-weight", "100"), ("canary-weight", "0"));
    let rows = [("X-Canary: always\r\n", "canary"), ("X-Canary: never\r\n", "web"), ("", "web")];
    check(&[header, none], &rows).await;
    let rows = [
        ("X-Canary: never\r\nCookie: beta=always\r\n", "web"),
        ("X-Canary: x\r\nCookie: a=b; beta=always\r\n", "canary"),
        ("Cookie: beta=never\r\n", "web"),
        ("", "canary"),
    ];
    check(&[header, cookie, all], &rows).await;
    let value = ("canary-by-header-value", "me");
    check(&[header, value], &[("X-Canary: me\r\n", "canary"), ("X-Canary: always\r\n", "web")]).await;
    let pattern = ("canary-by-header-pattern", "^user-[0-9]+$");
    check(&[header, pattern], &[("X-Canary: user-7\r\n", "canary"), ("X-Canary: user-x\r\n", "web")]).await;
}

/// Of 400 requests half go to the canary; outside these bounds once in far more runs than there will be.
#[tokio::test]
async fn a_weight_is_a_share_of_the_requests() {
    let pair = Pair::new(&[], &[("canary-weight", "500"), ("canary-weight-total", "1000")]).await;
    let proxy = pair.scene.start();
    let mut taken = 0;
    for _ in 0..400 {
        taken += u32::from(who(&proxy, "/", "").await == "canary");
    }
    assert!((100..=300).contains(&taken), "{taken} of 400");
    let line = "nginx_ingress_controller_requests{canary=\"default-canary-80\",host=\"a.example\",ingress=\"web\"";
    assert!(proxy.metric(line).is_some(), "the canary is told in the metrics");
}

#[tokio::test]
async fn everything_but_the_backend_is_the_main_ingress_s() {
    let rules = [("canary-weight", "100"), ("rewrite-target", "/of-the-canary")];
    let pair = Pair::new(&[("rewrite-target", "/of-the-main")], &rules).await;
    let answer = ask(&pair.scene.start(), "a.example", "/x").await;
    assert!(answer.contains("endpoint=canary") && answer.contains("GET /of-the-main"), "{answer}");
}

#[tokio::test]
async fn a_session_stays_with_the_backend_that_it_began_with() {
    let header = [("canary-by-header", "X-Canary")];
    let sticky = [("affinity", "cookie"), ("session-cookie-name", "route")];
    let (to, off) = ("X-Canary: always\r\n", "X-Canary: never\r\n");
    for (behavior, expected) in [("sticky", ["canary", "web"]), ("legacy", ["web", "canary"])] {
        let main = [&sticky[..], &[("affinity-canary-behavior", behavior)]].concat();
        let pair = Pair::new(&main, &header).await;
        let proxy = pair.scene.start();
        for (first, then, expected) in [(to, off, expected[0]), (off, to, expected[1])] {
            let request = format!("GET / HTTP/1.1\r\nHost: a.example\r\n{first}Connection: close\r\n\r\n");
            let answer = exchange(proxy.http, request).await;
            let cookie = field(&answer, "set-cookie").unwrap().split(';').next().unwrap().to_owned();
            assert_eq!(who(&proxy, "/", &format!("{then}Cookie: {cookie}\r\n")).await, expected, "{behavior} {first}");
        }
    }
}

#[tokio::test]
async fn a_canary_without_endpoints_or_without_a_main_ingress_takes_nothing() {
    let mut pair = Pair::new(&[], &[("canary-weight", "100")]).await;
    service(&mut pair.scene.snapshot, "canary", &[]);
    assert_eq!(who(&pair.scene.start(), "/", "").await, "web");

    let mut pair = Pair::new(&[], &[("canary-weight", "100")]).await;
    pair.scene.snapshot.ingresses.retain(|name, _| &*name.name == "canary");
    let proxy = pair.scene.start();
    assert_eq!(who(&proxy, "/", "").await, "404");
    assert_eq!(warnings(&proxy).as_deref(), Some("1"));
}

#[tokio::test]
async fn the_oldest_canary_of_a_rule_is_its_only_one() {
    let mut pair = Pair::new(&[], &[("canary-by-header", "X-First")]).await;
    pair.add_canary("later", &[("canary-by-header", "X-Second")]);
    let proxy = pair.scene.start();
    assert_eq!(who(&proxy, "/", "X-First: always\r\n").await, "canary");
    assert_eq!(who(&proxy, "/", "X-Second: always\r\n").await, "web");
    assert_eq!(warnings(&proxy).as_deref(), Some("1"), "the loser is told");
}

#[tokio::test]
async fn wrong_canaries_are_counted_and_the_main_ingress_is_served() {
    let header = ("canary-by-header", "X-Canary");
    for rules in [
        &[("canary", "on")][..],
        &[("canary-weight", "a lot")],
        &[("canary-weight-total", "1")],
        &[("canary-by-header", "no header")],
        &[("canary-by-cookie", "a=b")],
        &[header, ("canary-by-header-pattern", "(?!never)")],
        &[("canary-by-header-value", "x")],
    ] {
        let pair = Pair::new(&[], rules).await;
        let proxy = pair.scene.start();
        assert_eq!(who(&proxy, "/", "X-Canary: x\r\n").await, "web", "{rules:?}");
        assert_eq!(warnings(&proxy).as_deref(), Some("1"), "{rules:?}");
    }
}
