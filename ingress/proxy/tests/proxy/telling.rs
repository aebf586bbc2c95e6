//! What is told of requests: metrics under ingress-nginx's names and the access log.

use std::{collections::BTreeMap, fs, net::IpAddr, path::Path, sync::Arc};

use roadstead_model::{ConfigMap, IngressStatus, Metadata, ObjectName, Snapshot};
use roadstead_proxy::{control::Publish, record::log::LineStyle};
use roadstead_routes::Controller;

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

/// The lines of a log, once there are so many.
async fn lines(path: &Path, count: usize) -> Vec<String> {
    let read = || fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect::<Vec<_>>();
    wait_until("the log has its lines", async || read().len() >= count).await;
    read()
}

fn shop(endpoint: &TestEndpoint) -> Snapshot {
    let mut snapshot = objects::empty();
    objects::service(&mut snapshot, "web", &[endpoint.address]);
    objects::ingress(&mut snapshot, "shop", &[("a.example", "/", "web")], &[]);
    snapshot
}

#[tokio::test]
async fn the_access_log_is_ingress_nginx_s_by_default() {
    let endpoint = TestEndpoint::start("a").await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let proxy = Proxy::start(shop(&endpoint));
    proxy.log_to(&path, LineStyle::Nginx);
    let request = "GET /x?y=\"1 HTTP/1.1\r\nHost: a.example\r\nUser-Agent: te\"st\r\nX-Request-ID: me\r\nConnection: close\r\n\r\n";
    let plain = request.replace("\"1", "1");
    let answer = exchange(proxy.http, &plain).await;
    let body = answer.split_once("\r\n\r\n").unwrap().1.len();
    exchange(proxy.http, get("b.example", "/")).await;
    let lines = lines(&path, 2).await;
    let (before, after) = lines[0].split_once('[').unwrap();
    assert_eq!(before, "127.0.0.1 - - ");
    let (time, after) = after.split_once("] ").unwrap();
    assert!(time.ends_with(" +0000") && time.len() == "25/Nov/2026:20:18:30 +0000".len(), "{time}");
    let sent = plain.len();
    let start = format!("\"GET /x?y=1 HTTP/1.1\" 200 {body} \"-\" \"te\\x22st\" {sent} ");
    let rest = after.strip_prefix(&start).unwrap_or_else(|| panic!("{after} does not start with {start}"));
    let words: Vec<_> = rest.split(' ').collect();
    let (address, length) = (endpoint.address.to_string(), body.to_string());
    assert_eq!((words[1], words[2], words[3], words[4]), ("[default-web-80]", "[]", &*address, &*length), "{rest}");
    assert_eq!((words[6], words[7]), ("200", "me"), "{rest}");
    for time in [words[0], words[5]] {
        assert!(time.parse::<f64>().is_ok_and(|time| time < 20.0), "{time}");
    }
    assert!(lines[1].contains("\"GET / HTTP/1.1\" 404 14 ") && lines[1].ends_with(" [] [] - - - - -"), "{}", lines[1]);
}

#[tokio::test]
async fn a_json_line_is_one_object() {
    let endpoint = TestEndpoint::start("a").await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let proxy = Proxy::start(shop(&endpoint));
    proxy.log_to(&path, LineStyle::Json);
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let request = format!(
        "POST /x HTTP/1.1\r\nHost: a.example\r\nReferer: \"\\\r\ntraceparent: 00-{trace}-00f067aa0ba902b7-01\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"
    );
    exchange(proxy.http, &request).await;
    let line: serde_json::Value = serde_json::from_str(&lines(&path, 1).await[0]).unwrap();
    let expected = serde_json::json!({
        "method": "POST", "host": "a.example", "uri": "/x", "protocol": "HTTP/1.1", "referer": "\"\\", "trace_id": trace,
        "ingress": "default/shop", "upstream": "default-web-80", "upstream_status": "200", "status": 200,
        "request_length": request.len(), "remote_addr": "127.0.0.1",
    });
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&line[name], value, "{name} of {line}");
    }
    assert!(line["request_id"].as_str().is_some_and(|id| id.len() == 32), "{line}");
}

#[tokio::test]
async fn options_and_annotations_choose_what_is_told() {
    let endpoint = TestEndpoint::start("a").await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let mut snapshot = shop(&endpoint);
    objects::ingress(&mut snapshot, "quiet", &[("quiet.example", "/", "web")], &[]);
    let quiet = snapshot.ingresses.get_mut(&ObjectName::new("default", "quiet")).unwrap();
    let annotations = &mut Arc::make_mut(quiet).meta.annotations;
    annotations.insert("nginx.ingress.kubernetes.io/enable-access-log".to_owned(), "false".to_owned());
    let name = ObjectName::new("default", "options");
    let format = "$status $host $http_x_user $cookie_b $arg_q [$upstream_status] $remote_user";
    let data = [("log-format-upstream", format), ("skip-access-log-urls", "/healthz")];
    let data = data.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let meta =
        Metadata { name: name.clone(), labels: Default::default(), annotations: Default::default(), created: None };
    snapshot.config_maps.insert(name.clone(), Arc::new(ConfigMap { meta, data }));
    let proxy = Proxy::controlled(snapshot, Controller { config_map: Some(name), ..Controller::default() }, 100);
    proxy.log_to(&path, LineStyle::Nginx);
    for (host, path) in [("quiet.example", "/"), ("a.example", "/healthz"), ("A.example:80", "/last?q=7")] {
        let fields = "X-User: me\r\nCookie: a=1; b=\"2\"\r\nConnection: close\r\n\r\n";
        exchange(proxy.http, format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{fields}")).await;
    }
    assert_eq!(lines(&path, 1).await, ["200 a.example me \\x222\\x22 7 [200] -"]);
}

/// Whoever starts anew knows of nothing that was written: what an Ingress shows is taken back where it is no longer so.
#[tokio::test]
async fn an_address_that_is_no_longer_published_is_taken_back_and_anothers_is_not() {
    let (name, ip) = (ObjectName::new("default", "web"), IpAddr::from([192, 0, 2, 7]));
    let mut snapshot = objects::empty();
    objects::service(&mut snapshot, "web", &[]);
    objects::ingress(&mut snapshot, "web", &[("a", "/", "web")], &[]);
    let mut proxy = Proxy::start(snapshot.clone());
    let of_service = Publish { service: Some(name.clone()), addresses: Vec::new() };
    assert_eq!(proxy.status(&of_service), BTreeMap::new(), "it says nothing, and there is nothing to say");
    objects::edit(&mut snapshot, "web", |ingress| ingress.status.addresses = vec![ip]);
    proxy.apply(&snapshot);
    assert_eq!(proxy.status(&of_service), BTreeMap::from([(name.clone(), IngressStatus::default())]));
    assert_eq!(proxy.status(&Publish::default()), BTreeMap::new(), "who publishes nothing leaves others' words alone");
    let gone = Publish { service: Some(ObjectName::new("default", "gone")), addresses: Vec::new() };
    assert_eq!(proxy.status(&gone)[&name].addresses, [ip], "while the Service is not there its last addresses stay");
}
