//! nginx: a server block a host, one upstream an endpoint.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::Ports;
use crate::ingress::site::{FLIPS, PATHS, PLAIN, SECURE, Side, Site};

/// Where [`Log::File`] goes.
pub(super) const ACCESS_LOG: &str = "access.log";

/// Whether requests are logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Log {
    /// They are not.
    Off,
    /// To a file in ingress-nginx's format; and the endpoint gets all the fields that ingress-nginx sets.
    File,
}

/// The usual fields about the client.
const FIELDS: &str = "\
  proxy_set_header Host $http_host;
  proxy_set_header X-Real-IP $remote_addr;
  proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
  proxy_set_header X-Forwarded-Proto $scheme;
";

/// Those of ingress-nginx (its nginx.tmpl).
const MORE_FIELDS: &str = "\
  proxy_set_header X-Request-ID $request_id;
  proxy_set_header X-Forwarded-Host $http_host;
  proxy_set_header X-Forwarded-Port $server_port;
  proxy_set_header X-Forwarded-Scheme $scheme;
  proxy_set_header X-Scheme $scheme;
  proxy_set_header X-Original-Forwarded-For $http_x_forwarded_for;
  proxy_set_header Proxy \"\";
";

/// ingress-nginx's default log format, less the names that only Kubernetes knows.
const FORMAT: &str = "\
  log_format upstreaminfo '$remote_addr - $remote_user [$time_local] \"$request\" $status $body_bytes_sent \
\"$http_referer\" \"$http_user_agent\" $request_length $request_time [$proxy_host] [] $upstream_addr \
$upstream_response_length $upstream_response_time $upstream_status $request_id';
";

pub(super) fn command(site: &Site) -> Command {
    let mut command = Command::new("nginx");
    command.args(["-e", &site.path("start.log"), "-p", &site.path(""), "-c", &site.path("nginx.conf")]);
    command
}

pub(super) fn configure(site: &Site, ports: Ports, log: Log) -> Result<()> {
    fs::create_dir_all(site.path("temp")).context("no folder for nginx")?;
    site.write("site.pem", &site.certificate.chain)?;
    site.write("site.key", &site.certificate.key)?;
    site.write("nginx.conf", &main(site, ports, log))?;
    let mut text = String::new();
    for name in site.names() {
        let _ = writeln!(text, "server {{ {} server_name {name};", listen(ports));
        for path in PATHS {
            let _ = writeln!(text, "  location {path} {{ proxy_pass http://a; }}");
        }
        text.push_str("}\n");
    }
    site.write("hosts.conf", &text)?;
    flip(site, Side::First).map(drop)
}

pub(super) fn flip(site: &Site, side: Side) -> Result<Duration> {
    site.write("flips.conf", &format!("location / {{ proxy_pass http://{}; }}\n", side.mark()))
}

fn listen(ports: Ports) -> String {
    format!("listen [::]:{};", ports.http)
}

/// Buckets of 512 bytes: with the usual 64, nginx tries sizes of its table of 10,000 names for seconds before it starts.
fn main(site: &Site, ports: Ports, log: Log) -> String {
    let mut text = String::from(
        "user root;\ndaemon off;\nworker_processes 1;\npid nginx.pid;\nerror_log error.log warn;\n\
         events { worker_connections 16384; }\nhttp {\n",
    );
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        let _ = writeln!(text, "  {kind}_temp_path temp/{kind};");
    }
    match log {
        Log::Off => text.push_str("  access_log off;\n"),
        Log::File => {
            text.push_str(FORMAT);
            let _ = writeln!(text, "  access_log {ACCESS_LOG} upstreaminfo;");
        }
    }
    text.push_str(
        "  keepalive_timeout 600s;\n  keepalive_requests 1000000000;\n  server_names_hash_max_size 131072;\n  \
         server_names_hash_bucket_size 512;\n  proxy_http_version 1.1;\n  proxy_set_header Connection \"\";\n",
    );
    text.push_str(FIELDS);
    if log == Log::File {
        text.push_str(MORE_FIELDS);
    }
    for (side, address) in site.endpoints() {
        let _ = writeln!(
            text,
            "  upstream {} {{ server {address}; keepalive 1024; keepalive_requests 1000000000; keepalive_timeout 600s; }}",
            side.mark()
        );
    }
    let _ = write!(
        text,
        "  ssl_certificate site.pem;\n  ssl_certificate_key site.key;\n  ssl_protocols TLSv1.2 TLSv1.3;\n  server {{\n    \
         listen [::]:{} ipv6only=off backlog=4096 default_server;\n    listen [::]:{} ipv6only=off backlog=4096 ssl http2;\n    \
         server_name {PLAIN} {SECURE};\n    location / {{ proxy_pass http://a; }}\n  }}\n  server {{ {} server_name {FLIPS}; \
         include flips.conf; }}\n  include hosts.conf;\n}}\n",
        ports.http,
        ports.https,
        listen(ports),
    );
    text
}
