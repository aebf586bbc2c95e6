//! The demo, as a visitor runs it: not only its exit code, but a line for each path that it promises.

use std::process::Command;

use roadstead_lab::program;

use super::fixture::needs_files;

/// What must stand in a line of its own that ends with "ok".
const PATHS: [&[&str]; 26] = [
    &["client", "tcp 192.168.77.11:30900", "web-1", "web-2", "web-3"],
    &["client", "udp 192.168.77.11:30053", "web-1", "web-2", "web-3"],
    &["client", "tcp [fd77::11]:30900", "web-1", "web-2", "web-3"],
    &["client", "udp [fd77::11]:30053", "web-1", "web-2", "web-3"],
    &["client", "tcp 192.168.77.12:30900", "web-1", "web-2", "web-3"],
    &["client", "udp [fd77::12]:30053", "web-1", "web-2", "web-3"],
    &["api-1", "tcp 10.96.0.10:9000", "web-1"],
    &["api-1", "udp 10.96.0.10:5353", "web-1"],
    &["api-1", "tcp [fd00:10:96::10]:9000", "web-1"],
    &["api-1", "udp [fd00:10:96::10]:5353", "web-1"],
    &["node-b", "tcp 10.96.0.10:9000", "web-1"],
    &["node-b", "udp [fd00:10:96::10]:5353", "web-1"],
    &["client", "ARP who has 192.168.77.20", "alone"],
    &["client", "NDP who has fd77::20", "alone"],
    &["client", "tcp 192.168.77.20", ":9000", "web-1"],
    &["client", "udp 192.168.77.20", ":5353", "web-1"],
    &["client", "tcp [fd77::20", ":9000", "web-1"],
    &["client", "udp [fd77::20", ":5353", "web-1"],
    &["client", "https://shop.example.com/ IPv4", "web-1"],
    &["client", "https://shop.example.com/api", "IPv6", "api-1"],
    &["client", "tcp 192.168.77.11:30999", "ECONNREFUSED"],
    &["node-a", "tcp 10.96.0.30:9000", "ECONNREFUSED"],
    &["edit", "add pod-web-4.yaml"],
    &["edit", "remove pod-web-4.yaml"],
    &["edit", "/api becomes /v2"],
    &["edit", "broken.yaml"],
];

#[test]
fn the_demo_holds() {
    if needs_files("the demo shows how a directory of YAML is edited") {
        return;
    }
    if let Some(lack) = roadstead_lab::lack() {
        eprintln!("skipped: {lack}");
        return;
    }
    let output = Command::new(program("roadstead-lab").unwrap()).arg("demo").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}\n{said}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    for path in PATHS {
        let shown = said.lines().any(|line| line.ends_with("ok") && path.iter().all(|part| line.contains(part)));
        assert!(shown, "no line for {path:?} in\n{said}");
    }
    assert!(!said.contains("FAILED"), "{said}");
}
