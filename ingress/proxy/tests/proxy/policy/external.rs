//! External authentication: `auth-url` and what belongs to it, against a service with real sockets.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use roadstead_model::Snapshot;
use tokio::{io::AsyncWriteExt, net::TcpListener, task::JoinHandle};

use crate::{
    client::{exchange, get, read_until, status},
    endpoint::TestEndpoint,
    objects::{annotate, config_map, empty, ingress, service},
    policy::with_options,
    proxy::Proxy,
};

/// Answers by path: `/STATUS`, or `/cookie/STATUS` with a cookie. Ends when it is dropped.
struct AuthService {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    seen: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl AuthService {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, seen) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<String>>>::default());
        let (kept, connections) = (Arc::clone(&seen), Arc::<AtomicUsize>::default());
        let count = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            let mut served = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                let seen = Arc::clone(&kept);
                let service = service_fn(move |request| answer(Arc::clone(&seen), request));
                served.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { address, connections, seen, task }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn asked(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    fn last(&self) -> String {
        self.seen.lock().unwrap().last().cloned().unwrap_or_default()
    }
}

impl Drop for AuthService {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(seen: Arc<Mutex<Vec<String>>>, request: Request<Incoming>) -> Result<Response<String>, Infallible> {
    let mut text = format!("{} {}\n", request.method(), request.uri());
    for (name, value) in request.headers() {
        text.push_str(&format!("{name}: {}\n", value.to_str().unwrap()));
    }
    seen.lock().unwrap().push(text);
    let path = request.uri().path();
    let code = path.rsplit('/').next().and_then(|code| code.parse::<u16>().ok()).unwrap_or(200);
    let mut response = Response::builder().status(code).header("x-user", "alice").header("x-user", "admin");
    response = response.header("x-unasked", "1").header("www-authenticate", "Bearer realm=\"auth\"");
    if path.starts_with("/cookie/") {
        response = response.header("set-cookie", "a=1; Path=/").header("set-cookie", "b=2");
    }
    Ok(response.body("what the service has to say".to_owned()).unwrap())
}

async fn guarded(auth: &AuthService, path: &str, more: &[(&str, &str)]) -> (TestEndpoint, Snapshot) {
    let web = TestEndpoint::start("web").await;
    let mut snapshot = empty();
    service(&mut snapshot, "web", &[web.address]);
    ingress(&mut snapshot, "web", &[("a.example", "/", "web")], &[]);
    ingress(&mut snapshot, "open", &[("b.example", "/", "web")], &[]);
    annotate(&mut snapshot, "web", &[("auth-url", &auth.url(path))]);
    annotate(&mut snapshot, "web", more);
    (web, snapshot)
}

#[tokio::test]
async fn the_service_decides() {
    let auth = AuthService::start().await;
    for (path, expected, asked) in [
        ("/200", 200, 1),
        ("/204", 200, 1),
        ("/401", 401, 1),
        ("/403", 403, 1),
        ("/404", 500, 1),
        ("/302", 500, 1),
        ("/500", 500, 1),
    ] {
        let (web, snapshot) = guarded(&auth, path, &[]).await;
        let proxy = Proxy::start(snapshot);
        let before = auth.asked();
        let answer = exchange(proxy.http, get("a.example", "/")).await;
        assert_eq!(status(&answer), expected, "{path}: {answer}");
        assert_eq!(auth.asked() - before, asked, "{path}");
        assert_eq!(web.requests(), usize::from(expected == 200), "{path}");
        assert_eq!(answer.contains("www-authenticate: Bearer realm=\"auth\""), expected == 401, "{path}: {answer}");
        assert!(!answer.contains("what the service has to say") && !answer.contains("x-unasked"), "{answer}");
        assert_eq!(status(&exchange(proxy.http, get("b.example", "/")).await), 200, "{path}");
    }
}

#[tokio::test]
async fn the_service_is_told_of_the_request_and_gets_no_body() {
    let auth = AuthService::start().await;
    let (_web, snapshot) = guarded(&auth, "/200?for=$request_method&x=$arg_q", &[]).await;
    let proxy = Proxy::start(snapshot);
    let post = "POST /buy?q=1 HTTP/1.1\r\nHost: a.example:81\r\nCookie: session=5\r\nX-Forwarded-For: 1.1.1.1\r\n\
        X-Own: kept\r\nContent-Type: text/x\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody";
    let answer = exchange(proxy.http, post).await;
    assert!(answer.contains("body=body") && answer.contains("POST /buy?q=1\n"), "{answer}");
    let seen = auth.last();
    for line in [
        "GET /200?for=POST&x=1\n",
        "host: 127.0.0.1\n",
        "x-original-url: http://a.example:81/buy?q=1\n",
        "x-original-method: POST\n",
        "x-sent-from: nginx-ingress-controller\n",
        "x-real-ip: 127.0.0.1\n",
        "x-forwarded-for: 127.0.0.1\n",
        "x-auth-request-redirect: /buy?q=1\n",
        "x-request-id: ",
        "cookie: session=5\n",
        "x-own: kept\n",
    ] {
        assert!(seen.contains(line), "{line:?} in {seen}");
    }
    for absent in ["content-length", "content-type", "x-forwarded-proto", "transfer-encoding"] {
        assert!(!seen.contains(absent), "{absent} in {seen}");
    }
    let id = |text: &str| text.lines().find_map(|line| line.strip_prefix("x-request-id: ")).unwrap().to_owned();
    assert_eq!(id(&seen), id(&answer), "service and endpoint know the request by the same name");
}

#[tokio::test]
async fn method_redirect_and_further_fields_are_the_configuration_s() {
    let auth = AuthService::start().await;
    let more = [
        ("auth-method", "POST"),
        ("auth-request-redirect", "https://app.example/after"),
        ("auth-proxy-set-headers", "fields"),
    ];
    let (_web, mut snapshot) = guarded(&auth, "/200", &more).await;
    config_map(&mut snapshot, "fields", &[("X-Tenant", "$host"), ("X-Own", "")]);
    let proxy = Proxy::start(snapshot);
    let request = get("a.example", "/p").replace("Connection", "X-Own: 1\r\nConnection");
    assert_eq!(status(&exchange(proxy.http, request).await), 200);
    let seen = auth.last();
    for line in [
        "POST /200\n",
        "x-auth-request-redirect: https://app.example/after\n",
        "x-tenant: a.example\n",
        "x-original-uri: /p\n",
        "x-scheme: http\n",
    ] {
        assert!(seen.contains(line), "{line:?} in {seen}");
    }
    assert!(!seen.contains("x-own"), "{seen}");
}

#[tokio::test]
async fn the_endpoint_sees_the_fields_that_it_is_to_see() {
    let auth = AuthService::start().await;
    let (_web, snapshot) = guarded(&auth, "/200", &[("auth-response-headers", "X-User, X-Missing")]).await;
    let proxy = Proxy::start(snapshot);
    let forged = get("a.example", "/").replace("Connection", "X-User: root\r\nX-Missing: forged\r\nConnection");
    let answer = exchange(proxy.http, forged).await;
    assert!(answer.contains("x-user: alice, admin\n"), "{answer}");
    for absent in ["root", "forged", "x-unasked"] {
        assert!(!answer.contains(absent), "{absent} in {answer}");
    }
}

#[tokio::test]
async fn clients_without_credentials_are_sent_to_sign_in() {
    let auth = AuthService::start().await;
    for (signin, parameter, location) in [
        ("https://login.example/start", "", "https://login.example/start?rd=http://a.example:81%2Fx%3Fq%3D1%262"),
        ("https://$host/s?a=b", "", "https://a.example/s?a=b&rd=http://a.example:81%2Fx%3Fq%3D1%262"),
        ("https://login.example/", "next", "https://login.example/?next=http://a.example:81%2Fx%3Fq%3D1%262"),
        ("https://login.example/?rd=$escaped_request_uri", "", "https://login.example/?rd=%2Fx%3Fq%3D1%262"),
    ] {
        let more = [("auth-signin", signin), ("auth-signin-redirect-param", parameter)];
        let (_web, snapshot) = guarded(&auth, "/cookie/401", &more).await;
        let proxy = Proxy::start(snapshot);
        let answer = exchange(proxy.http, get("a.example:81", "/x?q=1&2")).await;
        assert_eq!(status(&answer), 302, "{signin}: {answer}");
        assert!(answer.contains(&format!("\r\nlocation: {location}\r\n")), "{signin}: {answer}");
        assert!(answer.contains("set-cookie: a=1; Path=/\r\n") && answer.contains("set-cookie: b=2\r\n"), "{answer}");
    }
    let (_web, snapshot) = guarded(&auth, "/403", &[("auth-signin", "https://login.example/")]).await;
    assert_eq!(status(&exchange(Proxy::start(snapshot).http, get("a.example", "/")).await), 403);
    let (_web, snapshot) = guarded(&auth, "/401", &[("auth-signin", "nonsense")]).await;
    let proxy = Proxy::start(snapshot);
    assert_eq!(status(&exchange(proxy.http, get("a.example", "/")).await), 401);
    assert_eq!(proxy.metric("roadstead_ingress_config_problems{severity=\"warning\"}").as_deref(), Some("1"));
}

#[tokio::test]
async fn cookies_of_the_service_go_to_the_client() {
    let auth = AuthService::start().await;
    for (path, more, expected) in [
        ("/cookie/200", &[][..], true),
        ("/cookie/401", &[], false),
        ("/cookie/401", &[("auth-always-set-cookie", "true")], true),
        ("/cookie/403", &[("auth-always-set-cookie", "maybe")], false),
    ] {
        let (_web, snapshot) = guarded(&auth, path, more).await;
        let answer = exchange(Proxy::start(snapshot).http, get("a.example", "/")).await;
        assert_eq!(
            answer.contains("set-cookie: a=1; Path=/\r\nset-cookie: b=2\r\n"),
            expected,
            "{path} {more:?}: {answer}"
        );
    }
}

#[tokio::test]
async fn answers_are_kept_by_their_key_and_status() {
    let auth = AuthService::start().await;
    for (path, more, cookies, asked) in [
        ("/200", &[][..], &["1", "1"][..], 2),
        ("/200", &[("auth-cache-key", "$cookie_session")], &["1", "1", "2", "1", "2"], 2),
        ("/401", &[("auth-cache-key", "$cookie_session")], &["1", "1"], 1),
        ("/403", &[("auth-cache-key", "$cookie_session")], &["1", "1"], 2),
        ("/403", &[("auth-cache-key", "$cookie_session"), ("auth-cache-duration", "403 1h")], &["1", "1"], 1),
        ("/200", &[("auth-cache-key", "$cookie_session"), ("auth-cache-duration", "never")], &["1", "1"], 1),
        ("/200", &[("auth-cache-key", "$unknown_variable")], &["1", "1"], 2),
        ("/cookie/200", &[("auth-cache-key", "$cookie_session")], &["1", "1"], 2),
    ] {
        let (_web, snapshot) = guarded(&auth, path, more).await;
        let proxy = Proxy::start(snapshot);
        let before = auth.asked();
        let mut statuses = Vec::new();
        for session in cookies {
            let request =
                get("a.example", "/").replace("Connection", &format!("Cookie: session={session}\r\nConnection"));
            statuses.push(status(&exchange(proxy.http, request).await));
        }
        statuses.dedup();
        assert_eq!(statuses.len(), 1, "{path} {more:?}: kept answers say the same");
        assert_eq!(auth.asked() - before, asked, "{path} {more:?}");
    }
}

#[tokio::test]
async fn kept_answers_hold_for_the_same_question_alone() {
    let auth = AuthService::start().await;
    let (_web, mut snapshot) = guarded(&auth, "/200", &[("auth-cache-key", "$cookie_session")]).await;
    let mut proxy = Proxy::start(snapshot.clone());
    assert_eq!(status(&exchange(proxy.http, get("a.example", "/")).await), 200);
    annotate(&mut snapshot, "web", &[("auth-response-headers", "X-User")]);
    proxy.apply(&snapshot);
    let answer = exchange(proxy.http, get("a.example", "/")).await;
    assert!(answer.contains("x-user: alice, admin\n"), "{answer}");
    annotate(&mut snapshot, "web", &[("auth-url", &auth.url("/403"))]);
    proxy.apply(&snapshot);
    assert_eq!(status(&exchange(proxy.http, get("a.example", "/")).await), 403);
    assert_eq!(auth.asked(), 3);
}

#[tokio::test]
async fn a_service_of_the_cluster_is_found_without_dns_and_followed() {
    let auth = AuthService::start().await;
    let (_web, mut snapshot) = guarded(&auth, "/200", &[]).await;
    annotate(&mut snapshot, "web", &[("auth-url", "http://auth.default.svc.cluster.local/200")]);
    service(&mut snapshot, "auth", &[auth.address]);
    let mut proxy = Proxy::start(snapshot.clone());
    let generation = proxy.metric("roadstead_ingress_config_generation");
    assert_eq!(status(&exchange(proxy.http, get("a.example", "/")).await), 200);
    assert!(auth.last().contains("host: auth.default.svc.cluster.local\n"), "{}", auth.last());
    service(&mut snapshot, "auth", &[]);
    proxy.apply(&snapshot);
    assert_eq!(status(&exchange(proxy.http, get("a.example", "/")).await), 500, "nobody to ask lets nobody in");
    let other = AuthService::start().await;
    service(&mut snapshot, "auth", &[other.address]);
    proxy.apply(&snapshot);
    assert_eq!(status(&exchange(proxy.http, get("a.example", "/")).await), 200);
    assert_eq!(other.asked(), 1);
    assert_eq!(proxy.metric("roadstead_ingress_config_generation"), generation, "no route was touched");
    assert_eq!(proxy.metric("roadstead_ingress_config_problems{severity=\"warning\"}").as_deref(), Some("0"));
}

#[tokio::test]
async fn what_cannot_be_honoured_lets_nobody_in() {
    let auth = AuthService::start().await;
    for more in [
        &[("auth-url", "nonsense")][..],
        &[("auth-url", "http://auth.example/$unknown_variable")],
        &[("auth-method", "FETCH")],
        &[("auth-response-headers", "a b")],
        &[("auth-proxy-set-headers", "gone")],
    ] {
        let (web, snapshot) = guarded(&auth, "/200", more).await;
        let proxy = Proxy::start(snapshot);
        assert_eq!(status(&exchange(proxy.http, get("a.example", "/")).await), 503, "{more:?}");
        assert_eq!(status(&exchange(proxy.http, get("b.example", "/")).await), 200, "{more:?}");
        assert_eq!(web.requests(), 1, "{more:?}");
        assert_eq!(proxy.metric("roadstead_ingress_config_problems{severity=\"warning\"}").as_deref(), Some("1"));
    }
    // Nobody listens there any more.
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (_web, mut snapshot) = guarded(&auth, "/200", &[]).await;
    annotate(&mut snapshot, "web", &[("auth-url", &format!("http://{gone}/"))]);
    assert_eq!(status(&exchange(Proxy::start(snapshot).http, get("a.example", "/")).await), 500);
}

#[tokio::test]
async fn the_controller_s_service_guards_whoever_has_none_of_its_own() {
    let (global, own) = (AuthService::start().await, AuthService::start().await);
    for (annotations, asked_global, asked_own, expected) in [
        (vec![], 1, 0, 403),
        (vec![("enable-global-auth".to_owned(), "false".to_owned())], 0, 0, 200),
        (vec![("enable-global-auth".to_owned(), "no".to_owned())], 1, 0, 403),
        (vec![("auth-url".to_owned(), own.url("/200"))], 0, 1, 200),
    ] {
        let web = TestEndpoint::start("web").await;
        let mut snapshot = empty();
        service(&mut snapshot, "web", &[web.address]);
        let paths = [("a.example", "/", "web"), ("a.example", "/.well-known/acme-challenge", "web")];
        ingress(&mut snapshot, "web", &paths, &[]);
        for (key, value) in &annotations {
            annotate(&mut snapshot, "web", &[(key.as_str(), value.as_str())]);
        }
        config_map(&mut snapshot, "options", &[("global-auth-url", &global.url("/403"))]);
        let proxy = with_options(snapshot);
        let before = (global.asked(), own.asked());
        assert_eq!(status(&exchange(proxy.http, get("a.example", "/")).await), expected, "{annotations:?}");
        let asked = (global.asked() - before.0, own.asked() - before.1);
        assert_eq!(asked, (asked_global, asked_own), "{annotations:?}");
        let challenge = get("a.example", "/.well-known/acme-challenge/token");
        assert_eq!(status(&exchange(proxy.http, challenge).await), 200, "{annotations:?}");
    }
}

#[tokio::test]
async fn connections_to_the_service_are_kept_as_the_ingress_says() {
    for (more, expected) in [
        (&[][..], 1),
        (&[("auth-keepalive", "0")], 6),
        (&[("auth-keepalive-requests", "2")], 3),
        (&[("auth-keepalive-requests", "0")], 1),
        (&[("auth-keepalive", "many"), ("auth-keepalive-timeout", "long")], 1),
    ] {
        let auth = AuthService::start().await;
        let (_web, snapshot) = guarded(&auth, "/200", more).await;
        let proxy = Proxy::start(snapshot);
        for _ in 0..6 {
            assert_eq!(status(&exchange(proxy.http, get("a.example", "/")).await), 200, "{more:?}");
        }
        assert_eq!(auth.connections.load(Ordering::SeqCst), expected, "{more:?}");
    }
}

#[tokio::test]
async fn a_service_that_closed_its_connections_is_asked_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // Answers one request of each connection, says that it stays, and leaves without a word at the second.
    let service = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                read_until(&mut stream, "\r\n\r\n").await;
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
                read_until(&mut stream, "\r\n\r\n").await;
            });
        }
    });
    let auth = AuthService::start().await;
    let (_web, mut snapshot) = guarded(&auth, "/200", &[]).await;
    annotate(&mut snapshot, "web", &[("auth-url", &format!("http://{address}/"))]);
    let proxy = Proxy::start(snapshot);
    for _ in 0..4 {
        assert_eq!(status(&exchange(proxy.http, get("a.example", "/")).await), 200);
    }
    service.abort();
}

#[tokio::test]
async fn a_host_is_looked_up_by_its_name() {
    let auth = AuthService::start().await;
    let (_web, mut snapshot) = guarded(&auth, "/200", &[]).await;
    let port = auth.address.port();
    for (url, expected) in [
        (format!("http://localhost:{port}/200"), 200),
        (format!("http://localhost:{port}/403"), 403),
        (format!("http://$arg_host:{port}/200"), 200),
        (format!("http://nobody.invalid:{port}/200"), 500),
        ("http://$arg_none/200".to_owned(), 500),
    ] {
        annotate(&mut snapshot, "web", &[("auth-url", &url)]);
        let proxy = Proxy::start(snapshot.clone());
        let answer = exchange(proxy.http, get("a.example", "/?host=localhost")).await;
        assert_eq!(status(&answer), expected, "{url}: {answer}");
    }
}

#[tokio::test]
async fn satisfy_any_asks_the_service_only_where_it_must() {
    let auth = AuthService::start().await;
    for (path, range, expected, asked) in [
        ("/200", "10.0.0.0/8", 200, 1),
        ("/401", "10.0.0.0/8", 401, 1),
        ("/403", "10.0.0.0/8", 403, 1),
        ("/500", "10.0.0.0/8", 500, 1),
        ("/403", "127.0.0.0/8", 200, 0),
    ] {
        let (_web, snapshot) = guarded(&auth, path, &[("satisfy", "any"), ("whitelist-source-range", range)]).await;
        let before = auth.asked();
        assert_eq!(
            status(&exchange(Proxy::start(snapshot).http, get("a.example", "/")).await),
            expected,
            "{path} {range}"
        );
        assert_eq!(auth.asked() - before, asked, "{path} {range}");
    }
}
