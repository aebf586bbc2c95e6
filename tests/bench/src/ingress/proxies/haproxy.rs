//! HAProxy: one frontend, a map from host and path to backends, a backend an endpoint.

use std::fmt::Write as _;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::Ports;
use crate::ingress::site::{FLIPS, PATHS, PLAIN, SECURE, Side, Site};

pub(super) fn command(site: &Site) -> Command {
    let mut command = Command::new("haproxy");
    command.args(["-W", "-f", &site.path("haproxy.cfg")]);
    command
}

pub(super) fn configure(site: &Site, ports: Ports) -> Result<()> {
    site.write("site.pem", &format!("{}{}", site.certificate.chain, site.certificate.key))?;
    site.write("haproxy.cfg", &main(site, ports))?;
    let mut text = format!("{PLAIN}/ a\n{SECURE}/ a\n");
    for name in site.names() {
        for path in PATHS {
            let _ = writeln!(text, "{name}{path} a");
        }
    }
    site.write("hosts.map", &text)?;
    flip(site, Side::First).map(drop)
}

pub(super) fn flip(site: &Site, side: Side) -> Result<Duration> {
    site.write("flips.map", &format!("{FLIPS} {}\n", side.mark()))
}

fn main(site: &Site, ports: Ports) -> String {
    let Ports { http, https } = ports;
    let (certificate, flips, hosts) = (site.path("site.pem"), site.path("flips.map"), site.path("hosts.map"));
    let mut text = format!(
        "global
  nbthread 1
  maxconn 12000
  no strict-limits
defaults
  mode http
  timeout connect 5s
  timeout client 600s
  timeout server 600s
  timeout http-keep-alive 600s
  http-reuse always
  option forwardfor
frontend all
  bind :::{http} v4v6 backlog 4096
  bind :::{https} v4v6 backlog 4096 ssl crt {certificate} alpn h2,http/1.1
  http-request set-header X-Real-IP %[src]
  http-request set-header X-Forwarded-Proto http
  http-request set-header X-Forwarded-Proto https if {{ ssl_fc }}
  use_backend %[req.hdr(host),map({flips})] if {{ req.hdr(host),map({flips}) -m found }}
  use_backend %[base,map_beg({hosts})] if {{ base,map_beg({hosts}) -m found }}
"
    );
    for (side, address) in site.endpoints() {
        let mark = side.mark();
        let _ = write!(text, "backend {mark}\n  server {mark} {address} pool-max-conn 1024\n");
    }
    text
}
