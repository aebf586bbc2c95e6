//! Which checks a snapshot asks for, and what load balancers hear at them, by real requests on loopback.

use std::time::Duration;

use roadstead_model::Severity;
use roadstead_sources::LoadOptions;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::*;

const LATE: Duration = Duration::from_secs(10);
const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), IpAddr::V6(std::net::Ipv6Addr::LOCALHOST)];

/// A Service with a health check, and what its spec says besides.
fn service(name: &str, port: u16, spec: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec:\n  type: LoadBalancer\n  \
         externalTrafficPolicy: Local\n  ipFamilyPolicy: PreferDualStack\n  healthCheckNodePort: {port}\n  \
         ports: [{{name: a, port: 80}}, {{name: b, port: 81}}]\n{spec}"
    )
}

/// A slice of the Service `web`; each endpoint is `address state node` with the state R(eady), S(erving and terminating)
/// or N(ot ready).
fn slice(name: &str, family: &str, ports: &str, endpoints: &[&str]) -> String {
    let head = format!(
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: {name}, labels: {{kubernetes.io/service-name: web}}}}\n\
         addressType: {family}\nports: [{ports}]\nendpoints:\n"
    );
    let endpoint = |text: &&str| {
        let words: Vec<&str> = text.split(' ').collect();
        let (ready, serving, terminating) = match words[1] {
            "R" => (true, true, false),
            "S" => (false, true, true),
            "N" => (false, false, false),
            other => panic!("{other}"),
        };
        format!(
            "- {{addresses: [\"{}\"], nodeName: {}, \
             conditions: {{ready: {ready}, serving: {serving}, terminating: {terminating}}}}}\n",
            words[0], words[2]
        )
    };
    head + &endpoints.iter().map(endpoint).collect::<String>()
}

const BOTH_PORTS: &str = "{name: a, port: 8080}, {name: b, port: 8081}";

fn snapshot(manifests: &str) -> Snapshot {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.yaml"), manifests).unwrap();
    let options = LoadOptions { node_port_range: "1024-65535".parse().unwrap(), ..LoadOptions::default() };
    let snapshot = roadstead_sources::load(&[folder.path().to_owned()], &options);
    let errors = snapshot.problems.iter().filter(|problem| problem.severity == Severity::Error);
    assert_eq!(errors.count(), 0, "{:?}", snapshot.problems);
    snapshot
}

/// A port that nobody has on loopback, in either family.
fn free_port() -> u16 {
    loop {
        let port = std::net::TcpListener::bind((LOOPBACK[0], 0)).unwrap().local_addr().unwrap().port();
        if std::net::TcpListener::bind((LOOPBACK[1], port)).is_ok() {
            return port;
        }
    }
}

/// Sends a request on the connection and reads the answer: its head in lower case, and its body.
async fn ask_on(stream: &mut TcpStream, request: &str) -> (String, String) {
    stream.write_all(format!("{request} HTTP/1.1\r\nhost: node\r\n\r\n").as_bytes()).await.unwrap();
    let (mut text, mut buffer) = (String::new(), [0; 4096]);
    loop {
        let read = timeout(LATE, stream.read(&mut buffer)).await.unwrap().unwrap();
        assert_ne!(read, 0, "closed after {text:?}");
        text += std::str::from_utf8(&buffer[..read]).unwrap();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let head = head.to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        if request.starts_with("HEAD") || length.parse() == Ok(body.len()) {
            return (head, body.to_owned());
        }
    }
}

async fn ask(address: SocketAddr, request: &str) -> (String, String) {
    ask_on(&mut TcpStream::connect(address).await.unwrap(), request).await
}

fn health() -> Health {
    Health::new(prometheus::Registry::new())
}

#[test]
fn checks_are_those_of_balanced_services_with_policy_local() {
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let manifests = [
        service("web", 31000, ""),
        service("taken", 31000, ""),
        service("v4", 31001, "  ipFamilies: [IPv4]\n").replace("PreferDualStack", "SingleStack"),
        service("cluster", 31002, "")
            .replace("Policy: Local", "Policy: Cluster")
            .replace("  healthCheckNodePort: 31002\n", ""),
        service("node-port", 31003, "")
            .replace("LoadBalancer", "NodePort")
            .replace("  healthCheckNodePort: 31003\n", ""),
        service("other", 31004, "")
            .replace("{name: other}", "{name: other, labels: {service.kubernetes.io/service-proxy-name: x}}"),
        slice("a", "IPv4", BOTH_PORTS, &["10.1.0.1 R here", "10.1.0.2 R here", "10.1.0.3 S here", "10.1.0.4 R there"]),
        slice("b", "IPv4", "{name: c, port: 9000}", &["10.1.0.2 R here", "10.1.0.5 N here"]),
        slice("c", "IPv6", BOTH_PORTS, &["fd00::1 R here", "fd00::2 S here"]),
        slice("d", "IPv6", "", &["fd00::9 R here"]),
    ];
    let mut manifests = manifests.to_vec();
    // The API server gives a port once; whoever writes manifests may not.
    manifests[1] = manifests[1].replace("{name: taken}", "{name: taken, creationTimestamp: \"2024-01-01T00:00:00Z\"}");
    manifests[0] = manifests[0].replace("{name: web}", "{name: web, creationTimestamp: \"2023-01-01T00:00:00Z\"}");
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.yaml"), manifests.concat()).unwrap();
    let snapshot = roadstead_sources::load(&[folder.path().to_owned()], &LoadOptions::default());
    let checks = wanted(&snapshot, "here", &["192.0.2.1", "2001:db8::1", "192.0.2.2"].map(ip));
    let found: Vec<_> = checks
        .into_iter()
        .map(|(address, check)| format!("{address} {} {}", check.service.name, check.endpoints))
        .collect();
    let expected = [
        "192.0.2.1:31000 web 2",
        "192.0.2.1:31001 v4 0",
        "192.0.2.2:31000 web 2",
        "192.0.2.2:31001 v4 0",
        "[2001:db8::1]:31000 web 1",
    ];
    assert_eq!(found, expected);
}

#[tokio::test]
async fn load_balancers_hear_what_kube_proxy_says() {
    let port = free_port();
    let (good, bad) = ("http/1.1 200 ok", "http/1.1 503 service unavailable");
    type Row<'a> = (&'a str, &'a [&'a str], bool, &'a str, usize);
    let rows: [Row<'_>; 5] = [
        ("two ready", &["10.1.0.1 R here", "10.1.0.2 R here", "10.1.0.3 S here", "10.1.0.9 R there"], true, good, 2),
        ("two ready, proxy unhealthy", &["10.1.0.1 R here", "10.1.0.2 R here"], false, bad, 2),
        ("only terminating", &["10.1.0.3 S here", "10.1.0.9 R there"], true, bad, 0),
        ("none here", &["10.1.0.9 R there"], true, bad, 0),
        ("none, proxy unhealthy", &[], false, bad, 0),
    ];
    let health = health();
    let mut checks = HealthChecks::new(health.clone());
    for (name, endpoints, healthy, status, count) in rows {
        let slices = [("a", "IPv4"), ("b", "IPv6")].map(|(slice_name, family)| {
            let address =
                |text: &&str| if family == "IPv6" { text.replace("10.1.0.", "fd00::") } else { (*text).to_owned() };
            let texts: Vec<String> = endpoints.iter().map(address).collect();
            slice(slice_name, family, BOTH_PORTS, &texts.iter().map(String::as_str).collect::<Vec<_>>())
        });
        let slices = if endpoints.is_empty() { String::new() } else { slices.concat() };
        health.set_live(healthy);
        checks.follow(wanted(&snapshot(&(service("web", port, "") + &slices)), "here", &LOOPBACK));
        for address in LOOPBACK.map(|ip| SocketAddr::new(ip, port)) {
            for request in ["GET /", "GET /healthz?x=1", "POST /any"] {
                let (head, body) = ask(address, request).await;
                assert!(head.starts_with(status), "{name}, {address}: {head}");
                for line in ["content-type: application/json", "x-content-type-options: nosniff"] {
                    assert!(head.lines().any(|found| found == line), "{name}: {head}");
                }
                let weight = format!("x-load-balancing-endpoint-weight: {count}");
                assert!(head.lines().any(|found| found == weight), "{name}: {head}");
                let expected = format!(
                    "{{\n\t\"service\": {{\n\t\t\"namespace\": \"default\",\n\t\t\"name\": \"web\"\n\t}},\n\
                     \t\"localEndpoints\": {count},\n\t\"serviceProxyHealthy\": {healthy}\n}}"
                );
                assert_eq!(body, expected, "{name}");
            }
            let (head, body) = ask(address, "HEAD /").await;
            assert!(head.starts_with(status) && body.is_empty(), "{name}: {head}");
        }
    }
    timeout(LATE, checks.stop()).await.unwrap();
    assert!(TcpStream::connect((LOOPBACK[0], port)).await.is_err());
}

#[tokio::test]
async fn ports_come_and_go_and_the_others_keep_their_connections() {
    let (kept, other) = (SocketAddr::new(LOOPBACK[0], free_port()), SocketAddr::new(LOOPBACK[0], free_port()));
    let check = |name, endpoints| Check { service: ObjectName::new("default", name), endpoints };
    let mut checks = HealthChecks::new(health());
    checks.follow([(kept, check("kept", 1)), (other, check("other", 1))].into());
    let mut connection = TcpStream::connect(kept).await.unwrap();
    let mut closing = TcpStream::connect(other).await.unwrap();
    assert!(ask_on(&mut connection, "GET /").await.0.starts_with("http/1.1 200"));
    assert!(ask_on(&mut closing, "GET /").await.0.starts_with("http/1.1 200"));

    checks.follow([(kept, check("kept", 0))].into());
    let read = timeout(LATE, closing.read(&mut [0; 8])).await.unwrap();
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    assert!(TcpStream::connect(other).await.is_err());
    assert!(ask_on(&mut connection, "GET /").await.0.starts_with("http/1.1 503"));

    checks.follow([(kept, check("heir", 3)), (other, check("other", 1))].into());
    assert!(ask(other, "GET /").await.0.starts_with("http/1.1 200"));
    assert!(ask_on(&mut connection, "GET /").await.1.contains("\"heir\""));
    timeout(LATE, checks.stop()).await.unwrap();
    let read = timeout(LATE, connection.read(&mut [0; 8])).await.unwrap();
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
}

#[tokio::test]
async fn a_port_in_use_is_taken_when_it_is_free() {
    let holder = std::net::TcpListener::bind((LOOPBACK[0], 0)).unwrap();
    let address = holder.local_addr().unwrap();
    let check = Check { service: ObjectName::new("default", "web"), endpoints: 1 };
    let mut checks = HealthChecks::new(health());
    checks.follow([(address, check)].into());
    checks.retry();
    assert_eq!(checks.refused, BTreeSet::from([address]));
    drop(holder);
    checks.retry();
    assert!(checks.refused.is_empty());
    assert!(ask(address, "GET /").await.0.starts_with("http/1.1 200"));
    timeout(LATE, checks.stop()).await.unwrap();
}
