//! Fields of the configuration's own, and whom the controller blocks.

use crate::{
    client::{exchange, get, status},
    endpoint::TestEndpoint,
    objects::{annotate, config_map, empty, ingress, service},
    policy::with_options,
    proxy::Proxy,
};

#[tokio::test]
async fn config_maps_set_and_hide_fields() {
    let web = TestEndpoint::start("web").await;
    let mut snapshot = empty();
    service(&mut snapshot, "web", &[web.address]);
    ingress(&mut snapshot, "web", &[("a.example", "/", "web")], &[]);
    ingress(&mut snapshot, "other", &[("b.example", "/", "web")], &[]);
    ingress(&mut snapshot, "wrong", &[("c.example", "/", "web")], &[]);
    annotate(&mut snapshot, "web", &[("custom-headers", "web-headers")]);
    annotate(&mut snapshot, "wrong", &[("custom-headers", "wrong-headers")]);
    config_map(&mut snapshot, "web-headers", &[("X-Frame-Options", "DENY"), ("X-Site", "web")]);
    config_map(&mut snapshot, "wrong-headers", &[("Set-Cookie", "a=b")]);
    config_map(&mut snapshot, "all-answers", &[("X-Site", "all"), ("X-Asked", "$request_method $host")]);
    config_map(&mut snapshot, "all-requests", &[("X-Start", "t=$request_uri"), ("X-Gone", "")]);
    config_map(
        &mut snapshot,
        "options",
        &[
            ("global-allowed-response-headers", "X-Frame-Options,X-Site"),
            ("add-headers", "default/all-answers"),
            ("proxy-set-headers", "default/all-requests"),
            ("hide-headers", "Date"),
        ],
    );
    let mut proxy = with_options(snapshot.clone());
    let ask = async |proxy: &Proxy, host: &str| {
        let request = get(host, "/x").replace("Connection", "X-Gone: 1\r\nX-Start: forged\r\nConnection");
        exchange(proxy.http, request).await
    };
    let answer = ask(&proxy, "a.example").await;
    for field in
        ["\r\nx-frame-options: DENY\r\n", "\r\nx-site: web\r\n", "\r\nx-asked: GET a.example\r\n", "x-start: t=/x\n"]
    {
        assert!(answer.contains(field), "{field:?} in {answer}");
    }
    assert!(!answer.contains("x-gone") && !answer.contains("forged"), "{answer}");
    let answer = ask(&proxy, "b.example").await;
    assert!(answer.contains("\r\nx-site: all\r\n") && !answer.contains("x-frame-options"), "{answer}");
    assert_eq!(status(&ask(&proxy, "c.example").await), 503);
    assert_eq!(proxy.metric("roadstead_ingress_config_problems{severity=\"warning\"}").as_deref(), Some("1"));
    // A ConfigMap that only an annotation names is followed as well.
    config_map(&mut snapshot, "web-headers", &[("X-Frame-Options", "SAMEORIGIN")]);
    proxy.apply(&snapshot);
    assert!(ask(&proxy, "a.example").await.contains("\r\nx-frame-options: SAMEORIGIN\r\n"));
}

#[tokio::test]
async fn blocked_clients_get_403_from_every_host() {
    let web = TestEndpoint::start("web").await;
    for (options, fields, expected) in [
        (&[("block-cidrs", "127.0.0.0/8")][..], "", 403),
        (&[("block-cidrs", "10.0.0.0/8")], "", 200),
        (&[("block-cidrs", "nonsense,127.0.0.0/8")], "", 403),
        (&[("block-user-agents", "~*curl")], "User-Agent: CURL/8\r\n", 403),
        (&[("block-user-agents", "~*curl")], "User-Agent: Firefox\r\n", 200),
        (&[("block-user-agents", "~*(, Evil")], "User-Agent: evil\r\n", 403),
        (&[("block-referers", "~spam\\.example")], "Referer: http://spam.example/x\r\n", 403),
        (&[("block-referers", "~spam\\.example")], "", 200),
    ] {
        let mut snapshot = empty();
        service(&mut snapshot, "web", &[web.address]);
        ingress(&mut snapshot, "web", &[("a.example", "/", "web")], &[]);
        config_map(&mut snapshot, "options", options);
        let proxy = with_options(snapshot);
        let request = |host| get(host, "/").replace("Connection", &format!("{fields}Connection"));
        assert_eq!(status(&exchange(proxy.http, request("a.example")).await), expected, "{options:?} {fields}");
        let unknown = if expected == 403 { 403 } else { 404 };
        assert_eq!(status(&exchange(proxy.http, request("unknown.example")).await), unknown, "{options:?} {fields}");
    }
}
