//! The next endpoint, by nginx's rules, and endpoints that are left alone.

use std::{net::SocketAddr, time::Duration};

use super::{Script, Scripted, ask, named, scene, warnings};
use crate::{
    client::{exchange, get, status},
    endpoint::TestEndpoint,
    objects::options,
    proxy::Proxy,
};

/// An address that refuses connections.
async fn refusing() -> SocketAddr {
    tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// One endpoint that fails by a script and is never left alone, one that is well; how often each status comes for six requests.
async fn outcomes(script: Script, request: &str, annotations: &[(&str, &str)]) -> (usize, usize) {
    let (web, failing) = (TestEndpoint::start("web").await, Scripted::start("failing", script).await);
    let annotations: Vec<_> = annotations.iter().copied().chain([("upstream-max-fails", "0")]).collect();
    let proxy = Proxy::start(scene(&[failing.address, web.address], &annotations));
    assert_eq!(warnings(&proxy), "0", "{annotations:?}");
    let (mut good, mut bad) = (0, 0);
    for _ in 0..6 {
        match status(&exchange(proxy.http, request).await) {
            200 => good += 1,
            _ => bad += 1,
        }
    }
    assert!(failing.requests() > 0);
    (good, bad)
}

#[tokio::test]
async fn requests_go_on_for_the_causes_that_are_named_and_no_other() {
    let (words, read) = ("proxy-next-upstream", get("a", "/"));
    let unavailable = Script::Status(503);
    for (script, annotations, goes_on) in [
        (Script::Reset, &[][..], true),
        (Script::Reset, &[(words, "off")], false),
        (Script::Reset, &[(words, "http_503")], false),
        (Script::Reset, &[("proxy-next-upstream-tries", "1")], false),
        (Script::Reset, &[("proxy-next-upstream-tries", "0")], true),
        (unavailable, &[], false),
        (unavailable, &[(words, "error http_503")], true),
        (unavailable, &[(words, "error http_502")], false),
        (Script::Status(404), &[(words, "http_404")], true),
        (Script::Status(429), &[(words, "http_429")], true),
    ] {
        let (good, bad) = outcomes(script, &read, annotations).await;
        assert_eq!((good > 3, bad == 0), (goes_on, goes_on), "{script:?} {annotations:?}: {good} and {bad}");
    }
}

#[tokio::test]
async fn what_may_have_been_done_is_not_done_twice_unless_it_may_be() {
    let post = get("a", "/").replace("GET", "POST");
    for (method, annotations, goes_on) in
        [("POST", &[], false), ("PATCH", &[], false), ("LOCK", &[], false), ("DELETE", &[], true)]
    {
        let (good, bad) = outcomes(Script::Reset, &post.replace("POST", method), annotations).await;
        assert_eq!((good > 3, bad == 0), (goes_on, goes_on), "{method} {annotations:?}: {good} and {bad}");
    }
}

/// By the ConfigMap for every Ingress, whatever words its annotation has, and by a word for one.
#[tokio::test]
async fn whoever_asks_for_it_has_posts_done_again() {
    let (key, post) = ("proxy-next-upstream", get("a", "/").replace("GET", "POST"));
    for (option, words, goes_on) in [
        ("false", "error", false),
        ("true", "error", true),
        ("true", "http_503", false),
        ("false", "error non_idempotent", true),
        ("perhaps", "error", false),
    ] {
        let (web, failing) = (TestEndpoint::start("web").await, Scripted::start("failing", Script::Reset).await);
        let annotations = [(key, words), ("upstream-max-fails", "0")];
        let mut snapshot = scene(&[failing.address, web.address], &annotations);
        options(&mut snapshot, &[("retry-non-idempotent", option)]);
        let proxy = Proxy::start(snapshot);
        assert_eq!(warnings(&proxy), if option == "perhaps" { "1" } else { "0" }, "{option}");
        let mut good = 0;
        for _ in 0..6 {
            good += usize::from(status(&exchange(proxy.http, &post).await) == 200);
        }
        assert!(failing.requests() > 0);
        assert_eq!(good, if goes_on { 6 } else { 3 }, "{option} {words}");
    }
}

#[tokio::test]
async fn no_other_endpoint_is_tried_when_the_time_for_it_is_over() {
    let (timeout, late) = ("proxy-next-upstream-timeout", Script::ResetAfter(Duration::from_millis(300)));
    let (good, bad) = outcomes(late, &get("a", "/"), &[(timeout, "100ms")]).await;
    assert_eq!((good, bad), (3, 3), "each in turn");
    let (good, bad) = outcomes(late, &get("a", "/"), &[(timeout, "1h")]).await;
    assert_eq!((good, bad), (6, 0));
}

#[tokio::test]
async fn the_last_answer_is_handed_on_whatever_it_is() {
    let (first, second) =
        (Scripted::start("first", Script::Status(503)).await, Scripted::start("second", Script::Status(503)).await);
    let proxy = Proxy::start(scene(&[first.address, second.address], &[("proxy-next-upstream", "http_503")]));
    let answer = ask(&proxy, "/").await;
    assert_eq!(status(&answer), 503);
    assert!(["first", "second"].contains(&named(&answer)), "{answer}");
    assert_eq!((first.requests(), second.requests()), (1, 1), "each once");
    assert_eq!(proxy.metric("roadstead_ingress_upstream_retries_total").as_deref(), Some("1"));
}

#[tokio::test]
async fn a_post_that_nobody_got_goes_to_the_next_endpoint() {
    let web = TestEndpoint::start("web").await;
    let proxy = Proxy::start(scene(&[refusing().await, web.address], &[]));
    for _ in 0..4 {
        let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody";
        assert!(exchange(proxy.http, post).await.contains("body=body"));
    }
}

#[tokio::test]
async fn wrong_values_are_reported_and_leave_the_defaults() {
    let (web, failing) = (TestEndpoint::start("web").await, Scripted::start("failing", Script::Reset).await);
    for (key, value) in [
        ("proxy-next-upstream", "error, timeout"),
        ("proxy-next-upstream", "http_501"),
        ("proxy-next-upstream-tries", "many"),
        ("proxy-next-upstream-timeout", "soon"),
    ] {
        let proxy = Proxy::start(scene(&[failing.address, web.address], &[(key, value)]));
        assert_eq!(warnings(&proxy), "1", "{key}");
        for _ in 0..4 {
            assert_eq!(named(&ask(&proxy, "/").await), "web", "{key}");
        }
    }
}

#[tokio::test]
async fn an_endpoint_whose_connections_fail_is_left_alone() {
    let (web, failing) = (TestEndpoint::start("web").await, Scripted::start("failing", Script::Reset).await);
    let addresses = [failing.address, web.address];
    let proxy = Proxy::start(scene(&addresses, &[("upstream-fail-timeout", "1h")]));
    for _ in 0..20 {
        assert_eq!(named(&ask(&proxy, "/").await), "web");
    }
    assert_eq!(failing.requests(), 3, "three in a row are enough");
    let metric =
        "roadstead_ingress_upstream_endpoints{namespace=\"default\",port=\"80\",service=\"web\",state=\"ejected\"}";
    assert_eq!(proxy.metric(metric).as_deref(), Some("1"));
    // An hour is long; half of all is the most.
    let patient = Proxy::start(scene(&addresses, &[("upstream-max-fails", "0")]));
    for _ in 0..20 {
        assert_eq!(named(&ask(&patient, "/").await), "web");
    }
    assert!(failing.requests() > 3 + 5, "{}", failing.requests());
}

#[tokio::test]
async fn an_endpoint_that_was_left_alone_comes_back() {
    let web = TestEndpoint::start("web").await;
    let address = refusing().await;
    let proxy = Proxy::start(scene(&[address, web.address], &[("upstream-fail-timeout", "50ms")]));
    for _ in 0..8 {
        assert_eq!(named(&ask(&proxy, "/").await), "web");
    }
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    let served = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        crate::client::read_until(&mut stream, "\r\n\r\n").await;
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nendpoint=new";
        tokio::io::AsyncWriteExt::write_all(&mut stream, answer).await.unwrap();
        tokio::time::sleep(Duration::from_secs(60)).await;
    });
    crate::wait_until("it gets a request again", async || named(&ask(&proxy, "/").await) == "new").await;
    served.abort();
}

#[tokio::test]
async fn answers_of_whatever_status_leave_an_endpoint_in_use() {
    let (web, failing) = (TestEndpoint::start("web").await, Scripted::start("failing", Script::Status(500)).await);
    let proxy = Proxy::start(scene(&[failing.address, web.address], &[]));
    for _ in 0..20 {
        ask(&proxy, "/").await;
    }
    assert_eq!(failing.requests(), 10);
}

#[tokio::test]
async fn what_is_no_answer_is_a_cause_of_its_own() {
    let read = get("a", "/");
    let (good, bad) = outcomes(Script::Garbage, &read, &[]).await;
    assert_eq!((good, bad), (3, 3), "it is no error by nginx's words");
    let (good, bad) = outcomes(Script::Garbage, &read, &[("proxy-next-upstream", "error invalid_header")]).await;
    assert_eq!((good, bad), (6, 0));
}

#[tokio::test]
async fn an_endpoint_that_says_nothing_is_given_up_for_another() {
    let (words, read) = ("proxy-next-upstream", get("a", "/"));
    let post = read.replace("GET", "POST");
    for (request, annotations, expected) in [
        (&read, &[("proxy-read-timeout", "1")][..], [200, 200]),
        (&read, &[("proxy-read-timeout", "1"), (words, "error")], [200, 504]),
        (&post, &[("proxy-read-timeout", "1")], [200, 504]),
    ] {
        let (web, silent) = (TestEndpoint::start("web").await, Scripted::start("silent", Script::Silent).await);
        let proxy = Proxy::start(scene(&[silent.address, web.address], annotations));
        let mut statuses = [0, 0];
        for seen in &mut statuses {
            *seen = status(&exchange(proxy.http, request).await);
        }
        statuses.sort_unstable();
        assert_eq!(statuses, expected, "{request} {annotations:?}");
        // Whether once or twice depends on whose turn it was first.
        assert!(silent.requests() > 0, "{request} {annotations:?}");
    }
}

#[tokio::test]
async fn a_body_goes_to_the_next_endpoint_as_long_as_all_of_it_is_kept() {
    let (web, failing) = (TestEndpoint::start("web").await, Scripted::start("failing", Script::Reset).await);
    let proxy = Proxy::start(scene(&[failing.address, web.address], &[("upstream-max-fails", "0")]));
    for _ in 0..4 {
        let put = "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody";
        let answer = exchange(proxy.http, put).await;
        assert!(answer.contains("PUT /") && answer.contains("body=body"), "{answer}");
    }
    assert!(failing.requests() > 0);
}
