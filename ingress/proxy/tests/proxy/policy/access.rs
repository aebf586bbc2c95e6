//! Source ranges.

use crate::{
    client::{exchange, get, status},
    endpoint::TestEndpoint,
    objects::{annotate, empty, ingress, service},
    proxy::Proxy,
};

#[tokio::test]
async fn clients_are_let_in_by_their_address() {
    let web = TestEndpoint::start("web").await;
    for (annotations, expected, problems) in [
        (&[("whitelist-source-range", "127.0.0.0/8")][..], 200, 0),
        (&[("whitelist-source-range", "10.0.0.0/8, ::ffff:127.0.0.1")], 200, 0),
        (&[("whitelist-source-range", "10.0.0.0/8")], 403, 0),
        (&[("allowlist-source-range", "10.0.0.0/8")], 403, 0),
        (&[("denylist-source-range", "127.0.0.1")], 403, 0),
        (&[("denylist-source-range", "10.0.0.0/8")], 200, 0),
        (&[("denylist-source-range", "127.0.0.1"), ("whitelist-source-range", "127.0.0.1")], 403, 0),
        (&[("whitelist-source-range", "127.0.0.0/8,nonsense")], 503, 1),
        (&[("denylist-source-range", "10.0.0.0/99")], 503, 1),
    ] {
        let mut snapshot = empty();
        service(&mut snapshot, "web", &[web.address]);
        ingress(&mut snapshot, "guarded", &[("a.example", "/", "web")], &[]);
        ingress(&mut snapshot, "open", &[("b.example", "/", "web")], &[]);
        annotate(&mut snapshot, "guarded", annotations);
        let proxy = Proxy::start(snapshot);
        let forged = get("a.example", "/").replace("Connection", "X-Forwarded-For: 10.0.0.1\r\nConnection");
        for request in [get("a.example", "/"), forged] {
            let answer = exchange(proxy.http, request).await;
            assert_eq!(status(&answer), expected, "{annotations:?}: {answer}");
        }
        assert_eq!(status(&exchange(proxy.http, get("b.example", "/")).await), 200, "{annotations:?}");
        let reported = proxy.metric("roadstead_ingress_config_problems{severity=\"warning\"}");
        assert_eq!(reported, Some(problems.to_string()), "{annotations:?}");
    }
}
