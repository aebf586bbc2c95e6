//! Envoy: static listeners and clusters, routes from a file that it watches (xDS by the file system).

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::Ports;
use crate::ingress::site::{FLIPS, PATHS, PLAIN, SECURE, Side, Site};

const ROUTES: &str = "xds/routes.json";
const TYPES: &str = "type.googleapis.com/envoy";
/// More than any load here has at once; the default is 1024.
const MOST: u32 = 100_000;

pub(super) fn command(site: &Site, program: &Path) -> Command {
    let mut command = Command::new(program);
    command.args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]);
    command.args(["--config-path", &site.path("envoy.json")]);
    command
}

pub(super) fn configure(site: &Site, ports: Ports) -> Result<()> {
    site.write("site.pem", &site.certificate.chain)?;
    site.write("site.key", &site.certificate.key)?;
    flip(site, Side::First)?;
    let clusters: Vec<Value> = site.endpoints().iter().map(|(side, address)| cluster(*side, *address)).collect();
    let tls = json!({
        "name": "tls",
        "typed_config": {
            "@type": format!("{TYPES}.extensions.transport_sockets.tls.v3.DownstreamTlsContext"),
            "common_tls_context": {
                "alpn_protocols": ["h2", "http/1.1"],
                "tls_certificates": [{
                    "certificate_chain": { "filename": site.path("site.pem") },
                    "private_key": { "filename": site.path("site.key") },
                }],
            },
        },
    });
    let (plain, mut secure) = (listener(site, "http", ports.http), listener(site, "https", ports.https));
    if let Some(chain) = secure.pointer_mut("/filter_chains/0").and_then(Value::as_object_mut) {
        chain.insert("transport_socket".to_owned(), tls);
    }
    let whole = json!({
        "node": { "id": "bench", "cluster": "bench" },
        "static_resources": { "listeners": [plain, secure], "clusters": clusters },
    });
    site.write("envoy.json", &whole.to_string()).map(drop)
}

pub(super) fn flip(site: &Site, side: Side) -> Result<Duration> {
    let route = |path: &str, side: Side| json!({ "match": { "prefix": path }, "route": { "cluster": side.mark().to_string() } });
    let host = |name: &str, routes: Vec<Value>| json!({ "name": name, "domains": [name, format!("{name}:*")], "routes": routes });
    let mut hosts = vec![
        host(PLAIN, vec![route("/", Side::First)]),
        host(SECURE, vec![route("/", Side::First)]),
        host(FLIPS, vec![route("/", side)]),
    ];
    // The first match counts, so the longest path goes first.
    hosts.extend(
        site.names().map(|name| host(&name, PATHS.iter().rev().map(|path| route(path, Side::First)).collect())),
    );
    let whole = json!({
        "resources": [{
            "@type": format!("{TYPES}.config.route.v3.RouteConfiguration"),
            "name": "routes",
            "virtual_hosts": hosts,
        }],
    });
    site.write(ROUTES, &whole.to_string())
}

fn cluster(side: Side, address: std::net::SocketAddr) -> Value {
    let address = json!({ "socket_address": { "address": address.ip(), "port_value": address.port() } });
    let limits = json!({ "max_connections": MOST, "max_pending_requests": MOST, "max_requests": MOST });
    json!({
        "name": side.mark().to_string(),
        "type": "STATIC",
        "connect_timeout": "5s",
        "circuit_breakers": { "thresholds": [limits] },
        "load_assignment": {
            "cluster_name": side.mark().to_string(),
            "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": address } }] }],
        },
    })
}

fn listener(site: &Site, name: &str, port: u16) -> Value {
    let router = json!({
        "name": "router",
        "typed_config": { "@type": format!("{TYPES}.extensions.filters.http.router.v3.Router") },
    });
    let source = json!({ "path": site.path(ROUTES), "watched_directory": { "path": site.path("xds") } });
    let manager = json!({
        "@type": format!("{TYPES}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": name,
        "use_remote_address": true,
        "rds": { "route_config_name": "routes", "config_source": { "path_config_source": source } },
        "http_filters": [router],
    });
    json!({
        "name": name,
        "address": { "socket_address": { "address": "::", "port_value": port, "ipv4_compat": true } },
        "filter_chains": [{ "filters": [{ "name": "http", "typed_config": manager }] }],
    })
}
