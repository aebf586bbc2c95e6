//! Cookie affinity: who stays, who moves, and what the cookie says.

use std::collections::BTreeSet;

use super::{Script, Scripted, drain, named, scene, warnings};
use crate::{
    client::{exchange, status},
    endpoint::TestEndpoint,
    proxy::Proxy,
};

/// Asks with a cookie; the endpoint, and the cookie that the answer sets.
async fn ask(proxy: &Proxy, cookie: Option<&str>) -> (String, Option<String>) {
    let cookie = cookie.map_or(String::new(), |cookie| format!("Cookie: theme=dark; {cookie}\r\n"));
    let request = format!("GET /shop HTTP/1.1\r\nHost: a\r\n{cookie}Connection: close\r\n\r\n");
    let answer = exchange(proxy.http, request).await;
    let set = answer.lines().find_map(|line| line.strip_prefix("set-cookie: ")).map(str::to_owned);
    (named(&answer).to_owned(), set)
}

fn pair(set: &str) -> &str {
    set.split(';').next().unwrap()
}

async fn pods(count: usize) -> Vec<TestEndpoint> {
    let mut pods = Vec::new();
    for index in 0..count {
        pods.push(TestEndpoint::start(&format!("pod-{index}")).await);
    }
    pods
}

#[tokio::test]
async fn clients_stay_with_their_endpoint_in_both_modes() {
    let pods = pods(3).await;
    let addresses: Vec<_> = pods.iter().map(|pod| pod.address).collect();
    for mode in ["balanced", "persistent"] {
        let proxy = Proxy::start(scene(&addresses, &[("affinity", "cookie"), ("affinity-mode", mode)]));
        let mut homes = BTreeSet::new();
        for _ in 0..12 {
            let (home, set) = ask(&proxy, None).await;
            let set = set.unwrap();
            assert!(set.starts_with("INGRESSCOOKIE=") && set.ends_with("; Path=/; HttpOnly"), "{set}");
            for _ in 0..3 {
                assert_eq!(ask(&proxy, Some(pair(&set))).await, (home.clone(), None), "{mode}");
            }
            homes.insert(home);
        }
        assert!(homes.len() > 1, "{mode}: new clients go to several");
    }
}

#[tokio::test]
async fn the_cookie_has_the_attributes_that_are_asked_for() {
    let pods = pods(1).await;
    let annotations = [
        ("affinity", "cookie"),
        ("session-cookie-name", "route"),
        ("session-cookie-max-age", "3600"),
        ("session-cookie-expires", "3600"),
        ("session-cookie-path", "/shop"),
        ("session-cookie-domain", "example.com"),
        ("session-cookie-secure", "true"),
        ("session-cookie-samesite", "None"),
        ("session-cookie-conditional-samesite-none", "true"),
    ];
    let proxy = Proxy::start(scene(&[pods[0].address], &annotations));
    assert_eq!(warnings(&proxy), "0");
    let set = ask(&proxy, None).await.1.unwrap();
    let parts: Vec<&str> = set.split("; ").collect();
    assert!(parts[0].starts_with("route=") && parts[1].starts_with("Expires="), "{set}");
    let expected = ["Max-Age=3600", "Domain=example.com", "Path=/shop", "Secure", "HttpOnly", "SameSite=None"];
    assert_eq!(parts[2..], expected, "{set}");
    let old = "GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: Mozilla/5.0 Chrome/66.0\r\nConnection: close\r\n\r\n";
    let answer = exchange(proxy.http, old).await;
    assert!(answer.contains("\r\nset-cookie: route=") && !answer.contains("SameSite"), "{answer}");
}

#[tokio::test]
async fn wrong_values_are_reported_and_leave_the_rest() {
    let pods = pods(1).await;
    for (key, value) in [
        ("affinity-mode", "sticky"),
        ("session-cookie-name", "a;b"),
        ("session-cookie-max-age", "never"),
        ("session-cookie-path", "nowhere"),
        ("session-cookie-samesite", "maybe"),
        ("session-cookie-secure", "maybe"),
    ] {
        let proxy = Proxy::start(scene(&[pods[0].address], &[("affinity", "cookie"), (key, value)]));
        assert_eq!(warnings(&proxy), "1", "{key}");
        let set = ask(&proxy, None).await.1.unwrap();
        assert!(set.starts_with("INGRESSCOOKIE=") && set.ends_with("; Path=/; HttpOnly"), "{key}: {set}");
    }
    let proxy = Proxy::start(scene(&[pods[0].address], &[("affinity", "ip")]));
    assert_eq!((warnings(&proxy).as_str(), ask(&proxy, None).await.1), ("1", None));
}

#[tokio::test]
async fn draining_endpoints_keep_their_clients_to_the_end() {
    let pods = pods(3).await;
    let addresses: Vec<_> = pods.iter().map(|pod| pod.address).collect();
    for mode in ["balanced", "persistent"] {
        let annotations = [("affinity", "cookie"), ("affinity-mode", mode)];
        let mut snapshot = scene(&addresses, &annotations);
        let mut proxy = Proxy::start(snapshot.clone());
        let mut clients = Vec::new();
        for _ in 0..12 {
            let (home, set) = ask(&proxy, None).await;
            clients.push((home, pair(&set.unwrap()).to_owned()));
        }
        drain(&mut snapshot, addresses[0]);
        proxy.apply(&snapshot);
        for (home, cookie) in &clients {
            assert_eq!(ask(&proxy, Some(cookie)).await, (home.clone(), None), "{mode}");
        }
        for _ in 0..12 {
            assert_ne!(ask(&proxy, None).await.0, "pod-0", "{mode}: no new client");
        }
        proxy.apply(&scene(&addresses[1..], &annotations));
        for (home, cookie) in &clients {
            let (now, set) = ask(&proxy, Some(cookie)).await;
            assert_ne!(now, "pod-0");
            assert!(home == "pod-0" || (now == *home && set.is_none()), "{mode}: the others stay");
        }
    }
}

#[tokio::test]
async fn a_client_whose_endpoint_fails_moves_only_if_it_is_to() {
    let web = TestEndpoint::start("web").await;
    for (change, moves) in [("false", false), ("true", true)] {
        let (broken, other) = (Scripted::start("broken", Script::Reset).await, web.address);
        let annotations =
            [("affinity", "cookie"), ("affinity-mode", "persistent"), ("session-cookie-change-on-failure", change)];
        // The cookie comes from a time when the endpoint was well.
        let before = Proxy::start(scene(&[broken.address], &annotations));
        let key = md5_of(&format!("default-web-80{}", broken.address));
        drop(before);
        let proxy = Proxy::start(scene(&[broken.address, other], &annotations));
        let cookie = format!("INGRESSCOOKIE={key}|x");
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\nConnection: close\r\n\r\n");
        for _ in 0..5 {
            let answer = exchange(proxy.http, &request).await;
            assert_eq!(status(&answer), if moves { 200 } else { 502 }, "{answer}");
            assert_eq!(answer.contains("\r\nset-cookie: INGRESSCOOKIE="), moves, "{answer}");
        }
        assert!(broken.requests() > 0);
    }
}

fn md5_of(text: &str) -> String {
    use md5::{Digest, Md5};
    Md5::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}
