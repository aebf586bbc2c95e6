//! Header fields, complete: everything that a pod gets, in the clear and over TLS, and everything that a client gets back
//! (reference 2.4: ingress-nginx's template with its defaults).

use std::collections::BTreeSet;

use rcgen::generate_simple_self_signed;

use super::{
    client::{Answer, ask, ask_on, tls},
    daemon::Proxy,
    manifests::{annotated, ingress, secret, service},
    pod::{Pod, host_address},
};

/// What a client says, and what the pod gets in its place. `PORT` and `ID` stand for values that differ from run to run.
struct Row {
    what: &'static str,
    client: &'static [&'static str],
    pod: &'static [&'static str],
}

/// What every request gets, whatever the client says.
const ALWAYS: [&str; 9] = [
    "host: a.example",
    "x-request-id: ID",
    "x-real-ip: 127.0.0.1",
    "x-forwarded-for: 127.0.0.1",
    "x-forwarded-host: a.example",
    "x-forwarded-port: PORT",
    "x-forwarded-proto: SCHEME",
    "x-forwarded-scheme: SCHEME",
    "x-scheme: SCHEME",
];

const ROWS: &[Row] = &[
    Row { what: "nothing", client: &[], pod: &[] },
    Row {
        what: "ordinary fields, as they are",
        client: &["User-Agent: x/1", "Accept: */*", "Accept: text/html", "X-Empty:", "Authorization: Basic eDp5"],
        pod: &["user-agent: x/1", "accept: */*", "accept: text/html", "x-empty: ", "authorization: Basic eDp5"],
    },
    Row {
        what: "forged addresses: replaced, the old list kept beside",
        client: &[
            "X-Forwarded-For: 1.1.1.1, 2.2.2.2",
            "X-Real-IP: 1.1.1.1",
            "X-Forwarded-Host: evil",
            "X-Forwarded-Port: 1",
        ],
        pod: &["x-original-forwarded-for: 1.1.1.1, 2.2.2.2"],
    },
    Row {
        what: "forged schemes: replaced",
        client: &["X-Forwarded-Proto: ftp", "X-Forwarded-Scheme: ftp", "X-Scheme: ftp", "Forwarded: for=1.1.1.1"],
        pod: &[],
    },
    Row { what: "a forged original list", client: &["X-Original-Forwarded-For: 1.1.1.1"], pod: &[] },
    Row { what: "httpoxy", client: &["Proxy: http://evil"], pod: &[] },
    Row {
        what: "hop by hop, and what Connection names",
        client: &[
            "Connection: keep-alive, X-Secret",
            "X-Secret: s",
            "Keep-Alive: timeout=5",
            "Proxy-Connection: keep-alive",
            "TE: trailers",
            "Trailer: X-Sum",
            "HTTP2-Settings: AAMAAABk",
        ],
        pod: &[],
    },
    Row {
        what: "Connection cannot take away what is meant for the pod",
        client: &[
            "Connection: Host, Cookie, Authorization, Content-Type",
            "Cookie: a=b",
            "Authorization: Basic eDp5",
            "Content-Type: text/x",
        ],
        pod: &["cookie: a=b", "authorization: Basic eDp5", "content-type: text/x"],
    },
    Row {
        what: "underscores: dropped, they would pass for dashes",
        client: &["X_Real_IP: 1.1.1.1", "X_Forwarded_For: 1.1.1.1", "Under_score: 1"],
        pod: &[],
    },
    Row { what: "cookies in pieces: joined", client: &["Cookie: a=b", "Cookie: c=d"], pod: &["cookie: a=b; c=d"] },
    Row { what: "Expect: the proxy answers it itself", client: &["Expect: 100-continue"], pod: &[] },
    Row { what: "an upgrade to h2c: not passed on", client: &["Connection: Upgrade", "Upgrade: h2c"], pod: &[] },
];

fn expected(row: &Row, scheme: &str, port: u16) -> BTreeSet<String> {
    let always = ALWAYS.iter().map(|line| line.replace("PORT", &port.to_string()).replace("SCHEME", scheme));
    always.chain(row.pod.iter().map(|line| (*line).to_owned())).collect()
}

/// A pod's fields as lines; the request's id is checked for its form here.
fn seen(answer: &Answer) -> BTreeSet<String> {
    let seen = answer.seen();
    let line = |(name, value): &(String, String)| match &**name {
        "x-request-id" => {
            assert!(value.len() == 32 && value.bytes().all(|byte| byte.is_ascii_hexdigit()), "{value}");
            "x-request-id: ID".to_owned()
        }
        _ => format!("{name}: {value}"),
    };
    seen.fields.iter().map(line).collect()
}

#[test]
fn a_pod_gets_these_fields_and_no_others() {
    let Some(ip) = host_address() else { return };
    let pod = Pod::start(ip, "web");
    let pair = generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap();
    let (certificate, key) = (pair.cert.pem(), pair.signing_key.serialize_pem());
    let text = [
        service("web", &[&pod]),
        annotated("web", "a.example", &[("Prefix", "/", "web")], &[("roadstead.dev/ssl-redirect", "false")]),
        "  tls: [{ hosts: [a.example], secretName: a }]\n".to_owned(),
        secret("a", &certificate, &key),
    ]
    .concat();
    let proxy = Proxy::start(&[("all.yaml", &text)]);
    for row in ROWS {
        let fields: String = row.client.iter().map(|line| format!("{line}\r\n")).collect();
        let request = format!("GET / HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n");
        let plain = ask(proxy.http, &request);
        assert_eq!(seen(&plain), expected(row, "http", proxy.http.port()), "{}", row.what);
        let secure = ask_on(tls(proxy.https, "a.example", pair.cert.der()).unwrap(), request.as_bytes());
        assert_eq!(seen(&secure), expected(row, "https", proxy.https.port()), "{}, over TLS", row.what);
        check_answer(&plain, None);
        check_answer(&secure, Some("max-age=31536000; includeSubDomains"));
    }
    println!("{} rows hold, in the clear and over TLS", ROWS.len());
    let kept = ask(proxy.http, "GET / HTTP/1.1\r\nHost: a.example\r\nX-Request-ID: mine\r\n\r\n");
    assert_eq!(kept.seen().field("x-request-id").as_deref(), Some("mine"));
}

/// A client gets these and no others from a pod that says who it is.
fn check_answer(answer: &Answer, hsts: Option<&str>) {
    assert_eq!(answer.status, 200);
    assert_eq!(answer.field("server").as_deref(), Some("roadstead"), "the pod's own name is hidden");
    assert_eq!(answer.field("date").as_deref(), Some("Wed, 25 Nov 2026 00:00:00 GMT"), "the pod's own date is kept");
    assert_eq!(answer.field("content-type").as_deref(), Some("application/json"));
    assert_eq!(answer.field("content-length"), Some(answer.body.len().to_string()));
    assert_eq!(answer.field("strict-transport-security").as_deref(), hsts);
}

/// HTTP/1.0 and absolute form: the pod gets HTTP/1.1 in origin form, with the host that was asked for.
#[test]
fn a_pod_gets_origin_form_and_http_1_1() {
    let Some(ip) = host_address() else { return };
    let pod = Pod::start(ip, "web");
    let text = [service("web", &[&pod]), ingress("web", "", &[("Prefix", "/", "web")])].concat();
    let proxy = Proxy::start(&[("all.yaml", &text)]);
    for (request, target, host) in [
        ("GET /x?y HTTP/1.0\r\nHost: a.example\r\n\r\n", "/x?y", "a.example"),
        ("GET /x HTTP/1.0\r\n\r\n", "/x", ""),
        ("GET http://a.example/x?y HTTP/1.1\r\nHost: a.example\r\n\r\n", "/x?y", "a.example"),
        ("GET http://a.example HTTP/1.1\r\nHost: a.example\r\n\r\n", "/", "a.example"),
        ("GET http://a.example?y HTTP/1.1\r\nHost: a.example\r\n\r\n", "/?y", "a.example"),
        ("GET HTTP://A.Example:81/ HTTP/1.1\r\nHost: a.example:81\r\n\r\n", "/", "A.Example:81"),
        ("GET /a//b/../%2e HTTP/1.1\r\nHost: A.Example.\r\n\r\n", "/a//b/../%2e", "A.Example."),
        ("GET / HTTP/1.1\r\nHost: [2001:db8::1]:8080\r\n\r\n", "/", "[2001:db8::1]:8080"),
    ] {
        let answer = ask(proxy.http, request);
        assert_eq!(answer.status, 200, "{request:?}: {}", answer.text());
        let seen = answer.seen();
        assert_eq!((&*seen.target, &*seen.version), (target, "HTTP/1.1"), "{request:?}");
        assert_eq!(seen.field("host").as_deref(), Some(host), "{request:?}");
    }
}
