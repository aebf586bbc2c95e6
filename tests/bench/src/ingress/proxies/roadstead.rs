//! Roadstead: Kubernetes objects in a directory, as a user would write them.

use std::fmt::Write as _;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use roadstead_lab::Program;

use super::Ports;
use crate::ingress::site::{FLIPS, PATHS, PLAIN, SECURE, Side, Site};

/// Ingresses in one file, as a directory that somebody keeps has them.
const PER_FILE: usize = 100;

pub(super) fn command(site: &Site, ports: Ports) -> Result<Command> {
    let mut command = Command::new(roadstead_lab::program(Program::Ingress.file())?);
    // Every flag is also a variable: those of the user's own node are not meant.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"ROADSTEAD_")) {
        command.env_remove(name);
    }
    command.args(["run", "--threads", "1", "--metrics-addr", &Program::Ingress.address().to_string()]);
    // All clients here have one address, and no peer has such a limit by default.
    command.args(["--max-connections-per-client", "20000"]);
    for (flag, folder) in [("--manifests", "manifests"), ("--state-dir", "state")] {
        command.args([flag, &site.path(folder)]);
    }
    for (flag, port) in [("--http", ports.http), ("--https", ports.https)] {
        command.args([flag, &format!("[::]:{port}")]);
    }
    Ok(command)
}

pub(super) fn configure(site: &Site) -> Result<()> {
    let mut text = String::new();
    for (side, address) in site.endpoints() {
        service(&mut text, &format!("web-{}", side.mark()), address);
    }
    let certificate = &site.certificate;
    let indented = |pem: &str| pem.lines().map(|line| format!("    {line}\n")).collect::<String>();
    let _ = write!(
        text,
        "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: secure}}\ntype: kubernetes.io/tls\nstringData:\n  \
         tls.crt: |\n{}  tls.key: |\n{}",
        indented(&certificate.chain),
        indented(&certificate.key),
    );
    ingress(&mut text, "plain", PLAIN, &["/"], Side::First);
    ingress(&mut text, "secure", SECURE, &["/"], Side::First);
    let _ = writeln!(text, "  tls: [{{hosts: [{SECURE}], secretName: secure}}]");
    site.write("manifests/site.yaml", &text)?;
    let names: Vec<String> = site.names().collect();
    for (number, chunk) in names.chunks(PER_FILE).enumerate() {
        let mut text = String::new();
        for name in chunk {
            ingress(&mut text, name.trim_end_matches(".example"), name, &PATHS, Side::First);
        }
        site.write(&format!("manifests/hosts-{number:04}.yaml"), &text)?;
    }
    std::fs::create_dir_all(site.path("state"))?;
    flip(site, Side::First).map(drop)
}

pub(super) fn flip(site: &Site, side: Side) -> Result<Duration> {
    let mut text = String::new();
    ingress(&mut text, "flips", FLIPS, &["/"], side);
    site.write("manifests/flips.yaml", &text)
}

fn service(text: &mut String, name: &str, endpoint: std::net::SocketAddr) {
    let (address, port) = (endpoint.ip(), endpoint.port());
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: 80, targetPort: \
         {port}}}]}}\n---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {name}-1\n  labels: \
         {{kubernetes.io/service-name: {name}}}\naddressType: IPv4\nports: [{{port: {port}}}]\nendpoints: [{{addresses: \
         [{address}]}}]\n"
    );
}

fn ingress(text: &mut String, name: &str, host: &str, paths: &[&str], side: Side) {
    let _ = write!(
        text,
        "---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: {name}}}\nspec:\n  rules:\n  - host: \
         {host}\n    http:\n      paths:\n"
    );
    for path in paths {
        let _ = writeln!(
            text,
            "      - {{path: {path}, pathType: Prefix, backend: {{service: {{name: web-{}, port: {{number: 80}}}}}}}}",
            side.mark()
        );
    }
}
