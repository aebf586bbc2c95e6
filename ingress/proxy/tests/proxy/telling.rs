//! What is told of requests: metrics under ingress-nginx's names and the access log.

use crate::{
    client::{exchange, get, status},
    endpoint::TestEndpoint,
    objects,
    proxy::Proxy,
    wait_until,
};

#[tokio::test]
async fn requests_are_counted_by_route_under_nginx_s_names() {
    let endpoint = TestEndpoint::start("a").await;
    let mut snapshot = objects::empty();
    objects::service(&mut snapshot, "web", &[endpoint.address]);
    objects::ingress(&mut snapshot, "shop", &[("a.example", "/cart", "web")], &[]);
    let mut proxy = Proxy::start(snapshot.clone());
    for (path, expected) in [("/cart", 200), ("/cart/7", 200), ("/nothing", 404)] {
        assert_eq!(status(&exchange(proxy.http, get("a.example", path)).await), expected, "{path}");
    }
    let series = |name: &str, more: &str| {
        format!(
            "nginx_ingress_controller_{name}{{canary=\"\",host=\"a.example\",ingress=\"shop\",{more}method=\"GET\",namespace=\"default\",path=\"/cart\",service=\"web\",status=\"200\"}}"
        )
    };
    // The record is told when hyper has let the body go, which may be a moment after the client has it all.
    wait_until("both are counted", async || proxy.metric(&series("requests", "")) == Some("2".to_owned())).await;
    for name in ["request_duration_seconds", "header_duration_seconds", "connect_duration_seconds", "response_size"] {
        assert_eq!(proxy.metric(&series(&format!("{name}_count"), "")), Some("2".to_owned()), "{name}");
    }
    let sum: f64 = proxy.metric(&series("request_size_sum", "")).unwrap().parse().unwrap();
    let sent = get("a.example", "/cart").len() + get("a.example", "/cart/7").len();
    assert!((sum - sent as f64).abs() < 0.5, "{sum} of {sent}");

    snapshot.ingresses.clear();
    proxy.apply(&snapshot);
    assert_eq!(proxy.metric(&series("requests", "")), None, "nothing is told of an ingress that is gone");
}
